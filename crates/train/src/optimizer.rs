//! AdamW with moments that can be saved, and clipping by the global norm.
//!
//! In go parameters and their gradients, on any device; the parameters are updated where they lie.
//! Two tensors a parameter are kept from the first update on. (`candle_nn::AdamW` hides its
//! moments, so an exact resume needs our own.)

use candle_core::{DType, Tensor, Var};

use crate::error::Result;
use crate::spec::TrainSpec;

/// Decoupled weight decay Adam (Loshchilov & Hutter, 2019), decay on matrices only. With gradient
/// g, after update t:
///
/// ```text
/// m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
/// θ ← θ − lr·λ·θ − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
#[derive(Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    updates: u64,
    slots: Vec<Slot>,
}

/// One parameter and its two moments.
#[derive(Debug)]
struct Slot {
    parameter: Var,
    decay: bool,
    /// First and second; `None` is zero, before the first update.
    moments: Option<(Tensor, Tensor)>,
}

impl AdamW {
    /// An optimizer of `parameters`, each with whether weight decay applies to it; moments start at
    /// zero and take no memory yet.
    pub fn new(parameters: impl IntoIterator<Item = (Var, bool)>, spec: &TrainSpec) -> Self {
        let slot = |(parameter, decay)| Slot { parameter, decay, moments: None };
        Self {
            beta1: spec.beta1,
            beta2: spec.beta2,
            eps: spec.eps,
            weight_decay: spec.weight_decay,
            updates: 0,
            slots: parameters.into_iter().map(slot).collect(),
        }
    }

    /// One update at learning rate `lr` with the gradients times `scale` (the clipping), in the
    /// parameters' order.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`], also if the moments do not fit in memory.
    pub fn update(&mut self, gradients: &[Tensor], scale: f64, lr: f64) -> Result<()> {
        self.updates += 1;
        // Beyond 2^31 updates the corrections have long been 1 to the last bit.
        let t = i32::try_from(self.updates).unwrap_or(i32::MAX);
        let first_correction = 1.0 - self.beta1.powi(t);
        let second_correction = 1.0 - self.beta2.powi(t);
        for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
            let gradient = gradient.affine(scale, 0.0)?;
            let (first, second) = slot.moments()?;
            let first =
                (first.affine(self.beta1, 0.0)? + gradient.affine(1.0 - self.beta1, 0.0)?)?;
            let second = (second.affine(self.beta2, 0.0)?
                + gradient.sqr()?.affine(1.0 - self.beta2, 0.0)?)?;
            let root =
                second.affine(1.0 / second_correction, 0.0)?.sqrt()?.affine(1.0, self.eps)?;
            let change = (first.affine(lr / first_correction, 0.0)? / root)?;
            slot.moments = Some((first, second));
            let keep = if slot.decay { 1.0 - lr * self.weight_decay } else { 1.0 };
            // Detached: a `Var` would otherwise bring each update into the graph of the next.
            let updated = (slot.parameter.as_detached_tensor().affine(keep, 0.0)? - change)?;
            slot.parameter.set(&updated)?;
        }
        Ok(())
    }

    /// Updates made so far, t of the formula.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The first and second moments, in the parameters' order; zeros before the first update.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`].
    pub fn moments(&self) -> Result<Vec<(Tensor, Tensor)>> {
        self.slots.iter().map(Slot::moments).collect()
    }

    /// Takes up where another optimizer stopped; `moments` are in the parameters' order and of
    /// their shapes and type.
    pub fn restore(&mut self, updates: u64, moments: Vec<(Tensor, Tensor)>) {
        self.updates = updates;
        for (slot, (first, second)) in self.slots.iter_mut().zip(moments) {
            slot.moments = Some((first, second));
        }
    }
}

impl Slot {
    fn moments(&self) -> Result<(Tensor, Tensor)> {
        match &self.moments {
            Some((first, second)) => Ok((first.clone(), second.clone())),
            None => {
                let zeros = self.parameter.zeros_like()?;
                Ok((zeros.clone(), zeros))
            }
        }
    }
}

