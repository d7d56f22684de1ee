//! Named tensors in `.safetensors` files: f32, bf16 and f16 out; the same and f64 in.
//!
//! Files hold the metadata `{"format": "pt"}` that Hugging Face's loaders ask for, tensors sorted
//! by name, so that equal tensors give equal bytes. Both ways go tensor by tensor, and hold one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cuvee_words::printable_path;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::{Result, TrainError};
use crate::spec::WeightType;
use crate::tensor::{NamedTensor, Tensors};

/// Bytes in front of the header that tell its length.
const LENGTH: u64 = 8;

/// Longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// A file that is open: its tensors by rising name, each read when it is asked for. Numbers in f16
/// and bf16 are widened to f32, those in f64 are rounded to the nearest, as `transformers` does.
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the tensors begin in the file.
    start: u64,
    tensors: Vec<(String, TensorInfo)>,
}

impl SafetensorsFile {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::Safetensors`] for a damaged file,
    /// [`TrainError::TensorType`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(TrainError::io("read", path))?;
        let (header, start) = read_header(path, &mut file)?;
        let mut tensors: Vec<(String, TensorInfo)> =
            header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let is_read = |dtype| matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
        if let Some((name, info)) = tensors.iter().find(|(_, info)| !is_read(info.dtype)) {
            return Err(TrainError::TensorType {
                place: printable_path(path),
                name: name.clone(),
                found: format!("{:?}", info.dtype),
                hint: "this is no number type that weights are trained in: take the model as it was before it was quantized",
            });
        }
        Ok(Self { path: path.to_path_buf(), file, start, tensors })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Tensors for SafetensorsFile {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, info)| (name.clone(), info.shape.clone())).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let info = &self.tensors[place].1;
        let (first, end) = info.data_offsets;
        read_numbers(&self.file, info.dtype, self.start + first as u64, end - first)
            .map(Cow::Owned)
            .map_err(TrainError::io("read", &self.path))
    }
}

/// Every tensor of the file, held: see [`SafetensorsFile`].
///
/// # Errors
/// Those of [`SafetensorsFile::open`]; [`TrainError::Io`].
pub fn read_safetensors(path: &Path) -> Result<Vec<NamedTensor>> {
    SafetensorsFile::open(path)?.held()
}

/// The header, and where the tensors begin in the file; checked against the file's length.
fn read_header(path: &Path, file: &mut File) -> Result<(Metadata, u64)> {
    let io = || TrainError::io("read", path);
    let length = file.metadata().map_err(io())?.len();
    let damaged = |message: String, hint: &'static str| TrainError::Safetensors {
        path: path.to_path_buf(),
        message,
        hint,
    };
    let mut first = Vec::new();
    Read::by_ref(file).take(64).read_to_end(&mut first).map_err(io())?;
    let claimed = first.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let fits = |header: &u64| *header <= LONGEST_HEADER && LENGTH + *header <= length;
    let Some(header_length) = claimed.filter(fits) else {
        return Err(match what_else(&first, length, claimed) {
            (found, Some(hint)) => damaged(found, hint),
            (found, None) => damaged(found, WRITE_AGAIN),
        });
    };
    file.seek(SeekFrom::Start(LENGTH)).map_err(io())?;
    let mut text = Vec::new();
    Read::by_ref(file).take(header_length).read_to_end(&mut text).map_err(io())?;
    let header: Metadata = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("a header that is none: {error}"), WRITE_AGAIN))?;
    let (start, needed) = (LENGTH + header_length, header.data_len() as u64);
    let expected = start.saturating_add(needed);
    if expected != length {
        let how =
            if length < expected { "it was cut off" } else { "it goes on behind its tensors" };
        return Err(damaged(
            format!("{length} bytes where its header tells of {expected}: {how}"),
            WRITE_AGAIN,
        ));
    }
    Ok((header, start))
}

/// What to do about a damaged file.
const WRITE_AGAIN: &str =
    "the file is damaged or not what its name says; write or download it again";

/// What a file is that is not safetensors, from its first bytes, and what to do about it.
fn what_else(first: &[u8], length: u64, claimed: Option<u64>) -> (String, Option<&'static str>) {
    if length == 0 {
        return ("an empty file".to_owned(), None);
    }
    if first.starts_with(b"version https://git-lfs") {
        let hint =
            "fetch what it points to with `git lfs pull` in that folder, or download the file";
        return ("a Git-LFS pointer instead of the weights".to_owned(), Some(hint));
    }
    let hint = "it was saved by PyTorch: in Python, load the model and save it again with \
                `save_pretrained(FOLDER, safe_serialization=True)`";
    if first.starts_with(b"PK\x03\x04") || first.starts_with(b"\x80\x02") {
        return ("a PyTorch file".to_owned(), Some(hint));
    }
    if first.trim_ascii_start().starts_with(b"<") {
        return ("a page in HTML or XML, perhaps an error of the server".to_owned(), None);
    }
    match claimed {
        None => (format!("{length} bytes, fewer than its header needs"), None),
        Some(claimed) => {
            (format!("{length} bytes, whose first eight tell of a header of {claimed}"), None)
        }
    }
}

/// The numbers in `bytes` bytes at `start`, in f32; there are no types but the four.
fn read_numbers(mut file: &File, dtype: Dtype, start: u64, bytes: usize) -> io::Result<Vec<f32>> {
    file.seek(SeekFrom::Start(start))?;
    // Where memory is little-endian, as the file is, the numbers are read where they belong.
    if dtype == Dtype::F32 && cfg!(target_endian = "little") {
        let mut data = vec![0f32; bytes / size_of::<f32>()];
        file.read_exact(bytemuck::cast_slice_mut(&mut data))?;
        return Ok(data);
    }
    let mut raw = vec![0u8; bytes];
    file.read_exact(&mut raw)?;
    let halves = raw.as_chunks().0.iter();
    Ok(match dtype {
        Dtype::F16 => halves.map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => halves.map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::F64 => {
            raw.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()
        }
        _ => raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
    })
}

/// Writes `tensors` in f32 to a new file at `path`, one after the other. Nothing is synced: this is
/// for a folder that is made whole by its caller, as with [`cuvee_fs::replace_folder`].
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Safetensors`] for two tensors of one name or a shape that is
/// not its data's; those of [`Tensors::data`].
pub fn write_safetensors<T: Tensors + ?Sized>(path: &Path, tensors: &T) -> Result<()> {
    let all: Vec<usize> = (0..tensors.list().len()).collect();
    write_some(path, tensors, &all, WeightType::F32).map(drop)
}

