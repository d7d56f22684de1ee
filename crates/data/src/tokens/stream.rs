//! Token ids in a row on disk, memory-mapped: what every tokenized format has at its heart.
//!
//! In: a mapped file, where its ids begin and how each is stored. Out: any range of them as `u32`.
//! Reading costs one pass over the bytes asked for.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::mmap::MappedFile;
use crate::token_type::TokenType;

/// Tokens that one thread looks at in one go.
const BLOCK: usize = 1 << 16;

/// The ids of a file.
#[derive(Debug)]
pub(crate) struct TokenStream {
    path: PathBuf,
    file: MappedFile,
    /// Where the ids begin, in bytes.
    start: usize,
    token_type: TokenType,
}

impl TokenStream {
    /// The ids of `file` from byte `start` on, which must not lie behind its end. Bytes at the end
    /// that make no whole id are left out: whoever knows the format has refused them.
    pub(crate) fn new(
        path: &Path,
        file: MappedFile,
        start: usize,
        token_type: TokenType,
    ) -> TokenStream {
        TokenStream { path: path.to_owned(), file, start, token_type }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn token_type(&self) -> TokenType {
        self.token_type
    }

    /// The bytes of the ids.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.file.bytes().get(self.start..).unwrap_or_default()
    }

    /// How many ids there are.
    pub(crate) fn tokens(&self) -> u64 {
        (self.bytes().len() / self.token_type.size()) as u64
    }

    /// Id `at` as it stands in the file, signed if its type is; 0 behind the end.
    pub(crate) fn value(&self, at: u64) -> i64 {
        let size = self.token_type.size();
        let bytes =
            usize::try_from(at).ok().and_then(|at| self.bytes().get(at * size..(at + 1) * size));
        bytes.map_or(0, |bytes| self.token_type.value(bytes))
    }

    /// Copies `out.len()` ids into `out`, from id `start` on; the stream is a circle. An empty one
    /// leaves `out` as it is. An id that `u32` cannot hold reads as `u32::MAX`.
    pub(crate) fn read(&self, start: u64, out: &mut [u32]) {
        let tokens = self.tokens();
        if tokens == 0 {
            return;
        }
        let size = self.token_type.size();
        let mut at = (start % tokens) as usize;
        let mut rest = out;
        while !rest.is_empty() {
            let count = rest.len().min(tokens as usize - at);
            let (now, later) = rest.split_at_mut(count);
            self.token_type.widen(&self.bytes()[at * size..(at + count) * size], now);
            (rest, at) = (later, 0);
        }
    }

    /// Advises the system that ids will be read at random places.
    pub(crate) fn advise_random(&self) {
        self.file.advise_random();
    }

    /// Prefetches what [`read`](Self::read) of the same range will copy, as far as it lies before
    /// the stream's end.
    pub(crate) fn prefetch(&self, start: u64, count: usize) {
        let (tokens, size) = (self.tokens(), self.token_type.size());
        if tokens > 0 {
            let at = self.start + (start % tokens) as usize * size;
            self.file.prefetch(at..at.saturating_add(count * size));
        }
    }

    /// The first id that is not below `vocab_size`, with its place; reads the whole file, on all
    /// threads.
    pub(crate) fn first_beyond(&self, vocab_size: usize) -> Option<(u64, i64)> {
        let (kind, size) = (self.token_type, self.token_type.size());
        let beyond = |id: u32| id as usize >= vocab_size;
        let blocks = self.bytes().par_chunks(BLOCK * size).enumerate();
        let in_block = |(number, bytes): (usize, &[u8])| {
            let mut ids = vec![0; bytes.len() / size];
            kind.widen(bytes, &mut ids);
            let at = ids.iter().position(|id| beyond(*id))?;
            Some(((number * BLOCK + at) as u64, kind.value(&bytes[at * size..(at + 1) * size])))
        };
        blocks.map(in_block).find_first(Option::is_some).flatten()
    }

    /// The largest id, `None` without any; reads the whole file, on all threads.
    pub(crate) fn max_id(&self) -> Option<u32> {
        let (kind, size) = (self.token_type, self.token_type.size());
        let blocks = self.bytes().par_chunks(BLOCK * size);
        let largest = |bytes: &[u8]| {
            let mut ids = vec![0; bytes.len() / size];
            kind.widen(bytes, &mut ids);
            ids.into_iter().max()
        };
        blocks.filter_map(largest).max()
    }
}
