//! One split of a domain on disk: `.bin` holds its tokens one after another, `.idx` says where each
//! document stands.
//!
//! In: the path both share without their endings. Out: any range of the token stream, or any
//! document, as `u32`. Both files are memory-mapped: opening costs the same at any size, and
//! what is read repeatedly stays in the system's page cache.

use std::path::Path;

use crate::error::{DataError, Result};
use crate::token_type::TokenType;
use crate::tokens::file::{Documents, LONGEST, TokenFile};
use crate::tokens::megatron;

/// An opened shard.
#[derive(Debug)]
pub struct Shard(TokenFile);

impl Shard {
    /// Opens `PREFIX.idx` and `PREFIX.bin`; the prefix may also be written with either ending.
    ///
    /// # Errors
    /// A file is missing, is no Megatron index, or has another length than the index says.
    pub fn open(prefix: &Path) -> Result<Shard> {
        megatron::open(prefix).map(Shard)
    }

    /// Tokens in the stream, end-of-text tokens included.
    pub fn tokens(&self) -> u64 {
        self.0.stream.tokens()
    }

    /// Documents.
    pub fn documents(&self) -> u64 {
        // An index always counts them.
        self.0.documents().unwrap_or(0)
    }

    /// How a token is stored.
    pub fn token_type(&self) -> TokenType {
        self.0.stream.token_type()
    }

    /// The path of the `.bin`.
    pub fn path(&self) -> &Path {
        self.0.stream.path()
    }

    /// Copies `out.len()` tokens of the stream into `out`, from token `start` on. The stream is a
    /// circle: `start` may be any number, and after the last token comes the first. An empty
    /// shard leaves `out` as it is.
    ///
    /// An id that `u32` cannot hold, which only a damaged or foreign shard has, reads as
    /// `u32::MAX`; [`check_ids`](Self::check_ids) finds it.
    pub fn read(&self, start: u64, out: &mut [u32]) {
        self.0.stream.read(start, out);
    }

    /// Advises the system that short ranges at random places will be read, as training does.
    ///
    /// Without it, each read that misses the page cache also reads ahead, up to megabytes on some
    /// systems, most of which training does not use for a long time. With it, each page is read by
    /// itself, and may leave the page cache sooner when memory is short. Do not use it for reading
    /// a shard from end to end.
    pub fn advise_random(&self) {
        self.0.stream.advise_random();
    }

    /// Prefetches `count` tokens from `start` on, as [`read`](Self::read) counts them, into the
    /// processor's caches. Called some reads ahead, it hides most of the latency of memory. Does
    /// nothing on processors other than x86-64.
    pub fn prefetch(&self, start: u64, count: usize) {
        self.0.stream.prefetch(start, count);
    }

    /// The tokens of document `i`, from 0, as they stand in the file.
    ///
    /// # Errors
    /// There is no such document, or its range does not lie in the file.
    pub fn document(&self, i: u64) -> Result<Vec<u32>> {
        self.0.document(i)
    }

    /// The first token of document `i`, from 0, in the stream; that of one behind the last is the
    /// stream's end. Costs the same at any size.
    pub fn document_start(&self, i: u64) -> u64 {
        let tokens = self.tokens();
        match &self.0.documents {
            Documents::Index(index) => {
                index.first_token(usize::try_from(i).unwrap_or(usize::MAX), tokens)
            }
            // A shard has an index.
            Documents::Ends(_) | Documents::EndOfText => tokens,
        }
    }

    /// Tokens of document `i`; 0 where there is none.
    pub fn document_tokens(&self, i: u64) -> u64 {
        self.document_start(i.saturating_add(1)).saturating_sub(self.document_start(i))
    }

