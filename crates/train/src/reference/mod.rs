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
//! Backward gives each sequence's own gradient of the normalisation gains and adds them up, whether
//! or not anything is collected from them, so that [`Engine::collect`] changes no bit of what is
//! trained.
//!
//! Costs: the parameters once; with the first update two moments; while training, for each
//! micro-batch that runs at the time, the graph of its activations and one set of gradients; what
//! [`Engine::collect`] adds to that, `variance` says.

mod decoder;
mod loss;
mod sketch;
mod tap;
#[cfg(test)]
mod tests;
mod trace;
mod variance;
#[cfg(test)]
mod variance_tests;

use std::collections::HashMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use candle_core::utils::barrier_pool;
use candle_core::{DType, Device, Tensor, Var};
use cuvee_mixer::VarianceEstimator;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::engine::{
    Batch, DeviceSpec, Engine, Moments, NamedTensor, StepOutput, check_sequences, visible,
};
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, ParameterInfo, check_tensors, initial_parameters};
use crate::optimizer::{AdamW, clip_scale, norms};
use crate::spec::{Precision, TrainSpec};
use decoder::{Decoder, KvCache, RotaryTables};
use loss::sequence_losses_b;
use trace::{Look, Trace, Traced};
use variance::{Collecting, GradientSums, Rows};

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
    optimizer: AdamW,
    clip: f64,
    /// Sequences of a micro-batch, if the config says so.
    micro_batch: Option<usize>,
    /// Pools of one thread, on each of which a micro-batch runs; none where they run one after the
    /// other.
    workers: Vec<ThreadPool>,
    cache: Option<KvCache>,
    /// What to collect of per-sequence gradients.
    estimator: Option<VarianceEstimator>,
}

/// What one micro-batch adds: its sequences' losses, a gradient for each parameter, and what is
/// collected.
struct Partial {
    losses: Vec<f64>,
    gradients: Vec<Tensor>,
    sums: GradientSums,
}

