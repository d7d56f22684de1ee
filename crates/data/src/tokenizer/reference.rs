//! The reference: the release of Hugging Face tokenizers that Python's package is made of.
//!
//! What it gives is right by definition. It is an order of magnitude slower than the new library,
//! and a text costs it some 30 bytes of memory for each of its own.

use std::collections::BTreeMap;

use tokenizers_reference::{NormalizedString, Normalizer, Tokenizer};

use super::patterns;

/// A tokenizer of the reference.
pub(super) struct Reference(Tokenizer);

impl Reference {
    /// Loads the text of a `tokenizer.json`. What the file says of truncation and padding is left
    /// out: documents are encoded whole.
    pub(super) fn load(text: &str) -> Result<Reference, String> {
        let translated = patterns::translated(text);
        caught(|| {
            let text = translated.as_deref().unwrap_or(text);
            let mut tokenizer: Tokenizer = text.parse().map_err(to_string)?;
            tokenizer.with_truncation(None).map_err(to_string)?;
            tokenizer.with_padding(None);
            Ok(Reference(tokenizer))
        })
    }

    /// Two added tokens that are the same in normalised text, and that text: the library takes one
    /// or the other, as its hash table happens to have them, in Python too.
    pub(super) fn alike(&self) -> Option<[String; 3]> {
        let mut seen: BTreeMap<String, (u32, &str)> = BTreeMap::new();
        let added = self.0.get_added_vocabulary().get_added_tokens_decoder().iter();
        let mut added: Vec<_> = added.filter(|(_, token)| token.normalized).collect();
        added.sort_by_key(|(id, _)| **id);
        for (id, token) in added {
            let mut text = NormalizedString::from(token.content.as_str());
            let normalizer = self.0.get_normalizer();
            // What cannot be normalised fails on every text, which the probe finds.
            if normalizer.is_some_and(|normalizer| normalizer.normalize(&mut text).is_err()) {
                continue;
            }
            let (other, name) = *seen.entry(text.get().to_owned()).or_insert((*id, &token.content));
            if other != *id {
                return Some([name.to_owned(), token.content.clone(), text.get().to_owned()]);
            }
        }
        None
    }

    /// Appends the ids of a text; with `prompt`, and what a post-processor puts around it.
    pub(super) fn encode(
        &self,
        text: &str,
        prompt: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        let encoding = caught(|| self.0.encode_fast(text, prompt).map_err(to_string))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The text of these ids, special tokens spelled out.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, String> {
        caught(|| self.0.decode(ids, false).map_err(to_string))
    }
}

fn to_string(error: tokenizers_reference::Error) -> String {
    error.to_string()
}

/// The library panics on some files and texts where it should fail. Nothing that was half changed
/// is looked at again: encoding and decoding change caches alone, one entry at a time.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    crate::guard::caught(work).unwrap_or_else(|said| Err(format!("the library gave up: {said}")))
}
