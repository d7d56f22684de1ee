//! Corpora to shards, as far as they are missing or out of date.
//!
//! In: the `[tokenizer]` and `[[domain]]` parts of a config. Out: a [`Corpus`], every domain's
//! shards written and opened; or, for one of several workers, its part of them. One pass over each source:
//! a thread reads, all threads parse, clean and tokenize, and what comes out is written in the order of the source, so
//! that the result does not depend on how many there are. Memory: some 3 MiB of text a thread, the buffers of the
//! part files, 20 to 40 bytes a document where duplicates are left out.
//!
//! A part is written so that it can be gone on with after a kill ([`part`](crate::part)). Shards are given their names
//! only when they are whole and synced, `shard.json` last: whatever happens meanwhile, a folder with a `shard.json` is
//! whole. Two processes that want to write one folder do so one after the other, and the second finds the work done.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::assemble::{self, Published, assemble};
use crate::corpus::{Corpus, Domain, Work};
use crate::encoder::{Encoded, Encoder};
use crate::error::{DataError, Result, list};
use crate::index::TokenType;
use crate::manifest::{Counts, FORMAT_VERSION, sha256_hex};
use crate::part::{self, MOST_DOMAINS, PartRecord, PartWriter, Position};
use crate::pipeline::{self, Job, Push};
use crate::progress::{Progress, Tally};
use crate::seen::Seen;
use crate::share::Share;
use crate::source::piece::{Piece, Stretch};
use crate::source::{Flow, Limit, Source, Span};
use crate::space;
use crate::spec::{DomainSource, SplitSpec, TokenizerSpec};
use crate::store::{self, Lock, ShardStore};
use crate::tokenizer::{Scratch, Tokenizer};
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

