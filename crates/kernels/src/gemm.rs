//! Matrix products over f32 or bf16 operands, summed in f32, on one thread.
//!
//! The result is made tile by tile, 12 rows by 32 columns, each tile's sums in registers over the whole of a pass. The right
//! operand is packed ([`Panels`]); the left is read where it lies ([`multiply`]) or, if it comes transposed, packed a strip
//! at a time ([`multiply_transposed`]).

use crate::element::Element;
use crate::isa::multiversion;
use crate::micro::{Kind, Left, MR, NR, Out, Product, Tile, product};
use crate::pack::{Panels, pack_strip, strip_len, strip_panel};

/// Units of the summed dimension that one pass takes where the result can be added to: a panel of so many fits the
/// first-level cache.
const PASS: usize = 256;
/// Columns of a transposed left operand that are packed at once: eight tiles' rows, about 100 KiB.
const STRIP: usize = 8 * MR;

/// The crate's own sinks alone: the loops around tiles trust what they say of their room.
mod sealed {
    pub trait Sealed {}
    impl<E> Sealed for super::Rounded<'_, E> {}
    impl Sealed for super::Onto<'_> {}
    impl Sealed for super::Scaled<'_> {}
    impl Sealed for super::Summed<'_> {}
}

/// Elements from the start of the first of `rows` rows to the end of the last, `stride` apart and `width` long: the largest number there
/// is, which no slice has, where it would be more.
#[inline(always)]
pub(crate) fn span(rows: usize, stride: usize, width: usize) -> usize {
    rows.saturating_sub(1).saturating_mul(stride).saturating_add(width)
}

/// Where the rows of a product of `E` go.
pub trait Sink<E>: sealed::Sealed {
    /// Whether a later pass over the summed dimension can add to what an earlier one left.
    const ADDS: bool;

