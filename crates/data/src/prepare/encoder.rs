//! From documents to tokens: the work that runs on all threads.
//!
//! In: a [`Chunk`]. Out: an [`EncodedChunk`]: what is known of each of its documents, in order, and
//! the bytes of their tokens. A pure function of the chunk, apart from one shortcut: a document
//! that is known to have come before is not tokenized. Whether it counts is decided later, where
//! documents are in order.

use std::ops::ControlFlow;

use super::dedup::DedupSet;
use crate::document::cleaning::{Changes, Cleaning, Verdict};
use crate::document::corrupt;
use crate::document::id::DocumentId;
use crate::document::invalid::Skips;
use crate::document::split::Split;
use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::source::chunk::Chunk;
use crate::source::reading::Item;
use crate::spec::SplitSpec;
use crate::spec::corrupt::CorruptSpec;
use crate::token_type::TokenType;
use crate::tokenizer::Tokenizer;

/// What it takes to make tokens of documents.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub(crate) cleaning: Cleaning,
    pub(crate) corrupt: Option<CorruptSpec>,
    pub(crate) splits: SplitSpec,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) token_type: TokenType,
    /// The documents so far, where duplicates are left out.
    pub(crate) known: Option<&'a DedupSet>,
}

/// A document, encoded.
pub(crate) struct EncodedDocument {
    pub(crate) id: DocumentId,
    /// The value of `domain_by`.
    pub(crate) domain: Option<String>,
    pub(crate) verdict: Verdict,
    pub(crate) changes: Changes,
    /// Whether U+FFFD stands in it for invalid bytes.
    pub(crate) replaced: bool,
    /// Whether its text spells the end-of-text anywhere but at its end.
    pub(crate) end_of_text_within: bool,
    pub(crate) split: Split,
    /// Its length as it was read, which a limit goes by: bytes of text, or four a token.
    pub(crate) length: u64,
    /// Invalid documents left out by the reader since the one before it, if there were any.
    pub(crate) skipped: Option<Box<Skips>>,
    /// Bytes of its text.
    pub(crate) bytes: u64,
    /// Its tokens, end-of-text included; 0 where it is left out.
    pub(crate) tokens: u32,
}

/// A chunk, encoded.
#[derive(Default)]
pub(crate) struct EncodedChunk {
    pub(crate) documents: Vec<EncodedDocument>,
    /// The tokens of all documents that are kept, as they will stand in a `.bin`.
    pub(crate) tokens: Vec<u8>,
    /// Invalid documents left out by the reader behind the last, if there were any.
    pub(crate) skipped: Option<Box<Skips>>,
    /// What ended the chunk early.
    pub(crate) error: Option<DataError>,
}

impl Encoder<'_> {
    /// Encodes a chunk up to its end, or up to where it cannot be read or the tokenizer cannot
    /// encode a text. `ids` is a buffer for one document's, reused from chunk to chunk.
    pub(crate) fn encode(&self, chunk: Chunk<'_>, ids: &mut Vec<u32>) -> EncodedChunk {
        let mut encoded = EncodedChunk::default();
        // Two bytes a token, at four bytes of text each, and some more.
        encoded.tokens.reserve(chunk.bytes * 5 / 8);
        let result = (chunk.parse)(&mut |item| {
            match item {
                Item::Skipped(fault) => encoded.skipped.get_or_insert_default().push(fault),
                Item::Document(document) => {
                    let mut made = self.document(document, ids, &mut encoded.tokens)?;
                    made.skipped = encoded.skipped.take();
                    encoded.documents.push(made);
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        encoded.error = result.err();
        encoded
    }

    fn document(
        &self,
        document: Document,
        ids: &mut Vec<u32>,
        out: &mut Vec<u8>,
    ) -> Result<EncodedDocument> {
        let end = self.tokenizer.end_of_text();
        let length = document.content.length();
        let (mut text, tokens) = match document.content {
            Content::Text(text) => (text, None),
            Content::Tokens(tokens) => {
                let text = tokens.strip_suffix(&[end]).unwrap_or(&tokens);
                (self.tokenizer.decode(text), Some(tokens))
            }
        };
        let (verdict, changes) = self.cleaning.apply(&mut text);
        let id = DocumentId::of(&text);
        let mut made = EncodedDocument {
            id,
            domain: document.domain,
            verdict,
            changes,
            replaced: document.replaced,
            end_of_text_within: false,
            split: self.splits.of(id, document.unit.as_deref()),
            length,
            skipped: None,
            bytes: text.len() as u64,
            tokens: 0,
        };
        if verdict != Verdict::Kept || self.known.is_some_and(|known| known.contains(id)) {
            return Ok(made);
        }
        let tokens = match &tokens {
            // Tokenized documents end with it.
            Some(tokens) => tokens.strip_suffix(&[end]).unwrap_or(tokens.as_slice()),
            None => {
                ids.clear();
                self.tokenizer.encode_to(&text, ids)?;
                if !ids.is_empty() && ids.iter().all(|id| *id == end) {
                    // Its text is the end-of-text alone, spelled out.
                    made.verdict = Verdict::Empty;
                    return Ok(made);
                }
                // A text may end with it, too.
                let tokens = ids.strip_suffix(&[end]).unwrap_or(ids.as_slice());
                made.end_of_text_within = tokens.contains(&end);
                tokens
            }
        };
        made.tokens = u32::try_from(tokens.len() + 1)
            .ok()
            .filter(|count| *count <= i32::MAX as u32)
            .ok_or_else(|| DataError::Tokenizer {
                origin: self.tokenizer.fingerprint().to_owned(),
                message: format!(
                    "expected documents of at most 2147483647 tokens, found one of {}",
                    tokens.len()
                ),
                hint: "cut the document into several".to_owned(),
            })?;
        match self.corrupt.filter(|_| made.split != Split::Valid) {
            Some(spec) => {
                let mut tokens = tokens.to_vec();
                corrupt::damage(&spec, &mut tokens, id);
                self.write(&tokens, out);
            }
            None => self.write(tokens, out),
        }
        self.write(&[end], out);
        Ok(made)
    }

    fn write(&self, tokens: &[u32], out: &mut Vec<u8>) {
        let (start, size) = (out.len(), self.token_type.size());
        out.resize(start + size * tokens.len(), 0);
        let out = &mut out[start..];
        match self.token_type {
            // The type was chosen from the vocabulary's size, and ids are below it.
            TokenType::U16 => {
                let places = out.as_chunks_mut::<2>().0;
                places
                    .iter_mut()
                    .zip(tokens)
                    .for_each(|(place, token)| *place = (*token as u16).to_le_bytes());
            }
            _ => {
                let places = out.as_chunks_mut::<4>().0;
                places
                    .iter_mut()
                    .zip(tokens)
                    .for_each(|(place, token)| *place = token.to_le_bytes());
            }
        }
    }
}