/// One backward.
struct Backward {
    losses: Vec<f64>,
    /// One a parameter.
    gradients: Vec<Tensor>,
    /// Sequence by sequence, where it has that.
    traced: Traced,
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
        Self::from_parameters(model, train, device, initial_parameters(model, root_seed))
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
        parameters: Vec<NamedTensor>,
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
        parameters: Vec<NamedTensor>,
        dtype: DType,
    ) -> Result<Self> {
        model.validate()?;
        let device = open_device(device)?;
        let list = model.parameter_list();
        let variables = variables(&list, parameters, &device, dtype)?;
        let rotary = Arc::new(RotaryTables::new(model, &device, dtype));
        let decoder = |view: fn(&Var) -> Tensor| {
            Decoder::new(model, variables.iter().map(view).collect(), Arc::clone(&rotary))
        };
        let decaying = variables.iter().cloned().zip(list.iter().map(|info| info.decay));
        Ok(Self {
            trained: decoder(|variable| variable.as_tensor().clone())?,
            frozen: decoder(|variable| variable.as_detached_tensor())?,
            optimizer: AdamW::new(decaying, train),
            model: model.clone(),
            list,
            dtype,
            variables,
            clip: train.clip,
            micro_batch: train.micro_batch,
            workers: if device.is_cpu() {
                start_workers(train.thread_count())?
            } else {
                Vec::new()
            },
            device,
            cache: None,
            estimator: None,
        })
    }

    /// Losses and the whole batch's gradient, checked to be finite.
    fn forward_backward(&self, batch: &Batch) -> Result<(StepOutput, Vec<Tensor>)> {
        batch.check(&self.model)?;
        let micro_batch = self.micro_sequences(batch.context);
        let starts: Vec<usize> = (0..batch.sequences()).step_by(micro_batch).collect();
        let mut losses = Vec::with_capacity(batch.sequences());
        let mut total: Option<Vec<Tensor>> = None;
        let mut sums = GradientSums::default();
        let collecting = Collecting::of(self.estimator, &self.variables, self.optimizer.updates())?;
        for group in starts.chunks(self.workers.len().max(1)) {
            let partials = self.side_by_side(group, |&start| {
                let end = start.saturating_add(micro_batch).min(batch.sequences());
                self.micro_batch_gradient(batch, start..end, &collecting)
            })?;
            for partial in partials {
                losses.extend(partial.losses);
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
            Some(_) => sums.statistics(&batch.domains)?,
            None => Vec::new(),
        };
        let norm = each.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        Ok((StepOutput::new(batch, losses, norm, gradient)?, gradients))
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
        let share = |m: &f64| m / batch.sequences() as f64;
        let shares: Vec<f64> = batch.multipliers[sequences.clone()].iter().map(share).collect();
        let domains = &batch.domains[sequences.clone()];
        let Backward { losses, gradients, traced } =
            self.backward(batch, sequences.clone(), &shares, collecting.look())?;
        let mut sums = GradientSums::default();
        match collecting {
            Collecting::Nothing => {}
            Collecting::NormLayers | Collecting::Sketch(_) => {
                let pieces = [traced.gains, traced.sketches].concat();
                sums.add_each(&pieces, &Rows::group(domains, &shares, &self.device)?)?;
            }
            Collecting::Ghost => {
                let rows = Rows::group(domains, &shares, &self.device)?;
                sums.add_ghost(&traced.linears, batch.context, &rows)?;
            }
            Collecting::Exact => {
                for (sequence, _) in sequences.zip(&shares).filter(|(_, share)| **share != 0.0) {
                    let alone =
                        self.backward(batch, sequence..sequence + 1, &[1.0], Look::Gains)?;
                    sums.add_sequence(batch.domains[sequence], &alone.gradients)?;
                }
            }
        }
        Ok(Partial { losses, gradients, sums })
    }

    /// Forward and backward of Σ_b s_b ℓ_b over `sequences` of the batch, s being `shares`.
    fn backward(
        &self,
        batch: &Batch,
        sequences: Range<usize>,
        shares: &[f64],
        look: Look,
    ) -> Result<Backward> {
        let tokens = sequences.start * batch.context..sequences.end * batch.context;
        let inputs_bt = self.ids_bt(&batch.inputs[tokens.clone()], batch.context)?;
        let targets_bt = self.ids_bt(&batch.targets[tokens], batch.context)?;
        let shares_b = Tensor::new(shares, &self.device)?.to_dtype(self.dtype)?;

        let mut trace = Trace::on(look, batch.context);
        let logits_nv = self.trained.logits_nv(&inputs_bt, None, &mut trace)?;
        let losses_b = sequence_losses_b(&logits_nv, &targets_bt)?;
        let objective = (&losses_b * shares_b)?.sum_all()?;
        let mut store = objective.backward()?;

        let traced = trace.after_backward(&mut store)?;
        // The gains are the parameters that are vectors, and the trace has them in the same order.
        let mut next_gain = traced.gains.iter();
        let take = |(variable, info): (&Var, &ParameterInfo)| {
            let gradient = match info.shape.len() {
                1 => next_gain.next().map(|gain_bd| gain_bd.sum(0)).transpose()?,
                _ => store.remove(variable).map(|gradient| gradient.detach()),
            };
            // A parameter the graph does not reach is a dropped gradient, never a zero one.
            gradient.ok_or_else(|| TrainError::NoGradient { name: info.name.clone() })
        };
        let gradients = self.variables.iter().zip(&self.list).map(take).collect::<Result<_>>()?;
        Ok(Backward { losses: to_f64(&losses_b)?, gradients, traced })
    }

    /// `work` on each of `items`, at most as many as there are workers, at once; the results in the
    /// items' order.
    fn side_by_side<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        if self.workers.is_empty() {
            return items.iter().map(work).collect();
        }
        let work = &work;
        thread::scope(|scope| {
            let start = |(item, worker)| -> ScopedJoinHandle<Result<R>> {
                let worker: &ThreadPool = worker;
                scope.spawn(move || worker.install(|| work(item)))
            };
            let running: Vec<_> = items.iter().zip(&self.workers).map(start).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        })
    }

    fn ids_bt(&self, ids: &[u32], context: usize) -> Result<Tensor> {
        Ok(Tensor::from_slice(ids, (ids.len() / context, context), &self.device)?)
    }

    /// `tensors` in the parameters' order, on the engine's device.
    fn placed(&self, tensors: &[NamedTensor], place: &str) -> Result<Vec<Tensor>> {
        let ordered = check_tensors(&self.list, tensors, place)?;
        ordered.into_iter().map(|tensor| to_device(tensor, &self.device, self.dtype)).collect()
    }

    fn named<'a>(&self, tensors: impl Iterator<Item = &'a Tensor>) -> Result<Vec<NamedTensor>> {
        let name = |(info, tensor): (&ParameterInfo, &Tensor)| {
            let data = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(NamedTensor { name: info.name.clone(), shape: info.shape.clone(), data })
        };
        self.list.iter().zip(tensors).map(name).collect()
    }
}

impl Engine for ReferenceEngine {
    fn name(&self) -> &'static str {
        "reference"
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

    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepOutput> {
        let (output, gradients) = self.forward_backward(batch)?;
        self.cache = None;
        self.optimizer.update(&gradients, clip_scale(output.gradient_norm, self.clip), lr)?;
        Ok(output)
    }

    fn gradient(&mut self, batch: &Batch) -> Result<(StepOutput, Vec<NamedTensor>)> {
        let (output, gradients) = self.forward_backward(batch)?;
        let named = self.named(gradients.iter())?;
        Ok((output, named))
    }

    fn sequence_losses(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        context: usize,
    ) -> Result<Vec<f64>> {
        check_sequences(&self.model, inputs, targets, context)?;
        let tokens = self.micro_sequences(context).saturating_mul(context);
        let loss = |(inputs, targets): (&[u32], &[u32])| {
            let logits_nv =
                self.frozen.logits_nv(&self.ids_bt(inputs, context)?, None, &mut Trace::off())?;
            to_f64(&sequence_losses_b(&logits_nv, &self.ids_bt(targets, context)?)?)
        };
        let pairs: Vec<_> = inputs.chunks(tokens).zip(targets.chunks(tokens)).collect();
        let mut losses = Vec::with_capacity(inputs.len() / context);
        for group in pairs.chunks(self.workers.len().max(1)) {
            losses.extend(self.side_by_side(group, |&pair| loss(pair))?.into_iter().flatten());
        }
        Ok(losses)
    }

