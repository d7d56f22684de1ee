//! Megatron's `.idx`: where in the `.bin` each document's tokens stand.
//!
//! In: the bytes of an index. Out: counts, and the byte ranges of a document. The arrays start at
//! byte 34 and are not aligned, so each number is copied out. Opening costs the same at any size;
//! nothing is loaded. [`Index::check`] reads all of it once, for files that others have written.
//! All numbers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–8 | `MMIDIDX\0\0` |
//! | 9–16 | u64 version = 1 |
//! | 17 | u8 type code of a token |
//! | 18–25 | u64 S, sequences |
//! | 26–33 | u64 D, entries of the document index (documents + 1) |
//! | 34… | i32\[S\] lengths in tokens, i64\[S\] byte offsets, i64\[D\] document index |
//! | behind | maybe i8\[S\] modes |

use std::io::Write;
use std::path::{Path, PathBuf};

use cuvee_words::counted;

use super::mmap::MappedFile;
use crate::error::{DataError, Result};
use crate::token_type::TokenType;

/// The first nine bytes.
const MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
/// Bytes before the arrays.
const HEADER: usize = 34;

/// An opened index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    file: MappedFile,
    token_type: TokenType,
    sequences: usize,
    /// Entries of the document index: documents + 1.
    entries: usize,
}

impl Index {
    /// Opens an index and checks magic, version, type, counts and length.
    ///
    /// # Errors
    /// [`DataError::Index`] or [`DataError::Length`], with what was expected and found.
    pub(crate) fn open(path: &Path) -> Result<Index> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let wrong = |expected: &str, found: String| DataError::Index {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        if bytes.len() < HEADER {
            return Err(DataError::Length {
                path: path.to_owned(),
                expected: HEADER as u64,
                found: bytes.len() as u64,
            });
        }
        if &bytes[..9] != MAGIC {
            let found = format!("{:?}", String::from_utf8_lossy(&bytes[..9]));
            return Err(wrong("a Megatron index, which starts with \"MMIDIDX\\0\\0\"", found));
        }
        let version = read_u64(bytes, 9);
        if version != 1 {
            return Err(wrong("index version 1", format!("version {version}")));
        }
        let Some(token_type) = TokenType::from_code(bytes[17]) else {
            return Err(wrong(
                "an integer type code of a token (1, 2, 3, 4, 5 or 8)",
                format!("type code {}", bytes[17]),
            ));
        };
        let (sequences, entries) = (read_u64(bytes, 18), read_u64(bytes, 26));
        // Lengths, offsets and document index; checked, since a damaged count can be anything.
        let expected = sequences
            .checked_mul(12)
            .and_then(|arrays| entries.checked_mul(8)?.checked_add(arrays))
            .and_then(|arrays| arrays.checked_add(HEADER as u64))
            .filter(|expected| usize::try_from(*expected).is_ok());
        let Some(expected) = expected else {
            return Err(wrong(
                "counts that a file can hold",
                format!("{sequences} sequences and {entries} document entries"),
            ));
        };
        let found = bytes.len() as u64;
        if found != expected && Some(found) != expected.checked_add(sequences) {
            return Err(DataError::Length { path: path.to_owned(), expected, found });
        }
        if entries == 0 {
            return Err(wrong("a document index that starts with 0", "an empty one".to_owned()));
        }
        let (sequences, entries) = (sequences as usize, entries as usize);
        Ok(Index { path: path.to_owned(), file, token_type, sequences, entries })
    }

    pub(crate) fn token_type(&self) -> TokenType {
        self.token_type
    }

    pub(crate) fn sequences(&self) -> usize {
        self.sequences
    }

    pub(crate) fn documents(&self) -> usize {
        self.entries - 1
    }

