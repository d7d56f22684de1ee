//! What a checkpoint remembers of the data, to refuse other data on resume.

use cuvee_data::{Domain, Split};
use serde::{Deserialize, Serialize};

/// What makes a domain's data the same data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFingerprint {
    /// The domain.
    pub domain: String,
    /// The tokenizer's fingerprint.
    pub tokenizer: String,
    /// Tokens of the training split.
    pub tokens: u64,
    /// sha256 of the training split's `.bin`.
    pub train: String,
    /// sha256 of the tune split's `.bin`.
    pub tune: String,
    /// sha256 of the valid split's `.bin`.
    pub valid: String,
}

impl DataFingerprint {
    /// Of each domain, from its manifest.
    pub fn of(domains: &[Domain]) -> Vec<Self> {
        let digest = |d: &Domain, split| d.manifest.split(split).bin_sha256.clone();
        domains
            .iter()
            .map(|d| Self {
                domain: d.name.clone(),
                tokenizer: d.manifest.tokenizer.clone(),
                tokens: d.manifest.split(Split::Train).tokens,
                train: digest(d, Split::Train),
                tune: digest(d, Split::Tune),
                valid: digest(d, Split::Valid),
            })
            .collect()
    }
}
