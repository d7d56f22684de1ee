//! The files of a part, to which is only appended until the part is done: tokens, lengths, and a
//! record of each document.
//!
//! In: bytes. Out: files that can be truncated to any length they had before, to go on from there.
//! They are opened only while a buffer is written, so a thousand domains at once need no thousand
//! open files. Memory: a buffer a file.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};

use crate::document::id::DocumentId;
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::hash::hex;

/// Bytes gathered before a write.
const BUFFER: usize = 256 << 10;

/// A file that is appended to.
pub(crate) struct Appended {
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes written to the file; the buffer comes on top.
    written: u64,
    /// Whether it was written to since it was last asked.
    dirty: bool,
}

impl Appended {
    fn new(path: PathBuf, written: u64) -> Appended {
        Appended { path, buffer: Vec::new(), written, dirty: false }
    }

    /// Truncates a file to its first `length` bytes, to go on behind them.
    ///
    /// # Errors
    /// The file is shorter.
    fn cut_back(path: PathBuf, length: u64) -> Result<Appended> {
        if length > 0 || path.exists() {
            let found = std::fs::metadata(&path).map_err(DataError::io("read", &path))?.len();
            if found < length {
                return Err(DataError::Length { path, expected: length, found });
            }
            let cut = || OpenOptions::new().write(true).open(&path)?.set_len(length);
            cut().map_err(DataError::io("write", &path))?;
        }
        Ok(Appended::new(path, length))
    }

    /// Whether the buffer is full.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() >= BUFFER
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let write = || {
            OpenOptions::new().append(true).create(true).open(&self.path)?.write_all(&self.buffer)
        };
        write().map_err(DataError::io("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.dirty = true;
        // Freed, not kept: there may be thousands.
        self.buffer = Vec::new();
        Ok(())
    }

    /// The path, where the file was written to since this was last asked.
    fn take_dirty(&mut self) -> Option<PathBuf> {
        std::mem::take(&mut self.dirty).then(|| self.path.clone())
    }
}

/// What is written of one split of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamRecord {
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
    /// Of the documents' texts.
    pub(crate) bytes: u64,
    /// The state of the SHA-256 of the tokens, in hexadecimal; empty before the first.
    hash: String,
}

impl StreamRecord {
    /// The SHA-256 of the tokens; `None` where the record of it was damaged.
    pub(crate) fn sha256(&self) -> Option<String> {
        Some(hex(&restore(&self.hash)?.finalize()))
    }
}

fn restore(state: &str) -> Option<Sha256> {
    if state.is_empty() {
        return Some(Sha256::new());
    }
    let bytes: Option<Vec<u8>> = (0..state.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(state.get(at..at + 2)?, 16).ok())
        .collect();
    let state = SerializedState::<Sha256>::try_from(bytes?.as_slice()).ok()?;
    Sha256::deserialize(&state).ok()
}

/// The names of a stream's files in the folder of a part: tokens, and lengths in tokens (4 bytes
/// each).
pub(crate) fn stream_files(part: &Path, domain: usize, split: Split) -> [PathBuf; 2] {
    ["bin", "lengths"].map(|ending| part.join(format!("{domain}.{split}.{ending}")))
}

/// One split of one domain, being written.
pub(crate) struct StreamWriter {
    bin: Appended,
    lengths: Appended,
    hash: Sha256,
    documents: u64,
    tokens: u64,
    bytes: u64,
}

impl StreamWriter {
    pub(crate) fn new(part: &Path, domain: usize, split: Split) -> StreamWriter {
        let [bin, lengths] = stream_files(part, domain, split).map(|path| Appended::new(path, 0));
        StreamWriter { bin, lengths, hash: Sha256::new(), documents: 0, tokens: 0, bytes: 0 }
    }

