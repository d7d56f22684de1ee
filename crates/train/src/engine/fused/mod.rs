//! The fused engine: the decoder's forward and backward written out once over the kernels, every
//! buffer allocated once.
//!
//! A batch is cut into slices of whole sequences, one a thread. Each worker runs micro-batches
//! forward and backward into gradients of its own, or where there are more than four threads into
//! some that neighbours share in turn. These are then added up in the order of the slices, clipped,
//! and given to the optimizer. So the bits of a result depend on the number of threads and not on
//! their timing. Where several ranks train together, a batch is first cut into theirs.
//!
//! Costs: a parameter is held in f32 and, laid out for products, twice in the engine's precision.
//! The first step adds up to four gradients and the optimizer's state; training adds the
//! activations of one micro-batch a thread, and the estimator `exact` for each thread two gradients
//! and a sum in f64 for each of its domains.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | the engine: slices, sums, updates |
//! | `worker` | one thread's slice of a batch |
//! | `decoder` | forward and backward, with their buffers |
//! | `scoring` | sequences of any length, of which some tokens are scored |
//! | `texts` | texts that go on side by side |
//! | `gradients` | the gradients that workers add to, and whose turn it is |
//! | `ranks` | the ranks that a batch is divided among |
//! | `streams` | the buffers of the residual stream |
//! | `parameters`, `layout` | the parameters as products read them |
//! | `statistics` | gradient variance within a domain |
//! | `clock` | time a kernel |

mod clock;
mod decoder;
mod gradients;
mod layout;
mod parameters;
mod ranks;
mod scoring;
mod statistics;
mod streams;
#[cfg(test)]
mod tests;
mod texts;
mod worker;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cuvee_kernels::{Backend, Collective, Cpu, Element, ElementType, Rotations, RoundTo};
use cuvee_mixer::VarianceEstimator;

use super::check::{check_fit, check_prompt, check_scored, visible};
use super::device::DeviceSpec;
use super::state::{STATE, state_entries, state_names};
use super::tensors::AVERAGE;
use super::{Continued, Engine, KernelTime, Scored, StepOutput, SummingTime};
use crate::batch::{Batch, TokenBuffer};
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, OptimizerGroup, ParameterInfo, Rotary, names_and_shapes};
use crate::optim::{Optimizers, Step, clip_scale};
use crate::spec::{Precision, TrainSpec};
use crate::tensor::{NamedTensor, Ordered, Tensors};
use clock::{Clock, KernelKind};
use decoder::{Decoder, Work};
use gradients::{Sharing, gradient_of};
use layout::ParameterLayout;
use parameters::Parameter;
use ranks::{Ranks, part};
use scoring::Groups;
use statistics::GradientSums;
use texts::{Share, Text, TextStep};
use worker::WorkerSlice;

/// From this norm on the square of a gradient may be beyond f32, which would leave AdamW's second
/// moment infinite and its parameter without any later update.
const LARGEST_NORM: f64 = 1.8e19;

/// Whether this engine has the estimator.
pub(super) fn collects(estimator: VarianceEstimator) -> bool {
    matches!(estimator, VarianceEstimator::NormLayers | VarianceEstimator::Exact)
}

/// The written-out decoder behind [`Engine`].
pub struct FusedEngine<K: Backend> {
    kernels: K,
    device: DeviceSpec,
    model: ModelConfig,
    list: Vec<ParameterInfo>,
    layout: ParameterLayout,
    parameters: Vec<Parameter<K>>,
    rotations: K::Rotations,
    /// Positions that they are of.
    reach: usize,
    ranks: Ranks,
    workers: Vec<WorkerSlice<K>>,
    /// Those that the workers add to, each one a parameter; none before the first backward pass.
    gradients: Vec<Vec<K::Gradient>>,
    optimizers: Optimizers<K>,
    /// Updates made so far.
    updates: u64,
    clip: f64,
    /// z; 0 for no z-loss.
    z_loss: f64,
    micro_batch: Option<usize>,
    estimator: Option<VarianceEstimator>,
    /// By their slots.
    texts: BTreeMap<usize, Text<K>>,
    profiling: bool,
    /// Of what is not a worker's own.
    clock: Clock<K>,
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
        parameters: &dyn Tensors,
    ) -> Result<Self> {
        let threads = train.thread_count();
        let kernels = Cpu::new(threads)
            .map_err(|error| TrainError::Threads { threads, message: error.to_string() })?;
        Self::new(kernels, DeviceSpec::Cpu, model, train, parameters)
    }
}

