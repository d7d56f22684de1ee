//! AdamW: decoupled weight decay Adam (Loshchilov & Hutter, 2019), decay on matrices only.
//!
//! With gradient g, after update t:
//!
//! ```text
//! m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
//! θ ← θ − lr·λ·θ − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
//! ```
//!
//! The decay of a group, and whether it is cautious, are the update's.
//!
//! Two tensors a parameter are kept: m as `exp_avg` and v as `exp_avg_sq`, PyTorch's names.
//! (`candle_nn::AdamW` hides them, so an exact resume needs our own.)

use candle_core::Tensor;
use cuvee_kernels::{AdamWStep, Backend};

use super::interface::{Candle, Optimizer, Slot, Update, moved, wrong_state};
use crate::error::Result;
use crate::spec::TrainSpec;

const STATE: &[&str] = &["exp_avg", "exp_avg_sq"];

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl AdamW {
    /// With the constants of `train`.
    pub fn new(train: &TrainSpec) -> Self {
        let &TrainSpec { beta1, beta2, eps, .. } = train;
        Self { beta1, beta2, eps }
    }

    /// 1 − β₁ᵗ and 1 − β₂ᵗ.
    fn corrections(&self, count: u64) -> (f64, f64) {
        // Beyond 2^31 updates the corrections have long been 1 to the last bit.
        let t = i32::try_from(count).unwrap_or(i32::MAX);
        (1.0 - self.beta1.powi(t), 1.0 - self.beta2.powi(t))
    }
}

/// In f32 and in place, one kernel a parameter.
impl<K: Backend> Optimizer<K> for AdamW {
    fn state_names(&self) -> &'static [&'static str] {
        STATE
    }

    fn update(&self, kernels: &K, slot: Slot<'_, K>, update: &Update) -> Result<()> {
        let Slot { values, gradient, state: [first, second], .. } = slot else {
            return Err(wrong_state());
        };
        let (first_correction, second_correction) = self.corrections(update.count);
        let step = AdamWStep {
            gradient_scale: update.scale as f32,
            lr: update.lr as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            first_correction: (1.0 / first_correction) as f32,
            second_correction: (1.0 / second_correction) as f32,
            decay_factor: update.keep as f32,
            cautious: update.cautious,
        };
        kernels.adamw(values, gradient, first, second, &step);
        Ok(())
    }
}

