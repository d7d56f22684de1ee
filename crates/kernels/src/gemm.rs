//! Matrix products over f32 or bf16 operands, summed in f32, on one thread.
//!
//! The result is made tile by tile, 12 rows by 32 columns, each tile's sums in registers over the
//! whole of a pass. The right operand is packed ([`Panels`]); the left is read where it lies
//! ([`multiply`]) or, if it comes transposed, packed likewise, a strip at a time
//! ([`multiply_transposed`]).

use std::ops::Range;

use crate::element::Element;
use crate::isa::multiversion;
use crate::micro::{Kind, Left, MR, NR, Out, Product, Tile, product};
use crate::pack::{Panels, pack_columns};

/// Units of the summed dimension that one pass takes where the result can be added to: a panel of
/// so many fits the first-level cache.
const PASS: usize = 256;
/// Units that one takes where both operands are packed and stream from the second-level cache, and
/// the sums from further away.
const LONG_PASS: usize = 512;
/// Columns of a transposed left operand that are packed at once: with a pass of them, 256 KiB.
const STRIP: usize = 4 * NR;

/// The crate's own sinks alone: the loops around tiles trust what they say of their workspace.
mod sealed {
    pub trait Sealed {}
    impl<E> Sealed for super::Rounded<'_, E> {}
    impl Sealed for super::Onto<'_> {}
    impl<E> Sealed for crate::loss::Softmax<'_, E> {}
    impl Sealed for crate::loss::Largest<'_> {}
    impl Sealed for super::Summed<'_> {}
}

/// Elements from the start of the first of `rows` rows to the end of the last, `stride` apart and
/// `width` long: the largest number there is, which no slice has, where it would be more.
#[inline(always)]
pub(crate) fn span(rows: usize, stride: usize, width: usize) -> usize {
    rows.saturating_sub(1).saturating_mul(stride).saturating_add(width)
}

/// Where the rows of a product of `E` go.
pub trait Epilogue<E>: sealed::Sealed {
    /// Whether a later pass over the summed dimension can add to what an earlier one left.
    const ADDS: bool;

    /// Takes the first `count` columns of a tile's rows as columns `column..column + count` of rows
    /// `row` and on; `first` tells the first pass.
    #[doc(hidden)]
    #[inline(always)]
    fn take_tile(
        &mut self,
        row: usize,
        column: usize,
        tile: &[[f32; NR]],
        count: usize,
        first: bool,
    ) {
        for (r, sums) in tile.iter().enumerate() {
            self.take(row + r, column, sums, count, first);
        }
    }

    /// Takes `sums[..count]` as columns `column..column + count` of row `row`; `first` tells the
    /// first pass.
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool);

    /// Where all of a tile of `height` rows by NR columns can be put at once, if it can.
    #[doc(hidden)]
    #[inline(always)]
    fn direct(
        &mut self,
        _row: usize,
        _height: usize,
        _column: usize,
        _first: bool,
    ) -> Option<Direct> {
        None
    }

    /// Tells that these columns will be taken soon.
    #[inline(always)]
    fn expect(&self, _row: usize, _column: usize) {}
}

/// A place that has been checked to hold a whole tile.
pub struct Direct(Out);

impl Direct {
    /// `height` rows by NR columns of `out` from `at` on, in rows `stride` apart.
    #[inline(always)]
    fn new<T>(out: &mut [T], at: usize, height: usize, stride: usize, kind: Kind) -> Self {
        let out = &mut out[at..][..span(height, stride, NR)];
        Self(Out { start: out.as_mut_ptr().cast(), stride: stride * size_of::<T>(), kind })
    }
}