    /// Takes `sums[..count]` as columns `column..column + count` of row `row`; `first` tells the first pass.
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool);

    /// Where all of a tile of `height` rows by NR columns can be put at once, if it can.
    #[doc(hidden)]
    #[inline(always)]
    fn direct(&mut self, _row: usize, _height: usize, _column: usize, _first: bool) -> Option<Direct> {
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

impl<E: Element> Sink<E> for Rounded<'_, E> {
    const ADDS: bool = false;

    #[inline(always)]
    fn direct(&mut self, row: usize, height: usize, column: usize, _: bool) -> Option<Direct> {
        Some(Direct::new(self.out, row * self.stride + column, height, self.stride, Kind::Round))
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, _: bool) {
        let out = &mut self.out[row * self.stride + column..][..count];
        if let Ok(out) = <&mut [E; NR]>::try_from(&mut *out) {
            // Through an array of its own: the compiler then knows that `sums` and `out` do not overlap.
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

impl<E: Element> Sink<E> for Onto<'_> {
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

/// In f32, each row times a factor of its own, into rows `stride` apart.
pub struct Scaled<'a> {
    /// `[rows, stride]`.
    pub out: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// `[rows]`.
    pub factors: &'a [f32],
}

impl<E: Element> Sink<E> for Scaled<'_> {
    const ADDS: bool = true;

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool) {
        let out = &mut self.out[row * self.stride + column..][..count];
        let factor = self.factors[row];
        let mut new = sums.map(|sum| sum * factor);
        if !first {
            add_to(&mut new, out);
        }
        put(out, &new);
    }

    #[inline(always)]
    fn expect(&self, row: usize, column: usize) {
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

impl<E: Element> Sink<E> for Summed<'_> {
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

/// `sink` ← A B: A is the first `rows` rows of `left`, `stride` elements apart and as wide as `right` is deep, with zeros up to a
/// whole unit.
///
/// # Panics
/// If `left` is shorter than that, or the sink's room.
pub fn multiply<E: Element, S: Sink<E>>(left: &[E], stride: usize, rows: usize, right: &Panels<E>, sink: S) {
    let units = right.depth().div_ceil(E::PER_UNIT);
    if rows == 0 || units == 0 {
        return;
    }
    assert!(left.len() >= span(rows, stride, units * E::PER_UNIT));
    products::<E, S>(left, stride, rows, right.units(), right.lanes(), units, sink, product::<E>());
}

multiversion! {
    fn products<E: Element, S: Sink<E>>(
        left: &[E], stride: usize, rows: usize, right: &[u32], lanes: usize, units: usize, sink: S, product: Product,
    ) {
        let mut sink = sink;
        let mut tile = Tile::ZERO;
        let pass = if S::ADDS { PASS } else { units };
        for done in (0..units).step_by(pass) {
            let count = pass.min(units - done);
            for column in (0..lanes).step_by(NR) {
                let panel = &right[column * units + done * NR..][..count * NR];
                for row in (0..rows).step_by(MR) {
                    let height = MR.min(rows - row);
                    for r in 0..height {
                        sink.expect(row + r, column);
                    }
                    let start = left[row * stride + done * E::PER_UNIT..].as_ptr().cast();
                    let left = Left { start, row: stride * size_of::<E>(), unit: 4 };
                    let direct = if lanes - column >= NR { sink.direct(row, height, column, done == 0) } else { None };
                    let out = direct.map_or_else(|| Out::tile(&mut tile), |direct| direct.0);
                    // SAFETY: `left` has `height` rows of `count` units from there on, `panel` as many units; a tile is as
                    // large as can be, and a direct place has been checked.
                    unsafe { product(height, count, left, panel.as_ptr(), out) };
                    if out.start != tile.0.as_mut_ptr().cast() {
                        continue;
                    }
                    for (r, sums) in tile.0.iter().enumerate().take(height) {
                        sink.take(row + r, column, sums, NR.min(lanes - column), done == 0);
                    }
                }
            }
        }
    }
}

/// `sink` ← Aᵀ B: A is `[depth, columns]`, as deep as `right`, in rows `stride` apart. `strip` is room that is reused.
///
/// The sum is taken in passes, so the sink must be one that adds: any other does not compile.
///
/// # Panics
/// If `left` is shorter than that, or the sink's room.
pub fn multiply_transposed<E: Element, S: Sink<E>>(
    left: &[E],
    stride: usize,
    columns: usize,
    right: &Panels<E>,
    sink: S,
    strip: &mut Vec<u32>,
) {
    const { assert!(S::ADDS, "a later pass over the summed dimension adds to what an earlier one left") };
    assert!(right.depth() == 0 || left.len() >= span(right.depth(), stride, columns));
    strip.resize(strip_len(PASS, STRIP), 0);
    transposed::<E, S>(
        left,
        stride,
        columns,
        right.units(),
        right.lanes(),
        right.depth(),
        sink,
        strip,
        product::<E>(),
    );
}

multiversion! {
    fn transposed<E: Element, S: Sink<E>>(
        left: &[E], stride: usize, columns: usize, right: &[u32], lanes: usize, depth: usize, sink: S,
        strip: &mut [u32], product: Product,
    ) {
        let mut sink = sink;
        let mut tile = Tile::ZERO;
        let units = depth.div_ceil(E::PER_UNIT);
        for done in (0..units).step_by(PASS) {
            let count = PASS.min(units - done);
            let from = done * E::PER_UNIT;
            for first in (0..columns).step_by(STRIP) {
                let width = STRIP.min(columns - first);
                let deep = (count * E::PER_UNIT).min(depth - from);
                pack_strip::<E>(strip, &left[from * stride + first..], stride, deep, width);
                for column in (0..lanes).step_by(NR) {
                    let panel = &right[column * units + done * NR..][..count * NR];
                    for row in (0..width).step_by(MR) {
                        let height = MR.min(width - row);
                        for r in 0..height {
                            sink.expect(first + row + r, column);
                        }
                        let start = strip[row / MR * strip_panel(count)..][..count * MR].as_ptr().cast();
                        let left = Left { start, row: 4, unit: 4 * MR };
                        let direct = if lanes - column >= NR { sink.direct(first + row, height, column, done == 0) } else { None };
                        let out = direct.map_or_else(|| Out::tile(&mut tile), |direct| direct.0);
                        // SAFETY: the strip's panel has `count` units of MR rows, `panel` as many; a tile is as large as can
                        // be, and a direct place has been checked.
                        unsafe { product(height, count, left, panel.as_ptr(), out) };
                        if out.start != tile.0.as_mut_ptr().cast() {
                            continue;
                        }
                        for (r, sums) in tile.0.iter().enumerate().take(height) {
                            sink.take(first + row + r, column, sums, NR.min(lanes - column), done == 0);
                        }
                    }
                }
            }
        }
    }
}