/// The order in which the tensors at `places` of `list` are asked for and written: that of their
/// names.
pub(crate) fn in_file_order(places: &[usize], list: &[(String, Vec<usize>)]) -> Vec<usize> {
    let mut order = places.to_vec();
    order.sort_by(|a, b| list[*a].0.cmp(&list[*b].0));
    order
}

/// As [`write_safetensors`], those of the tensors at `places` in `dtype`. How many numbers became
/// 0, being smaller than any of the type.
///
/// # Errors
/// Those of [`write_safetensors`]; [`TrainError::TooLarge`] for a number beyond the type's range.
pub(super) fn write_some<T: Tensors + ?Sized>(
    path: &Path,
    tensors: &T,
    places: &[usize],
    dtype: WeightType,
) -> Result<u64> {
    let refuse = |message: String| TrainError::Safetensors {
        path: path.to_path_buf(),
        message,
        hint: "this is a defect of the program; please report it",
    };
    let list = tensors.list();
    let order: Vec<(usize, (String, Vec<usize>))> = in_file_order(places, &list)
        .into_iter()
        .map(|place| (place, list[place].clone()))
        .collect();
    if let Some([(_, (name, _)), _]) = order.array_windows().find(|[a, b]| a.1.0 == b.1.0) {
        return Err(refuse(format!("two tensors named `{name}`")));
    }
    let mut end = 0;
    let info = |(_, (name, shape)): &(usize, (String, Vec<usize>))| {
        let first = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let dtype = match dtype {
            WeightType::F32 => Dtype::F32,
            WeightType::Bf16 => Dtype::BF16,
            WeightType::F16 => Dtype::F16,
        };
        (name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (first, end) })
    };
    let infos = order.iter().map(info).collect();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos).map_err(|error| refuse(error.to_string()))?;
    let mut text = serde_json::to_vec(&header).map_err(|error| refuse(error.to_string()))?;
    text.resize(text.len().next_multiple_of(LENGTH as usize), b' ');

    let io = || TrainError::io("write", path);
    let mut file = BufWriter::new(File::create(path).map_err(io())?);
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(io())?;
    file.write_all(&text).map_err(io())?;
    let mut vanished = 0;
    for (place, (name, shape)) in order {
        let data = tensors.data(place)?;
        if shape.iter().product::<usize>() != data.len() {
            let found = data.len();
            return Err(refuse(format!("`{name}` of shape {shape:?} with {found} numbers")));
        }
        let bytes = match dtype {
            WeightType::F32 => little_endian(&data),
            WeightType::Bf16 => {
                let round = |number| (bf16::from_f32(number).to_f32(), bf16::from_f32(number));
                Cow::Owned(halves(&name, &data, dtype, &mut vanished, round, bf16::to_le_bytes)?)
            }
            WeightType::F16 => {
                let round = |number| (f16::from_f32(number).to_f32(), f16::from_f32(number));
                Cow::Owned(halves(&name, &data, dtype, &mut vanished, round, f16::to_le_bytes)?)
            }
        };
        file.write_all(&bytes).map_err(io())?;
    }
    file.flush().map_err(io())?;
    Ok(vanished)
}

