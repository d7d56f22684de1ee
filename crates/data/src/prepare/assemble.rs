//! From parts to shards: what the workers left, put together and given its names.
//!
//! In: the parts of a job, all done, in order. Out: its folder of shards, or one for each value
//! of `domain_by`, as a single worker would have made them. A single part's tokens are renamed,
//! those of several copied one behind another; where duplicates are left out, also those that only
//! another part had, or that came after more documents than a worker remembers. Whatever is
//! interrupted can be done again, until the last step removes the parts. Memory: a buffer and, for
//! duplicates, two bits a document and the ids of as many documents as a worker remembers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::dedup::DedupSet;
use super::disk_space::SpaceNeeded;
use super::job::Job;
use super::part::files::{StreamRecord, read_records, stream_files};
use super::part::record::{PartRecord, part_folder, remove_parts};
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::hash::hex;
use crate::shard::domain_list::DomainList;
use crate::shard::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecord, SplitRecords, split_file,
};
use crate::shard::store;
use crate::token_type::TokenType;
use crate::tokens::megatron_index;

/// What came of an entry.
#[derive(Default)]
pub(super) struct Published {
    pub(super) documents: u64,
    pub(super) tokens: u64,
    /// Documents whose text spells the end-of-text.
    pub(super) end_of_text_within: u64,
    /// Values of `domain_by` that made no domain, since none of their documents was left.
    pub(super) without_text: BTreeMap<String, Counts>,
}

/// A domain, gathered from the parts.
#[derive(Default)]
struct Gathered {
    counts: Counts,
    /// By split: what each part has that has the domain.
    streams: [Vec<PartStream>; 3],
}

/// What one part has of a stream.
struct PartStream {
    bin: PathBuf,
    lengths: PathBuf,
    record: StreamRecord,
    dropped: Dropped,
}

/// Documents of a stream that are left out: they came before.
#[derive(Default)]
struct Dropped {
    /// By their numbers in the stream.
    which: Bits,
    documents: u64,
    tokens: u64,
    /// Of their texts.
    bytes: u64,
}