impl<K: Backend> FusedEngine<K> {
    /// An engine over `kernels`, which are those of `device`, around given parameters, in any
    /// order.
    ///
    /// # Errors
    /// As [`FusedEngine::on_cpu`]; [`TrainError::Device`] if the device fails.
    pub fn new(
        kernels: K,
        device: DeviceSpec,
        model: &ModelConfig,
        train: &TrainSpec,
        parameters: &dyn Tensors,
    ) -> Result<Self> {
        model.validate()?;
        let list = model.parameter_list();
        let layout = ParameterLayout::of(&list);
        let mut own = Parameter::all(&kernels, &list, &layout);
        load(&kernels, &list, &mut own, parameters)?;
        status(&kernels, device)?;
        Ok(Self {
            device,
            ranks: Ranks::alone(),
            workers: (0..kernels.workers()).map(|_| WorkerSlice::new()).collect(),
            gradients: Vec::new(),
            parameters: own,
            rotations: rotations(&kernels, 0, model),
            reach: 0,
            optimizers: Optimizers::of(train, model)?,
            updates: 0,
            kernels,
            model: model.clone(),
            list,
            layout,
            clip: train.clip,
            z_loss: train.z_loss,
            micro_batch: train.micro_batch,
            estimator: None,
            texts: BTreeMap::new(),
            profiling: false,
            clock: Clock::default(),
        })
    }

    /// Rotations for positions up to `context`; twice as many each time, so that generation does
    /// not make them anew for every token.
    fn reach(&mut self, context: usize) {
        if self.reach < context {
            self.reach = context.next_power_of_two().min(self.model.max_context).max(context);
            self.rotations = rotations(&self.kernels, self.reach, &self.model);
        }
    }

