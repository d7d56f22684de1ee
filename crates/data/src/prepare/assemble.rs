//! From parts to shards: what the workers left, put together and given its names.
//!
//! In: the parts of a job, all done, in order. Out: its folder of shards, or one for each value
//! of `domain_by`, as a single worker would have made them. A single part's tokens are renamed,
//! those of several copied one behind another; where duplicates are left out, also those that only
//! another part had, or that came after more documents than a worker remembers
//! ([`repetitions`]). Whatever is interrupted can be done again, until the last step removes the
//! parts. Memory: a buffer and what finding duplicates takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::disk_space::SpaceNeeded;
use super::job::Job;
use super::part::files::{StreamRecord, read_records, records_file, stream_files};
use super::part::record::{PartRecord, part_folder, remove_parts};
use super::repetitions::{self, Bits, may_repeat, repetitions};
use crate::document::invalid::LeftOut;
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::hash::hex;
use crate::progress::Control;
use crate::shard::domain_list::DomainList;
use crate::shard::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecord, SplitRecords, split_file,
};
use crate::shard::store;
use crate::token_type::TokenType;
use crate::tokens::megatron_index;

/// Bytes copied at once.
const BUFFER: usize = 1 << 20;

/// What came of an entry.
#[derive(Default)]
pub(super) struct Published {
    pub(super) documents: u64,
    pub(super) tokens: u64,
    /// Documents whose text spells the end-of-text.
    pub(super) end_of_text_within: u64,
    /// Values of `domain_by` that made no domain, since none of their documents was left.
    pub(super) without_text: BTreeMap<String, Counts>,
    /// Documents kept with U+FFFD in them.
    pub(super) replaced: u64,
    pub(super) invalid: Invalids,
}