    /// Where documents begin among the `count` tokens from `start` on, as [`read`](Self::read)
    /// counts them: places from 1 on, rising, since what stands first need not begin one. Costs a
    /// binary search in the index, and a look at each document.
    pub fn document_starts(&self, start: u64, count: usize) -> Vec<usize> {
        let (tokens, documents) = (self.tokens(), self.documents());
        let mut places = Vec::new();
        let Some(mut at) = start.checked_rem(tokens) else { return places };
        let mut place = 0usize;
        // The first document behind token `at`.
        let (mut low, mut high) = (0, documents);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.document_start(middle) <= at {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let mut document = low;
        loop {
            // The next one's first token, or the stream's first behind its last.
            let next = self.document_start(document);
            let step = usize::try_from(next - at.min(next)).unwrap_or(usize::MAX);
            let Some(reached) = place.checked_add(step).filter(|place| *place < count) else {
                return places;
            };
            // Documents without a token begin where the next one does.
            if step > 0 {
                places.push(reached);
            }
            place = reached;
            (at, document) = match document < documents {
                true => (next, document + 1),
                false => (0, u64::from(documents > 0)),
            };
        }
    }

    /// Whether documents are told apart: not where the source was a run of ids without end-of-text
    /// and without an index, which is cut into pieces of 2²⁰ ids. Looks at a few documents.
    pub fn knows_documents(&self) -> bool {
        const LOOKED_AT: u64 = 64;
        // Of which each got an end-of-text.
        let piece = LONGEST as u64 + 1;
        let looked_at = self.documents().min(LOOKED_AT);
        let pieces = (0..looked_at).filter(|i| self.document_tokens(*i) == piece).count() as u64;
        looked_at == 0 || 2 * pieces < looked_at
    }

    /// Checks that every id is below `vocab_size`. Reads the whole file, on all threads.
    ///
    /// # Errors
    /// [`DataError::IdBeyondVocabulary`] with the first id that is not, and its document.
    pub fn check_ids(&self, vocab_size: usize) -> Result<()> {
        let Some((at, id)) = self.0.stream.first_beyond(vocab_size) else { return Ok(()) };
        Err(DataError::IdBeyondVocabulary {
            path: self.path().to_owned(),
            document: self.0.document_of(at)?,
            id,
            vocab_size,
        })
    }

    /// The largest id, `None` for an empty shard. Reads the whole file, on all threads.
    pub fn max_id(&self) -> Option<u32> {
        self.0.stream.max_id()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::tokens::file::Documents;
    use crate::tokens::megatron_index;
    use proptest::prelude::*;

    fn write(dir: &Path, documents: &[Vec<u32>], token_type: TokenType) -> Shard {
        let stream = documents.concat();
        let bin: Vec<u8> = match token_type {
            TokenType::U16 => {
                stream.iter().flat_map(|token| (*token as u16).to_le_bytes()).collect()
            }
            _ => stream.iter().flat_map(|token| token.to_le_bytes()).collect(),
        };
        let lengths: Vec<i32> = documents.iter().map(|document| document.len() as i32).collect();
        std::fs::write(dir.join("train.bin"), bin).unwrap();
        std::fs::write(dir.join("train.idx"), megatron_index::encode(token_type, &lengths))
            .unwrap();
        let shard = Shard::open(&dir.join("train")).unwrap();
        assert_eq!(
            (shard.documents(), shard.tokens()),
            (documents.len() as u64, stream.len() as u64)
        );
        shard
    }

    fn corpus() -> impl Strategy<Value = (Vec<Vec<u32>>, TokenType)> {
        let of = |token_type, max: u32| {
            let document = prop::collection::vec(0..=max, 0..40);
            (prop::collection::vec(document, 0..12), Just(token_type))
        };
        prop_oneof![of(TokenType::U16, u32::from(u16::MAX)), of(TokenType::I32, i32::MAX as u32)]
    }

    proptest! {
        #[test]
        fn documents_round_trip((documents, token_type) in corpus()) {
            let folder = tempfile::tempdir().unwrap();
            let shard = write(folder.path(), &documents, token_type);
            let Documents::Index(index) = &shard.0.documents else { panic!("an index") };
            let bytes = documents.concat().len() * token_type.size();
            index.check(Path::new("train.bin"), bytes as u64).unwrap();
            for (i, document) in documents.iter().enumerate() {
                prop_assert_eq!(&shard.document(i as u64).unwrap(), document);
            }
            prop_assert!(shard.document(documents.len() as u64).is_err());
            prop_assert_eq!(shard.max_id(), documents.concat().into_iter().max());
        }

        #[test]
        fn reading_is_circular(
            (documents, token_type) in corpus(), start in 0..200u64, length in 0..300usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let shard = write(folder.path(), &documents, token_type);
            let stream = documents.concat();
            let mut found = vec![7; length];
            shard.read(start, &mut found);
            let expected: Vec<u32> = match stream.is_empty() {
                true => vec![7; length],
                false => stream.iter().cycle().skip(start as usize).take(length).copied().collect(),
            };
            prop_assert_eq!(found, expected);
        }
    }

    proptest! {
        #[test]
        fn documents_begin_where_the_index_says_anywhere_on_the_circle(
            (documents, token_type) in corpus(), start in 0..200u64, count in 0..300usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let shard = write(folder.path(), &documents, token_type);
            let mut begins = Vec::new();
            for (i, document) in documents.iter().enumerate() {
                prop_assert_eq!(shard.document_start(i as u64), begins.len() as u64);
                prop_assert_eq!(shard.document_tokens(i as u64), document.len() as u64);
                begins.extend((0..document.len()).map(|at| at == 0));
            }
            prop_assert_eq!(shard.document_start(documents.len() as u64), begins.len() as u64);
            prop_assert_eq!(shard.document_tokens(documents.len() as u64), 0);
            let circle = begins.iter().cycle().skip(start as usize).take(count).enumerate();
            let expected: Vec<usize> = match begins.is_empty() {
                true => Vec::new(),
                false => circle.skip(1).filter(|(_, begins)| **begins).map(|(at, _)| at).collect(),
            };
            prop_assert_eq!(shard.document_starts(start, count), expected);
        }
    }

    #[test]
    fn pieces_of_a_run_without_documents_are_known_for_what_they_are() {
        let of = |lengths: &[usize]| {
            let folder = tempfile::tempdir().unwrap();
            let documents: Vec<Vec<u32>> = lengths.iter().map(|len| vec![1; *len]).collect();
            write(folder.path(), &documents, TokenType::U16).knows_documents()
        };
        let piece = LONGEST + 1;
        assert!(!of(&[piece, piece, 5]));
        assert!(of(&[piece, 5, 7]) && of(&[piece - 1, piece - 1]) && of(&[]));
    }

    #[test]
    fn read_starts_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let shard = write(folder.path(), &[vec![1, 2, 3]], TokenType::U16);
        let mut out = [0; 4];
        // 2⁶⁴ − 1 is a multiple of 3.
        shard.read(u64::MAX, &mut out);
        assert_eq!(out, [1, 2, 3, 1]);
    }

    #[test]
    fn empty_shards_open() {
        let folder = tempfile::tempdir().unwrap();
        let shard = write(folder.path(), &[], TokenType::I32);
        assert_eq!((shard.tokens(), shard.documents(), shard.max_id()), (0, 0, None));
        shard.check_ids(0).unwrap();
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_found_with_their_document() {
        let folder = tempfile::tempdir().unwrap();
        let shard = write(folder.path(), &[vec![1, 2], vec![], vec![3, 99, 100]], TokenType::U16);
        shard.check_ids(101).unwrap();
        let error = shard.check_ids(99).unwrap_err().to_string();
        assert!(
            error.contains("train.bin, document 2: expected token ids below 99, found 99"),
            "{error}"
        );
        assert!(error.contains("hint: "), "{error}");
        // A negative id, which only a foreign writer makes.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.bin"), (-5i32).to_le_bytes()).unwrap();
        std::fs::write(folder.path().join("a.idx"), megatron_index::encode(TokenType::I32, &[1]))
            .unwrap();
        let shard = Shard::open(&folder.path().join("a.bin")).unwrap();
        let error = shard.check_ids(99).unwrap_err().to_string();
        assert!(error.contains("found -5"), "{error}");
        assert_eq!(shard.max_id(), Some(u32::MAX));
    }

    #[test]
    fn a_truncated_bin_is_an_error_with_both_lengths() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[vec![1, 2], vec![3]], TokenType::I32);
        let bin = folder.path().join("train.bin");
        let bytes = std::fs::read(&bin).unwrap();
        std::fs::write(&bin, &bytes[..7]).unwrap();
        let error = Shard::open(&folder.path().join("train.idx")).unwrap_err().to_string();
        assert!(
            error.contains("train.bin: expected 12 bytes, found 7: the file is truncated"),
            "{error}"
        );
        assert!(error.contains("cuvee prepare CONFIG"), "{error}");
        std::fs::write(&bin, [0; 13]).unwrap();
        let error = Shard::open(&folder.path().join("train")).unwrap_err().to_string();
        assert!(error.contains("longer than its index says"), "{error}");
    }
}
