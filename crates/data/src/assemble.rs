//! Parts to shards: what the workers left, put together and given its names.
//!
//! In: the parts of an entry, all done, in order. Out: its folder of shards, or one for each value
//! of `domain_by`, as a single worker would have made them. A single part's tokens are renamed,
//! those of several copied one behind another; where duplicates are left out, also those that only
//! another part had, or that came after more documents than a worker remembers. Whatever is
//! interrupted can be done again, until the last step removes the parts. Memory: a buffer and, for
//! duplicates, two bits a document and the ids of as many documents as a worker remembers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::error::{DataError, Result};
use crate::index;
use crate::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecord, SplitRecords, hex, remove_file,
    write_json, write_whole,
};
use crate::part::{PartRecord, part_folder, parts_folder};
use crate::part_files::{StreamRecord, read_notes, stream_files};
use crate::prepare::{DOMAIN_LIST, DomainList};
use crate::seen::{Seen, most_known};
use crate::share::Share;
use crate::split::Split;
use crate::store;
use crate::work::Room;

/// What came of an entry.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) documents: u64,
    pub(crate) tokens: u64,
    /// Values of `domain_by` that made no domain, since none of their documents was left.
    pub(crate) without_text: BTreeMap<String, Counts>,
}

/// A domain, gathered from the parts.
#[derive(Default)]
struct Gathered {
    counts: Counts,
    /// By split: a piece of each part that has the domain.
    streams: [Vec<Piece>; 3],
}

/// What one part has of a stream.
struct Piece {
    bin: PathBuf,
    lengths: PathBuf,
    record: StreamRecord,
    dropped: Dropped,
}

/// Documents of a piece that are left out: they came before.
#[derive(Default)]
struct Dropped {
    /// By their numbers in the piece.
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

impl Piece {
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

/// Gives everything its name.
///
/// Fails, before anything old is touched, where there is no document.
pub(crate) fn assemble(
    entry: &Entry<'_>,
    dir: &Path,
    signature: &str,
    parts: &[PartRecord],
) -> Result<Published> {
    let by = entry.domain.domain_by.is_some();
    let (domains, skipped) = gather(entry, dir, parts)?;
    let mut published = Published::default();
    let mut full = Vec::new();
    let mut sum = Counts::default();
    for (value, mut domain) in domains {
        sum += domain.counts;
        // Values whose documents are all left out make no domain, and are listed.
        if domain.streams.iter().flatten().all(|piece| piece.documents() == 0) {
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
            domain: entry.domain.name.clone(),
            files: entry.source.files.len(),
            read: sum.read + skipped,
            empty: sum.empty,
            invalid: skipped,
        });
    }
    remove_file(&dir.join(DOMAIN_LIST))?;
    write_whole(&dir.join("tokenizer.json"), entry.tokenizer.json().as_bytes())?;
    let mut list = DomainList {
        signature: signature.to_owned(),
        folders: BTreeMap::new(),
        without_text: published.without_text.clone(),
    };
    for (value, domain) in full {
        let folder = entry.folder(&value);
        let manifest =
            publish(entry, &folder, by.then_some(&value), domain, signature, parts.len() == 1)?;
        published.documents += Split::ALL.iter().map(|s| manifest.split(*s).documents).sum::<u64>();
        published.tokens += manifest.tokens();
        list.folders.insert(value.clone(), store::folder_name(&value));
    }
    if by {
        write_json(&dir.join(DOMAIN_LIST), &list)?;
    }
    store::sync_folder(dir)?;
    remove_parts(dir)?;
    Ok(published)
}

/// A part that is done, if it is and its files are whole.
pub(crate) fn finished(entry: &Entry<'_>, dir: &Path, share: Share) -> Option<PartRecord> {
    let part = PartRecord::read(&part_folder(dir, share))?;
    let current = part.is_done() && part.share == share && part.signature == entry.signature;
    let size = entry.token_type().size() as u64;
    let is = |path: &Path, length: u64| {
        std::fs::metadata(path).map_or(length == 0, |metadata| metadata.len() == length)
    };
    let whole = part.domains.iter().enumerate().all(|(number, domain)| {
        Split::ALL.iter().all(|split| {
            let [bin, lengths] = stream_files(&part_folder(dir, share), number, *split);
            let record = &domain.splits[split.number()];
            // An assembly that was interrupted may have moved the tokens of a single part already.
            let moved = || {
                !bin.exists()
                    && is(&name(&entry.folder(&domain.value), *split, "bin"), record.tokens * size)
            };
            is(&lengths, 4 * record.documents)
                && (is(&bin, record.tokens * size) || share == Share::WHOLE && moved())
        })
    });
    (current && whole).then_some(part)
}

/// Bytes that an assembly writes.
pub(crate) fn room(entry: &Entry<'_>, parts: &[PartRecord]) -> Option<Room> {
    let copied = if parts.len() > 1 || may_repeat(entry, parts) {
        entry.token_type().size() as u64
    } else {
        0
    };
    let splits = parts.iter().flat_map(|part| &part.domains).flat_map(|domain| &domain.splits);
    Some((splits.map(|split| 20 * split.documents + copied * split.tokens).sum(), None))
}

/// Removes all parts of an entry.
pub(crate) fn remove_parts(dir: &Path) -> Result<()> {
    let folder = parts_folder(dir);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", &folder)(error))
        }
        _ => Ok(()),
    }
}

