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

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::corpus::{Corpus, Domain};
use crate::error::{DataError, Result};
use crate::index::TokenType;
use crate::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecords, sha256_hex, write_json, write_whole,
};
use crate::progress::Progress;
use crate::shard_writer::{FinishedShard, ShardWriter};
use crate::source::{Content, Document, Flow, Item, Source};
use crate::spec::{DomainSource, SplitSpec, TokenizerSpec};
use crate::split::{DocumentId, Split};
use crate::store::{self, ShardStore};
use crate::tokenizer::Tokenizer;
use crate::tokenizer_choice;

/// Text gathered before it is tokenized, in bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Documents gathered at most, so that many small ones stay in bounds too.
const BATCH_DOCUMENTS: usize = 16 << 10;
/// More values of `domain_by` than this are taken for a mistake.
const MOST_DOMAINS: usize = 1_000;
/// Names the domains of a `domain_by` entry; written last of all.
const DOMAIN_LIST: &str = "domains.json";

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
        let source = Source::resolve(&domain.source, domain.domain_by.as_deref(), request.base);
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
struct DomainList {
    signature: String,
    /// From the values of `domain_by` to the folders of their domains.
    folders: BTreeMap<String, String>,
}

/// One `[[domain]]` entry at work.
struct Entry<'a> {
    request: &'a Prepare<'a>,
    number: usize,
    domain: &'a DomainSource,
    source: &'a Source,
    tokenizer: &'a Tokenizer,
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
        let inputs = json!({ "identity": identity, "files": self.source.records });
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

    fn name(&self, value: Option<&str>) -> String {
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
        self.progress.start(&stage, Some(self.source.bytes()));
        let mut writers = Writers {
            entry: self,
            dir,
            token_type: TokenType::for_vocabulary(self.tokenizer.vocab_size()),
            seen: HashSet::new(),
            skipped: 0,
            domains: BTreeMap::new(),
        };
        let result = self.fill(&mut writers).and_then(|()| writers.publish(signature));
        if result.is_err() {
            writers.discard();
        }
        let (documents, tokens) = result?;
        self.progress.finish(&format!(
            "{}: {documents} documents, {tokens} tokens from {} files",
            self.domain.name,
            self.source.files.len()
        ));
        Ok(())
    }

    /// Reads in a thread of its own while this one tokenizes and writes.
    fn fill(&self, writers: &mut Writers<'_>) -> Result<()> {
        // Two batches waiting, one being read and one being tokenized.
        let (send, receive) = sync_channel(2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || self.read(&send));
            let mut written = Ok(());
            for batch in receive {
                written = writers.take(batch);
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
        for file in &self.source.files {
            let mut sink = |item: Item| {
                if self.request.interrupted.load(Ordering::Relaxed) {
                    return Err(DataError::Interrupted);
                }
                match item {
                    Item::Skipped => batch.skipped += 1,
                    Item::Document(document) => {
                        bytes += match &document.content {
                            Content::Text(text) => text.len(),
                            Content::Tokens(tokens) => 4 * tokens.len(),
                        };
                        batch.documents.push(document);
                    }
                }
                if bytes >= BATCH_BYTES || batch.documents.len() >= BATCH_DOCUMENTS {
                    bytes = 0;
                    // It fails only where the receiver has hung up, with an error of its own.
                    send.send(std::mem::take(&mut batch)).map_err(|_| DataError::Interrupted)?;
                }
                Ok(Flow::Continue)
            };
            self.source.read(file, expected, &|bytes| self.progress.advance(bytes), &mut sink)?;
        }
        send.send(batch).map_err(|_| DataError::Interrupted)
    }
}

/// The folders of the domains in the folder of a `domain_by` entry.
pub(crate) fn domain_folders(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(read_list(dir)?.folders.values().map(|folder| dir.join(folder)).collect())
}

fn read_list(dir: &Path) -> Result<DomainList> {
    let path = dir.join(DOMAIN_LIST);
    let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| DataError::Manifest { path, message: error.to_string() })
}

