//! What the config's sections `[train]`, `[average]`, `[eval]`, `[checkpoint]` and `[export]` say.
//!
//! Plain values with serde defaults and a `validate` each; nothing here computes or reads a file.

mod average;
mod checkpoint;
mod choices;
mod eval;
mod export;
mod lr;
mod optimizer;
mod quantity;
mod train;

pub use average::{AverageKind, AverageSpec, Averaging};
pub use checkpoint::CheckpointSpec;
pub use choices::{
    DecaySchedule, EngineKind, OptimizerKind, Precision, ReadingOrder, Schedule, Warmup,
};
pub use eval::EvalSpec;
pub use export::{ExportSpec, WeightType};
pub use lr::LearningRate;
pub use optimizer::{OptimizerSpec, WeightDecay};
pub use quantity::Quantity;
pub use train::{DEFAULT_STEPS, TrainSpec};

/// Whether f32 holds `value` as a number above 0. The fused engine's update is in f32: what is 0 or
/// infinite there would stop it, or fill the parameters with NaN.
fn f32_holds(value: f64) -> bool {
    value as f32 > 0.0 && (value as f32).is_finite()
}