/// In the tensors' own precision.
impl Optimizer<Candle> for AdamW {
    fn state_names(&self) -> &'static [&'static str] {
        STATE
    }

    fn update(&self, _: &Candle, slot: Slot<'_, Candle>, update: &Update) -> Result<()> {
        let Slot { values, gradient, state: [first, second], .. } = slot else {
            return Err(wrong_state());
        };
        let (first_correction, second_correction) = self.corrections(update.count);
        let gradient = gradient.affine(update.scale, 0.0)?;
        *first = (first.affine(self.beta1, 0.0)? + gradient.affine(1.0 - self.beta1, 0.0)?)?;
        *second =
            (second.affine(self.beta2, 0.0)? + gradient.sqr()?.affine(1.0 - self.beta2, 0.0)?)?;
        let root = second.affine(1.0 / second_correction, 0.0)?.sqrt()?.affine(1.0, self.eps)?;
        let change: Tensor = (first.affine(update.lr / first_correction, 0.0)? / root)?;
        *values = moved(values, &change, update)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use candle_core::Device;

    /// One parameter and its state.
    struct Parameter {
        values: Tensor,
        state: [Tensor; 2],
        decay: bool,
        updates: u64,
    }

    impl Parameter {
        fn new(values: &[f64], decay: bool) -> Self {
            let zeros = tensor(&vec![0.0; values.len()]);
            Self { values: tensor(values), state: [zeros.clone(), zeros], decay, updates: 0 }
        }

        fn update(&mut self, gradient: &[f64], scale: f64, lr: f64) -> Vec<f64> {
            self.updates += 1;
            let slot = Slot {
                values: &mut self.values,
                gradient: &tensor(gradient),
                state: &mut self.state,
                matrices: &[[1, gradient.len()]],
            };
            let keep = if self.decay { 1.0 - lr * 0.1 } else { 1.0 };
            let update = Update { count: self.updates, lr, scale, keep, cautious: false };
            Optimizer::<Candle>::update(&adamw(), &Candle, slot, &update).unwrap();
            self.values.to_vec1().unwrap()
        }
    }

    fn adamw() -> AdamW {
        AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 }
    }

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn adamw_matches_torch() {
        // Python, torch 2.15:
        // import torch
        // x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
        // o = torch.optim.AdamW([x], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        // for g in ([0.1, -0.2, 0.3], [-0.4, 0.0, 0.2], [1e-9, 5.0, -3.0]):
        //     x.grad = torch.tensor(g, dtype=torch.float64); o.step(); print(x.tolist())
        let gradients = [[0.1, -0.2, 0.3], [-0.4, 0.0, 0.2], [1e-9, 5.0, -3.0]];
        let golden = [
            [0.9890000009999999, -1.9880000005, 0.4895000003333333],
            [0.9935450185551139, -1.9792255235175418, 0.4792597130412802],
            [0.9968845970165235, -1.983272255426103, 0.48409882869408033],
        ];
        let mut x = Parameter::new(&[1.0, -2.0, 0.5], true);
        for (gradient, golden) in gradients.iter().zip(golden) {
            for (ours, torch) in x.update(gradient, 1.0, 0.01).iter().zip(golden) {
                // A dozen f64 operations on numbers up to 2, three times over: 36 · 2 · 2^-53 <
                // 1e-14.
                assert!((ours - torch).abs() < 1e-14, "{ours} against {torch}");
            }
        }
    }

    #[test]
    fn what_does_not_decay_stays_without_a_gradient() {
        let mut matrix = Parameter::new(&[1.0, 2.0], true);
        let mut norm = Parameter::new(&[1.0, 2.0], false);
        assert_eq!(norm.update(&[0.0, 0.0], 1.0, 0.5), [1.0, 2.0]);
        assert_eq!(matrix.update(&[0.0, 0.0], 1.0, 0.5), [0.95, 1.9]); // 1 − 0.5·0.1
    }

    /// Sampling weights leave the mean gradient alone, and not what AdamW makes of it: the update
    /// is mean / root mean square, and few sequences of large multipliers scatter more.
    #[test]
    fn a_domain_sampled_less_moves_less_under_adamw_at_the_same_mean_gradient() {
        // A direction that one domain alone moves, in many independent copies. Of 32 sequences 32 p
        // are of it, each with gradient 1 + 3 z, z ~ N(0, 1), and multiplier α/p at α = ½.
        let (copies, steps, settled) = (200, 400, 100);
        let noise = cuvee_mixer::seed::CounterRng::new(7);
        let speed = |p: f64| {
            let mut x = Parameter::new(&vec![0.0; copies], false);
            let (mut due, mut before, mut mean) = (0.0, 0.0, 0.0);
            for step in 0..steps {
                due += 32.0 * p;
                let count = f64::floor(due + 1e-9);
                due -= count;
                let one = |i| count + 3.0 * count.sqrt() * noise.nested(step).normal(i);
                let gradient: Vec<f64> =
                    (0..copies as u64).map(|i| 0.5 / p * one(i) / 32.0).collect();
                mean += gradient.iter().sum::<f64>() / (copies as u64 * steps) as f64;
                let total = -x.update(&gradient, 1.0, 0.01).iter().sum::<f64>();
                before = if step == settled { total } else { before };
            }
            let total = -x.values.to_vec1::<f64>().unwrap().iter().sum::<f64>();
            (total - before, mean)
        };
        let (even, even_mean) = speed(0.5);
        for (p, expected) in [(0.25, 0.86), (0.1, 0.64), (0.05, 0.48), (0.02, 0.31)] {
            let (moved, mean) = speed(p);
            // 1/√(1 + 9/(32 p)) relative to p = ½, less what β₂ = 0.95 and counts of 0 and 1 bend:
            // at most 0.03. The mean of 60,000 updates that β₁ correlates over ten has σ < 0.01.
            let form = (1.0 + 9.0 / 16.0_f64).sqrt() / (1.0 + 9.0 / (32.0 * p)).sqrt();
            assert!((moved / even - form).abs() < 0.05, "{p}: {} against {form}", moved / even);
            assert!((moved / even - expected).abs() < 0.03, "{p}: {}", moved / even);
            // The mean of 80,000 gradients with a standard deviation of at most 0.5/p/32·3·√(32 p).
            let sigma = 0.5 / p / 32.0 * 3.0 * (32.0 * p).sqrt() / f64::sqrt(80_000.0);
            assert!((mean - even_mean).abs() < 7.0 * sigma + 1e-3, "{p}: {mean} {even_mean}");
        }
    }

    #[test]
    fn the_first_update_sees_the_scaled_gradient() {
        // (1 − β₁)·g·scale.
        let mut x = Parameter::new(&[0.0, 0.0], true);
        x.update(&[3.0, -4.0], 0.2, 0.0);
        let first = x.state[0].to_vec1::<f64>().unwrap();
        assert!((first[0] - 0.06).abs() < 1e-16 && (first[1] + 0.08).abs() < 1e-16);
    }
}
