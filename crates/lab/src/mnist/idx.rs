//! MNIST's IDX files, gzipped or not: a folder in, bytes of images and labels out.
//!
//! IDX: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as a
//! big-endian u32, then the bytes. Sizes are checked against the bytes that are there before
//! anything is allocated by them.

use std::io::Read;
use std::path::{Path, PathBuf};

use cuvee_words::counted;

use super::bytes::Bytes;
use crate::error::{LabError, Result};

/// No file of MNIST is larger than this when unpacked; a damaged one may claim to be.
const LARGEST: u64 = 256 << 20;

/// Reads `{prefix}-images-idx3-ubyte` and `{prefix}-labels-idx1-ubyte`, or the two with `.gz`, from
/// `folder`.
///
/// # Errors
/// A file is missing or not what its header says, or the numbers of images and labels differ.
pub(super) fn read(folder: &Path, training: bool) -> Result<Bytes> {
    let (images, labels) = if training {
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    } else {
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    };
    let (image_path, image_shape, images) = read_idx(folder, images, 3)?;
    let (label_path, label_shape, labels) = read_idx(folder, labels, 1)?;
    let count = image_shape.first().copied().unwrap_or(0);
    if label_shape.first() != Some(&count) {
        return Err(LabError::Digits {
            path: label_path,
            what: "the number of labels",
            expected: format!("{count}, one an image"),
            found: labels.len().to_string(),
        });
    }
    let pixels = image_shape.iter().skip(1).product();
    Ok(Bytes { image_path, label_path, images, labels, pixels })
}

/// Path, shape and data of an IDX file of unsigned bytes.
fn read_idx(
    folder: &Path,
    name: &'static str,
    dimensions: usize,
) -> Result<(PathBuf, Vec<usize>, Vec<u8>)> {
    let candidates = [folder.join(name), folder.join(format!("{name}.gz"))];
    let Some(path) = candidates.into_iter().find(|path| path.is_file()) else {
        return Err(LabError::NoFile { folder: folder.to_path_buf(), name });
    };
    let io = |source| LabError::Io {
        path: path.clone(),
        source,
        hint: "make the file readable, or download it again",
    };
    let file = std::fs::File::open(&path).map_err(io)?;
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file).take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
    } else {
        file.take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
    }
    let wrong = |what, expected: String, found: String| {
        Err(LabError::Digits { path: path.clone(), what, expected, found })
    };
    let magic = [0, 0, 8, dimensions as u8];
    let header = 4 + 4 * dimensions;
    if bytes.get(..4) != Some(&magic[..]) {
        return wrong(
            "the magic",
            format!("{magic:02x?}"),
            format!("{:02x?}", bytes.get(..4).unwrap_or(&bytes)),
        );
    }
    let Some(data) = bytes.get(header..) else {
        return wrong("the header", counted(header, "byte"), counted(bytes.len(), "byte"));
    };
    let sizes = bytes.get(4..header).unwrap_or_default().as_chunks::<4>().0;
    let shape: Vec<usize> = sizes.iter().map(|size| u32::from_be_bytes(*size) as usize).collect();
    let product = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if product != Some(data.len()) {
        return wrong(
            "the data's length",
            format!("that of {shape:?}"),
            counted(data.len(), "byte"),
        );
    }
    let data = data.to_vec();
    Ok((path, shape, data))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::mnist::digits::Digits;
    use std::io::Write;

    /// Two images of 1×3 pixels, the labels 7 and 0.
    const IMAGES: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 255, 51, 0, 0, 0];
    const LABELS: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 7, 0];

    fn folder(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train-images-idx3-ubyte"), images).unwrap();
        let file = std::fs::File::create(dir.path().join("train-labels-idx1-ubyte.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(labels).unwrap();
        gzip.finish().unwrap();
        dir
    }

    #[test]
    fn golden_bytes_plain_and_gzipped() {
        let digits = Digits::read(folder(IMAGES, LABELS).path(), true).unwrap();
        assert_eq!(digits.images, [vec![(1, 1.0), (2, 0.2)], vec![]]);
        assert_eq!((digits.labels.as_slice(), digits.pixels), (&[7, 0][..], 3));
    }

    #[test]
    fn damaged_files_are_named() {
        let cases: [(&str, &[u8], &[u8]); 6] = [
            ("magic", &IMAGES[1..], LABELS),
            ("header", &IMAGES[..9], LABELS),
            ("length", &IMAGES[..IMAGES.len() - 1], LABELS),
            ("number of labels", IMAGES, &[0, 0, 8, 1, 0, 0, 0, 1, 7]),
            ("a label", IMAGES, &[0, 0, 8, 1, 0, 0, 0, 2, 7, 10]),
            // 2³² − 1 cubed overflows.
            (
                "length",
                &[0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
                LABELS,
            ),
        ];
        for (expected, images, labels) in cases {
            let error = Digits::read(folder(images, labels).path(), true).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("hint: "), "{expected}: {error}");
        }
        let error = Digits::read(folder(IMAGES, LABELS).path(), false).unwrap_err().to_string();
        assert!(
            error.contains("t10k-images-idx3-ubyte.gz") && error.contains("hint: --data"),
            "{error}"
        );
    }
}
