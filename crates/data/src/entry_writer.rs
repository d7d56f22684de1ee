//! One `[[domain]]` entry's way from batches of documents to published shards.
//!
//! In: documents in the order of the source. Out: a folder of shards for the entry, or for each value of
//! its `domain_by`. Tokenizing runs on all threads; what is written does not depend on how many
//! there are. Drops documents without text and, where asked, those seen before.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{DataError, Result};
use crate::index::TokenType;
use crate::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecords, remove_file, write_json, write_whole,
};
use crate::prepare::{DOMAIN_LIST, DomainList, Entry};
use crate::shard_writer::{FinishedShard, ShardWriter};
use crate::source::{Content, Document};
use crate::split::{DocumentId, Split};
use crate::store;

/// More values of `domain_by` than this are taken for a mistake.
const MOST_DOMAINS: usize = 1_000;

/// Documents that travel together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) documents: Vec<Document>,
    /// Invalid ones left out by the reader.
    pub(crate) skipped: u64,
}

/// A document's text, and its tokens where it came with them.
struct Known {
    text: String,
    tokens: Option<Vec<u32>>,
    id: DocumentId,
}

/// What came of an entry.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
    /// Values of `domain_by` that made no domain, since none of their documents was left.
    pub(crate) without_text: BTreeMap<String, Counts>,
}

/// The domains of an entry being written.
pub(crate) struct EntryWriter<'a> {
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

impl<'a> EntryWriter<'a> {
    /// Nothing is written before the first document.
    pub(crate) fn new(entry: &'a Entry<'a>, dir: &'a Path) -> EntryWriter<'a> {
        EntryWriter {
            entry,
            dir,
            token_type: TokenType::for_vocabulary(entry.tokenizer.vocab_size()),
            seen: HashSet::new(),
            skipped: 0,
            domains: BTreeMap::new(),
        }
    }

    /// Tokenizes a batch and writes it.
    pub(crate) fn take(&mut self, batch: Batch) -> Result<()> {
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
            let mut tokens = self.ended(tokens);
            let split = self.entry.request.splits.of(known.id, document.unit.as_deref());
            if let (Some(corrupt), Some((_, text))) =
                (self.entry.source.spec.corrupt, tokens.split_last_mut())
                && split != Split::Valid
            {
                corrupt.apply(text, known.id);
            }
            Ok((document.domain.unwrap_or_default(), split, known.text.len() as u64, tokens))
        };
        let encoded: Result<Vec<_>> = kept.into_par_iter().map(encode).collect();
        for (value, split, bytes, tokens) in encoded? {
            self.shards(value)?[split.number()].push(&tokens, bytes)?;
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
            store::create_folder(&dir)?;
            let create = |split| ShardWriter::create(&dir, split, token_type);
            writer.shards = Some([create(Split::Train)?, create(Split::Tune)?, create(Split::Valid)?]);
        }
        writer.shards.as_mut().ok_or(DataError::Interrupted)
    }

    /// Gives everything its name.
    ///
    /// Fails, before anything old is touched, where there is no document.
    pub(crate) fn publish(&mut self, signature: &str) -> Result<Published> {
        let by = self.entry.domain.domain_by.is_some();
        let mut finished = Vec::new();
        let mut published = Published::default();
        let mut sum = Counts::default();
        for (value, writer) in &mut self.domains {
            sum.read += writer.counts.read;
            sum.empty += writer.counts.empty;
            // Values whose documents are all empty or seen before make no domain, and are listed.
            let Some([train, tune, valid]) = writer.shards.take() else {
                published.without_text.insert(value.clone(), writer.counts);
                continue;
            };
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
        remove_file(&self.dir.join(DOMAIN_LIST))?;
        write_whole(&self.dir.join("tokenizer.json"), self.entry.tokenizer.json().as_bytes())?;
        let mut list = DomainList {
            signature: signature.to_owned(),
            folders: BTreeMap::new(),
            without_text: published.without_text.clone(),
        };
        for (value, shards, counts) in finished {
            let dir = self.folder(&value);
            let manifest = self.publish_domain(&dir, by.then_some(&value), shards, counts, signature)?;
            published.documents += Split::ALL.iter().map(|s| manifest.split(*s).documents).sum::<u64>();
            published.tokens += manifest.tokens();
            list.folders.insert(value.clone(), store::folder_name(&value));
        }
        if by {
            write_json(&self.dir.join(DOMAIN_LIST), &list)?;
            store::sync_folder(self.dir)?;
        }
        Ok(published)
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
                hub: entry.source.hub.clone(),
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
    pub(crate) fn discard(&self) {
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