    /// The byte range in the `.bin` of sequence `i`, which must be below
    /// [`sequences`](Self::sequences). Not yet compared with the `.bin`'s length.
    ///
    /// # Errors
    /// A negative length or offset.
    fn sequence(&self, i: usize) -> Result<std::ops::Range<u64>> {
        let bytes = self.file.bytes();
        let length = read_i32(bytes, HEADER + 4 * i);
        let offset = read_i64(bytes, HEADER + 4 * self.sequences + 8 * i);
        let range = u64::try_from(offset).ok().zip(u64::try_from(length).ok()).and_then(
            |(offset, length)| {
                let end = offset.checked_add(length * self.token_type.size() as u64)?;
                Some(offset..end)
            },
        );
        range.ok_or_else(|| DataError::Index {
            path: self.path.clone(),
            expected: format!("sequence {i} to lie in the .bin"),
            found: format!("{length} tokens at byte {offset}"),
        })
    }

    /// The byte ranges in the `.bin` of document `i`'s sequences.
    ///
    /// # Errors
    /// A document index that does not count up to the number of sequences; a negative length or
    /// offset.
    pub(crate) fn document(&self, i: usize) -> Result<Vec<std::ops::Range<u64>>> {
        let wrong = |expected: String, found: String| DataError::Index {
            path: self.path.clone(),
            expected,
            found,
        };
        if i >= self.documents() {
            return Err(wrong(
                format!("a document below {}", self.documents()),
                format!("document {i}"),
            ));
        }
        let bytes = self.file.bytes();
        let array = HEADER + 12 * self.sequences;
        let (start, end) = (read_i64(bytes, array + 8 * i), read_i64(bytes, array + 8 * i + 8));
        let inside = 0 <= start && start <= end && end as u64 <= self.sequences as u64;
        if !inside {
            return Err(wrong(
                format!("document {i} to hold some of the {} sequences", self.sequences),
                format!("sequences {start} to {end}"),
            ));
        }
        (start as usize..end as usize).map(|sequence| self.sequence(sequence)).collect()
    }

    /// The first token of document `i` in the `.bin`; behind the last document, the end of its
    /// `tokens`, which a damaged index is held to as well.
    pub(crate) fn first_token(&self, i: usize, tokens: u64) -> u64 {
        if i >= self.documents() {
            return tokens;
        }
        let bytes = self.file.bytes();
        let sequence = read_i64(bytes, HEADER + 12 * self.sequences + 8 * i);
        let sequence = usize::try_from(sequence).unwrap_or(usize::MAX);
        if sequence >= self.sequences {
            return tokens;
        }
        let offset = read_i64(bytes, HEADER + 4 * self.sequences + 8 * sequence);
        let first = u64::try_from(offset).unwrap_or(u64::MAX) / self.token_type.size() as u64;
        first.min(tokens)
    }

    /// The end of the last sequence, in bytes of the `.bin`.
    pub(crate) fn end(&self) -> Result<u64> {
        match self.sequences.checked_sub(1) {
            Some(last) => Ok(self.sequence(last)?.end),
            None => Ok(0),
        }
    }

    /// Checks that every token of the `.bin`, which has so many bytes, belongs to one document: the
    /// sequences fill it from its first byte in order, without gaps, and the documents hold all of
    /// them. Every writer known writes so. Reads the whole index once and keeps nothing of it.
    ///
    /// # Errors
    /// [`DataError::TokenFile`] with the first sequence or document that is not as it must be;
    /// [`DataError::Length`] for a `.bin` that ends elsewhere.
    pub(crate) fn check(&self, bin: &Path, bytes: u64) -> Result<()> {
        let end = self.check_sequences(bytes)?;
        if end != bytes {
            return Err(DataError::Length { path: bin.to_owned(), expected: end, found: bytes });
        }
        self.check_documents()
    }

