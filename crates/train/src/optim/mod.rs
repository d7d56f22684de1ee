//! Optimizers: gradients in, updated parameters out.
//!
//! An [`Optimizer`] is a rule for one parameter, written once for each kind of [`Storage`]: the
//! kernels' buffers of the fused engine, and Candle's tensors of the reference engine. The engine
//! owns the parameters and the rule's state, and calls the rule for each of them.
//!
//! A new optimizer is a file beside `adamw` that implements the trait for both storages, and a row
//! of [`build_optimizer`]. Its settings, also those that differ between groups of parameters
//! ([`OptimizerGroup`](crate::model::OptimizerGroup)), it holds itself.

mod adamw;
mod clip;
mod interface;
mod schedule;

pub use adamw::AdamW;
pub use clip::clip_scale;
pub use interface::{Candle, Optimizer, OptimizerState, Slot, StateTensors, Storage, Update};
pub use schedule::learning_rate;

use crate::spec::TrainSpec;

/// The optimizer of `train`, for an engine of storage `S`. The table of optimizers: so far there is
/// one.
pub(crate) fn build_optimizer<S: Storage>(train: &TrainSpec) -> Box<dyn Optimizer<S>>
where
    AdamW: Optimizer<S>,
{
    Box::new(AdamW::new(train))
}