    /// Goes on where `record` was made. `size` is that of a token.
    ///
    /// # Errors
    /// A file is shorter than the record says, or the record is damaged.
    pub(crate) fn resume(
        part: &Path,
        domain: usize,
        split: Split,
        record: &StreamRecord,
        size: u64,
    ) -> Result<StreamWriter> {
        let [bin, lengths] = stream_files(part, domain, split);
        let damaged = || DataError::Manifest {
            path: part.to_owned(),
            message: "the record of how far it is is damaged".to_owned(),
        };
        let hash = restore(&record.hash).ok_or_else(damaged)?;
        let [of_bin, of_lengths] = [(record.tokens, size), (record.documents, 4)]
            .map(|(count, size)| count.checked_mul(size));
        Ok(StreamWriter {
            bin: Appended::cut_back(bin, of_bin.ok_or_else(damaged)?)?,
            lengths: Appended::cut_back(lengths, of_lengths.ok_or_else(damaged)?)?,
            hash,
            documents: record.documents,
            tokens: record.tokens,
            bytes: record.bytes,
        })
    }

    /// Appends a document: its tokens as they will stand, their number, and its text's length.
    pub(crate) fn push(&mut self, tokens: &[u8], count: u32, bytes: u64) -> Result<()> {
        self.documents += 1;
        self.tokens += u64::from(count);
        self.bytes += bytes;
        let full = [self.bin.push(tokens), self.lengths.push(&count.to_le_bytes())];
        if full[0] {
            self.flush_bin()?;
        }
        if full[1] {
            self.lengths.flush()?;
        }
        Ok(())
    }

    fn flush_bin(&mut self) -> Result<()> {
        self.hash.update(&self.bin.buffer);
        self.bin.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.flush_bin()?;
        self.lengths.flush()
    }

    /// What was pushed so far, which must be flushed.
    pub(crate) fn record(&self) -> StreamRecord {
        let hash = if self.tokens == 0 { String::new() } else { hex(&self.hash.serialize()) };
        StreamRecord { documents: self.documents, tokens: self.tokens, bytes: self.bytes, hash }
    }

    /// The files written to since this was last asked.
    pub(crate) fn take_dirty(&mut self) -> impl Iterator<Item = PathBuf> {
        self.bin.take_dirty().into_iter().chain(self.lengths.take_dirty())
    }

    /// Bytes on disk.
    pub(crate) fn written(&self) -> u64 {
        self.bin.written + self.lengths.written
    }

    /// Bytes that are still in the buffers.
    pub(crate) fn waiting(&self) -> u64 {
        (self.bin.buffer.len() + self.lengths.buffer.len()) as u64
    }
}

/// What is recorded of each document that is kept, where duplicates are left out: enough to know it
/// again, and to leave it out later where it turns out that another part has it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentRecord {
    pub(crate) id: DocumentId,
    /// Of its text.
    pub(crate) bytes: u64,
    pub(crate) tokens: u32,
    /// The number of its domain within the part.
    pub(crate) domain: u16,
    pub(crate) split: Split,
    pub(crate) replaced: bool,
    pub(crate) cr_stripped: bool,
    pub(crate) normalized: bool,
    pub(crate) end_of_text_within: bool,
}

impl DocumentRecord {
    const SIZE: usize = 32;

    fn to_bytes(self) -> [u8; DocumentRecord::SIZE] {
        let mut out = [0; DocumentRecord::SIZE];
        out[..16].copy_from_slice(&self.id.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.tokens.to_le_bytes());
        out[28..30].copy_from_slice(&self.domain.to_le_bytes());
        out[30] = self.split.number() as u8;
        out[31] = u8::from(self.replaced)
            | u8::from(self.cr_stripped) << 1
            | u8::from(self.normalized) << 2
            | u8::from(self.end_of_text_within) << 3;
        out
    }

    fn from_bytes(bytes: &[u8; DocumentRecord::SIZE]) -> DocumentRecord {
        // The lengths are those of the ranges.
        let number = |at: usize, size: usize| {
            bytes[at..at + size].iter().rev().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte))
        };
        DocumentRecord {
            id: DocumentId(number(0, 16)),
            bytes: number(16, 8) as u64,
            tokens: number(24, 4) as u32,
            domain: number(28, 2) as u16,
            split: Split::ALL[usize::from(bytes[30]).min(2)],
            replaced: bytes[31] & 1 != 0,
            cr_stripped: bytes[31] & 2 != 0,
            normalized: bytes[31] & 4 != 0,
            end_of_text_within: bytes[31] & 8 != 0,
        }
    }
}

