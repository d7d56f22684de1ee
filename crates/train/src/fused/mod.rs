//! The fused engine: the decoder's forward and backward written out once over the kernel set, every
//! buffer allocated once.
//!
//! A batch is cut into shards of whole sequences, one a thread; each runs micro-batches forward and
//! backward into gradients of its own, which are then added up in the shards' order, clipped, and
//! put through AdamW in place. So the bits of a result depend on the number of threads and on
//! nothing else of how they ran.
//!
//! Costs: a parameter is held in f32 and, laid out for products, twice in the engine's precision;
//! with the first step come a gradient a thread and two moments; while training, the activations of
//! one micro-batch a thread.

mod clock;
mod decoder;
mod parameters;
mod statistics;
#[cfg(test)]
mod tests;

use std::ops::Range;

use cuvee_kernels::{AdamWStep, Backend, Cpu, Element, Rotations, RoundTo, bf16};
use cuvee_mixer::VarianceEstimator;

use crate::engine::{
    Batch, Engine, KernelTime, Moments, NamedTensor, StepOutput, check_sequences, visible,
};
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, ParameterInfo, check_tensors};
use crate::optimizer::clip_scale;
use crate::spec::{Precision, TrainSpec};
use clock::{Clock, Part};
use decoder::{Decoder, Work};
use parameters::{Parameter, named};
use statistics::GradientSums;

/// Tokens of a micro-batch where the config gives none: enough rows for a product to be worth
/// reading its parameters, few enough for the activations of a layer to stay in the cache.
const MICRO_TOKENS: usize = 512;

/// From here on a gradient's square may be beyond f32, which would leave AdamW's second moment
/// infinite and its parameter still for good.
const LARGEST_NORM: f64 = 1.8e19;

/// Whether this engine has the estimator.
pub(crate) fn collects(estimator: VarianceEstimator) -> bool {
    matches!(estimator, VarianceEstimator::NormLayers | VarianceEstimator::Exact)
}

/// One thread's part of a batch.
struct Shard<K: Backend> {
    work: Option<Work<K>>,
    /// One a parameter; empty before the first backward.
    gradients: Vec<K::Floats>,
    /// One sequence's, for the exact estimator.
    alone: Vec<K::Floats>,
    /// Sequences of the batch that are this shard's.
    sequences: Range<usize>,
    losses: Vec<f64>,
    sums: GradientSums,
    clock: Clock,
}

/// The written-out decoder behind [`Engine`].
pub struct FusedEngine<K: Backend> {
    kernels: K,
    model: ModelConfig,
    list: Vec<ParameterInfo>,
    parameters: Vec<Parameter<K>>,
    rotations: Rotations,
    shards: Vec<Shard<K>>,
    optimizer: Optimizer,
    clip: f64,
    micro_batch: Option<usize>,
    estimator: Option<VarianceEstimator>,
    generation: Option<Generation<K>>,
    profiling: bool,
    /// Of what the shards do not do.
    clock: Clock,
}

/// AdamW's constants and how often it was applied.
struct Optimizer {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    updates: u64,
}

/// Keys and values of the tokens seen so far.
struct Generation<K: Backend> {
    tokens: Vec<u32>,
    caches: Vec<K::KvCache>,
    work: Work<K>,
}

impl<E: Element> FusedEngine<Cpu<E>>
where
    f32: RoundTo<E>,
{
    /// An engine on the processor around given parameters, in any order.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a model that does not fit together, [`TrainError::Threads`],
    /// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`] if
    /// the parameters are not the model's.
    pub fn on_cpu(
        model: &ModelConfig,
        train: &TrainSpec,
        parameters: Vec<NamedTensor>,
    ) -> Result<Self> {
        let threads = train.thread_count();
        let kernels = Cpu::new(threads)
            .map_err(|error| TrainError::Threads { threads, message: error.to_string() })?;
        Self::new(kernels, model, train, parameters)
    }
}

