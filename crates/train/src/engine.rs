//! The seam between the training loop and the arithmetic: a global batch goes in, the losses of its
//! sequences and an updated model come out.
//!
//! The loop knows only the trait [`Engine`]. Parameters and moments cross it as [`NamedTensor`]s
//! under their Hugging Face Llama names, in f32, row-major, matrices as `[out, in]`, so that a
//! checkpoint written by one engine is read by any other.

use std::fmt;
use std::str::FromStr;

use cuvee_kernels::{Cpu, bf16};
use cuvee_mixer::{GradientStatistics, VarianceEstimator};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::fused::FusedEngine;
use crate::model::{ModelConfig, initial_parameters};
use crate::reference::ReferenceEngine;
use crate::spec::{EngineKind, Precision, TrainSpec};

/// One global batch of B sequences of `context` = T tokens each.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Input ids, `[B·T]`, sequence after sequence.
    pub inputs: Vec<u32>,
    /// Target ids, `[B·T]`: `targets[b·T + t]` is the token that follows `inputs[b·T + t]`.
    pub targets: Vec<u32>,
    /// Index of each sequence's domain, `[B]`; engines read it for [`StepOutput::gradient`] alone.
    pub domains: Vec<usize>,
    /// What each sequence's loss is multiplied by, m of METHOD §2, `[B]`.
    pub multipliers: Vec<f64>,
    /// Tokens in a sequence, T.
    pub context: usize,
}

impl Batch {
    /// Number of sequences, B.
    pub fn sequences(&self) -> usize {
        self.domains.len()
    }

    /// Checks that the parts have the lengths their documentation gives, that T fits the model and
    /// that every id is in its vocabulary.
    ///
    /// # Errors
    /// [`TrainError::Batch`], [`TrainError::Context`], [`TrainError::TokenId`].
    pub fn check(&self, model: &ModelConfig) -> Result<()> {
        let sequences = self.sequences();
        if sequences == 0 {
            return Err(TrainError::Batch { what: "sequence or more", expected: 1, found: 0 });
        }
        if self.multipliers.len() != sequences {
            return Err(TrainError::Batch {
                what: "multipliers",
                expected: sequences,
                found: self.multipliers.len(),
            });
        }
        let found = check_sequences(model, &self.inputs, &self.targets, self.context)?;
        if found != sequences {
            return Err(TrainError::Batch {
                what: "sequences of tokens",
                expected: sequences,
                found,
            });
        }
        Ok(())
    }
}

/// What a step says about its batch.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutput {
    /// ℓ_b, each sequence's mean token cross-entropy in nats, before any multiplier, `[B]`.
    pub sequence_losses: Vec<f64>,
    /// The training objective on this batch, (1/B) Σ_b m_b ℓ_b, in nats.
    pub loss: f64,
    /// Euclidean norm of the objective's gradient over all parameters, before clipping.
    pub gradient_norm: f64,
    /// Statistics of ∇ℓ_b itself, with neither multiplier nor 1/B, over the sequences of each
    /// domain: one entry for each of the domains 0 to the largest in the batch, `None` for one with
    /// fewer than two sequences (those of multiplier 0, which the batch's backward tells nothing
    /// of, are not counted). Empty unless [`Engine::collect`] asked for it.
    pub gradient: Vec<Option<GradientStatistics>>,
}

impl StepOutput {
    /// The output of a step over `batch`, from its sequences' losses.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] for an objective or statistics that are not finite.
    pub(crate) fn new(
        batch: &Batch,
        sequence_losses: Vec<f64>,
        gradient_norm: f64,
        gradient: Vec<Option<GradientStatistics>>,
    ) -> Result<Self> {
        let terms = || sequence_losses.iter().zip(&batch.multipliers).map(|(loss, m)| m * loss);
        let loss = terms().sum::<f64>() / sequence_losses.len() as f64;
        if !loss.is_finite() {
            let sequence = terms().position(|term| !term.is_finite());
            return Err(TrainError::non_finite("weighted loss", loss, sequence, None));
        }
        for &GradientStatistics { variance, mean_square, .. } in gradient.iter().flatten() {
            if !(variance.is_finite() && mean_square.is_finite()) {
                return Err(TrainError::non_finite("gradient variance", variance, None, None));
            }
        }
        Ok(Self { sequence_losses, loss, gradient_norm, gradient })
    }
}

