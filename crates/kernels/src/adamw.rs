//! AdamW and what comes before it: the sum of the threads' gradients and its norm.

use crate::isa::multiversion;

/// One update's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// What gradients are multiplied by first: the clipping.
    pub scale: f32,
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second.
    pub beta2: f32,
    /// Added to the root of the second.
    pub eps: f32,
    /// 1 / (1 − β₁ᵗ).
    pub first_correction: f32,
    /// 1 / (1 − β₂ᵗ).
    pub second_correction: f32,
    /// What parameters are multiplied by first: 1 − lr·λ, or 1 for those that do not decay.
    pub keep: f32,
}

multiversion! {
    /// Decoupled weight decay Adam (Loshchilov & Hutter, 2019) in place; all are of one length, and
    /// what one has more than another stays as it is. With gradient g = `scale` · gradient,
    ///
    /// ```text
    /// m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    /// θ ← keep · θ − lr · (m · first_correction) / (√(v · second_correction) + ε)
    /// ```
    pub fn adamw(parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamWStep) {
        let AdamWStep { scale, lr, beta1, beta2, eps, first_correction, second_correction, keep } = *step;
        let (rest1, rest2, rate) = (1.0 - beta1, 1.0 - beta2, lr * first_correction);
        for (((p, &g), m), v) in parameters.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * scale;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *p = *p * keep - rate * *m / ((*v * second_correction).sqrt() + eps);
        }
    }
}

multiversion! {
    /// Adds `other` to `sum`, element by element, as far as both reach.
    pub fn accumulate(sum: &mut [f32], other: &[f32]) {
        for (sum, other) in sum.iter_mut().zip(other) {
            *sum += other;
        }
    }
}

multiversion! {
    /// Σ x², in f64: squares of f32 are exact there and do not overflow. Not finite if any x is
    /// not.
    pub fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0f64; 8];
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum = f64::from(x).mul_add(f64::from(x), *sum);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum = f64::from(x).mul_add(f64::from(x), *sum);
        }
        sums.iter().sum()
    }
}
