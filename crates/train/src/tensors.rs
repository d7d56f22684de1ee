//! [`NamedTensor`]s to and from safetensors files: f32 out; f32, f16 or bf16 in (always f32 in memory). Row-major.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, View};

use crate::engine::NamedTensor;
use crate::error::{Result, TrainError};

/// Lends a tensor's bytes to the writer without copying them.
struct Bytes<'a>(&'a NamedTensor);

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(&self.0.data))
        } else {
            Cow::Owned(self.0.data.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
    }
    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

/// Writes `tensors` as f32, with the `format: pt` metadata that `transformers` asks for.
///
/// # Errors
/// [`TrainError::Io`] naming the file.
pub fn write(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let views = tensors.iter().map(|t| (t.name.as_str(), Bytes(t)));
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|e| TrainError::io(path, std::io::Error::other(e)))
}

/// Reads every tensor of a file, sorted by name.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::BadCheckpoint`] for a damaged file or another element type.
pub fn read(path: &Path) -> Result<Vec<NamedTensor>> {
    let bytes = fs::read(path).map_err(|e| TrainError::io(path, e))?;
    let bad = |what: String| TrainError::BadCheckpoint { path: path.to_path_buf(), what };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("not a whole safetensors file: {e}")))?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        let raw = view.data();
        let data = match view.dtype() {
            Dtype::F32 => raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => raw.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => raw.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            other => return Err(bad(format!("`{name}`: expected F32, F16 or BF16, found {other:?}"))),
        };
        tensors.push(NamedTensor { name: name.to_string(), shape: view.shape().to_vec(), data });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
