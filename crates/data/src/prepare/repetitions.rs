//! Which documents of a job's parts came before, in an earlier part or in the same one.
//!
//! In: the document records of all parts, in order. Out: of each part, the numbers of those whose
//! text came before. Where there are more documents than may be remembered at once, their ids are
//! first shared out among files by what they are, so that all equal ones lie in one file, and then
//! one file at a time is looked at: each id is read and written a fixed number of times, however
//! many there are. Memory: two bits a document, the ids of as many documents as a worker remembers,
//! and 32 MiB of buffers. Disk: 24 bytes a document.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::dedup::DedupSet;
use super::job::Job;
use super::part::files::{RECORD_BYTES, read_records};
use super::part::record::{PartRecord, part_folder, parts_folder};
use crate::document::id::DocumentId;
use crate::error::{DataError, Result};
use crate::progress::Control;

/// Files that ids are shared out among, at most.
const MOST_BUCKETS: u64 = 1024;
/// Bytes of all their buffers together.
const BUFFERED: usize = 32 << 20;
/// Bytes of an id and of the number of its document.
const ENTRY: usize = 16 + 8;
/// Documents between two looks at whether to stop.
const CHECK_EVERY: u64 = 1 << 14;
/// The folder of the files, among those of the parts.
const FOLDER: &str = "repetitions";

