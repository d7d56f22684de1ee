//! OLMo's `.npy`: ids and nothing else despite the name; and real NumPy arrays of ids.
//!
//! In: a file of either. One that starts with NumPy's magic is read as what it is, a
//! one-dimensional array of integers in native order, as `numpy.save` writes. One that does not
//! holds ids alone, of a type that only OLMo's config knows: `token_type` must say it. Out: the
//! documents that end-of-text separates. Only read.
//!
//! | NumPy, bytes | field |
//! | --- | --- |
//! | 0–5 | `\x93NUMPY` |
//! | 6, 7 | version, 1.0 to 3.0 |
//! | 8–9, from version 2 on 8–11 | length of the header |
//! | then | the header: a Python dictionary of `descr`, `fortran_order` and `shape` |

use std::path::Path;

use super::file::{Documents, TokenFile, TokenFormat, agree, check_whole};
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

impl Format {
    /// OLMo's `.npy`: ids alone, or a NumPy array of them.
    pub const OLMO: Format = Format::new("olmo");
}

pub(super) const FORMAT: TokenFormat =
    TokenFormat { format: Format::OLMO, endings: &[".npy"], is_one: |_| true, open, layout: None };

fn open(path: &Path, stated: Option<TokenType>) -> Result<TokenFile> {
    let file = MappedFile::open(path)?;
    let (start, kind) = match file.bytes().starts_with(MAGIC) {
        true => {
            let (start, kind, count) = numpy(path, file.bytes())?;
            let found = (file.bytes().len() - start) as u64;
            if count.checked_mul(kind.size() as u64) != Some(found) {
                return Err(DataError::TokenFile {
                    path: path.to_owned(),
                    expected: format!(
                        "{count} numbers of {} bytes behind NumPy's header",
                        kind.size()
                    ),
                    found: cuvee_words::counted(found, "byte"),
                    hint: "the file is truncated; fetch it again".to_owned(),
                });
            }
            (start, agree(path, kind, stated)?)
        }
        false => match stated {
            Some(kind) => (0, kind),
            None => {
                return Err(DataError::TokenFile {
                    path: path.to_owned(),
                    expected: "NumPy's header, or to be told how an id is stored".to_owned(),
                    found: "neither: OLMo's files are ids and nothing else".to_owned(),
                    hint: "set token_type = \"u16\" or \"u32\", as the dtype of OLMo's own config"
                        .to_owned(),
                });
            }
        },
    };
    check_whole(path, file.bytes().len() - start, kind)?;
    let stream = TokenStream::new(path, file, start, kind);
    Ok(TokenFile { stream, documents: Documents::EndOfText, tokenizer: None })
}

/// Where the numbers begin, their type and how many there are.
fn numpy(path: &Path, bytes: &[u8]) -> Result<(usize, TokenType, u64)> {
    let wrong = |found: String| DataError::TokenFile {
        path: path.to_owned(),
        expected: "a one-dimensional NumPy array of whole numbers, least significant byte first"
            .to_owned(),
        found,
        hint: "save it as numpy.save(path, array.astype(\"<u4\").ravel())".to_owned(),
    };
    let length = match bytes.get(6) {
        Some(1) => bytes.get(8..10).map(|b| (10, usize::from(u16::from_le_bytes([b[0], b[1]])))),
        Some(2 | 3) => {
            bytes.get(8..12).map(|b| (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize))
        }
        Some(version) => return Err(wrong(format!("version {version} of the format"))),
        None => None,
    };
    let header = length
        .and_then(|(start, length)| Some((start + length, bytes.get(start..start + length)?)));
    let (start, header) =
        header.ok_or_else(|| wrong("a header that ends with the file".to_owned()))?;
    let header = String::from_utf8_lossy(header);
    let value = |key: &str| {
        let rest = header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        rest.unwrap_or_default()
    };
    let kind = match value("descr").split('\'').nth(1) {
        Some("|u1") => TokenType::U8,
        Some("|i1") => TokenType::I8,
        Some("<u2") => TokenType::U16,
        Some("<i2") => TokenType::I16,
        Some("<u4") => TokenType::U32,
        Some("<i4") => TokenType::I32,
        Some("<u8") => TokenType::U64,
        Some("<i8") => TokenType::I64,
        _ => return Err(wrong(format!("numbers described as {:.20}", value("descr")))),
    };
    // A tuple of one: "(123,)".
    let shape = value("shape")
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .map(|(inner, _)| inner);
    let count = shape.and_then(|inner| inner.strip_suffix(',')?.trim().parse().ok());
    let count = count.ok_or_else(|| wrong(format!("shape ({})", shape.unwrap_or("none"))))?;
    Ok((start, kind, count))
}