/// Makes what is missing or out of date and opens it all; where several workers have prepared it in parts, puts
/// these together.
///
/// Fails with a [`DataError`] that names the domain, and lists the parts that are missing; what was done before stays
/// and is gone on with by the next call.
pub fn prepare(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Corpus> {
    let sources = resolve(request, progress)?;
    let tokenizer = Arc::new(tokenizer_choice::choose(request, &sources, progress)?);
    let entries = entries(request, &sources, &tokenizer, progress);
    // If workers have begun on one entry, all entries are theirs.
    let unfinished = entries.iter().filter(|entry| entry.reuse().is_none());
    let workers = unfinished.map(|entry| part::workers(&entry.dir)).max().unwrap_or(1);
    let mut domains = Vec::new();
    for entry in &entries {
        domains.extend(entry.prepare(workers).map_err(|error| error.in_domain(&entry.domain.name))?);
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
    /// Documents in the part; those that another part has too are still among them.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// What it took; `None` where it had been done before.
    pub work: Option<Work>,
}

/// Prepares one of several workers' part of every domain that is missing or out of date. When all parts are there,
/// [`prepare`] puts them together.
///
/// All workers must see the same files under the same paths, and one folder for the shards. Fails as `prepare` does.
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
        let source = Source::resolve(&domain.source, domain.domain_by.as_deref(), request.base, progress);
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
        .map(|(number, (domain, source))| Entry::new(request, number, domain, source, tokenizer, progress))
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

/// One `[[domain]]` entry at work.
pub(crate) struct Entry<'a> {
    request: &'a Prepare<'a>,
    number: usize,
    pub(crate) domain: &'a DomainSource,
    pub(crate) source: &'a Source,
    pub(crate) tokenizer: &'a Tokenizer,
    progress: &'a dyn Progress,
    /// The folder it is written to.
    dir: PathBuf,
    /// Changes when any input changes.
    pub(crate) signature: String,
}

impl<'a> Entry<'a> {
    fn new(
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
    fn prepare(&self, workers: u32) -> Result<Vec<Domain>> {
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
        let published = result.map_err(|error| self.with_room(error, assemble::room(self, &parts)))?;
        let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
        self.progress.finish(&self.summary(&published, work, workers));
        let mut domains = self.open()?;
        self.share_out(work, &mut domains);
        Ok(domains)
    }

    fn prepare_part(&self, share: Share) -> Result<PreparedPart> {
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
        let (documents, tokens) = (splits().map(|s| s.documents).sum(), splits().map(|s| s.tokens).sum());
        let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
        self.progress.finish(&format!(
            "{}, part {share}: {documents} documents, {tokens} tokens{}",
            self.domain.name,
            work.words()
        ));
        Ok(named(documents, tokens, Some(work)))
    }

    /// The domains of an entry that is up to date. Anything wrong with it means that it is not.
    fn reuse(&self) -> Option<Vec<Domain>> {
        if self.domain.domain_by.is_some() && read_list(&self.dir).ok()?.signature != self.signature {
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
        domains.map(|(value, folder)| named(self.dir.join(folder), self.name(Some(value)))).collect()
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
        let waiting = || self.note(&format!("waiting for another process that writes {}", dir.display()));
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
                Some(part) if part.signature != self.signature => "made of another config or source",
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

    /// Does one worker's part, or what is left of it. Second come the bytes of text that were read for it now.
    fn part(&self, share: Share) -> Result<(PartRecord, u64)> {
        let spans = self.source.spans(share);
        let total: u64 = spans.iter().map(|span| self.source.span_bytes(span)).sum();
        if let Some(moved) = self.source.moved_since(&self.dir) {
            self.note(&moved);
        }
        // Where a limit ends reading, nobody knows before how much there is to read.
        let known = self.source.spec.limit.is_none().then_some(total);
        self.progress.start(&format!("tokenize {}", self.domain.name), known);
        let tally = Tally::new(self.progress, known);
        if let Some(part) = assemble::finished(self, &self.dir, share) {
            tally.advance_to_end();
            return Ok((part, 0));
        }
        let seen = self.source.deduplicate.then(Seen::new);
        let (mut writer, next) = PartWriter::open(self, &self.dir, share, &self.signature, seen.as_ref())?;
        self.check_room(total.saturating_sub(writer.read()));
        if let Some(next) = next
            && let Err(error) = self.fill(&mut writer, &spans, next, seen.as_ref(), &tally)
        {
            // Before it is tried to keep it all, which may write some of it.
            let (written, waiting) = (writer.written(), writer.waiting());
            writer.keep();
            let done = tally.share(writer.read());
            let left = done.and_then(|done| Some((space::left(written + waiting, done)?, done)));
            let room = left.map(|(left, done)| (left + waiting, Some((written, done))));
            return Err(self.with_room(error, room));
        }
        tally.advance_to_end();
        let room = Some((writer.waiting(), None));
        Ok((writer.finish().map_err(|error| self.with_room(error, room))?, tally.text()))
    }

    /// Reads in a thread of its own and works in all others, while this one writes.
    fn fill(
        &self,
        writer: &mut PartWriter<'_>,
        spans: &[Span],
        from: Position,
        seen: Option<&Seen>,
        tally: &Tally<'_>,
    ) -> Result<()> {
        let encoder = Encoder {
            source: self.source,
            splits: self.request.splits,
            tokenizer: self.tokenizer,
            token_type: self.token_type(),
            seen,
        };
        let advance = |bytes| tally.advance(bytes);
        let worker = || {
            let mut scratch = Scratch::default();
            move |Cut { span, read, piece }: Cut<'_>| {
                let next = Position { span, place: piece.next };
                Ok((encoder.encode(piece, &mut scratch), next, read))
            }
        };
        let take = |(encoded, next, read): (Encoded, Position, u64)| {
            tally.add_text(encoded.documents.iter().map(|document| document.bytes).sum());
            writer.take(encoded, next, read)
        };
        let threads = rayon::current_num_threads();
        pipeline::run(threads, |push| self.read(spans, from, &advance, tally, push), worker, take)
    }

    /// Pushes the pieces of all spans from a place on.
    fn read<'r>(
        &'r self,
        spans: &[Span],
        from: Position,
        advance: &'r (dyn Fn(u64) + Sync),
        tally: &Tally<'_>,
        push: &mut Push<'_, Cut<'r>>,
    ) -> Result<()> {
        let expected = Some((self.tokenizer.vocab_size(), self.tokenizer.fingerprint()));
        for (number, span) in spans.iter().enumerate() {
            tally.begin(self.source.span_bytes(span));
            if number < from.span {
                tally.end();
                continue;
            }
            // A limit may be reached by what is on its way: the next file should not be fetched for nothing.
            if self.source.spec.limit.is_some() && push.settle().is_break() {
                return Ok(());
            }
            self.source.fetch(&self.source.files[span.file], self.progress, self.request.interrupted)?;
            let place = if number == from.span { from.place } else { Default::default() };
            let stretch = Stretch { from: place, within: span.within.clone() };
            let mut flow = ControlFlow::Continue(());
            self.source.pieces(span.file, &stretch, expected, advance, &mut |piece| {
                if self.request.interrupted.load(Ordering::Relaxed) {
                    return Err(DataError::Interrupted);
                }
                flow = push
                    .push(Job { bytes: piece.bytes, job: Cut { span: number, read: tally.read(), piece } });
                Ok(if flow.is_continue() { Flow::Continue } else { Flow::NextFile })
            })?;
            if flow.is_break() {
                return Ok(());
            }
            tally.end();
        }
        Ok(())
    }

    /// Warns where there is hardly room for what `bytes` on disk of the source will make.
    fn check_room(&self, bytes: u64) {
        let needed = match self.source.spec.limit {
            None => space::estimate(self.source, bytes, self.token_type()),
            Some(Limit::Bytes(text)) => space::of_text(text, self.token_type()),
            Some(Limit::Documents(_)) => return,
        };
        if let Some(free) = space::free(&self.dir).filter(|free| *free < needed) {
            self.note(&format!(
                "some {} will be needed where {} lies, and {} are free there; should it not suffice, nothing is lost",
                space::words(needed),
                self.dir.display(),
                space::words(free)
            ));
        }
    }

    /// An error about a full disk with how much more is needed, and of which work; any other as it is.
    fn with_room(&self, error: DataError, room: Option<Room>) -> DataError {
        match error {
            DataError::Io { path, doing: "write" | "create", source } if space::is_full(&source) => {
                let free = space::free(&self.dir);
                DataError::DiskFull {
                    path,
                    source,
                    needed: room.map(|room| room.0),
                    done: room.and_then(|room| room.1),
                    free,
                }
            }
            error => error,
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

/// A piece on its way to a worker.
struct Cut<'a> {
    /// The number of its span.
    span: usize,
    /// Bytes on disk that have been read when it was cut.
    read: u64,
    piece: Piece<'a>,
}

/// Bytes that are still needed on the disk; and the bytes written so far with the share of the work done, where that is
/// what they follow from.
pub(crate) type Room = (u64, Option<(u64, f64)>);

/// Reads the `domains.json` in the folder of a `domain_by` entry.
pub(crate) fn read_list(dir: &Path) -> Result<DomainList> {
    let path = dir.join(DOMAIN_LIST);
    let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| DataError::Manifest { path, message: error.to_string() })
}
