//! Files of token ids on disk, in the formats of several programs.
//!
//! In: a path, and the type of its ids where the file does not tell. Out: a
//! [`TokenFile`](file::TokenFile): its ids memory-mapped, and what tells its documents apart.
//! Opening costs the same at any size, except where an index is checked. A new format is a file
//! here and a row in [`FORMATS`].

mod datatrove;
pub(crate) mod file;
mod llmc;
pub(crate) mod megatron;
pub(crate) mod megatron_index;
pub(crate) mod mmap;
mod nanogpt;
mod olmo;
pub(crate) mod stream;

use std::path::Path;

use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;
use file::{TokenFile, TokenFormat};

/// Every tokenized format. Where two share an ending, the first that takes a file has it.
pub(crate) static FORMATS: [TokenFormat; 5] =
    [megatron::FORMAT, llmc::FORMAT, nanogpt::FORMAT, datatrove::FORMAT, olmo::FORMAT];

/// The row of a format; `None` for a format of text.
pub(crate) fn row(format: Format) -> Option<&'static TokenFormat> {
    FORMATS.iter().find(|row| row.format == format)
}

/// Opens a tokenized file, its ids of type `stated` if that is given.
///
/// # Errors
/// The file is not of this format, or the format is one of text.
pub(crate) fn open(format: Format, path: &Path, stated: Option<TokenType>) -> Result<TokenFile> {
    let row = row(format).ok_or_else(|| DataError::TokenFile {
        path: path.to_owned(),
        expected: "a tokenized file".to_owned(),
        found: format!("one of text ({})", format.name()),
        hint: "`cuvee prepare CONFIG` tokenizes text".to_owned(),
    })?;
    (row.open)(path, stated)
}

/// The formats that can be written, by name.
pub(crate) fn written() -> Vec<&'static str> {
    FORMATS.iter().filter(|row| row.layout.is_some()).map(|row| row.format.name()).collect()
}
