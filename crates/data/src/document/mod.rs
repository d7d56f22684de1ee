//! A document, and what is done to it before it is tokenized.
//!
//! In: a text as it was read. Out: the same text cleaned ([`cleaning`]), its identity ([`id`]), the
//! split it belongs to ([`split`]), and for studies damaged tokens ([`corrupt`]). What cannot be
//! used is counted by its reason ([`invalid`]).

pub(crate) mod cleaning;
pub(crate) mod corrupt;
pub(crate) mod id;
pub(crate) mod invalid;
pub(crate) mod split;

/// A document on its way from a file to a shard.
pub(crate) struct Document {
    pub(crate) content: Content,
    /// The value of `split_by`.
    pub(crate) unit: Option<String>,
    /// The value of `domain_by`.
    pub(crate) domain: Option<String>,
    /// Whether U+FFFD stands in it for invalid bytes, or for half a surrogate pair.
    pub(crate) replaced: bool,
}

/// What stands in a document.
pub(crate) enum Content {
    Text(String),
    /// Already tokenized, its ids checked against the vocabulary.
    Tokens(Vec<u32>),
}

impl Content {
    /// The length that a limit goes by: bytes of text, or four a token.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Content::Text(text) => text.len() as u64,
            Content::Tokens(tokens) => 4 * tokens.len() as u64,
        }
    }
}
