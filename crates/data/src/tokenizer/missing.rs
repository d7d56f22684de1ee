//! Stands in for the tokenizer in a build without the feature `tokenizers`: the same names, and a
//! refusal. Shards can be opened, read and converted without it.

use std::collections::BTreeMap;
use std::path::Path;

use cuvee_words::printable_path;

use crate::error::{DataError, Result};

/// See the feature `tokenizers`.
pub const END_OF_TEXT_TOKENS: [&str; 5] =
    ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"];

/// See the feature `tokenizers`.
///
/// # Errors
/// None: nothing is read.
pub fn model_end_of_text(_folder: &Path) -> Result<Vec<u32>> {
    Ok(Vec::new())
}

/// See the feature `tokenizers`: nothing is read.
pub fn named_beginning(_folder: &Path) -> Option<Option<String>> {
    None
}

/// See the feature `tokenizers`.
///
/// # Errors
/// None: there is no tokenizer.
pub fn model_beginning_of_text(_folder: &Path, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    match *tokenizer {}
}

/// See the feature `tokenizers`.
pub(crate) const END_OF_TEXT_FILES: [&str; 0] = [];

/// See the feature `tokenizers`. Nothing reads it where nothing is loaded.
#[allow(dead_code)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EndOfText<'a> {
    pub(crate) named: Option<&'a str>,
    pub(crate) model: Option<&'a Path>,
    pub(crate) own: Option<&'a Path>,
}

/// See the feature `tokenizers`; there is none.
#[derive(Debug)]
pub enum Tokenizer {}

/// See the feature `tokenizers`; there is none.
#[derive(Debug)]
pub struct DecodeStream<'a>(&'a Tokenizer);

fn refusal(what: String) -> DataError {
    DataError::MissingFeature {
        what,
        feature: "tokenizers",
        hint: "build cuvee-data with the feature; shards are read without it",
    }
}

/// Without the feature `tokenizers` there is no value of this type.
impl Tokenizer {
    /// # Errors
    /// Always: the feature is not in this build.
    pub fn from_file(path: &Path, _end_of_text: Option<&str>) -> Result<Tokenizer> {
        Err(refusal(format!("{} is a tokenizer", printable_path(path))))
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn from_file_for(
        path: &Path,
        _end_of_text: Option<&str>,
        _model: Option<&Path>,
    ) -> Result<Tokenizer> {
        Tokenizer::from_file(path, None)
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn fingerprint_of(path: &Path) -> Result<String> {
        Tokenizer::from_file(path, None).map(|tokenizer| match tokenizer {})
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn vocabulary_of(path: &Path) -> Result<BTreeMap<String, u32>> {
        Tokenizer::from_file(path, None).map(|tokenizer| match tokenizer {})
    }

    /// # Errors
    /// None: there is no tokenizer.
    pub fn vocabulary(&self) -> Result<BTreeMap<String, u32>> {
        match *self {}
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn from_file_ending_with(path: &Path, _end_of_text: u32) -> Result<Tokenizer> {
        Tokenizer::from_file(path, None)
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn from_json(_text: &str) -> Result<Tokenizer> {
        Err(refusal("a tokenizer was given as text".to_owned()))
    }

    /// # Errors
    /// Always: the feature is not in this build.
    pub fn trained_on(_texts: &[String], _vocab_size: usize) -> Result<Tokenizer> {
        Err(refusal("a tokenizer is to be trained".to_owned()))
    }

    pub(crate) fn build(text: String, _end_of_text: EndOfText, _origin: &str) -> Result<Tokenizer> {
        Tokenizer::from_json(&text)
    }

    pub(crate) fn is_fast(&self) -> bool {
        match *self {}
    }

    /// # Errors
    /// None: there is no tokenizer.
    pub fn encode(&self, _text: &str) -> Result<Vec<u32>> {
        match *self {}
    }

    /// # Errors
    /// None: there is no tokenizer.
    pub fn encode_to(&self, _text: &str, _ids: &mut Vec<u32>) -> Result<()> {
        match *self {}
    }

    /// # Errors
    /// None: there is no tokenizer.
    pub fn encode_prompt(&self, _text: &str) -> Result<Vec<u32>> {
        match *self {}
    }

    /// The text of these ids.
    pub fn decode(&self, _ids: &[u32]) -> String {
        match *self {}
    }

    /// A decoder for ids that come one at a time.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        match *self {}
    }

    /// The token that ends a document, as the vocabulary spells it.
    pub fn end_of_text_token(&self) -> &str {
        match *self {}
    }

    /// The largest id plus one.
    pub fn vocab_size(&self) -> usize {
        match *self {}
    }

    /// The ids that no token has.
    pub fn holes(&self) -> &[u32] {
        match *self {}
    }

    /// The bytes of text that spell a special token.
    pub fn special_bytes(&self, _id: u32) -> Option<usize> {
        match *self {}
    }

    /// The id that ends a document.
    pub fn end_of_text(&self) -> u32 {
        match *self {}
    }

    /// What decides the ids, hashed.
    pub fn fingerprint(&self) -> &str {
        match *self {}
    }

    /// The `tokenizer.json` as it came.
    pub fn json(&self) -> &str {
        match *self {}
    }
}

impl DecodeStream<'_> {
    /// The text that `id` completes.
    pub fn step(&mut self, _id: u32) -> String {
        match *self.0 {}
    }

    /// What is left.
    pub fn finish(self) -> String {
        match *self.0 {}
    }
}

pub(crate) mod training {
    use crate::error::{DataError, Result};

    /// The end-of-text of a trained tokenizer.
    pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

    /// Refuses.
    pub(crate) fn train(_texts: &[String], _vocab_size: usize) -> Result<String> {
        Err(DataError::MissingFeature {
            what: "a tokenizer is to be trained".to_owned(),
            feature: "tokenizers",
            hint: "build cuvee-data with the feature",
        })
    }
}
