//! Packing: operands of matrix products laid out in the order in which the microkernel reads them.

use std::marker::PhantomData;

use crate::buffer::Buffer;
use crate::element::{Element, RoundTo};
use crate::isa::{Isa, isa, multiversion};
use crate::lanes::{LANES, lanes};

/// The right operand of a product, packed: `[depth, lanes]`, where depth is the summed dimension
/// and the lanes are the product's columns.
///
/// The lanes are cut into panels of NR, the columns of the instruction set's tiles. A panel holds
/// its units of the summed dimension in order, each for all NR lanes: `[lanes / NR, depth / unit,
/// NR]` units (the layout of BLIS, with the two bf16 of a unit next to each other). Lanes that are
/// missing to a whole panel are zeros, and so is an element that is missing to a whole unit.
#[derive(Clone, Default)]
pub struct Panels<E> {
    units: Buffer<u32>,
    /// NR of the instruction set that they were packed for.
    columns: usize,
    lanes: usize,
    depth: usize,
    of: PhantomData<E>,
}

impl<E: Element> Panels<E> {
    /// Panels of zeros with room for `[depth, lanes]`.
    pub fn zeros(lanes: usize, depth: usize) -> Self {
        let mut panels =
            Self { units: Buffer::zeros(0), columns: 0, lanes: 0, depth: 0, of: PhantomData };
        panels.fit(lanes, depth);
        panels
    }

    /// Makes them panels of `[depth, lanes]`, with more memory where what they have does not do.
    pub(crate) fn fit(&mut self, lanes: usize, depth: usize) {
        (self.columns, self.lanes, self.depth) = (isa().columns(), lanes, depth);
        let units = lanes.next_multiple_of(self.columns) * depth.div_ceil(E::PER_UNIT);
        if self.units.len() < units {
            self.units = Buffer::zeros(units);
        }
    }

    /// Number of lanes: the columns of the product.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Length of the summed dimension, in elements.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// All units, panel after panel.
    ///
    /// # Panics
    /// If they were packed for an instruction set whose tiles are not NR columns wide.
    #[inline(always)]
    pub(crate) fn units<const NR: usize>(&self) -> &[u32] {
        assert!(self.columns == NR, "panels of {} columns, not {NR}", self.columns);
        &self.units
    }

    /// All units, panel after panel, as a left operand that is packed.
    pub(crate) fn all_units(&self) -> &[u32] {
        &self.units
    }

    /// Packs `source`, `[depth, lanes]` in rows `stride` apart, in place of what was packed before.
    /// Panels that have no room for it get more memory.
    ///
    /// # Panics
    /// If `source` is too short.
    pub fn pack_columns<S: RoundTo<E>>(
        &mut self,
        source: &[S],
        stride: usize,
        depth: usize,
        lanes: usize,
    ) {
        self.fit(lanes, depth);
        pack_columns::<E, S>(&mut self.units, source, stride, depth, lanes);
    }

    /// Packs the transpose of `source`, which is `[lanes, depth]` in rows `stride` apart.
    ///
    /// # Panics
    /// As [`Panels::pack_columns`].
    pub fn pack_rows<S: RoundTo<E>>(
        &mut self,
        source: &[S],
        stride: usize,
        lanes: usize,
        depth: usize,
    ) {
        self.fit(lanes, depth);
        pack_rows::<E, S>(&mut self.units, source, stride, lanes, depth);
    }
}

