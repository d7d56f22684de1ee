//! What a config says about data: which tokenizer, which sources, which splits.
//!
//! These types are read from TOML as they stand. They hold what was typed; nothing is opened
//! or checked here beyond the names of the keys.

pub(crate) mod corrupt;
pub(crate) mod limit;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};
use crate::token_type::TokenType;
use corrupt::CorruptSpec;
use limit::Limit;

/// The `[tokenizer]` table: exactly one of `file`, `hub` and `train`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerSpec {
    /// A `tokenizer.json`, or a folder with one in it; relative to the config's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A model of the Hugging Face Hub, whose `tokenizer.json` is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Commit, tag or branch (Hub). Default: `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Train a byte-level BPE on the domains themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainTokenizerSpec>,
    /// The token that ends a document. Default: the model's, the tokenizer's own, or the first of
    /// [`END_OF_TEXT_TOKENS`] that the vocabulary has, in this order.
    ///
    /// [`END_OF_TEXT_TOKENS`]: crate::END_OF_TEXT_TOKENS
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_of_text: Option<String>,
}

/// How to train a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizerSpec {
    /// Tokens in all: 256 bytes, one end-of-text and the merges.
    pub vocab_size: usize,
    /// Bytes of training text to learn from, spread evenly over the domains; at least 1,000 of
    /// each.
    #[serde(default = "TrainTokenizerSpec::default_sample_bytes")]
    pub sample_bytes: u64,
}

/// The bytes and the end-of-text.
const LEAST_VOCABULARY: usize = 257;
/// Of each domain; from less there is nothing to learn.
const LEAST_SAMPLE_BYTES: u64 = 1_000;
/// The library counts pairs in 32 bits with a sign.
const MOST_SAMPLE_BYTES: u64 = 2_000_000_000;

impl TrainTokenizerSpec {
    fn default_sample_bytes() -> u64 {
        100_000_000
    }

    /// Checks that both numbers are in their ranges, for a sample of this many domains.
    ///
    /// # Errors
    /// One of them is not.
    pub(crate) fn check(&self, domains: usize) -> Result<()> {
        if self.vocab_size < LEAST_VOCABULARY || self.vocab_size > 1 << 24 {
            return Err(DataError::Spec {
                key: "tokenizer.train.vocab_size".to_owned(),
                expected: format!("{LEAST_VOCABULARY} (256 bytes and end-of-text) to 16777216"),
                found: self.vocab_size.to_string(),
                hint: "small models do well with 4096 to 16384".to_owned(),
            });
        }
        let least = LEAST_SAMPLE_BYTES.saturating_mul(domains as u64);
        if self.sample_bytes < least || self.sample_bytes > MOST_SAMPLE_BYTES {
            return Err(DataError::Spec {
                key: "tokenizer.train.sample_bytes".to_owned(),
                expected: format!(
                    "{least} ({LEAST_SAMPLE_BYTES} of each domain) to {MOST_SAMPLE_BYTES} bytes"
                ),
                found: self.sample_bytes.to_string(),
                hint: "some 100 MB are plenty for merges that occur at all".to_owned(),
            });
        }
        Ok(())
    }
}

