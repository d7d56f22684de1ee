//! One worker's part of an entry, written so that a kill at any moment loses at most the last few
//! seconds.
//!
//! In: encoded pieces in the order of the source. Out: a folder of part files that only grow,
//! beside them `part.json`, which says how much of them counts and where in the source to go on. It
//! is written anew now and then: the files are synced first, and it replaces its predecessor in one
//! step. Going on, everything behind it is cut off and read again. Memory: buffers, 64 MiB at most
//! together, and what knowing duplicates takes.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::cleaning::Fate;
use crate::encoder::{Encoded, Made};
use crate::entry::Entry;
use crate::error::{DataError, Result};
use crate::index::TokenType;
use crate::manifest::{Counts, remove_file, write_json};
use crate::part::{FILE_NAME, PART_VERSION, PartDomain, PartRecord, Position, part_folder};
use crate::part_files::{Noted, Notes, Stream, notes_file, read_notes, stream_files};
use crate::seen::Seen;
use crate::share::Share;
use crate::source::Meter;
use crate::split::Split;
use crate::store;

/// More values of `domain_by` than this are taken for a mistake.
pub(crate) const MOST_DOMAINS: usize = 1_000;
/// Bytes gathered in all buffers together.
const BUFFERED: usize = 64 << 20;
/// Bytes of text between two commits: some seconds of work.
const COMMIT_EVERY: u64 = 256 << 20;
/// The share of it that comes on top for each file that must be synced, so that syncing never is
/// most of the work.
const COMMIT_SHARE_OF_FILE: u64 = 1024;
/// Sets [`COMMIT_EVERY`], in bytes, for tests that kill this program between commits.
const COMMIT_VARIABLE: &str = "CUVEE_COMMIT_BYTES";

/// A part being written.
pub(crate) struct PartWriter<'a> {
    entry: &'a Entry<'a>,
    seen: Option<&'a Seen>,
    folder: PathBuf,
    record: PartRecord,
    token_type: TokenType,
    domains: Vec<Writer>,
    /// From the value of `domain_by` to the number of the domain.
    numbers: HashMap<String, usize>,
    notes: Option<Notes>,
    /// Bytes in the buffers, at most.
    buffered: usize,
    /// Bytes of text since the last commit.
    uncommitted: u64,
    commit_every: u64,
    committing: Option<JoinHandle<Result<()>>>,
    /// What is on disk for certain, synced or not.
    flushed: Option<PartRecord>,
    /// A write has failed: what is in memory and on disk may differ.
    broken: bool,
}

struct Writer {
    value: String,
    counts: Counts,
    streams: [Stream; 3],
}

impl<'a> PartWriter<'a> {
    /// Begins a part, or goes on with one: second comes where to read, none where all has been
    /// read.
    ///
    /// Where something is there that cannot be gone on with, it is told of and begun anew. `seen`
    /// learns of the documents so far.
    pub(crate) fn open(
        entry: &'a Entry<'a>,
        dir: &Path,
        share: Share,
        signature: &str,
        seen: Option<&'a Seen>,
    ) -> Result<(PartWriter<'a>, Option<Position>)> {
        let folder = part_folder(dir, share);
        store::create_folder(&folder)?;
        let found = PartRecord::read(&folder);
        if let Some(record) = found.filter(|record| record.share == share) {
            if record.signature == signature {
                match PartWriter::resume(entry, folder.clone(), record, seen) {
                    Ok(writer) => {
                        let next = writer.record.next;
                        return Ok((writer, next));
                    }
                    Err(error) => entry.note(&format!(
                        "what an earlier run left in {} cannot be gone on with and is made again: {error}",
                        folder.display()
                    )),
                }
            } else {
                entry.note(
                    "the config or the source has changed since an earlier run stopped: beginning anew",
                );
            }
        }
        let record = PartRecord {
            version: PART_VERSION,
            signature: signature.to_owned(),
            share,
            next: Some(Position::default()),
            read: 0,
            documents: 0,
            bytes: 0,
            skipped: 0,
            noted: 0,
            forgetful: false,
            domains: Vec::new(),
        };
        // What the notes of a part that could not be gone on with have told `seen` is read again.
        if let Some(seen) = seen {
            seen.clear();
        }
        remove_all_but(&folder, &HashSet::from([folder.join(store::LOCK)]))?;
        let notes = seen.map(|_| Notes::new(&folder));
        Ok((PartWriter::with(entry, folder, record, seen, notes), Some(Position::default())))
    }