    /// Where the last sequence ends, if all stand one behind another.
    fn check_sequences(&self, bin: u64) -> Result<u64> {
        const HINT: &str = "the index is damaged, or of another .bin; fetch or make both again";
        let arrays = self.file.bytes().get(HEADER..).unwrap_or_default();
        let (lengths, rest) = arrays.split_at_checked(4 * self.sequences).unwrap_or_default();
        let offsets = rest.as_chunks::<8>().0;
        let size = self.token_type.size() as u64;
        let mut end = 0u64;
        for (i, (length, offset)) in lengths.as_chunks::<4>().0.iter().zip(offsets).enumerate() {
            let (length, offset) = (i32::from_le_bytes(*length), i64::from_le_bytes(*offset));
            let Ok(tokens) = u64::try_from(length) else {
                let found = format!("a length of {length}");
                return Err(self.wrong(
                    format!("sequence {i} to have 0 tokens or more"),
                    found,
                    HINT,
                ));
            };
            if u64::try_from(offset).ok() != Some(end) {
                let expected =
                    format!("sequence {i} at byte {end} of the .bin, where the one before it ends");
                return Err(self.wrong(expected, self.misplaced(offset, tokens, end, bin), HINT));
            }
            end = end.saturating_add(tokens * size);
        }
        Ok(end)
    }

    /// What is wrong with a sequence that does not begin at `end`, in words.
    fn misplaced(&self, offset: i64, tokens: u64, end: u64, bin: u64) -> String {
        let size = self.token_type.size() as u64;
        let why = match u64::try_from(offset) {
            Err(_) => "before the file".to_owned(),
            Ok(at) if !at.is_multiple_of(size) => {
                format!("within a token: each takes {size} bytes")
            }
            Ok(at) if at.saturating_add(tokens * size) > bin => {
                let tokens = counted(tokens, "token");
                format!("so that its {tokens} would end beyond the file's {bin} bytes")
            }
            Ok(at) if at > end => "so that the bytes between belong to no sequence".to_owned(),
            Ok(_) => "among those of another sequence".to_owned(),
        };
        format!("byte {offset}, {why}")
    }

    /// Checks that the documents share out the sequences from the first to the last.
    fn check_documents(&self) -> Result<()> {
        const HINT: &str = "the document index is damaged, or was left as it was when files were merged; make \
                            the .idx again, or merge the files again with a newer Megatron";
        let array = self.file.bytes().get(HEADER + 12 * self.sequences..).unwrap_or_default();
        let entries = array.as_chunks::<8>().0.iter().take(self.entries);
        let mut last = 0;
        for (i, entry) in entries.enumerate() {
            let entry = i64::from_le_bytes(*entry);
            if i == 0 && entry != 0 {
                let expected = "the first document to begin at sequence 0".to_owned();
                return Err(self.wrong(expected, format!("sequence {entry}"), HINT));
            }
            if entry < last || entry.unsigned_abs() > self.sequences as u64 {
                let document = i.saturating_sub(1);
                return Err(self.wrong(
                    format!(
                        "document {document}, which begins at sequence {last}, to end there or later, at {} at most",
                        self.sequences
                    ),
                    format!("an end at sequence {entry}"),
                    HINT,
                ));
            }
            last = entry;
        }
        if last.unsigned_abs() != self.sequences as u64 {
            return Err(self.wrong(
                format!("documents that hold all of the {} sequences", self.sequences),
                format!("documents that end at sequence {last}: the rest belongs to none"),
                HINT,
            ));
        }
        Ok(())
    }

    fn wrong(&self, expected: String, found: String, hint: &str) -> DataError {
        DataError::TokenFile { path: self.path.clone(), expected, found, hint: hint.to_owned() }
    }

    /// The number of tokens of the longest document.
    ///
    /// # Errors
    /// As [`document`](Self::document).
    pub(crate) fn longest(&self) -> Result<u64> {
        let size = self.token_type.size() as u64;
        let mut longest = 0;
        for i in 0..self.documents() {
            let ranges = self.document(i)?;
            let bytes = ranges.iter().map(|range| range.end - range.start);
            longest = longest.max(bytes.fold(0, u64::saturating_add) / size);
        }
        Ok(longest)
    }
}

/// Pushes the lengths of documents in tokens into the sink it is given.
pub(crate) type Lengths<'a> = dyn Fn(&mut LengthSink<'_>) -> Result<()> + 'a;