    /// Cuts this rank's part of `sequences` into the workers' slices, as evenly as can be, in
    /// order.
    fn divide(&mut self, sequences: Range<usize>) {
        let sequences = self.ranks.slice(&sequences);
        let count = self.workers.len();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.sequences = part(&sequences, index, count);
        }
        let slices: Vec<_> = self.workers.iter().map(|worker| worker.sequences.clone()).collect();
        for (worker, sharing) in self.workers.iter_mut().zip(Sharing::of(&slices)) {
            worker.sharing = sharing;
        }
    }

    /// Sequences of a micro-batch.
    fn micro_sequences(&self, context: usize) -> usize {
        self.micro_batch.unwrap_or(self.kernels.micro_tokens() / context).max(1)
    }

    /// Losses and, in the first of the gradients, that of Σ_b (m_b / B) ℓ_b over
    /// `sequences` of the batch, B being all of it; returns Σ g². A rank that updates only some
    /// parameters has the gradients of these alone, unless it wants them `whole`.
    fn forward_backward(
        &mut self,
        batch: &Batch,
        sequences: Range<usize>,
        estimator: Option<VarianceEstimator>,
        whole: bool,
    ) -> Result<f64> {
        self.reach(batch.context());
        self.divide(sequences);
        let micro = self.micro_sequences(batch.context());
        let shared = self.shared();
        let count = shared.iter().max().map_or(1, |last| last + 1);
        while self.gradients.len() < count {
            self.gradients.push(gradients::zeros(&self.kernels, &self.list, &self.layout));
        }
        let Self {
            kernels,
            model,
            list,
            layout,
            parameters,
            rotations,
            ranks,
            workers,
            profiling,
            gradients,
            z_loss,
            ..
        } = self;
        let head_turns =
            |sequences| kernels.head_turns(sequences * batch.context(), model.vocab_size);
        for (own, gradients) in gradients[..count].iter().enumerate() {
            let shares = |(worker, shared): &(&WorkerSlice<K>, &usize)| {
                **shared == own && !worker.sequences.is_empty()
            };
            let sharing =
                workers.iter().zip(&shared).find(shares).map(|(worker, _)| &worker.sharing);
            let sharing = sharing.cloned().unwrap_or_default();
            let turns = sharing.all_turns(micro, model.tied, head_turns);
            gradients::begin(kernels, layout, gradients, turns);
        }
        let gradients = &gradients[..count];
        let of_parameter =
            |index| (index, gradients.iter().map(|gradients| &gradients[index]).collect());
        let decoder =
            Decoder { z_loss: *z_loss, kernels, model, list, layout, parameters, rotations };
        let profiling = *profiling;
        let mut workers: Vec<_> = workers
            .iter_mut()
            .zip(&shared)
            .map(|(worker, &own)| (worker, &gradients[own]))
            .collect();
        let order = layout.backward_order(list).map(of_parameter);
        ranks.sum_beside(kernels, order, whole, || {
            kernels.parallel(&mut workers, |(worker, gradients)| {
                worker.run(decoder, batch, gradients, micro, estimator, profiling);
            });
        })?;
        self.clock.start(&self.kernels, profiling);
        let mut parameters: Vec<Vec<&mut K::Gradient>> = Vec::new();
        parameters.resize_with(self.parameters.len(), Vec::new);
        // What was summed over ranks was summed over workers before.
        let left = if self.ranks.several() { 1 } else { count };
        for gradients in &mut self.gradients[..left] {
            parameters.iter_mut().zip(gradients).for_each(|(each, gradient)| each.push(gradient));
        }
        let own = parameters.into_iter().enumerate();
        let own = own.filter(|(index, _)| whole || self.ranks.updates(*index));
        let mut own: Vec<_> = own.map(|(_, gradients)| gradients).collect();
        let sum = self.kernels.reduce(&mut own);
        self.clock.lap(&self.kernels, KernelKind::Sum);
        self.clock.settle(&self.kernels);
        match whole {
            true => Ok(sum),
            false => self.ranks.total(sum),
        }
    }

    /// [`FusedEngine::forward_backward`] on the whole batch, checked to be finite.
    fn checked(&mut self, batch: &Batch, whole: bool) -> Result<StepOutput> {
        check_fit(&self.model, &batch.tokens)?;
        let all = 0..batch.sequences();
        let squares = self.forward_backward(batch, all, self.estimator, whole)?;
        status(&self.kernels, self.device)?;
        let losses = self.losses()?;
        if let Some(sequence) = losses.iter().position(|loss| !loss.is_finite()) {
            return Err(TrainError::non_finite("loss", losses[sequence], Some(sequence), None));
        }
        let gradient = match self.estimator {
            Some(_) => {
                let mut sums = GradientSums::default();
                self.workers
                    .iter_mut()
                    .for_each(|worker| sums.merge(std::mem::take(&mut worker.sums)));
                if self.ranks.several() {
                    sums = GradientSums::of_ranks(&self.ranks.gather(sums.to_numbers())?);
                }
                sums.statistics(&batch.domains)
            }
            None => Vec::new(),
        };
        if !squares.is_finite() {
            return Err(self.blame(batch, squares.sqrt()));
        }
        let z_losses = match self.z_loss > 0.0 {
            true => {
                let squares = self.workers.iter().flat_map(|worker| &worker.squares);
                let own = squares.map(|square| self.z_loss * square).collect();
                Some(self.ranks.gather(own)?.concat())
            }
            false => None,
        };
        StepOutput::new(batch, losses, z_losses.as_deref(), squares.sqrt(), gradient)
    }

    /// Has each worker compute the losses of its slice, without a backward pass.
    fn evaluate(&mut self, tokens: &TokenBuffer) -> Result<()> {
        check_fit(&self.model, tokens)?;
        self.reach(tokens.context());
        self.divide(0..tokens.sequences());
        let micro = self.micro_sequences(tokens.context());
        let Self { kernels, model, list, layout, parameters, rotations, workers, .. } = self;
        let decoder = Decoder { z_loss: 0.0, kernels, model, list, layout, parameters, rotations };
        kernels.parallel(workers, |worker| worker.evaluate(decoder, tokens, micro));
        status(kernels, self.device)
    }

    /// Every sequence's loss, in the batch's order.
    fn losses(&self) -> Result<Vec<f64>> {
        let own = self.workers.iter().flat_map(|worker| worker.losses.iter().copied());
        Ok(self.ranks.gather(own.collect())?.concat())
    }

    /// The error for a gradient that is not finite although every loss is: runs the sequences one
    /// by one to name the first whose own gradient is not finite. They may all be, and only their
    /// sum too large.
    fn blame(&mut self, batch: &Batch, norm: f64) -> TrainError {
        let whole = self.first_non_finite();
        for sequence in 0..batch.sequences() {
            if let Err(error) = self.forward_backward(batch, sequence..sequence + 1, None, true) {
                return error;
            }
            if let Some((name, value)) = self.first_non_finite() {
                return TrainError::non_finite("gradient norm", value, Some(sequence), Some(name));
            }
        }
        let what = "gradient norm of the batch (each of its sequences alone has a finite one)";
        TrainError::non_finite(what, norm, None, whole.map(|(name, _)| name))
    }

    /// The first parameter whose gradient, as added up, has a norm that is not finite.
    fn first_non_finite(&self) -> Option<(String, f64)> {
        self.named_gradients().into_iter().find_map(|tensor| {
            let norm = tensor.data.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            (!norm.is_finite()).then_some((tensor.name, norm))
        })
    }

    /// The gradient that each worker adds to: as many are needed as there are workers with a
    /// sequence that do not share one.
    fn shared(&self) -> Vec<usize> {
        let (mut next, mut last) = (0, None);
        let own = |(index, worker): (usize, &WorkerSlice<K>)| {
            let gradient = gradient_of(index, self.workers.len());
            if !worker.sequences.is_empty() && last != Some(gradient) {
                next += usize::from(last.is_some());
                last = Some(gradient);
            }
            next
        };
        self.workers.iter().enumerate().map(own).collect()
    }

    /// The sum of the gradients, one a parameter.
    fn summed(&self) -> &[K::Gradient] {
        self.gradients.first().map_or(&[], Vec::as_slice)
    }

    /// The sum of the gradients under the parameters' names.
    fn named_gradients(&self) -> Vec<NamedTensor> {
        let read = |(parameter, gradient): (&Parameter<K>, &K::Gradient)| {
            let mut from = 0;
            let member = |(place, len): (usize, usize)| {
                from += len;
                let ParameterInfo { name, shape, .. } = &self.list[place];
                let data = self.kernels.read_gradient(gradient, from - len..from);
                NamedTensor { name: name.clone(), shape: shape.clone(), data }
            };
            parameter.members().map(member).collect::<Vec<_>>()
        };
        self.parameters.iter().zip(self.summed()).flat_map(read).collect()
    }

    fn update(&mut self, scale: f64, lr: f64) -> Result<()> {
        self.clock.start(&self.kernels, self.profiling);
        self.updates += 1;
        let step = Step { count: self.updates, lr, scale };
        let Self { kernels, parameters, gradients, optimizers, ranks, .. } = self;
        let Some(gradients) = gradients.first() else { return Ok(()) };
        let pairs = parameters.iter_mut().zip(gradients).enumerate();
        let own = pairs.filter(|(index, _)| ranks.updates(*index));
        let mut pairs: Vec<_> = own.map(|(_, (p, gradient))| (p, gradient, Ok(()))).collect();
        kernels.parallel(&mut pairs, |(parameter, gradient, result)| {
            *result = parameter.update(kernels, optimizers, gradient, step);
        });
        let result = pairs.into_iter().try_for_each(|(_, _, result)| result);
        self.clock.lap(kernels, KernelKind::Optimizer);
        let values = parameters.iter_mut().map(|parameter| &mut parameter.values);
        let exchanged = ranks.exchange(kernels, values);
        self.clock.lap(kernels, KernelKind::Exchange);
        kernels.parallel(parameters, |parameter| parameter.lay_out(kernels));
        self.clock.lap(kernels, KernelKind::Layout);
        self.clock.settle(kernels);
        result.and(exchanged)
    }
}

