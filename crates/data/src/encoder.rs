//! What becomes of one document, and of a piece of a file: the work that runs on all threads.
//!
//! In: a [`Piece`]. Out: an [`Encoded`] piece: what is known of each of its documents, in order,
//! and the bytes of their tokens. A pure function of the piece, apart from one shortcut: a document
//! that is known to have come before is not tokenized. Whether it counts is decided later, where
//! documents are in order.

use crate::cleaning::{Changes, Fate};
use crate::error::{DataError, Result};
use crate::index::TokenType;
use crate::seen::Seen;
use crate::source::piece::Piece;
use crate::source::{Content, Document, Flow, Item, Source};
use crate::spec::SplitSpec;
use crate::split::{DocumentId, Split};
use crate::tokenizer::Tokenizer;

/// Makes tokens of documents.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub(crate) source: &'a Source,
    pub(crate) splits: &'a SplitSpec,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) token_type: TokenType,
    /// The documents so far, where duplicates are left out.
    pub(crate) seen: Option<&'a Seen>,
}

/// A document, encoded.
pub(crate) struct Made {
    pub(crate) id: DocumentId,
    /// The value of `domain_by`.
    pub(crate) domain: Option<String>,
    pub(crate) fate: Fate,
    pub(crate) changes: Changes,
    /// Whether U+FFFD stands in it for invalid bytes.
    pub(crate) replaced: bool,
    pub(crate) split: Split,
    /// Its length as it was read, which a limit goes by: bytes of text, or four a token.
    pub(crate) length: u64,
    /// Invalid documents left out by the reader since the one before it.
    pub(crate) skipped: u64,
    /// Bytes of its text.
    pub(crate) bytes: u64,
    /// Its tokens, end-of-text included; 0 where it is left out.
    pub(crate) tokens: u32,
}

/// A piece, encoded.
#[derive(Default)]
pub(crate) struct Encoded {
    pub(crate) documents: Vec<Made>,
    /// The tokens of all documents that are kept, as they will stand in a `.bin`.
    pub(crate) tokens: Vec<u8>,
    /// Invalid documents left out by the reader behind the last.
    pub(crate) skipped: u64,
    /// What ended the piece early.
    pub(crate) error: Option<DataError>,
}

impl Encoder<'_> {
    /// Encodes a piece up to its end, or up to where it cannot be read or the tokenizer cannot
    /// encode a text. `ids` is room for one document's, reused from piece to piece.
    pub(crate) fn encode(&self, piece: Piece<'_>, ids: &mut Vec<u32>) -> Encoded {
        let mut encoded = Encoded::default();
        // Two bytes a token, at four bytes of text each, and some more.
        encoded.tokens.reserve(piece.bytes * 5 / 8);
        let result = (piece.parse)(&mut |item| {
            match item {
                Item::Skipped => encoded.skipped += 1,
                Item::Document(document) => {
                    let mut made = self.document(document, ids, &mut encoded.tokens)?;
                    made.skipped = std::mem::take(&mut encoded.skipped);
                    encoded.documents.push(made);
                }
            }
            Ok(Flow::Continue)
        });
        encoded.error = result.err();
        encoded
    }

    fn document(&self, document: Document, ids: &mut Vec<u32>, out: &mut Vec<u8>) -> Result<Made> {
        let end = self.tokenizer.end_of_text();
        let length = document.content.length();
        let (mut text, tokens) = match document.content {
            Content::Text(text) => (text, None),
            Content::Tokens(tokens) => {
                let text = tokens.strip_suffix(&[end]).unwrap_or(&tokens);
                (self.tokenizer.decode(text), Some(tokens))
            }
        };
        let (fate, changes) = self.source.cleaning.apply(&mut text);
        let id = DocumentId::of(&text);
        let mut made = Made {
            id,
            domain: document.domain,
            fate,
            changes,
            replaced: document.replaced,
            split: self.splits.of(id, document.unit.as_deref()),
            length,
            skipped: 0,
            bytes: text.len() as u64,
            tokens: 0,
        };
        if fate != Fate::Kept || self.seen.is_some_and(|seen| seen.contains(id)) {
            return Ok(made);
        }
        let tokens = match &tokens {
            Some(tokens) => tokens.as_slice(),
            None => {
                ids.clear();
                self.tokenizer.encode_to(&text, ids)?;
                ids.as_slice()
            }
        };
        // Tokenized documents end with it, and a text may, spelled out.
        let tokens = tokens.strip_suffix(&[end]).unwrap_or(tokens);
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
        match self.source.spec.corrupt.filter(|_| made.split != Split::Valid) {
            Some(corrupt) => {
                let mut tokens = tokens.to_vec();
                corrupt.apply(&mut tokens, id);
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