/// The numbers in a type of 16 bits, each rounded to the nearest, ties to even. `round` gives it in
/// both types; those that become 0 are counted.
fn halves<H>(
    name: &str,
    data: &[f32],
    dtype: WeightType,
    vanished: &mut u64,
    round: impl Fn(f32) -> (f32, H),
    bytes: impl Fn(H) -> [u8; 2],
) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(data.len() * 2);
    for (element, &number) in data.iter().enumerate() {
        let (rounded, half) = round(number);
        if number.is_finite() && !rounded.is_finite() {
            return Err(TrainError::TooLarge {
                name: name.to_owned(),
                value: number,
                element,
                dtype: dtype.to_string(),
            });
        }
        *vanished += u64::from(rounded == 0.0 && number != 0.0);
        raw.extend(bytes(half));
    }
    Ok(raw)
}

/// The numbers as the file holds them, without a copy where memory is little-endian too.
fn little_endian(data: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(data))
    } else {
        Cow::Owned(data.iter().flat_map(|number| number.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use safetensors::tensor::TensorView;
    use std::fs;

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

    /// Tensors that are made when they are asked for, and how often they were.
    struct Made(std::cell::RefCell<Vec<usize>>);

    impl Tensors for Made {
        fn list(&self) -> Vec<(String, Vec<usize>)> {
            ["c", "a", "b"].map(|name| (name.to_owned(), vec![2, 2])).to_vec()
        }

        fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
            self.0.borrow_mut().push(place);
            Ok(Cow::Owned(vec![place as f32; 4]))
        }
    }

    #[test]
    fn tensors_are_written_one_by_one_and_the_bytes_are_the_librarys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let made = Made(Default::default());
        write_safetensors(&path, &made).unwrap();
        assert_eq!(*made.0.borrow(), [1, 2, 0], "each once, in the file's order");
        let bytes = [0f32, 1.0, 2.0].map(|x| [x.to_le_bytes(); 4].concat());
        let views = [("c", 0), ("a", 1), ("b", 2)].map(|(name, place)| {
            (name, TensorView::new(Dtype::F32, vec![2, 2], &bytes[place]).unwrap())
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let expected = safetensors::serialize(views, Some(format)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
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
    fn double_precision_is_rounded_to_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("double.safetensors");
        // 1 + 2⁻²⁴ lies halfway between 1 and the next f32: to the even one.
        let numbers = [0.1f64, 1.0 + 2f64.powi(-24), 1e300];
        let bytes = numbers.map(f64::to_le_bytes).concat();
        let view = TensorView::new(Dtype::F64, vec![3], &bytes).unwrap();
        fs::write(&path, safetensors::serialize([("double", view)], None).unwrap()).unwrap();
        // What overflows is infinite, which is refused by whoever takes weights out of it.
        let expected = tensor("double", &[3], &[0.1, 1.0, f32::INFINITY]);
        assert_eq!(read_safetensors(&path).unwrap(), [expected]);
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_halfway_to_even() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let rounded = |dtype, numbers: &[f32]| {
            let tensors = [tensor("a", &[numbers.len()], numbers)];
            let vanished = write_some(&path, &tensors, &[0], dtype).unwrap();
            (read_safetensors(&path).unwrap().remove(0).data, vanished)
        };
        // bf16 has 2⁻⁷ between 1 and 2: halfway goes to the even one, which is 1, then 1 + 2⁻⁶.
        let (half, step) = (2f32.powi(-8), 2f32.powi(-7));
        let numbers = [1.0 + half, 1.0 + step + half, 1.0 + half + 2f32.powi(-20), -0.0];
        let expected = [1.0, 1.0 + 2.0 * step, 1.0 + step, -0.0];
        assert_eq!(rounded(WeightType::Bf16, &numbers), (expected.to_vec(), 0));
        // f16 has 2⁻¹⁰ there; its largest number is 65,504 and its smallest 2⁻²⁴.
        let (half, step) = (2f32.powi(-11), 2f32.powi(-10));
        let numbers = [1.0 + half, 1.0 + step + half, 65_504.0, 65_519.0, 2f32.powi(-24), 1e-9];
        let expected = [1.0, 1.0 + 2.0 * step, 65_504.0, 65_504.0, 2f32.powi(-24), 0.0];
        assert_eq!(rounded(WeightType::F16, &numbers), (expected.to_vec(), 1));
    }

    #[test]
    fn a_number_beyond_the_range_of_its_type_is_refused_with_its_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        for (dtype, number) in [(WeightType::F16, -65_520.0), (WeightType::Bf16, f32::MAX)] {
            let tensors = [tensor("fine", &[1], &[1.0]), tensor("wide", &[2], &[1.0, number])];
            let message = write_some(&path, &tensors, &[0, 1], dtype).unwrap_err().to_string();
            let named = message.contains("`wide`") && message.contains("element 1");
            assert!(named && message.contains(&dtype.to_string()), "{message}");
            assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
        }
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
                .contains("`ids`: expected F32, BF16, F16 or F64 numbers, found I64")
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
