//! Model, engines, optimizer, evaluation, checkpoints.
//!
//! A global [`Batch`] goes into an [`Engine`], a [`StepOutput`] with every sequence's loss comes
//! out and the model has moved one step. [`model`] says what is trained, [`TrainSpec`] how, [`hf`]
//! reads and writes the Hugging Face layout.
//!
//! ```
//! use cuvee_train::{Batch, DeviceSpec, ModelSpec, Preset, TrainSpec, build_engine};
//!
//! let train = TrainSpec { batch_size: 2, context: 4, ..TrainSpec::default() };
//! let spec = ModelSpec { preset: Some(Preset::Xs), ..ModelSpec::default() };
//! let model = spec.resolve(32, train.context, ".".as_ref())?; // 32 token ids
//! let mut engine = build_engine(&model, &train, DeviceSpec::Cpu, 0)?;
//! let batch = Batch {
//!     inputs: vec![1, 2, 3, 4, 5, 6, 7, 8],
//!     targets: vec![2, 3, 4, 5, 6, 7, 8, 9],
//!     domains: vec![0, 1],
//!     multipliers: vec![0.5, 1.5],
//!     context: 4,
//! };
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
mod fused;
mod generate;
pub mod hf;
pub mod model;
mod optimizer;
mod reference;
mod run;
mod schedule;
mod spec;
mod tensors;

pub use batch::read_batch;
pub use checkpoint::{CheckpointSpec, DataFingerprint, RunState};
pub use engine::{
    Batch, DeviceSpec, Engine, KernelTime, Moments, NamedTensor, StepOutput, build_engine,
    engine_from_parameters,
};
pub use error::{NonFinite, Result, TrainError};
pub use evaluate::{
    DomainEvaluation, EvalPlan, EvalSpec, Evaluation, check_split, evaluate, evaluation_starts,
    sequence_losses,
};
pub use fused::FusedEngine;
pub use generate::{Sampler, SamplingSpec, generate};
pub use model::{ModelConfig, ModelSpec, Preset};
pub use optimizer::AdamW;
pub use reference::ReferenceEngine;
pub use run::{DomainStep, HeldOut, Observer, Outcome, RunPlan, StepReport, Trainer};
pub use schedule::learning_rate;
pub use spec::{DEFAULT_STEPS, EngineKind, Precision, Quantity, Schedule, TrainSpec, Warmup};
pub use tensors::{read_safetensors, write_safetensors};