multiversion! {
    /// Writes `source`, `[depth, lanes]` in rows `stride` apart, into `panels`.
    pub(crate) fn pack_columns<E: Element, S: RoundTo<E>; NR>(
        panels: &mut [u32],
        source: &[S],
        stride: usize,
        depth: usize,
        lanes: usize,
    ) {
        let units = depth.div_ceil(E::PER_UNIT);
        let wholes = lanes / NR * NR;
        // Some rows of the source at a time, panel by panel: what is read lies in few pages, and so
        // does what is written. AVX-512 was tuned in the order of the source's memory.
        let rows = if NR == Isa::Avx2.columns() { 16 } else { 1 };
        for above in (0..units).step_by(rows) {
            let below = units.min(above + rows);
            for lane in (0..lanes).step_by(NR) {
                let panel = &mut panels[lane * units..][above * NR..below * NR];
                for (q, packed) in (above..below).zip(panel.as_chunks_mut::<NR>().0) {
                    let k = q * E::PER_UNIT;
                    if rows > 1 {
                        // Rows are too short for the processor to foresee the next.
                        for ahead in 0..E::PER_UNIT {
                            prefetch(source, (k + rows * E::PER_UNIT + ahead) * stride + lane);
                        }
                    }
                    let upper = &source[k * stride..][..lanes][lane..];
                    let lower = if E::PER_UNIT == 2 && k + 1 < depth {
                        &source[(k + 1) * stride..][..lanes][lane..]
                    } else {
                        &[]
                    };
                    *packed = if lane < wholes {
                        units_of::<E, S, NR>(upper, lower)
                    } else {
                        rest_of::<E, S, NR>(upper, lower)
                    };
                }
            }
        }
    }
}

