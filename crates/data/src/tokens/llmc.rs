//! llm.c's `.bin`: a header of 256 numbers, then the ids.
//!
//! In: such a file, known by its first four bytes. Out: the documents that end-of-text separates
//! (llm.c's own scripts put it before each document instead of behind; then the first is empty).
//! Written: GPT-2's u16 where all ids fit, else Llama 3's u32, end-of-text behind each document.
//! All numbers are little-endian.
//!
//! | bytes | field | GPT-2 | Llama 3 |
//! | --- | --- | --- | --- |
//! | 0–3 | i32 magic | 20240520 | 20240801 |
//! | 4–7 | i32 version | 1 | 7 |
//! | 8–11 | i32 number of ids | | |
//! | 12–1023 | zeros | | |
//! | 1024… | ids | u16 | u32 |

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::file::{Documents, Layout, TokenFile, TokenFormat, agree, check_whole};
use super::megatron;
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;

/// Bytes before the ids.
const HEADER: usize = 1024;
/// Magic, version and type of the two kinds.
const KINDS: [(u32, u32, TokenType); 2] =
    [(20_240_520, 1, TokenType::U16), (20_240_801, 7, TokenType::U32)];

impl Format {
    /// llm.c's `.bin`: a header, then ids.
    pub const LLMC: Format = Format::new("llmc");
}

pub(super) const FORMAT: TokenFormat = TokenFormat {
    format: Format::LLMC,
    endings: &[".bin"],
    is_one,
    open,
    layout: Some(Layout {
        ending: ".bin",
        indexed: false,
        token_type: |ids| Some(if ids <= 1 << 16 { TokenType::U16 } else { TokenType::U32 }),
        header,
        beside: &[],
    }),
};

/// Whether a file is certainly llm.c's: by its magic, and no half of a Megatron shard.
fn is_one(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let magic = u32::from_le_bytes(magic);
    read.is_ok() && KINDS.iter().any(|kind| kind.0 == magic) && !megatron::files(path).0.is_file()
}

fn open(path: &Path, stated: Option<TokenType>) -> Result<TokenFile> {
    let file = MappedFile::open(path)?;
    let bytes = file.bytes();
    let wrong = |expected: String, found: String, hint: &str| DataError::TokenFile {
        path: path.to_owned(),
        expected,
        found,
        hint: hint.to_owned(),
    };
    let Some(header) = bytes.get(..HEADER) else {
        return Err(wrong(
            format!("llm.c's header of {HEADER} bytes"),
            format!("a file of {}", cuvee_words::counted(bytes.len(), "byte")),
            "the file is truncated, or of another format",
        ));
    };
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (magic, version, tokens) = (number(0), number(4), number(8));
    let Some((_, expected, kind)) = KINDS.iter().find(|kind| kind.0 == magic) else {
        return Err(wrong(
            "llm.c's magic number 20240520 (GPT-2) or 20240801 (Llama 3)".to_owned(),
            magic.to_string(),
            "the file is of another format; one without a header is `nanogpt`",
        ));
    };
    if version != *expected {
        return Err(wrong(
            format!("version {expected} behind magic number {magic}"),
            format!("version {version}"),
            "make the file again with llm.c's current scripts",
        ));
    }
    let kind = agree(path, *kind, stated)?;
    check_whole(path, bytes.len() - HEADER, kind)?;
    let found = (bytes.len() - HEADER) / kind.size();
    if found as u64 != u64::from(tokens) {
        return Err(wrong(
            format!("the {} that the header counts", cuvee_words::counted(tokens, "token")),
            format!("{found}"),
            "the file is truncated, or was written on after its header; make it again",
        ));
    }
    let stream = TokenStream::new(path, file, HEADER, kind);
    Ok(TokenFile { stream, documents: Documents::EndOfText, tokenizer: None })
}

/// `None` for more ids than the header can count.
fn header(tokens: u64, kind: TokenType) -> Option<Vec<u8>> {
    let tokens = i32::try_from(tokens).ok()?;
    let (magic, version, _) = KINDS.iter().find(|known| known.2 == kind)?;
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(&magic.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&tokens.to_le_bytes());
    bytes.resize(HEADER, 0);
    Some(bytes)
}
