//! The reference engine: Candle autograd over differentiable operations only, on any device.
//!
//! The oracle of every faster engine. A global batch is cut into micro-batches; each builds its
//! graph, runs it backward and frees it; detached gradients are added in the batch's order, so a
//! result depends on `micro_batch` only by rounding and on the number of threads not at all.
//!
//! Who uses the processor's cores is decided by Candle's environment variable `CANDLE_NUM_THREADS`,
//! which Candle reads once, at its first operation. With 1, its elementwise operations stay on the
//! thread they are called from, and this engine runs micro-batches side by side, `train.threads` of
//! them. With more, or without it (then one a physical core, or `RAYON_NUM_THREADS`), Candle splits
//! large elementwise operations over threads of its own, which spin while they wait for each other;
//! micro-batches then run one after the other and `train.threads` is without effect. Both give the
//! same bits; the first is the faster one.
//!
//! The backward pass gives each sequence's own gradient of the normalisation gains and the biases,
//! and adds them up, whether or not anything is collected from them, so that [`Engine::collect`]
//! changes no bit of what is trained.
//!
//! Costs: the parameters once; from the first update on the optimizer's state; while training, for
//! each micro-batch that runs at the time, the graph of its activations and one set of gradients.
//! `variance` says what [`Engine::collect`] adds to that.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | the engine: micro-batches, sums, updates |
//! | `decoder`, `loss` | the forward pass |
//! | `updates` | the optimizer over Candle variables |
//! | `variance` | gradient variance within a domain, by four estimators |
//! | `gradient_capture`, `gradient_hook`, `sketch` | what they see of a backward pass |
//! | `workers` | micro-batches side by side |
//! | `placement` | numbers onto the device and back |

mod decoder;
mod gradient_capture;
mod gradient_hook;
mod loss;
mod placement;
mod sketch;
#[cfg(test)]
mod tests;
mod updates;
mod variance;
mod workers;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, DeviceLocation, Tensor, Var};
use cuvee_mixer::VarianceEstimator;

use super::check::{check_fit, check_prompt, check_scored, visible};
use super::device::DeviceSpec;
use super::state::{STATE, state_entries, state_names};
use super::tensors::AVERAGE;
use super::{Continued, Engine, Scored, StepOutput};
use crate::batch::{Batch, TokenBuffer};
use crate::error::{Result, TrainError};
use crate::model::{
    InitialParameters, ModelConfig, OptimizerGroup, ParameterInfo, names_and_shapes,
};
use crate::optim::clip_scale;
use crate::spec::{Precision, TrainSpec};
use crate::tensor::{NamedTensor, Ordered, Tensors};
use decoder::{Decoder, KvCache, RotaryTables};
use gradient_capture::{Captured, GradientCapture, Look};
use loss::{sequence_losses_b, token_losses_bt, z_losses_b};
use placement::{open_device, to_device, to_f64, variables};
use updates::{Updates, norms};
use variance::{Collecting, GradientSums, Rows};
use workers::Workers;

/// Tokens of a micro-batch where the config gives none: on the CPU few enough for the activations
/// to stay near the cache, on a GPU enough to keep it busy.
const MICRO_TOKENS_CPU: usize = 512;
const MICRO_TOKENS_CUDA: usize = 16_384;

/// Candle autograd behind [`Engine`].
pub struct ReferenceEngine {
    model: ModelConfig,
    list: Vec<ParameterInfo>,
    device: Device,
    dtype: DType,
    variables: Vec<Var>,
    /// Shares the variables' storage and tracks gradients.
    trained: Decoder,
    /// Shares the variables' storage and tracks nothing: evaluation holds no graph.
    frozen: Decoder,
    updates: Updates,
    /// The average of the variables, one of each, or nothing.
    average: Vec<Tensor>,
    clip: f64,
    /// z; 0 for no z-loss.
    z_loss: f64,
    /// Sequences of a micro-batch, if the config says so.
    micro_batch: Option<usize>,
    workers: Workers,
    /// Of the texts that are continued, by their slots.
    caches: BTreeMap<usize, KvCache>,
    /// What to collect of per-sequence gradients.
    estimator: Option<VarianceEstimator>,
    /// Root of a sketch's signs.
    projections: Option<u64>,
}