/// The receiver of lengths.
pub(crate) type LengthSink<'a> = dyn FnMut(i32) -> Result<()> + 'a;

/// Writes the index of documents of one sequence each. `lengths` pushes their lengths in tokens,
/// `documents` of them, the same ones each of the two times that it is asked. Nothing is held in
/// memory.
///
/// # Errors
/// Those of `lengths` and of writing to `out`, which is the file at `path`;
/// [`DataError::Index`] for a token type that Megatron does not have.
pub(crate) fn write(
    out: &mut dyn Write,
    path: &Path,
    token_type: TokenType,
    documents: u64,
    lengths: &Lengths<'_>,
) -> Result<()> {
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(DataError::io("write", path));
    let code = token_type.code().ok_or_else(|| DataError::Index {
        path: path.to_owned(),
        expected: "a token type that Megatron has".to_owned(),
        found: token_type.name().to_owned(),
    })?;
    put(MAGIC)?;
    put(&1u64.to_le_bytes())?;
    put(&[code])?;
    put(&documents.to_le_bytes())?;
    put(&(documents + 1).to_le_bytes())?;
    lengths(&mut |length| put(&length.to_le_bytes()))?;
    let mut offset = 0i64;
    lengths(&mut |length| {
        put(&offset.to_le_bytes())?;
        offset += i64::from(length) * token_type.size() as i64;
        Ok(())
    })?;
    (0..=documents).try_for_each(|document| put(&document.to_le_bytes()))
}

/// The bytes that [`write`] writes for these lengths; nothing for a token type that Megatron does
/// not have.
#[cfg(test)]
pub(crate) fn encode(token_type: TokenType, lengths: &[i32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + lengths.len() * 20 + 8);
    let each = |sink: &mut LengthSink<'_>| lengths.iter().try_for_each(|l| sink(*l));
    // Writing into memory does not fail.
    let _ = write(&mut out, Path::new("memory"), token_type, lengths.len() as u64, &each);
    out
}

// The callers below have compared the length of `bytes` with what the counts ask for.

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn read_i64(bytes: &[u8], at: usize) -> i64 {
    read_u64(bytes, at) as i64
}

