//! Rotary positions (Su et al., RoFormer, 2021), in Hugging Face's half-split order.

use crate::element::Element;
use crate::isa::multiversion;
use crate::math::LANES;

/// cos and sin of position × frequency, `[positions, e/2]` each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rotations {
    /// Width of a head, e.
    pub head_dim: usize,
    /// Of angle position · θ^(−2i/e).
    pub cos: Vec<f32>,
    /// Likewise.
    pub sin: Vec<f32>,
}

impl Rotations {
    /// Positions there are rows for.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2).max(1)
    }

    /// Of the first `positions` positions, for heads of `head_dim`, which is even, and base
    /// `theta`; computed in f64.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> =
            (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let angles = (0..positions)
            .flat_map(|t| frequencies.iter().map(move |frequency| t as f64 * frequency));
        let (sin, cos) = angles.map(|angle| (angle.sin() as f32, angle.cos() as f32)).unzip();
        Self { head_dim, cos, sin }
    }
}

multiversion! {
    /// Turns the first `heads` heads of each row, elements i and i + e/2 of a head by the angle of
    /// the row's position; `backward` turns the other way. Rows of `[heads e]` or wider, `stride`
    /// apart, are positions `first`, `first` + 1, … of one sequence after the other, `context`
    /// each.
    ///
    /// # Panics
    /// If `rotations` end before the last position, or rows are shorter than their heads.
    pub fn rotate<E: Element>(
        rows: &mut [E], stride: usize, first: usize, context: usize, heads: usize, rotations: &Rotations, backward: bool,
    ) {
        let (e, half) = (rotations.head_dim, rotations.head_dim / 2);
        let sign = if backward { -1.0 } else { 1.0 };
        for (row, rows) in rows.chunks_mut(stride).enumerate() {
            let at = (first + row % context) * half;
            let (cos, sin) = (&rotations.cos[at..][..half], &rotations.sin[at..][..half]);
            for head in rows[..heads * e].chunks_exact_mut(e) {
                let (first, second) = head.split_at_mut(half);
                let ((firsts, first_rest), (seconds, second_rest)) = (first.as_chunks_mut::<LANES>(), second.as_chunks_mut::<LANES>());
                let ((all_cos, cos_rest), (all_sin, sin_rest)) = (cos.as_chunks::<LANES>(), sin.as_chunks::<LANES>());
                for (((a, b), cos), sin) in firsts.iter_mut().zip(seconds).zip(all_cos).zip(all_sin) {
                    // Through arrays: the compiler then knows that nothing overlaps.
                    let (mut x, mut y) = ([E::default(); LANES], [E::default(); LANES]);
                    for i in 0..LANES {
                        (x[i], y[i]) = turn(a[i], b[i], cos[i], sign * sin[i]);
                    }
                    (*a, *b) = (x, y);
                }
                for (((a, b), &cos), &sin) in first_rest.iter_mut().zip(second_rest).zip(cos_rest).zip(sin_rest) {
                    (*a, *b) = turn(*a, *b, cos, sign * sin);
                }
            }
        }
    }
}

/// A point turned, rounded.
#[inline(always)]
fn turn<E: Element>(x: E, y: E, cos: f32, sin: f32) -> (E, E) {
    let (x, y) = (x.widen(), y.widen());
    (E::narrow(x * cos - y * sin), E::narrow(y * cos + x * sin))
}
