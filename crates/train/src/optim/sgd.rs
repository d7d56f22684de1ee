//! Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's (as Sutskever et al.,
//! 2013), and decoupled weight decay.
//!
//! With gradient g and momentum μ:
//!
//! ```text
//! b ← μ b + g
//! θ ← θ − lr·λ·θ − lr · b        or, looking ahead, lr · (g + μ b)
//! ```
//!
//! This is `torch.optim.SGD` without dampening, but for the decay, which PyTorch adds to g, and so
//! to the momentum, and which is beside it here as AdamW's is (Loshchilov & Hutter, 2019, algorithm
//! 1). One tensor a parameter is kept, b as `momentum_buffer`, PyTorch's name; with a momentum of 0
//! none is.

use cuvee_kernels::{Backend, SgdStep};

use super::interface::{Candle, Optimizer, Slot, Update, moved, wrong_state};
use crate::error::Result;
use crate::spec::OptimizerSpec;

const STATE: &[&str] = &["momentum_buffer"];

/// μ where the config gives none.
const MOMENTUM: f64 = 0.9;

/// Its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
}

impl Sgd {
    /// With the constants of `spec`: momentum 0.9 and no looking ahead where it gives none.
    pub fn new(spec: &OptimizerSpec) -> Self {
        let momentum = spec.momentum.unwrap_or(MOMENTUM);
        Self { momentum, nesterov: spec.nesterov.unwrap_or(false) }
    }

    fn kept(&self) -> &'static [&'static str] {
        if self.momentum > 0.0 { STATE } else { &[] }
    }
}

/// In f32 and in place, one kernel a parameter.
impl<K: Backend> Optimizer<K> for Sgd {
    fn state_names(&self) -> &'static [&'static str] {
        self.kept()
    }

    fn update(&self, kernels: &K, slot: Slot<'_, K>, update: &Update) -> Result<()> {
        let step = SgdStep {
            gradient_scale: update.scale as f32,
            lr: update.lr as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            decay_factor: update.keep as f32,
            cautious: update.cautious,
        };
        match (slot.state, self.kept()) {
            ([], []) => kernels.sgd(slot.values, slot.gradient, None, &step),
            ([momentum], [_]) => kernels.sgd(slot.values, slot.gradient, Some(momentum), &step),
            _ => return Err(wrong_state()),
        }
        Ok(())
    }
}

/// In the tensors' own precision.
impl Optimizer<Candle> for Sgd {
    fn state_names(&self) -> &'static [&'static str] {
        self.kept()
    }

    fn update(&self, _: &Candle, slot: Slot<'_, Candle>, update: &Update) -> Result<()> {
        let gradient = slot.gradient.affine(update.scale, 0.0)?;
        let direction = match (slot.state, self.kept()) {
            ([], []) => gradient,
            ([momentum], [_]) => {
                *momentum = (momentum.affine(self.momentum, 0.0)? + &gradient)?;
                match self.nesterov {
                    true => (gradient + momentum.affine(self.momentum, 0.0)?)?,
                    false => momentum.clone(),
                }
            }
            _ => return Err(wrong_state()),
        };
        *slot.values = moved(slot.values, &direction.affine(update.lr, 0.0)?, update)?;
        Ok(())
    }
}