/// Bytes on disk of a document record.
pub(crate) const RECORD_BYTES: u64 = DocumentRecord::SIZE as u64;

/// The file of the document records.
pub(crate) fn records_file(part: &Path) -> PathBuf {
    part.join("documents")
}

/// The document records, being written.
pub(crate) struct RecordWriter(Appended);

impl RecordWriter {
    pub(crate) fn new(part: &Path) -> RecordWriter {
        RecordWriter(Appended::new(records_file(part), 0))
    }

    /// Goes on behind the first `count`.
    pub(crate) fn resume(part: &Path, count: u64) -> Result<RecordWriter> {
        let length = count.saturating_mul(DocumentRecord::SIZE as u64);
        Ok(RecordWriter(Appended::cut_back(records_file(part), length)?))
    }

    pub(crate) fn push(&mut self, record: DocumentRecord) -> Result<()> {
        if self.0.push(&record.to_bytes()) { self.0.flush() } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }

    /// How many there are, all flushed.
    pub(crate) fn count(&self) -> u64 {
        self.0.written / DocumentRecord::SIZE as u64
    }

    pub(crate) fn take_dirty(&mut self) -> Option<PathBuf> {
        self.0.take_dirty()
    }

    pub(crate) fn written(&self) -> u64 {
        self.0.written
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.0.buffer.len() as u64
    }
}

/// Reads the first `count` document records of a part.
///
/// # Errors
/// The file is shorter; those of `sink`.
pub(crate) fn read_records(
    part: &Path,
    count: u64,
    mut sink: impl FnMut(DocumentRecord) -> Result<()>,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let path = records_file(part);
    let mut reader =
        BufReader::with_capacity(1 << 20, File::open(&path).map_err(DataError::io("open", &path))?);
    let mut bytes = [0; DocumentRecord::SIZE];
    for _ in 0..count {
        reader.read_exact(&mut bytes).map_err(DataError::io("read", &path))?;
        sink(DocumentRecord::from_bytes(&bytes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_goes_on_where_a_record_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let push = |stream: &mut StreamWriter, range: std::ops::Range<u32>| {
            for i in range {
                let tokens: Vec<u8> = (0..i % 50).flat_map(|t| (t as u16).to_le_bytes()).collect();
                stream.push(&tokens, i % 50, 7).unwrap();
            }
            stream.flush().unwrap();
            stream.record()
        };
        let mut whole = StreamWriter::new(folder.path(), 0, Split::Train);
        let expected = push(&mut whole, 0..9_000);
        let mut first = StreamWriter::new(folder.path(), 1, Split::Train);
        let record = push(&mut first, 0..4_321);
        // What was written after the record is dropped.
        push(&mut first, 0..500);
        let mut second = StreamWriter::resume(folder.path(), 1, Split::Train, &record, 2).unwrap();
        assert_eq!(push(&mut second, 4_321..9_000), expected);
        for (a, b) in stream_files(folder.path(), 0, Split::Train).iter().zip(stream_files(
            folder.path(),
            1,
            Split::Train,
        )) {
            assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        }
        let bin = std::fs::read(&stream_files(folder.path(), 0, Split::Train)[0]).unwrap();
        assert_eq!(expected.sha256().unwrap(), crate::hash::sha256_hex(&bin));
        // A file that lost its end cannot be gone on with.
        std::fs::write(&stream_files(folder.path(), 1, Split::Train)[1], b"short").unwrap();
        assert!(StreamWriter::resume(folder.path(), 1, Split::Train, &record, 2).is_err());
    }

    proptest! {
        #[test]
        fn records_read_back(id in any::<u128>(), bytes in any::<u64>(), tokens in any::<u32>(), domain in any::<u16>(), split in 0usize..3, flags in any::<[bool; 4]>()) {
            let record = DocumentRecord { id: DocumentId(id), bytes, tokens, domain, split: Split::ALL[split], replaced: flags[0], cr_stripped: flags[1], normalized: flags[2], end_of_text_within: flags[3] };
            prop_assert_eq!(DocumentRecord::from_bytes(&record.to_bytes()), record);
        }
    }
}
