//! What preparing is asked for, and what comes of one worker's part.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::error::{DataError, Result};
use crate::shard::corpus::Work;
use crate::shard::store::ShardStore;
use crate::spec::{DomainSource, SplitSpec, TokenizerSpec};

/// What [`prepare`](crate::prepare()) is asked for.
pub struct Prepare<'a> {
    /// The `[[domain]]` entries.
    pub domains: &'a [DomainSource],
    /// The `[tokenizer]` table.
    pub tokenizer: &'a TokenizerSpec,
    /// The folder of the model that is to be trained on (`[model] init`), if any: its files say
    /// what ends a document where the `[tokenizer]` table does not.
    pub model: Option<&'a Path>,
    /// The shares of the splits.
    pub splits: &'a SplitSpec,
    /// What relative paths start from: the config's folder.
    pub base: &'a Path,
    /// Where the shards go.
    pub store: ShardStore,
    /// How the work is done; nothing of it changes what comes out.
    pub options: PrepareOptions,
    /// Set from outside to stop: [`DataError::Interrupted`] comes back soon after.
    pub interrupted: &'a AtomicBool,
}

/// How the work is done. None of it enters an identity: the shards are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Bytes of text between two commits, each of which makes what is done so far outlive a kill.
    /// Where `domain_by` makes many files, commits are up to some times rarer.
    pub commit_every: u64,
    /// Documents that are remembered at once where duplicates are left out, 20 to 40 bytes each.
    /// Repetitions of later ones are left out when the parts are put together. At least 1.
    pub remember_documents: u64,
}

impl Default for PrepareOptions {
    fn default() -> PrepareOptions {
        PrepareOptions {
            // Some seconds of work.
            commit_every: 256 << 20,
            // Just below what fills the 64 tables of 2¹⁸ places of 17 bytes to seven eighths, where
            // they would double: 285 MB.
            remember_documents: 14_000_000,
        }
    }
}

/// What [`prepare_part`](crate::prepare_part) did for one `[[domain]]` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedPart {
    /// The entry's name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Documents in the part; repetitions that another part has, or that came after more documents
    /// than are remembered, are still among them.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// What it took; `None` where it had been done before.
    pub work: Option<Work>,
}

impl Prepare<'_> {
    /// Checks what can be checked before any file is looked for.
    ///
    /// # Errors
    /// Impossible shares, two entries of one name, no document to be remembered.
    pub(super) fn check(&self) -> Result<()> {
        self.splits.check()?;
        if self.options.remember_documents == 0 {
            return Err(DataError::Spec {
                key: "data.remember_documents".to_owned(),
                expected: "at least 1".to_owned(),
                found: "0".to_owned(),
                hint: "leave it out for 14 million, which take 285 MB".to_owned(),
            });
        }
        check_names(self.domains.iter().map(|domain| domain.name.as_str()))
    }
}

/// Checks that no name comes twice.
///
/// # Errors
/// [`DataError::DuplicateDomain`].
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(DataError::DuplicateDomain { domain: name.to_owned() });
        }
    }
    Ok(())
}