/// What one micro-batch adds: its sequences' losses, a gradient for each parameter, and what is
/// collected.
struct Partial {
    losses: Vec<f64>,
    z_losses: Vec<f64>,
    gradients: Vec<Tensor>,
    sums: GradientSums,
}

/// What one backward pass gives.
struct Backward {
    losses: Vec<f64>,
    /// As many, or none.
    z_losses: Vec<f64>,
    /// One for each parameter.
    gradients: Vec<Tensor>,
    /// Sequence by sequence, as far as it was asked for.
    captured: Captured,
}

impl ReferenceEngine {
    /// An engine in f32 with initial parameters drawn from the run's root seed.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a model that does not fit together, [`TrainError::Device`],
    /// [`TrainError::Tensor`] if it does not fit in memory.
    pub fn new(
        model: &ModelConfig,
        train: &TrainSpec,
        device: DeviceSpec,
        root_seed: u64,
    ) -> Result<Self> {
        model.validate()?;
        Self::from_parameters(model, train, device, &InitialParameters::new(model, root_seed))
    }

    /// An engine in f32 around given parameters, in any order.
    ///
    /// # Errors
    /// As [`ReferenceEngine::new`]; [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`],
    /// [`TrainError::TensorShape`] if the parameters are not the model's.
    pub fn from_parameters(
        model: &ModelConfig,
        train: &TrainSpec,
        device: DeviceSpec,
        parameters: &dyn Tensors,
    ) -> Result<Self> {
        Self::with_dtype(model, train, device, parameters, DType::F32)
    }

    /// The same arithmetic in another floating-point type; in [`DType::F64`] its gradients are an
    /// oracle's. Parameters still start from and are saved as f32.
    ///
    /// # Errors
    /// As [`ReferenceEngine::new`].
    pub fn with_dtype(
        model: &ModelConfig,
        train: &TrainSpec,
        device: DeviceSpec,
        parameters: &dyn Tensors,
        dtype: DType,
    ) -> Result<Self> {
        model.validate()?;
        let device = open_device(device)?;
        let list = model.parameter_list();
        let variables = variables(&list, parameters, &device, dtype)?;
        let rotary = Arc::new(RotaryTables::new(model, &device, dtype));
        let decoder = |view: fn(&Var) -> Tensor| {
            Decoder::new(model, &list, variables.iter().map(view).collect(), Arc::clone(&rotary))
        };
        Ok(Self {
            trained: decoder(|variable| variable.as_tensor().clone())?,
            frozen: decoder(|variable| variable.as_detached_tensor())?,
            updates: Updates::new(train, model, list.len())?,
            model: model.clone(),
            list,
            dtype,
            variables,
            average: Vec::new(),
            clip: train.clip,
            z_loss: train.z_loss,
            micro_batch: train.micro_batch,
            workers: if device.is_cpu() {
                Workers::start(train.thread_count())?
            } else {
                Workers::none()
            },
            device,
            caches: BTreeMap::new(),
            estimator: None,
            projections: None,
        })
    }