    fn resume(
        entry: &'a Entry<'a>,
        folder: PathBuf,
        record: PartRecord,
        seen: Option<&'a Seen>,
    ) -> Result<PartWriter<'a>> {
        let (domains, notes) = cut_back(&folder, &record, entry.token_type(), seen.is_some())?;
        if let Some(seen) = seen {
            read_notes(&folder, record.noted, |noted| {
                seen.insert(noted.id);
            })?;
        }
        let mut writer = PartWriter::with(entry, folder, record, seen, notes);
        writer.numbers = domains
            .iter()
            .enumerate()
            .map(|(number, domain)| (domain.value.clone(), number))
            .collect();
        writer.domains = domains;
        Ok(writer)
    }

    fn with(
        entry: &'a Entry<'a>,
        folder: PathBuf,
        record: PartRecord,
        seen: Option<&'a Seen>,
        notes: Option<Notes>,
    ) -> PartWriter<'a> {
        let commit_every = std::env::var(COMMIT_VARIABLE).ok().and_then(|bytes| bytes.parse().ok());
        PartWriter {
            entry,
            seen,
            folder,
            record,
            token_type: entry.token_type(),
            domains: Vec::new(),
            numbers: HashMap::new(),
            notes,
            buffered: 0,
            uncommitted: 0,
            commit_every: commit_every.unwrap_or(COMMIT_EVERY),
            committing: None,
            flushed: None,
            broken: false,
        }
    }

    /// Writes what one piece became; `next` is where reading goes on after it, `read` how many
    /// bytes on disk of the source come before that. `Break` where the source's limit is reached.
    ///
    /// Fails on what ended the piece early, unless the limit is reached before; on more domains
    /// than can be meant; and on a full disk.
    pub(crate) fn take(
        &mut self,
        mut encoded: Encoded,
        next: Position,
        read: u64,
    ) -> Result<ControlFlow<()>> {
        let limit = self.entry.source.spec.limit;
        let mut meter = Meter::after(limit, self.record.documents, self.record.bytes);
        let last = encoded.documents.iter().position(|document| meter.take(document.length));
        if let Some(last) = last {
            encoded.documents.truncate(last + 1);
            encoded.skipped = 0;
        } else if let Some(error) = encoded.error.take() {
            // The piece is read again when the run goes on: nothing of it may be written.
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
        let files = 2 * 3 * self.domains.len() as u64;
        if self.uncommitted >= self.commit_every + files * self.commit_every / COMMIT_SHARE_OF_FILE
        {
            self.commit(false)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn write(&mut self, encoded: Encoded) -> Result<()> {
        let size = self.token_type.size();
        let mut rest = encoded.tokens.as_slice();
        for document in encoded.documents {
            self.record.skipped += document.skipped;
            self.record.documents += 1;
            self.record.bytes += document.length;
            self.uncommitted += document.bytes;
            let tokens;
            (tokens, rest) = rest.split_at(document.tokens as usize * size);
            self.document(document, tokens)?;
        }
        self.record.skipped += encoded.skipped;
        self.buffered += encoded.tokens.len();
        if self.buffered >= BUFFERED {
            self.flush()?;
        }
        Ok(())
    }

    fn document(&mut self, document: Made, tokens: &[u8]) -> Result<()> {
        let number = self.domain(document.domain.as_deref().unwrap_or_default())?;
        let domain = &mut self.domains[number];
        let counts = &mut domain.counts;
        counts.read += 1;
        match document.fate {
            Fate::Kept => {}
            Fate::Empty => counts.empty += 1,
            Fate::TooShort => counts.too_short += 1,
            Fate::TooLong => counts.too_long += 1,
        }
        if document.fate != Fate::Kept {
            return Ok(());
        }
        if self.seen.is_some_and(|seen| !seen.insert(document.id)) {
            counts.duplicates += 1;
            return Ok(());
        }
        counts.invalid_replaced += u64::from(document.replaced);
        counts.cr_stripped += u64::from(document.changes.cr_stripped);
        counts.normalized += u64::from(document.changes.normalized);
        if let Some(notes) = &mut self.notes {
            notes.push(Noted {
                id: document.id,
                bytes: document.bytes,
                tokens: document.tokens,
                // There are at most a thousand.
                domain: number as u16,
                split: document.split,
                replaced: document.replaced,
                cr_stripped: document.changes.cr_stripped,
                normalized: document.changes.normalized,
            })?;
        }
        domain.streams[document.split.number()].push(tokens, document.tokens, document.bytes)
    }

    /// The number of a domain, which is made where it is new.
    fn domain(&mut self, value: &str) -> Result<usize> {
        if let Some(number) = self.numbers.get(value) {
            return Ok(*number);
        }
        self.entry.check_number(self.numbers.len(), self.numbers.keys())?;
        let number = self.domains.len();
        let streams = Split::ALL.map(|split| Stream::new(&self.folder, number, split));
        self.domains.push(Writer { value: value.to_owned(), counts: Counts::default(), streams });
        self.numbers.insert(value.to_owned(), number);
        Ok(number)
    }

    fn flush(&mut self) -> Result<()> {
        self.buffered = 0;
        for stream in self.domains.iter_mut().flat_map(|domain| &mut domain.streams) {
            stream.flush()?;
        }
        self.notes.as_mut().map_or(Ok(()), Notes::flush)
    }

    /// Makes everything so far last. Syncing goes on beside the work, unless `wait` says to see it
    /// done.
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
        self.record.noted = self.notes.as_ref().map_or(0, Notes::count);
        self.record.forgetful |= self.seen.is_some_and(Seen::is_full);
        self.record.domains = self.domains.iter().map(Writer::record).collect();
        let streams = self.domains.iter_mut().flat_map(|domain| &mut domain.streams);
        let mut dirty: Vec<PathBuf> = streams.flat_map(Stream::take_dirty).collect();
        dirty.extend(self.notes.as_mut().and_then(Notes::take_dirty));
        self.flushed = Some(self.record.clone());
        let (folder, record) = (self.folder.clone(), self.record.clone());
        self.committing = Some(std::thread::spawn(move || make_last(&folder, &record, &dirty)));
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
            self.entry.note(&format!(
                "what was done since the last commit has to be done again: {error}"
            ));
        }
    }

    /// Goes back to what was flushed last and makes that last. On a full disk, cutting off the rest
    /// makes the room that the note of it needs.
    fn fall_back(&mut self) -> Result<()> {
        // Its commit may have been the first to find no room.
        let _ = self.settle();
        let Some(record) = self.flushed.take() else { return Ok(()) };
        cut_back(&self.folder, &record, self.token_type, self.seen.is_some())?;
        let files: Vec<PathBuf> = known_files(&self.folder, &record, self.seen.is_some())
            .into_iter()
            .filter(|file| file.exists())
            .collect();
        make_last(&self.folder, &record, &files)
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
        streams.map(Stream::waiting).sum::<u64>() + self.notes.as_ref().map_or(0, Notes::waiting)
    }

    /// Bytes on disk of the source that are written.
    pub(crate) fn read(&self) -> u64 {
        self.record.read
    }

    /// Bytes on disk.
    pub(crate) fn written(&self) -> u64 {
        let streams = self.domains.iter().flat_map(|domain| &domain.streams);
        streams.map(Stream::written).sum::<u64>() + self.notes.as_ref().map_or(0, Notes::written)
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

/// Syncs files, and then the note that says how much of them counts.
fn make_last(folder: &Path, record: &PartRecord, files: &[PathBuf]) -> Result<()> {
    for path in files {
        let sync = || OpenOptions::new().append(true).open(path)?.sync_data();
        sync().map_err(DataError::io("write", path))?;
    }
    store::sync_folder(folder)?;
    write_json(&folder.join(FILE_NAME), record)?;
    store::sync_folder(folder)
}

/// Cuts all files of a part back to what a record says and removes those that it does not know.
///
/// Fails where one of them is shorter than that.
fn cut_back(
    folder: &Path,
    record: &PartRecord,
    token_type: TokenType,
    with_notes: bool,
) -> Result<(Vec<Writer>, Option<Notes>)> {
    let size = token_type.size() as u64;
    let mut domains = Vec::new();
    for (number, domain) in record.domains.iter().enumerate() {
        let resume = |split: Split| {
            Stream::resume(folder, number, split, &domain.splits[split.number()], size)
        };
        let streams = [resume(Split::Train)?, resume(Split::Tune)?, resume(Split::Valid)?];
        domains.push(Writer { value: domain.value.clone(), counts: domain.counts, streams });
    }
    let notes = if with_notes { Some(Notes::resume(folder, record.noted)?) } else { None };
    let mut known = known_files(folder, record, with_notes);
    known.extend([folder.join(FILE_NAME), folder.join(store::LOCK)]);
    remove_all_but(folder, &known)?;
    Ok((domains, notes))
}

/// The files that a record says something about, there or not.
fn known_files(folder: &Path, record: &PartRecord, with_notes: bool) -> HashSet<PathBuf> {
    let numbers = 0..record.domains.len();
    let streams =
        numbers.flat_map(|number| Split::ALL.map(|split| stream_files(folder, number, split)));
    streams.flatten().chain(with_notes.then(|| notes_file(folder))).collect()
}

/// Removes all files of a folder but these.
fn remove_all_but(folder: &Path, known: &HashSet<PathBuf>) -> Result<()> {
    for file in std::fs::read_dir(folder).map_err(DataError::io("read", folder))?.flatten() {
        if !known.contains(&file.path()) {
            remove_file(&file.path())?;
        }
    }
    Ok(())
}
