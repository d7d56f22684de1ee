//! Corpora to shards, as far as they are missing or out of date.
//!
//! In: the `[tokenizer]` and `[[domain]]` parts of a config. Out: a [`Corpus`], every domain's
//! shards written and opened. One pass over each source, reading in one thread and tokenizing in all
//! others; the result does not depend on how many there are. Memory: a few batches of 4 MB of
//! text, a buffer a split, four bytes a document, 16 more where duplicates are left out.
//!
//! Everything is written under temporary names, synced, then renamed, `shard.json` last: whatever
//! happens meanwhile, a folder with a `shard.json` is whole. Two processes that want to
//! write one folder do so one after the other, and the second finds the work done.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::corpus::{Corpus, Domain};
use crate::entry_writer::{Batch, EntryWriter, Published};
use crate::error::{DataError, Result, list};
use crate::manifest::{Counts, FORMAT_VERSION, sha256_hex};
use crate::progress::Progress;
use crate::source::{Content, Flow, Item, Meter, Source};
use crate::spec::{DomainSource, SplitSpec, TokenizerSpec};
use crate::store::{self, ShardStore};
use crate::tokenizer::Tokenizer;
use crate::tokenizer_choice;

/// Text gathered before it is tokenized, in bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Documents gathered at most, so that many small ones stay in bounds too.
const BATCH_DOCUMENTS: usize = 16 << 10;
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