    /// Losses and the whole batch's gradient, checked to be finite.
    fn forward_backward(&self, batch: &Batch) -> Result<(StepOutput, Vec<Tensor>)> {
        check_fit(&self.model, &batch.tokens)?;
        let micro_batch = self.micro_sequences(batch.context());
        let starts: Vec<usize> = (0..batch.sequences()).step_by(micro_batch).collect();
        let mut losses = Vec::with_capacity(batch.sequences());
        let mut z_losses = Vec::new();
        let mut total: Option<Vec<Tensor>> = None;
        let mut sums = GradientSums::default();
        let (updates, root) = (self.updates.count, self.projections);
        let collecting = Collecting::of(self.estimator, &self.variables, updates, root)?;
        for group in starts.chunks(self.workers.at_once()) {
            let partials = self.workers.parallel(group, |&start| {
                let end = start.saturating_add(micro_batch).min(batch.sequences());
                self.micro_batch_gradient(batch, start..end, &collecting)
            })?;
            for partial in partials {
                losses.extend(partial.losses);
                z_losses.extend(partial.z_losses);
                sums.merge(partial.sums)?;
                total = Some(match total.take() {
                    None => partial.gradients,
                    Some(sum) => add(&sum, &partial.gradients)?,
                });
            }
            // A loss that is not finite makes the rest of the batch worthless.
            if let Some(sequence) = losses.iter().position(|loss| !loss.is_finite()) {
                return Err(TrainError::non_finite("loss", losses[sequence], Some(sequence), None));
            }
        }
        let gradients = total.unwrap_or_default();
        let each = norms(&gradients)?;
        if let Some(index) = each.iter().position(|norm| !norm.is_finite()) {
            return Err(self.blame(batch, each[index], index)?);
        }
        let gradient = match self.estimator {
            Some(_) => {
                sums.statistics(&batch.domains, collecting.steady_elements(&self.variables))?
            }
            None => Vec::new(),
        };
        let norm = each.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        let z_losses = (self.z_loss > 0.0).then_some(&z_losses[..]);
        Ok((StepOutput::new(batch, losses, z_losses, norm, gradient)?, gradients))
    }

    /// The error for a gradient of `norm` at parameter `index` although every loss is finite: runs
    /// the sequences one by one to name the first whose own gradient is not finite. They may all
    /// be, and only their sum too large.
    fn blame(&self, batch: &Batch, norm: f64, index: usize) -> Result<TrainError> {
        for sequence in 0..batch.sequences() {
            let partial =
                self.micro_batch_gradient(batch, sequence..sequence + 1, &Collecting::Nothing)?;
            let each = norms(&partial.gradients)?;
            if let Some(index) = each.iter().position(|norm| !norm.is_finite()) {
                let name = self.list[index].name.clone();
                return Ok(TrainError::non_finite(
                    "gradient norm",
                    each[index],
                    Some(sequence),
                    Some(name),
                ));
            }
        }
        let what = "gradient norm of the batch (each of its sequences alone has a finite one)";
        Ok(TrainError::non_finite(what, norm, None, Some(self.list[index].name.clone())))
    }

    /// Sequences of one micro-batch.
    fn micro_sequences(&self, context: usize) -> usize {
        let tokens = if self.device.is_cuda() { MICRO_TOKENS_CUDA } else { MICRO_TOKENS_CPU };
        self.micro_batch.unwrap_or(tokens / context.max(1)).max(1)
    }

    /// The gradient of Σ_b (m_b / B) ℓ_b over the micro-batch `sequences`, B being the *global*
    /// batch, so that micro-batches simply add up; and what there is to collect.
    fn micro_batch_gradient(
        &self,
        batch: &Batch,
        sequences: Range<usize>,
        collecting: &Collecting,
    ) -> Result<Partial> {
        let scale = |m: &f64| m / batch.sequences() as f64;
        let loss_scales: Vec<f64> =
            batch.multipliers[sequences.clone()].iter().map(scale).collect();
        let domains = &batch.domains[sequences.clone()];
        let Backward { losses, z_losses, gradients, captured } =
            self.backward(batch, sequences.clone(), &loss_scales, collecting.look())?;
        let mut sums = GradientSums::default();
        match collecting {
            Collecting::Nothing => {}
            Collecting::NormLayers | Collecting::Sketch(_) => {
                // A sketch sees every parameter: vectors as they are, before the matrices.
                let biases = match collecting {
                    Collecting::Sketch(_) => captured.biases,
                    _ => Vec::new(),
                };
                let vectors = captured.gains.into_iter().chain(biases);
                let pieces: Vec<Tensor> =
                    vectors.map(|(_, each_bd)| each_bd).chain(captured.sketches).collect();
                sums.add_each(&pieces, &Rows::group(domains, &loss_scales, &self.device)?)?;
            }
            Collecting::Ghost => {
                let rows = Rows::group(domains, &loss_scales, &self.device)?;
                sums.add_ghost(&captured.linears, batch.context(), &rows)?;
            }
            Collecting::Exact => {
                for (sequence, _) in sequences.zip(&loss_scales).filter(|(_, scale)| **scale != 0.0)
                {
                    let alone =
                        self.backward(batch, sequence..sequence + 1, &[1.0], Look::Gains)?;
                    sums.add_sequence(batch.domains[sequence], &alone.gradients)?;
                }
            }
        }
        Ok(Partial { losses, z_losses, gradients, sums })
    }

