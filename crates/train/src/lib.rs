//! Model, engines, optimizer, evaluation, checkpoints.
//!
//! A global [`Batch`] goes into an [`Engine`], a [`StepOutput`] with every sequence's loss comes out and the model
//! has moved one step. [`model`] says what is trained, [`TrainSpec`] how, [`hf`] reads and writes the Hugging Face
//! layout.

mod batch;
pub mod checkpoint;
mod engine;
mod error;
mod evaluate;
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
pub use engine::{Batch, DeviceSpec, Engine, Moments, NamedTensor, StepOutput, build_engine};
pub use error::{NonFinite, Result, TrainError};
pub use evaluate::{DomainEvaluation, EvalSpec, Evaluation, check_split, evaluate, evaluation_starts};
pub use generate::{Sampler, SamplingSpec, generate};
pub use model::{ModelConfig, ModelSpec, Preset};
pub use optimizer::AdamW;
pub use reference::ReferenceEngine;
pub use run::{DomainStep, Observer, Outcome, RunPlan, StepReport, Trainer};
pub use schedule::learning_rate;
pub use spec::{DEFAULT_STEPS, EngineKind, Precision, Quantity, Schedule, TrainSpec, Warmup};
pub use tensors::{read_safetensors, write_safetensors};
