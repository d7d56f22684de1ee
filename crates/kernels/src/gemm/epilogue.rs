//! Epilogues: what becomes of a product's sums when they leave the registers (CUTLASS's term).

use crate::buffer::span;
use crate::element::Element;
use crate::gemm::microkernel::{StoreMode, TileOutput};

/// Closed to other crates: the loops around tiles write through the pointers of [`Direct`].
pub(crate) mod sealed {
    pub trait Sealed {}
}

/// What becomes of the rows of a product of `E`.
///
/// Rows and columns are those of the product, of which an epilogue knows neither the size nor the
/// order in which tiles come. NR is the columns of a tile. In a product that takes several passes
/// over the summed dimension, each pass hands over its own sums.
pub trait Epilogue<E>: sealed::Sealed {
    /// Whether sums of a later pass over the summed dimension can be added to those of an earlier
    /// one.
    const ACCUMULATES: bool;

    /// Takes the first `count` columns of a tile's rows as columns `column..column + count` of rows
    /// `row`, `row` + 1 and so on. `first_pass` tells the first pass.
    #[doc(hidden)]
    #[inline(always)]
    fn store_tile<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        tile: &[[f32; NR]],
        count: usize,
        first_pass: bool,
    ) {
        for (r, sums) in tile.iter().enumerate() {
            self.store_row::<NR>(row + r, column, sums, count, first_pass);
        }
    }

    /// Takes `sums[..count]` as columns `column..column + count` of row `row`. `first_pass` tells
    /// the first pass.
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        first_pass: bool,
    );

    /// The memory into which the microkernel can write a tile of `height` rows by NR columns
    /// itself, if there is such.
    #[doc(hidden)]
    #[inline(always)]
    fn direct<const NR: usize>(
        &mut self,
        _row: usize,
        _height: usize,
        _column: usize,
        _first_pass: bool,
    ) -> Option<Direct> {
        None
    }

    /// Prefetches the memory that the NR columns of this row will go to.
    #[inline(always)]
    fn prefetch<const NR: usize>(&self, _row: usize, _column: usize) {}
}

/// Memory that has been checked to hold a whole tile.
pub struct Direct(pub(super) TileOutput);

impl Direct {
    /// `height` rows by NR columns of `out` from `at` on, in rows `stride` apart.
    #[inline(always)]
    fn new<T, const NR: usize>(
        out: &mut [T],
        at: usize,
        height: usize,
        stride: usize,
        mode: StoreMode,
    ) -> Self {
        let out = &mut out[at..][..span(height, stride, NR)];
        Self(TileOutput { start: out.as_mut_ptr().cast(), stride: stride * size_of::<T>(), mode })
    }
}

/// C ← A B, rounded to `E`.
pub struct StoreRounded<'a, E> {
    /// C, `[rows, stride]`.
    pub out: &'a mut [E],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<E> sealed::Sealed for StoreRounded<'_, E> {}

impl<E: Element> Epilogue<E> for StoreRounded<'_, E> {
    const ACCUMULATES: bool = false;

    #[inline(always)]
    fn direct<const NR: usize>(
        &mut self,
        row: usize,
        height: usize,
        column: usize,
        _: bool,
    ) -> Option<Direct> {
        Some(Direct::new::<_, NR>(
            self.out,
            row * self.stride + column,
            height,
            self.stride,
            StoreMode::Round,
        ))
    }

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        _: bool,
    ) {
        let out = &mut self.out[row * self.stride + column..][..count];
        if let Ok(out) = <&mut [E; NR]>::try_from(&mut *out) {
            // Through a local array: the compiler then knows that `sums` and `out` do not overlap.
            let mut rounded = [E::default(); NR];
            for (rounded, &sum) in rounded.iter_mut().zip(sums) {
                *rounded = E::narrow(sum);
            }
            *out = rounded;
        } else {
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = E::narrow(sum);
            }
        }
    }
}

/// C ← A B + b in every row, rounded once to `E`: a linear layer with a bias.
pub struct AddBias<'a, E> {
    /// b, one number a column.
    pub bias: &'a [f32],
    /// C, `[rows, stride]`.
    pub out: &'a mut [E],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<E> sealed::Sealed for AddBias<'_, E> {}

