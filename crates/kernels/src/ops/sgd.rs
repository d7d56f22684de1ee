//! Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's, and decoupled weight
//! decay.

use rayon::prelude::*;

use super::adamw::cautious_factor;
use crate::gradient::{CHUNK, Gradient};
use crate::isa::multiversion;

/// The constants of one update. Which they are is for the optimizer to decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Factor of the gradient, such as that of clipping.
    pub gradient_scale: f32,
    /// Learning rate.
    pub lr: f32,
    /// μ, the decay of the momentum, where there is one.
    pub momentum: f32,
    /// Whether the update looks ahead: g + μ b instead of b.
    pub nesterov: bool,
    /// Factor of the parameters: 1 − lr · λ for a weight decay λ, or 1 without decay.
    pub decay_factor: f32,
    /// Whether the factor is 1 where the update and the parameter have different signs.
    pub cautious: bool,
}

multiversion! {
    /// One update in place of parameters θ:
    ///
    /// ```text
    /// θ ← decay_factor · θ − lr · gradient_scale · gradient
    /// ```
    pub fn sgd(parameters: &mut [f32], gradient: &[f32], step: &SgdStep) {
        let SgdStep { gradient_scale, lr, .. } = *step;
        for (p, &g) in parameters.iter_mut().zip(gradient) {
            *p = moved(*p, g * gradient_scale, lr, step);
        }
    }
}

multiversion! {
    /// One update in place of parameters θ and their momentum b:
    ///
    /// ```text
    /// g = gradient_scale · gradient
    /// b ← μ b + g
    /// θ ← decay_factor · θ − lr · b        or, looking ahead, lr · (g + μ b)
    /// ```
    pub fn sgd_with_momentum(
        parameters: &mut [f32],
        gradient: &[f32],
        momentum: &mut [f32],
        step: &SgdStep,
    ) {
        let SgdStep { gradient_scale, lr, momentum: mu, nesterov, .. } = *step;
        for ((p, &g), b) in parameters.iter_mut().zip(gradient).zip(momentum) {
            let g = g * gradient_scale;
            *b = mu * *b + g;
            let change = if nesterov { g + mu * *b } else { *b };
            *p = moved(*p, change, lr, step);
        }
    }
}

/// A parameter after a move by −`lr` · `change`.
#[inline(always)]
pub(crate) fn moved(p: f32, change: f32, lr: f32, step: &SgdStep) -> f32 {
    let factor = match step.cautious {
        true => cautious_factor(p, change, step.decay_factor),
        false => step.decay_factor,
    };
    p * factor - lr * change
}

/// [`sgd`] or [`sgd_with_momentum`] in rayon's current thread pool. Elements are independent: the
/// result is the same.
pub(crate) fn sgd_parallel(
    parameters: &mut [f32],
    gradient: &Gradient,
    mut momentum: Option<&mut [f32]>,
    step: &SgdStep,
) {
    let mut from = 0;
    gradient.with_blocks(|gradient| {
        let to = from + gradient.len();
        let chunks = parameters[from..to].par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        match momentum.as_deref_mut() {
            Some(momentum) => {
                let momentum = momentum[from..to].par_chunks_mut(CHUNK);
                chunks.zip(momentum).for_each(|((parameters, gradient), momentum)| {
                    sgd_with_momentum(parameters, gradient, momentum, step);
                });
            }
            None => chunks.for_each(|(parameters, gradient)| sgd(parameters, gradient, step)),
        }
        from = to;
    });
}
