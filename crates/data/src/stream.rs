//! Token ids in a row on disk, memory-mapped: what every tokenized format has at its heart.
//!
//! In: a mapped file, where its ids begin and how each is stored. Out: any stretch of them as
//! `u32`. Reading costs one pass over the bytes asked for, widened by vector instructions where ids
//! take two or four bytes.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::index::TokenType;
use crate::mmap::MappedFile;

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

    /// Tells the system that ids from all over will be read.
    pub(crate) fn advise_random(&self) {
        self.file.advise_random();
    }

    /// Has the processor fetch what [`read`](Self::read) will want, as far as it lies before the
    /// stream's end.
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

impl TokenType {
    /// Ids out of their bytes, which must be as many as `out` asks for. What `u32` cannot hold
    /// becomes `u32::MAX`.
    pub(crate) fn widen(self, bytes: &[u8], out: &mut [u32]) {
        /// A loop over arrays of known length, which the compiler turns into vector instructions.
        fn each<const N: usize>(bytes: &[u8], out: &mut [u32], id: impl Fn([u8; N]) -> u32) {
            for (id_out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
                *id_out = id(*bytes);
            }
        }
        // Negative ids, which only a damaged or foreign file has, are larger than any vocabulary.
        let signed = |id: i32| if id < 0 { u32::MAX } else { id as u32 };
        match self {
            TokenType::U8 => each(bytes, out, |[byte]| u32::from(byte)),
            TokenType::I8 => each(bytes, out, |[byte]| signed(i32::from(byte as i8))),
            TokenType::U16 => each(bytes, out, |pair| u32::from(u16::from_le_bytes(pair))),
            TokenType::I16 => each(bytes, out, |pair| signed(i32::from(i16::from_le_bytes(pair)))),
            TokenType::I32 => each(bytes, out, |four| signed(i32::from_le_bytes(four))),
            TokenType::U32 => each(bytes, out, u32::from_le_bytes),
            TokenType::I64 | TokenType::U64 => each(bytes, out, |eight| {
                u32::try_from(u64::from_le_bytes(eight)).unwrap_or(u32::MAX)
            }),
        }
    }

    /// Ids as bytes, appended to `out`.
    ///
    /// Fails with the place of the first id that the type cannot hold; then nothing is appended.
    pub(crate) fn narrow(self, ids: &[u32], out: &mut Vec<u8>) -> std::result::Result<(), usize> {
        let largest = self.largest();
        if ids.iter().any(|id| *id > largest) {
            return Err(ids.iter().position(|id| *id > largest).unwrap_or_default());
        }
        match self {
            TokenType::U8 | TokenType::I8 => out.extend(ids.iter().map(|id| *id as u8)),
            TokenType::U16 | TokenType::I16 => {
                out.extend(ids.iter().flat_map(|id| (*id as u16).to_le_bytes()));
            }
            TokenType::U32 | TokenType::I32 => {
                out.extend(ids.iter().flat_map(|id| id.to_le_bytes()))
            }
            TokenType::U64 | TokenType::I64 => {
                out.extend(ids.iter().flat_map(|id| u64::from(*id).to_le_bytes()));
            }
        }
        Ok(())
    }

    /// The largest id that can be stored, as far as ids are `u32`.
    pub(crate) fn largest(self) -> u32 {
        match self {
            TokenType::U8 => u32::from(u8::MAX),
            TokenType::I8 => i8::MAX as u32,
            TokenType::U16 => u32::from(u16::MAX),
            TokenType::I16 => i16::MAX as u32,
            TokenType::I32 => i32::MAX as u32,
            TokenType::U32 | TokenType::U64 | TokenType::I64 => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_round_trip_in_every_type(ids in prop::collection::vec(any::<u32>(), 0..200), which in 0..8usize) {
            let kind = TokenType::ALL[which];
            let ids: Vec<u32> = ids.into_iter().map(|id| id % kind.largest().saturating_add(1).max(1)).collect();
            let mut bytes = Vec::new();
            kind.narrow(&ids, &mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), ids.len() * kind.size());
            let mut back = vec![7; ids.len()];
            kind.widen(&bytes, &mut back);
            prop_assert_eq!(&back, &ids);
            for (id, bytes) in ids.iter().zip(bytes.chunks(kind.size())) {
                prop_assert_eq!(kind.value(bytes), i64::from(*id));
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_found() {
        let mut out = vec![9];
        assert_eq!(TokenType::U16.narrow(&[1, 65_535, 65_536, 70_000], &mut out), Err(2));
        assert_eq!(TokenType::I32.narrow(&[1 << 31], &mut out), Err(0));
        assert_eq!(out, [9]);
        // Below zero and beyond u32 is u32::MAX: no vocabulary has it.
        for (kind, bytes) in [
            (TokenType::I8, vec![0xff]),
            (TokenType::I16, vec![0xfe, 0xff]),
            (TokenType::I32, vec![0, 0, 0, 0x80]),
            (TokenType::I64, vec![0xff; 8]),
            (TokenType::U64, vec![0, 0, 0, 0, 1, 0, 0, 0]),
        ] {
            let mut id = [0];
            kind.widen(&bytes, &mut id);
            assert_eq!(id, [u32::MAX], "{kind:?}");
        }
    }
}
