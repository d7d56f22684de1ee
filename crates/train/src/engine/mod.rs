//! The seam between the training loop and the arithmetic: a global batch goes in, the losses of its
//! sequences and an updated model come out.
//!
//! The loop knows only the trait [`Engine`]. Parameters and the optimizer's state cross it as
//! [`NamedTensor`]s under their Hugging Face names, in f32, row-major, matrices as `[out,
//! in]`, so that a checkpoint written by one engine is read by any other.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | the trait |
//! | `check` | what every engine refuses |
//! | `device` | where the arithmetic runs |
//! | `state` | which tensors an optimizer's state has |
//! | `tensors` | an engine's tensors one by one, for files |
//! | `request` | sequences to be scored, texts to be continued |
//! | `reference/` | Candle autograd, the oracle |
//! | `fused/` | the written-out decoder over the kernels |
//! | `build` | from the config to one of them |

mod build;
mod check;
mod device;
mod fused;
mod reference;
mod request;
mod state;
mod tensors;

use std::sync::Arc;

use cuvee_kernels::Collective;
use cuvee_mixer::{GradientStatistics, VarianceEstimator};

use crate::batch::{Batch, TokenBuffer};
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, OptimizerGroup, ParameterInfo};
use crate::optim::{OptimizerState, StateTensors};
use crate::spec::Precision;
use crate::tensor::{NamedTensor, Tensors};

pub use build::{build_engine, engine_from_parameters};
pub use device::{DeviceChoice, DeviceSpec};
pub use fused::FusedEngine;
pub use reference::ReferenceEngine;
pub(crate) use request::by_length;
pub use request::{Continued, Scored};
use state::{StateEntry, state_entries};
pub use tensors::{EngineAverage, EngineParameters, EngineState};

/// What a step says about its batch.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    /// ℓ_b, each sequence's mean token cross-entropy in nats, before any multiplier, `[B]`.
    pub sequence_losses: Vec<f64>,
    /// The training objective on this batch, (1/B) Σ_b m_b ℓ_b, in nats, without a z-loss.
    pub loss: f64,
    /// What a z-loss adds to it, (1/B) Σ_b m_b z L²_b with the mean of L² over a sequence's tokens;
    /// `None` where there is none.
    pub z_loss: Option<f64>,
    /// Euclidean norm of the objective's gradient over all parameters, before clipping.
    pub gradient_norm: f64,
    /// Statistics of ∇ℓ_b itself, a z-loss in it, with neither multiplier nor 1/B, over the
    /// sequences of each domain: one entry for each of the domains 0 to the largest in the batch,
    /// `None` for one with no sequence. A single sequence has variance 0 and says where its
    /// gradient points. Sequences of multiplier 0 are not counted, since the batch's backward pass
    /// has no gradient of theirs. Empty unless [`Engine::collect`] asked for it.
    pub gradient: Vec<Option<GradientStatistics>>,
}

impl StepOutput {
    /// The output of a step over `batch`, from its sequences' losses and, with a z-loss, what that
    /// is of each.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] for an objective or statistics that are not finite.
    pub(crate) fn new(
        batch: &Batch,
        sequence_losses: Vec<f64>,
        z_losses: Option<&[f64]>,
        gradient_norm: f64,
        gradient: Vec<Option<GradientStatistics>>,
    ) -> Result<Self> {
        let terms = || sequence_losses.iter().zip(&batch.multipliers).map(|(loss, m)| m * loss);
        let loss = terms().sum::<f64>() / sequence_losses.len() as f64;
        let z_loss = z_losses.map(|losses| {
            let terms = losses.iter().zip(&batch.multipliers).map(|(loss, m)| m * loss);
            terms.sum::<f64>() / losses.len() as f64
        });
        if !loss.is_finite() {
            let sequence = terms().position(|term| !term.is_finite());
            return Err(TrainError::non_finite("weighted loss", loss, sequence, None));
        }
        for &GradientStatistics { variance, mean_square, .. } in gradient.iter().flatten() {
            if !(variance.is_finite() && mean_square.is_finite()) {
                return Err(TrainError::non_finite("gradient variance", variance, None, None));
            }
        }
        Ok(Self { sequence_losses, loss, z_loss, gradient_norm, gradient })
    }
}

/// What one kernel of an engine has cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// The kernel's name, such as `attention`.
    pub name: &'static str,
    /// Seconds in it, summed over the threads.
    pub seconds: f64,
}

/// How long an engine's sums of gradients over ranks have taken, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SummingTime {
    /// In all, waiting for slower ranks included.
    pub all: f64,
    /// Of it, when backward was over and nothing else was computed.
    pub alone: f64,
}

/// Forward, backward, clip and update of one decoder.
///
/// An engine is deterministic: the same calls in the same build on the same machine with the same
/// number of threads give the same bits.
pub trait Engine {
    /// The name it has in the config, such as `reference`.
    fn name(&self) -> &'static str;