/// Rounded to `E`, into rows `stride` apart.
pub struct Rounded<'a, E> {
    /// `[rows, stride]`.
    pub out: &'a mut [E],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<E: Element> Epilogue<E> for Rounded<'_, E> {
    const ADDS: bool = false;

    #[inline(always)]
    fn direct(&mut self, row: usize, height: usize, column: usize, _: bool) -> Option<Direct> {
        Some(Direct::new(self.out, row * self.stride + column, height, self.stride, Kind::Round))
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, _: bool) {
        let out = &mut self.out[row * self.stride + column..][..count];
        if let Ok(out) = <&mut [E; NR]>::try_from(&mut *out) {
            // Through an array of its own: the compiler then knows that `sums` and `out` do not
            // overlap.
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

/// In f32 on top of `base`, into rows `stride` apart in both.
pub struct Onto<'a> {
    /// `[rows, stride]`.
    pub base: &'a [f32],
    /// `[rows, stride]`.
    pub out: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<E: Element> Epilogue<E> for Onto<'_> {
    const ADDS: bool = true;

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool) {
        let at = row * self.stride + column;
        let mut new = *sums;
        if first {
            add_to(&mut new, &self.base[at..][..count]);
        } else {
            add_to(&mut new, &self.out[at..][..count]);
        }
        put(&mut self.out[at..][..count], &new);
    }

    #[inline(always)]
    fn expect(&self, row: usize, column: usize) {
        prefetch(&self.base[row * self.stride..], column);
        prefetch(&self.out[row * self.stride..], column);
    }
}

/// In f32, into rows `stride` apart.
pub struct Summed<'a> {
    /// `[rows, stride]`.
    pub out: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

impl<E: Element> Epilogue<E> for Summed<'_> {
    const ADDS: bool = true;

    #[inline(always)]
    fn direct(&mut self, row: usize, height: usize, column: usize, first: bool) -> Option<Direct> {
        let kind = if self.add || !first { Kind::Add } else { Kind::Store };
        Some(Direct::new(self.out, row * self.stride + column, height, self.stride, kind))
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool) {
        let out = &mut self.out[row * self.stride + column..][..count];
        let mut new = *sums;
        if self.add || !first {
            add_to(&mut new, out);
        }
        put(out, &new);
    }

    #[inline(always)]
    fn expect(&self, row: usize, column: usize) {
        prefetch(&self.out[row * self.stride..], column);
    }
}

/// `new` += `old`, which may be shorter.
#[inline(always)]
fn add_to(new: &mut [f32; NR], old: &[f32]) {
    if let Ok(old) = <[f32; NR]>::try_from(old) {
        // A copy, which nothing overlaps: the compiler then adds whole registers.
        for (new, old) in new.iter_mut().zip(old) {
            *new += old;
        }
    } else {
        for (new, old) in new.iter_mut().zip(old) {
            *new += old;
        }
    }
}

/// `out` ← the first of `new`.
#[inline(always)]
fn put(out: &mut [f32], new: &[f32; NR]) {
    match <&mut [f32; NR]>::try_from(&mut *out) {
        Ok(out) => *out = *new,
        Err(_) => out.copy_from_slice(&new[..out.len()]),
    }
}

/// `out` ← the first of `sums`, each times `factor` and rounded.
#[inline(always)]
pub(crate) fn put_rounded<E: Element>(out: &mut [E], sums: &[f32; NR], factor: f32) {
    // In an array of its own: the compiler then knows that nothing overlaps.
    let mut rounded = [E::default(); NR];
    for (rounded, sum) in rounded.iter_mut().zip(sums) {
        *rounded = E::narrow(sum * factor);
    }
    match <&mut [E; NR]>::try_from(&mut *out) {
        Ok(out) => *out = rounded,
        Err(_) => out.copy_from_slice(&rounded[..out.len()]),
    }
}

/// Asks for two cache lines of `row`, from `column` on.
#[inline(always)]
fn prefetch(row: &[f32], column: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let place = row.as_ptr().wrapping_add(column);
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
            _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(16).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, column);
}