/// Fetches the cache line of the element `at`, if there is one.
#[inline(always)]
fn prefetch<S>(source: &[S], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it does not access memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(source.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (source, at);
}

/// The units of NR lanes of two rows; of `upper` alone if `lower` is empty.
#[inline(always)]
fn units_of<E: Element, S: RoundTo<E>, const NR: usize>(upper: &[S], lower: &[S]) -> [u32; NR] {
    let mut packed = [0u32; NR];
    let upper = &upper[..NR];
    if lower.is_empty() {
        for lane in 0..NR {
            packed[lane] = E::unit(upper[lane].round_to(), E::default());
        }
    } else {
        let lower = &lower[..NR];
        for lane in 0..NR {
            packed[lane] = E::unit(upper[lane].round_to(), lower[lane].round_to());
        }
    }
    packed
}

/// [`units_of`] fewer than NR lanes; the rest are zeros.
#[inline(always)]
fn rest_of<E: Element, S: RoundTo<E>, const NR: usize>(upper: &[S], lower: &[S]) -> [u32; NR] {
    let mut packed = [0u32; NR];
    for (lane, (packed, upper)) in packed.iter_mut().zip(upper).enumerate() {
        let lower = lower.get(lane).map_or(E::default(), |lower| lower.round_to());
        *packed = E::unit(upper.round_to(), lower);
    }
    packed
}

/// Units and lanes of a block that is transposed at once: AVX-512 does it in 16 registers of 16.
const BLOCK: usize = 16;

multiversion! {
    /// Writes the transpose of `source`, `[lanes, depth]` in rows `stride` apart, into `panels`.
    fn pack_rows<E: Element, S: RoundTo<E>; NR>(
        panels: &mut [u32],
        source: &[S],
        stride: usize,
        lanes: usize,
        depth: usize,
    ) {
        let units = depth.div_ceil(E::PER_UNIT);
        let isa = isa();
        let mut block = [[0u32; BLOCK]; BLOCK];
        let firsts = (0..lanes).step_by(NR);
        for (panel, first) in panels.chunks_exact_mut((units * NR).max(1)).zip(firsts) {
            for half in (0..NR).step_by(BLOCK) {
                let width = BLOCK.min(lanes.saturating_sub(first + half));
                for q in (0..units).step_by(BLOCK) {
                    let count = BLOCK.min(units - q);
                    for (lane, block) in block.iter_mut().enumerate() {
                        if lane >= width {
                            *block = [0; BLOCK];
                            continue;
                        }
                        let row = &source[(first + half + lane) * stride + q * E::PER_UNIT..];
                        if count == BLOCK && (q + BLOCK) * E::PER_UNIT <= depth {
                            let row = &row[..BLOCK * E::PER_UNIT];
                            for u in 0..BLOCK {
                                block[u] = E::unit(
                                    row[u * E::PER_UNIT].round_to(),
                                    row[u * E::PER_UNIT + E::PER_UNIT - 1].round_to(),
                                );
                            }
                        } else {
                            for (u, unit) in block.iter_mut().enumerate().take(count) {
                                let k = u * E::PER_UNIT;
                                let whole = q * E::PER_UNIT + k + E::PER_UNIT <= depth;
                                let second = if whole {
                                    row[k + E::PER_UNIT - 1].round_to()
                                } else {
                                    E::default()
                                };
                                *unit = E::unit(row[k].round_to(), second);
                            }
                        }
                    }
                    transpose(&mut block, isa);
                    for (u, block) in block.iter().enumerate().take(count) {
                        panel[(q + u) * NR + half..][..BLOCK].copy_from_slice(block);
                    }
                }
            }
        }
    }
}

/// Transposes `block` in place.
#[inline(always)]
fn transpose(block: &mut [[u32; BLOCK]; BLOCK], isa: Isa) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: the caller found AVX-512 on this processor.
        Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { x86::transpose_avx512(block) },
        // SAFETY: the caller found AVX2 on this processor.
        Isa::Avx2 => return unsafe { x86::transpose_avx2(block) },
        Isa::Baseline => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    for row in 1..BLOCK {
        let (above, below) = block.split_at_mut(row);
        for (above, held) in above.iter_mut().zip(&mut below[0]) {
            std::mem::swap(&mut above[row], held);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::gemm::pack::BLOCK;

    /// Transposes quarter by quarter of 8 × 8, and exchanges two of them.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(super) fn transpose_avx2(block: &mut [[u32; BLOCK]; BLOCK]) {
        let quarter = |block: &[[u32; BLOCK]; BLOCK], row: usize, column: usize| {
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                let half = &block[row + i][column..][..8];
                // SAFETY: `half` is 32 bytes.
                *r = unsafe { _mm256_loadu_ps(half.as_ptr().cast()) };
            }
            // Numbers of a column together: pairs, then fours, then both halves of a register.
            let mut t = r;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..2 {
                let four = &t[4 * i..][..4];
                r[4 * i] = _mm256_shuffle_ps::<0x44>(four[0], four[2]);
                r[4 * i + 1] = _mm256_shuffle_ps::<0xee>(four[0], four[2]);
                r[4 * i + 2] = _mm256_shuffle_ps::<0x44>(four[1], four[3]);
                r[4 * i + 3] = _mm256_shuffle_ps::<0xee>(four[1], four[3]);
            }
            for i in 0..4 {
                t[i] = _mm256_permute2f128_ps::<0x20>(r[i], r[4 + i]);
                t[4 + i] = _mm256_permute2f128_ps::<0x31>(r[i], r[4 + i]);
            }
            t
        };
        for (row, column) in [(0, 0), (8, 8), (0, 8)] {
            let (here, there) = (quarter(block, row, column), quarter(block, column, row));
            for i in 0..8 {
                let (place, other) = (&mut block[column + i][row..][..8], here[i]);
                // SAFETY: `place` is 32 bytes.
                unsafe { _mm256_storeu_ps(place.as_mut_ptr().cast(), other) };
                let (place, other) = (&mut block[row + i][column..][..8], there[i]);
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(place.as_mut_ptr().cast(), other) };
            }
        }
    }

    /// Transposes in four rounds. Each doubles how many numbers of a column lie together: pairs,
    /// fours, then the four parts of 128 bits of a register.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn transpose_avx512(block: &mut [[u32; BLOCK]; BLOCK]) {
        let mut r = [_mm512_setzero_si512(); BLOCK];
        for (register, row) in r.iter_mut().zip(block.iter()) {
            // SAFETY: a row is 64 bytes.
            *register = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
        }
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        // r[4g + c] gets, in its part L of 128 bits, column 4L + c of rows 4g to 4g + 3.
        for i in 0..4 {
            r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        for c in 0..4 {
            let even_low = _mm512_shuffle_i32x4::<0x88>(r[c], r[4 + c]);
            let odd_low = _mm512_shuffle_i32x4::<0xdd>(r[c], r[4 + c]);
            let even_high = _mm512_shuffle_i32x4::<0x88>(r[8 + c], r[12 + c]);
            let odd_high = _mm512_shuffle_i32x4::<0xdd>(r[8 + c], r[12 + c]);
            t[c] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
            t[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
        }
        for (register, row) in t.iter().zip(block.iter_mut()) {
            // SAFETY: a row is 64 bytes.
            unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), *register) };
        }
    }
}

