//! Softmax and cross-entropy over rows of logits.

use crate::buffer::Matrix;
use crate::element::Element;
use crate::isa::multiversion;
use crate::math::{LANES, exp, largest, total};

multiversion! {
    /// Turns each of the first `targets.len()` rows z of `logits`, `[n, v]`, into e^(z − max z), puts one over their sum into
    /// `inverse`, `[n]`, so that the softmax is their product, and the cross-entropy, log Σ e^z − z_target, in nats into
    /// `losses`, `[n]`: a NaN for a row with a NaN or ∞ among its logits, or with a target beyond them.
    ///
    /// # Panics
    /// If `logits` has fewer rows than there are targets.
    pub fn cross_entropy<E: Element>(logits: &mut Matrix<E>, targets: &[u32], inverse: &mut [f32], losses: &mut [f32]) {
        for (row, ((&target, inverse), loss)) in targets.iter().zip(inverse).zip(losses).enumerate() {
            let logits = logits.row_mut(row);
            let max = largest(logits);
            let at_target = logits.get(target as usize).map_or(f32::NAN, |z| z.widen());
            let mut sums = [0f32; LANES];
            let (chunks, rest) = logits.as_chunks_mut::<LANES>();
            for chunk in chunks {
                for i in 0..LANES {
                    let e = exp(chunk[i].widen() - max);
                    chunk[i] = E::narrow(e);
                    sums[i] += e;
                }
            }
            for (z, sum) in rest.iter_mut().zip(&mut sums) {
                let e = exp(z.widen() - max);
                *z = E::narrow(e);
                *sum += e;
            }
            let sum = total(sums);
            *inverse = 1.0 / sum;
            *loss = sum.ln() + max - at_target;
        }
    }
}
