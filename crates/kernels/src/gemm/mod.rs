//! Matrix products over f32 or bf16 operands, summed in f32, on one thread.
//!
//! The result is computed tile by tile, with each tile's sums in registers for the whole of a pass
//! over the summed dimension. The right operand is packed ([`Panels`]). The
//! left operand is read from its rows ([`multiply`]) or, if it comes transposed, packed a strip at
//! a time ([`multiply_transposed`]). An [`Epilogue`] says what becomes of the sums.
//!
//! | file | holds |
//! |---|---|
//! | `microkernel` | the innermost loops: one tile, for each instruction set |
//! | `pack` | [`Panels`], the layout that the microkernel reads |
//! | `epilogue` | [`Epilogue`] and the ones that store sums |
//! | `mod` | the loops around tiles |

pub(crate) mod epilogue;
pub(crate) mod microkernel;
pub(crate) mod pack;

use std::ops::Range;

use crate::buffer::span;
use crate::cache::second_level_cache;
use crate::element::Element;
use crate::isa::{Isa, isa, multiversion};
use microkernel::{LeftOperand, Tile, TileOutput, microkernel, tile_rows};
use pack::pack_columns;

pub use epilogue::{AddBias, AddResidual, Epilogue, StoreF32, StoreRounded};
pub use pack::Panels;

/// Units of the summed dimension in one pass, where the epilogue accumulates (K_C in BLIS). A panel
/// of so many units, 16 or 32 KiB, stays in the first-level cache for all rows.
const PASS: usize = 256;
/// The same where both operands are packed. They stream from the second-level cache, and the sums
/// come from further away, so that fewer passes over the sums pay.
const LONG_PASS: usize = 512;
/// Columns of a transposed left operand that are packed at once: with the units of a long pass,
/// 256 KiB. A multiple of NR.
const STRIP: usize = 128;

/// How many of `rows` rows of the left operand, of `units` units each, are multiplied with all
/// panels before the next are (M_C in BLIS).
///
/// On AVX2 these blocks, alike in size, fill at most a quarter of the second-level cache, from
/// which each panel then reads them again. AVX-512 takes all rows at once: it was tuned so, on
/// processors with twice the cache.
fn rows_at_once(isa: Isa, rows: usize, units: usize) -> usize {
    match isa {
        Isa::Avx2 => {
            let bytes = rows * units * size_of::<u32>();
            let blocks = bytes.div_ceil(second_level_cache() / 4).max(1);
            rows.div_ceil(blocks).next_multiple_of(Isa::rows(isa.columns())).max(1)
        }
        _ => usize::MAX,
    }
}

/// Hands A B, `[rows, lanes]`, to `epilogue`.
///
/// A is the first `rows` rows of `left`, `stride` elements apart, each as wide as `right` is deep
/// and filled up with zeros to a whole unit. B is `right`, `[depth, lanes]`. For a depth of 0 the
/// product is zeros.
///
/// # Panics
/// If `left` is shorter than that, or the epilogue's memory.
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

/// [`multiply`] of a part of B: of some of its columns, from a multiple of NR on, and of some units
/// of its depth.
///
/// A is as wide as these units. The epilogue's columns count from the first of the part's.
pub(crate) fn multiply_part<E: Element, S: Epilogue<E>>(
    left: &[E],
    stride: usize,
    rows: usize,
    right: &Panels<E>,
    columns: Range<usize>,
    units: Range<usize>,
    epilogue: S,
) {
    let (depth, columns_at_once) = (right.depth().div_ceil(E::PER_UNIT), isa().columns());
    assert!(columns.start.is_multiple_of(columns_at_once));
    assert!(columns.end <= right.lanes() && units.end <= depth);
    assert!(
        rows == 0
            || units.is_empty()
            || left.len() >= span(rows, stride, units.len() * E::PER_UNIT)
    );
    multiply_rows::<E, S>(left, stride, rows, right, columns, units, epilogue);
}

