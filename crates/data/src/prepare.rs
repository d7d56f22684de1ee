//! Corpora to shards, as far as they are missing or out of date.
//!
//! In: the `[tokenizer]` and `[[domain]]` parts of a config. Out: a [`Corpus`], every domain's
//! shards written and opened; or, for one of several workers, its part of them. One pass over each
//! source: a thread reads, all threads parse, clean and tokenize, and what comes out is written in
//! the order of the source, so that the result does not depend on how many there are. Memory: some
//! 3 MiB of text a thread, the buffers of the part files, and, where duplicates are left out, 20 to
//! 40 bytes a document up to 285 MB.
//!
//! A part is written so that it can be gone on with after a kill ([`part`](crate::part)). Shards
//! are given their names only when they are whole and synced, `shard.json` last: whatever happens
//! meanwhile, a folder with a `shard.json` is whole. Two processes that want to write one folder do
//! so one after the other, and the second finds the work done.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::corpus::{Corpus, Work};
use crate::entry::Entry;
use crate::error::{DataError, Result};
use crate::manifest::Counts;
use crate::part;
use crate::progress::Progress;
use crate::share::Share;
use crate::source::Source;
use crate::spec::{DomainSource, SplitSpec, TokenizerSpec};
use crate::store::ShardStore;
use crate::tokenizer::Tokenizer;
use crate::tokenizer_choice;

/// Names the domains of a `domain_by` entry; written last of all.
pub(crate) const DOMAIN_LIST: &str = "domains.json";

/// What [`prepare`] is asked for.
pub struct Prepare<'a> {
    /// The `[[domain]]` entries.
    pub domains: &'a [DomainSource],
    /// The `[tokenizer]` table.
    pub tokenizer: &'a TokenizerSpec,
    /// The shares of the splits.
    pub splits: &'a SplitSpec,
    /// What relative paths start from: the config's folder.
    pub base: &'a Path,
    /// Where the shards go.
    pub store: ShardStore,
    /// Set from outside to stop: [`DataError::Interrupted`] comes back soon after.
    pub interrupted: &'a AtomicBool,
}

/// Makes what is missing or out of date and opens it all; where several workers have prepared it in
/// parts, puts these together.
///
/// Fails with a [`DataError`] that names the domain, and lists the parts that are missing; what was
/// done before stays and is gone on with by the next call.
pub fn prepare(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Corpus> {
    let sources = resolve(request, progress)?;
    let tokenizer = Arc::new(tokenizer_choice::choose(request, &sources, progress)?);
    let entries = entries(request, &sources, &tokenizer, progress);
    // If workers have begun on one entry, all entries are theirs.
    let unfinished = entries.iter().filter(|entry| entry.reuse().is_none());
    let workers = unfinished.map(|entry| part::workers(&entry.dir)).max().unwrap_or(1);
    let mut domains = Vec::new();
    for entry in &entries {
        domains
            .extend(entry.prepare(workers).map_err(|error| error.in_domain(&entry.domain.name))?);
    }
    check_names(domains.iter().map(|domain| domain.name.as_str()))?;
    Ok(Corpus { tokenizer, domains })
}

/// What [`prepare_part`] did for one `[[domain]]` entry.
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

/// Prepares one of several workers' part of every domain that is missing or out of date. When all
/// parts are there, [`prepare`] puts them together.
///
/// All workers must see the same files under the same paths, and one folder for the shards. Fails
/// as `prepare` does.
pub fn prepare_part(
    request: &Prepare<'_>,
    share: Share,
    progress: &dyn Progress,
) -> Result<Vec<PreparedPart>> {
    let sources = resolve(request, progress)?;
    let tokenizer = tokenizer_choice::choose(request, &sources, progress)?;
    let entries = entries(request, &sources, &tokenizer, progress);
    entries
        .iter()
        .map(|entry| entry.prepare_part(share).map_err(|error| error.in_domain(&entry.domain.name)))
        .collect()
}

fn resolve(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Vec<Source>> {
    request.splits.check()?;
    check_names(request.domains.iter().map(|domain| domain.name.as_str()))?;
    let mut sources = Vec::with_capacity(request.domains.len());
    for domain in request.domains {
        let source =
            Source::resolve(&domain.source, domain.domain_by.as_deref(), request.base, progress);
        sources.push(source.map_err(|error| error.in_domain(&domain.name))?);
    }
    Ok(sources)
}

fn entries<'a>(
    request: &'a Prepare<'a>,
    sources: &'a [Source],
    tokenizer: &'a Tokenizer,
    progress: &'a dyn Progress,
) -> Vec<Entry<'a>> {
    let entries = request.domains.iter().zip(sources).enumerate();
    entries
        .map(|(number, (domain, source))| {
            Entry::new(request, number, domain, source, tokenizer, progress)
        })
        .collect()
}

fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(DataError::DuplicateDomain { domain: name.to_owned() });
        }
    }
    Ok(())
}

/// The content of `domains.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct DomainList {
    pub(crate) signature: String,
    /// From the values of `domain_by` to the folders of their domains.
    pub(crate) folders: BTreeMap<String, String>,
    /// Values that made no domain: their documents were all without text or seen before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) without_text: BTreeMap<String, Counts>,
}

/// Reads the `domains.json` in the folder of a `domain_by` entry.
pub(crate) fn read_list(dir: &Path) -> Result<DomainList> {
    let path = dir.join(DOMAIN_LIST);
    let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
    serde_json::from_slice(&text)
        .map_err(|error| DataError::Manifest { path, message: error.to_string() })
}
