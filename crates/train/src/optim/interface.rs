//! What every optimizer does, and the state that a checkpoint keeps of it.

use std::borrow::Cow;

use candle_core::Tensor;
use cuvee_kernels::Backend;

use crate::error::{Result, TrainError};
use crate::tensor::{NamedTensor, Tensors};

/// Where an engine keeps its numbers.
pub trait Storage {
    /// Numbers of one parameter, or of a state of the same shape.
    type Tensor: Send + Sync;
    /// The gradient of one parameter.
    type Gradient: Send + Sync;
    /// What [`Muon`](super::Muon) needs in between for one matrix.
    type MuonWorkspace: Send;
}

/// A backend's f32 buffers, updated in place.
impl<K: Backend> Storage for K {
    type Tensor = K::Floats;
    type Gradient = K::Gradient;
    type MuonWorkspace = K::MuonWorkspace;
}

/// Candle's tensors, each update a new one.
#[derive(Debug, Clone, Copy)]
pub struct Candle;

impl Storage for Candle {
    type Tensor = Tensor;
    type Gradient = Tensor;
    type MuonWorkspace = ();
}

/// One parameter in the hands of an optimizer.
pub struct Slot<'a, S: Storage> {
    /// Its numbers; not a `Var`'s, so that no update enters the graph of the next.
    pub values: &'a mut S::Tensor,
    /// The gradient, before clipping.
    pub gradient: &'a S::Gradient,
    /// One tensor for each of [`Optimizer::state_names`], zeros before the first update.
    pub state: &'a mut [S::Tensor],
    /// `[rows, columns]` of the matrices that lie in it, one below the other; one, unless an engine
    /// keeps several together. What has one dimension is a row.
    pub matrices: &'a [[usize; 2]],
}

/// What is done to the parameters of one group at one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Which update this is, t ≥ 1.
    pub count: u64,
    /// Learning rate of the group.
    pub lr: f64,
    /// What gradients are multiplied by first: the clipping.
    pub scale: f64,
    /// What parameters are multiplied by before they move: 1 − lr·λ, or 1 of what does not decay.
    pub keep: f64,
    /// Whether that is left out where parameter and update have different signs.
    pub cautious: bool,
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

    /// Floating-point operations of one update of a matrix `[rows, columns]`; 0 where they are some
    /// for each number, which is little beside a step's.
    fn flops(&self, _matrix: [usize; 2]) -> f64 {
        0.0
    }
}

/// θ ← keep · θ − `change`, where `cautious` allows it.
pub(super) fn moved(values: &Tensor, change: &Tensor, update: &Update) -> Result<Tensor> {
    let kept = values.affine(update.keep, 0.0)?;
    if !update.cautious {
        return Ok((kept - change)?);
    }
    let apart = (values.sign()? * change.sign()?)?.lt(0.0)?;
    Ok((apart.where_cond(values, &kept)? - change)?)
}

/// An engine that keeps another number of state tensors than it was told to.
pub(super) fn wrong_state() -> TrainError {
    candle_core::Error::Msg("an optimizer's state was not what it asked for".to_owned()).into()
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
    /// One of some [`Optimizer::state_names`].
    pub name: String,
    /// One for each parameter that has it, under its name and in the order of the parameters.
    pub tensors: Vec<NamedTensor>,
}