    /// Forward and backward of Σ_b s_b ℓ_b over `sequences` of the batch, s being `loss_scales`; a
    /// z-loss is added to ℓ.
    fn backward(
        &self,
        batch: &Batch,
        sequences: Range<usize>,
        loss_scales: &[f64],
        look: Look,
    ) -> Result<Backward> {
        let documents = batch.tokens.documents(sequences.clone());
        let [inputs_bt, targets_bt] = self.views_bt(&batch.tokens, sequences)?;
        let loss_scales_b = Tensor::new(loss_scales, &self.device)?.to_dtype(self.dtype)?;

        let mut capture = GradientCapture::on(look, batch.context());
        let logits_nv = self.trained.logits_nv(&inputs_bt, documents, &mut capture)?;
        let losses_b = sequence_losses_b(&logits_nv, &targets_bt)?;
        let (trained_b, z_losses) = match self.z_loss > 0.0 {
            false => (losses_b.clone(), Vec::new()),
            true => {
                let z_losses_b = z_losses_b(&logits_nv, loss_scales.len(), self.z_loss)?;
                ((&losses_b + &z_losses_b)?, to_f64(&z_losses_b)?)
            }
        };
        let objective = (trained_b * loss_scales_b)?.sum_all()?;
        let mut store = objective.backward()?;

        let captured = capture.after_backward(&mut store)?;
        let take = |(variable, info): (&Var, &ParameterInfo)| {
            // A gain's gradient is that of its leaf, and a bias's: the graph does not reach the
            // parameter itself.
            let mut leaves = captured.gains.iter().chain(&captured.biases);
            let gradient = match leaves.find(|(parameter, _)| *parameter == variable.id()) {
                Some((_, each_bd)) => Some(each_bd.sum(0)?),
                None => store.remove(variable).map(|gradient| gradient.detach()),
            };
            // A parameter the graph does not reach is a dropped gradient, never a zero one.
            gradient.ok_or_else(|| TrainError::NoGradient { name: info.name.clone() })
        };
        let gradients = self.variables.iter().zip(&self.list).map(take).collect::<Result<_>>()?;
        Ok(Backward { losses: to_f64(&losses_b)?, z_losses, gradients, captured })
    }

    /// What `losses` makes of the logits and targets of one micro-batch after the other, without a
    /// graph.
    fn evaluate<N: Send>(
        &self,
        tokens: &TokenBuffer,
        losses: impl Fn(&Tensor, &Tensor) -> Result<Vec<N>> + Sync,
    ) -> Result<Vec<N>> {
        check_fit(&self.model, tokens)?;
        let micro_batch = self.micro_sequences(tokens.context());
        let of_micro_batch = |&start: &usize| {
            let end = start.saturating_add(micro_batch).min(tokens.sequences());
            let [inputs_bt, targets_bt] = self.views_bt(tokens, start..end)?;
            let (documents, mut off) = (tokens.documents(start..end), GradientCapture::off());
            let logits_nv = self.frozen.logits_nv(&inputs_bt, documents, &mut off)?;
            losses(&logits_nv, &targets_bt)
        };
        let starts: Vec<usize> = (0..tokens.sequences()).step_by(micro_batch).collect();
        let mut all = Vec::new();
        for group in starts.chunks(self.workers.at_once()) {
            all.extend(self.workers.parallel(group, of_micro_batch)?.into_iter().flatten());
        }
        Ok(all)
    }