/// Where a domain's documents come from: exactly one of `path`, `hub` and `cargo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSpec {
    /// Files, folders, patterns (`*`, `?`, `[…]`, `**`), or tokenized shards named by their
    /// prefix, `.idx` or `.bin`; relative to the config's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<OneOrMany<String>>,
    /// A data set of the Hugging Face Hub. Which of its files: see `files`, `config` and `split`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// One of the data set's configurations (Hub): as its README lists them, else the folder of its
    /// files. Default: the only one, or the one called `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The data set's split (Hub): as its README lists them, else by the names of files and
    /// folders. Default: `train`, unless `files` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Patterns of the data set's files (Hub): only files that match one of them, in the order of
    /// the patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<OneOrMany<String>>,
    /// Commit, tag or branch (Hub). Default: `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The sources of the packages that Cargo has unpacked for the current workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cargo: Option<CargoKind>,
    /// The column that holds the text. A dotted path reaches into objects, and into columns
    /// that hold JSON as a string.
    pub text: String,
    /// The column whose value decides the split, so that what belongs together stays together;
    /// `"file"` is the file a document stands in (its path from the first `*` on, or within the
    /// folder that was named), `"crate"` (Cargo sources) its package.
    /// Default: each document for itself, and the package for Cargo sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<String>,
    /// What to do with invalid documents. Default: `error`, and `skip` for Cargo sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_invalid: Option<OnInvalid>,
    /// Leave out documents whose text has been seen before in this entry. Default: only for Cargo
    /// sources. Costs 20 to 40 bytes of memory a document that is kept, 285 MB and two bits a
    /// document at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<bool>,
    /// Write CRLF, and CR alone, as LF. The first of the cleaning steps; see `docs/data.md` for
    /// their order.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strip_cr: bool,
    /// Bring texts into a Unicode normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<NormalForm>,
    /// Leave out documents of fewer characters (Unicode scalar values, after the changes above).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<u64>,
    /// Leave out documents of more characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<u64>,
    /// Plain text only: files longer than this many bytes are cut into documents, at the last
    /// blank line within, else the last line end, else between two characters. Default: 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_document: Option<usize>,
    /// Take only the first documents, so many or so many bytes of text, in the order of the files;
    /// no file after them is opened, or fetched. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// What the files are, by the name of a [`Format`](crate::Format), where their own names do not
    /// tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// How an id is stored in tokenized files that do not say it themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<TokenType>,
    /// The licence of the text; written into `shard.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Damage done on purpose to `train` and `tune`, for studies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<CorruptSpec>,
}

impl Default for SourceSpec {
    fn default() -> Self {
        SourceSpec {
            path: None,
            hub: None,
            config: None,
            split: None,
            files: None,
            revision: None,
            cargo: None,
            text: "text".to_owned(),
            split_by: None,
            on_invalid: None,
            deduplicate: None,
            strip_cr: false,
            normalize: None,
            min_chars: None,
            max_chars: None,
            max_document: None,
            limit: None,
            format: None,
            token_type: None,
            license: None,
            corrupt: None,
        }
    }
}

/// One value or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum OneOrMany<T> {
    /// `"a"`
    One(T),
    /// `["a", "b"]`
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All values, in order.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }
}

/// Which of the packages' files a Cargo source takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CargoKind {
    /// `*.rs`
    Rust,
    /// `*.md`
    Docs,
    /// `*.c` and `*.h`
    C,
}

/// What to do with a document that cannot be used, for any [reason](crate::Invalid).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInvalid {
    /// Stop and say where.
    #[default]
    Error,
    /// Leave the document out and count it.
    Skip,
    /// Put U+FFFD where its text is invalid and count the document; stop where there is no text to
    /// mend.
    Replace,
}

/// The Unicode normal forms that texts can be brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalForm {
    /// Canonical composition: é is one character, however it was written.
    Nfc,
}

/// The shares of the split units that go to `tune` and `valid`; the rest is `train`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitSpec {
    /// Share for the strategies' held-out statistics.
    pub tune: f64,
    /// Share that is reported and never steered by.
    pub valid: f64,
}

impl Default for SplitSpec {
    fn default() -> Self {
        SplitSpec { tune: 0.02, valid: 0.05 }
    }
}

/// One `[[domain]]` entry as far as data is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainSource {
    /// The domain's name; with `domain_by`, the first half of its domains' names.
    pub name: String,
    /// Where its documents come from.
    pub source: SourceSpec,
    /// Makes one domain, called `name/value`, of each value of this column.
    pub domain_by: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        for (vocab_size, sample_bytes, key) in [
            (256, 3000, "vocab_size"),
            (1 << 25, 3000, "vocab_size"),
            (300, 0, "sample_bytes"),
            (300, 2999, "sample_bytes`: expected 3000 (1000 of each domain) to 2000000000 bytes"),
            (300, u64::MAX, "sample_bytes"),
        ] {
            let spec = TrainTokenizerSpec { vocab_size, sample_bytes };
            let error = spec.check(3).unwrap_err().to_string();
            let words = format!("tokenizer.train.{key}");
            assert!(error.contains(&words) && error.contains("hint: "), "{error}");
        }
        TrainTokenizerSpec { vocab_size: 300, sample_bytes: 3000 }.check(3).unwrap();
    }
}