/// Euclidean norm of each gradient, summed in f64: in f32 the squares of a large matrix would lose
/// digits.
///
/// # Errors
/// [`crate::TrainError::Tensor`].
pub fn norms(gradients: &[Tensor]) -> Result<Vec<f64>> {
    let norm = |gradient: &Tensor| -> Result<f64> {
        let sum = gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?;
        Ok(sum.to_scalar::<f64>()?.sqrt())
    };
    gradients.iter().map(norm).collect()
}

/// What gradients of global norm `norm` are multiplied by so that it is at most `clip`; 0 never
/// clips (Pascanu et al., 2013).
pub fn clip_scale(norm: f64, clip: f64) -> f64 {
    if clip > 0.0 && norm > clip { clip / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use candle_core::Device;

    fn spec() -> TrainSpec {
        TrainSpec { weight_decay: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, ..TrainSpec::default() }
    }

    fn variable(values: &[f64]) -> Var {
        Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
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
        let x = variable(&[1.0, -2.0, 0.5]);
        let mut optimizer = AdamW::new([(x.clone(), true)], &spec());
        for (gradient, golden) in gradients.iter().zip(golden) {
            optimizer.update(&[tensor(gradient)], 1.0, 0.01).unwrap();
            for (ours, torch) in x.to_vec1::<f64>().unwrap().iter().zip(golden) {
                // A dozen f64 operations on numbers up to 2, three times over: 36 · 2 · 2^-53 <
                // 1e-14.
                assert!((ours - torch).abs() < 1e-14, "{ours} against {torch}");
            }
        }
        assert_eq!(optimizer.updates(), 3);
    }

    #[test]
    fn weight_decay_touches_matrices_only() {
        let (matrix, norm) = (variable(&[1.0, 2.0]), variable(&[1.0, 2.0]));
        let mut optimizer = AdamW::new([(matrix.clone(), true), (norm.clone(), false)], &spec());
        let zero = tensor(&[0.0, 0.0]);
        optimizer.update(&[zero.clone(), zero], 1.0, 0.5).unwrap();
        assert_eq!(norm.to_vec1::<f64>().unwrap(), [1.0, 2.0]);
        assert_eq!(matrix.to_vec1::<f64>().unwrap(), [0.95, 1.9]); // 1 − 0.5·0.1
    }

    #[test]
    fn moments_take_no_memory_before_the_first_update() {
        let x = variable(&[1.0, 2.0]);
        let mut optimizer = AdamW::new([(x, true)], &spec());
        let (first, second) = optimizer.moments().unwrap().swap_remove(0);
        assert_eq!(first.to_vec1::<f64>().unwrap(), [0.0, 0.0]);
        assert_eq!(second.to_vec1::<f64>().unwrap(), [0.0, 0.0]);
        assert!(
            optimizer.slots[0].moments.is_none(),
            "looking at them allocates nothing that stays"
        );
        optimizer.update(&[tensor(&[1.0, 0.0])], 1.0, 0.1).unwrap();
        assert!(optimizer.slots[0].moments.is_some());
    }

    #[test]
    fn clipping_bounds_the_norm_and_keeps_the_direction() {
        let gradients = [tensor(&[3.0, 0.0]), tensor(&[0.0, -4.0])];
        let each = norms(&gradients).unwrap();
        assert_eq!(each, [3.0, 4.0]);
        let norm = each.iter().map(|n| n * n).sum::<f64>().sqrt();
        assert_eq!(clip_scale(norm, 1.0), 0.2); // 5 → 1, one factor for all parameters: the direction is kept
        assert_eq!(clip_scale(norm, 5.0), 1.0);
        assert_eq!(clip_scale(norm, 0.0), 1.0);
        // The first update sees the scaled gradient: (1 − β₁)·g·scale.
        let x = variable(&[0.0, 0.0]);
        let mut optimizer = AdamW::new([(x, true)], &spec());
        optimizer.update(&[tensor(&[3.0, -4.0])], 0.2, 0.0).unwrap();
        let first = optimizer.moments().unwrap()[0].0.to_vec1::<f64>().unwrap();
        assert!((first[0] - 0.06).abs() < 1e-16 && (first[1] + 0.08).abs() < 1e-16);
    }
}
