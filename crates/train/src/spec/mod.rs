//! What the config's sections `[train]`, `[average]`, `[eval]` and `[checkpoint]` say.
//!
//! Plain values with serde defaults and a `validate` each; nothing here computes or reads a file.

mod average;
mod checkpoint;
mod choices;
mod eval;
mod quantity;
mod train;

pub use average::{AverageKind, AverageSpec, Averaging};
pub use checkpoint::CheckpointSpec;
pub use choices::{EngineKind, Precision, ReadingOrder, Schedule, Warmup};
pub use eval::EvalSpec;
pub use quantity::Quantity;
pub use train::{DEFAULT_STEPS, TrainSpec};
