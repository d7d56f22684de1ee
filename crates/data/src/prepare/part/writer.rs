//! One worker's part of an entry, written so that a kill at any moment loses at most the last few
//! seconds.
//!
//! In: encoded chunks in the order of the source. Out: the files of a part, and `part.json`, which
//! says how much of them counts and where in the source to go on. A commit syncs the files and then
//! replaces `part.json` in one step. Going on, everything behind the last commit is cut off and
//! read again. Memory: buffers, 64 MiB at most together, and the set of known documents.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use cuvee_words::printable_path;

use super::files::{
    DocumentRecord, RecordWriter, StreamWriter, read_records, records_file, stream_files,
};
use super::record::{FILE_NAME, PART_VERSION, PartDomain, PartRecord, Position, part_folder};
use crate::document::cleaning::Verdict;
use crate::document::invalid::LeftOut;
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::prepare::dedup::DedupSet;
use crate::prepare::encoder::{EncodedChunk, EncodedDocument};
use crate::prepare::job::Job;
use crate::progress::Progress;
use crate::shard::manifest::Counts;
use crate::shard::store;
use crate::source::meter::Meter;
use crate::source::share::Share;
use crate::token_type::TokenType;

/// Bytes gathered in all buffers together.
const BUFFERED: usize = 64 << 20;
/// The share of the text between two commits that comes on top for each file that must be synced,
/// so that syncing never is most of the work.
const COMMIT_SHARE_OF_FILE: u64 = 1024;

/// A part being written.
pub(crate) struct PartWriter<'a> {
    job: &'a Job<'a>,
    progress: &'a dyn Progress,
    /// The documents so far, where duplicates are left out.
    known: Option<&'a DedupSet>,
    folder: PathBuf,
    record: PartRecord,
    token_type: TokenType,
    domains: Vec<Writer>,
    /// From the value of `domain_by` to the number of the domain.
    numbers: HashMap<String, usize>,
    records: Option<RecordWriter>,
    /// Bytes in the buffers, at most.
    buffered: usize,
    /// Bytes of text since the last commit.
    uncommitted: u64,
    committing: Option<JoinHandle<Result<()>>>,
    /// What is on disk for certain, synced or not.
    flushed: Option<PartRecord>,
    /// A write has failed: what is in memory and on disk may differ.
    broken: bool,
}

struct Writer {
    value: String,
    counts: Counts,
    streams: [StreamWriter; 3],
}