    /// Number type of its arithmetic; never [`Precision::Auto`].
    fn precision(&self) -> Precision;

    /// Where its arithmetic runs.
    fn device(&self) -> DeviceSpec;

    /// Shape of the model.
    fn model(&self) -> &ModelConfig;

    /// Sets how [`StepOutput::gradient`] is estimated from now on (docs/variance.md compares the
    /// estimators); `None`, as at the start, collects nothing. What is trained does not depend on
    /// it, to the bit.
    ///
    /// # Errors
    /// [`TrainError::Config`] for an estimator this engine does not have; what was set before
    /// stays.
    fn collect(&mut self, estimator: Option<VarianceEstimator>) -> Result<()>;

    /// Shares out every batch among these ranks from now on, each of which calls the same methods
    /// with the same values: this one computes its slice, and what a call gives and does is what it
    /// would be of the whole, the same bits on every rank. That holds for [`Engine::step`],
    /// [`Engine::gradient`], [`Engine::sequence_losses`] and [`Engine::token_losses`], and with
    /// `shard_optimizer` for [`Engine::optimizer_tensor`] too; all else each rank does alone. With
    /// that, each rank holds a part of the optimizer's state.
    ///
    /// # Errors
    /// [`TrainError::Config`] for several ranks, where the engine or what it collects is not for
    /// them.
    fn join(&mut self, ranks: Arc<dyn Collective>, _shard_optimizer: bool) -> Result<()> {
        match ranks.size() {
            1 => Ok(()),
            _ => Err(TrainError::config(
                "train.engine",
                "`fused`, which several ranks can share",
                format!("`{}`", self.name()),
                "remove train.engine, and of mixture.sampling.variance use `norm-layers`; or use one rank",
            )),
        }
    }

    /// Sets where the random projections of an estimator that has some start from: the root seed of
    /// the run. `None`, as at the start, gives every run the same ones.
    fn seed_projections(&mut self, _root: Option<u64>) {}

    /// One optimizer step where the schedule has come to `lr`, from which rates of groups that the
    /// config gives are as far as from its peak: the gradient of (1/B) Σ_b m_b ℓ_b is clipped by
    /// its global norm, and the optimizer updates every parameter with it.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] if a loss or a gradient is not finite: the update is then not made
    /// and the parameters keep every bit. [`TrainError::Context`] and [`TrainError::Batch`] for
    /// sequences longer than the model's context or of a larger vocabulary;
    /// [`TrainError::Tensor`].
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput>;

