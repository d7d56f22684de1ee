//! Operands of matrix products laid out in the order in which a product reads them.

use std::marker::PhantomData;

use half::bf16;

use crate::buffer::Buffer;
use crate::element::Element;
use crate::isa::{Isa, isa, multiversion};
use crate::micro::NR;

/// A number that packing turns into an `E`: an `E` itself, or f32 that is rounded.
pub trait To<E>: Copy {
    /// The nearest `E`.
    fn to(self) -> E;
}

impl<E: Element> To<E> for E {
    #[inline(always)]
    fn to(self) -> E {
        self
    }
}

impl To<bf16> for f32 {
    #[inline(always)]
    fn to(self) -> bf16 {
        bf16::narrow(self)
    }
}

/// The right operand of a product, `[depth, lanes]`, depth being what is summed over: panels of 32
/// lanes, in each the units one after the other, in each unit its lanes. What is missing to a whole
/// panel or unit is zero.
#[derive(Clone, Default)]
pub struct Panels<E> {
    units: Buffer<u32>,
    lanes: usize,
    depth: usize,
    of: PhantomData<E>,
}

impl<E: Element> Panels<E> {
    /// Workspace for `[depth, lanes]`.
    pub fn zeros(lanes: usize, depth: usize) -> Self {
        let units = Buffer::zeros(lanes.next_multiple_of(NR) * depth.div_ceil(E::PER_UNIT));
        Self { units, lanes, depth, of: PhantomData }
    }

    /// Columns of the product.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// What is summed over, in elements.
    pub fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn units(&self) -> &[u32] {
        &self.units
    }

    /// Takes `source` as it lies, `[depth, lanes]` in rows `stride` apart.
    ///
    /// # Panics
    /// If there is no room for it, or `source` is too short.
    pub fn pack_columns<S: To<E>>(
        &mut self,
        source: &[S],
        stride: usize,
        depth: usize,
        lanes: usize,
    ) {
        (self.lanes, self.depth) = (lanes, depth);
        pack_columns::<E, S>(&mut self.units, source, stride, depth, lanes);
    }

    /// Takes the transpose of `source`, which is `[lanes, depth]` in rows `stride` apart.
    ///
    /// # Panics
    /// As [`Panels::pack_columns`].
    pub fn pack_rows<S: To<E>>(&mut self, source: &[S], stride: usize, lanes: usize, depth: usize) {
        (self.lanes, self.depth) = (lanes, depth);
        pack_rows::<E, S>(&mut self.units, source, stride, lanes, depth);
    }
}

multiversion! {
    /// Panels for the right side of `source`, `[depth, lanes]` in rows `stride` apart.
    pub(crate) fn pack_columns<E: Element, S: To<E>>(panels: &mut [u32], source: &[S], stride: usize, depth: usize, lanes: usize) {
        let units = depth.div_ceil(E::PER_UNIT);
        // Row by row, as the source lies in memory, some lanes of each panel at a time.
        for q in 0..units {
            let k = q * E::PER_UNIT;
            let upper = &source[k * stride..][..lanes];
            let lower = (E::PER_UNIT == 2 && k + 1 < depth).then(|| &source[(k + 1) * stride..][..lanes]);
            let (uppers, upper_rest) = upper.as_chunks::<NR>();
            let (lowers, lower_rest) = lower.unwrap_or_default().as_chunks::<NR>();
            for (panel, upper) in uppers.iter().enumerate() {
                let mut packed = [0u32; NR];
                if let Some(lower) = lowers.get(panel) {
                    for lane in 0..NR {
                        packed[lane] = E::unit(upper[lane].to(), lower[lane].to());
                    }
                } else {
                    for lane in 0..NR {
                        packed[lane] = E::unit(upper[lane].to(), E::default());
                    }
                }
                panels[(panel * units + q) * NR..][..NR].copy_from_slice(&packed);
            }
            if !upper_rest.is_empty() {
                let mut packed = [0u32; NR];
                for (lane, upper) in upper_rest.iter().enumerate() {
                    let lower = lower_rest.get(lane).map_or(E::default(), |lower| lower.to());
                    packed[lane] = E::unit(upper.to(), lower);
                }
                panels[(uppers.len() * units + q) * NR..][..NR].copy_from_slice(&packed);
            }
        }
    }
}

