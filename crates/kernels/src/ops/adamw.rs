//! AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

use rayon::prelude::*;

use crate::gradient::{CHUNK, Gradient};
use crate::isa::multiversion;

/// The constants of one update. Which they are is for the optimizer to decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Factor of the gradient, such as that of clipping.
    pub gradient_scale: f32,
    /// Learning rate.
    pub lr: f32,
    /// β₁, the decay of the first moment.
    pub beta1: f32,
    /// β₂, the decay of the second moment.
    pub beta2: f32,
    /// ε, added to the root of the second moment.
    pub eps: f32,
    /// 1 / (1 − β₁ᵗ).
    pub first_correction: f32,
    /// 1 / (1 − β₂ᵗ).
    pub second_correction: f32,
    /// Factor of the parameters: 1 − lr · λ for a weight decay λ, or 1 without decay.
    pub decay_factor: f32,
    /// Whether the factor is 1 where the update and the parameter have different signs.
    pub cautious: bool,
}

/// What a parameter `p` that moves by −`change` is multiplied by first under cautious weight decay
/// (Chen et al., 2025): 1 where their signs differ, else `decay_factor`.
#[inline(always)]
pub(crate) fn cautious_factor(p: f32, change: f32, decay_factor: f32) -> f32 {
    let apart = (change > 0.0 && p < 0.0) || (change < 0.0 && p > 0.0);
    if apart { 1.0 } else { decay_factor }
}

multiversion! {
    /// One update in place of parameters θ, first moment m and second moment v, all of one length:
    ///
    /// ```text
    /// g = gradient_scale · gradient
    /// m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
    /// θ ← decay_factor · θ − lr · (m · first_correction) / (√(v · second_correction) + ε)
    /// ```
    ///
    /// With `cautious` the factor is 1 where m and θ have different signs.
    ///
    /// Where one slice is longer than another, its rest stays as it is.
    pub fn adamw(
        parameters: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        step: &AdamWStep,
    ) {
        let AdamWStep {
            gradient_scale,
            lr,
            beta1,
            beta2,
            eps,
            first_correction,
            second_correction,
            decay_factor,
            cautious,
        } = *step;
        let (rest1, rest2, rate) = (1.0 - beta1, 1.0 - beta2, lr * first_correction);
        let all = parameters.iter_mut().zip(gradient).zip(first).zip(second);
        if cautious {
            for (((p, &g), m), v) in all {
                let g = g * gradient_scale;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                let kept = *p * cautious_factor(*p, *m, decay_factor);
                *p = kept - rate * *m / ((*v * second_correction).sqrt() + eps);
            }
            return;
        }
        for (((p, &g), m), v) in all {
            let g = g * gradient_scale;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *p = *p * decay_factor - rate * *m / ((*v * second_correction).sqrt() + eps);
        }
    }
}

/// [`adamw`] in rayon's current thread pool. Elements are independent: the result is the same.
pub(crate) fn adamw_parallel(
    parameters: &mut [f32],
    gradient: &Gradient,
    first: &mut [f32],
    second: &mut [f32],
    step: &AdamWStep,
) {
    let mut from = 0;
    gradient.with_blocks(|gradient| {
        let to = from + gradient.len();
        let chunks = parameters[from..to]
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first[from..to].par_chunks_mut(CHUNK))
            .zip(second[from..to].par_chunks_mut(CHUNK));
        chunks.for_each(|(((parameters, gradient), first), second)| {
            adamw(parameters, gradient, first, second, step)
        });
        from = to;
    });
}
