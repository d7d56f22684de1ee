//! One `[[domain]]` entry: what identifies it, whether its shards are up to date, and who makes
//! them.
//!
//! In: the entry, its source resolved, and the tokenizer. Out: its domains, opened; or one worker's
//! part of them. Locks keep two processes from writing one folder: a plain `prepare` is alone in
//! it, workers share it, each alone in its part.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::assemble::{self, Published, assemble};
use crate::corpus::{Domain, Work};
use crate::error::{DataError, Result, list};
use crate::index::TokenType;
use crate::manifest::{FORMAT_VERSION, sha256_hex};
use crate::part::{self, PartRecord};
use crate::part_writer::MOST_DOMAINS;
use crate::prepare::{Prepare, PreparedPart, read_list};
use crate::progress::Progress;
use crate::share::Share;
use crate::source::Source;
use crate::spec::DomainSource;
use crate::store::{self, Lock};
use crate::tokenizer::Tokenizer;

/// One `[[domain]]` entry at work.
pub(crate) struct Entry<'a> {
    pub(crate) request: &'a Prepare<'a>,
    number: usize,
    pub(crate) domain: &'a DomainSource,
    pub(crate) source: &'a Source,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) progress: &'a dyn Progress,
    /// The folder it is written to.
    pub(crate) dir: PathBuf,
    /// Changes when any input changes.
    pub(crate) signature: String,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(
        request: &'a Prepare<'a>,
        number: usize,
        domain: &'a DomainSource,
        source: &'a Source,
        tokenizer: &'a Tokenizer,
        progress: &'a dyn Progress,
    ) -> Entry<'a> {
        let identity = json!({
            "version": FORMAT_VERSION,
            "source": source.identity,
            "domain_by": domain.domain_by,
            "tokenizer": tokenizer.fingerprint(),
            "end_of_text": tokenizer.end_of_text(),
            "splits": request.splits,
        });
        let key = sha256_hex(identity.to_string().as_bytes());
        let mut inputs = json!({ "identity": identity, "files": source.records });
        if let Some(hub) = &source.hub {
            inputs["hub"] = json!(hub);
        }
        let signature = sha256_hex(inputs.to_string().as_bytes());
        let dir = request.store.entry(&domain.name, &source.spec, &key);
        Entry { request, number, domain, source, tokenizer, progress, dir, signature }
    }

    /// `workers` is how many of them have prepared the entry in parts, 1 where none have.
    pub(crate) fn prepare(&self, workers: u32) -> Result<Vec<Domain>> {
        if let Some(domains) = self.reuse() {
            // An assembly was killed just before its last step.
            if part::found(&self.dir).iter().any(|part| part.signature == self.signature) {
                let _lock = self.lock(&self.dir, Lock::Exclusive)?;
                assemble::remove_parts(&self.dir)?;
            }
            return Ok(domains);
        }
        self.check_sources_are_elsewhere()?;
        let _lock = self.lock(&self.dir, Lock::Exclusive)?;
        // Another process may have done it meanwhile.
        if let Some(domains) = self.reuse() {
            return Ok(domains);
        }
        // These may have begun meanwhile, too.
        let workers = workers.max(part::workers(&self.dir));
        let begun = Instant::now();
        let (parts, bytes) = match workers {
            1 => {
                let (part, bytes) = self.part(Share::WHOLE)?;
                (vec![part], bytes)
            }
            _ => {
                let parts = self.finished_parts(workers)?;
                self.progress.start(&format!("assemble {}", self.domain.name), None);
                (parts, 0)
            }
        };
        let result = assemble(self, &self.dir, &self.signature, &parts);
        let published =
            result.map_err(|error| self.with_room(error, assemble::room(self, &parts)))?;
        let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
        self.progress.finish(&self.summary(&published, work, workers));
        let mut domains = self.open()?;
        self.share_out(work, &mut domains);
        Ok(domains)
    }

    pub(crate) fn prepare_part(&self, share: Share) -> Result<PreparedPart> {
        let named = |documents, tokens, work| PreparedPart {
            name: self.domain.name.clone(),
            dir: self.dir.clone(),
            documents,
            tokens,
            work,
        };
        if self.reuse().is_some() {
            return Ok(named(0, 0, None));
        }
        self.check_sources_are_elsewhere()?;
        let _lock = self.lock(&self.dir, Lock::Shared)?;
        // The parts may have been put together meanwhile.
        if self.reuse().is_some() {
            return Ok(named(0, 0, None));
        }
        let _own = self.lock(&part::part_folder(&self.dir, share), Lock::Exclusive)?;
        let begun = Instant::now();
        let (part, bytes) = self.part(share)?;
        let splits = || part.domains.iter().flat_map(|domain| &domain.splits);
        let (documents, tokens) =
            (splits().map(|s| s.documents).sum(), splits().map(|s| s.tokens).sum());
        let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
        self.progress.finish(&format!(
            "{}, part {share}: {documents} documents, {tokens} tokens{}",
            self.domain.name,
            work.words()
        ));
        Ok(named(documents, tokens, Some(work)))
    }

    /// The domains of an entry that is up to date. Anything wrong with it means that it is not.
    pub(crate) fn reuse(&self) -> Option<Vec<Domain>> {
        if self.domain.domain_by.is_some() && read_list(&self.dir).ok()?.signature != self.signature
        {
            return None;
        }
        let domains = self.open().ok()?;
        domains.iter().all(|domain| domain.manifest.signature == self.signature).then_some(domains)
    }

    fn open(&self) -> Result<Vec<Domain>> {
        let named = |dir: PathBuf, name: String| -> Result<Domain> {
            let mut domain = Domain::open(&dir)?;
            (domain.name, domain.entry) = (name, self.number);
            Ok(domain)
        };
        if self.domain.domain_by.is_none() {
            return Ok(vec![named(self.dir.clone(), self.domain.name.clone())?]);
        }
        let list = read_list(&self.dir)?;
        let domains = list.folders.iter();
        domains
            .map(|(value, folder)| named(self.dir.join(folder), self.name(Some(value))))
            .collect()
    }

    /// Each domain's work: the entry's, by its bytes.
    fn share_out(&self, work: Work, domains: &mut [Domain]) {
        let all: u64 = domains.iter().map(|domain| domain.manifest.bytes()).sum();
        for domain in domains {
            let share = domain.manifest.bytes() as f64 / all.max(1) as f64;
            let bytes = (work.bytes as f64 * share) as u64;
            domain.work = Some(Work { bytes, seconds: work.seconds * share });
            domain.reused = false;
        }
    }

    /// The name of the domain of a value of `domain_by`, or of the entry itself.
    pub(crate) fn name(&self, value: Option<&str>) -> String {
        match value {
            Some(value) => format!("{}/{value}", self.domain.name),
            None => self.domain.name.clone(),
        }
    }

    /// The folder of the domain of a value of `domain_by`, or of the entry itself.
    pub(crate) fn folder(&self, value: &str) -> PathBuf {
        match self.domain.domain_by {
            Some(_) => self.dir.join(store::folder_name(value)),
            None => self.dir.clone(),
        }
    }

    pub(crate) fn token_type(&self) -> TokenType {
        TokenType::for_vocabulary(self.tokenizer.vocab_size())
    }

    /// Says something that people should know.
    pub(crate) fn note(&self, line: &str) {
        self.progress.note(&format!("{}: {line}", self.domain.name));
    }

    /// That another domain may come to the `count` whose values are `known`.
    pub(crate) fn check_number<'v>(
        &self,
        count: usize,
        known: impl Iterator<Item = &'v String>,
    ) -> Result<()> {
        match &self.domain.domain_by {
            Some(column) if count >= MOST_DOMAINS => Err(DataError::TooManyDomains {
                domain: self.domain.name.clone(),
                column: column.clone(),
                limit: MOST_DOMAINS,
                examples: known.take(5).cloned().collect(),
            }),
            _ => Ok(()),
        }
    }

    /// Writing shards over the shards they are made from would lose both.
    fn check_sources_are_elsewhere(&self) -> Result<()> {
        let Ok(store) = self.dir.canonicalize() else { return Ok(()) };
        for file in &self.source.files {
            let inside = file.path.canonicalize().is_ok_and(|path| path.starts_with(&store));
            if inside {
                return Err(DataError::SourceInStore { path: file.path.clone(), store });
            }
        }
        Ok(())
    }

    fn lock(&self, dir: &Path, kind: Lock) -> Result<std::fs::File> {
        let waiting =
            || self.note(&format!("waiting for another process that writes {}", dir.display()));
        store::lock(dir, kind, self.request.interrupted, &waiting)
    }

    /// The parts that workers have made, in order.
    ///
    /// Fails with those that are missing.
    fn finished_parts(&self, of: u32) -> Result<Vec<PartRecord>> {
        let mut parts = Vec::new();
        let mut missing = Vec::new();
        for share in Share::all(of) {
            let why = match PartRecord::read(&part::part_folder(&self.dir, share)) {
                None => "not begun",
                Some(part) if part.signature != self.signature => {
                    "made of another config or source"
                }
                Some(part) if !part.is_done() => "not finished",
                Some(_) => match assemble::finished(self, &self.dir, share) {
                    Some(part) => {
                        parts.push(part);
                        continue;
                    }
                    None => "damaged",
                },
            };
            missing.push((share.to_string(), why));
        }
        if missing.is_empty() {
            Ok(parts)
        } else {
            Err(DataError::PartsMissing { folder: part::parts_folder(&self.dir), of, missing })
        }
    }

    fn summary(&self, published: &Published, work: Work, workers: u32) -> String {
        let Published { documents, tokens, without_text } = published;
        let from = match workers {
            1 => format!("{} files", self.source.files.len()),
            workers => format!("{workers} workers' parts"),
        };
        let mut summary = format!(
            "{}: {documents} documents, {tokens} tokens from {from}{}",
            self.domain.name,
            work.words()
        );
        if !without_text.is_empty() {
            let values: Vec<String> = without_text.keys().cloned().collect();
            summary.push_str(&format!(
                "; no domain for {}: nothing but empty documents or duplicates",
                list(&values)
            ));
        }
        summary
    }
}
