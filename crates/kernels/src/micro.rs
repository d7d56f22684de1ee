//! The innermost loops of a matrix product: one tile of the result, its sums in registers.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

#[cfg(target_arch = "x86_64")]
use half::bf16;

use crate::element::Element;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, isa};

/// Most rows of a tile. 12 × 2 registers of 16 sums leave enough of AVX-512's 32 for what is
/// multiplied.
pub(crate) const MR: usize = 12;
/// Columns of a tile: the width of the right operand's panels.
pub(crate) const NR: usize = 32;

/// One tile of sums, `[MR, NR]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [[f32; NR]; MR]);

impl Tile {
    pub(crate) const ZERO: Tile = Tile([[0.0; NR]; MR]);
}

/// The left operand of a tile: its unit (r, q) lies at `start + r·row + q·unit`, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) start: *const u8,
    pub(crate) row: usize,
    /// 4 for rows as they lie in a matrix, 4 · NR for lanes of packed panels.
    pub(crate) unit: usize,
}

/// What becomes of a tile's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Put there in f32.
    Store,
    /// Added in f32 to what is there.
    Add,
    /// Put there rounded to the operands' type.
    Round,
}

/// Where a tile's sums go: row r to `start + r·stride`, in bytes, NR columns of it.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) start: *mut u8,
    pub(crate) stride: usize,
    pub(crate) kind: Kind,
}

impl Out {
    /// Into the tile.
    #[inline(always)]
    pub(crate) fn tile(tile: &mut Tile) -> Self {
        Self {
            start: tile.0.as_mut_ptr().cast(),
            stride: size_of::<[f32; NR]>(),
            kind: Kind::Store,
        }
    }
}

/// Puts the products of the first `rows` rows of `left` and of one panel, `[units, NR]` at `right`,
/// summed over `units`, where `out` says.
///
/// # Safety
/// `left` and `right` point at as many units as that, and `out` at as many rows, each with room for
/// NR columns.
pub(crate) type Product =
    unsafe fn(rows: usize, units: usize, left: Left, right: *const u32, out: Out);

/// The fastest product this processor has for elements `E`.
pub(crate) fn product<E: Element>() -> Product {
    #[cfg(target_arch = "x86_64")]
    {
        let is_bf16 = TypeId::of::<E>() == TypeId::of::<bf16>();
        match isa() {
            Isa::Avx512Bf16 if is_bf16 => return x86::bf16_product,
            Isa::Avx512Bf16 | Isa::Avx512 if !is_bf16 => return x86::f32_product,
            Isa::Avx512Bf16 | Isa::Avx512 => return x86::portable_avx512::<E>,
            Isa::Avx2 => return x86::portable_avx2::<E>,
            Isa::Baseline => {}
        }
    }
    portable::<E>
}