impl<'a> PartWriter<'a> {
    /// Begins a part, or goes on with one: second comes where to read, none where all has been
    /// read.
    ///
    /// Where something is there that cannot be gone on with, it is told of and begun anew. `known`
    /// learns of the documents so far. The part is made of so many `spans` of the source.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn open(
        job: &'a Job<'a>,
        share: Share,
        spans: usize,
        known: Option<&'a DedupSet>,
        progress: &'a dyn Progress,
    ) -> Result<(PartWriter<'a>, Option<Position>)> {
        let folder = part_folder(&job.dir, share);
        store::create_folder(&folder)?;
        let found =
            PartRecord::read(&folder).map(|found| found.filter(|found| found.share == share));
        let resumed = match found {
            Ok(None) => None,
            Ok(Some(record)) if record.signature != job.signature => {
                progress.note(&job.line(
                    "the config or the source has changed since an earlier run stopped: beginning anew",
                ));
                None
            }
            Ok(Some(record)) => {
                Some(PartWriter::resume(job, folder.clone(), record, spans, known, progress))
            }
            Err(error) => Some(Err(error)),
        };
        match resumed {
            None => {}
            Some(Ok(writer)) => {
                let next = writer.record.next;
                return Ok((writer, next));
            }
            Some(Err(error)) => {
                let error = error.to_string();
                let error = error.lines().next().unwrap_or_default();
                progress.note(&job.line(&format!(
                    "what an earlier run left in {} cannot be gone on with and is made again: {error}",
                    printable_path(&folder)
                )));
            }
        }
        let record = PartRecord {
            version: PART_VERSION,
            signature: job.signature.clone(),
            share,
            next: Some(Position::default()),
            read: 0,
            documents: 0,
            bytes: 0,
            skipped: 0,
            left_out: LeftOut::default(),
            records: 0,
            forgetful: false,
            domains: Vec::new(),
        };
        // What the records of a part that could not be gone on with have told `known` is read
        // again.
        if let Some(known) = known {
            known.clear();
        }
        remove_all_but(&folder, &HashSet::from([folder.join(store::LOCK)]))?;
        let records = known.map(|_| RecordWriter::new(&folder));
        let writer = PartWriter::with(job, folder, record, known, records, progress);
        Ok((writer, Some(Position::default())))
    }

    fn resume(
        job: &'a Job<'a>,
        folder: PathBuf,
        record: PartRecord,
        spans: usize,
        known: Option<&'a DedupSet>,
        progress: &'a dyn Progress,
    ) -> Result<PartWriter<'a>> {
        if let Some(next) = record.next.filter(|next| next.span >= spans.max(1)) {
            let message =
                format!("expected to go on in file 0 to {}, found {}", spans.max(1) - 1, next.span);
            return Err(DataError::Manifest { path: folder.join(FILE_NAME), message });
        }
        let (domains, records) = cut_back(&folder, &record, job.token_type(), known.is_some())?;
        if let Some(known) = known {
            read_records(&folder, record.records, |document| {
                known.insert(document.id);
                Ok(())
            })?;
        }
        let mut writer = PartWriter::with(job, folder, record, known, records, progress);
        let values = domains.iter().map(|domain| domain.value.clone());
        writer.numbers = values.zip(0..).collect();
        writer.domains = domains;
        Ok(writer)
    }

    fn with(
        job: &'a Job<'a>,
        folder: PathBuf,
        record: PartRecord,
        known: Option<&'a DedupSet>,
        records: Option<RecordWriter>,
        progress: &'a dyn Progress,
    ) -> PartWriter<'a> {
        PartWriter {
            job,
            progress,
            known,
            folder,
            record,
            token_type: job.token_type(),
            domains: Vec::new(),
            numbers: HashMap::new(),
            records,
            buffered: 0,
            uncommitted: 0,
            committing: None,
            flushed: None,
            broken: false,
        }
    }

    /// Writes what one chunk became; `next` is where reading goes on after it, `read` how many
    /// bytes on disk of the source come before that. `Break` where the source's limit is reached.
    ///
    /// # Errors
    /// What ended the chunk early, unless the limit is reached before; more domains than can be
    /// meant; a full disk.
    pub(crate) fn take(
        &mut self,
        mut encoded: EncodedChunk,
        next: Position,
        read: u64,
    ) -> Result<ControlFlow<()>> {
        let limit = self.job.source.spec.limit;
        let mut meter = Meter::after(limit, self.record.documents, self.record.bytes);
        let last = encoded.documents.iter().position(|document| meter.take(document.length));
        if let Some(last) = last {
            encoded.documents.truncate(last + 1);
            encoded.skipped = None;
        } else if let Some(error) = encoded.error.take() {
            // The chunk is read again when the run goes on: nothing of it may be written.
            return Err(error);
        }
        let written = self.write(encoded);
        self.broken |= written.is_err();
        written?;
        if last.is_some() {
            return Ok(ControlFlow::Break(()));
        }
        self.record.next = Some(next);
        self.record.read = read;
        let (files, every) = (2 * 3 * self.domains.len() as u64, self.job.options.commit_every);
        if self.uncommitted
            >= every.saturating_add(files.saturating_mul(every) / COMMIT_SHARE_OF_FILE)
        {
            self.commit(false)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn write(&mut self, encoded: EncodedChunk) -> Result<()> {
        let size = self.token_type.size();
        let mut rest = encoded.tokens.as_slice();
        for mut document in encoded.documents {
            document.skipped.take().into_iter().for_each(|skips| self.record.skip(*skips));
            self.record.documents += 1;
            self.record.bytes += document.length;
            self.uncommitted += document.bytes;
            let tokens;
            (tokens, rest) = rest.split_at(document.tokens as usize * size);
            self.document(document, tokens)?;
        }
        encoded.skipped.into_iter().for_each(|skips| self.record.skip(*skips));
        self.buffered += encoded.tokens.len();
        if self.buffered >= BUFFERED {
            self.flush()?;
        }
        Ok(())
    }

    fn document(&mut self, document: EncodedDocument, tokens: &[u8]) -> Result<()> {
        let number = self.domain(document.domain.as_deref().unwrap_or_default())?;
        let domain = &mut self.domains[number];
        let counts = &mut domain.counts;
        counts.read += 1;
        match document.verdict {
            Verdict::Kept => {}
            Verdict::Empty => counts.empty += 1,
            Verdict::TooShort => counts.too_short += 1,
            Verdict::TooLong => counts.too_long += 1,
        }
        if document.verdict != Verdict::Kept {
            return Ok(());
        }
        if self.known.is_some_and(|known| !known.insert(document.id)) {
            counts.duplicates += 1;
            return Ok(());
        }
        counts.invalid_replaced += u64::from(document.replaced);
        counts.cr_stripped += u64::from(document.changes.cr_stripped);
        counts.normalized += u64::from(document.changes.normalized);
        counts.end_of_text_within += u64::from(document.end_of_text_within);
        if let Some(records) = &mut self.records {
            records.push(DocumentRecord {
                id: document.id,
                bytes: document.bytes,
                tokens: document.tokens,
                // There are at most a thousand.
                domain: number as u16,
                split: document.split,
                replaced: document.replaced,
                cr_stripped: document.changes.cr_stripped,
                normalized: document.changes.normalized,
                end_of_text_within: document.end_of_text_within,
            })?;
        }
        domain.streams[document.split.number()].push(tokens, document.tokens, document.bytes)
    }

    /// The number of a domain, which is made where it is new.
    fn domain(&mut self, value: &str) -> Result<usize> {
        if let Some(number) = self.numbers.get(value) {
            return Ok(*number);
        }
        self.job.check_number(self.numbers.len(), self.numbers.keys())?;
        let number = self.domains.len();
        let streams = Split::ALL.map(|split| StreamWriter::new(&self.folder, number, split));
        self.domains.push(Writer { value: value.to_owned(), counts: Counts::default(), streams });
        self.numbers.insert(value.to_owned(), number);
        Ok(number)
    }

    fn flush(&mut self) -> Result<()> {
        self.buffered = 0;
        for stream in self.domains.iter_mut().flat_map(|domain| &mut domain.streams) {
            stream.flush()?;
        }
        self.records.as_mut().map_or(Ok(()), RecordWriter::flush)
    }

    /// Makes everything so far outlive a kill. Syncing goes on in a thread of its own; `wait` waits
    /// for it.
    fn commit(&mut self, wait: bool) -> Result<()> {
        if self.committing.as_ref().is_some_and(|commit| !commit.is_finished()) && !wait {
            // The disk is slower than the work: a little later, then.
            return Ok(());
        }
        self.settle()?;
        let flushed = self.flush();
        self.broken |= flushed.is_err();
        flushed?;
        self.uncommitted = 0;
        self.record.records = self.records.as_ref().map_or(0, RecordWriter::count);
        self.record.forgetful |= self.known.is_some_and(DedupSet::is_full);
        self.record.domains = self.domains.iter().map(Writer::record).collect();
        let streams = self.domains.iter_mut().flat_map(|domain| &mut domain.streams);
        let mut dirty: Vec<PathBuf> = streams.flat_map(StreamWriter::take_dirty).collect();
        dirty.extend(self.records.as_mut().and_then(RecordWriter::take_dirty));
        self.flushed = Some(self.record.clone());
        let (folder, record) = (self.folder.clone(), self.record.clone());
        let dirty = Arc::new(dirty);
        let files = dirty.clone();
        let commit = move || write_commit(&folder, &record, &files);
        match std::thread::Builder::new().spawn(commit) {
            Ok(thread) => self.committing = Some(thread),
            // Where there are no more threads, this one waits for the disk.
            Err(_) => {
                let written = write_commit(&self.folder, &self.record, &dirty);
                self.broken |= written.is_err();
                return written;
            }
        }
        if wait { self.settle() } else { Ok(()) }
    }

    /// Waits for a commit that is under way.
    fn settle(&mut self) -> Result<()> {
        match self.committing.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(result)) => {
                self.broken |= result.is_err();
                result
            }
            None => Ok(()),
        }
    }

    /// Keeps what can be kept after an error: everything before it; where writing itself has
    /// failed, what was flushed before.
    pub(crate) fn keep(&mut self) {
        let kept = if self.broken { self.fall_back() } else { self.commit(true) };
        if let Err(error) = kept {
            let error = error.to_string();
            let error = error.lines().next().unwrap_or_default();
            self.progress.note(&self.job.line(&format!(
                "what was done since the last commit has to be done again: {error}"
            )));
        }
    }

    /// Goes back to what was flushed last and commits that. On a full disk, cutting off the rest
    /// frees the space that `part.json` needs.
    fn fall_back(&mut self) -> Result<()> {
        // Its commit may have been the first to find the disk full.
        let _ = self.settle();
        let Some(record) = self.flushed.take() else { return Ok(()) };
        cut_back(&self.folder, &record, self.token_type, self.known.is_some())?;
        let files: Vec<PathBuf> = known_files(&self.folder, &record, self.known.is_some())
            .into_iter()
            .filter(|file| file.exists())
            .collect();
        write_commit(&self.folder, &record, &files)
    }

    /// Everything has been read.
    pub(crate) fn finish(mut self) -> Result<PartRecord> {
        self.record.next = None;
        if let Err(error) = self.commit(true) {
            self.keep();
            return Err(error);
        }
        Ok(self.record)
    }

    /// Bytes that are still in the buffers.
    pub(crate) fn waiting(&self) -> u64 {
        let streams = self.domains.iter().flat_map(|domain| &domain.streams);
        streams.map(StreamWriter::waiting).sum::<u64>()
            + self.records.as_ref().map_or(0, RecordWriter::waiting)
    }

    /// Bytes on disk of the source that are written.
    pub(crate) fn read(&self) -> u64 {
        self.record.read
    }

    /// Bytes on disk.
    pub(crate) fn written(&self) -> u64 {
        let streams = self.domains.iter().flat_map(|domain| &domain.streams);
        streams.map(StreamWriter::written).sum::<u64>()
            + self.records.as_ref().map_or(0, RecordWriter::written)
    }
}