impl<E: Element> Epilogue<E> for AddBias<'_, E> {
    const ACCUMULATES: bool = false;

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        _: bool,
    ) {
        let mut new = *sums;
        add_to(&mut new, &self.bias[column..][..count]);
        store_rounded(&mut self.out[row * self.stride + column..][..count], &new, 1.0);
    }
}

/// C ← R + A B in f32: the residual connection.
pub struct AddResidual<'a> {
    /// R, `[rows, stride]`.
    pub residual: &'a [f32],
    /// C, `[rows, stride]`.
    pub out: &'a mut [f32],
    /// Elements from one row to the next, of both.
    pub stride: usize,
}

impl sealed::Sealed for AddResidual<'_> {}

impl<E: Element> Epilogue<E> for AddResidual<'_> {
    const ACCUMULATES: bool = true;

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        first_pass: bool,
    ) {
        let at = row * self.stride + column;
        let mut new = *sums;
        if first_pass {
            add_to(&mut new, &self.residual[at..][..count]);
        } else {
            add_to(&mut new, &self.out[at..][..count]);
        }
        store(&mut self.out[at..][..count], &new);
    }

    #[inline(always)]
    fn prefetch<const NR: usize>(&self, row: usize, column: usize) {
        prefetch::<NR>(&self.residual[row * self.stride..], column);
        prefetch::<NR>(&self.out[row * self.stride..], column);
    }
}

/// C ← A B in f32, or C ← C + A B.
pub struct StoreF32<'a> {
    /// C, `[rows, stride]`.
    pub out: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Whether to add to what C holds.
    pub add: bool,
}

impl sealed::Sealed for StoreF32<'_> {}

impl<E: Element> Epilogue<E> for StoreF32<'_> {
    const ACCUMULATES: bool = true;

    #[inline(always)]
    fn direct<const NR: usize>(
        &mut self,
        row: usize,
        height: usize,
        column: usize,
        first_pass: bool,
    ) -> Option<Direct> {
        let mode = if self.add || !first_pass { StoreMode::Add } else { StoreMode::Store };
        Some(Direct::new::<_, NR>(self.out, row * self.stride + column, height, self.stride, mode))
    }

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        first_pass: bool,
    ) {
        let out = &mut self.out[row * self.stride + column..][..count];
        let mut new = *sums;
        if self.add || !first_pass {
            add_to(&mut new, out);
        }
        store(out, &new);
    }

    #[inline(always)]
    fn prefetch<const NR: usize>(&self, row: usize, column: usize) {
        prefetch::<NR>(&self.out[row * self.stride..], column);
    }
}

/// `new` += `old`, as far as `old` reaches.
#[inline(always)]
fn add_to<const NR: usize>(new: &mut [f32; NR], old: &[f32]) {
    if let Ok(old) = <[f32; NR]>::try_from(old) {
        // `old` is a copy here, which nothing overlaps: the compiler then adds whole registers.
        for (new, old) in new.iter_mut().zip(old) {
            *new += old;
        }
    } else {
        for (new, old) in new.iter_mut().zip(old) {
            *new += old;
        }
    }
}

/// `out` ← as many of `new` as `out` is long.
#[inline(always)]
fn store<const NR: usize>(out: &mut [f32], new: &[f32; NR]) {
    match <&mut [f32; NR]>::try_from(&mut *out) {
        Ok(out) => *out = *new,
        Err(_) => out.copy_from_slice(&new[..out.len()]),
    }
}

/// `out` ← as many of `sums` as `out` is long, each times `factor` and rounded.
#[inline(always)]
pub(crate) fn store_rounded<E: Element, const NR: usize>(
    out: &mut [E],
    sums: &[f32; NR],
    factor: f32,
) {
    // Through a local array: the compiler then knows that nothing overlaps.
    let mut rounded = [E::default(); NR];
    for (rounded, sum) in rounded.iter_mut().zip(sums) {
        *rounded = E::narrow(sum * factor);
    }
    match <&mut [E; NR]>::try_from(&mut *out) {
        Ok(out) => *out = rounded,
        Err(_) => out.copy_from_slice(&rounded[..out.len()]),
    }
}

/// Prefetches NR floats of `row` from `column` on.
#[inline(always)]
fn prefetch<const NR: usize>(row: &[f32], column: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let place = row.as_ptr().wrapping_add(column);
        for line in (0..NR).step_by(16) {
            // SAFETY: a prefetch is a hint: it does not access memory, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(line).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, column);
}
