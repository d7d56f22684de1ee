//! Files of documents that are tokenized already: what their formats have in common.
//!
//! In: a file of any of them, opened by its format as a [`TokenFile`]. Out: its documents, one
//! after another or by number. A format that has no index, as nanoGPT's, says nothing about
//! documents but by the end-of-text among its tokens: there a document ends behind each, and a run
//! of more than [`LONGEST`] tokens without one is cut, so that memory stays bounded whatever the
//! file. Memory: one document (of Megatron and datatrove, which know where each ends, as long as it
//! is).

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use super::megatron_index::Index;
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::token_type::TokenType;

/// Tokens of the longest document in a file without an index.
pub(crate) const LONGEST: usize = 1 << 20;
/// Tokens looked at in one go.
const BLOCK: usize = 1 << 16;

/// A tokenized format: a row of the table in `tokens/mod.rs`.
pub(crate) struct TokenFormat {
    /// Its name.
    pub(crate) format: Format,
    /// The endings that folders are searched for.
    pub(crate) endings: &'static [&'static str],
    /// Whether a file with such an ending is one: where several formats share an ending, the
    /// content tells, if it can.
    pub(crate) is_one: fn(&Path) -> bool,
    /// Opens a file, given the type of its ids where the config states it. Checks all that can be
    /// checked without reading the ids.
    pub(crate) open: fn(&Path, Option<TokenType>) -> Result<TokenFile>,
    /// How such files are written; `None` for a format that is only read.
    pub(crate) layout: Option<Layout>,
}

/// How a format lies on disk.
pub(crate) struct Layout {
    /// The ending of the file that holds the ids.
    pub(crate) ending: &'static str,
    /// Whether something other than end-of-text says where documents end.
    pub(crate) indexed: bool,
    /// How ids below this number are stored; `None` where they cannot be.
    pub(crate) token_type: fn(u64) -> Option<TokenType>,
    /// What stands before the ids, given their number: always as many bytes. `None` where it cannot
    /// be told.
    pub(crate) header: fn(u64, TokenType) -> Option<Vec<u8>>,
    /// The files beside it: their endings (in place of, or behind `ending`, see [`Beside`]) and
    /// what writes them.
    pub(crate) beside: &'static [Beside],
}

/// A file beside the one that holds the ids.
pub(crate) struct Beside {
    /// Its whole ending, as ".ds.index" where the other is called ".ds".
    pub(crate) ending: &'static str,
    /// Writes it; the path is for messages.
    pub(crate) write: fn(&mut dyn Write, &Path, &Written<'_>) -> Result<()>,
}

/// What has been written.
pub(crate) struct Written<'a> {
    pub(crate) token_type: TokenType,
    /// Of every document, in tokens.
    pub(crate) lengths: &'a [i32],
    pub(crate) tokens: u64,
    /// What the tokenizer is called.
    pub(crate) tokenizer: &'a str,
}

/// An opened file of ids.
#[derive(Debug)]
pub(crate) struct TokenFile {
    pub(crate) stream: TokenStream,
    pub(crate) documents: Documents,
    /// What the file says of its tokenizer.
    pub(crate) tokenizer: Option<String>,
}

/// What tells documents apart.
#[derive(Debug)]
pub(crate) enum Documents {
    /// Megatron's index.
    Index(Index),
    /// datatrove's: the end of each document in tokens, u64, checked to count up to the last token.
    Ends(MappedFile),
    /// Nothing but end-of-text.
    EndOfText,
}

/// Some tokens of a file: a document, as far as the file tells.
pub(crate) struct TokenRun {
    pub(crate) tokens: Vec<u32>,
    /// Its number, from 0.
    pub(crate) number: u64,
    /// Where in the file its first token stands.
    pub(crate) start: u64,
}

impl TokenFile {
    /// Documents, where the file counts them.
    pub(crate) fn documents(&self) -> Option<u64> {
        match &self.documents {
            Documents::Index(index) => Some(index.documents() as u64),
            Documents::Ends(ends) => Some((ends.bytes().len() / 8) as u64),
            Documents::EndOfText => None,
        }
    }