/// In plain Rust, for the compiler to vectorise: NR columns at a time, few rows, so that the sums
/// fit in registers.
///
/// # Safety
/// As [`Product`].
#[inline(always)]
unsafe fn portable<E: Element>(rows: usize, units: usize, left: Left, right: *const u32, out: Out) {
    /// Rows and columns whose sums 12 registers of 8 hold.
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    let mut first = 0;
    while first < rows {
        let count = ROWS.min(rows - first);
        for column in (0..NR).step_by(COLUMNS) {
            let mut sums = [[0f32; COLUMNS]; ROWS];
            for q in 0..units {
                // SAFETY: the caller's promise.
                let b = unsafe { right.add(q * NR + column).cast::<[u32; COLUMNS]>().read() };
                for (r, sums) in sums.iter_mut().enumerate() {
                    // Rows beyond the last read the last one again: a fixed count keeps the sums in
                    // registers.
                    let row = first + r.min(count - 1);
                    // SAFETY: the caller's promise.
                    let a = unsafe {
                        left.start
                            .add(row * left.row + q * left.unit)
                            .cast::<u32>()
                            .read_unaligned()
                    };
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = E::multiply_add(a, b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(count) {
                // SAFETY: the caller's promise.
                unsafe {
                    put::<E, COLUMNS>(
                        out.start.add((first + r) * out.stride),
                        column,
                        out.kind,
                        *sums,
                    )
                }
            }
        }
        first += count;
    }
}

/// Columns `column..column + N` of one row at `row`.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn put<E: Element, const N: usize>(
    row: *mut u8,
    column: usize,
    kind: Kind,
    mut sums: [f32; N],
) {
    let floats = row.cast::<f32>().wrapping_add(column).cast::<[f32; N]>();
    match kind {
        Kind::Store => {
            // SAFETY: the caller's promise.
            unsafe { floats.write_unaligned(sums) }
        }
        Kind::Add => {
            // SAFETY: the caller's promise.
            let old = unsafe { floats.read_unaligned() };
            for (sum, old) in sums.iter_mut().zip(old) {
                *sum += old;
            }
            // SAFETY: the caller's promise.
            unsafe { floats.write_unaligned(sums) }
        }
        Kind::Round => {
            let mut rounded = [E::default(); N];
            for (rounded, sum) in rounded.iter_mut().zip(sums) {
                *rounded = E::narrow(sum);
            }
            // SAFETY: the caller's promise.
            unsafe { row.cast::<E>().add(column).cast::<[E; N]>().write_unaligned(rounded) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Element, Kind, Left, NR, Out};

    /// # Safety
    /// As [`super::Product`]; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn portable_avx2<E: Element>(
        rows: usize,
        units: usize,
        left: Left,
        right: *const u32,
        out: Out,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::portable::<E>(rows, units, left, right, out) }
    }

    /// # Safety
    /// As [`super::Product`]; the processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn portable_avx512<E: Element>(
        rows: usize,
        units: usize,
        left: Left,
        right: *const u32,
        out: Out,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::portable::<E>(rows, units, left, right, out) }
    }

    /// A product with the count of rows known to the compiler, which then keeps every sum in a
    /// register.
    macro_rules! by_rows {
        ($name:ident, $tile:ident, $features:literal) => {
            /// # Safety
            /// As [`super::Product`]; the processor has the features named.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(
                rows: usize,
                units: usize,
                left: Left,
                right: *const u32,
                out: Out,
            ) {
                macro_rules! call {
                    ($unit:expr) => {
                        // SAFETY: the caller's promise.
                        unsafe {
                            match rows {
                                1 => $tile::<1, { $unit }>(units, left, right, out),
                                2 => $tile::<2, { $unit }>(units, left, right, out),
                                3 => $tile::<3, { $unit }>(units, left, right, out),
                                4 => $tile::<4, { $unit }>(units, left, right, out),
                                5 => $tile::<5, { $unit }>(units, left, right, out),
                                6 => $tile::<6, { $unit }>(units, left, right, out),
                                7 => $tile::<7, { $unit }>(units, left, right, out),
                                8 => $tile::<8, { $unit }>(units, left, right, out),
                                9 => $tile::<9, { $unit }>(units, left, right, out),
                                10 => $tile::<10, { $unit }>(units, left, right, out),
                                11 => $tile::<11, { $unit }>(units, left, right, out),
                                _ => $tile::<12, { $unit }>(units, left, right, out),
                            }
                        }
                    };
                }
                if left.unit == 4 { call!(4) } else { call!(4 * NR) }
            }
        };
    }
    by_rows!(bf16_product, bf16_tile, "avx512f,avx512bw,avx512vl,avx512bf16");
    by_rows!(f32_product, f32_tile, "avx512f");

    macro_rules! tile {
        ($name:ident, $features:literal, $load:expr, $splat:expr, $step:expr, $round:expr) => {
            /// # Safety
            /// As [`super::Product`], with R rows and units `UNIT` bytes apart.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn $name<const R: usize, const UNIT: usize>(
                units: usize,
                left: Left,
                right: *const u32,
                out: Out,
            ) {
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                let row = if UNIT == 4 { left.row } else { 4 };
                let (mut a, mut b) = (left.start, right);
                let mut ahead = out.start;
                let mut left_over = units;
                while left_over > 0 {
                    // Where the sums go may lie in memory. A row of it now and then: all rows at
                    // once would hold up the operands.
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
                    ahead = ahead.wrapping_add(out.stride);
                    let some = left_over.min(16);
                    left_over -= some;
                    for _ in 0..some {
                        // SAFETY: the caller's promise.
                        unsafe {
                            let (b0, b1) = ($load(b), $load(b.add(16)));
                            for (r, sums) in sums.iter_mut().enumerate() {
                                let a = $splat(a.add(r * row).cast::<i32>().read_unaligned());
                                sums[0] = $step(sums[0], a, b0);
                                sums[1] = $step(sums[1], a, b1);
                            }
                            a = a.add(UNIT);
                            b = b.add(NR);
                        }
                    }
                }
                for (r, &[low, high]) in sums.iter().enumerate() {
                    let row = out.start.wrapping_add(r * out.stride);
                    let floats = row.cast::<f32>();
                    // SAFETY: the caller's promise.
                    unsafe {
                        match out.kind {
                            Kind::Store => {
                                _mm512_storeu_ps(floats, low);
                                _mm512_storeu_ps(floats.add(16), high);
                            }
                            Kind::Add => {
                                _mm512_storeu_ps(
                                    floats,
                                    _mm512_add_ps(low, _mm512_loadu_ps(floats)),
                                );
                                let above = floats.add(16);
                                _mm512_storeu_ps(
                                    above,
                                    _mm512_add_ps(high, _mm512_loadu_ps(above)),
                                );
                            }
                            Kind::Round => $round(row, low, high),
                        }
                    }
                }
            }
        };
    }
    tile!(
        bf16_tile,
        "avx512f,avx512bw,avx512vl,avx512bf16",
        |b: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.cast())),
        |a: i32| std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(a)),
        |sum, a, b| _mm512_dpbf16_ps(sum, a, b),
        |row: *mut u8, low, high| {
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(row.cast(), rounded);
        }
    );
    tile!(
        f32_tile,
        "avx512f",
        |b: *const u32| _mm512_loadu_ps(b.cast()),
        |a: i32| _mm512_set1_ps(f32::from_bits(a as u32)),
        |sum, a, b| _mm512_fmadd_ps(a, b, sum),
        |row: *mut u8, low, high| {
            _mm512_storeu_ps(row.cast(), low);
            _mm512_storeu_ps(row.cast::<f32>().add(16), high);
        }
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::tests::{available, on};

    /// `count` numbers between −1 and 1 as units.
    fn units<E: Element>(count: usize, seed: u64) -> Vec<u32> {
        let mut state = seed;
        let mut number = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            E::narrow((state >> 40) as f32 / 8_388_608.0 - 1.0)
        };
        (0..count).map(|_| E::unit(number(), number())).collect()
    }

    /// Every product of this processor against the portable one, for each count of rows and both
    /// layouts of the left side: to the bit, as each takes the same fused steps in the same order,
    /// unless it is `loose`: then to the rounding of a sum of `2 · units` terms of at most 1.
    fn matches_portable<E: Element>(loose: impl Fn(Isa) -> bool) {
        for count in [1, 2, 7, 64] {
            let (rows, panel, right) = (
                units::<E>(MR * (count + 3), 1),
                units::<E>(count * NR, 2),
                units::<E>(count * NR, 3),
            );
            let layouts = [
                Left { start: rows.as_ptr().cast(), row: 4 * (count + 3), unit: 4 },
                Left { start: panel.as_ptr().cast(), row: 4, unit: 4 * NR },
            ];
            for left in layouts {
                for height in 1..=MR {
                    for kind in [Kind::Store, Kind::Add, Kind::Round] {
                        let run = |product: Product| {
                            let mut tile = Tile([[9.0; NR]; MR]);
                            let width = if kind == Kind::Round { size_of::<E>() } else { 4 };
                            let out = Out { stride: NR * width, kind, ..Out::tile(&mut tile) };
                            // SAFETY: both sides have `count` units, and a tile is as large as can
                            // be.
                            unsafe { product(height, count, left, right.as_ptr(), out) };
                            let bytes = bytemuck::cast_slice::<[f32; NR], u8>(&tile.0);
                            let (put, rest) = bytes.split_at(height * NR * width);
                            let nine = 9f32.to_ne_bytes();
                            assert!(
                                rest.chunks_exact(4).all(|bytes| bytes == nine),
                                "{kind:?} goes beyond {height} rows"
                            );
                            match kind {
                                Kind::Round => bytemuck::cast_slice::<u8, E>(put)
                                    .iter()
                                    .map(|x| x.widen())
                                    .collect(),
                                _ => bytemuck::cast_slice::<u8, f32>(put).to_vec(),
                            }
                        };
                        let expected: Vec<f32> = run(portable::<E>);
                        for isa in available() {
                            let found = run(on(isa, product::<E>));
                            // Sums that lie on both sides of the middle between two numbers round
                            // to neighbours.
                            let step = if kind == Kind::Round { 1.0 / 128.0 } else { f32::EPSILON };
                            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                                let bound = if loose(isa) {
                                    (4 * count * count) as f32 * f32::EPSILON
                                        + step * expected.abs()
                                } else {
                                    0.0
                                };
                                let off = (found - expected).abs();
                                assert!(
                                    off <= bound,
                                    "{isa:?}, {kind:?}, {height} rows, {count} units, sum {i}: off by {off:e}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_product_is_the_portable_one() {
        matches_portable::<f32>(|_| false);
        matches_portable::<bf16>(|isa| isa == Isa::Avx512Bf16);
    }

    #[test]
    fn a_product_takes_each_unit_of_its_row_and_lane() {
        // Row r is 1 at unit r and 0 elsewhere: its sums are the right side's row r.
        let mut left = vec![0f32; MR * MR];
        (0..MR).for_each(|r| left[r * MR + r] = 1.0);
        let right: Vec<f32> = (0..MR * NR).map(|i| i as f32).collect();
        for isa in available() {
            let mut tile = Tile::ZERO;
            let rows = Left { start: left.as_ptr().cast(), row: 4 * MR, unit: 4 };
            // SAFETY: both sides have MR units.
            unsafe {
                on(isa, product::<f32>)(MR, MR, rows, right.as_ptr().cast(), Out::tile(&mut tile))
            };
            assert_eq!(tile.0.as_flattened(), right, "{isa:?}");
        }
    }
}