/// Refuses an estimator that several ranks cannot share.
fn check_shared(estimator: Option<VarianceEstimator>, ranks: &Ranks) -> Result<()> {
    match estimator {
        // It would send as many whole gradients as there are domains from rank to rank.
        Some(VarianceEstimator::Exact) if ranks.several() => Err(TrainError::config(
            "mixture.sampling.variance",
            "an estimator that several ranks can share: `norm-layers`",
            "`exact`",
            "use `norm-layers`, or one rank",
        )),
        _ => Ok(()),
    }
}

/// The rotations of the first `positions` positions.
fn rotations<K: Backend>(kernels: &K, positions: usize, model: &ModelConfig) -> K::Rotations {
    let Rotary { frequencies, scale } = model.rotary();
    kernels.rotations(&Rotations::new(positions, &frequencies, scale))
}

/// What has gone wrong on the device.
fn status<K: Backend>(kernels: &K, device: DeviceSpec) -> Result<()> {
    kernels.status().map_err(|error| device.failed(error))
}

/// Fills `parameters` from tensors that are the model's, one by one.
fn load<K: Backend>(
    kernels: &K,
    list: &[ParameterInfo],
    parameters: &mut [Parameter<K>],
    tensors: &dyn Tensors,
) -> Result<()> {
    let ordered = Ordered::new(names_and_shapes(list), tensors, "parameters")?;
    parameters.iter_mut().try_for_each(|parameter| parameter.load(kernels, &ordered))
}

