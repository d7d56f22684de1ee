//! The innermost loops of a matrix product: one tile of the result, its sums in registers.

use crate::element::Element;
use crate::isa::{Isa, isa};
use half::bf16;
use std::any::TypeId;

/// Most rows of a tile. 12 × 2 registers of 16 sums leave enough of AVX-512's 32 for what is multiplied.
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
    /// 4 for rows as they lie in a matrix, 4 · MR for packed panels.
    pub(crate) unit: usize,
}

/// Sets the first `rows` rows of the tile to the products of `left` and of one panel, `[units, NR]` at `right`, summed
/// over `units`.
///
/// # Safety
/// `left` and `right` point at as many units as that.
pub(crate) type Product = unsafe fn(rows: usize, units: usize, left: Left, right: *const u32, tile: &mut Tile);

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

/// In plain Rust, for the compiler to vectorise: NR columns at a time, few rows, so that the sums fit in registers.
///
/// # Safety
/// As [`Product`].
#[inline(always)]
unsafe fn portable<E: Element>(rows: usize, units: usize, left: Left, right: *const u32, tile: &mut Tile) {
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
                    // Rows beyond the last read the last one again: a fixed count keeps the sums in registers.
                    let row = first + r.min(count - 1);
                    // SAFETY: the caller's promise.
                    let a = unsafe {
                        left.start.add(row * left.row + q * left.unit).cast::<u32>().read_unaligned()
                    };
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = E::multiply_add(a, b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(count) {
                tile.0[first + r][column..column + COLUMNS].copy_from_slice(sums);
            }
        }
        first += count;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Element, Left, MR, NR, Tile};

    /// # Safety
    /// As [`super::Product`]; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn portable_avx2<E: Element>(
        rows: usize,
        units: usize,
        left: Left,
        right: *const u32,
        tile: &mut Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::portable::<E>(rows, units, left, right, tile) }
    }

    /// # Safety
    /// As [`super::Product`]; the processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn portable_avx512<E: Element>(
        rows: usize,
        units: usize,
        left: Left,
        right: *const u32,
        tile: &mut Tile,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::portable::<E>(rows, units, left, right, tile) }
    }

    /// A product with the count of rows known to the compiler, which then keeps every sum in a register.
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
                tile: &mut Tile,
            ) {
                macro_rules! call {
                    ($unit:expr) => {
                        // SAFETY: the caller's promise.
                        unsafe {
                            match rows {
                                1 => $tile::<1, { $unit }>(units, left, right, tile),
                                2 => $tile::<2, { $unit }>(units, left, right, tile),
                                3 => $tile::<3, { $unit }>(units, left, right, tile),
                                4 => $tile::<4, { $unit }>(units, left, right, tile),
                                5 => $tile::<5, { $unit }>(units, left, right, tile),
                                6 => $tile::<6, { $unit }>(units, left, right, tile),
                                7 => $tile::<7, { $unit }>(units, left, right, tile),
                                8 => $tile::<8, { $unit }>(units, left, right, tile),
                                9 => $tile::<9, { $unit }>(units, left, right, tile),
                                10 => $tile::<10, { $unit }>(units, left, right, tile),
                                11 => $tile::<11, { $unit }>(units, left, right, tile),
                                _ => $tile::<12, { $unit }>(units, left, right, tile),
                            }
                        }
                    };
                }
                if left.unit == 4 { call!(4) } else { call!(4 * MR) }
            }
        };
    }
    by_rows!(bf16_product, bf16_tile, "avx512f,avx512bw,avx512vl,avx512bf16");
    by_rows!(f32_product, f32_tile, "avx512f");

    macro_rules! tile {
        ($name:ident, $features:literal, $load:expr, $splat:expr, $step:expr) => {
            /// # Safety
            /// As [`super::Product`], with R rows and units `UNIT` bytes apart.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn $name<const R: usize, const UNIT: usize>(
                units: usize,
                left: Left,
                right: *const u32,
                tile: &mut Tile,
            ) {
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                let row = if UNIT == 4 { left.row } else { 4 };
                let (mut a, mut b) = (left.start, right);
                for _ in 0..units {
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
                for (sums, out) in sums.iter().zip(&mut tile.0) {
                    // SAFETY: a row of the tile is NR = 32 floats.
                    unsafe {
                        _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
                        _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
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
        |sum, a, b| _mm512_dpbf16_ps(sum, a, b)
    );
    tile!(
        f32_tile,
        "avx512f",
        |b: *const u32| _mm512_loadu_ps(b.cast()),
        |a: i32| _mm512_set1_ps(f32::from_bits(a as u32)),
        |sum, a, b| _mm512_fmadd_ps(a, b, sum)
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
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            E::narrow((state >> 40) as f32 / 8_388_608.0 - 1.0)
        };
        (0..count).map(|_| E::unit(number(), number())).collect()
    }

    /// Every product of this processor against the portable one, for each count of rows and both layouts of the left side:
    /// to the bit, as each takes the same fused steps in the same order, unless it is `loose`: then to the rounding of
    /// a sum of `2 · units` terms of at most 1.
    fn matches_portable<E: Element>(loose: impl Fn(Isa) -> bool) {
        for count in [1, 2, 7, 64] {
            let (rows, panel, right) =
                (units::<E>(MR * (count + 3), 1), units::<E>(count * MR, 2), units::<E>(count * NR, 3));
            let layouts = [
                Left { start: rows.as_ptr().cast(), row: 4 * (count + 3), unit: 4 },
                Left { start: panel.as_ptr().cast(), row: 4, unit: 4 * MR },
            ];
            for left in layouts {
                for height in 1..=MR {
                    let run = |product: Product| {
                        let mut tile = Tile([[9.0; NR]; MR]);
                        // SAFETY: both sides have `count` units.
                        unsafe { product(height, count, left, right.as_ptr(), &mut tile) };
                        tile.0.as_flattened()[..height * NR].to_vec()
                    };
                    let expected = run(portable::<E>);
                    for isa in available() {
                        let found = run(on(isa, product::<E>));
                        let bound = if loose(isa) { (4 * count * count) as f32 * f32::EPSILON } else { 0.0 };
                        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                            let off = (found - expected).abs();
                            assert!(off <= bound, "{isa:?}, {height} rows, {count} units, sum {i}: off by {off:e}");
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
            unsafe { on(isa, product::<f32>)(MR, MR, rows, right.as_ptr().cast(), &mut tile) };
            assert_eq!(tile.0.as_flattened(), right, "{isa:?}");
        }
    }
}