    fn next_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let window = visible(&self.model, tokens)?;
        // The cache serves as long as its tokens begin the window and leave something to compute.
        let known = |cache: &KvCache| {
            cache.tokens.len() < window.len() && window.starts_with(&cache.tokens)
        };
        let mut cache =
            self.cache.take().filter(known).unwrap_or_else(|| KvCache::new(&self.model));
        let new = &window[cache.tokens.len()..];
        let logits_nv = self.frozen.logits_nv(
            &self.ids_bt(new, new.len())?,
            Some(&mut cache),
            &mut Trace::off(),
        )?;
        cache.tokens.extend_from_slice(new);
        self.cache = Some(cache);
        Ok(logits_nv.get(new.len() - 1)?.to_dtype(DType::F32)?.to_vec1::<f32>()?)
    }

    fn all_logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        check_sequences(&self.model, tokens, tokens, tokens.len())?;
        let logits_nv =
            self.frozen.logits_nv(&self.ids_bt(tokens, tokens.len())?, None, &mut Trace::off())?;
        Ok(logits_nv.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
    }

    fn parameters(&self) -> Result<Vec<NamedTensor>> {
        self.named(self.variables.iter().map(|variable| variable.as_tensor()))
    }

    fn moments(&self) -> Result<Moments> {
        let moments = self.optimizer.moments()?;
        Ok(Moments {
            updates: self.optimizer.updates(),
            first: self.named(moments.iter().map(|(first, _)| first))?,
            second: self.named(moments.iter().map(|(_, second)| second))?,
        })
    }

    fn load_parameters(&mut self, tensors: &[NamedTensor]) -> Result<()> {
        let placed = self.placed(tensors, "parameters")?;
        self.cache = None;
        for (variable, tensor) in self.variables.iter().zip(&placed) {
            variable.set(tensor)?;
        }
        Ok(())
    }

    fn load_moments(&mut self, moments: &Moments) -> Result<()> {
        let first = self.placed(&moments.first, "first moments")?;
        let second = self.placed(&moments.second, "second moments")?;
        self.optimizer.restore(moments.updates, first.into_iter().zip(second).collect());
        Ok(())
    }
}

/// `parameters` in the order of `list`, on the device; each leaves the host's memory as soon as it
/// is there.
fn variables(
    list: &[ParameterInfo],
    parameters: Vec<NamedTensor>,
    device: &Device,
    dtype: DType,
) -> Result<Vec<Var>> {
    check_tensors(list, &parameters, "parameters")?;
    let mut placed = parameters
        .into_iter()
        .map(|NamedTensor { name, shape, data }| {
            let tensor = Tensor::from_vec(data, shape, device)?.to_dtype(dtype)?;
            Ok((name, Var::from_tensor(&tensor)?))
        })
        .collect::<Result<HashMap<_, _>>>()?;
    Ok(list.iter().filter_map(|info| placed.remove(&info.name)).collect())
}

/// `count` pools of one thread if Candle keeps to the thread it is called on, else none. A pool of
/// its own keeps a micro-batch's matrix products, which Candle hands to the calling pool, on that
/// one thread too.
fn start_workers(count: usize) -> Result<Vec<ThreadPool>> {
    if barrier_pool().n_workers() > 0 {
        return Ok(Vec::new());
    }
    let start = |_| {
        let pool = ThreadPoolBuilder::new().num_threads(1).build();
        pool.map_err(|error| TrainError::Tensor(candle_core::Error::wrap(error)))
    };
    (0..count).map(start).collect()
}

fn add(left: &[Tensor], right: &[Tensor]) -> Result<Vec<Tensor>> {
    left.iter().zip(right).map(|(left, right)| Ok((left + right)?)).collect()
}

fn to_f64(tensor_b: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor_b.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

fn to_device(tensor: &NamedTensor, device: &Device, dtype: DType) -> Result<Tensor> {
    Ok(Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)?.to_dtype(dtype)?)
}

fn open_device(spec: DeviceSpec) -> Result<Device> {
    match spec {
        DeviceSpec::Cpu => Ok(Device::Cpu),
        DeviceSpec::Cuda(_) if !cfg!(feature = "cuda") => Err(TrainError::Device {
            device: spec.to_string(),
            message: "this build knows no GPU".to_owned(),
            hint: "build with `--features cuda` (needs the CUDA toolkit), or use --device cpu"
                .to_owned(),
        }),
        DeviceSpec::Cuda(index) => Device::new_cuda(index).map_err(|error| TrainError::Device {
            device: spec.to_string(),
            message: error.to_string(),
            hint: "look at the GPUs with `nvidia-smi`, or use --device cpu".to_owned(),
        }),
    }
}
