//! What the config's sections `[train]`, `[eval]`, `[checkpoint]` and `[export]` say.
//!
//! Plain values with serde defaults and a `validate` each; nothing here computes or reads a file.

mod checkpoint;
mod choices;
mod eval;
mod export;
mod quantity;
mod train;

pub use checkpoint::CheckpointSpec;
pub use choices::{EngineKind, Precision, Schedule, Warmup};
pub use eval::EvalSpec;
pub use export::{ExportSpec, WeightType};
pub use quantity::Quantity;
pub use train::{DEFAULT_STEPS, TrainSpec};