impl Writer {
    fn record(&self) -> PartDomain {
        let [train, tune, valid] = &self.streams;
        PartDomain {
            value: self.value.clone(),
            counts: self.counts,
            splits: [train.record(), tune.record(), valid.record()],
        }
    }
}

/// Syncs files, and then writes the record that says how much of them counts.
fn write_commit(folder: &Path, record: &PartRecord, files: &[PathBuf]) -> Result<()> {
    for path in files {
        let sync = || OpenOptions::new().append(true).open(path)?.sync_data();
        sync().map_err(DataError::io("write", path))?;
    }
    cuvee_fs::sync_folder(folder)?;
    record.write(folder)
}

/// Truncates all files of a part to what a record says and removes those that it does not know.
///
/// # Errors
/// One of them is shorter than that.
fn cut_back(
    folder: &Path,
    record: &PartRecord,
    token_type: TokenType,
    with_records: bool,
) -> Result<(Vec<Writer>, Option<RecordWriter>)> {
    let size = token_type.size() as u64;
    let mut domains = Vec::new();
    for (number, domain) in record.domains.iter().enumerate() {
        let resume = |split: Split| {
            StreamWriter::resume(folder, number, split, &domain.splits[split.number()], size)
        };
        let streams = [resume(Split::Train)?, resume(Split::Tune)?, resume(Split::Valid)?];
        domains.push(Writer { value: domain.value.clone(), counts: domain.counts, streams });
    }
    let records =
        if with_records { Some(RecordWriter::resume(folder, record.records)?) } else { None };
    let mut known = known_files(folder, record, with_records);
    known.extend([folder.join(FILE_NAME), folder.join(store::LOCK)]);
    remove_all_but(folder, &known)?;
    Ok((domains, records))
}

/// The files that a record says something about, there or not.
fn known_files(folder: &Path, record: &PartRecord, with_records: bool) -> HashSet<PathBuf> {
    let numbers = 0..record.domains.len();
    let streams =
        numbers.flat_map(|number| Split::ALL.map(|split| stream_files(folder, number, split)));
    streams.flatten().chain(with_records.then(|| records_file(folder))).collect()
}

/// Removes all files of a folder but these.
fn remove_all_but(folder: &Path, known: &HashSet<PathBuf>) -> Result<()> {
    for file in std::fs::read_dir(folder).map_err(DataError::io("read", folder))?.flatten() {
        if !known.contains(&file.path()) {
            cuvee_fs::remove_file(&file.path())?;
        }
    }
    Ok(())
}
