//! SwiGLU: h = silu(gate) · up with silu(g) = g · σ(g), σ(g) = 1 / (1 + e⁻ᵍ) (Shazeer, GLU Variants
//! Improve Transformer, 2020).

use crate::buffer::Matrix;
use crate::element::Element;
use crate::isa::multiversion;
use crate::lanes::LANES;
use crate::math::sigmoid;

multiversion! {
    /// h ← silu(gate) · up in the first `rows` rows: `gate_up` is `[n, 2f]`, gates first, `h`
    /// `[n, f]`.
    ///
    /// # Panics
    /// If there are fewer rows, or `gate_up` is not twice as wide.
    pub fn swiglu<E: Element>(gate_up: &Matrix<E>, h: &mut Matrix<E>, rows: usize) {
        for row in 0..rows {
            let (gate, up) = gate_up.row(row).split_at(h.columns());
            for ((h, g), u) in h.row_mut(row).iter_mut().zip(gate).zip(up) {
                let g = g.widen();
                *h = E::narrow(g * sigmoid(g) * u.widen());
            }
        }
    }
}

multiversion! {
    /// Replaces `gate_up`, `[n, 2f]`, by its gradient in the first `rows` rows, given h's gradient
    /// `dh`, `[n, f]`:
    ///
    /// ```text
    /// d gate = dh · up · (σ(gate) + silu(gate) (1 − σ(gate)))        d up = dh · silu(gate)
    /// ```
    ///
    /// # Panics
    /// As [`swiglu`].
    pub fn swiglu_backward<E: Element>(gate_up: &mut Matrix<E>, dh: &Matrix<E>, rows: usize) {
        for row in 0..rows {
            let dh = dh.row(row);
            let (gate, up) = gate_up.row_mut(row).split_at_mut(dh.len());
            let ((gates, gate_rest), (ups, up_rest)) = (gate.as_chunks_mut::<LANES>(), up.as_chunks_mut::<LANES>());
            let (dhs, dh_rest) = dh.as_chunks::<LANES>();
            for ((gate, up), dh) in gates.iter_mut().zip(ups).zip(dhs) {
                // Through local arrays: the compiler then knows that nothing overlaps.
                let (mut d_gate, mut d_up) = ([E::default(); LANES], [E::default(); LANES]);
                for i in 0..LANES {
                    (d_gate[i], d_up[i]) = gradients(gate[i], up[i], dh[i]);
                }
                (*gate, *up) = (d_gate, d_up);
            }
            for ((gate, up), dh) in gate_rest.iter_mut().zip(up_rest).zip(dh_rest) {
                (*gate, *up) = gradients(*gate, *up, *dh);
            }
        }
    }
}

/// The gradients of one gate and its up, rounded.
#[inline(always)]
fn gradients<E: Element>(gate: E, up: E, dh: E) -> (E, E) {
    let (gate, dh) = (gate.widen(), dh.widen());
    let s = sigmoid(gate);
    let silu = gate * s;
    (E::narrow(dh * up.widen() * silu.mul_add(1.0 - s, s)), E::narrow(dh * silu))
}
