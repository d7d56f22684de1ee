//! From a source's files to a part: reading, tokenizing and writing, all at once.
//!
//! In: a [`Job`] and a worker's share of it. Out: the part, done; after an error, as much of it as
//! could be kept. One thread reads and cuts chunks, the others parse, clean and tokenize them, this
//! one writes what comes of them in the order they were read.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use cuvee_words::printable_path;

use super::dedup::DedupSet;
use super::disk_space::{self, SpaceNeeded};
use super::encoder::{EncodedChunk, Encoder};
use super::job::Job;
use super::ordered_pool::{self, Push, Task};
use super::part::record::{PartRecord, Position, finished};
use super::part::writer::PartWriter;
use crate::error::{DataError, Result};
use crate::progress::{Control, Progress, Tally};
use crate::shard::manifest::{HubRecord, Manifest};
use crate::source::chunk::{Chunk, Stretch};
use crate::source::read::Span;
use crate::source::share::Share;
use crate::spec::limit::Limit;
use crate::units::bytes_in_words;

/// A chunk on its way to a worker.
struct Cut<'a> {
    /// The number of its span.
    span: usize,
    /// Bytes on disk that have been read when it was cut.
    read: u64,
    chunk: Chunk<'a>,
}

/// Does one worker's part of a job, or what is left of it. Second come the bytes of text that were
/// read for it now.
///
/// # Errors
/// The source cannot be read or tokenized, the disk is full, an interruption; what was done is
/// kept.
pub(super) fn tokenize(
    job: &Job<'_>,
    share: Share,
    control: Control<'_>,
) -> Result<(PartRecord, u64)> {
    let progress = control.progress;
    let spans = job.source.spans(share);
    let total: u64 = spans.iter().map(|span| job.source.span_bytes(span)).sum();
    if let Some(moved) = job.source.hub.as_ref().and_then(|hub| moved_since(hub, &job.dir)) {
        progress.note(&job.line(&moved));
    }
    for note in &job.source.notes {
        progress.note(&job.line(note));
    }
    // Where a limit ends reading, nobody knows before how much there is to read.
    let stated = job.source.spec.limit.is_none().then_some(total);
    progress.start(&format!("tokenize {}", job.name), stated);
    let tally = Tally::new(progress, stated);
    if let Some(part) = finished(job, share) {
        tally.advance_to_end();
        return Ok((part, 0));
    }
    let known = job.source.deduplicate.then(|| DedupSet::new(job.options.remember_documents));
    let (mut writer, next) = PartWriter::open(job, share, spans.len(), known.as_ref(), progress)?;
    warn_of_full_disk(job, total.saturating_sub(writer.read()), progress);
    let filled = match next {
        Some(next) => fill(job, &mut writer, &spans, next, known.as_ref(), &tally, control),
        None => Ok(()),
    };
    if let Err(error) = filled {
        // Before it is tried to keep it all, which may write some of it.
        let (written, waiting) = (writer.written(), writer.waiting());
        writer.keep();
        let done = tally.share(writer.read());
        let needed = done.and_then(|done| {
            let left = disk_space::left(written + waiting, done)?;
            Some(SpaceNeeded { bytes: left + waiting, done: Some((written, done)) })
        });
        return Err(disk_space::explain(error, &job.dir, needed));
    }
    tally.advance_to_end();
    let needed = Some(SpaceNeeded { bytes: writer.waiting(), done: None });
    let part = writer.finish().map_err(|error| disk_space::explain(error, &job.dir, needed))?;
    Ok((part, tally.text()))
}