/// Invalid documents of an entry.
#[derive(Default)]
pub(super) struct Invalids {
    pub(super) count: u64,
    pub(super) left_out: LeftOut,
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

impl Dropped {
    fn add(&mut self, document: u64, tokens: u32, bytes: u64) {
        self.which.insert(document);
        self.documents += 1;
        self.tokens = self.tokens.saturating_add(u64::from(tokens));
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl PartStream {
    // What is dropped was checked to be part of what there is.

    fn documents(&self) -> u64 {
        self.record.documents.saturating_sub(self.dropped.documents)
    }

    fn tokens(&self) -> u64 {
        self.record.tokens.saturating_sub(self.dropped.tokens)
    }

    fn bytes(&self) -> u64 {
        self.record.bytes.saturating_sub(self.dropped.bytes)
    }

    fn damaged(&self, message: &str) -> DataError {
        DataError::Manifest { path: self.lengths.clone(), message: message.to_owned() }
    }

    /// Calls `sink` with the number of tokens of each document, end-of-text included, and whether
    /// it is kept.
    fn lengths(&self, mut sink: impl FnMut(u32, bool) -> Result<()>) -> Result<()> {
        if self.record.documents == 0 {
            return Ok(());
        }
        let file = File::open(&self.lengths).map_err(DataError::io("open", &self.lengths))?;
        let mut file = BufReader::with_capacity(1 << 18, file);
        let mut tokens = 0u64;
        for document in 0..self.record.documents {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(DataError::io("read", &self.lengths))?;
            let length = u32::from_le_bytes(length);
            tokens = tokens.saturating_add(u64::from(length));
            sink(length, !self.dropped.which.contains(document))?;
        }
        match tokens == self.record.tokens {
            true => Ok(()),
            false => Err(self.damaged("the lengths of its documents do not sum up to its tokens")),
        }
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
    control: Control<'_>,
) -> Result<Published> {
    let (by, dir) = (job.domain_by.is_some(), job.dir.as_path());
    let repeated = repetitions(job, parts, control)?;
    if parts.len() > 1 || may_repeat(job, parts) {
        control.progress.start(&format!("assemble {}", job.name), None);
    }
    let (domains, invalid) = gather(job, parts, &repeated)?;
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
        domain.counts.invalid_skipped = invalid.count;
        domain.counts.invalid_reasons = invalid.left_out.reasons;
        domain.counts.read += if by { 0 } else { invalid.count };
        published.replaced += domain.counts.invalid_replaced;
        full.push((value, domain));
    }
    if full.is_empty() {
        remove_parts(dir)?;
        let read = sum.read + invalid.count;
        let Invalids { count, left_out } = invalid;
        return Err(left_out.empty_domain(
            job.name,
            job.source.files.len(),
            read,
            sum.empty,
            count,
        ));
    }
    DomainList::remove(dir)?;
    cuvee_fs::write_file(&dir.join("tokenizer.json"), job.tokenizer.json().as_bytes())?;
    let mut list = DomainList {
        signature: job.signature.clone(),
        folders: BTreeMap::new(),
        without_text: published.without_text.clone(),
        files: job.source.records.clone(),
    };
    for (value, domain) in full {
        let folder = job.folder(&value);
        let value_of = by.then_some(&value);
        let single = parts.len() == 1;
        let manifest = publish(job, &folder, value_of, domain, single, control.interrupted)?;
        published.documents += manifest.documents();
        published.tokens += manifest.tokens();
        published.end_of_text_within += manifest.counts.end_of_text_within;
        list.folders.insert(value.clone(), store::folder_name(&value));
    }
    if by {
        list.write(dir)?;
    }
    remove_parts(dir)?;
    published.invalid = invalid;
    Ok(published)
}

/// What an assembly writes.
pub(super) fn space_needed(job: &Job<'_>, parts: &[PartRecord]) -> SpaceNeeded {
    let copies = parts.len() > 1 || may_repeat(job, parts);
    let copied = if copies { job.token_type().size() as u64 } else { 0 };
    let splits = parts.iter().flat_map(|part| &part.domains).flat_map(|domain| &domain.splits);
    let bytes = splits.map(|split| 20 * split.documents + copied * split.tokens);
    let bytes = bytes.fold(repetitions::space_needed(job, parts), u64::saturating_add);
    SpaceNeeded { bytes, done: None }
}

/// The domains of all parts by their values, and the invalid documents.
///
/// # Errors
/// A part whose document records are not those of its streams.
fn gather(
    job: &Job<'_>,
    parts: &[PartRecord],
    repeated: &[Bits],
) -> Result<(BTreeMap<String, Gathered>, Invalids)> {
    let mut domains: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut invalid = Invalids::default();
    for (part, repeated) in parts.iter().zip(repeated) {
        let folder = part_folder(&job.dir, part.share);
        invalid.count = invalid.count.saturating_add(part.skipped);
        invalid.left_out.append(part.left_out.clone());
        let mut dropped: Vec<[Dropped; 3]> =
            part.domains.iter().map(|_| Default::default()).collect();
        let mut counts: Vec<Counts> = part.domains.iter().map(|domain| domain.counts).collect();
        if !repeated.is_empty() {
            let damaged = || DataError::Manifest {
                path: records_file(&folder),
                message: "its records are not those of the documents beside it".to_owned(),
            };
            let mut number = 0;
            let mut places = vec![[0u64; 3]; part.domains.len()];
            read_records(&folder, part.records, |document| {
                let again = repeated.contains(number);
                number += 1;
                let (domain, split) = (usize::from(document.domain), document.split.number());
                let place = places.get_mut(domain).map(|places| &mut places[split]);
                let place = place.ok_or_else(damaged)?;
                if again {
                    dropped[domain][split].add(*place, document.tokens, document.bytes);
                    let counts = &mut counts[domain];
                    counts.duplicates += 1;
                    for (count, is) in [
                        (&mut counts.invalid_replaced, document.replaced),
                        (&mut counts.cr_stripped, document.cr_stripped),
                        (&mut counts.normalized, document.normalized),
                        (&mut counts.end_of_text_within, document.end_of_text_within),
                    ] {
                        *count = count.checked_sub(u64::from(is)).ok_or_else(damaged)?;
                    }
                }
                *place += 1;
                Ok(())
            })?;
            for ((domain, places), dropped) in part.domains.iter().zip(places).zip(&dropped) {
                for split in Split::ALL.map(Split::number) {
                    let (record, dropped) = (&domain.splits[split], &dropped[split]);
                    let fits = dropped.tokens <= record.tokens && dropped.bytes <= record.bytes;
                    if places[split] != record.documents || !fits {
                        return Err(damaged());
                    }
                }
            }
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
    Ok((domains, invalid))
}

fn publish(
    job: &Job<'_>,
    dir: &Path,
    value: Option<&String>,
    domain: Gathered,
    single: bool,
    interrupted: &AtomicBool,
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
            // Those of an entry's domains are the same: its list of domains has them.
            files: if value.is_some() { Vec::new() } else { job.source.records.clone() },
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
                let size = job.token_type().size() as u64;
                concatenate(streams, &part_name(dir, split, "bin"), size, interrupted)?
            }
        };
        *manifest.split_mut(split) = SplitRecord {
            documents: sum(streams, PartStream::documents),
            tokens: sum(streams, PartStream::tokens),
            bytes: sum(streams, PartStream::bytes),
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

/// A sum over streams; each of these numbers is bounded, their sum is not.
fn sum(streams: &[PartStream], of: fn(&PartStream) -> u64) -> u64 {
    streams.iter().map(of).fold(0, u64::saturating_add)
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
fn concatenate(
    streams: &[PartStream],
    to: &Path,
    size: u64,
    interrupted: &AtomicBool,
) -> Result<String> {
    let mut out = Hashed::create(to)?;
    for stream in streams.iter().filter(|stream| stream.record.tokens > 0) {
        let mut from = File::open(&stream.bin).map_err(DataError::io("open", &stream.bin))?;
        stream.kept(|start, end| {
            from.seek(SeekFrom::Start(start * size)).map_err(DataError::io("read", &stream.bin))?;
            out.copy(&mut from, (end - start) * size, &stream.bin, interrupted)
        })?;
    }
    out.finish()
}

/// Writes the index of all streams and gives its SHA-256.
fn write_index(streams: &[PartStream], to: &Path, token_type: TokenType) -> Result<String> {
    let mut out = Hashed::create(to)?;
    let documents = sum(streams, PartStream::documents);
    megatron_index::write(&mut out.out, to, token_type, documents, &|sink| {
        for stream in streams {
            stream.lengths(|length, kept| {
                let length = i32::try_from(length)
                    .map_err(|_| stream.damaged("a document has more than 2147483647 tokens"))?;
                if kept { sink(length) } else { Ok(()) }
            })?;
        }
        Ok(())
    })?;
    out.finish()
}

/// A file being written, and the SHA-256 of what was.
struct Hashed {
    path: PathBuf,
    out: BufWriter<HashedFile>,
    /// What is being copied.
    buffer: Vec<u8>,
}

struct HashedFile {
    file: File,
    hash: Sha256,
}

impl Hashed {
    fn create(path: &Path) -> Result<Hashed> {
        let file = File::create(path).map_err(DataError::io("create", path))?;
        let hashed = HashedFile { file, hash: Sha256::new() };
        let out = BufWriter::with_capacity(BUFFER, hashed);
        Ok(Hashed { path: path.to_owned(), out, buffer: Vec::new() })
    }

    /// Appends `count` bytes of another file.
    fn copy(
        &mut self,
        from: &mut File,
        count: u64,
        path: &Path,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let mut left = count;
        self.buffer.resize(BUFFER, 0);
        while left > 0 {
            if interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let buffer = &mut self.buffer;
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
