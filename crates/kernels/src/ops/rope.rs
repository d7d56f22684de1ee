//! Rotary position embedding (Su et al., RoFormer, 2021), in Hugging Face's order: element i of a
//! head is paired with element i + e/2.

use crate::element::Element;
use crate::isa::multiversion;
use crate::lanes::LANES;

/// cos and sin of each position's angles, `[positions, e/2]` each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rotations {
    /// Width of a head, e.
    pub head_dim: usize,
    /// cos(position · frequency i), times the scale.
    pub cos: Vec<f32>,
    /// sin of the same angle, times the scale.
    pub sin: Vec<f32>,
}

impl Rotations {
    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2).max(1)
    }

    /// The first `positions` positions of heads with a pair for each of `frequencies`, which turns
    /// by so much from one position to the next and becomes `scale` times as long. Computed in f64
    /// and rounded once.
    pub fn new(positions: usize, frequencies: &[f64], scale: f64) -> Self {
        let angles = (0..positions)
            .flat_map(|t| frequencies.iter().map(move |frequency| t as f64 * frequency));
        let (sin, cos) = angles
            .map(|angle| ((angle.sin() * scale) as f32, (angle.cos() * scale) as f32))
            .unzip();
        Self { head_dim: 2 * frequencies.len(), cos, sin }
    }
}

multiversion! {
    /// Rotates the first `heads` heads of each row: elements (x, y) = (i, i + e/2) of a head become
    /// (x cos − y sin, y cos + x sin) with the angle of the row's position.
    ///
    /// Rows are `[heads e]` or wider, `stride` apart, in sequences of `context` rows, whose
    /// positions are `first`, `first` + 1 and so on. `backward` rotates by the negative angle,
    /// which is what backward does to the gradient; a scale of the rotations stays as it is.
    ///
    /// # Panics
    /// If `rotations` end before the last position, or rows are shorter than their heads.
    pub fn rotate<E: Element>(
        rows: &mut [E],
        stride: usize,
        first: usize,
        context: usize,
        heads: usize,
        rotations: &Rotations,
        backward: bool,
    ) {
        let (e, half) = (rotations.head_dim, rotations.head_dim / 2);
        let sign = if backward { -1.0 } else { 1.0 };
        for (row, rows) in rows.chunks_mut(stride).enumerate() {
            let at = (first + row % context) * half;
            let (cos, sin) = (&rotations.cos[at..][..half], &rotations.sin[at..][..half]);
            for head in rows[..heads * e].chunks_exact_mut(e) {
                let (first, second) = head.split_at_mut(half);
                let ((firsts, first_rest), (seconds, second_rest)) =
                    (first.as_chunks_mut::<LANES>(), second.as_chunks_mut::<LANES>());
                let ((all_cos, cos_rest), (all_sin, sin_rest)) =
                    (cos.as_chunks::<LANES>(), sin.as_chunks::<LANES>());
                for (((a, b), cos), sin) in firsts.iter_mut().zip(seconds).zip(all_cos).zip(all_sin)
                {
                    // Through local arrays: the compiler then knows that nothing overlaps.
                    let (mut x, mut y) = ([E::default(); LANES], [E::default(); LANES]);
                    for i in 0..LANES {
                        (x[i], y[i]) = rotate_pair(a[i], b[i], cos[i], sign * sin[i]);
                    }
                    (*a, *b) = (x, y);
                }
                for (((a, b), &cos), &sin) in
                    first_rest.iter_mut().zip(second_rest).zip(cos_rest).zip(sin_rest)
                {
                    (*a, *b) = rotate_pair(*a, *b, cos, sign * sin);
                }
            }
        }
    }
}

/// The pair (x, y) rotated, and rounded.
#[inline(always)]
fn rotate_pair<E: Element>(x: E, y: E, cos: f32, sin: f32) -> (E, E) {
    let (x, y) = (x.widen(), y.widen());
    (E::narrow(x * cos - y * sin), E::narrow(y * cos + x * sin))
}