/// A tensor outside any engine: f32, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Hugging Face Llama name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Lengths of its dimensions; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Its elements, as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// AdamW's memory: all that the next update needs beside the parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// Updates made so far; the bias corrections are functions of it.
    pub updates: u64,
    /// Running means of the clipped gradient, one for each parameter, in the order of `parameters`.
    pub first: Vec<NamedTensor>,
    /// Running means of its square, likewise.
    pub second: Vec<NamedTensor>,
}

/// What one kernel of an engine has cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// The kernel's name, such as `attention`.
    pub name: &'static str,
    /// Seconds in it, the threads' added up.
    pub seconds: f64,
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

    /// Shape of the model.
    fn model(&self) -> &ModelConfig;

    /// Sets how [`StepOutput::gradient`] is estimated from now on (METHOD §4); `None`, as at the
    /// start, collects nothing. What is trained does not depend on it, to the bit.
    ///
    /// # Errors
    /// [`TrainError::Config`] for an estimator this engine does not have; what was set before
    /// stays.
    fn collect(&mut self, estimator: Option<VarianceEstimator>) -> Result<()>;

    /// One optimizer step at learning rate `lr`: the gradient of (1/B) Σ_b m_b ℓ_b, clipped by its
    /// global norm, through AdamW.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] if a loss or a gradient is not finite: the update is then not made
    /// and the parameters keep every bit. Those of [`Batch::check`]; [`TrainError::Tensor`].
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput>;

    /// The same forward and backward as [`Engine::step`] with no update; the gradients come out
    /// before clipping, under their parameters' names and in their order.
    ///
    /// # Errors
    /// As [`Engine::step`].
    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)>;

    /// ℓ_b of each sequence, in nats a token, with no backward; `inputs` and `targets` are `[B·T]`
    /// with T = `context`.
    ///
    /// # Errors
    /// Those of [`Batch::check`]; [`TrainError::Tensor`]. A non-finite loss is returned as it is.
    fn sequence_losses(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        context: usize,
    ) -> Result<Vec<f64>>;

    /// Logits `[vocab_size]` of the token that follows `tokens`. Only the last `max_context` tokens
    /// are seen. Calls that extend the same tokens one at a time cost one position each.
    ///
    /// # Errors
    /// [`TrainError::Context`] for no token, [`TrainError::TokenId`], [`TrainError::Tensor`].
    fn next_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;

    /// Logits at every position, `[tokens.len() · vocab_size]`, row t for the token that follows
    /// `tokens[t]`.
    ///
    /// # Errors
    /// [`TrainError::Context`] for none or more than `max_context`, [`TrainError::TokenId`].
    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>>;

    /// The parameters, in the order of [`ModelConfig::parameter_list`].
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn parameters(&self) -> Result<Vec<NamedTensor>>;

    /// The optimizer's memory; zeros before the first update.
    ///
    /// # Errors
    /// [`TrainError::Tensor`].
    fn moments(&self) -> Result<Moments>;

    /// Replaces every parameter; the tensors may come in any order. Moments are left as they are.
    ///
    /// # Errors
    /// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`];
    /// nothing has been replaced then.
    fn load_parameters(&mut self, tensors: &[NamedTensor]) -> Result<()>;

    /// Replaces the optimizer's memory.
    ///
    /// # Errors
    /// As [`Engine::load_parameters`].
    fn load_moments(&mut self, moments: &Moments) -> Result<()>;

    /// Whether to measure the time of each kernel from now on; at the start nothing is measured. An
    /// engine that cannot ignores it.
    fn set_profiling(&mut self, _on: bool) {}

    /// The time of each kernel while profiling was on, since the engine was built; `None` for an
    /// engine that cannot tell.
    fn profile(&self) -> Option<Vec<KernelTime>> {
        None
    }
}

/// Where the arithmetic runs: `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index; needs the Cargo feature `cuda`.
    Cuda(usize),
}