    /// Inputs and targets of some sequences, `[b, T]` each: two views of one tensor `[b, T + 1]`.
    fn views_bt(&self, tokens: &TokenBuffer, sequences: Range<usize>) -> Result<[Tensor; 2]> {
        let (context, shape) = (tokens.context(), (sequences.len(), tokens.context() + 1));
        let rows_bt = Tensor::from_slice(tokens.rows(sequences), shape, &self.device)?;
        Ok([rows_bt.narrow(1, 0, context)?, rows_bt.narrow(1, 1, context)?])
    }

    /// One sequence of ids, `[1, t]`.
    fn ids_1t(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(ids, (1, ids.len()), &self.device)?)
    }

    /// The tensor at `at`, of the shape of the parameter at `place`, on the engine's device.
    fn placed(&self, ordered: &Ordered<'_>, at: usize, place: usize) -> Result<Tensor> {
        to_device(ordered.data(at)?, &self.list[place].shape, &self.device, self.dtype)
    }

    fn named<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<Vec<NamedTensor>> {
        let name = |(info, tensor): (&ParameterInfo, &Tensor)| {
            let data = numbers(tensor)?;
            Ok(NamedTensor { name: info.name.clone(), shape: info.shape.clone(), data })
        };
        self.list.iter().zip(tensors).map(name).collect()
    }
}

impl Engine for ReferenceEngine {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn device(&self) -> DeviceSpec {
        match self.device.location() {
            DeviceLocation::Cuda { gpu_id } => DeviceSpec::Cuda(gpu_id),
            DeviceLocation::Cpu | DeviceLocation::Metal { .. } => DeviceSpec::Cpu,
        }
    }

    fn precision(&self) -> Precision {
        // In f64 it is an oracle of tests, which no config asks for.
        Precision::F32
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn collect(&mut self, estimator: Option<VarianceEstimator>) -> Result<()> {
        self.estimator = estimator;
        Ok(())
    }

    fn seed_projections(&mut self, root: Option<u64>) {
        self.projections = root;
    }

    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput> {
        let (output, gradients) = self.forward_backward(batch)?;
        self.caches.clear();
        let scale = clip_scale(output.gradient_norm, self.clip);
        self.updates.apply(&self.list, &self.variables, &gradients, scale, lr)?;
        Ok(output)
    }

    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)> {
        let (output, gradients) = self.forward_backward(batch)?;
        let named = self.named(gradients.iter())?;
        Ok((output, named))
    }

    fn sequence_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f64>> {
        self.evaluate(tokens, |logits_nv, targets_bt| {
            to_f64(&sequence_losses_b(logits_nv, targets_bt)?)
        })
    }

    fn token_losses(&mut self, tokens: &TokenBuffer) -> Result<Vec<f32>> {
        self.evaluate(tokens, |logits_nv, targets_bt| {
            numbers(&token_losses_bt(logits_nv, targets_bt)?)
        })
    }