fn read_i32(bytes: &[u8], at: usize) -> i32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    i32::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Two documents of 3 and 1 tokens, u16, written out by hand from the table above.
    const GOLDEN: &[u8] = &[
        b'M', b'M', b'I', b'D', b'I', b'D', b'X', 0, 0, // magic
        1, 0, 0, 0, 0, 0, 0, 0, // version
        8, // u16
        2, 0, 0, 0, 0, 0, 0, 0, // sequences
        3, 0, 0, 0, 0, 0, 0, 0, // document entries
        3, 0, 0, 0, 1, 0, 0, 0, // lengths
        0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, // offsets
        0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, // documents
    ];

    fn open(bytes: &[u8]) -> Result<Index> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.idx");
        std::fs::write(&path, bytes).unwrap();
        Index::open(&path)
    }

    #[test]
    fn index_bytes_are_megatrons() {
        assert_eq!(encode(TokenType::U16, &[3, 1]), GOLDEN);
        let index = open(GOLDEN).unwrap();
        assert_eq!(index.token_type(), TokenType::U16);
        assert_eq!((index.sequences(), index.documents()), (2, 2));
        assert_eq!(index.document(0).unwrap(), vec![0..6]);
        assert_eq!(index.document(1).unwrap(), vec![6..8]);
        assert_eq!(index.end().unwrap(), 8);
        index.check(Path::new("a.bin"), 8).unwrap();
        assert_eq!(index.longest().unwrap(), 3);
        assert!(index.document(2).is_err());
    }

    #[test]
    fn modes_after_the_document_index_are_allowed() {
        let mut bytes = GOLDEN.to_vec();
        bytes.extend_from_slice(&[0, 0]);
        open(&bytes).unwrap();
    }

    #[test]
    fn every_truncation_is_an_error_with_both_lengths() {
        for length in 0..GOLDEN.len() {
            let error = open(&GOLDEN[..length]).unwrap_err().to_string();
            let expected = if length < 34 { 34 } else { GOLDEN.len() };
            assert!(
                error.contains(&format!("expected {expected} bytes, found {length}")),
                "{error}"
            );
            assert!(error.contains("truncated") && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn damaged_headers_are_named() {
        for (at, value, words) in [
            (0, b'X', "expected a Megatron index"),
            (9, 2, "expected index version 1, found version 2"),
            (17, 7, "type code 7"),
            (25, 0xff, "expected counts that a file can hold"),
            // One document fewer: eight bytes too many, where S modes would be two.
            (26, 2, "expected 74 bytes, found 82"),
        ] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn ranges_outside_are_errors() {
        // A negative length, a negative offset, a document that ends before it starts.
        for (at, value) in [(37, 0xff), (49, 0xff), (74, 3)] {
            let mut bytes = GOLDEN.to_vec();
            bytes[at] = value;
            let index = open(&bytes).unwrap();
            assert!(index.document(0).and(index.document(1)).is_err(), "byte {at}");
        }
    }

    /// An index of u16 with these arrays.
    fn index(lengths: &[i32], offsets: &[i64], documents: &[i64]) -> Index {
        let mut bytes = GOLDEN[..18].to_vec();
        bytes.extend((lengths.len() as u64).to_le_bytes());
        bytes.extend((documents.len() as u64).to_le_bytes());
        bytes.extend(lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(offsets.iter().chain(documents).flat_map(|number| number.to_le_bytes()));
        open(&bytes).unwrap()
    }

    #[test]
    fn every_token_belongs_to_one_document_or_the_index_is_refused() {
        for documents in [&[0, 1, 2, 3][..], &[0, 3], &[0, 0, 2, 2, 3, 3]] {
            index(&[3, 0, 1], &[0, 6, 6], documents).check(Path::new("a.bin"), 8).unwrap();
        }
        index(&[], &[], &[0]).check(Path::new("a.bin"), 0).unwrap();
        let refused = |lengths: &[i32], offsets: &[i64], documents: &[i64], words: &str| {
            let index = index(lengths, offsets, documents);
            let error = index.check(Path::new("a.bin"), 8).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("\nhint: "), "{words}: {error}");
        };
        let documents = |documents: &[i64], words| refused(&[3, 1], &[0, 6], documents, words);
        documents(&[0, 1], "all of the 2 sequences, found documents that end at sequence 1");
        documents(&[0], "documents that end at sequence 0");
        documents(&[1, 2], "begin at sequence 0, found sequence 1");
        documents(&[0, 2, 1, 2], "document 1, which begins at sequence 2");
        documents(&[0, 3], "found an end at sequence 3");
        documents(&[0, -1, 2], "found an end at sequence -1");
        let sequences = |lengths: &[i32], offsets: &[i64], words: &str| {
            refused(lengths, offsets, &[0, lengths.len() as i64], words);
        };
        sequences(&[3, -1], &[0, 6], "sequence 1 to have 0 tokens or more, found a length of -1");
        sequences(&[3, 1], &[0, 4], "byte 4, among those of another sequence");
        sequences(&[3, 1], &[2, 0], "sequence 0 at byte 0 of the .bin");
        sequences(&[2, 1], &[0, 6], "found byte 6, so that the bytes between belong to no");
        sequences(&[3, 1], &[0, 5], "found byte 5, within a token: each takes 2 bytes");
        sequences(&[3, 1], &[0, 8], "its 1 token would end beyond the file's 8 bytes");
        sequences(&[3, 1], &[0, -6], "found byte -6, before the file");
        sequences(&[3, i32::MAX, 1], &[0, 6, 8], "sequence 2 at byte 4294967300 of the .bin");
        sequences(&[3], &[0], "a.bin: expected 6 bytes, found 8: the file is longer than its");
        sequences(&[5], &[0], "a.bin: expected 10 bytes, found 8: the file is truncated");
    }
}
