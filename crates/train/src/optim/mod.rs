//! Optimizers: gradients in, updated parameters out.
//!
//! An [`Optimizer`] is a rule for one parameter, written once for each kind of [`Storage`]: the
//! kernels' buffers of the fused engine, and Candle's tensors of the reference engine. The engine
//! owns the parameters and the rules' state, and has each of them updated by [`Optimizers`], which
//! know which rule moves which group of parameters
//! ([`OptimizerGroup`](crate::model::OptimizerGroup)), how fast, and how much of it decays.
//!
//! A new optimizer is a file beside `adamw` that implements the trait for both storages, its name
//! in [`OptimizerKind`], and a row of [`rules`].
//!
//! | file | what it holds |
//! | --- | --- |
//! | `interface` | the trait, and the state that a checkpoint keeps |
//! | `adamw`, `muon`, `sgd` | the rules |
//! | `paces` | rates and decays of the groups |
//! | `schedule`, `clip` | the learning rate over a run, clipping |

mod adamw;
mod clip;
mod interface;
mod muon;
mod paces;
mod schedule;
mod sgd;

pub use adamw::AdamW;
pub use clip::clip_scale;
pub use interface::{Candle, Optimizer, OptimizerState, Slot, StateTensors, Storage, Update};
pub use muon::Muon;
pub(crate) use paces::{Step, Treatment};
pub use schedule::{learning_rate, peak_learning_rate, published_learning_rate};
pub use sgd::Sgd;

use crate::error::Result;
use crate::model::{ModelConfig, OptimizerGroup, ParameterInfo};
use crate::spec::{OptimizerKind, TrainSpec};
use paces::Paces;

/// What moves a model's parameters: a rule and a pace for each group.
pub(crate) struct Optimizers<S: Storage> {
    kind: OptimizerKind,
    rules: Rules<S>,
    paces: Paces,
}

/// Which rule moves which parameters.
struct Rules<S: Storage> {
    matrices: Box<dyn Optimizer<S>>,
    /// Of all that is no matrix of a layer; the same where there is none.
    others: Option<Box<dyn Optimizer<S>>>,
}

/// The table of optimizers.
fn rules<S: Storage>(train: &TrainSpec, model: &ModelConfig) -> Rules<S>
where
    AdamW: Optimizer<S>,
    Muon<S>: Optimizer<S> + 'static,
    Sgd: Optimizer<S>,
{
    let spec = &train.optimizer;
    match spec.name {
        OptimizerKind::Adamw => Rules { matrices: Box::new(AdamW::new(train)), others: None },
        OptimizerKind::Muon => Rules {
            matrices: Box::new(Muon::new(spec, model)),
            others: Some(Box::new(AdamW::new(train))),
        },
        OptimizerKind::Sgd => Rules { matrices: Box::new(Sgd::new(spec)), others: None },
    }
}

impl<S: Storage> Rules<S> {
    fn of(&self, group: OptimizerGroup) -> &dyn Optimizer<S> {
        match (group, &self.others) {
            (OptimizerGroup::Matrix, _) | (_, None) => self.matrices.as_ref(),
            (_, Some(others)) => others.as_ref(),
        }
    }
}

impl<S: Storage> Optimizers<S> {
    /// Those of `train` for `model`, for an engine of storage `S`.
    ///
    /// # Errors
    /// [`crate::TrainError::Config`] for settings of what the model does not have.
    pub(crate) fn of(train: &TrainSpec, model: &ModelConfig) -> Result<Self>
    where
        AdamW: Optimizer<S>,
        Muon<S>: Optimizer<S> + 'static,
        Sgd: Optimizer<S>,
    {
        let paces = Paces::of(train, model)?;
        Ok(Self { kind: train.optimizer.name, rules: rules(train, model), paces })
    }

    /// Which they are.
    pub(crate) fn kind(&self) -> OptimizerKind {
        self.kind
    }

    /// The state that is kept of each parameter of `group`.
    pub(crate) fn state_names(&self, group: OptimizerGroup) -> &'static [&'static str] {
        self.rules.of(group).state_names()
    }

    /// One update of one parameter.
    ///
    /// # Errors
    /// Those of [`Optimizer::update`].
    pub(crate) fn update(
        &self,
        storage: &S,
        slot: Slot<'_, S>,
        treatment: Treatment,
        step: Step,
    ) -> Result<()> {
        let update = self.paces.update(treatment, step);
        self.rules.of(treatment.group).update(storage, slot, &update)
    }
}

/// What an optimizer costs beside the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerCost {
    /// Bytes of its state, in memory from the first update on and in every checkpoint.
    pub bytes: u64,
    /// Floating-point operations of an update, without the few for each number.
    pub flops: f64,
}

/// What the optimizer of `train` costs a model.
///
/// # Errors
/// [`crate::TrainError::Config`] for settings of what the model does not have.
pub fn optimizer_cost(train: &TrainSpec, model: &ModelConfig) -> Result<OptimizerCost> {
    let Optimizers { rules, .. } = Optimizers::<Candle>::of(train, model)?;
    let mut cost = OptimizerCost { bytes: 0, flops: 0.0 };
    for ParameterInfo { shape, optimizer, .. } in model.parameter_list() {
        let (rule, matrix) = (rules.of(optimizer), matrix_shape(&shape));
        let numbers = matrix[0] as u64 * matrix[1] as u64;
        cost.bytes += numbers * (rule.state_names().len() * size_of::<f32>()) as u64;
        cost.flops += rule.flops(matrix);
    }
    Ok(cost)
}

/// What a step at the peak of the learning rate leaves of a parameter of `model`, before it moves,
/// where most decays: 1 − lr·λ. Below 0 its sign turns.
///
/// # Errors
/// [`crate::TrainError::Config`] for settings of what the model does not have.
pub fn least_kept(train: &TrainSpec, model: &ModelConfig) -> Result<f64> {
    let paces = Paces::of(train, model)?;
    let peak = Step { count: 1, lr: peak_learning_rate(train, model), scale: 1.0 };
    let parameters = model.parameter_list();
    let kept = parameters.iter().map(|info| paces.update(info.into(), peak).keep);
    Ok(kept.fold(1.0, f64::min))
}

/// `[rows, columns]` of a parameter; what has one dimension is a row.
pub(crate) fn matrix_shape(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [rows, columns] => [rows, columns],
        _ => [1, shape.iter().product()],
    }
}

#[cfg(test)]
mod tests;