impl<K: Backend> FusedEngine<K> {
    /// An engine over `kernels` around given parameters, in any order.
    ///
    /// # Errors
    /// As [`FusedEngine::on_cpu`].
    pub fn new(
        kernels: K,
        model: &ModelConfig,
        train: &TrainSpec,
        parameters: Vec<NamedTensor>,
    ) -> Result<Self> {
        model.validate()?;
        let list = model.parameter_list();
        let mut own = Parameter::all(&kernels, &list);
        load(&kernels, &list, &mut own, &parameters)?;
        let shard = |_| Shard {
            work: None,
            gradients: Vec::new(),
            alone: Vec::new(),
            sequences: 0..0,
            losses: Vec::new(),
            sums: GradientSums::default(),
            clock: Clock::default(),
        };
        Ok(Self {
            shards: (0..kernels.workers()).map(shard).collect(),
            parameters: own,
            rotations: Rotations::new(0, model.head_dim, model.rope_theta),
            optimizer: Optimizer {
                beta1: train.beta1,
                beta2: train.beta2,
                eps: train.eps,
                weight_decay: train.weight_decay,
                updates: 0,
            },
            kernels,
            model: model.clone(),
            list,
            clip: train.clip,
            micro_batch: train.micro_batch,
            estimator: None,
            generation: None,
            profiling: false,
            clock: Clock::default(),
        })
    }

    /// Rotations for positions up to `context`; twice as many each time, so that generation does
    /// not make them anew for every token.
    fn reach(&mut self, context: usize) {
        if self.rotations.positions() < context {
            let positions = context.next_power_of_two().min(self.model.max_context).max(context);
            self.rotations = Rotations::new(positions, self.model.head_dim, self.model.rope_theta);
        }
    }

    /// Cuts `sequences` among the shards, as evenly as can be, in order.
    fn divide(&mut self, sequences: Range<usize>) {
        let (count, shards) = (sequences.len(), self.shards.len());
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let cut = |index: usize| sequences.start + index * count / shards;
            shard.sequences = cut(index)..cut(index + 1);
        }
    }

    /// Sequences of a micro-batch of a shard that has `sequences`.
    fn micro_sequences(&self, context: usize) -> usize {
        self.micro_batch.unwrap_or(MICRO_TOKENS / context).max(1)
    }

    /// Losses and, in the first shard, the gradient of Σ_b (m_b / B) ℓ_b over `sequences` of the
    /// batch, B being all of it; returns Σ g².
    fn forward_backward(
        &mut self,
        batch: &Batch,
        sequences: Range<usize>,
        estimator: Option<VarianceEstimator>,
    ) -> f64 {
        self.reach(batch.context);
        self.divide(sequences);
        let micro = self.micro_sequences(batch.context);
        let Self { kernels, model, parameters, rotations, shards, profiling, .. } = self;
        let decoder = Decoder { kernels, model, parameters, rotations };
        let profiling = *profiling;
        kernels.parallel(shards, |shard| shard.run(decoder, batch, micro, estimator, profiling));
        self.clock.start(profiling);
        let mut busy: Vec<&mut Shard<K>> =
            self.shards.iter_mut().filter(|shard| !shard.sequences.is_empty()).collect();
        let sum = (0..self.parameters.len())
            .map(|parameter| {
                let mut each: Vec<&mut K::Floats> =
                    busy.iter_mut().map(|shard| &mut shard.gradients[parameter]).collect();
                self.kernels.reduce(&mut each)
            })
            .sum();
        self.clock.lap(Part::Update);
        sum
    }

    /// [`FusedEngine::forward_backward`] on the whole batch, checked to be finite.
    fn checked(&mut self, batch: &Batch) -> Result<StepOutput> {
        batch.check(&self.model)?;
        let squares = self.forward_backward(batch, 0..batch.sequences(), self.estimator);
        let losses: Vec<f64> =
            self.shards.iter().flat_map(|shard| shard.losses.iter().copied()).collect();
        if let Some(sequence) = losses.iter().position(|loss| !loss.is_finite()) {
            return Err(TrainError::non_finite("loss", losses[sequence], Some(sequence), None));
        }
        let gradient = match self.estimator {
            Some(_) => {
                let mut sums = GradientSums::default();
                self.shards
                    .iter_mut()
                    .for_each(|shard| sums.merge(std::mem::take(&mut shard.sums)));
                sums.statistics(&batch.domains)
            }
            None => Vec::new(),
        };
        if !squares.is_finite() {
            return Err(self.blame(batch, squares.sqrt()));
        }
        StepOutput::new(batch, losses, squares.sqrt(), gradient)
    }

    /// The error for a gradient that is not finite although every loss is: runs the sequences one
    /// by one to name the first whose own gradient is not finite. They may all be, and only their
    /// sum too large.
    fn blame(&mut self, batch: &Batch, norm: f64) -> TrainError {
        let whole = self.first_non_finite();
        for sequence in 0..batch.sequences() {
            self.forward_backward(batch, sequence..sequence + 1, None);
            if let Some((name, value)) = self.first_non_finite() {
                return TrainError::non_finite("gradient norm", value, Some(sequence), Some(name));
            }
        }
        let what = "gradient norm of the batch (each of its sequences alone has a finite one)";
        TrainError::non_finite(what, norm, None, whole.map(|(name, _)| name))
    }

    /// The first parameter whose gradient, as added up, has a norm that is not finite.
    fn first_non_finite(&self) -> Option<(String, f64)> {
        let shard = self.busy_shard()?;
        let gradients = named(&self.kernels, &self.list, &self.parameters, shard.gradients.iter());
        gradients.into_iter().find_map(|tensor| {
            let norm = tensor.data.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            (!norm.is_finite()).then_some((tensor.name, norm))
        })
    }

    /// The shard that holds the sum of the gradients: the first that had a sequence.
    fn busy_shard(&self) -> Option<&Shard<K>> {
        self.shards.iter().find(|shard| !shard.sequences.is_empty())
    }

    fn update(&mut self, scale: f64, lr: f64) {
        self.clock.start(self.profiling);
        let Optimizer { beta1, beta2, eps, weight_decay, ref mut updates } = self.optimizer;
        *updates += 1;
        // Beyond 2^31 updates the corrections have long been 1 to the last bit.
        let t = i32::try_from(*updates).unwrap_or(i32::MAX);
        let step = AdamWStep {
            gradient_scale: scale as f32,
            lr: lr as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            first_correction: (1.0 / (1.0 - beta1.powi(t))) as f32,
            second_correction: (1.0 / (1.0 - beta2.powi(t))) as f32,
            decay_factor: (1.0 - lr * weight_decay) as f32,
        };
        let Self { kernels, parameters, shards, .. } = self;
        let Some(shard) = shards.iter().find(|shard| !shard.sequences.is_empty()) else { return };
        let mut pairs: Vec<_> = parameters.iter_mut().zip(&shard.gradients).collect();
        kernels.parallel(&mut pairs, |(parameter, gradient)| {
            parameter.update(kernels, gradient, &step)
        });
        self.clock.lap(Part::Update);
    }
}

