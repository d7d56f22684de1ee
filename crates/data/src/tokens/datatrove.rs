//! datatrove's and nanotron's `.ds`: ids, with files beside it that say where documents end and who
//! made them.
//!
//! In: the `.ds`; `.ds.index` must lie beside it, `.ds.metadata` should (without it ids are u16
//! unless the config states another type). Out: the documents that the index names. Written: u16
//! where all ids fit, else u32, with both files; the tokenizer is called by its fingerprint. All
//! numbers are little-endian.
//!
//! | file | content |
//! | --- | --- |
//! | `.ds` | u16 or u32 ids |
//! | `.ds.index` | u64 end of each document, in tokens |
//! | `.ds.metadata` | `TOKENIZER\|BYTES` of an id; the number of ids; the same for people |

use std::path::{Path, PathBuf};

use cuvee_words::printable_path;

use super::file::{Beside, Documents, Layout, TokenFile, TokenFormat, agree, check_whole};
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;

/// A metadata file longer than this is none.
const LONGEST_METADATA: u64 = 64 << 10;

impl Format {
    /// datatrove's `.ds` with its `.ds.index` and `.ds.metadata`.
    pub const DATATROVE: Format = Format::new("datatrove");
}

pub(super) const FORMAT: TokenFormat = TokenFormat {
    format: Format::DATATROVE,
    endings: &[".ds"],
    is_one: |_| true,
    open,
    layout: Some(Layout {
        ending: ".ds",
        indexed: true,
        token_type: |ids| Some(if ids <= 1 << 16 { TokenType::U16 } else { TokenType::U32 }),
        header: |_, _| Some(Vec::new()),
        beside: &[
            Beside {
                ending: ".ds.index",
                write: |out, path, written| {
                    let mut end = 0u64;
                    written.lengths.iter().try_for_each(|length| {
                        end += *length as u64;
                        out.write_all(&end.to_le_bytes()).map_err(DataError::io("write", path))
                    })
                },
            },
            Beside {
                ending: ".ds.metadata",
                write: |out, path, written| {
                    let (size, tokens) = (written.token_type.size(), written.tokens);
                    write!(out, "{}|{size}\n{tokens}\n{tokens} T", written.tokenizer)
                        .map_err(DataError::io("write", path))
                },
            },
        ],
    }),
};

fn open(path: &Path, stated: Option<TokenType>) -> Result<TokenFile> {
    let (tokenizer, size) = metadata(path)?;
    let told = size.map(|size| (if size == 4 { TokenType::U32 } else { TokenType::U16 }, size));
    let kind = match told {
        Some((kind, _)) => agree(path, kind, stated)?,
        None => stated.unwrap_or(TokenType::U16),
    };
    let file = MappedFile::open(path)?;
    check_whole(path, file.bytes().len(), kind)?;
    let stream = TokenStream::new(path, file, 0, kind);
    let index = beside(path, ".index");
    if !index.is_file() {
        return Err(DataError::TokenFile {
            path: path.to_owned(),
            expected: format!("datatrove's index beside it, {}", printable_path(index)),
            found: "no such file".to_owned(),
            hint: "fetch it too, or read the file as `nanogpt` (ids alone, documents ended by end-of-text)"
                .to_owned(),
        });
    }
    let ends = MappedFile::open(&index)?;
    check_ends(&index, &ends, stream.tokens(), told.is_none().then_some(kind))?;
    Ok(TokenFile { stream, documents: Documents::Ends(ends), tokenizer })
}

/// Checks that the ends count up to the number of tokens. Reads the whole index. `guessed` is how
/// the ids are stored, where no file says so.
///
/// # Errors
/// They do not.
fn check_ends(
    path: &Path,
    ends: &MappedFile,
    tokens: u64,
    guessed: Option<TokenType>,
) -> Result<()> {
    let other_type = |end: u64| match guessed {
        Some(TokenType::U16) if end.checked_mul(2) == Some(tokens) => Some(TokenType::U32),
        Some(TokenType::U32) if tokens.checked_mul(2) == Some(end) => Some(TokenType::U16),
        _ => None,
    };
    // The last end there is, by which the tokens may be of another size.
    let last_end = ends.bytes().last_chunk::<8>().map(|end| u64::from_le_bytes(*end));
    let wrong = |expected: String, found: String| {
        let hint = match last_end.and_then(other_type) {
            Some(kind) => format!(
                "where the ids are stored in {} bytes each, say so: `token_type = \"{}\"`; or the index belongs to \
                 another .ds, or one of both is truncated",
                kind.size(),
                kind.name()
            ),
            None => {
                "the index belongs to another .ds, or one of both is truncated; fetch them again"
                    .to_owned()
            }
        };
        Err(DataError::TokenFile { path: path.to_owned(), expected, found, hint })
    };
    let (ends, rest) = ends.bytes().as_chunks::<8>();
    if !rest.is_empty() {
        return wrong(
            "ends of 8 bytes each".to_owned(),
            cuvee_words::counted(ends.len() * 8 + rest.len(), "byte"),
        );
    }
    let mut last = 0;
    for (number, end) in ends.iter().enumerate() {
        let end = u64::from_le_bytes(*end);
        if end < last || end > tokens {
            let expected = format!(
                "document {number}, which begins at token {last}, to end there or later, at {tokens} at most"
            );
            return wrong(expected, format!("an end at token {end}"));
        }
        last = end;
    }
    if last != tokens {
        return wrong(
            format!("the last document to end where the tokens do, at {tokens}"),
            format!("an end at token {last}"),
        );
    }
    Ok(())
}

/// The tokenizer's name and the bytes of an id, where the file is there.
fn metadata(path: &Path) -> Result<(Option<String>, Option<usize>)> {
    let path = beside(path, ".metadata");
    let Ok(length) = std::fs::metadata(&path).map(|metadata| metadata.len()) else {
        return Ok((None, None));
    };
    let text = match length {
        0..=LONGEST_METADATA => {
            std::fs::read_to_string(&path).map_err(DataError::io("read", &path))?
        }
        _ => String::new(),
    };
    let line = text.lines().next().unwrap_or_default();
    // Names may have bars of their own.
    let told =
        line.rsplit_once('|').and_then(|(name, size)| Some((name, size.trim().parse().ok()?)));
    match told {
        Some((name, size @ (2 | 4))) => Ok((Some(name.to_owned()), Some(size))),
        _ => Err(DataError::TokenFile {
            path,
            expected: "a first line TOKENIZER|2 or TOKENIZER|4".to_owned(),
            found: format!("{:?}", line.chars().take(80).collect::<String>()),
            hint: "remove the file to read the ids as u16, or as `token_type` says".to_owned(),
        }),
    }
}

/// A file's path with more behind it, in capital letters where only that is there.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let named = |ending: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (small, capital) = (named(ending), named(&ending.to_ascii_uppercase()));
    if !small.is_file() && capital.is_file() { capital } else { small }
}