/// Units and lanes of a block that is transposed at once.
const BLOCK: usize = 16;

multiversion! {
    /// Panels for the right side of the transpose of `source`, `[lanes, depth]` in rows `stride`
    /// apart.
    fn pack_rows<E: Element, S: To<E>>(
        panels: &mut [u32], source: &[S], stride: usize, lanes: usize, depth: usize,
    ) {
        let units = depth.div_ceil(E::PER_UNIT);
        let avx512 = isa() >= Isa::Avx512;
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
                                block[u] = E::unit(row[u * E::PER_UNIT].to(), row[u * E::PER_UNIT + E::PER_UNIT - 1].to());
                            }
                        } else {
                            for (u, unit) in block.iter_mut().enumerate().take(count) {
                                let k = u * E::PER_UNIT;
                                let whole = q * E::PER_UNIT + k + E::PER_UNIT <= depth;
                                let second = if whole { row[k + E::PER_UNIT - 1].to() } else { E::default() };
                                *unit = E::unit(row[k].to(), second);
                            }
                        }
                    }
                    transpose(&mut block, avx512);
                    for (u, block) in block.iter().enumerate().take(count) {
                        panel[(q + u) * NR + half..][..BLOCK].copy_from_slice(block);
                    }
                }
            }
        }
    }
}

/// Transposes in place.
#[inline(always)]
fn transpose(block: &mut [[u32; BLOCK]; BLOCK], avx512: bool) {
    #[cfg(target_arch = "x86_64")]
    if avx512 {
        // SAFETY: the processor has AVX-512.
        return unsafe { x86::transpose(block) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = avx512;
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

    use super::BLOCK;

    /// In four rounds, each of which doubles how much of a column lies together: pairs, fours, then
    /// the four lanes of 128 bits of a register.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn transpose(block: &mut [[u32; BLOCK]; BLOCK]) {
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
        // r[4g + c] gets, in its lane of 128 bits L, column 4L + c of rows 4g to 4g + 3.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_transposed_by_either_way() {
        let block: [[u32; BLOCK]; BLOCK] =
            std::array::from_fn(|row| std::array::from_fn(|column| (row << 8 | column) as u32));
        let expected = std::array::from_fn(|row| std::array::from_fn(|column| block[column][row]));
        for avx512 in [false, isa() >= Isa::Avx512] {
            let mut found = block;
            transpose(&mut found, avx512);
            assert_eq!(found, expected, "AVX-512: {avx512}");
        }
    }

    #[test]
    fn panels_hold_units_by_lane_and_zeros_beyond() {
        // `[depth 3, lanes 2]`: 1 2 / 3 4 / 5 6.
        let source = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut panels = Panels::<f32>::zeros(2, 3);
        panels.pack_columns(&source, 2, 3, 2);
        for (q, lanes) in panels.units().chunks(NR).enumerate() {
            assert_eq!(lanes[..2], [source[2 * q].to_bits(), source[2 * q + 1].to_bits()]);
            assert!(lanes[2..].iter().all(|&unit| unit == 0));
        }
        // In bf16 two elements of a lane share a unit, the first in the lower half; the last is
        // alone.
        let unit =
            |first: f32, second: f32| bf16::unit(bf16::from_f32(first), bf16::from_f32(second));
        let mut panels = Panels::<bf16>::zeros(2, 3);
        panels.pack_columns(&source, 2, 3, 2);
        let units: Vec<&[u32]> = panels.units().chunks(NR).collect();
        assert_eq!(units.len(), 2);
        assert_eq!(
            (&units[0][..2], &units[1][..2]),
            (&[unit(1.0, 3.0), unit(2.0, 4.0)][..], &[unit(5.0, 0.0), unit(6.0, 0.0)][..])
        );
        assert!(units.iter().all(|units| units[2..].iter().all(|&unit| unit == 0)));
    }
}
