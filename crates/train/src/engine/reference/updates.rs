//! The optimizer over Candle variables: its state, and one update of all parameters.

use candle_core::{DType, Tensor, Var};

use crate::error::Result;
use crate::model::{ModelConfig, OptimizerGroup, ParameterInfo};
use crate::optim::{Candle, Optimizers, Slot, Step, matrix_shape};
use crate::spec::TrainSpec;

/// The optimizer and what it keeps of each parameter.
pub(super) struct Updates {
    optimizers: Optimizers<Candle>,
    /// Updates made so far.
    pub(super) count: u64,
    /// Of each parameter, in the list's order; empty before its first update.
    pub(super) state: Vec<Vec<Tensor>>,
}

impl Updates {
    /// The optimizer of `train` for a `model` of so many parameters; no state yet.
    ///
    /// # Errors
    /// [`crate::TrainError::Config`] for settings of what the model does not have.
    pub(super) fn new(train: &TrainSpec, model: &ModelConfig, parameters: usize) -> Result<Self> {
        let optimizers = Optimizers::of(train, model)?;
        Ok(Self { optimizers, count: 0, state: vec![Vec::new(); parameters] })
    }

    /// The kinds of state of each parameter of `group`.
    pub(super) fn names(&self, group: OptimizerGroup) -> &'static [&'static str] {
        self.optimizers.state_names(group)
    }

    /// Puts `data` where the state `kind` of a parameter is, whose numbers are `variable`.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`].
    pub(super) fn load(
        &mut self,
        (info, variable): (&ParameterInfo, &Var),
        (kind, place): (usize, usize),
        data: Tensor,
    ) -> Result<()> {
        if self.state[place].is_empty() {
            self.state[place] = zeros(variable, self.names(info.optimizer).len())?;
        }
        self.state[place][kind] = data;
        Ok(())
    }

    /// One update at learning rate `lr` with the gradients times `scale` (the clipping), all in the
    /// order of `list`.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`], also if the state does not fit in memory.
    pub(super) fn apply(
        &mut self,
        list: &[ParameterInfo],
        variables: &[Var],
        gradients: &[Tensor],
        scale: f64,
        lr: f64,
    ) -> Result<()> {
        self.count += 1;
        let step = Step { count: self.count, lr, scale };
        for (((info, variable), gradient), state) in
            list.iter().zip(variables).zip(gradients).zip(&mut self.state)
        {
            if state.is_empty() {
                *state = zeros(variable, self.optimizers.state_names(info.optimizer).len())?;
            }
            // Detached: a `Var` would otherwise bring each update into the graph of the next.
            let mut values = variable.as_detached_tensor();
            let slot = Slot {
                values: &mut values,
                gradient,
                state,
                matrices: &[matrix_shape(&info.shape)],
            };
            self.optimizers.update(&Candle, slot, info.into(), step)?;
            variable.set(&values)?;
        }
        Ok(())
    }

    /// The state `kind` of the parameter at `place`, whose numbers are `variable`; zeros before the
    /// first update.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`].
    pub(super) fn tensor(&self, variable: &Var, kind: usize, place: usize) -> Result<Tensor> {
        match self.state[place].get(kind) {
            Some(tensor) => Ok(tensor.clone()),
            None => Ok(variable.zeros_like()?),
        }
    }
}

fn zeros(variable: &Var, count: usize) -> Result<Vec<Tensor>> {
    (0..count).map(|_| Ok(variable.zeros_like()?)).collect()
}

/// Euclidean norm of each gradient, summed in f64: in f32 the squares of a large matrix would lose
/// digits.
///
/// # Errors
/// [`crate::TrainError::Tensor`].
pub(super) fn norms(gradients: &[Tensor]) -> Result<Vec<f64>> {
    let norm = |gradient: &Tensor| -> Result<f64> {
        let sum = gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?;
        Ok(sum.to_scalar::<f64>()?.sqrt())
    };
    gradients.iter().map(norm).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::model::ModelSpec;
    use crate::model::Preset;
    use candle_core::Device;

    #[test]
    fn moments_take_no_memory_before_the_first_update() {
        let spec = ModelSpec { preset: Some(Preset::Xs), ..ModelSpec::default() };
        let model = spec.resolve(2, 1, None).unwrap();
        let list = model.parameter_list().split_off(1);
        let variables =
            [Var::from_slice(&[1.0, 2.0], list[0].shape[0].min(2), &Device::Cpu).unwrap()];
        let mut updates = Updates::new(&TrainSpec::default(), &model, 1).unwrap();
        for kind in 0..2 {
            let state = updates.tensor(&variables[0], kind, 0).unwrap();
            assert_eq!(state.to_vec1::<f64>().unwrap(), [0.0, 0.0]);
        }
        assert!(updates.state[0].is_empty(), "looking at them allocates nothing that stays");
        let gradient = Tensor::new(&[1.0, 0.0], &Device::Cpu).unwrap();
        updates.apply(&list[..1], &variables, &[gradient], 1.0, 0.1).unwrap();
        assert_eq!((updates.state[0].len(), updates.count), (2, 1));
    }

    #[test]
    fn norms_are_each_tensors_own() {
        let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        assert_eq!(norms(&[tensor(&[3.0, 0.0]), tensor(&[0.0, -4.0])]).unwrap(), [3.0, 4.0]);
    }
}