/// The domains of all parts by their values, and the number of invalid documents.
fn gather(
    entry: &Entry<'_>,
    dir: &Path,
    parts: &[PartRecord],
) -> Result<(BTreeMap<String, Gathered>, u64)> {
    let mut domains: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut skipped = 0;
    for (part, repeated) in parts.iter().zip(repetitions(entry, dir, parts)?) {
        let folder = part_folder(dir, part.share);
        skipped += part.skipped;
        let mut pieces: Vec<[Dropped; 3]> =
            part.domains.iter().map(|_| Default::default()).collect();
        let mut counts: Vec<Counts> = part.domains.iter().map(|domain| domain.counts).collect();
        if !repeated.is_empty() {
            let mut numbers = 0..;
            let mut places = vec![[0u64; 3]; part.domains.len()];
            read_notes(&folder, part.noted, |noted| {
                let again = numbers.next().is_some_and(|number| repeated.contains(number));
                let (domain, split) = (usize::from(noted.domain), noted.split.number());
                let Some(place) = places.get_mut(domain).map(|places| &mut places[split]) else {
                    return;
                };
                if again {
                    let dropped = &mut pieces[domain][split];
                    dropped.which.insert(*place);
                    dropped.documents += 1;
                    dropped.tokens += u64::from(noted.tokens);
                    dropped.bytes += noted.bytes;
                    let counts = &mut counts[domain];
                    counts.duplicates += 1;
                    counts.invalid_replaced -= u64::from(noted.replaced);
                    counts.cr_stripped -= u64::from(noted.cr_stripped);
                    counts.normalized -= u64::from(noted.normalized);
                }
                *place += 1;
            })?;
        }
        for (number, ((domain, dropped), counts)) in
            part.domains.iter().zip(pieces).zip(counts).enumerate()
        {
            if !domains.contains_key(&domain.value) {
                entry.check_number(domains.len(), domains.keys())?;
            }
            let gathered = domains.entry(domain.value.clone()).or_default();
            gathered.counts += counts;
            for (split, dropped) in Split::ALL.into_iter().zip(dropped) {
                let [bin, lengths] = stream_files(&folder, number, split);
                let record = domain.splits[split.number()].clone();
                gathered.streams[split.number()].push(Piece { bin, lengths, record, dropped });
            }
        }
    }
    Ok((domains, skipped))
}

/// Whether a part may hold a document twice, or one that another has.
fn may_repeat(entry: &Entry<'_>, parts: &[PartRecord]) -> bool {
    entry.source.deduplicate && (parts.len() > 1 || parts.iter().any(|part| part.forgetful))
}

/// Of each part, the numbers in its notes of the documents that came before, in it or in an earlier
/// part.
fn repetitions(entry: &Entry<'_>, dir: &Path, parts: &[PartRecord]) -> Result<Vec<Bits>> {
    let mut repeated: Vec<Bits> = parts.iter().map(|_| Bits::default()).collect();
    if !may_repeat(entry, parts) {
        return Ok(repeated);
    }
    // A slice of all ids at a time, so that they take no more memory than while they were read.
    let slices = parts.iter().map(|part| part.noted).sum::<u64>().div_ceil(most_known());
    for slice in 0..slices {
        let seen = Seen::new(u64::MAX);
        for (part, repeated) in parts.iter().zip(&mut repeated) {
            if entry.request.interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let mut number = 0;
            read_notes(&part_folder(dir, part.share), part.noted, |noted| {
                // By other bits than its place in `seen`.
                let own = ((noted.id.0 >> 96) as u64 * slices) >> 32;
                if own == slice && !seen.insert(noted.id) {
                    repeated.insert(number);
                }
                number += 1;
            })?;
        }
    }
    Ok(repeated)
}