impl<K: Backend> Shard<K> {
    /// Forward and backward of its sequences of the batch.
    fn run(
        &mut self,
        decoder: Decoder<'_, K>,
        batch: &Batch,
        micro: usize,
        estimator: Option<VarianceEstimator>,
        profiling: bool,
    ) {
        let Decoder { kernels, model, parameters, .. } = decoder;
        self.losses.clear();
        self.sums = GradientSums::default();
        let (context, sequences) = (batch.context, self.sequences.clone());
        if sequences.is_empty() {
            return;
        }
        let micro = micro.min(sequences.len());
        let work = match self.work.take().filter(|work| work.fits(micro * context, context, true)) {
            Some(work) => work,
            None => {
                let mut work = Work::new(kernels, model, micro * context, context, true);
                work.clock = self.clock.clone();
                work
            }
        };
        let work = self.work.insert(work);
        let zeros = || parameters.iter().map(|parameter| kernels.floats(parameter.len)).collect();
        if self.gradients.is_empty() {
            self.gradients = zeros();
        }
        let share = |m: &f64| m / batch.sequences() as f64;
        for first in sequences.clone().step_by(micro) {
            let group = first..(first + micro).min(sequences.end);
            let tokens = group.start * context..group.end * context;
            let (ids, targets) = (&batch.inputs[tokens.clone()], &batch.targets[tokens]);
            let shares: Vec<f64> = batch.multipliers[group.clone()].iter().map(share).collect();
            let domains = &batch.domains[group];
            let add = first > sequences.start;
            work.clock.start(profiling);
            self.losses.extend(decoder.gradient(
                ids,
                targets,
                &shares,
                add,
                &mut self.gradients,
                work,
            ));
            add_gains(kernels, model, parameters, shares.len(), add, work, &mut self.gradients);
            match estimator {
                Some(VarianceEstimator::NormLayers) => {
                    for (b, (&domain, &share)) in domains
                        .iter()
                        .zip(&shares)
                        .enumerate()
                        .filter(|(_, (_, share))| **share != 0.0)
                    {
                        let d = model.dim;
                        let gains: Vec<Vec<f32>> = work
                            .gains_bd()
                            .iter()
                            .map(|gains| kernels.read(gains, b * d..(b + 1) * d))
                            .collect();
                        self.sums.add(domain, 1.0 / share, gains.iter().map(Vec::as_slice));
                    }
                }
                Some(VarianceEstimator::Exact) => {
                    if self.alone.is_empty() {
                        self.alone = zeros();
                    }
                    // What these passes take is the statistics' time, not their kernels'.
                    let clock = std::mem::take(&mut work.clock);
                    for (b, &domain) in
                        domains.iter().enumerate().filter(|(b, _)| shares[*b] != 0.0)
                    {
                        let tokens = b * context..(b + 1) * context;
                        decoder.gradient(
                            &ids[tokens.clone()],
                            &targets[tokens],
                            &[1.0],
                            false,
                            &mut self.alone,
                            work,
                        );
                        add_gains(kernels, model, parameters, 1, false, work, &mut self.alone);
                        let whole: Vec<Vec<f32>> = self
                            .alone
                            .iter()
                            .zip(parameters)
                            .map(|(gradient, parameter)| kernels.read(gradient, 0..parameter.len))
                            .collect();
                        self.sums.add(domain, 1.0, whole.iter().map(Vec::as_slice));
                    }
                    work.clock = clock;
                }
                _ => {}
            }
            work.clock.lap(Part::Statistics);
        }
        self.clock = work.clock.clone();
    }
}