multiversion! {
    /// The loops of [`multiply_part`]: pass by pass over the summed dimension, block by block of
    /// A's rows, panel by panel of B, tile by tile of the block's rows.
    fn multiply_rows<E: Element, S: Epilogue<E>; NR>(
        left: &[E],
        stride: usize,
        rows: usize,
        right: &Panels<E>,
        columns: Range<usize>,
        units: Range<usize>,
        epilogue: S,
    ) {
        let mut epilogue = epilogue;
        let mut tile = Tile::<NR>::ZERO;
        let microkernel = microkernel::<E, NR>();
        let (depth, lanes) = (right.depth().div_ceil(E::PER_UNIT), columns.len());
        let right = &right.units::<NR>()[columns.start * depth..];
        let pass = if S::ACCUMULATES { PASS } else { units.len().max(1) };
        let block = rows_at_once(isa(), rows, pass.min(units.len()));
        // A depth of 0 is one pass of no units, whose sums are zero.
        for done in (0..units.len().max(1)).step_by(pass) {
            let count = pass.min(units.len() - done);
            for above in (0..rows).step_by(block) {
                let below = rows.min(above.saturating_add(block));
                for column in (0..lanes).step_by(NR) {
                    let panel = &right[column * depth + (units.start + done) * NR..][..count * NR];
                    let ahead = Ahead::<NR>::new(panel, depth, below - above);
                    for row in (above..below).step_by(tile_rows::<NR>()) {
                        ahead.prefetch(row - above);
                        let height = tile_rows::<NR>().min(below - row);
                        for r in 0..height {
                            epilogue.prefetch::<NR>(row + r, column);
                        }
                        let start = left
                            .get(row * stride + done * E::PER_UNIT..)
                            .unwrap_or_default()
                            .as_ptr()
                            .cast();
                        let left = LeftOperand {
                            start,
                            row_stride: stride * size_of::<E>(),
                            unit_stride: 4,
                        };
                        let direct = if lanes - column >= NR {
                            epilogue.direct::<NR>(row, height, column, done == 0)
                        } else {
                            None
                        };
                        let out =
                            direct.map_or_else(|| TileOutput::tile(&mut tile), |direct| direct.0);
                        // SAFETY: `height` is from 1 to MR. The caller checked that A has `rows`
                        // rows of all units, and `left` begins at one of them. `panel` is a slice
                        // of `count` units of NR lanes. `tile` holds any tile, and `Direct` is
                        // checked memory.
                        unsafe { microkernel(height, count, left, panel.as_ptr(), out) };
                        if out.start != tile.0.as_mut_ptr().cast() {
                            continue;
                        }
                        epilogue.store_tile::<NR>(
                            row,
                            column,
                            &tile.0[..height],
                            NR.min(lanes - column),
                            done == 0,
                        );
                    }
                }
            }
        }
    }
}

/// Hands Aᵀ B, `[columns, lanes]`, to `epilogue`.
///
/// A is `left`, `[depth, columns]` in rows `stride` apart, B is `right`, `[depth, lanes]`. `strip`
/// is memory for packed columns of A, reused from call to call.
///
/// The sum is taken in passes, so the epilogue must be one that accumulates: any other does not
/// compile.
///
/// # Panics
/// If `left` is shorter than that, or the epilogue's memory.
pub fn multiply_transposed<E: Element, S: Epilogue<E>>(
    left: &[E],
    stride: usize,
    columns: usize,
    right: &Panels<E>,
    epilogue: S,
    strip: &mut Vec<u32>,
) {
    const { assert!(S::ACCUMULATES, "the sum is taken in several passes") };
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
            multiply_pass(
                strip,
                count,
                0,
                width,
                right,
                done..done + count,
                &mut epilogue,
                first,
                done == 0,
                false,
            );
        }
    }
}

/// Hands the upper triangle of Aᵀ A, `[lanes, lanes]`, to `epilogue`, and of what is below it that
/// of the tiles on the diagonal.
///
/// A is `packed`, `[depth, lanes]`. It is read as both operands.
///
/// # Panics
/// If the epilogue's memory is shorter than that.
pub(crate) fn multiply_gram<E: Element, S: Epilogue<E>>(packed: &Panels<E>, epilogue: S) {
    const { assert!(S::ACCUMULATES, "the sum is taken in several passes") };
    let mut epilogue = epilogue;
    let units = packed.depth().div_ceil(E::PER_UNIT);
    for done in (0..units.max(1)).step_by(LONG_PASS) {
        let pass = done..units.min(done + LONG_PASS);
        for first in (0..packed.lanes()).step_by(STRIP) {
            let width = STRIP.min(packed.lanes() - first);
            multiply_pass(
                &packed.all_units()[first * units..],
                units,
                done,
                width,
                packed,
                pass.clone(),
                &mut epilogue,
                first,
                done == 0,
                true,
            );
        }
    }
}

/// [`multiply_transposed`] of an A that is packed already, as [`pack_columns`] does it.
///
/// # Panics
/// As [`multiply_transposed`].
pub(crate) fn multiply_packed<E: Element, S: Epilogue<E>>(
    left: &[u32],
    columns: usize,
    right: &Panels<E>,
    epilogue: S,
) {
    const { assert!(S::ACCUMULATES, "the sum is taken in several passes") };
    let mut epilogue = epilogue;
    let units = right.depth().div_ceil(E::PER_UNIT);
    for done in (0..units.max(1)).step_by(LONG_PASS) {
        let pass = done..units.min(done + LONG_PASS);
        for first in (0..columns).step_by(STRIP) {
            let (left, width) = (&left[first * units..], STRIP.min(columns - first));
            multiply_pass(
                left,
                units,
                done,
                width,
                right,
                pass.clone(),
                &mut epilogue,
                first,
                done == 0,
                false,
            );
        }
    }
}

