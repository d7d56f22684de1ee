//! What the files of MNIST hold, before it is checked.

use std::path::PathBuf;

/// What the files of one split hold: as many images as labels.
pub(super) struct Bytes {
    pub(super) image_path: PathBuf,
    pub(super) label_path: PathBuf,
    /// One byte a pixel, one image behind another.
    pub(super) images: Vec<u8>,
    pub(super) labels: Vec<u8>,
    /// Pixels of an image.
    pub(super) pixels: usize,
}
