//! MNIST as the Hub keeps it: Parquet, a row an image, with the PNG in `image.bytes` and the digit
//! in `label`.
//!
//! In: a file such as `train-00000-of-00001.parquet`. Out: bytes of images and labels. All images
//! must be 8-bit grey and of one size.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};

use super::bytes::Bytes;
use crate::error::{LabError, Result};

/// A digit is 28 pixels wide; a PNG that claims to unpack to more than this is none.
const LARGEST: usize = 1 << 20;

/// The split's file in `folder`; `None` where there is none.
pub(super) fn find(folder: &Path, training: bool) -> Option<PathBuf> {
    let split = if training { "train-" } else { "test-" };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().find(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(split) && name.ends_with(".parquet"))
    })
}

/// Reads all rows.
///
/// # Errors
/// The file is no Parquet, has other columns, or a row holds no such image.
pub(super) fn read(path: PathBuf) -> Result<Bytes> {
    let wrong = |what: &'static str, expected: &str, found: String| LabError::Digits {
        path: path.clone(),
        what,
        expected: expected.to_owned(),
        found,
    };
    let damaged =
        |error: parquet::errors::ParquetError| wrong("the file", "Parquet", error.to_string());
    let io = |source| LabError::Io {
        path: path.clone(),
        source,
        hint: "is the file readable, and whole?",
    };
    let reader = SerializedFileReader::new(File::open(&path).map_err(io)?).map_err(damaged)?;
    let (mut images, mut labels, mut size) = (Vec::new(), Vec::new(), None);
    for row in reader.get_row_iter(None).map_err(damaged)? {
        let (png, label) = cells(&row.map_err(damaged)?).map_err(|error| {
            wrong("a row", "an image with `bytes`, and a whole number `label`", error.to_string())
        })?;
        let (shape, mut pixels) = grey(&png)
            .map_err(|error| wrong("an image", "a PNG of 8-bit grey", error.to_string()))?;
        if *size.get_or_insert(shape) != shape {
            return Err(wrong(
                "an image's size",
                &format!("{size:?}, as the first"),
                format!("{shape:?}"),
            ));
        }
        images.append(&mut pixels);
        // Whatever is no digit is refused by the caller.
        labels.push(u8::try_from(label).unwrap_or(u8::MAX));
    }
    let pixels = size.map_or(0, |(width, height)| width as usize * height as usize);
    Ok(Bytes { image_path: path.clone(), label_path: path, images, labels, pixels })
}

/// The PNG and the label of a row; columns beside them do not matter.
fn cells(row: &Row) -> parquet::errors::Result<(Vec<u8>, i64)> {
    let column = |wanted: &str| row.get_column_iter().position(|(name, _)| name == wanted);
    let missing =
        |name: &str| parquet::errors::ParquetError::General(format!("no column `{name}`"));
    let image = row.get_group(column("image").ok_or_else(|| missing("image"))?)?;
    let bytes = image.get_column_iter().position(|(name, _)| name == "bytes");
    let png = image.get_bytes(bytes.ok_or_else(|| missing("image.bytes"))?)?.data().to_vec();
    Ok((png, row.get_long(column("label").ok_or_else(|| missing("label"))?)?))
}

/// Width and height, and one byte a pixel.
fn grey(png: &[u8]) -> std::result::Result<((u32, u32), Vec<u8>), String> {
    let limits = png::Limits { bytes: LARGEST };
    let decoder = png::Decoder::new_with_limits(std::io::Cursor::new(png), limits);
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let info = reader.info();
    let found = (info.color_type, info.bit_depth);
    if found != (png::ColorType::Grayscale, png::BitDepth::Eight) {
        return Err(format!("{found:?}"));
    }
    let shape = (info.width, info.height);
    let length = reader.output_buffer_size().filter(|length| *length <= LARGEST);
    let mut pixels = vec![0; length.ok_or_else(|| format!("an image of {shape:?}"))?];
    reader.next_frame(&mut pixels).map_err(|error| error.to_string())?;
    Ok((shape, pixels))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mnist::digits::Digits;

    fn written(images: &[(&[u8], i64)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("train-00000-of-00001.parquet");
        std::fs::write(file, cuvee_testkit::digits_parquet(images, (3, 1))).unwrap();
        dir
    }

    #[test]
    fn images_and_labels_come_back() {
        let dir = written(&[(&[0, 255, 51], 7), (&[0, 0, 0], 0)]);
        let digits = Digits::read(dir.path(), true).unwrap();
        assert_eq!(digits.images, [vec![(1, 1.0), (2, 0.2)], vec![]]);
        assert_eq!((digits.labels.as_slice(), digits.pixels), (&[7, 0][..], 3));
        assert_eq!(find(dir.path(), false), None);
    }

    #[test]
    fn what_is_no_digit_is_refused_with_the_file() {
        let error =
            |dir: &tempfile::TempDir| Digits::read(dir.path(), true).unwrap_err().to_string();
        for label in [10, -1] {
            let said = error(&written(&[(&[0, 1, 2], label)]));
            assert!(said.contains("a label") && said.contains("train-00000"), "{said}");
        }
        let dir = written(&[(&[0, 1, 2], 3)]);
        let path = dir.path().join("train-00000-of-00001.parquet");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let said = error(&dir);
        assert!(said.contains("Parquet") && said.contains("hint: "), "{said}");
        // A byte of the PNG's signature.
        let at = bytes.windows(4).position(|window| window == b"\x89PNG").unwrap();
        let mut damaged = bytes.clone();
        damaged[at + 1] = b'p';
        std::fs::write(&path, damaged).unwrap();
        let said = error(&dir);
        assert!(said.contains("an image") && said.contains("hint: "), "{said}");
    }
}
