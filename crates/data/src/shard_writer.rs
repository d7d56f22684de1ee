//! Writing one split: documents in, `.bin` and `.idx` out.
//!
//! Tokens are buffered and appended to a part file, which is opened only while a buffer is
//! written: a thousand domains at once need no thousand open files. Memory: one buffer, and four
//! bytes a document for the index, which is written at the end. Nothing carries its final name
//! before [`ShardWriter::publish`].

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};
use crate::index::{self, TokenType};
use crate::manifest::{SplitRecord, hex, sha256_hex};
use crate::split::Split;

/// Bytes gathered before a write. Times three splits times a thousand domains at most.
const BUFFER: usize = 128 << 10;

/// A split being written.
pub(crate) struct ShardWriter {
    dir: PathBuf,
    split: Split,
    token_type: TokenType,
    buffer: Vec<u8>,
    lengths: Vec<i32>,
    hash: Sha256,
    tokens: u64,
    bytes: u64,
}

impl ShardWriter {
    /// Begins an empty part file in `dir`, in place of one that a killed run may have left.
    pub(crate) fn create(dir: &Path, split: Split, token_type: TokenType) -> Result<ShardWriter> {
        let writer = ShardWriter {
            dir: dir.to_owned(),
            split,
            token_type,
            buffer: Vec::new(),
            lengths: Vec::new(),
            hash: Sha256::new(),
            tokens: 0,
            bytes: 0,
        };
        let part = writer.part("bin");
        File::create(&part).map_err(DataError::io("create", &part))?;
        Ok(writer)
    }

    /// Appends a document: its tokens, end-of-text included, and its text's length in bytes.
    ///
    /// Fails on more tokens than the index can count (2³¹ − 1) and on a full disk.
    pub(crate) fn push(&mut self, tokens: &[u32], bytes: u64) -> Result<()> {
        let length = i32::try_from(tokens.len()).map_err(|_| DataError::Index {
            path: self.name("idx"),
            expected: "documents of at most 2147483647 tokens".to_owned(),
            found: format!("one of {} tokens", tokens.len()),
        })?;
        self.lengths.push(length);
        self.tokens += tokens.len() as u64;
        self.bytes += bytes;
        // The type was chosen from the vocabulary's size, and ids are below it.
        match self.token_type {
            TokenType::U16 => {
                self.buffer.extend(tokens.iter().flat_map(|token| (*token as u16).to_le_bytes()));
            }
            _ => self.buffer.extend(tokens.iter().flat_map(|token| token.to_le_bytes())),
        }
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is buffered and the index, and syncs both, still under their part names.
    pub(crate) fn finish(mut self) -> Result<FinishedShard> {
        self.flush()?;
        let bin = self.part("bin");
        let sync = || OpenOptions::new().append(true).open(&bin)?.sync_all();
        sync().map_err(DataError::io("write", &bin))?;
        let index = index::encode(self.token_type, &self.lengths);
        let idx = self.part("idx");
        let write = || {
            let mut file = File::create(&idx)?;
            file.write_all(&index)?;
            file.sync_all()
        };
        write().map_err(DataError::io("write", &idx))?;
        let record = SplitRecord {
            documents: self.lengths.len() as u64,
            tokens: self.tokens,
            bytes: self.bytes,
            bin_sha256: hex(&self.hash.finalize()),
            idx_sha256: sha256_hex(&index),
        };
        Ok(FinishedShard { dir: self.dir, split: self.split, record })
    }

    /// Removes the part files that are in a folder.
    pub(crate) fn discard(dir: &Path) {
        for split in Split::ALL {
            for ending in ["bin", "idx"] {
                // One that is not there is as good.
                let _ = std::fs::remove_file(part(dir, split, ending));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = self.part("bin");
        let write = || OpenOptions::new().append(true).open(&part)?.write_all(&self.buffer);
        write().map_err(DataError::io("write", &part))?;
        self.hash.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }

    fn name(&self, ending: &str) -> PathBuf {
        name(&self.dir, self.split, ending)
    }

    fn part(&self, ending: &str) -> PathBuf {
        part(&self.dir, self.split, ending)
    }
}

/// A split that is written and synced, under its part names.
pub(crate) struct FinishedShard {
    dir: PathBuf,
    /// Which.
    pub(crate) split: Split,
    /// What it holds.
    pub(crate) record: SplitRecord,
}

impl FinishedShard {
    /// Gives both files their names.
    pub(crate) fn publish(self) -> Result<()> {
        for ending in ["bin", "idx"] {
            let to = name(&self.dir, self.split, ending);
            std::fs::rename(part(&self.dir, self.split, ending), &to).map_err(DataError::io("write", &to))?;
        }
        Ok(())
    }
}

fn name(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!("{split}.{ending}"))
}

fn part(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!(".{split}.{ending}.part"))
}