/// Makes what is missing or out of date and opens it all.
///
/// Fails with a [`DataError`] that names the domain; shards of domains before it stay and are
/// reused by the next call.
pub fn prepare(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Corpus> {
    request.splits.check()?;
    check_names(request.domains.iter().map(|domain| domain.name.as_str()))?;
    let mut sources = Vec::with_capacity(request.domains.len());
    for domain in request.domains {
        let source = Source::resolve(&domain.source, domain.domain_by.as_deref(), request.base, progress);
        sources.push(source.map_err(|error| error.in_domain(&domain.name))?);
    }
    let tokenizer = Arc::new(tokenizer_choice::choose(request, &sources, progress)?);
    let mut domains = Vec::new();
    for (number, (domain, source)) in request.domains.iter().zip(&sources).enumerate() {
        let entry = Entry { request, number, domain, source, tokenizer: &tokenizer, progress };
        domains.extend(entry.prepare().map_err(|error| error.in_domain(&domain.name))?);
    }
    check_names(domains.iter().map(|domain| domain.name.as_str()))?;
    Ok(Corpus { tokenizer, domains })
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

/// One `[[domain]]` entry at work.
pub(crate) struct Entry<'a> {
    pub(crate) request: &'a Prepare<'a>,
    number: usize,
    pub(crate) domain: &'a DomainSource,
    pub(crate) source: &'a Source,
    pub(crate) tokenizer: &'a Tokenizer,
    progress: &'a dyn Progress,
}

impl Entry<'_> {
    fn prepare(&self) -> Result<Vec<Domain>> {
        let identity = json!({
            "version": FORMAT_VERSION,
            "source": self.source.identity,
            "domain_by": self.domain.domain_by,
            "tokenizer": self.tokenizer.fingerprint(),
            "end_of_text": self.tokenizer.end_of_text(),
            "splits": self.request.splits,
        });
        let key = sha256_hex(identity.to_string().as_bytes());
        let mut inputs = json!({ "identity": identity, "files": self.source.records });
        if let Some(hub) = &self.source.hub {
            inputs["hub"] = json!(hub);
        }
        let signature = sha256_hex(inputs.to_string().as_bytes());
        let dir = self.request.store.entry(&self.domain.name, &self.source.spec, &key);
        if let Some(domains) = self.reuse(&dir, &signature) {
            return Ok(domains);
        }
        self.check_sources_are_elsewhere(&dir)?;
        let _lock = store::lock(&dir, self.request.interrupted)?;
        // Another process may have done it meanwhile.
        if let Some(domains) = self.reuse(&dir, &signature) {
            return Ok(domains);
        }
        if let Some(moved) = self.source.moved_since(&dir) {
            self.progress.note(&format!("{}: {moved}", self.domain.name));
        }
        self.build(&dir, &signature)?;
        let mut domains = self.open(&dir)?;
        domains.iter_mut().for_each(|domain| domain.reused = false);
        Ok(domains)
    }

    /// The domains of an entry that is up to date. Anything wrong with it means that it is not.
    fn reuse(&self, dir: &Path, signature: &str) -> Option<Vec<Domain>> {
        if self.domain.domain_by.is_some() && read_list(dir).ok()?.signature != signature {
            return None;
        }
        let domains = self.open(dir).ok()?;
        domains.iter().all(|domain| domain.manifest.signature == signature).then_some(domains)
    }

    fn open(&self, dir: &Path) -> Result<Vec<Domain>> {
        let named = |dir: PathBuf, name: String| -> Result<Domain> {
            let mut domain = Domain::open(&dir)?;
            (domain.name, domain.entry) = (name, self.number);
            Ok(domain)
        };
        if self.domain.domain_by.is_none() {
            return Ok(vec![named(dir.to_owned(), self.domain.name.clone())?]);
        }
        let list = read_list(dir)?;
        let domains = list.folders.iter();
        domains.map(|(value, folder)| named(dir.join(folder), self.name(Some(value)))).collect()
    }

    /// The name of the domain of a value of `domain_by`, or of the entry itself.
    pub(crate) fn name(&self, value: Option<&str>) -> String {
        match value {
            Some(value) => format!("{}/{value}", self.domain.name),
            None => self.domain.name.clone(),
        }
    }

    /// Writing shards over the shards they are made from would lose both.
    fn check_sources_are_elsewhere(&self, dir: &Path) -> Result<()> {
        let Ok(store) = dir.canonicalize() else { return Ok(()) };
        for file in &self.source.files {
            let inside = file.path.canonicalize().is_ok_and(|path| path.starts_with(&store));
            if inside {
                return Err(DataError::SourceInStore { path: file.path.clone(), store });
            }
        }
        Ok(())
    }

    fn build(&self, dir: &Path, signature: &str) -> Result<()> {
        let stage = format!("tokenize {}", self.domain.name);
        self.progress.start(&stage, self.source.bytes());
        let mut writer = EntryWriter::new(self, dir);
        let result = self.fill(&mut writer).and_then(|()| writer.publish(signature));
        if result.is_err() {
            writer.discard();
        }
        let Published { documents, tokens, without_text } = result?;
        let mut summary = format!(
            "{}: {documents} documents, {tokens} tokens from {} files",
            self.domain.name,
            self.source.files.len()
        );
        if !without_text.is_empty() {
            let values: Vec<String> = without_text.into_keys().collect();
            summary.push_str(&format!(
                "; no domain for {}: nothing but empty documents or duplicates",
                list(&values)
            ));
        }
        self.progress.finish(&summary);
        Ok(())
    }

    /// Reads in a thread of its own while this one tokenizes and writes.
    fn fill(&self, writer: &mut EntryWriter<'_>) -> Result<()> {
        // Two batches waiting, one being read and one being tokenized.
        let (send, receive) = sync_channel(2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || self.read(&send));
            let mut written = Ok(());
            for batch in receive {
                written = writer.take(batch);
                if written.is_err() {
                    // Hanging up ends the reader.
                    break;
                }
            }
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.and(read)
        })
    }

    fn read(&self, send: &SyncSender<Batch>) -> Result<()> {
        let expected = Some((self.tokenizer.vocab_size(), self.tokenizer.fingerprint()));
        let mut batch = Batch::default();
        let mut bytes = 0;
        let mut meter = Meter::new(self.source.spec.limit);
        for file in &self.source.files {
            if meter.is_full() {
                break;
            }
            self.source.fetch(file, self.progress, self.request.interrupted)?;
            let mut sink = |item: Item| {
                if self.request.interrupted.load(Ordering::Relaxed) {
                    return Err(DataError::Interrupted);
                }
                match item {
                    Item::Skipped => batch.skipped += 1,
                    Item::Document(document) => {
                        let length = match &document.content {
                            Content::Text(text) => text.len(),
                            Content::Tokens(tokens) => 4 * tokens.len(),
                        };
                        bytes += length;
                        meter.take(length as u64);
                        batch.documents.push(document);
                    }
                }
                if bytes >= BATCH_BYTES || batch.documents.len() >= BATCH_DOCUMENTS {
                    bytes = 0;
                    // It fails only where the receiver has hung up, with an error of its own.
                    send.send(std::mem::take(&mut batch)).map_err(|_| DataError::Interrupted)?;
                }
                Ok(if meter.is_full() { Flow::NextFile } else { Flow::Continue })
            };
            self.source.read(file, expected, &|bytes| self.progress.advance(bytes), &mut sink)?;
        }
        send.send(batch).map_err(|_| DataError::Interrupted)
    }
}

/// Reads the `domains.json` in the folder of a `domain_by` entry.
pub(crate) fn read_list(dir: &Path) -> Result<DomainList> {
    let path = dir.join(DOMAIN_LIST);
    let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| DataError::Manifest { path, message: error.to_string() })
}