/// `epilogue` ← A B, zeros for a depth of nothing: A is the first `rows` rows of `left`, `stride`
/// elements apart and as wide as `right` is deep, with zeros up to a whole unit.
///
/// # Panics
/// If `left` is shorter than that, or the epilogue's workspace.
pub fn multiply<E: Element, S: Epilogue<E>>(
    left: &[E],
    stride: usize,
    rows: usize,
    right: &Panels<E>,
    epilogue: S,
) {
    let units = right.depth().div_ceil(E::PER_UNIT);
    multiply_part(left, stride, rows, right, 0..right.lanes(), 0..units, epilogue);
}

/// The same of some columns of B, from a multiple of NR on, and some units of its depth, which A
/// has alone: columns of the epilogue count from the first of them.
pub(crate) fn multiply_part<E: Element, S: Epilogue<E>>(
    left: &[E],
    stride: usize,
    rows: usize,
    right: &Panels<E>,
    columns: Range<usize>,
    units: Range<usize>,
    epilogue: S,
) {
    let depth = right.depth().div_ceil(E::PER_UNIT);
    assert!(columns.start.is_multiple_of(NR) && columns.end <= right.lanes() && units.end <= depth);
    assert!(
        rows == 0
            || units.is_empty()
            || left.len() >= span(rows, stride, units.len() * E::PER_UNIT)
    );
    products::<E, S>(
        left,
        stride,
        rows,
        &right.units()[columns.start * depth..],
        depth,
        columns.len(),
        units,
        epilogue,
        product::<E>(),
    );
}

multiversion! {
    fn products<E: Element, S: Epilogue<E>>(
        left: &[E], stride: usize, rows: usize, right: &[u32], depth: usize, lanes: usize, units: Range<usize>, epilogue: S,
        product: Product,
    ) {
        let mut epilogue = epilogue;
        let mut tile = Tile::ZERO;
        let pass = if S::ADDS { PASS } else { units.len().max(1) };
        // A depth of nothing sums to zero, in one pass of no unit.
        for done in (0..units.len().max(1)).step_by(pass) {
            let count = pass.min(units.len() - done);
            for column in (0..lanes).step_by(NR) {
                let panel = &right[column * depth + (units.start + done) * NR..][..count * NR];
                for row in (0..rows).step_by(MR) {
                    let height = MR.min(rows - row);
                    for r in 0..height {
                        epilogue.expect(row + r, column);
                    }
                    let start = left.get(row * stride + done * E::PER_UNIT..).unwrap_or_default().as_ptr().cast();
                    let left = Left { start, row: stride * size_of::<E>(), unit: 4 };
                    let direct = if lanes - column >= NR { epilogue.direct(row, height, column, done == 0) } else { None };
                    let out = direct.map_or_else(|| Out::tile(&mut tile), |direct| direct.0);
                    // SAFETY: `left` has `height` rows of `count` units from there on, `panel` as
                    // many units; a tile is as large as can be, and a direct place has been
                    // checked.
                    unsafe { product(height, count, left, panel.as_ptr(), out) };
                    if out.start != tile.0.as_mut_ptr().cast() {
                        continue;
                    }
                    epilogue.take_tile(row, column, &tile.0[..height], NR.min(lanes - column), done == 0);
                }
            }
        }
    }
}