    /// The tokens of document `number`, from 0, as they stand in the file.
    ///
    /// # Errors
    /// There is no such document, its range does not lie in the file, or the file has no index.
    pub(crate) fn document(&self, number: u64) -> Result<Vec<u32>> {
        match &self.documents {
            Documents::Index(index) => self.indexed(index, number),
            Documents::Ends(ends) => {
                let ends = ends.bytes().as_chunks::<8>().0;
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                let end = |i: usize| ends.get(i).map(|end| u64::from_le_bytes(*end));
                // The ends were checked to count up to the last token.
                let start = number.checked_sub(1).map_or(Some(0), end);
                let (Some(start), Some(end)) = (start, end(number)) else {
                    return Err(self.no_document(number as u64, ends.len() as u64));
                };
                Ok(self.range(start, end))
            }
            Documents::EndOfText => Err(self.no_document(number, 0)),
        }
    }

    /// Tokens of the longest document; `None` where nothing but end-of-text ends them. Reads the
    /// index, and no token.
    ///
    /// # Errors
    /// A damaged index.
    pub(crate) fn longest(&self) -> Result<Option<u64>> {
        match &self.documents {
            Documents::Index(index) => index.longest().map(Some),
            Documents::Ends(ends) => {
                let ends = ends.bytes().as_chunks::<8>().0;
                let mut start = 0;
                let lengths = ends.iter().map(|end| {
                    let end = u64::from_le_bytes(*end);
                    end - std::mem::replace(&mut start, end)
                });
                Ok(Some(lengths.max().unwrap_or(0)))
            }
            Documents::EndOfText => Ok(None),
        }
    }

    /// The error for id `at` of a run, which a vocabulary of `vocab_size` does not have. The file's
    /// documents must lie in it in order.
    pub(crate) fn beyond(&self, run: &TokenRun, at: usize, vocab_size: usize) -> DataError {
        DataError::IdBeyondVocabulary {
            path: self.stream.path().to_owned(),
            document: run.number,
            id: self.stream.value(run.start + at as u64),
            vocab_size,
        }
    }

    fn no_document(&self, number: u64, documents: u64) -> DataError {
        DataError::TokenFile {
            path: self.stream.path().to_owned(),
            expected: format!("a document below {documents}, the number that its index tells of"),
            found: format!("document {number}"),
            hint: "files without an index are read from front to back".to_owned(),
        }
    }

    /// The tokens from `start` to `end`, which must lie in the file.
    fn range(&self, start: u64, end: u64) -> Vec<u32> {
        let mut tokens = vec![0; (end - start) as usize];
        self.stream.read(start, &mut tokens);
        tokens
    }

    /// The tokens of a document's sequences in Megatron's index.
    fn indexed(&self, index: &Index, number: u64) -> Result<Vec<u32>> {
        let (kind, bytes) = (self.stream.token_type(), self.stream.bytes());
        let mut tokens = Vec::new();
        for range in index.document(usize::try_from(number).unwrap_or(usize::MAX))? {
            let (start, end) = (range.start as usize, range.end as usize);
            let sequence = bytes.get(start..end).ok_or_else(|| DataError::Index {
                path: self.stream.path().with_extension("idx"),
                expected: format!(
                    "document {number} to lie in the .bin of {}",
                    cuvee_words::counted(bytes.len(), "byte")
                ),
                found: format!("bytes {start} to {end}"),
            })?;
            let before = tokens.len();
            tokens.resize(before + sequence.len() / kind.size(), 0);
            kind.widen(sequence, &mut tokens[before..]);
        }
        Ok(tokens)
    }

