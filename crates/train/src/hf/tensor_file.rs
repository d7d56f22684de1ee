//! Named tensors in `.safetensors` files: f32 out; f32, f16 and bf16 in.
//!
//! Files hold the metadata `{"format": "pt"}` that Hugging Face's loaders ask for, tensors sorted
//! by name, so that equal tensors give equal bytes. A reader holds the file and the tensors it
//! yields; a writer holds the file's bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

use crate::error::{Result, TrainError};
use crate::tensor::NamedTensor;

/// Every tensor of the file, by rising name; f16 and bf16 are widened to f32.
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Safetensors`] for a damaged file, [`TrainError::TensorType`].
pub fn read_safetensors(path: &Path) -> Result<Vec<NamedTensor>> {
    let bytes = fs::read(path).map_err(TrainError::io("read", path))?;
    let damaged = |message: String| TrainError::Safetensors { path: path.to_path_buf(), message };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut views: Vec<_> = file.iter().collect();
    views.sort_by(|a, b| a.0.cmp(b.0));
    let read = |(name, view): (&str, TensorView)| {
        let raw = view.data();
        let data = match view.dtype() {
            Dtype::F32 => {
                raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            Dtype::F16 => {
                raw.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
            }
            Dtype::BF16 => {
                raw.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
            other => {
                return Err(TrainError::TensorType {
                    place: path.display().to_string(),
                    name: name.to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        Ok(NamedTensor { name: name.to_owned(), shape: view.shape().to_vec(), data })
    };
    views.into_iter().map(read).collect()
}

/// Writes `tensors` to `path`, replacing what is there only once all of it is on the disk.
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Safetensors`] for two tensors of one name or a shape that is
/// not its data's.
pub fn write_safetensors(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let refuse = |message: String| TrainError::Safetensors { path: path.to_path_buf(), message };
    if let Some(tensor) = tensors.iter().find(|t| t.shape.iter().product::<usize>() != t.data.len())
    {
        return Err(refuse(format!(
            "`{}` of shape {:?} with {} numbers",
            tensor.name,
            tensor.shape,
            tensor.data.len()
        )));
    }
    let mut names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(format!("two tensors named `{}`", pair[0])));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), F32View(tensor)));
    let bytes =
        safetensors::serialize(views, Some(metadata)).map_err(|error| refuse(error.to_string()))?;
    Ok(cuvee_fs::write_file(path, &bytes)?)
}

/// Lends a tensor's bytes to the writer without copying them where memory is little-endian, as the
/// file is.
struct F32View<'a>(&'a NamedTensor);

impl View for F32View<'_> {
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
            Cow::Owned(self.0.data.iter().flat_map(|number| number.to_le_bytes()).collect())
        }
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn tensor(name: &str, shape: &[usize], data: &[f32]) -> NamedTensor {
        NamedTensor { name: name.into(), shape: shape.to_vec(), data: data.to_vec() }
    }

    #[test]
    fn numbers_come_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let odd = [0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::INFINITY, 0.1];
        let tensors =
            [tensor("a", &[2, 3], &odd), tensor("b", &[0], &[]), tensor("c", &[], &[7.0])];
        write_safetensors(&path, &tensors).unwrap();
        let back = read_safetensors(&path).unwrap();
        assert_eq!(back, tensors);
        assert!(back[0].data.iter().zip(odd).all(|(x, y)| x.to_bits() == y.to_bits()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        // 1.5 and −2^-14 in f16 are 0x3E00 and 0x8400; 1.5 and −3 in bf16 are 0x3FC0 and 0xC040.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("half.safetensors");
        let half = [0x00, 0x3E, 0x00, 0x84];
        let brain = [0xC0, 0x3F, 0x40, 0xC0];
        let views = [
            ("half", TensorView::new(Dtype::F16, vec![2], &half).unwrap()),
            ("brain", TensorView::new(Dtype::BF16, vec![2], &brain).unwrap()),
        ];
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let back = read_safetensors(&path).unwrap();
        assert_eq!(back[0], tensor("brain", &[2], &[1.5, -3.0]));
        assert_eq!(back[1], tensor("half", &[2], &[1.5, -(2f32.powi(-14))]));
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_safetensors(&path, &[tensor("a", &[2], &[1.0, 2.0])]).unwrap();
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 4, 20, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            let message = read_safetensors(&path).unwrap_err().to_string();
            assert!(message.contains("x.safetensors") && message.contains("\nhint: "), "{message}");
        }
        let whole = [1u8; 8];
        let view = TensorView::new(Dtype::I64, vec![1], &whole).unwrap();
        fs::write(&path, safetensors::serialize([("ids", view)], None).unwrap()).unwrap();
        assert!(
            read_safetensors(&path)
                .unwrap_err()
                .to_string()
                .contains("`ids`: expected F32, F16 or BF16 numbers, found I64")
        );
        assert!(matches!(read_safetensors(&dir.path().join("none")), Err(TrainError::Io { .. })));
        assert!(write_safetensors(&path, &[tensor("a", &[3], &[1.0])]).is_err());
        let doubled = [tensor("a", &[1], &[1.0]), tensor("a", &[1], &[1.0])];
        assert!(
            write_safetensors(&path, &doubled)
                .unwrap_err()
                .to_string()
                .contains("two tensors named `a`")
        );
    }
}
