//! A tokenized split on disk: `.bin` holds its tokens one after another, `.idx` says where each
//! document stands.
//!
//! In: the path both share without their endings. Out: any stretch of the token stream, or any
//! document, as `u32`. Both files are memory-mapped: opening costs the same at any size, and
//! what is read repeatedly stays in the system's page cache.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{DataError, Result};
use crate::index::{Index, TokenType};
use crate::mmap::MappedFile;

/// An opened shard.
#[derive(Debug)]
pub struct Shard {
    bin: PathBuf,
    index: Index,
    file: MappedFile,
}

impl Shard {
    /// Opens `PREFIX.idx` and `PREFIX.bin`; the prefix may also be written with either ending.
    ///
    /// Fails where a file is missing, is no Megatron index, or has another length than the index
    /// says.
    pub fn open(prefix: &Path) -> Result<Shard> {
        let (idx, bin) = files(prefix);
        let index = Index::open(&idx)?;
        let file = MappedFile::open(&bin)?;
        let (expected, found) = (index.end()?, file.bytes().len() as u64);
        if expected != found {
            return Err(DataError::Length { path: bin, expected, found });
        }
        Ok(Shard { bin, index, file })
    }

    /// Tokens in the stream, end-of-text tokens included.
    pub fn tokens(&self) -> u64 {
        (self.file.bytes().len() / self.index.token_type().size()) as u64
    }

    /// Documents.
    pub fn documents(&self) -> u64 {
        self.index.documents() as u64
    }

    /// How a token is stored.
    pub fn token_type(&self) -> TokenType {
        self.index.token_type()
    }

    /// The path of the `.bin`.
    pub fn path(&self) -> &Path {
        &self.bin
    }

    /// Copies `out.len()` tokens of the stream into `out`, from token `start` on. The stream is a
    /// circle: `start` may be any number, and after the last token comes the first. An empty
    /// shard leaves `out` as it is.
    ///
    /// An id that `u32` cannot hold, which only a damaged or foreign shard has, reads as
    /// `u32::MAX`; [`check_ids`](Self::check_ids) finds it.
    pub fn read(&self, start: u64, out: &mut [u32]) {
        let tokens = self.tokens();
        if tokens == 0 {
            return;
        }
        let size = self.index.token_type().size();
        let mut at = (start % tokens) as usize;
        let mut rest = out;
        while !rest.is_empty() {
            let count = rest.len().min(tokens as usize - at);
            let (now, later) = rest.split_at_mut(count);
            self.copy(&self.file.bytes()[at * size..(at + count) * size], now);
            (rest, at) = (later, 0);
        }
    }

    /// The tokens of document `i`, from 0, as they stand in the file.
    ///
    /// Fails where there is no such document or its range does not lie in the file.
    pub fn document(&self, i: u64) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for range in self.index.document(usize::try_from(i).unwrap_or(usize::MAX))? {
            let (start, end) = (range.start as usize, range.end as usize);
            let Some(bytes) = self.file.bytes().get(start..end) else {
                return Err(DataError::Index {
                    path: self.bin.with_extension("idx"),
                    expected: format!("document {i} to lie in the .bin of {} bytes", self.file.bytes().len()),
                    found: format!("bytes {start} to {end}"),
                });
            };
            let before = tokens.len();
            tokens.resize(before + bytes.len() / self.index.token_type().size(), 0);
            self.copy(bytes, &mut tokens[before..]);
        }
        Ok(tokens)
    }

    /// That every id is below `vocab_size`. Reads the whole file, on all threads.
    ///
    /// Fails with the first id that is not and its document.
    pub fn check_ids(&self, vocab_size: usize) -> Result<()> {
        let kind = self.index.token_type();
        let beyond = |bytes: &&[u8]| usize::try_from(kind.value(bytes)).map_or(true, |id| id >= vocab_size);
        let found = self
            .file
            .bytes()
            .par_chunks_exact(kind.size())
            .enumerate()
            .find_first(|(_, bytes)| beyond(bytes));
        let Some((token, bytes)) = found else {
            return Ok(());
        };
        let (id, byte) = (kind.value(bytes), (token * kind.size()) as u64);
        let mut document = 0;
        for i in 0..self.index.documents() {
            if self.index.document(i)?.iter().any(|range| range.contains(&byte)) {
                document = i as u64;
                break;
            }
        }
        Err(DataError::IdBeyondVocabulary { path: self.bin.clone(), document, id, vocab_size })
    }

    /// The largest id, `None` for an empty shard. Reads the whole file, on all threads.
    pub fn max_id(&self) -> Option<u32> {
        let kind = self.index.token_type();
        let ids = self.file.bytes().par_chunks_exact(kind.size());
        ids.map(|bytes| u32::try_from(kind.value(bytes)).unwrap_or(u32::MAX)).max()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    fn copy(&self, bytes: &[u8], out: &mut [u32]) {
        let kind = self.index.token_type();
        if kind == TokenType::U16 {
            for (token, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *token = u32::from(u16::from_le_bytes(*bytes));
            }
        } else {
            for (token, bytes) in out.iter_mut().zip(bytes.chunks_exact(kind.size())) {
                *token = u32::try_from(kind.value(bytes)).unwrap_or(u32::MAX);
            }
        }
    }
}

/// The two files of a prefix. The ending is appended: prefixes may have dots in them.
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
