//! Megatron's `.idx` and `.bin`, as Megatron-LM, NeMo and GPT-NeoX write them and as Cuvee's own
//! shards are.
//!
//! In: the path of either file or the prefix of both. Out: the documents that the index names, one
//! or more sequences each. Written: u16 below 65,500 ids, else i32, one sequence a document. The
//! layout of the index is in [`megatron_index`].

use std::path::{Path, PathBuf};

use super::file::{Beside, Documents, Layout, TokenFile, TokenFormat, agree};
use super::megatron_index::{self, Index, LengthSink};
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;

impl Format {
    /// Tokenized Megatron shards, `.idx` and `.bin`.
    pub const MEGATRON: Format = Format::new("megatron");
}

pub(super) const FORMAT: TokenFormat = TokenFormat {
    format: Format::MEGATRON,
    endings: &[".idx"],
    is_one: |_| true,
    open: |path, stated| {
        let file = open(path)?;
        agree(path, file.stream.token_type(), stated)?;
        Ok(file)
    },
    layout: Some(Layout {
        ending: ".bin",
        indexed: true,
        token_type: |ids| {
            // From 2³¹ on, ids do not fit.
            (ids <= 1 << 31).then(|| TokenType::for_vocabulary(ids as usize))
        },
        header: |_, _| Some(Vec::new()),
        beside: &[Beside {
            ending: ".idx",
            write: |out, path, written| {
                let lengths = written.lengths;
                let each =
                    |sink: &mut LengthSink<'_>| lengths.iter().try_for_each(|length| sink(*length));
                let documents = lengths.len() as u64;
                megatron_index::write(out, path, written.token_type, documents, &each)
            },
        }],
    }),
};

/// Opens `PREFIX.idx` and `PREFIX.bin`; the prefix may also be written with either ending.
///
/// # Errors
/// A file is missing, is no Megatron index, or has another length than the index says.
pub(crate) fn open(prefix: &Path) -> Result<TokenFile> {
    let (idx, bin) = files(prefix);
    let index = Index::open(&idx)?;
    let file = MappedFile::open(&bin)?;
    let (expected, found) = (index.end()?, file.bytes().len() as u64);
    if expected != found {
        return Err(DataError::Length { path: bin, expected, found });
    }
    let stream = TokenStream::new(&bin, file, 0, index.token_type());
    Ok(TokenFile { stream, documents: Documents::Index(index), tokenizer: None })
}

/// The `.idx` and `.bin` of a prefix. The ending is appended: prefixes may have dots in them.
pub(crate) fn files(prefix: &Path) -> (PathBuf, PathBuf) {
    let stem = match prefix.extension().and_then(|ending| ending.to_str()) {
        Some("idx" | "bin") => prefix.with_extension(""),
        _ => prefix.to_owned(),
    };
    let with = |ending: &str| {
        let mut name = stem.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    (with(".idx"), with(".bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_may_have_dots() {
        let (idx, bin) = files(Path::new("a/wiki.en_text_document"));
        assert_eq!(idx, Path::new("a/wiki.en_text_document.idx"));
        assert_eq!(bin, Path::new("a/wiki.en_text_document.bin"));
        assert_eq!(files(Path::new("a/wiki.en.bin")).0, Path::new("a/wiki.en.idx"));
    }
}
