//! Tensors outside any engine, with the names they have in files.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::error::{Result, TrainError};

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

    /// All of them, held.
    ///
    /// # Errors
    /// Those of [`Tensors::data`].
    fn held(&self) -> Result<Vec<NamedTensor>> {
        let held = |(place, (name, shape)): (usize, (String, Vec<usize>))| {
            Ok(NamedTensor { name, shape, data: self.data(place)?.into_owned() })
        };
        self.list().into_iter().enumerate().map(held).collect()
    }
}

/// Bytes of all of them, as a file holds them.
pub(crate) fn bytes<T: Tensors + ?Sized>(tensors: &T) -> u64 {
    let of = |shape: &[usize]| shape.iter().map(|&length| length as u64).product::<u64>();
    tensors.list().iter().map(|(_, shape)| of(shape) * size_of::<f32>() as u64).sum()
}

impl<T: AsRef<[NamedTensor]> + ?Sized> Tensors for T {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.as_ref().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.as_ref()[place].data))
    }
}

/// Tensors in the order that somebody wants them in, each asked for when it is needed.
pub(crate) struct Ordered<'a> {
    wanted: Vec<(String, Vec<usize>)>,
    tensors: &'a dyn Tensors,
    /// The place of each in `tensors`.
    places: Vec<usize>,
    /// What is being loaded, for messages.
    what: &'a str,
}

impl<'a> Ordered<'a> {
    /// `tensors` in the order of `wanted`, names and shapes; `what` says in messages what is being
    /// loaded.
    ///
    /// # Errors
    /// Those of [`check_shapes`].
    pub(crate) fn new(
        wanted: Vec<(String, Vec<usize>)>,
        tensors: &'a dyn Tensors,
        what: &'a str,
    ) -> Result<Self> {
        let places = check_shapes(&wanted, &tensors.list(), what)?;
        Ok(Self { wanted, tensors, places, what })
    }

    /// The elements of the one at `place` of those wanted.
    ///
    /// # Errors
    /// Those of [`Tensors::data`]; [`TrainError::TensorShape`] where they are not as many as the
    /// shape says.
    pub(crate) fn data(&self, place: usize) -> Result<Cow<'a, [f32]>> {
        let data = self.tensors.data(self.places[place])?;
        match data.len() == self.wanted[place].1.iter().product::<usize>() {
            true => Ok(data),
            false => Err(misshapen(&self.wanted[place], &[data.len()], self.what)),
        }
    }
}

/// The place in `found` of each of `wanted`, names and shapes, refusing any that is missing,
/// unknown, doubled or misshapen. `what` says in the message what was being loaded.
///
/// # Errors
/// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`].
pub(crate) fn check_shapes(
    wanted: &[(String, Vec<usize>)],
    found: &[(String, Vec<usize>)],
    what: &str,
) -> Result<Vec<usize>> {
    let unknown = |(name, shape): &(String, Vec<usize>)| TrainError::UnknownTensor {
        place: what.to_owned(),
        name: name.clone(),
        found: shape.clone(),
    };
    let mut by_name = HashMap::with_capacity(found.len());
    for (index, tensor) in found.iter().enumerate() {
        if by_name.insert(tensor.0.as_str(), index).is_some() {
            return Err(unknown(tensor));
        }
    }
    let mut places = Vec::with_capacity(wanted.len());
    for tensor in wanted {
        let (name, shape) = tensor;
        let index = by_name.remove(name.as_str()).ok_or_else(|| TrainError::MissingTensor {
            place: what.to_owned(),
            name: name.clone(),
            expected: shape.clone(),
        })?;
        if found[index].1 != *shape {
            return Err(misshapen(tensor, &found[index].1, what));
        }
        places.push(index);
    }
    // Deterministic choice of the one to name: the first in the caller's order.
    match found.iter().find(|tensor| by_name.contains_key(tensor.0.as_str())) {
        Some(tensor) => Err(unknown(tensor)),
        None => Ok(places),
    }
}

fn misshapen((name, expected): &(String, Vec<usize>), found: &[usize], what: &str) -> TrainError {
    TrainError::TensorShape {
        place: what.to_owned(),
        name: name.clone(),
        expected: expected.clone(),
        found: found.to_vec(),
    }
}
