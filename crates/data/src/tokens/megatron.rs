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
        let file = open_checked(path)?;
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

/// The endings of a shard's two files.
const ENDINGS: [&str; 2] = ["idx", "bin"];

/// Opens `PREFIX.idx` and `PREFIX.bin`; the prefix may also be written with either ending. Costs
/// the same at any size: for Cuvee's own shards, whose lengths `shard.json` vouches for.
///
/// # Errors
/// A file is missing, is no Megatron index, or has another length than the index says.
pub(crate) fn open(prefix: &Path) -> Result<TokenFile> {
    let (index, bin, file) = map(prefix)?;
    let (expected, found) = (index.end()?, file.bytes().len() as u64);
    if expected != found {
        return Err(DataError::Length { path: bin, expected, found });
    }
    Ok(token_file(index, &bin, file))
}

/// As [`open`], with a look at the whole index: for files that anybody may have written.
///
/// # Errors
/// Those of `open`; an index that does not tell of every token once.
fn open_checked(prefix: &Path) -> Result<TokenFile> {
    let (index, bin, file) = map(prefix)?;
    index.check(&bin, file.bytes().len() as u64)?;
    Ok(token_file(index, &bin, file))
}

fn map(prefix: &Path) -> Result<(Index, PathBuf, MappedFile)> {
    let (idx, bin) = files(prefix);
    let index = Index::open(&idx)?;
    let file = MappedFile::open(&bin)?;
    Ok((index, bin, file))
}

fn token_file(index: Index, bin: &Path, file: MappedFile) -> TokenFile {
    let stream = TokenStream::new(bin, file, 0, index.token_type());
    TokenFile { stream, documents: Documents::Index(index), tokenizer: None }
}

/// The `.idx` and `.bin` of a prefix. The ending is appended: prefixes may have dots in them. An
/// ending may be in small or capital letters; where none of a file's names is there, small ones.
pub(crate) fn files(prefix: &Path) -> (PathBuf, PathBuf) {
    let typed = prefix.extension().and_then(|ending| ending.to_str());
    let typed =
        typed.filter(|typed| ENDINGS.iter().any(|ending| typed.eq_ignore_ascii_case(ending)));
    let stem = if typed.is_some() { prefix.with_extension("") } else { prefix.to_owned() };
    let half = |ending: &str| {
        let named = |ending: &str| {
            let mut name = stem.clone().into_os_string();
            name.push(".");
            name.push(ending);
            PathBuf::from(name)
        };
        if typed.is_some_and(|typed| typed.eq_ignore_ascii_case(ending)) && prefix.is_file() {
            return prefix.to_owned();
        }
        let small = named(ending);
        let capital = named(&ending.to_ascii_uppercase());
        // One half in capital letters: the other probably too.
        let is_capital = typed.is_some_and(|typed| typed.bytes().all(|b| b.is_ascii_uppercase()));
        let found = match is_capital {
            true => [&capital, &small].into_iter().find(|path| path.is_file()),
            false => [&small, &capital].into_iter().find(|path| path.is_file()),
        };
        found.cloned().unwrap_or(small)
    };
    (half(ENDINGS[0]), half(ENDINGS[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endings_may_be_in_capital_letters() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.IDX", "a.BIN", "b.Idx", "b.bin", "c.idx", "c.bin", "c.IDX", "c.BIN"] {
            std::fs::write(path(name), b"").unwrap();
        }
        for (typed, idx, bin) in [
            ("a", "a.IDX", "a.BIN"),
            ("a.IDX", "a.IDX", "a.BIN"),
            ("a.bin", "a.IDX", "a.BIN"),
            ("b.Idx", "b.Idx", "b.bin"),
            ("c", "c.idx", "c.bin"),
            ("c.BIN", "c.IDX", "c.BIN"),
            ("c.idx", "c.idx", "c.bin"),
            ("none.IDX", "none.idx", "none.bin"),
        ] {
            assert_eq!(files(&path(typed)), (path(idx), path(bin)), "{typed}");
        }
    }

    #[test]
    fn prefixes_may_have_dots() {
        let (idx, bin) = files(Path::new("a/wiki.en_text_document"));
        assert_eq!(idx, Path::new("a/wiki.en_text_document.idx"));
        assert_eq!(bin, Path::new("a/wiki.en_text_document.bin"));
        assert_eq!(files(Path::new("a/wiki.en.bin")).0, Path::new("a/wiki.en.idx"));
    }
}
