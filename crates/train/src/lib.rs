//! Model, engines, optimizers, evaluation, checkpoints.
//!
//! A global [`Batch`] goes into an [`Engine`], a [`StepOutput`] with every sequence's loss comes
//! out and the model has moved one step. [`model`] says what is trained, [`TrainSpec`] how, [`hf`]
//! reads and writes the Hugging Face layout.
//!
//! Each module uses only those above it:
//!
//! | module | what it holds |
//! | --- | --- |
//! | `error`, `tensor` | [`TrainError`]; [`NamedTensor`] |
//! | `ranks` | what the ranks of a run agree on |
//! | `spec` | the config's sections `[train]`, `[average]`, `[eval]`, `[checkpoint]`, `[export]` |
//! | `batch` | token ids, `[B, T + 1]`, read from the shards |
//! | [`model`] | the decoder's shape, its table of parameters and their initial values |
//! | `optim` | the learning rate, clipping, optimizers |
//! | `engine` | the trait [`Engine`], the reference engine and the fused one |
//! | [`hf`] | files in the Hugging Face layout |
//! | `evaluate`, `generate`, `score` | held-out losses; text; probabilities of given tokens |
//! | [`checkpoint`] | the state of a run on the disk |
//! | `run` | the training loop |
//!
//! ```
//! use cuvee_mixer::DomainId;
//! use cuvee_train::{Batch, DeviceSpec, ModelSpec, Preset, TokenBuffer, TrainSpec, build_engine};
//!
//! let train = TrainSpec { batch_size: 2, context: 4, ..TrainSpec::default() };
//! let spec = ModelSpec { preset: Some(Preset::Xs), ..ModelSpec::default() };
//! let model = spec.resolve(32, train.context, None)?; // 32 token ids
//! let mut engine = build_engine(&model, &train, DeviceSpec::Cpu, 0)?;
//! let tokens = TokenBuffer::new(vec![1, 2, 3, 4, 5, 5, 6, 7, 8, 9], train.context, 32)?;
//! let batch = Batch::new(tokens, vec![DomainId(0), DomainId(1)], vec![0.5, 1.5])?;
//! let first = engine.step(&batch, 1e-3)?;
//! assert!((first.sequence_losses[0] - 32f64.ln()).abs() < 0.5);
//! assert!(engine.step(&batch, 1e-3)?.loss < first.loss);
//! # Ok::<(), cuvee_train::TrainError>(())
//! ```

mod batch;
pub mod checkpoint;
mod engine;
mod error;
mod evaluate;
mod generate;
pub mod hf;
pub mod model;
mod optim;
mod ranks;
mod run;
mod score;
mod spec;
mod tensor;

pub use batch::{Batch, BatchReader, TokenBuffer, check_documents, read_batch};
pub use checkpoint::{DataFingerprint, RunState};
pub use engine::{
    Continued, DeviceChoice, DeviceSpec, Engine, EngineAverage, EngineParameters, EngineState,
    FusedEngine, KernelTime, ReferenceEngine, Scored, StepOutput, SummingTime, build_engine,
    engine_from_parameters,
};
pub use error::{NonFinite, Result, TrainError};
pub use evaluate::{
    DomainEvaluation, EvalPlan, Evaluation, check_split, evaluate, evaluation_starts,
    mean_standard_error, sequence_losses,
};
pub use generate::{
    Ended, Event, Generated, Limits, Sampler, SamplingSpec, generate, generate_all, log_probability,
};
pub use hf::{read_safetensors, write_safetensors};
pub use model::{Family, ModelConfig, ModelSpec, Preset, RopeScaling};
pub use optim::{
    AdamW, Candle, Muon, Optimizer, OptimizerCost, OptimizerState, Sgd, Slot, StateTensors,
    Storage, Update, clip_scale, learning_rate, least_kept, optimizer_cost, peak_learning_rate,
    published_learning_rate,
};
pub use ranks::{any_rank, check_same_on_ranks};
pub use run::{FirstEvaluation, Observer, Outcome, RunPlan, Trainer};
pub use score::{rolling, score};
pub use spec::{
    AverageKind, AverageSpec, Averaging, CheckpointSpec, DEFAULT_STEPS, DecaySchedule, EngineKind,
    EvalSpec, ExportSpec, LearningRate, OptimizerKind, OptimizerSpec, Precision, Quantity,
    ReadingOrder, Schedule, TrainSpec, Warmup, WeightDecay, WeightType,
};
pub use tensor::{NamedTensor, Tensors};