    fn token_log_probabilities(&mut self, sequences: &[Scored<'_>]) -> Result<Vec<Vec<f32>>> {
        check_scored(&self.model, sequences)?;
        let score = |&Scored { tokens, scored }: &Scored<'_>| {
            let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[tokens.len() - scored..]);
            let logits_nv = self.frozen.last_logits_nv(&self.ids_1t(inputs)?, scored)?;
            let losses_1t = token_losses_bt(&logits_nv, &self.ids_1t(targets)?)?;
            numbers(&losses_1t.neg()?)
        };
        let mut all = Vec::with_capacity(sequences.len());
        for some in sequences.chunks(self.workers.at_once()) {
            all.extend(self.workers.parallel(some, score)?);
        }
        Ok(all)
    }

    fn next_logits_of(&mut self, texts: &[Continued<'_>]) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let window = visible(&self.model, text.tokens)?;
            // The cache serves as long as its tokens begin the window and leave something to
            // compute.
            let known = |cache: &KvCache| {
                cache.tokens.len() < window.len() && window.starts_with(&cache.tokens)
            };
            let cache = self.caches.remove(&text.slot).filter(known);
            let mut cache = cache.unwrap_or_else(|| KvCache::new(&self.model));
            let new = &window[cache.tokens.len()..];
            let logits_v = self.frozen.last_logits_v(&self.ids_1t(new)?, &mut cache)?;
            cache.tokens.extend_from_slice(new);
            self.caches.insert(text.slot, cache);
            all.push(logits_v.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
        Ok(all)
    }

    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        check_prompt(&self.model, tokens)?;
        let logits_nv =
            self.frozen.logits_nv(&self.ids_1t(tokens)?, None, &mut GradientCapture::off())?;
        Ok(logits_nv.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
    }

    fn parameter(&self, place: usize) -> Result<Vec<f32>> {
        numbers(self.variables[place].as_tensor())
    }

    fn optimizer_state_names(&self, group: OptimizerGroup) -> &'static [&'static str] {
        self.updates.names(group)
    }

    fn updates(&self) -> u64 {
        self.updates.count
    }

    fn optimizer_tensor(&self, kind: usize, place: usize) -> Result<Vec<f32>> {
        numbers(&self.updates.tensor(&self.variables[place], kind, place)?)
    }

    fn load_parameters(&mut self, tensors: &dyn Tensors) -> Result<()> {
        let ordered = Ordered::new(names_and_shapes(&self.list), tensors, "parameters")?;
        self.caches.clear();
        for (place, variable) in self.variables.iter().enumerate() {
            variable.set(&self.placed(&ordered, place, place)?)?;
        }
        Ok(())
    }

    fn load_optimizer_state(&mut self, updates: u64, state: &dyn Tensors) -> Result<()> {
        let entries = state_entries(|group| self.updates.names(group), &self.list);
        let ordered = Ordered::new(state_names(&entries, &self.list), state, STATE)?;
        for (at, entry) in entries.iter().enumerate() {
            let data = self.placed(&ordered, at, entry.place)?;
            let parameter = (&self.list[entry.place], &self.variables[entry.place]);
            self.updates.load(parameter, (entry.index, entry.place), data)?;
        }
        self.updates.count = updates;
        Ok(())
    }

    fn move_average(&mut self, share: f64) -> Result<()> {
        if self.average.is_empty() {
            let copy = |variable: &Var| Ok(variable.as_detached_tensor().copy()?);
            self.average = self.variables.iter().map(copy).collect::<Result<_>>()?;
            return Ok(());
        }
        for (average, variable) in self.average.iter_mut().zip(&self.variables) {
            let rest = (variable.as_detached_tensor() - &*average)?;
            *average = (&*average + rest.affine(share, 0.0)?)?;
        }
        Ok(())
    }

    fn has_average(&self) -> bool {
        !self.average.is_empty()
    }

    fn exchange_average(&mut self) -> Result<()> {
        self.caches.clear();
        for (average, variable) in self.average.iter_mut().zip(&self.variables) {
            let values = variable.as_detached_tensor().copy()?;
            variable.set(average)?;
            *average = values;
        }
        Ok(())
    }

    fn average_tensor(&self, place: usize) -> Result<Vec<f32>> {
        self.average.get(place).map_or(Ok(Vec::new()), numbers)
    }

    fn load_average(&mut self, tensors: &dyn Tensors) -> Result<()> {
        let ordered = Ordered::new(names_and_shapes(&self.list), tensors, AVERAGE)?;
        let place = |place| self.placed(&ordered, place, place);
        let average = (0..self.list.len()).map(place).collect::<Result<_>>()?;
        self.average = average;
        Ok(())
    }
}

/// A tensor's numbers in f32, row by row.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
}

/// Element by element.
fn add(left: &[Tensor], right: &[Tensor]) -> Result<Vec<Tensor>> {
    left.iter().zip(right).map(|(left, right)| Ok((left + right)?)).collect()
}
