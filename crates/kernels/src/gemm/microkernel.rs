//! The microkernel of a matrix product: one tile of the result, its sums in registers (the term and
//! the structure are those of BLIS; Van Zee & van de Geijn, 2015).
//!
//! A tile is NR columns wide and at most MR rows high. Both are the instruction set's, and NR is
//! the width of the right operand's panels. Operands are read in units of 32 bits along the summed
//! dimension (see [`Element`]).

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

#[cfg(target_arch = "x86_64")]
use half::bf16;

use crate::buffer::span;
use crate::element::Element;
#[cfg(target_arch = "x86_64")]
use crate::isa::isa;
use crate::isa::{Isa, MOST_ROWS};

/// Most rows of a tile that is NR columns wide.
#[inline(always)]
pub(crate) const fn tile_rows<const NR: usize>() -> usize {
    const { Isa::rows(NR) }
}

/// One tile of sums, of which the first rows are used.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile<const NR: usize>(pub(crate) [[f32; NR]; MOST_ROWS]);

impl<const NR: usize> Tile<NR> {
    /// A tile of zeros.
    pub(crate) const ZERO: Self = Self([[0.0; NR]; MOST_ROWS]);
}

/// The left operand of a tile: unit q of row r lies at `start + r · row_stride + q · unit_stride`,
/// in bytes.
#[derive(Clone, Copy)]
pub(crate) struct LeftOperand {
    pub(crate) start: *const u8,
    pub(crate) row_stride: usize,
    /// 4 for rows of a matrix, 4 · NR for lanes of packed panels; no other value.
    pub(crate) unit_stride: usize,
}

impl LeftOperand {
    /// Rows `first..first + height` of `rows`, which are `stride` elements apart, for a sum over
    /// `units`.
    ///
    /// # Panics
    /// If `rows` ends before the last of these units.
    #[inline(always)]
    pub(crate) fn rows<E: Element>(
        rows: &[E],
        stride: usize,
        first: usize,
        height: usize,
        units: usize,
    ) -> Self {
        let from = &rows[first * stride..];
        assert!(from.len() >= span(height, stride, units * E::PER_UNIT));
        Self { start: from.as_ptr().cast(), row_stride: stride * size_of::<E>(), unit_stride: 4 }
    }

    /// The lanes of one packed panel from `lane` on, as rows.
    #[inline(always)]
    pub(crate) fn lanes<const NR: usize>(panel: &[u32], lane: usize) -> Self {
        Self { start: panel[lane..].as_ptr().cast(), row_stride: 4, unit_stride: 4 * NR }
    }
}

/// What the microkernel does with a tile's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreMode {
    /// Writes them in f32.
    Store,
    /// Adds them in f32 to what is there.
    Add,
    /// Writes them rounded to the operands' type.
    Round,
}

/// Where a tile's sums go: the NR columns of row r to `start + r · stride`, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct TileOutput {
    pub(crate) start: *mut u8,
    pub(crate) stride: usize,
    pub(crate) mode: StoreMode,
}

impl TileOutput {
    /// In f32 into a tile.
    #[inline(always)]
    pub(crate) fn tile<const NR: usize>(tile: &mut Tile<NR>) -> Self {
        Self {
            start: tile.0.as_mut_ptr().cast(),
            stride: size_of::<[f32; NR]>(),
            mode: StoreMode::Store,
        }
    }
}

/// Computes the tile A B, `[rows, NR]`, and hands its sums to `out`: A is `left`, `[rows, units]`,
/// B is one panel at `right`, `[units, NR]`. NR is that of the call to [`microkernel`].
///
/// # Safety
/// `rows` is from 1 to MR. `left` points at `rows` rows of `units` units, `right` at `units` · NR
/// units, and `out` at `rows` rows that each have room for NR columns in its mode's type.
pub(crate) type Microkernel =
    unsafe fn(rows: usize, units: usize, left: LeftOperand, right: *const u32, out: TileOutput);

/// The fastest microkernel for elements `E` and panels of NR columns on this processor.
#[inline(always)]
pub(crate) fn microkernel<E: Element, const NR: usize>() -> Microkernel {
    #[cfg(target_arch = "x86_64")]
    {
        const AVX512: usize = Isa::Avx512.columns();
        const AVX2: usize = Isa::Avx2.columns();
        let is_bf16 = TypeId::of::<E>() == TypeId::of::<bf16>();
        match (NR, isa()) {
            (AVX512, Isa::Avx512Bf16) if is_bf16 => return x86::bf16_microkernel,
            (AVX512, Isa::Avx512Bf16 | Isa::Avx512) if !is_bf16 => return x86::f32_microkernel,
            (_, Isa::Avx512Bf16 | Isa::Avx512) => return x86::portable_avx512::<E, NR>,
            (AVX2, Isa::Avx2) => return x86::avx2_microkernel::<E>,
            _ => {}
        }
    }
    portable::<E, NR>
}

