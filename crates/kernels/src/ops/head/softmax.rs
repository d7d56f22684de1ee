//! Epilogues of the head's product: exponentials of logits as they leave the registers, and each
//! row's largest logit.

use crate::element::Element;
use crate::gemm::Epilogue;
use crate::gemm::epilogue::sealed::Sealed;
use crate::gemm::microkernel::Tile;
use crate::gemm::pack::{pack_row, store_row};
use crate::lanes::{LANES, lanes};

/// Turns logits z into exponentials e^(z − shift) and adds these up.
pub(super) struct SoftmaxEpilogue<'a, E> {
    /// What is subtracted from each row's logits, `[n]`.
    pub(super) shifts: &'a [f32],
    /// To which each row's exponentials are added, `[n]`, in lanes.
    pub(super) sums: &'a mut [[f32; LANES]],
    /// Where the exponentials are saved; nowhere if no gradient is wanted.
    pub(super) saved: Option<SavedExponentials<'a, E>>,
}

/// Exponentials, rounded, in both layouts that the gradient reads.
pub(super) struct SavedExponentials<'a, E> {
    /// In rows `stride` apart, which have room for whole tiles: for the product that sums over
    /// outputs.
    pub(super) rows: &'a mut [E],
    pub(super) stride: usize,
    /// Packed, in panels of `depth` units: for the product that sums over rows.
    pub(super) units: &'a mut [u32],
    pub(super) depth: usize,
}

impl<E> Sealed for SoftmaxEpilogue<'_, E> {}

impl<E: Element> Epilogue<E> for SoftmaxEpilogue<'_, E> {
    const ACCUMULATES: bool = false;

    #[inline(always)]
    fn store_tile<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        tile: &[[f32; NR]],
        count: usize,
        _: bool,
    ) {
        if count < NR {
            // Columns beyond the last become −∞, whose exponential is 0.
            let mut whole = Tile::<NR>::ZERO;
            for (whole, sums) in whole.0.iter_mut().zip(tile) {
                *whole =
                    std::array::from_fn(
                        |lane| if lane < count { sums[lane] } else { f32::NEG_INFINITY },
                    );
            }
            return self.store_whole(row, column, &whole.0[..tile.len()]);
        }
        self.store_whole(row, column, tile);
    }

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        column: usize,
        sums: &[f32; NR],
        count: usize,
        first: bool,
    ) {
        Epilogue::<E>::store_tile::<NR>(
            self,
            row,
            column,
            std::slice::from_ref(sums),
            count,
            first,
        );
    }
}

impl<E: Element> SoftmaxEpilogue<'_, E> {
    /// A tile of NR columns.
    #[inline(always)]
    fn store_whole<const NR: usize>(&mut self, row: usize, column: usize, tile: &[[f32; NR]]) {
        let Self { shifts, sums, saved } = self;
        let (shifts, sums) = (&shifts[row..][..tile.len()], &mut sums[row..][..tile.len()]);
        let rows = tile.iter().zip(shifts).zip(sums);
        let mut pair = [[0f32; NR]; 2];
        for (r, ((logits, shift), sums)) in rows.enumerate() {
            let e = &mut pair[r % E::PER_UNIT];
            for half in (0..NR).step_by(LANES) {
                exponentials::<E, NR>(logits, half, *shift, sums, e);
            }
            let Some(SavedExponentials { rows, stride, units, depth }) = saved else { continue };
            store_row(e, &mut rows[(row + r) * *stride + column..]);
            let last = r + 1 == tile.len();
            if last && (r + 1) % E::PER_UNIT != 0 {
                pair[1] = [0.0; NR];
            }
            if last || (r + 1) % E::PER_UNIT == 0 {
                let unit =
                    units[column * *depth + (row + r) / E::PER_UNIT * NR..].first_chunk_mut();
                if let Some(unit) = unit {
                    pack_row::<E, NR>(&pair[0], &pair[1], unit);
                }
            }
        }
    }
}

/// e^(z − shift) of LANES logits from `half` on, into `e` and added to `sums`.
#[inline(always)]
fn exponentials<E: Element, const NR: usize>(
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

/// Keeps the largest logit of each row.
///
/// A NaN may be missed here; it shows in the row's sum of exponentials.
pub(super) struct RowMaxEpilogue<'a> {
    /// `[n]`, −∞ at the start.
    pub(super) largest: &'a mut [f32],
}

impl Sealed for RowMaxEpilogue<'_> {}

impl<E: Element> Epilogue<E> for RowMaxEpilogue<'_> {
    const ACCUMULATES: bool = false;

    #[inline(always)]
    fn store_row<const NR: usize>(
        &mut self,
        row: usize,
        _: usize,
        sums: &[f32; NR],
        count: usize,
        _: bool,
    ) {
        self.largest[row] = sums[..count].iter().copied().fold(self.largest[row], f32::max);
    }
}