/// A set of numbers, a bit each up to the largest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn insert(&mut self, number: u64) {
        let word = (number / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a part may hold a document twice, or one that another has.
pub(super) fn may_repeat(job: &Job<'_>, parts: &[PartRecord]) -> bool {
    job.source.deduplicate && (parts.len() > 1 || parts.iter().any(|part| part.forgetful))
}

/// Bytes on disk that [`repetitions`] takes for a while.
pub(super) fn space_needed(job: &Job<'_>, parts: &[PartRecord]) -> u64 {
    if !may_repeat(job, parts) {
        return 0;
    }
    let plan = Plan::of(parts, job.options.remember_documents);
    if plan.buckets > 1 { plan.documents.saturating_mul(ENTRY as u64) } else { 0 }
}

/// Of each part, the numbers in its document records of the documents that came before, in it or in
/// an earlier part.
///
/// # Errors
/// A damaged part; a full disk; an interruption.
pub(super) fn repetitions(
    job: &Job<'_>,
    parts: &[PartRecord],
    control: Control<'_>,
) -> Result<Vec<Bits>> {
    let mut repeated = Repeated::new(parts);
    if !may_repeat(job, parts) {
        return Ok(repeated.bits);
    }
    let plan = Plan::of(parts, job.options.remember_documents);
    let stage = format!("find duplicates of {}", job.name);
    control.progress.start(&stage, Some(plan.bytes()));
    if plan.buckets == 1 {
        let known = DedupSet::new(u64::MAX);
        each_document(job, parts, control, &mut |id, number| {
            if !known.insert(id) {
                repeated.insert(number);
            }
            Ok(())
        })?;
        return Ok(repeated.bits);
    }
    let folder = parts_folder(&job.dir).join(FOLDER);
    // What an assembly that was interrupted has left.
    remove(&folder)?;
    std::fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
    let mut buckets = Buckets::new(&folder, plan.buckets);
    each_document(job, parts, control, &mut |id, number| buckets.push(id, number))?;
    for bucket in buckets.finish()? {
        for round in 0..plan.rounds {
            let known = DedupSet::new(u64::MAX);
            bucket.read(control, &mut |id, number| {
                if plan.round_of(id) == round && !known.insert(id) {
                    repeated.insert(number);
                }
            })?;
        }
        cuvee_fs::remove_file(&bucket.path)?;
    }
    remove(&folder)?;
    Ok(repeated.bits)
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// How the ids of all documents are looked at.
struct Plan {
    documents: u64,
    /// Files they are shared out among; 1 for none.
    buckets: u64,
    /// How often each file is read, so that memory is bounded even where there are too few files.
    rounds: u64,
}

impl Plan {
    /// `most` is how many ids may be remembered at once.
    fn of(parts: &[PartRecord], most: u64) -> Plan {
        let documents = parts.iter().map(|part| part.records).fold(0, u64::saturating_add);
        let slices = documents.div_ceil(most.max(1)).max(1);
        let buckets = slices.min(MOST_BUCKETS);
        Plan { documents, buckets, rounds: slices.div_ceil(buckets) }
    }

    /// All that is read.
    fn bytes(&self) -> u64 {
        let again = if self.buckets == 1 { 0 } else { self.rounds.saturating_mul(ENTRY as u64) };
        self.documents.saturating_mul(RECORD_BYTES.saturating_add(again))
    }

    /// In which round an id is looked at: by other bits than its bucket and its place in a set.
    fn round_of(&self, id: DocumentId) -> u64 {
        share_of((id.0 >> 64) as u32, self.rounds)
    }
}

/// Which of `of` equal shares of all numbers this one is in.
fn share_of(number: u32, of: u64) -> u64 {
    ((u128::from(number) * u128::from(of)) >> 32) as u64
}

/// Calls `sink` with the ids of all documents and their numbers among all.
fn each_document(
    job: &Job<'_>,
    parts: &[PartRecord],
    control: Control<'_>,
    sink: &mut dyn FnMut(DocumentId, u64) -> Result<()>,
) -> Result<()> {
    let mut number = 0;
    for part in parts {
        read_records(&part_folder(&job.dir, part.share), part.records, |document| {
            sink(document.id, number)?;
            number += 1;
            keep_in_touch(control, number, RECORD_BYTES)
        })?;
    }
    Ok(())
}

/// Tells of progress now and then, and looks whether to stop.
fn keep_in_touch(control: Control<'_>, number: u64, bytes: u64) -> Result<()> {
    if number.is_multiple_of(CHECK_EVERY) {
        control.progress.advance(CHECK_EVERY * bytes);
        if control.interrupted.load(Ordering::Relaxed) {
            return Err(DataError::Interrupted);
        }
    }
    Ok(())
}

/// Numbers among all documents, as numbers within their parts.
struct Repeated {
    bits: Vec<Bits>,
    /// The number of each part's first document.
    starts: Vec<u64>,
}

impl Repeated {
    fn new(parts: &[PartRecord]) -> Repeated {
        let mut start = 0u64;
        let starts = parts.iter().map(|part| {
            let here = start;
            start = start.saturating_add(part.records);
            here
        });
        Repeated { starts: starts.collect(), bits: parts.iter().map(|_| Bits::default()).collect() }
    }

    fn insert(&mut self, number: u64) {
        let part = self.starts.partition_point(|start| *start <= number).saturating_sub(1);
        if let (Some(bits), Some(start)) = (self.bits.get_mut(part), self.starts.get(part)) {
            bits.insert(number - start);
        }
    }
}

/// Files of ids, being written. They are open only while a buffer is written.
struct Buckets {
    files: Vec<Bucket>,
    buffers: Vec<Vec<u8>>,
    /// Bytes of one buffer.
    most: usize,
}

struct Bucket {
    path: PathBuf,
    entries: u64,
}

impl Buckets {
    fn new(folder: &Path, count: u64) -> Buckets {
        let path = |number| folder.join(format!("{number}"));
        let files: Vec<Bucket> =
            (0..count).map(|number| Bucket { path: path(number), entries: 0 }).collect();
        let most = (BUFFERED / files.len().max(1)).max(ENTRY);
        Buckets { buffers: files.iter().map(|_| Vec::new()).collect(), files, most }
    }

    fn push(&mut self, id: DocumentId, number: u64) -> Result<()> {
        let bucket = share_of((id.0 >> 96) as u32, self.files.len() as u64) as usize;
        let (file, buffer) = (&mut self.files[bucket], &mut self.buffers[bucket]);
        buffer.extend_from_slice(&id.0.to_le_bytes());
        buffer.extend_from_slice(&number.to_le_bytes());
        file.entries += 1;
        if buffer.len() + ENTRY > self.most { file.append(buffer) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Vec<Bucket>> {
        for (file, buffer) in self.files.iter().zip(&mut self.buffers) {
            file.append(buffer)?;
        }
        Ok(self.files)
    }
}

impl Bucket {
    fn append(&self, buffer: &mut Vec<u8>) -> Result<()> {
        let write =
            || OpenOptions::new().append(true).create(true).open(&self.path)?.write_all(buffer);
        write().map_err(DataError::io("write", &self.path))?;
        buffer.clear();
        Ok(())
    }

    /// Calls `sink` with what was pushed, in that order.
    fn read(&self, control: Control<'_>, sink: &mut dyn FnMut(DocumentId, u64)) -> Result<()> {
        let file = File::open(&self.path).map_err(DataError::io("open", &self.path))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let (mut id, mut number) = ([0; 16], [0; 8]);
        for read in 1..=self.entries {
            let entry = file.read_exact(&mut id).and_then(|()| file.read_exact(&mut number));
            entry.map_err(DataError::io("read", &self.path))?;
            sink(DocumentId(u128::from_le_bytes(id)), u64::from_le_bytes(number));
            keep_in_touch(control, read, ENTRY as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::progress::Silent;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn buckets_give_back_every_id_once_in_order_and_equal_ones_together() {
        let folder = tempfile::tempdir().unwrap();
        let ids = |count: u64| {
            (0..count).map(|number| (DocumentId::of(&(number % 700).to_string()), number))
        };
        let mut buckets = Buckets::new(folder.path(), 7);
        buckets.most = 100;
        ids(2_000).try_for_each(|(id, number)| buckets.push(id, number)).unwrap();
        let stop = AtomicBool::new(false);
        let control = Control { progress: &Silent, interrupted: &stop };
        let (mut all, mut of_id) = (Vec::new(), std::collections::HashMap::new());
        for (which, bucket) in buckets.finish().unwrap().iter().enumerate() {
            let mut last = None;
            bucket
                .read(control, &mut |id, number| {
                    assert!(last < Some(number));
                    last = Some(number);
                    assert_eq!(*of_id.entry(id.0).or_insert(which), which);
                    all.push((number, id.0));
                })
                .unwrap();
            assert!(last.is_some(), "ids are spread evenly");
        }
        all.sort_unstable();
        assert_eq!(all, ids(2_000).map(|(id, number)| (number, id.0)).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_among_all_are_those_of_their_parts() {
        let mut repeated =
            Repeated { bits: (0..4).map(|_| Bits::default()).collect(), starts: vec![0, 3, 3, 5] };
        for number in [0, 2, 3, 4, 70] {
            repeated.insert(number);
        }
        let has = |part: usize| {
            (0..100).filter(|n| repeated.bits[part].contains(*n)).collect::<Vec<u64>>()
        };
        assert_eq!([has(0), has(1), has(2), has(3)], [vec![0, 2], vec![], vec![0, 1], vec![65]]);
    }
}