/// Writes `values`, rounded, to the first NR elements of `row`.
///
/// # Panics
/// If `row` is shorter.
#[inline(always)]
pub(crate) fn store_row<E: Element, const NR: usize>(values: &[f32; NR], row: &mut [E]) {
    let row = &mut row[..NR];
    for half in (0..NR).step_by(LANES) {
        let (values, mut near) = (lanes(values, half), [E::default(); LANES]);
        for lane in 0..LANES {
            near[lane] = E::narrow_ties_away(values[lane]);
        }
        row[half..][..LANES].copy_from_slice(&near);
    }
}

/// Writes the units of two rows of numbers, rounded; of `upper` alone for f32.
#[inline(always)]
pub(crate) fn pack_row<E: Element, const NR: usize>(
    upper: &[f32; NR],
    lower: &[f32; NR],
    units: &mut [u32; NR],
) {
    for half in (0..NR).step_by(LANES) {
        let (upper, lower, mut packed) = (lanes(upper, half), lanes(lower, half), [0u32; LANES]);
        for lane in 0..LANES {
            packed[lane] = E::unit_ties_away(upper[lane], lower[lane]);
        }
        units[half..][..LANES].copy_from_slice(&packed);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::isa::tests::available;

    #[test]
    fn a_block_is_transposed_in_every_way() {
        let block: [[u32; BLOCK]; BLOCK] =
            std::array::from_fn(|row| std::array::from_fn(|column| (row << 8 | column) as u32));
        let expected = std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]));
        for isa in available() {
            let mut found = block;
            transpose(&mut found, isa);
            assert_eq!(found, expected, "{isa:?}");
        }
    }

    #[test]
    fn panels_hold_units_by_lane_and_zeros_beyond() {
        // `[depth 3, lanes 2]`: 1 2 / 3 4 / 5 6.
        let source = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let nr = isa().columns();
        let mut panels = Panels::<f32>::zeros(2, 3);
        panels.pack_columns(&source, 2, 3, 2);
        for (q, lanes) in panels.units.chunks(nr).enumerate() {
            assert_eq!(lanes[..2], [source[2 * q].to_bits(), source[2 * q + 1].to_bits()]);
            assert!(lanes[2..].iter().all(|&unit| unit == 0));
        }
        // In bf16 two elements of a lane share a unit, the first in the lower half; the last is
        // alone.
        let unit =
            |first: f32, second: f32| bf16::unit(bf16::from_f32(first), bf16::from_f32(second));
        let mut panels = Panels::<bf16>::zeros(2, 3);
        panels.pack_columns(&source, 2, 3, 2);
        let units: Vec<&[u32]> = panels.units.chunks(nr).collect();
        assert_eq!(units.len(), 2);
        assert_eq!(
            (&units[0][..2], &units[1][..2]),
            (&[unit(1.0, 3.0), unit(2.0, 4.0)][..], &[unit(5.0, 0.0), unit(6.0, 0.0)][..])
        );
        assert!(units.iter().all(|units| units[2..].iter().all(|&unit| unit == 0)));
    }
}