impl<K: Backend> Engine for FusedEngine<K> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn device(&self) -> DeviceSpec {
        self.device
    }

    fn precision(&self) -> Precision {
        match self.kernels.element_type() {
            ElementType::F32 => Precision::F32,
            ElementType::Bf16 => Precision::Bf16,
        }
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
        check_shared(estimator, &self.ranks)?;
        self.estimator = estimator;
        Ok(())
    }

    fn join(&mut self, ranks: Arc<dyn Collective>, shard_optimizer: bool) -> Result<()> {
        let lengths = shard_optimizer.then(|| self.parameters.iter().map(|p| p.len).collect());
        let ranks = Ranks::of(ranks, lengths);
        check_shared(self.estimator, &ranks)?;
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput> {
        let output = self.checked(batch, false)?;
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
        self.texts.clear();
        self.update(scale, lr)?;
        Ok(output)
    }

    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)> {
        let output = self.checked(batch, true)?;
        Ok((output, self.named_gradients()))
    }

    fn sequence_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f64>> {
        self.evaluate(tokens)?;
        self.losses()
    }

    fn token_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f32>> {
        self.evaluate(tokens)?;
        let own = self.workers.iter().flat_map(|worker| &worker.token_losses);
        let all = self.ranks.gather(own.map(|&loss| loss.into()).collect())?;
        Ok(all.into_iter().flatten().map(|loss| loss as f32).collect())
    }

    fn token_log_probabilities(&mut self, sequences: &[Scored<'_>]) -> Result<Vec<Vec<f32>>> {
        check_scored(&self.model, sequences)?;
        self.reach(sequences.iter().map(Scored::inputs).max().unwrap_or(0));
        let groups = Groups::of(sequences, self.kernels.micro_tokens());
        let Self { kernels, model, list, layout, parameters, rotations, workers, .. } = self;
        let decoder = Decoder { z_loss: 0.0, kernels, model, list, layout, parameters, rotations };
        let mut workers: Vec<_> = workers.iter_mut().map(|worker| (worker, Vec::new())).collect();
        kernels.parallel(&mut workers, |(worker, scores)| {
            *scores = worker.score(decoder, &groups);
        });
        status(kernels, self.device)?;
        let mut all = vec![Vec::new(); sequences.len()];
        for (place, scores) in workers.into_iter().flat_map(|(_, scores)| scores) {
            all[place] = scores;
        }
        Ok(all)
    }

    fn next_logits_of(&mut self, texts: &[Continued<'_>]) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<(usize, &[u32])> = texts
            .iter()
            .map(|text| Ok((text.slot, visible(&self.model, text.tokens)?)))
            .collect::<Result<_>>()?;
        self.reach(texts.iter().map(|(_, window)| window.len()).max().unwrap_or(0));
        let mut steps: Vec<TextStep<'_, K>> = texts
            .into_iter()
            .map(|(slot, window)| {
                let known = self.texts.remove(&slot).filter(|text| text.begins(window));
                let text = known.unwrap_or_else(|| Text::new(self.model.layers));
                TextStep { slot, window, text, logits: Vec::new() }
            })
            .collect();
        let Self { kernels, model, list, layout, parameters, rotations, workers, .. } = self;
        let decoder = Decoder { z_loss: 0.0, kernels, model, list, layout, parameters, rotations };
        let each = steps.len().div_ceil(workers.len()).max(1);
        let mut shares: Vec<_> = steps
            .chunks_mut(each)
            .zip(workers)
            .map(|(steps, worker)| Share { steps, work: &mut worker.stepping })
            .collect();
        kernels.parallel(&mut shares, |share| share.run(decoder));
        status(kernels, self.device)?;
        let keep = |step: TextStep<'_, K>| {
            self.texts.insert(step.slot, step.text);
            step.logits
        };
        Ok(steps.into_iter().map(keep).collect())
    }

    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        check_prompt(&self.model, tokens)?;
        self.reach(tokens.len());
        let Self { kernels, model, list, layout, parameters, rotations, .. } = self;
        let decoder = Decoder { z_loss: 0.0, kernels, model, list, layout, parameters, rotations };
        let mut work = Work::new(kernels, model, tokens.len(), tokens.len(), false);
        let logits = decoder.logits(tokens, &mut work);
        status(kernels, self.device)?;
        Ok(logits)
    }

    fn parameter(&self, place: usize) -> Result<Vec<f32>> {
        let of =
            |parameter: &Parameter<K>| parameter.member(&self.kernels, &parameter.values, place);
        Ok(self.parameters.iter().find_map(of).unwrap_or_default())
    }

    fn optimizer_state_names(&self, group: OptimizerGroup) -> &'static [&'static str] {
        self.optimizers.state_names(group)
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn optimizer_tensor(&self, kind: usize, place: usize) -> Result<Vec<f32>> {
        let of = |(index, parameter): (usize, &Parameter<K>)| {
            let own = match parameter.state.get(kind) {
                Some(state) => parameter.member(&self.kernels, state, place),
                None => parameter.member_len(place).map(|len| vec![0.0; len]),
            };
            own.map(|own| (index, own))
        };
        match self.parameters.iter().enumerate().find_map(of) {
            Some((index, own)) => self.ranks.as_owner_has(index, own),
            None => Ok(Vec::new()),
        }
    }

    fn load_parameters(&mut self, tensors: &dyn Tensors) -> Result<()> {
        self.texts.clear();
        load(&self.kernels, &self.list, &mut self.parameters, tensors)
    }

    fn load_optimizer_state(&mut self, updates: u64, state: &dyn Tensors) -> Result<()> {
        let Self { kernels, list, parameters, optimizers, ranks, .. } = self;
        let entries = state_entries(|group| optimizers.state_names(group), list);
        let state = Ordered::new(state_names(&entries, list), state, STATE)?;
        for (at, entry) in entries.iter().enumerate() {
            let holds = |(index, parameter): &(usize, &mut Parameter<K>)| {
                parameter.member_len(entry.place).is_some() && ranks.updates(*index)
            };
            if let Some((_, parameter)) = parameters.iter_mut().enumerate().find(holds) {
                let data = state.data(at)?;
                parameter.load_state(kernels, optimizers, (entry.index, entry.place), &data);
            }
        }
        self.updates = updates;
        Ok(())
    }

    fn move_average(&mut self, share: f64) -> Result<()> {
        self.clock.start(&self.kernels, self.profiling);
        let Self { kernels, parameters, .. } = self;
        kernels.parallel(parameters, |parameter| parameter.move_average(kernels, share));
        self.clock.lap(kernels, KernelKind::Optimizer);
        self.clock.settle(kernels);
        status(kernels, self.device)
    }

    fn has_average(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.average.is_some())
    }

    fn exchange_average(&mut self) -> Result<()> {
        self.texts.clear();
        let Self { kernels, parameters, .. } = self;
        kernels.parallel(parameters, |parameter| parameter.exchange_average(kernels));
        Ok(())
    }

    fn average_tensor(&self, place: usize) -> Result<Vec<f32>> {
        let of = |parameter: &Parameter<K>| {
            parameter.member(&self.kernels, parameter.average.as_ref()?, place)
        };
        Ok(self.parameters.iter().find_map(of).unwrap_or_default())
    }

    fn load_average(&mut self, tensors: &dyn Tensors) -> Result<()> {
        let ordered = Ordered::new(names_and_shapes(&self.list), tensors, AVERAGE)?;
        let Self { kernels, parameters, .. } = self;
        parameters.iter_mut().try_for_each(|parameter| parameter.load_average(kernels, &ordered))
    }

    fn set_profiling(&mut self, on: bool) {
        self.profiling = on;
    }

    fn profile(&self) -> Option<Vec<KernelTime>> {
        // What is not a worker's own, all threads do together.
        let all = self.kernels.workers() as f64;
        let own = self.workers.iter().map(|worker| (&worker.clock, 1.0));
        let clocks = || own.clone().chain([(&self.clock, all)]);
        let row = |kind: KernelKind, name: &'static str| match kind {
            KernelKind::Optimizer => self.optimizers.kind().profile_row(),
            _ => name,
        };
        let time = |(index, &(kind, name)): (usize, &(KernelKind, &'static str))| KernelTime {
            name: row(kind, name),
            seconds: clocks().map(|(clock, threads)| clock.seconds()[index] * threads).sum(),
        };
        let several = self.ranks.several();
        let had = |(_, (kind, _)): &(usize, &(KernelKind, &str))| {
            several || *kind != KernelKind::Exchange
        };
        Some(KernelKind::ALL.iter().enumerate().filter(had).map(time).collect())
    }

    fn summing_time(&self) -> Option<SummingTime> {
        self.ranks.time()
    }
}
