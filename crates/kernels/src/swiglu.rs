//! SwiGLU: h = silu(gate) · up, silu(g) = g / (1 + e⁻ᵍ) (Shazeer, GLU variants, 2020).

use crate::buffer::Matrix;
use crate::element::Element;
use crate::isa::multiversion;
use crate::math::sigmoid;

multiversion! {
    /// `gate_up` is `[n, 2f]`, gates first; `h` `[n, f]`. The first `rows` rows.
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
    /// Turns `gate_up`, `[n, 2f]`, into its gradient, given h's, `dh`, `[n, f]`: d gate = dh · up · (σ + silu (1 − σ)),
    /// d up = dh · silu.
    pub fn swiglu_backward<E: Element>(gate_up: &mut Matrix<E>, dh: &Matrix<E>, rows: usize) {
        for row in 0..rows {
            let dh = dh.row(row);
            let (gate, up) = gate_up.row_mut(row).split_at_mut(dh.len());
            for ((g, u), dh) in gate.iter_mut().zip(up).zip(dh) {
                let (x, dh) = (g.widen(), dh.widen());
                let s = sigmoid(x);
                let silu = x * s;
                *g = E::narrow(dh * u.widen() * silu.mul_add(1.0 - s, s));
                *u = E::narrow(dh * silu);
            }
        }
    }
}