/// Reads in a thread of its own and works in all others, while this one writes.
fn fill(
    job: &Job<'_>,
    writer: &mut PartWriter<'_>,
    spans: &[Span],
    from: Position,
    known: Option<&DedupSet>,
    tally: &Tally<'_>,
    control: Control<'_>,
) -> Result<()> {
    let encoder = Encoder {
        cleaning: job.source.cleaning,
        corrupt: job.source.spec.corrupt,
        splits: job.splits,
        tokenizer: job.tokenizer,
        token_type: job.token_type(),
        known,
    };
    let advance = |bytes| tally.advance(bytes);
    let note = |line: &str| control.progress.note(&job.line(line));
    let worker = || {
        let mut ids = Vec::new();
        move |Cut { span, read, chunk }: Cut<'_>| {
            let next = Position { span, cursor: chunk.next };
            Ok((encoder.encode(chunk, &mut ids), next, read))
        }
    };
    let take = |(encoded, next, read): (EncodedChunk, Position, u64)| {
        tally.add_text(encoded.documents.iter().map(|document| document.bytes).sum());
        writer.take(encoded, next, read)
    };
    let threads = rayon::current_num_threads();
    ordered_pool::run(
        threads,
        |push| read(job, spans, from, (&advance, &note), tally, control, push),
        worker,
        take,
    )
}

/// Is told of bytes of files that have been read.
type Advance<'a> = dyn Fn(u64) + Sync + 'a;

/// Is told what people should know of a file.
type Note<'a> = dyn Fn(&str) + Sync + 'a;

/// Pushes the chunks of all spans from a position on.
fn read<'r>(
    job: &Job<'r>,
    spans: &[Span],
    from: Position,
    (advance, note): (&'r Advance<'r>, &'r Note<'r>),
    tally: &Tally<'_>,
    control: Control<'_>,
    push: &mut Push<'_, Cut<'r>>,
) -> Result<()> {
    let source = job.source;
    for (number, span) in spans.iter().enumerate() {
        tally.begin(source.span_bytes(span));
        if number < from.span {
            tally.end();
            continue;
        }
        // A limit may be reached by what is on its way: the next file should not be fetched for
        // nothing.
        if source.spec.limit.is_some() && push.settle().is_break() {
            return Ok(());
        }
        source.fetch(&source.files[span.file], control.progress, control.interrupted)?;
        let cursor = if number == from.span { from.cursor } else { Default::default() };
        let stretch = Stretch { from: cursor, within: span.within.clone() };
        let mut flow = ControlFlow::Continue(());
        source.chunks(span.file, &stretch, Some(job.tokenizer), advance, note, &mut |chunk| {
            if control.interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let bytes = chunk.bytes;
            flow =
                push.push(Task { bytes, content: Cut { span: number, read: tally.read(), chunk } });
            Ok(flow)
        })?;
        if flow.is_break() {
            return Ok(());
        }
        tally.end();
    }
    Ok(())
}

/// Warns where there is hardly space for what `bytes` on disk of the source will make.
fn warn_of_full_disk(job: &Job<'_>, bytes: u64, progress: &dyn Progress) {
    let needed = match job.source.spec.limit {
        None => disk_space::estimate(job.source, bytes, job.token_type()),
        Some(Limit::Bytes(text)) => disk_space::of_text(text, job.token_type()),
        Some(Limit::Documents(_)) => return,
    };
    if let Some(free) = cuvee_fs::free_space(&job.dir).filter(|free| *free < needed) {
        progress.note(&job.line(&format!(
            "some {} will be needed where {} lies, and {} are free there; should it not suffice, nothing is lost",
            bytes_in_words(needed),
            printable_path(&job.dir),
            bytes_in_words(free)
        )));
    }
}

/// In words, that the repository has moved on since the shards in `dir` were made.
fn moved_since(now: &HubRecord, dir: &Path) -> Option<String> {
    // Any of the domains will do: an entry's are made together.
    let folders = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut manifests =
        std::iter::once(dir.to_owned()).chain(folders).filter_map(|dir| Manifest::read(&dir).ok());
    let then = manifests.next()?.source.hub?;
    (then.repository == now.repository && then.commit != now.commit).then(|| {
        format!(
            "{} has moved from commit {} to {}: made again",
            now.repository, then.commit, now.commit
        )
    })
}