/// The gains' gradients: those of `sequences` sequences added up.
fn add_gains<K: Backend>(
    kernels: &K,
    model: &ModelConfig,
    parameters: &[Parameter<K>],
    sequences: usize,
    add: bool,
    work: &Work<K>,
    gradients: &mut [K::Floats],
) {
    let norms =
        parameters.iter().zip(gradients).filter(|(parameter, _)| parameter.matrix.is_none());
    for ((_, gradient), gains_bd) in norms.zip(work.gains_bd()) {
        let d = model.dim;
        let mut sum = if add { kernels.read(gradient, 0..d) } else { vec![0.0; d] };
        for gain in kernels.read(gains_bd, 0..sequences * d).chunks_exact(d) {
            for (sum, gain) in sum.iter_mut().zip(gain) {
                *sum += gain;
            }
        }
        kernels.write(gradient, 0, &sum);
    }
}

/// Fills `parameters` from tensors that are known to be the model's.
fn load<K: Backend>(
    kernels: &K,
    list: &[ParameterInfo],
    parameters: &mut [Parameter<K>],
    tensors: &[NamedTensor],
) -> Result<()> {
    let ordered = check_tensors(list, tensors, "parameters")?;
    kernels.parallel(parameters, |parameter| parameter.load(kernels, &ordered));
    Ok(())
}