multiversion! {
    /// One pass of Aᵀ B over the units `pass` of B, for rows `first..first + width` of the result.
    ///
    /// `left` begins at the panel of row `first`; a panel has `depth` units, of which the pass
    /// begins at unit `from`. `first_pass` goes to the epilogue. With `upper`, tiles that lie below
    /// the diagonal are left out.
    fn multiply_pass<E: Element, S: Epilogue<E>; NR>(
        left: &[u32],
        depth: usize,
        from: usize,
        width: usize,
        right: &Panels<E>,
        pass: Range<usize>,
        epilogue: &mut S,
        first: usize,
        first_pass: bool,
        upper: bool,
    ) {
        let mut tile = Tile::<NR>::ZERO;
        let microkernel = microkernel::<E, NR>();
        let (lanes, units, count) =
            (right.lanes(), right.depth().div_ceil(E::PER_UNIT), pass.len());
        for column in (0..lanes).step_by(NR) {
            let panel = &right.units::<NR>()[column * units + pass.start * NR..][..count * NR];
            let width = if upper { width.min((column + NR).saturating_sub(first)) } else { width };
            let ahead = Ahead::<NR>::new(panel, units, width);
            for rows in tiles::<NR>(width) {
                let (row, height) = (first + rows.start, rows.len());
                ahead.prefetch(rows.start);
                let start = &left[rows.start / NR * depth * NR + from * NR..][..count * NR];
                let left = LeftOperand {
                    start: start.as_ptr().wrapping_add(rows.start % NR).cast(),
                    row_stride: 4,
                    unit_stride: 4 * NR,
                };
                let direct = if lanes - column >= NR {
                    epilogue.direct::<NR>(row, height, column, first_pass)
                } else {
                    None
                };
                let out = direct.map_or_else(|| TileOutput::tile(&mut tile), |direct| direct.0);
                // SAFETY: `height` is from 1 to MR. `start` is a slice of `count` units of NR
                // lanes, and `rows` are lanes of one panel, so that `left` has `height` of them.
                // `panel` is a slice of `count` units too. `tile` holds any tile, and `Direct` is
                // checked memory.
                unsafe { microkernel(height, count, left, panel.as_ptr(), out) };
                if out.start != tile.0.as_mut_ptr().cast() {
                    continue;
                }
                epilogue.store_tile::<NR>(
                    row,
                    column,
                    &tile.0[..height],
                    NR.min(lanes - column),
                    first_pass,
                );
            }
        }
    }
}

/// The panel after the one that is multiplied, which is fetched into the second-level cache
/// meanwhile, a share with each tile. Without that the first tile of a panel waits for all of it.
///
/// On AVX2 only: AVX-512 was tuned without.
struct Ahead<const NR: usize> {
    start: *const u32,
    units: usize,
    /// Units to fetch for each row of a tile.
    share: usize,
}

impl<const NR: usize> Ahead<NR> {
    /// What follows `panel`, of panels that have `depth` units each, while it is multiplied with
    /// `rows` rows.
    #[inline(always)]
    fn new(panel: &[u32], depth: usize, rows: usize) -> Self {
        let units = panel.len() / NR;
        let start = panel.as_ptr().wrapping_add(depth * NR);
        Self { start, units, share: units.div_ceil(rows.max(1)) }
    }

    /// Fetches the share of the tile whose first row is `row`.
    #[inline(always)]
    fn prefetch(&self, row: usize) {
        #[cfg(target_arch = "x86_64")]
        if NR == Isa::Avx2.columns() {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let from = row * self.share;
            for unit in from..self.units.min(from + self.share * tile_rows::<NR>()) {
                // SAFETY: a prefetch is a hint: it does not access memory, whatever the address.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T1>(self.start.wrapping_add(unit * NR).cast());
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (self.start, self.units, self.share, row);
    }
}

/// The rows of each tile whose left operand is packed, `lanes` lanes in all. No tile crosses
/// panels, so a panel of 32 lanes gives tiles of 12, 12 and 8 rows, and one of 16 gives 6, 6 and 4.
#[inline(always)]
pub(crate) fn tiles<const NR: usize>(lanes: usize) -> impl Iterator<Item = Range<usize>> {
    (0..lanes).step_by(NR).flat_map(move |panel| {
        let end = lanes.min(panel + NR);
        let height = tile_rows::<NR>();
        (panel..end).step_by(height).map(move |row| row..end.min(row + height))
    })
}