/// The microkernel in plain Rust, for the compiler to vectorise: 6 rows by 16 columns at a time.
///
/// # Safety
/// As [`Microkernel`].
#[inline(always)]
unsafe fn portable<E: Element, const NR: usize>(
    rows: usize,
    units: usize,
    left: LeftOperand,
    right: *const u32,
    out: TileOutput,
) {
    /// Rows and columns whose sums 24 registers of 4 floats hold.
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
                    // Rows beyond the last read the last one again: with a fixed number of rows the
                    // compiler keeps the sums in registers.
                    let row = first + r.min(count - 1);
                    // SAFETY: the caller's promise.
                    let a = unsafe {
                        left.start
                            .add(row * left.row_stride + q * left.unit_stride)
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
                    store_row::<E, COLUMNS>(
                        out.start.add((first + r) * out.stride),
                        column,
                        out.mode,
                        *sums,
                    )
                }
            }
        }
        first += count;
    }
}

/// Writes, adds or rounds `sums`, as `mode` says, to columns `column..column + N` of the row at
/// `row`.
///
/// # Safety
/// The row has these columns, in the mode's type.
#[inline(always)]
unsafe fn store_row<E: Element, const N: usize>(
    row: *mut u8,
    column: usize,
    mode: StoreMode,
    mut sums: [f32; N],
) {
    let floats = row.cast::<f32>().wrapping_add(column).cast::<[f32; N]>();
    match mode {
        StoreMode::Store => {
            // SAFETY: the caller's promise.
            unsafe { floats.write_unaligned(sums) }
        }
        StoreMode::Add => {
            // SAFETY: the caller's promise.
            let old = unsafe { floats.read_unaligned() };
            for (sum, old) in sums.iter_mut().zip(old) {
                *sum += old;
            }
            // SAFETY: the caller's promise.
            unsafe { floats.write_unaligned(sums) }
        }
        StoreMode::Round => {
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

    use crate::element::Element;
    use crate::gemm::microkernel::{LeftOperand, StoreMode, TileOutput};
    use crate::isa::Isa;

    /// Columns of a tile of AVX-512: two registers.
    const NR: usize = Isa::Avx512.columns();

    /// # Safety
    /// As [`super::Microkernel`]; the processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn portable_avx512<E: Element, const NR: usize>(
        rows: usize,
        units: usize,
        left: LeftOperand,
        right: *const u32,
        out: TileOutput,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::portable::<E, NR>(rows, units, left, right, out) }
    }

    /// A microkernel that calls the tile with the number of rows as a constant, for which the
    /// compiler keeps every sum in a register.
    macro_rules! by_rows {
        ($name:ident, $tile:ident, $features:literal) => {
            /// # Safety
            /// As [`super::Microkernel`]; the processor has the features `$features`.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(
                rows: usize,
                units: usize,
                left: LeftOperand,
                right: *const u32,
                out: TileOutput,
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
                if left.unit_stride == 4 { call!(4) } else { call!(4 * NR) }
            }
        };
    }
    by_rows!(bf16_microkernel, bf16_tile, "avx512f,avx512bw,avx512vl,avx512bf16");
    by_rows!(f32_microkernel, f32_tile, "avx512f");

    /// A tile of R rows: `$load` reads 16 units of the right operand, `$splat` spreads one unit of
    /// the left one, `$step` multiplies and adds, `$round` writes a row of sums rounded.
    macro_rules! tile {
        ($name:ident, $features:literal, $load:expr, $splat:expr, $step:expr, $round:expr) => {
            /// # Safety
            /// As [`super::Microkernel`], with R rows and the left operand's units `UNIT` bytes
            /// apart; the processor has the features `$features`.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn $name<const R: usize, const UNIT: usize>(
                units: usize,
                left: LeftOperand,
                right: *const u32,
                out: TileOutput,
            ) {
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                let row = if UNIT == 4 { left.row_stride } else { 4 };
                let (mut a, mut b) = (left.start, right);
                let mut ahead = out.start;
                let mut left_over = units;
                while left_over > 0 {
                    // The place of the sums may not be in the cache yet. One of its rows is fetched
                    // every 16 units: all at once would delay the operands.
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
                        match out.mode {
                            StoreMode::Store => {
                                _mm512_storeu_ps(floats, low);
                                _mm512_storeu_ps(floats.add(16), high);
                            }
                            StoreMode::Add => {
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
                            StoreMode::Round => $round(row, low, high),
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

    pub(super) use avx2::avx2_microkernel;

    /// Tiles of AVX2: 6 rows of two registers.
    mod avx2 {
        use std::arch::asm;
        use std::arch::x86_64::*;

        use crate::element::Element;
        use crate::gemm::microkernel::{LeftOperand, TileOutput, store_row};
        use crate::isa::Isa;

        /// Columns of a tile: two registers.
        const NR: usize = Isa::Avx2.columns();
        /// Units that the inner loop takes at once. So many fill a cache line of each row of the
        /// left operand, so that the next lines are fetched once a round. A long loop is also as
        /// fast wherever the linker puts it: the loop over single units lost 5 % where its two
        /// cache lines of instructions lay across three.
        const AT_ONCE: usize = 16;

        /// # Safety
        /// As [`super::super::Microkernel`]; the processor has AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        pub(in super::super) unsafe fn avx2_microkernel<E: Element>(
            rows: usize,
            units: usize,
            left: LeftOperand,
            right: *const u32,
            out: TileOutput,
        ) {
            macro_rules! call {
                ($unit:expr) => {
                    // SAFETY: the caller's promise.
                    unsafe {
                        match rows {
                            1 => tile::<E, 1, { $unit }>(units, left, right, out),
                            2 => tile::<E, 2, { $unit }>(units, left, right, out),
                            3 => tile::<E, 3, { $unit }>(units, left, right, out),
                            4 => tile::<E, 4, { $unit }>(units, left, right, out),
                            5 => tile::<E, 5, { $unit }>(units, left, right, out),
                            _ => tile::<E, 6, { $unit }>(units, left, right, out),
                        }
                    }
                };
            }
            if left.unit_stride == 4 { call!(4) } else { call!(4 * NR) }
        }

        /// A tile of R rows.
        ///
        /// # Safety
        /// As [`super::super::Microkernel`], with R rows and the left operand's units `UNIT` bytes
        /// apart; the processor has AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn tile<E: Element, const R: usize, const UNIT: usize>(
            units: usize,
            left: LeftOperand,
            right: *const u32,
            out: TileOutput,
        ) {
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            let row = if UNIT == 4 { left.row_stride } else { 4 };
            let (mut a, mut b) = (left.start, right);
            let mut ahead = out.start;
            let mut left_over = units;
            while left_over >= AT_ONCE {
                left_over -= AT_ONCE;
                // The place of the sums may not be in the cache yet. One of its rows is fetched a
                // round: all at once would delay the operands.
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                ahead = ahead.wrapping_add(out.stride);
                if UNIT == 4 {
                    // The rows below are most likely the next tile's.
                    for r in 0..R {
                        _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add((R + r) * row).cast());
                    }
                }
                macro_rules! steps {
                    ($($q:literal)*) => {
                        $(
                            // SAFETY: the caller's promise: these units are not the last.
                            unsafe { step::<E, R>(a.add($q * UNIT), row, b.add($q * NR), &mut sums) };
                        )*
                    };
                }
                steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                a = a.wrapping_add(AT_ONCE * UNIT);
                b = b.wrapping_add(AT_ONCE * NR);
            }
            for _ in 0..left_over {
                // SAFETY: the caller's promise: `left_over` units are left.
                unsafe { step::<E, R>(a, row, b, &mut sums) };
                a = a.wrapping_add(UNIT);
                b = b.wrapping_add(NR);
            }
            for (r, &[low, high]) in sums.iter().enumerate() {
                let mut floats = [0f32; NR];
                // SAFETY: `floats` are two registers wide. The row is the caller's promise.
                unsafe {
                    _mm256_storeu_ps(floats.as_mut_ptr(), low);
                    _mm256_storeu_ps(floats.as_mut_ptr().add(8), high);
                    store_row::<E, NR>(out.start.add(r * out.stride), 0, out.mode, floats);
                }
            }
        }

        /// Adds the products of one unit: of each of the R rows from `a` on, `row` bytes apart,
        /// with the NR lanes at `b`.
        ///
        /// # Safety
        /// `a` points at R rows of a unit, `b` at NR units; the processor has AVX2 and FMA.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        unsafe fn step<E: Element, const R: usize>(
            a: *const u8,
            row: usize,
            b: *const u32,
            sums: &mut [[__m256; 2]; R],
        ) {
            // SAFETY: the caller's promise, for all accesses below.
            unsafe {
                if E::PER_UNIT == 1 {
                    let (b0, b1) = (_mm256_loadu_ps(b.cast()), _mm256_loadu_ps(b.add(8).cast()));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = _mm256_broadcast_ss(&a.add(r * row).cast::<f32>().read_unaligned());
                        sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                        sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
                    }
                    return;
                }
                // A bf16 is the upper half of a f32. Both of a unit at once would take more
                // registers than there are.
                let widen = |unit: __m256i, second: bool| {
                    _mm256_castsi256_ps(if second {
                        _mm256_and_si256(unit, _mm256_set1_epi32(0xffff_0000u32 as i32))
                    } else {
                        _mm256_slli_epi32::<16>(unit)
                    })
                };
                let (mut a, mut b) = (a, b);
                for second in [false, true] {
                    // The compiler must not know that it has read these units already: it would
                    // keep them in registers that it does not have.
                    asm!("/* {0} {1} */", inout(reg) a, inout(reg) b, options(pure, readonly, nostack, preserves_flags));
                    let b0 = widen(_mm256_loadu_si256(b.cast()), second);
                    let b1 = widen(_mm256_loadu_si256(b.add(8).cast()), second);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = a.add(r * row).cast::<i32>().read_unaligned();
                        let a = widen(_mm256_set1_epi32(a), second);
                        sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                        sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