/// Documents that travel together.
#[derive(Default)]
struct Batch {
    documents: Vec<Document>,
    skipped: u64,
}

/// A document's text, and its tokens where it came with them.
struct Known {
    text: String,
    tokens: Option<Vec<u32>>,
    id: DocumentId,
}

/// The domains of an entry being written.
struct Writers<'a> {
    entry: &'a Entry<'a>,
    dir: &'a Path,
    token_type: TokenType,
    /// Identities of the documents so far, where duplicates are left out.
    seen: HashSet<DocumentId>,
    skipped: u64,
    /// By the value of `domain_by`; without it, one under the empty value.
    domains: BTreeMap<String, DomainWriter>,
}

#[derive(Default)]
struct DomainWriter {
    counts: Counts,
    /// From the first document with text on.
    shards: Option<[ShardWriter; 3]>,
}

impl Writers<'_> {
    /// Tokenizes a batch and writes it.
    fn take(&mut self, batch: Batch) -> Result<()> {
        self.skipped += batch.skipped;
        let known: Vec<(Known, Document)> =
            batch.documents.into_par_iter().map(|document| self.know(document)).collect();
        let mut kept = Vec::with_capacity(known.len());
        for (known, document) in known {
            let value = document.domain.clone().unwrap_or_default();
            if !self.domains.contains_key(&value) {
                self.check_number()?;
            }
            let counts = &mut self.domains.entry(value).or_default().counts;
            counts.read += 1;
            if known.text.trim().is_empty() {
                counts.empty += 1;
            } else if self.entry.source.deduplicate && !self.seen.insert(known.id) {
                counts.duplicates += 1;
            } else {
                counts.invalid_replaced += u64::from(document.replaced);
                kept.push((known, document));
            }
        }
        let encode = |(known, document): (Known, Document)| {
            let tokens = match known.tokens {
                Some(tokens) => tokens,
                None => self.entry.tokenizer.encode(&known.text)?,
            };
            Ok((document, known.id, known.text.len() as u64, self.ended(tokens)))
        };
        let encoded: Result<Vec<_>> = kept.into_par_iter().map(encode).collect();
        for (document, id, bytes, tokens) in encoded? {
            let split = self.entry.request.splits.of(id, document.unit.as_deref());
            self.shards(document.domain.unwrap_or_default())?[split.number()].push(&tokens, bytes)?;
        }
        Ok(())
    }

    fn know(&self, mut document: Document) -> (Known, Document) {
        let content = std::mem::replace(&mut document.content, Content::Tokens(Vec::new()));
        let (text, tokens) = match content {
            Content::Text(text) => (text, None),
            Content::Tokens(tokens) => {
                let end = [self.entry.tokenizer.end_of_text()];
                let text = tokens.strip_suffix(&end).unwrap_or(&tokens);
                (self.entry.tokenizer.decode(text), Some(tokens))
            }
        };
        let id = DocumentId::of(&text);
        (Known { text, tokens, id }, document)
    }

    /// With end-of-text as the last token.
    fn ended(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        let end = self.entry.tokenizer.end_of_text();
        if tokens.last() != Some(&end) {
            tokens.push(end);
        }
        tokens
    }

    fn check_number(&self) -> Result<()> {
        let entry = self.entry.domain;
        match &entry.domain_by {
            Some(column) if self.domains.len() >= MOST_DOMAINS => Err(DataError::TooManyDomains {
                domain: entry.name.clone(),
                column: column.clone(),
                limit: MOST_DOMAINS,
                examples: self.domains.keys().take(5).cloned().collect(),
            }),
            _ => Ok(()),
        }
    }

    fn folder(&self, value: &str) -> PathBuf {
        match self.entry.domain.domain_by {
            Some(_) => self.dir.join(store::folder_name(value)),
            None => self.dir.to_owned(),
        }
    }

    fn shards(&mut self, value: String) -> Result<&mut [ShardWriter; 3]> {
        let dir = self.folder(&value);
        let token_type = self.token_type;
        let writer = self.domains.entry(value).or_default();
        if writer.shards.is_none() {
            std::fs::create_dir_all(&dir).map_err(DataError::io("create", &dir))?;
            let create = |split| ShardWriter::create(&dir, split, token_type);
            writer.shards = Some([create(Split::Train)?, create(Split::Tune)?, create(Split::Valid)?]);
        }
        writer.shards.as_mut().ok_or(DataError::Interrupted)
    }

    /// Gives everything its name. Documents and tokens in all.
    ///
    /// Fails, before anything old is touched, where there is no document.
    fn publish(&mut self, signature: &str) -> Result<(u64, u64)> {
        let by = self.entry.domain.domain_by.is_some();
        let mut finished = Vec::new();
        let mut sum = Counts::default();
        for (value, writer) in &mut self.domains {
            sum.read += writer.counts.read;
            sum.empty += writer.counts.empty;
            // Values whose documents are all empty or seen before make no domain.
            let Some([train, tune, valid]) = writer.shards.take() else { continue };
            let shards = [train.finish()?, tune.finish()?, valid.finish()?];
            let mut counts = writer.counts;
            counts.invalid_skipped = self.skipped;
            counts.read += if by { 0 } else { self.skipped };
            finished.push((value.clone(), shards, counts));
        }
        if finished.is_empty() {
            return Err(DataError::EmptyDomain {
                domain: self.entry.domain.name.clone(),
                files: self.entry.source.files.len(),
                read: sum.read + self.skipped,
                empty: sum.empty,
                invalid: self.skipped,
            });
        }
        remove(&self.dir.join(DOMAIN_LIST))?;
        write_whole(&self.dir.join("tokenizer.json"), self.entry.tokenizer.json().as_bytes())?;
        let mut list = DomainList { signature: signature.to_owned(), folders: BTreeMap::new() };
        let (mut documents, mut tokens) = (0, 0);
        for (value, shards, counts) in finished {
            let dir = self.folder(&value);
            let manifest = self.publish_domain(&dir, by.then_some(&value), shards, counts, signature)?;
            documents += Split::ALL.iter().map(|s| manifest.split(*s).documents).sum::<u64>();
            tokens += manifest.tokens();
            list.folders.insert(value.clone(), store::folder_name(&value));
        }
        if by {
            write_json(&self.dir.join(DOMAIN_LIST), &list)?;
            store::sync_folder(self.dir)?;
        }
        Ok((documents, tokens))
    }

    fn publish_domain(
        &self,
        dir: &Path,
        value: Option<&String>,
        shards: [FinishedShard; 3],
        counts: Counts,
        signature: &str,
    ) -> Result<Manifest> {
        let entry = self.entry;
        let mut manifest = Manifest {
            version: FORMAT_VERSION,
            domain: entry.name(value.map(String::as_str)),
            tokenizer: entry.tokenizer.fingerprint().to_owned(),
            vocab_size: entry.tokenizer.vocab_size(),
            end_of_text: entry.tokenizer.end_of_text(),
            token_type: self.token_type,
            source: SourceRecord {
                spec: entry.source.spec.clone(),
                domain_by: entry.domain.domain_by.clone(),
                domain_value: value.cloned(),
                files: entry.source.records.clone(),
            },
            license: entry.source.license.clone(),
            splits: SplitRecords::default(),
            counts,
            signature: signature.to_owned(),
        };
        // From here until the new one is there, the folder has no manifest: it is not whole.
        Manifest::remove(dir)?;
        for shard in shards {
            *manifest.split_mut(shard.split) = shard.record.clone();
            shard.publish()?;
        }
        manifest.write(dir)?;
        store::sync_folder(dir)?;
        Ok(manifest)
    }

    /// Removes what was begun.
    fn discard(&self) {
        for value in self.domains.keys() {
            let dir = self.folder(value);
            ShardWriter::discard(&dir);
            if self.entry.domain.domain_by.is_some() {
                // Only if nothing older is in it.
                let _ = std::fs::remove_dir(&dir);
            }
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
