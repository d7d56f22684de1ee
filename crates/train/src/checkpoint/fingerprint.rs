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
    /// sha256 of the `.idx` of train, tune and valid, where the run reads where documents begin;
    /// not known of runs from before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<[String; 3]>,
}

impl DataFingerprint {
    /// Of each domain, from its manifest; `by_document` tells that its index is read, too.
    pub fn of(domains: &[Domain], by_document: bool) -> Vec<Self> {
        let digest = |d: &Domain, split| d.manifest.split(split).bin_sha256.clone();
        let index = |d: &Domain| {
            let splits = [Split::Train, Split::Tune, Split::Valid];
            splits.map(|split| d.manifest.split(split).idx_sha256.clone())
        };
        domains
            .iter()
            .map(|d| Self {
                domain: d.name.clone(),
                tokenizer: d.manifest.tokenizer.clone(),
                tokens: d.manifest.split(Split::Train).tokens,
                train: digest(d, Split::Train),
                tune: digest(d, Split::Tune),
                valid: digest(d, Split::Valid),
                index: by_document.then(|| index(d)),
            })
            .collect()
    }

    /// Whether both are of the same data, so far as both know it.
    pub fn agrees(&self, other: &Self) -> bool {
        let known = self.index.is_some() && other.index.is_some();
        let of = |one: &Self| Self { index: one.index.clone().filter(|_| known), ..one.clone() };
        of(self) == of(other)
    }

    /// Whether the same domains are of the same data.
    pub fn all_agree(old: &[Self], new: &[Self]) -> bool {
        old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.agrees(new))
    }
}