fn publish(
    entry: &Entry<'_>,
    dir: &Path,
    value: Option<&String>,
    domain: Gathered,
    signature: &str,
    single: bool,
) -> Result<Manifest> {
    // An assembly that was interrupted has done this domain already.
    if let Ok(manifest) = Manifest::read(dir)
        && manifest.signature == signature
        && manifest.check_lengths(dir).is_ok()
    {
        return Ok(manifest);
    }
    store::create_folder(dir)?;
    let mut manifest = Manifest {
        version: FORMAT_VERSION,
        domain: entry.name(value.map(String::as_str)),
        tokenizer: entry.tokenizer.fingerprint().to_owned(),
        vocab_size: entry.tokenizer.vocab_size(),
        end_of_text: entry.tokenizer.end_of_text(),
        token_type: entry.token_type(),
        source: SourceRecord {
            spec: entry.source.spec.clone(),
            domain_by: entry.domain.domain_by.clone(),
            domain_value: value.cloned(),
            hub: entry.source.hub.clone(),
            files: entry.source.records.clone(),
        },
        license: entry.source.license.clone(),
        splits: SplitRecords::default(),
        counts: domain.counts,
        signature: signature.to_owned(),
    };
    // All that takes time and room comes first; nothing old has been touched.
    for split in Split::ALL {
        let pieces = &domain.streams[split.number()];
        let bin_sha256 = match pieces.as_slice() {
            [piece] if single && piece.dropped.documents == 0 => {
                piece.record.sha256().ok_or_else(|| DataError::Manifest {
                    path: piece.bin.clone(),
                    message: "the note of its checksum is damaged".to_owned(),
                })?
            }
            pieces => concatenate(
                pieces,
                &part_name(dir, split, "bin"),
                entry.token_type().size() as u64,
            )?,
        };
        *manifest.split_mut(split) = SplitRecord {
            documents: pieces.iter().map(Piece::documents).sum(),
            tokens: pieces.iter().map(Piece::tokens).sum(),
            bytes: pieces.iter().map(Piece::bytes).sum(),
            bin_sha256,
            idx_sha256: write_index(pieces, &part_name(dir, split, "idx"), entry.token_type())?,
        };
    }
    // From here until the new one is there, the folder has no manifest: it is not whole.
    Manifest::remove(dir)?;
    for split in Split::ALL {
        let bin = name(dir, split, "bin");
        match domain.streams[split.number()].as_slice() {
            [piece] if single && piece.dropped.documents == 0 => take_over(piece, &bin)?,
            _ => rename(&part_name(dir, split, "bin"), &bin)?,
        }
        rename(&part_name(dir, split, "idx"), &name(dir, split, "idx"))?;
    }
    store::sync_folder(dir)?;
    manifest.write(dir)?;
    store::sync_folder(dir)?;
    Ok(manifest)
}

/// Moves the tokens of a single part to where they belong, unless an assembly that was interrupted
/// has done so.
fn take_over(piece: &Piece, bin: &Path) -> Result<()> {
    if piece.record.tokens == 0 {
        File::create(bin).map_err(DataError::io("create", bin))?;
    } else if piece.bin.exists() {
        rename(&piece.bin, bin)?;
    }
    Ok(())
}

/// Writes the tokens of all pieces, but for what is dropped, and gives their SHA-256.
fn concatenate(pieces: &[Piece], to: &Path, size: u64) -> Result<String> {
    let mut out = Hashed::create(to)?;
    for piece in pieces.iter().filter(|piece| piece.record.tokens > 0) {
        let mut from = File::open(&piece.bin).map_err(DataError::io("open", &piece.bin))?;
        piece.kept(|start, end| {
            from.seek(SeekFrom::Start(start * size)).map_err(DataError::io("read", &piece.bin))?;
            out.copy(&mut from, (end - start) * size, &piece.bin)
        })?;
    }
    out.finish()
}

/// Writes the index of all pieces and gives its SHA-256.
fn write_index(pieces: &[Piece], to: &Path, token_type: index::TokenType) -> Result<String> {
    let mut out = Hashed::create(to)?;
    let documents = pieces.iter().map(Piece::documents).sum();
    index::write_streaming(&mut out.out, to, token_type, documents, |sink| {
        for piece in pieces {
            // Documents have at most 2³¹ − 1 tokens.
            piece.lengths(|length, kept| if kept { sink(length as i32) } else { Ok(()) })?;
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

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(DataError::io("write", to))
}

fn name(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!("{split}.{ending}"))
}

fn part_name(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!(".{split}.{ending}.part"))
}
