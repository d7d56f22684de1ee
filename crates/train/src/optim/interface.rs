//! What every optimizer does, and the state that a checkpoint keeps of it.

use std::borrow::Cow;

use cuvee_kernels::Backend;

use crate::error::Result;
use crate::model::OptimizerGroup;
use crate::tensor::{NamedTensor, Tensors};

/// Where an engine keeps its numbers.
pub trait Storage {
    /// Numbers of one parameter, or of a state of the same shape.
    type Tensor: Send + Sync;
    /// The gradient of one parameter.
    type Gradient: Send + Sync;
}

/// A backend's f32 buffers, updated in place.
impl<K: Backend> Storage for K {
    type Tensor = K::Floats;
    type Gradient = K::Gradient;
}

/// Candle's tensors, each update a new one.
#[derive(Debug, Clone, Copy)]
pub struct Candle;

impl Storage for Candle {
    type Tensor = candle_core::Tensor;
    type Gradient = candle_core::Tensor;
}

/// One parameter in the hands of an optimizer.
pub struct Slot<'a, S: Storage> {
    /// Its numbers; not a `Var`'s, so that no update enters the graph of the next.
    pub values: &'a mut S::Tensor,
    /// The gradient, before clipping.
    pub gradient: &'a S::Gradient,
    /// One tensor for each of [`Optimizer::state_names`], zeros before the first update.
    pub state: &'a mut [S::Tensor],
    /// Whether weight decay applies.
    pub decay: bool,
    /// What it may be treated like.
    pub group: OptimizerGroup,
}

/// What all parameters of one update share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Which update this is, t ≥ 1.
    pub count: u64,
    /// Learning rate.
    pub lr: f64,
    /// What gradients are multiplied by first: the clipping.
    pub scale: f64,
}

/// A rule that updates one parameter from its gradient.
pub trait Optimizer<S: Storage>: Send + Sync {
    /// The tensors of state that it keeps of each parameter, each of the parameter's shape.
    /// Checkpoints store them under `NAME.PARAMETER`, so that a name has no dot in it and never
    /// changes.
    fn state_names(&self) -> &'static [&'static str];

    /// One update of one parameter and its state.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`], also if it does not fit in memory.
    fn update(&self, storage: &S, slot: Slot<'_, S>, update: &Update) -> Result<()>;
}

/// All that the next update needs beside the parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Updates made so far.
    pub updates: u64,
    /// The state tensors, kind by kind, as [`Optimizer::state_names`] names them.
    pub tensors: Vec<StateTensors>,
}

/// Each tensor is called `KIND.PARAMETER`, as in a file.
impl Tensors for OptimizerState {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let kind = |kind: &StateTensors| -> Vec<_> {
            let name = |tensor: &NamedTensor| format!("{}.{}", kind.name, tensor.name);
            kind.tensors.iter().map(|tensor| (name(tensor), tensor.shape.clone())).collect()
        };
        self.tensors.iter().flat_map(kind).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let mut all = self.tensors.iter().flat_map(|kind| &kind.tensors);
        Ok(Cow::Borrowed(all.nth(place).map_or(&[][..], |tensor| tensor.data.as_slice())))
    }
}

/// One kind of state of all parameters, such as AdamW's first moments.
#[derive(Debug, Clone, PartialEq)]
pub struct StateTensors {
    /// One of [`Optimizer::state_names`].
    pub name: String,
    /// One for each parameter, under its name and in the order of the parameters.
    pub tensors: Vec<NamedTensor>,
}