impl FromStr for DeviceSpec {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || TrainError::Device {
            device: text.to_owned(),
            message: "expected `cpu`, `cuda` or `cuda:N`".to_owned(),
            hint: "use --device cpu".to_owned(),
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(DeviceSpec::Cpu),
            None if text == "cuda" => Ok(DeviceSpec::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(DeviceSpec::Cuda).map_err(|_| refuse()),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(device: DeviceSpec) -> String {
        device.to_string()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Cpu => write!(f, "cpu"),
            DeviceSpec::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Builds the engine that `train.engine` names, its parameters drawn from the run's root seed
/// (see [`initial_parameters`]).
///
/// # Errors
/// [`TrainError::Config`] for an engine that is not in this build or a bad value in `train`,
/// [`TrainError::Device`] for a device that cannot be used.
pub fn build_engine(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    root_seed: u64,
) -> Result<Box<dyn Engine>> {
    // Checked before anything is drawn: a length that cannot work would fill the memory.
    model.validate()?;
    engine_from_parameters(model, train, device, initial_parameters(model, root_seed))
}

/// Builds the engine that `train.engine` names around given parameters: nothing is drawn. The
/// reference engine holds them once and drops each tensor as soon as it has it; the fused engine
/// holds matrices in f32 and twice laid out for products, and the tensors until it has all. The
/// optimizer's moments take memory from the first update on.
///
/// `parameters` may come in any order.
///
/// # Errors
/// As [`build_engine`]; [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`],
/// [`TrainError::TensorShape`] if the parameters are not the model's.
pub fn engine_from_parameters(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    parameters: Vec<NamedTensor>,
) -> Result<Box<dyn Engine>> {
    train.validate()?;
    let fused = is_fused(train.engine, device);
    let rounded = match train.precision {
        Precision::Auto => fused && cuvee_kernels::fast_bf16(),
        Precision::F32 => false,
        Precision::Bf16 => true,
    };
    match (fused, rounded, device) {
        (true, _, DeviceSpec::Cuda(_)) => Err(TrainError::config(
            "train.engine",
            "`auto` or `reference` on a GPU",
            "`fused`, which runs on the processor alone",
            "remove the key, or use --device cpu",
        )),
        (true, false, DeviceSpec::Cpu) => {
            Ok(Box::new(FusedEngine::<Cpu<f32>>::on_cpu(model, train, parameters)?))
        }
        (true, true, DeviceSpec::Cpu) => {
            Ok(Box::new(FusedEngine::<Cpu<bf16>>::on_cpu(model, train, parameters)?))
        }
        (false, false, _) => {
            Ok(Box::new(ReferenceEngine::from_parameters(model, train, device, parameters)?))
        }
        (false, true, _) => Err(TrainError::config(
            "train.precision",
            "`f32`, all that the engine `reference` computes in",
            "`bf16`",
            "remove train.precision, or use train.engine = \"fused\"",
        )),
    }
}

fn is_fused(engine: EngineKind, device: DeviceSpec) -> bool {
    match engine {
        EngineKind::Auto => device == DeviceSpec::Cpu && cuvee_kernels::fast(),
        EngineKind::Fused => true,
        EngineKind::Reference => false,
    }
}

impl TrainSpec {
    /// Where `precision` is `auto`: what a run was `begun` in, if an engine here computes in that.
    /// A run so keeps its arithmetic on a machine that would begin one in another.
    pub fn go_on_in(&mut self, begun: Precision, device: DeviceSpec) {
        if self.precision == Precision::Auto
            && (begun == Precision::F32 || is_fused(self.engine, device))
        {
            self.precision = begun;
        }
    }
}

/// Checks `[B·T]` ids against the model; returns B.
pub(crate) fn check_sequences(
    model: &ModelConfig,
    inputs: &[u32],
    targets: &[u32],
    context: usize,
) -> Result<usize> {
    if context == 0 || context > model.max_context {
        return Err(TrainError::Context { found: context, max_context: model.max_context });
    }
    if targets.len() != inputs.len() {
        return Err(TrainError::Batch {
            what: "target ids",
            expected: inputs.len(),
            found: targets.len(),
        });
    }
    if !inputs.len().is_multiple_of(context) {
        let expected = inputs.len().div_ceil(context) * context;
        return Err(TrainError::Batch { what: "input ids", expected, found: inputs.len() });
    }
    for ids in [inputs, targets] {
        check_ids(model, ids, context)?;
    }
    Ok(inputs.len() / context)
}

/// The last `max_context` of `tokens`: all that the model sees of them.
///
/// # Errors
/// [`TrainError::Context`] for no token, [`TrainError::TokenId`].
pub(crate) fn visible<'a>(model: &ModelConfig, tokens: &'a [u32]) -> Result<&'a [u32]> {
    let window = &tokens[tokens.len().saturating_sub(model.max_context)..];
    if window.is_empty() {
        return Err(TrainError::Context { found: 0, max_context: model.max_context });
    }
    check_ids(model, window, window.len())?;
    Ok(window)
}

/// Checks that every id is in the vocabulary; `context` only places the message.
fn check_ids(model: &ModelConfig, ids: &[u32], context: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= model.vocab_size) {
        None => Ok(()),
        Some(index) => Err(TrainError::TokenId {
            id: ids[index],
            sequence: index / context,
            position: index % context,
            vocab_size: model.vocab_size,
        }),
    }
}