    /// The same forward and backward as [`Engine::step`] with no update; the gradients come out
    /// before clipping, under their parameters' names and in their order.
    ///
    /// # Errors
    /// As [`Engine::step`].
    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)>;

    /// ℓ_b of each sequence, in nats a token, with no backward.
    ///
    /// # Errors
    /// [`TrainError::Context`], [`TrainError::Batch`], [`TrainError::Tensor`]. A non-finite loss is
    /// returned as it is.
    fn sequence_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f64>>;

    /// The cross-entropy of each token predicted, `[B·T]`, in nats, one sequence after the other,
    /// with no backward; its means over sequences are [`Engine::sequence_losses`].
    ///
    /// # Errors
    /// As [`Engine::sequence_losses`].
    fn token_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f32>>;

    /// Of each sequence the log-probabilities of its last `scored` tokens, each given all tokens
    /// before it, in nats. Lengths may differ: what a sequence gets depends on nothing but itself,
    /// on the processor to the bit (a GPU's products round differently in other sizes). Logits are
    /// computed of the scored positions alone, some at a time. A probability that is not finite is
    /// returned as it is.
    ///
    /// # Errors
    /// [`TrainError::Batch`] for a sequence that scores none of its tokens or all of them,
    /// [`TrainError::Context`] for more inputs than the model sees, [`TrainError::TokenId`],
    /// [`TrainError::Tensor`].
    fn token_log_probabilities(&mut self, sequences: &[Scored<'_>]) -> Result<Vec<Vec<f32>>>;

    /// Logits `[vocab_size]` of the token that follows each of `texts`, whose slots differ. Only
    /// the last [`ModelConfig::longest`] tokens are seen, at first in one pass. While all of them
    /// are seen, calls that extend the tokens of a slot cost the new positions alone; beyond that,
    /// every call costs as many positions, which [`generate`](crate::generate()) therefore avoids.
    /// What a text gets does not depend on the others.
    ///
    /// # Errors
    /// [`TrainError::Context`] for no token, [`TrainError::TokenId`], [`TrainError::Tensor`].
    fn next_logits_of(&mut self, texts: &[Continued<'_>]) -> Result<Vec<Vec<f32>>>;

    /// [`Engine::next_logits_of`] one text, in slot 0.
    ///
    /// # Errors
    /// As [`Engine::next_logits_of`].
    fn next_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut logits = self.next_logits_of(&[Continued { slot: 0, tokens }])?;
        Ok(logits.pop().unwrap_or_default())
    }

    /// Logits at every position, `[tokens.len() · vocab_size]`, row t for the token that follows
    /// `tokens[t]`.
    ///
    /// # Errors
    /// [`TrainError::Context`] for none or more than [`ModelConfig::longest`],
    /// [`TrainError::TokenId`].
    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;

    /// The elements of the parameter at `place` of [`ModelConfig::parameter_list`].
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn parameter(&self, place: usize) -> Result<Vec<f32>>;

    /// The parameters, in the order of [`ModelConfig::parameter_list`]. They are held a second time
    /// so; [`EngineParameters`] hands them out one by one.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn parameters(&self) -> Result<Vec<NamedTensor>> {
        all_of(self.model(), |place| self.parameter(place))
    }

    /// The kinds of state that its optimizer keeps of each parameter of `group`, in their order.
    fn optimizer_state_names(&self, group: OptimizerGroup) -> &'static [&'static str];

    /// Optimizer updates made so far.
    fn updates(&self) -> u64;

    /// Of the parameter at `place` of [`ModelConfig::parameter_list`] the state at `kind` of its
    /// group's [`Engine::optimizer_state_names`]; zeros before the first update.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn optimizer_tensor(&self, kind: usize, place: usize) -> Result<Vec<f32>>;

    /// The optimizer's state. It is held a second time so; [`EngineState`] hands it out tensor by
    /// tensor.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn optimizer_state(&self) -> Result<OptimizerState> {
        let list = self.model().parameter_list();
        let entries = state_entries(|group| self.optimizer_state_names(group), &list);
        let tensor = |&StateEntry { index, place, .. }: &StateEntry| {
            let ParameterInfo { name, shape, .. } = &list[place];
            let data = self.optimizer_tensor(index, place)?;
            Ok(NamedTensor { name: name.clone(), shape: shape.clone(), data })
        };
        let kind = |entries: &[StateEntry]| {
            let tensors = entries.iter().map(tensor).collect::<Result<_>>()?;
            Ok(StateTensors { name: entries[0].kind.to_owned(), tensors })
        };
        let kinds = entries.chunk_by(|one, next| one.kind == next.kind).map(kind);
        Ok(OptimizerState { updates: self.updates(), tensors: kinds.collect::<Result<_>>()? })
    }

    /// Replaces every parameter; the tensors may come in any order, and are asked for one by one.
    /// The optimizer's state is left as it is.
    ///
    /// # Errors
    /// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`];
    /// nothing has been replaced then. Those of [`Tensors::data`], when some may have been.
    fn load_parameters(&mut self, tensors: &dyn Tensors) -> Result<()>;

    /// Goes on after `updates` updates with this optimizer's state, its tensors called as
    /// [`EngineState`] calls them; as [`Engine::load_parameters`].
    ///
    /// # Errors
    /// As [`Engine::load_parameters`].
    fn load_optimizer_state(&mut self, updates: u64, state: &dyn Tensors) -> Result<()>;

    /// Moves the average of the parameters towards them as they are: average ← average + `share`
    /// (parameters − average). The first time there is none yet, and it becomes what they are. It
    /// takes as much memory as the parameters in f32.
    ///
    /// # Errors
    /// [`TrainError::Tensor`], also if it does not fit in memory.
    fn move_average(&mut self, share: f64) -> Result<()>;

    /// Whether there is an average of the parameters.
    fn has_average(&self) -> bool;

    /// Lets parameters and average change places, if there is one: what evaluates then evaluates
    /// the average. Twice changes nothing, to the bit.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn exchange_average(&mut self) -> Result<()>;

    /// The elements of the average at `place` of [`ModelConfig::parameter_list`]; nothing where
    /// there is none.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn average_tensor(&self, place: usize) -> Result<Vec<f32>>;

    /// Makes `tensors` the average; as [`Engine::load_parameters`].
    ///
    /// # Errors
    /// As [`Engine::load_parameters`].
    fn load_average(&mut self, tensors: &dyn Tensors) -> Result<()>;

    /// Whether to measure the time of each kernel from now on; at the start nothing is measured. An
    /// engine that cannot ignores it.
    fn set_profiling(&mut self, _on: bool) {}

    /// The time of each kernel while profiling was on, since the engine was built; `None` for an
    /// engine that cannot tell.
    fn profile(&self) -> Option<Vec<KernelTime>> {
        None
    }

    /// How long the sums over the ranks have taken since they were joined; `None` on one rank.
    fn summing_time(&self) -> Option<SummingTime> {
        None
    }
}

/// What `data` gives for each parameter of `model`, under the parameters' names.
fn all_of(
    model: &ModelConfig,
    data: impl Fn(usize) -> Result<Vec<f32>>,
) -> Result<Vec<NamedTensor>> {
    let named = |(place, info): (usize, ParameterInfo)| {
        Ok(NamedTensor { name: info.name, shape: info.shape, data: data(place)? })
    };
    model.parameter_list().into_iter().enumerate().map(named).collect()
}
