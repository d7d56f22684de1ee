//! MNIST in memory: a folder in, sparse images and labels out.
//!
//! The folder holds MNIST's own IDX files, or the Parquet files of the Hub's copy. Images keep
//! their non-zero pixels only (about a fifth), which is what makes the study quick.

use std::path::{Path, PathBuf};

use super::{idx, parquet};
use crate::error::{LabError, Result};

/// Non-zero pixels of an image: (position, value in (0, 1]).
pub(super) type Image = Vec<(u16, f64)>;

/// Images and labels of one split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Digits {
    /// One an example.
    pub(super) images: Vec<Image>,
    /// 0 to 9, one an example.
    pub(super) labels: Vec<u8>,
    /// Pixels of an image.
    pub(super) pixels: usize,
}

impl Digits {
    /// Reads a split from `folder`.
    ///
    /// # Errors
    /// Files that are missing or damaged, no image, or a label that is no digit.
    pub(super) fn read(folder: &Path, training: bool) -> Result<Self> {
        let bytes = match parquet::find(folder, training) {
            Some(path) => parquet::read(path)?,
            None => idx::read(folder, training)?,
        };
        let wrong = |path: PathBuf, what, expected: &str, found: usize| {
            Err(LabError::Digits {
                path,
                what,
                expected: expected.to_owned(),
                found: found.to_string(),
            })
        };
        if bytes.labels.is_empty() || bytes.pixels == 0 || bytes.pixels > usize::from(u16::MAX) {
            let expected = "1 to 65535 an image, of at least one image";
            return wrong(bytes.image_path, "the number of pixels", expected, bytes.pixels);
        }
        if let Some(label) = bytes.labels.iter().find(|label| **label > 9) {
            return wrong(bytes.label_path, "a label", "0 to 9", usize::from(*label));
        }
        let sparse = |image: &[u8]| -> Image {
            let lit = (0u16..).zip(image).filter(|(_, value)| **value > 0);
            lit.map(|(pixel, value)| (pixel, f64::from(*value) / 255.0)).collect()
        };
        let images = bytes.images.chunks_exact(bytes.pixels).map(sparse).collect();
        Ok(Self { images, labels: bytes.labels, pixels: bytes.pixels })
    }
}