impl<K: Backend> Engine for FusedEngine<K> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn precision(&self) -> Precision {
        if self.kernels.precision() == bf16::NAME { Precision::Bf16 } else { Precision::F32 }
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn collect(&mut self, estimator: Option<VarianceEstimator>) -> Result<()> {
        if let Some(estimator) = estimator.filter(|&estimator| !collects(estimator)) {
            return Err(TrainError::config(
                "mixture.sampling.variance",
                "an estimator that the engine `fused` has: `norm-layers` or `exact`",
                format!("`{}`", estimator.name()),
                "remove train.engine, or use train.engine = \"reference\"",
            ));
        }
        self.estimator = estimator;
        Ok(())
    }

    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput> {
        let output = self.checked(batch)?;
        let scale = clip_scale(output.gradient_norm, self.clip);
        let norm = output.gradient_norm * scale;
        if norm >= LARGEST_NORM {
            return Err(TrainError::non_finite(
                "square of the gradient norm in f32",
                f64::INFINITY,
                None,
                None,
            ));
        }
        self.generation = None;
        self.update(scale, lr);
        Ok(output)
    }

    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)> {
        let output = self.checked(batch)?;
        let gradients = self.busy_shard().map_or(&[][..], |shard| &shard.gradients);
        Ok((output, named(&self.kernels, &self.list, &self.parameters, gradients.iter())))
    }

    fn sequence_losses(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        context: usize,
    ) -> Result<Vec<f64>> {
        let sequences = check_sequences(&self.model, inputs, targets, context)?;
        self.reach(context);
        self.divide(0..sequences);
        let micro = self.micro_sequences(context);
        let Self { kernels, model, parameters, rotations, shards, .. } = self;
        let decoder = Decoder { kernels, model, parameters, rotations };
        kernels.parallel(shards, |shard| {
            shard.losses.clear();
            let own = shard.sequences.start * context..shard.sequences.end * context;
            if own.is_empty() {
                return;
            }
            // A training engine's buffers do for evaluation too, whatever they hold; one that only
            // evaluates needs no way back.
            let work = match shard.work.take().filter(|work| work.fits(context, context, false)) {
                Some(work) => work,
                None => Work::new(
                    kernels,
                    model,
                    micro.min(shard.sequences.len()) * context,
                    context,
                    false,
                ),
            };
            let work = shard.work.insert(work);
            let rows = work.rows();
            work.clock.start(false);
            for (inputs, targets) in inputs[own.clone()].chunks(rows).zip(targets[own].chunks(rows))
            {
                shard.losses.extend(decoder.losses(inputs, targets, work));
            }
        });
        Ok(self.shards.iter().flat_map(|shard| shard.losses.iter().copied()).collect())
    }

    fn next_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let window = visible(&self.model, tokens)?;
        self.reach(window.len());
        // The cache serves as long as its tokens begin the window and leave something to compute.
        let known = |known: &Generation<K>| {
            known.tokens.len() < window.len() && window.starts_with(&known.tokens)
        };
        let mut generation = self.generation.take().filter(known).unwrap_or_else(|| Generation {
            tokens: Vec::new(),
            caches: (0..self.model.layers).map(|_| K::KvCache::default()).collect(),
            work: Work::new(&self.kernels, &self.model, 1, 1, false),
        });
        let Self { kernels, model, parameters, rotations, .. } = self;
        let decoder = Decoder { kernels, model, parameters, rotations };
        let mut logits = Vec::new();
        for &token in &window[generation.tokens.len()..] {
            logits = decoder.next(token, &mut generation.caches, &mut generation.work);
            generation.tokens.push(token);
        }
        self.generation = Some(generation);
        Ok(logits)
    }

    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        check_sequences(&self.model, tokens, tokens, tokens.len())?;
        self.reach(tokens.len());
        let Self { kernels, model, parameters, rotations, .. } = self;
        let decoder = Decoder { kernels, model, parameters, rotations };
        let mut work = Work::new(kernels, model, tokens.len(), tokens.len(), false);
        Ok(decoder.logits(tokens, &mut work))
    }

    fn parameters(&self) -> Result<Vec<NamedTensor>> {
        let values = self.parameters.iter().map(|parameter| &parameter.values);
        Ok(named(&self.kernels, &self.list, &self.parameters, values))
    }

    fn moments(&self) -> Result<Moments> {
        let zeros: Vec<_> = self
            .parameters
            .iter()
            .map(|parameter| {
                self.kernels.floats(if parameter.moments.is_some() { 0 } else { parameter.len })
            })
            .collect();
        let of = |second: bool| {
            let floats = self.parameters.iter().zip(&zeros).map(|(parameter, zeros)| {
                match &parameter.moments {
                    Some((_, v)) if second => v,
                    Some((m, _)) => m,
                    None => zeros,
                }
            });
            named(&self.kernels, &self.list, &self.parameters, floats)
        };
        Ok(Moments { updates: self.optimizer.updates, first: of(false), second: of(true) })
    }

    fn load_parameters(&mut self, tensors: &[NamedTensor]) -> Result<()> {
        load(&self.kernels, &self.list, &mut self.parameters, tensors)?;
        self.generation = None;
        Ok(())
    }

    fn load_moments(&mut self, moments: &Moments) -> Result<()> {
        let first = check_tensors(&self.list, &moments.first, "first moments")?;
        let second = check_tensors(&self.list, &moments.second, "second moments")?;
        for parameter in &mut self.parameters {
            parameter.load_moments(&self.kernels, &first, &second);
        }
        self.optimizer.updates = moments.updates;
        Ok(())
    }

    fn set_profiling(&mut self, on: bool) {
        self.profiling = on;
    }

    fn profile(&self) -> Option<Vec<KernelTime>> {
        // What the shards do not do, all threads do together.
        let all = self.kernels.workers() as f64;
        let own = self.shards.iter().map(|shard| (&shard.clock, 1.0));
        let clocks = || own.clone().chain([(&self.clock, all)]);
        let time = |(index, &(_, name)): (usize, &(Part, &'static str))| KernelTime {
            name,
            seconds: clocks().map(|(clock, threads)| clock.seconds()[index] * threads).sum(),
        };
        Some(Part::ALL.iter().enumerate().map(time).collect())
    }
}