/// A set of numbers, a bit each up to the largest.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, number: u64) {
        let word = (number / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    fn contains(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartStream {
    fn documents(&self) -> u64 {
        self.record.documents - self.dropped.documents
    }

    fn tokens(&self) -> u64 {
        self.record.tokens - self.dropped.tokens
    }

    fn bytes(&self) -> u64 {
        self.record.bytes - self.dropped.bytes
    }

    /// Calls `sink` with the number of tokens of each document, end-of-text included, and whether
    /// it is kept.
    fn lengths(&self, mut sink: impl FnMut(u32, bool) -> Result<()>) -> Result<()> {
        if self.record.documents == 0 {
            return Ok(());
        }
        let file = File::open(&self.lengths).map_err(DataError::io("open", &self.lengths))?;
        let mut file = BufReader::with_capacity(1 << 18, file);
        for document in 0..self.record.documents {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(DataError::io("read", &self.lengths))?;
            sink(u32::from_le_bytes(length), !self.dropped.which.contains(document))?;
        }
        Ok(())
    }

    /// Its tokens that are kept, in as few ranges as they lie in: from where to where.
    fn kept(&self, mut sink: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let (mut start, mut end) = (0, 0);
        if self.dropped.documents > 0 {
            self.lengths(|length, kept| {
                if !kept {
                    if end > start {
                        sink(start, end)?;
                    }
                    start = end + u64::from(length);
                }
                end += u64::from(length);
                Ok(())
            })?;
        }
        if self.record.tokens > start { sink(start, self.record.tokens) } else { Ok(()) }
    }
}

/// Puts the parts of a job together and gives everything its name.
///
/// # Errors
/// There is no document, which shows before anything old is touched; a damaged part; a full disk;
/// an interruption.
pub(super) fn assemble(
    job: &Job<'_>,
    parts: &[PartRecord],
    interrupted: &AtomicBool,
) -> Result<Published> {
    let (by, dir) = (job.domain_by.is_some(), job.dir.as_path());
    let (domains, skipped) = gather(job, parts, interrupted)?;
    let mut published = Published::default();
    let mut full = Vec::new();
    let mut sum = Counts::default();
    for (value, mut domain) in domains {
        sum += domain.counts;
        // Values whose documents are all left out make no domain, and are listed.
        if domain.streams.iter().flatten().all(|stream| stream.documents() == 0) {
            published.without_text.insert(value, domain.counts);
            continue;
        }
        domain.counts.invalid_skipped = skipped;
        domain.counts.read += if by { 0 } else { skipped };
        full.push((value, domain));
    }
    if full.is_empty() {
        remove_parts(dir)?;
        return Err(DataError::EmptyDomain {
            domain: job.name.to_owned(),
            files: job.source.files.len(),
            read: sum.read + skipped,
            empty: sum.empty,
            invalid: skipped,
        });
    }
    DomainList::remove(dir)?;
    cuvee_fs::write_file(&dir.join("tokenizer.json"), job.tokenizer.json().as_bytes())?;
    let mut list = DomainList {
        signature: job.signature.clone(),
        folders: BTreeMap::new(),
        without_text: published.without_text.clone(),
    };
    for (value, domain) in full {
        let folder = job.folder(&value);
        let manifest = publish(job, &folder, by.then_some(&value), domain, parts.len() == 1)?;
        published.documents += Split::ALL.iter().map(|s| manifest.split(*s).documents).sum::<u64>();
        published.tokens += manifest.tokens();
        published.end_of_text_within += manifest.counts.end_of_text_within;
        list.folders.insert(value.clone(), store::folder_name(&value));
    }
    if by {
        list.write(dir)?;
    }
    remove_parts(dir)?;
    Ok(published)
}

/// What an assembly writes.
pub(super) fn space_needed(job: &Job<'_>, parts: &[PartRecord]) -> SpaceNeeded {
    let copies = parts.len() > 1 || may_repeat(job, parts);
    let copied = if copies { job.token_type().size() as u64 } else { 0 };
    let splits = parts.iter().flat_map(|part| &part.domains).flat_map(|domain| &domain.splits);
    let bytes = splits.map(|split| 20 * split.documents + copied * split.tokens).sum();
    SpaceNeeded { bytes, done: None }
}

/// The domains of all parts by their values, and the number of invalid documents.
fn gather(
    job: &Job<'_>,
    parts: &[PartRecord],
    interrupted: &AtomicBool,
) -> Result<(BTreeMap<String, Gathered>, u64)> {
    let mut domains: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut skipped = 0;
    for (part, repeated) in parts.iter().zip(repetitions(job, parts, interrupted)?) {
        let folder = part_folder(&job.dir, part.share);
        skipped += part.skipped;
        let mut dropped: Vec<[Dropped; 3]> =
            part.domains.iter().map(|_| Default::default()).collect();
        let mut counts: Vec<Counts> = part.domains.iter().map(|domain| domain.counts).collect();
        if !repeated.is_empty() {
            let mut numbers = 0..;
            let mut places = vec![[0u64; 3]; part.domains.len()];
            read_records(&folder, part.records, |document| {
                let again = numbers.next().is_some_and(|number| repeated.contains(number));
                let (domain, split) = (usize::from(document.domain), document.split.number());
                let Some(place) = places.get_mut(domain).map(|places| &mut places[split]) else {
                    return;
                };
                if again {
                    let dropped = &mut dropped[domain][split];
                    dropped.which.insert(*place);
                    dropped.documents += 1;
                    dropped.tokens += u64::from(document.tokens);
                    dropped.bytes += document.bytes;
                    let counts = &mut counts[domain];
                    counts.duplicates += 1;
                    counts.invalid_replaced -= u64::from(document.replaced);
                    counts.cr_stripped -= u64::from(document.cr_stripped);
                    counts.normalized -= u64::from(document.normalized);
                    counts.end_of_text_within -= u64::from(document.end_of_text_within);
                }
                *place += 1;
            })?;
        }
        for (number, ((domain, dropped), counts)) in
            part.domains.iter().zip(dropped).zip(counts).enumerate()
        {
            if !domains.contains_key(&domain.value) {
                job.check_number(domains.len(), domains.keys())?;
            }
            let gathered = domains.entry(domain.value.clone()).or_default();
            gathered.counts += counts;
            for (split, dropped) in Split::ALL.into_iter().zip(dropped) {
                let [bin, lengths] = stream_files(&folder, number, split);
                let record = domain.splits[split.number()].clone();
                gathered.streams[split.number()].push(PartStream { bin, lengths, record, dropped });
            }
        }
    }
    Ok((domains, skipped))
}

/// Whether a part may hold a document twice, or one that another has.
fn may_repeat(job: &Job<'_>, parts: &[PartRecord]) -> bool {
    job.source.deduplicate && (parts.len() > 1 || parts.iter().any(|part| part.forgetful))
}

/// Of each part, the numbers in its document records of the documents that came before, in it or in
/// an earlier part.
fn repetitions(job: &Job<'_>, parts: &[PartRecord], interrupted: &AtomicBool) -> Result<Vec<Bits>> {
    let mut repeated: Vec<Bits> = parts.iter().map(|_| Bits::default()).collect();
    if !may_repeat(job, parts) {
        return Ok(repeated);
    }
    // A slice of all ids at a time, so that they take no more memory than while they were read.
    let slices = parts.iter().map(|part| part.records).sum::<u64>();
    let slices = slices.div_ceil(job.options.remember_documents);
    for slice in 0..slices {
        let known = DedupSet::new(u64::MAX);
        for (part, repeated) in parts.iter().zip(&mut repeated) {
            if interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let mut number = 0;
            read_records(&part_folder(&job.dir, part.share), part.records, |document| {
                // By other bits than its place in `known`.
                let own = ((document.id.0 >> 96) as u64 * slices) >> 32;
                if own == slice && !known.insert(document.id) {
                    repeated.insert(number);
                }
                number += 1;
            })?;
        }
    }
    Ok(repeated)
}

fn publish(
    job: &Job<'_>,
    dir: &Path,
    value: Option<&String>,
    domain: Gathered,
    single: bool,
) -> Result<Manifest> {
    // An assembly that was interrupted has done this domain already.
    if let Ok(manifest) = Manifest::read(dir)
        && manifest.signature == job.signature
        && manifest.check_lengths(dir).is_ok()
    {
        return Ok(manifest);
    }
    store::create_folder(dir)?;
    let mut manifest = Manifest {
        version: FORMAT_VERSION,
        domain: job.domain_name(value.map(String::as_str)),
        tokenizer: job.tokenizer.fingerprint().to_owned(),
        vocab_size: job.tokenizer.vocab_size(),
        end_of_text: job.tokenizer.end_of_text(),
        token_type: job.token_type(),
        source: SourceRecord {
            spec: job.source.spec.clone(),
            domain_by: job.domain_by.map(str::to_owned),
            domain_value: value.cloned(),
            hub: job.source.hub.clone(),
            files: job.source.records.clone(),
        },
        license: job.source.license.clone(),
        splits: SplitRecords::default(),
        counts: domain.counts,
        signature: job.signature.clone(),
    };
    // All that takes time and room comes first; nothing old has been touched.
    for split in Split::ALL {
        let streams = &domain.streams[split.number()];
        let bin_sha256 = match streams.as_slice() {
            [stream] if single && stream.dropped.documents == 0 => {
                stream.record.sha256().ok_or_else(|| DataError::Manifest {
                    path: stream.bin.clone(),
                    message: "the record of its checksum is damaged".to_owned(),
                })?
            }
            streams => {
                concatenate(streams, &part_name(dir, split, "bin"), job.token_type().size() as u64)?
            }
        };
        *manifest.split_mut(split) = SplitRecord {
            documents: streams.iter().map(PartStream::documents).sum(),
            tokens: streams.iter().map(PartStream::tokens).sum(),
            bytes: streams.iter().map(PartStream::bytes).sum(),
            bin_sha256,
            idx_sha256: write_index(streams, &part_name(dir, split, "idx"), job.token_type())?,
        };
    }
    // From here until the new one is there, the folder has no manifest: it is not whole.
    Manifest::remove(dir)?;
    for split in Split::ALL {
        let bin = split_file(dir, split, "bin");
        match domain.streams[split.number()].as_slice() {
            [stream] if single && stream.dropped.documents == 0 => take_over(stream, &bin)?,
            _ => cuvee_fs::rename_file(&part_name(dir, split, "bin"), &bin)?,
        }
        cuvee_fs::rename_file(&part_name(dir, split, "idx"), &split_file(dir, split, "idx"))?;
    }
    cuvee_fs::sync_folder(dir)?;
    manifest.write(dir)?;
    Ok(manifest)
}

/// Moves the tokens of a single part to where they belong, unless an assembly that was interrupted
/// has done so.
fn take_over(stream: &PartStream, bin: &Path) -> Result<()> {
    if stream.record.tokens == 0 {
        // A new file: somebody may have mapped the old one.
        cuvee_fs::write_file(bin, b"")?;
    } else if stream.bin.exists() {
        cuvee_fs::rename_file(&stream.bin, bin)?;
    }
    Ok(())
}

/// Writes the tokens of all streams, but for what is dropped, and gives their SHA-256.
fn concatenate(streams: &[PartStream], to: &Path, size: u64) -> Result<String> {
    let mut out = Hashed::create(to)?;
    for stream in streams.iter().filter(|stream| stream.record.tokens > 0) {
        let mut from = File::open(&stream.bin).map_err(DataError::io("open", &stream.bin))?;
        stream.kept(|start, end| {
            from.seek(SeekFrom::Start(start * size)).map_err(DataError::io("read", &stream.bin))?;
            out.copy(&mut from, (end - start) * size, &stream.bin)
        })?;
    }
    out.finish()
}

/// Writes the index of all streams and gives its SHA-256.
fn write_index(streams: &[PartStream], to: &Path, token_type: TokenType) -> Result<String> {
    let mut out = Hashed::create(to)?;
    let documents = streams.iter().map(PartStream::documents).sum();
    megatron_index::write(&mut out.out, to, token_type, documents, &|sink| {
        for stream in streams {
            // Documents have at most 2³¹ − 1 tokens.
            stream.lengths(|length, kept| if kept { sink(length as i32) } else { Ok(()) })?;
        }
        Ok(())
    })?;
    out.finish()
}

/// A file being written, and the SHA-256 of what was.
struct Hashed {
    path: PathBuf,
    out: BufWriter<HashedFile>,
}

struct HashedFile {
    file: File,
    hash: Sha256,
}

impl Hashed {
    fn create(path: &Path) -> Result<Hashed> {
        let file = File::create(path).map_err(DataError::io("create", path))?;
        let hashed = HashedFile { file, hash: Sha256::new() };
        Ok(Hashed { path: path.to_owned(), out: BufWriter::with_capacity(1 << 20, hashed) })
    }

    /// Appends `count` bytes of another file.
    fn copy(&mut self, from: &mut File, count: u64, path: &Path) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut left = count;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            from.read_exact(&mut buffer[..wanted]).map_err(DataError::io("read", path))?;
            self.out.write_all(&buffer[..wanted]).map_err(DataError::io("write", &self.path))?;
            left -= wanted as u64;
        }
        Ok(())
    }

    /// Syncs the file.
    fn finish(mut self) -> Result<String> {
        let mut sync = || {
            self.out.flush()?;
            self.out.get_ref().file.sync_all()
        };
        sync().map_err(DataError::io("write", &self.path))?;
        Ok(hex(&self.out.get_ref().hash.clone().finalize()))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn part_name(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!(".{split}.{ending}.part"))
}