    /// Which document token `at` of the file belongs to, from 0; the first where nobody knows.
    /// Reads the index from its start.
    ///
    /// # Errors
    /// A damaged index.
    pub(crate) fn document_of(&self, at: u64) -> Result<u64> {
        let byte = at * self.stream.token_type().size() as u64;
        match &self.documents {
            Documents::Index(index) => {
                for number in 0..index.documents() {
                    if index.document(number)?.iter().any(|range| range.contains(&byte)) {
                        return Ok(number as u64);
                    }
                }
                Ok(0)
            }
            Documents::Ends(ends) => {
                let ends = ends.bytes().as_chunks::<8>().0;
                Ok(ends.partition_point(|end| u64::from_le_bytes(*end) <= at) as u64)
            }
            Documents::EndOfText => Ok(0),
        }
    }

    /// Visits all documents in order until `visit` breaks. Without an index and without
    /// `end_of_text` the runs are as long as is convenient.
    ///
    /// # Errors
    /// An index that points outside the file, and the errors of `visit`.
    pub(crate) fn visit(
        &self,
        end_of_text: Option<u32>,
        visit: &mut dyn FnMut(TokenRun) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(documents) = self.documents() else { return self.visit_runs(end_of_text, visit) };
        let mut start = 0;
        for number in 0..documents {
            let tokens = self.document(number)?;
            let next = start + tokens.len() as u64;
            if visit(TokenRun { tokens, number, start })?.is_break() {
                return Ok(());
            }
            start = next;
        }
        Ok(())
    }

    fn visit_runs(
        &self,
        end_of_text: Option<u32>,
        visit: &mut dyn FnMut(TokenRun) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let total = self.stream.tokens();
        let mut block = vec![0; BLOCK.min(total as usize)];
        let (mut at, mut number, mut start) = (0, 0, 0);
        let mut document = Vec::new();
        let mut push = |tokens: Vec<u32>| {
            let run = TokenRun { tokens, number, start };
            number += 1;
            start += run.tokens.len() as u64;
            visit(run)
        };
        while at < total {
            let count = block.len().min((total - at) as usize);
            self.stream.read(at, &mut block[..count]);
            at += count as u64;
            let mut rest = &block[..count];
            while !rest.is_empty() {
                let window = &rest[..rest.len().min(LONGEST - document.len())];
                let end = window.iter().position(|id| Some(*id) == end_of_text);
                let take = end.map_or(window.len(), |end| end + 1);
                document.extend_from_slice(&rest[..take]);
                rest = &rest[take..];
                let full = document.len() == LONGEST || end_of_text.is_none();
                if (end.is_some() || full) && push(std::mem::take(&mut document))?.is_break() {
                    return Ok(());
                }
            }
        }
        if !document.is_empty() {
            // Nothing comes after it, whatever the receiver answers.
            let _ = push(document)?;
        }
        Ok(())
    }
}

/// The type that a file's own header tells.
///
/// # Errors
/// The config states another one.
pub(super) fn agree(path: &Path, found: TokenType, stated: Option<TokenType>) -> Result<TokenType> {
    match stated {
        Some(stated) if stated != found => Err(DataError::TokenFile {
            path: path.to_owned(),
            expected: format!("tokens of type {}, as `token_type` says", stated.name()),
            found: format!("a header that says {}", found.name()),
            hint: "leave `token_type` out: this file tells its own".to_owned(),
        }),
        _ => Ok(found),
    }
}

/// Checks that ids fill the file, which has `bytes` from the first id to the end.
///
/// # Errors
/// Bytes are left over.
pub(super) fn check_whole(path: &Path, bytes: usize, kind: TokenType) -> Result<()> {
    if bytes.is_multiple_of(kind.size()) {
        return Ok(());
    }
    Err(DataError::TokenFile {
        path: path.to_owned(),
        expected: format!(
            "tokens of {} each ({})",
            cuvee_words::counted(kind.size(), "byte"),
            kind.name()
        ),
        found: format!(
            "{} of them, which leaves {} over",
            cuvee_words::counted(bytes, "byte"),
            bytes % kind.size()
        ),
        hint: "the file is truncated, or its tokens are of another type".to_owned(),
    })
}
