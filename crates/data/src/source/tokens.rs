//! Files of documents that are tokenized already: what their formats have in common.
//!
//! In: a file of any of them, opened by its format as a [`TokenFile`]. Out: its documents, one
//! after another, their ids checked against the vocabulary. A format that has no index, as
//! nanoGPT's, says nothing about documents but by the end-of-text among its tokens: there a
//! document ends behind each, and a stretch of more than [`LONGEST`] tokens without one is cut, so
//! that memory stays bounded whatever the file. Memory: one document (of Megatron and datatrove,
//! which know where each ends, as long as it is).

use std::io::{self, Write};
use std::path::Path;

use super::{Content, Document, Flow, Item, Reading, Sink, SourceFile};
use crate::error::{DataError, Result};
use crate::index::{Index, TokenType};
use crate::mmap::MappedFile;
use crate::stream::TokenStream;

/// Tokens of the longest document in a file without an index.
pub(crate) const LONGEST: usize = 1 << 20;
/// Tokens looked at in one go.
const BLOCK: usize = 1 << 16;

/// What a tokenized format can do.
pub(crate) struct TokenFormat {
    /// Opens a file, given the type of its ids if somebody said. Checks all that can be checked
    /// without reading the ids.
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
    /// Writes it, given the lengths of all documents in tokens.
    pub(crate) write: fn(&mut dyn Write, &Written<'_>) -> io::Result<()>,
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

/// Some tokens of a file.
pub(crate) struct Piece {
    pub(crate) tokens: Vec<u32>,
    /// Its number, from 0.
    pub(crate) number: u64,
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

    /// Visits all documents in order until `visit` says otherwise. Without an index and without
    /// `end_of_text` the pieces are as long as is convenient.
    ///
    /// Fails where an index points outside the file, and with the errors of `visit`.
    pub(crate) fn visit(
        &self,
        end_of_text: Option<u32>,
        visit: &mut dyn FnMut(Piece) -> Result<Flow>,
    ) -> Result<()> {
        match &self.documents {
            Documents::Index(index) => self.visit_index(index, visit),
            Documents::Ends(ends) => self.visit_ends(ends, visit),
            Documents::EndOfText => self.visit_runs(end_of_text, visit),
        }
    }

    fn visit_index(
        &self,
        index: &Index,
        visit: &mut dyn FnMut(Piece) -> Result<Flow>,
    ) -> Result<()> {
        let kind = self.stream.token_type();
        for number in 0..index.documents() {
            let mut tokens = Vec::new();
            for range in index.document(number)? {
                let bytes = self.stream.bytes().get(range.start as usize..range.end as usize);
                let bytes = bytes.ok_or_else(|| DataError::Index {
                    path: self.stream.path().with_extension("idx"),
                    expected: format!(
                        "document {number} to lie in the .bin of {} bytes",
                        self.stream.bytes().len()
                    ),
                    found: format!("bytes {} to {}", range.start, range.end),
                })?;
                let before = tokens.len();
                tokens.resize(before + bytes.len() / kind.size(), 0);
                kind.widen(bytes, &mut tokens[before..]);
            }
            if visit(Piece { tokens, number: number as u64 })? == Flow::NextFile {
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit_ends(
        &self,
        ends: &MappedFile,
        visit: &mut dyn FnMut(Piece) -> Result<Flow>,
    ) -> Result<()> {
        let mut start = 0;
        for (number, end) in ends.bytes().as_chunks::<8>().0.iter().enumerate() {
            let end = u64::from_le_bytes(*end);
            let mut tokens = vec![0; (end - start) as usize];
            self.stream.read(start, &mut tokens);
            start = end;
            if visit(Piece { tokens, number: number as u64 })? == Flow::NextFile {
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit_runs(
        &self,
        end_of_text: Option<u32>,
        visit: &mut dyn FnMut(Piece) -> Result<Flow>,
    ) -> Result<()> {
        let total = self.stream.tokens();
        let mut block = vec![0; BLOCK.min(total as usize)];
        let (mut at, mut number) = (0, 0);
        let mut document = Vec::new();
        let mut push = |tokens: Vec<u32>| {
            number += 1;
            visit(Piece { tokens, number: number - 1 })
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
                if (end.is_some() || full) && push(std::mem::take(&mut document))? == Flow::NextFile
                {
                    return Ok(());
                }
            }
        }
        if !document.is_empty() {
            push(document)?;
        }
        Ok(())
    }
}

/// The reader of every tokenized format.
pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
    let Some(tokenizer) = reading.tokenizer else {
        return Err(DataError::Spec {
            key: "tokenizer".to_owned(),
            expected: format!("the tokenizer that made {}", file.path.display()),
            found: "one to be trained".to_owned(),
            hint: "name its tokenizer.json with `file` under [tokenizer]".to_owned(),
        });
    };
    super::megatron::check_maker(file, tokenizer.fingerprint())?;
    let opened = file.format.open(&file.path, reading.source.spec.token_type)?;
    let (total, vocab_size) = (opened.stream.tokens(), tokenizer.vocab_size());
    let (mut done, mut told) = (0, 0);
    opened.visit(Some(tokenizer.end_of_text()), &mut |piece| {
        if let Some(at) = piece.tokens.iter().position(|id| *id as usize >= vocab_size) {
            return Err(DataError::IdBeyondVocabulary {
                path: opened.stream.path().to_owned(),
                document: piece.number,
                id: opened.stream.value(done + at as u64),
                vocab_size,
            });
        }
        done += piece.tokens.len() as u64;
        // The file's bytes, spread evenly over its tokens; the product needs the wide type.
        let now = (u128::from(file.bytes) * u128::from(done) / u128::from(total.max(1))) as u64;
        (reading.advance)(now - told);
        told = now;
        let (unit, domain) = reading.keys(file, &mut |column| Ok(column.to_owned()))?;
        let content = Content::Tokens(piece.tokens);
        sink(Item::Document(Document { content, unit, domain, replaced: false }))
    })
}

/// The type that a file's own header tells, which what somebody said must not contradict.
pub(super) fn agree(path: &Path, found: TokenType, said: Option<TokenType>) -> Result<TokenType> {
    match said {
        Some(said) if said != found => Err(DataError::TokenFile {
            path: path.to_owned(),
            expected: format!("tokens of type {}, as `token_type` says", said.name()),
            found: format!("a header that says {}", found.name()),
            hint: "leave `token_type` out: this file tells its own".to_owned(),
        }),
        _ => Ok(found),
    }
}

/// That the ids fill the file: `bytes` from the first id to the end.
pub(super) fn check_whole(path: &Path, bytes: usize, kind: TokenType) -> Result<()> {
    if bytes.is_multiple_of(kind.size()) {
        return Ok(());
    }
    Err(DataError::TokenFile {
        path: path.to_owned(),
        expected: format!("tokens of {} bytes each ({})", kind.size(), kind.name()),
        found: format!("{bytes} bytes of them, which leaves {} over", bytes % kind.size()),
        hint: "the file is truncated, or its tokens are of another type".to_owned(),
    })
}
