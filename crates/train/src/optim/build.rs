//! Which optimizer a run asks for. The table of optimizers: so far there is one.

use super::adamw::AdamW;
use super::{Optimizer, Storage};
use crate::spec::TrainSpec;

/// The optimizer of `train`, for an engine of storage `S`.
pub(crate) fn build_optimizer<S: Storage>(train: &TrainSpec) -> Box<dyn Optimizer<S>>
where
    AdamW: Optimizer<S>,
{
    Box::new(AdamW::new(train))
}
