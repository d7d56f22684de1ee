//! Softmax and cross-entropy of logits, where they come out of the product.
//!
//! Of a row of logits z comes e^(z − shift), its sum, and so the softmax up to a factor, without a
//! pass over the row for its largest: the shift is the logit of the row's target, which makes the
//! loss log Σ e^(z − shift). A row whose sum then is beyond [`LIMIT`], a loss of 66 nats, or not
//! finite, has to be made again with the largest as its shift.

use crate::attention::{lanes, pack, put};
use crate::element::Element;
use crate::gemm::Epilogue;
use crate::math::LANES;
use crate::micro::{NR, Tile};

/// Largest sum that is taken: far enough from f32's largest number for products with the
/// exponentials.
pub(crate) const LIMIT: f32 = (1u128 << 95) as f32;

/// Turns logits into exponentials and adds these up.
pub(crate) struct Softmax<'a, E> {
    /// What is subtracted from each row's logits, `[n]`.
    pub(crate) shifts: &'a [f32],
    /// To which each row's exponentials are added, `[n]` of LANES each.
    pub(crate) sums: &'a mut [[f32; LANES]],
    /// Where they are kept, if they are.
    pub(crate) kept: Option<Kept<'a, E>>,
}

/// Exponentials in both layouts that the way back reads.
pub(crate) struct Kept<'a, E> {
    /// In rows `stride` apart, which have room for whole tiles: for the product over columns.
    pub(crate) rows: &'a mut [E],
    pub(crate) stride: usize,
    /// In panels of `depth` units, packed for the product over rows.
    pub(crate) units: &'a mut [u32],
    pub(crate) depth: usize,
}

impl<E: Element> Epilogue<E> for Softmax<'_, E> {
    const ADDS: bool = false;

    #[inline(always)]
    fn take_tile(&mut self, row: usize, column: usize, tile: &[[f32; NR]], count: usize, _: bool) {
        if count < NR {
            // Columns beyond the last count for nothing.
            let mut whole = Tile::ZERO;
            for (whole, sums) in whole.0.iter_mut().zip(tile) {
                *whole =
                    std::array::from_fn(
                        |lane| if lane < count { sums[lane] } else { f32::NEG_INFINITY },
                    );
            }
            return self.take_whole(row, column, &whole.0[..tile.len()]);
        }
        self.take_whole(row, column, tile);
    }

    #[inline(always)]
    fn take(&mut self, row: usize, column: usize, sums: &[f32; NR], count: usize, first: bool) {
        Epilogue::<E>::take_tile(self, row, column, std::slice::from_ref(sums), count, first);
    }
}

impl<E: Element> Softmax<'_, E> {
    /// A tile all of whose columns count.
    #[inline(always)]
    fn take_whole(&mut self, row: usize, column: usize, tile: &[[f32; NR]]) {
        let Self { shifts, sums, kept } = self;
        let (shifts, sums) = (&shifts[row..][..tile.len()], &mut sums[row..][..tile.len()]);
        let rows = tile.iter().zip(shifts).zip(sums);
        let mut pair = [[0f32; NR]; 2];
        for (r, ((logits, shift), sums)) in rows.enumerate() {
            let e = &mut pair[r % E::PER_UNIT];
            for half in [0, LANES] {
                exponentials::<E>(logits, half, *shift, sums, e);
            }
            let Some(Kept { rows, stride, units, depth }) = kept else { continue };
            put(e, &mut rows[(row + r) * *stride + column..]);
            let last = r + 1 == tile.len();
            if last && (r + 1) % E::PER_UNIT != 0 {
                pair[1] = [0.0; NR];
            }
            if last || (r + 1) % E::PER_UNIT == 0 {
                let unit =
                    units[column * *depth + (row + r) / E::PER_UNIT * NR..].first_chunk_mut();
                if let Some(unit) = unit {
                    pack::<E>(&pair[0], &pair[1], unit);
                }
            }
        }
    }
}

/// Of half a row, added to `sums`.
#[inline(always)]
fn exponentials<E: Element>(
    logits: &[f32; NR],
    half: usize,
    shift: f32,
    sums: &mut [f32; LANES],
    e: &mut [f32; NR],
) {
    let (z, mut exponentials) = (lanes(logits, half), [0f32; LANES]);
    for lane in 0..LANES {
        exponentials[lane] = E::exp(z[lane] - shift);
        sums[lane] += exponentials[lane];
    }
    e[half..][..LANES].copy_from_slice(&exponentials);
}

/// Keeps the largest of each row, −∞ at the start. A NaN may be passed over: the sum of
/// exponentials shows it.
pub(crate) struct Largest<'a> {
    pub(crate) largest: &'a mut [f32],
}

impl<E: Element> Epilogue<E> for Largest<'_> {
    const ADDS: bool = false;

    #[inline(always)]
    fn take(&mut self, row: usize, _: usize, sums: &[f32; NR], count: usize, _: bool) {
        self.largest[row] = sums[..count].iter().copied().fold(self.largest[row], f32::max);
    }
}
