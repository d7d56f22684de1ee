//! Tensors outside any engine, with the names they have in files.

use std::borrow::Cow;

use crate::error::Result;

/// A named tensor: f32, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Hugging Face Llama name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Lengths of its dimensions; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Its elements, as many as the product of `shape`.
    pub data: Vec<f32>,
}

/// Named tensors of f32 that are asked for one at a time, so that they need not all be held.
pub trait Tensors {
    /// Name and shape of each.
    fn list(&self) -> Vec<(String, Vec<usize>)>;

    /// The elements of the one at `place` of the list, as many as the product of its shape.
    ///
    /// # Errors
    /// [`crate::TrainError::Tensor`] where a device does not give them.
    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>>;
}

impl<T: AsRef<[NamedTensor]> + ?Sized> Tensors for T {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.as_ref().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.as_ref()[place].data))
    }
}