/// `epilogue` ← Aᵀ B: A is `[depth, columns]`, as deep as `right`, in rows `stride` apart. `strip` is
/// room that is reused.
///
/// The sum is taken in passes, so the epilogue must be one that adds: any other does not compile.
///
/// # Panics
/// If `left` is shorter than that, or the epilogue's workspace.
pub fn multiply_transposed<E: Element, S: Epilogue<E>>(
    left: &[E],
    stride: usize,
    columns: usize,
    right: &Panels<E>,
    epilogue: S,
    strip: &mut Vec<u32>,
) {
    const { assert!(S::ADDS, "a later pass over the summed dimension adds to what an earlier one left") };
    let depth = right.depth();
    assert!(depth == 0 || left.len() >= span(depth, stride, columns));
    strip.resize(LONG_PASS * STRIP, 0);
    let mut epilogue = epilogue;
    let units = depth.div_ceil(E::PER_UNIT);
    for done in (0..units.max(1)).step_by(LONG_PASS) {
        let count = LONG_PASS.min(units - done);
        let from = done * E::PER_UNIT;
        let deep = (count * E::PER_UNIT).min(depth - from);
        for first in (0..columns).step_by(STRIP) {
            let width = STRIP.min(columns - first);
            pack_columns::<E, E>(
                strip,
                left.get(from * stride + first..).unwrap_or_default(),
                stride,
                deep,
                width,
            );
            lanes_by_lanes(
                strip,
                count,
                0,
                width,
                right,
                done..done + count,
                &mut epilogue,
                first,
                done == 0,
                product::<E>(),
            );
        }
    }
}

/// `epilogue` ← Aᵀ B: A is `[depth, columns]`, as deep as `right`, and packed.
///
/// # Panics
/// If `left` is shorter than that, or the epilogue's workspace.
pub(crate) fn multiply_packed<E: Element, S: Epilogue<E>>(
    left: &[u32],
    columns: usize,
    right: &Panels<E>,
    epilogue: S,
) {
    const { assert!(S::ADDS, "a later pass over the summed dimension adds to what an earlier one left") };
    let mut epilogue = epilogue;
    let units = right.depth().div_ceil(E::PER_UNIT);
    for done in (0..units.max(1)).step_by(LONG_PASS) {
        let pass = done..units.min(done + LONG_PASS);
        for first in (0..columns).step_by(STRIP) {
            let (left, width) = (&left[first * units..], STRIP.min(columns - first));
            lanes_by_lanes(
                left,
                units,
                done,
                width,
                right,
                pass.clone(),
                &mut epilogue,
                first,
                done == 0,
                product::<E>(),
            );
        }
    }
}

multiversion! {
    /// One pass, over the units `pass` of B, of `width` columns of the result's rows from `first`
    /// on: A's panels are `depth` units deep, and those of the pass begin at `from`.
    fn lanes_by_lanes<E: Element, S: Epilogue<E>>(
        left: &[u32], depth: usize, from: usize, width: usize, right: &Panels<E>, pass: Range<usize>, epilogue: &mut S, first: usize,
        fresh: bool, product: Product,
    ) {
        let mut tile = Tile::ZERO;
        let (lanes, units, count) = (right.lanes(), right.depth().div_ceil(E::PER_UNIT), pass.len());
        for column in (0..lanes).step_by(NR) {
            let panel = &right.units()[column * units + pass.start * NR..][..count * NR];
            for rows in tiles(width) {
                let (row, height) = (first + rows.start, rows.len());
                let start = &left[rows.start / NR * depth * NR + from * NR..][..count * NR];
                let left = Left { start: start.as_ptr().wrapping_add(rows.start % NR).cast(), row: 4, unit: 4 * NR };
                let direct = if lanes - column >= NR { epilogue.direct(row, height, column, fresh) } else { None };
                let out = direct.map_or_else(|| Out::tile(&mut tile), |direct| direct.0);
                // SAFETY: from its start on A's panel has `height` lanes of `count` units, `panel`
                // as many units; a tile is as large as can be, and a direct place has been checked.
                unsafe { product(height, count, left, panel.as_ptr(), out) };
                if out.start != tile.0.as_mut_ptr().cast() {
                    continue;
                }
                epilogue.take_tile(row, column, &tile.0[..height], NR.min(lanes - column), fresh);
            }
        }
    }
}

/// The rows of tiles that take their left operand from packed panels of `lanes` lanes: of each
/// panel 12, 12 and 8.
#[inline(always)]
pub(crate) fn tiles(lanes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..lanes).step_by(NR).flat_map(move |panel| {
        let end = lanes.min(panel + NR);
        (panel..end).step_by(MR).map(move |row| row..end.min(row + MR))
    })
}
