//! What tells one document from another: a hash of its text.

use xxhash_rust::xxh3::xxh3_128;

/// The identity of a document: xxh3-128 of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DocumentId(pub(crate) u128);

impl DocumentId {
    pub(crate) fn of(text: &str) -> DocumentId {
        DocumentId(xxh3_128(text.as_bytes()))
    }
}
