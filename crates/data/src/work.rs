//! The work on a part: a source's files on one side, part files on the other, and all threads in
//! between.
//!
//! In: an entry and a worker's share of it. Out: the part, done; after an error, as much of it as
//! could be kept. One thread reads and cuts, the others parse, clean and tokenize, this one writes
//! what comes of it in the order it was read.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use crate::assemble;
use crate::encoder::{Encoded, Encoder};
use crate::entry::Entry;
use crate::error::{DataError, Result};
use crate::part::{PartRecord, Position};
use crate::part_writer::PartWriter;
use crate::pipeline::{self, Job, Push};
use crate::progress::Tally;
use crate::seen::{Seen, most_known};
use crate::share::Share;
use crate::source::piece::{Piece, Stretch};
use crate::source::{Flow, Limit, Span};
use crate::space;

impl Entry<'_> {
    /// Does one worker's part, or what is left of it. Second come the bytes of text that were read
    /// for it now.
    pub(crate) fn part(&self, share: Share) -> Result<(PartRecord, u64)> {
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
        let seen = self.source.deduplicate.then(|| Seen::new(most_known()));
        let (mut writer, next) =
            PartWriter::open(self, &self.dir, share, &self.signature, seen.as_ref())?;
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
            let mut ids = Vec::new();
            move |Cut { span, read, piece }: Cut<'_>| {
                let next = Position { span, place: piece.next };
                Ok((encoder.encode(piece, &mut ids), next, read))
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
        let expected = Some(self.tokenizer);
        for (number, span) in spans.iter().enumerate() {
            tally.begin(self.source.span_bytes(span));
            if number < from.span {
                tally.end();
                continue;
            }
            // A limit may be reached by what is on its way: the next file should not be fetched for
            // nothing.
            if self.source.spec.limit.is_some() && push.settle().is_break() {
                return Ok(());
            }
            self.source.fetch(
                &self.source.files[span.file],
                self.progress,
                self.request.interrupted,
            )?;
            let place = if number == from.span { from.place } else { Default::default() };
            let stretch = Stretch { from: place, within: span.within.clone() };
            let mut flow = ControlFlow::Continue(());
            self.source.pieces(span.file, &stretch, expected, advance, &mut |piece| {
                if self.request.interrupted.load(Ordering::Relaxed) {
                    return Err(DataError::Interrupted);
                }
                flow = push.push(Job {
                    bytes: piece.bytes,
                    job: Cut { span: number, read: tally.read(), piece },
                });
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

    /// An error about a full disk with how much more is needed, and of which work; any other as it
    /// is.
    pub(crate) fn with_room(&self, error: DataError, room: Option<Room>) -> DataError {
        match error {
            DataError::Io { path, doing: "write" | "create", source }
                if space::is_full(&source) =>
            {
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
}

/// A piece on its way to a worker.
struct Cut<'a> {
    /// The number of its span.
    span: usize,
    /// Bytes on disk that have been read when it was cut.
    read: u64,
    piece: Piece<'a>,
}

/// Bytes that are still needed on the disk; and the bytes written so far with the share of the work
/// done, where that is what they follow from.
pub(crate) type Room = (u64, Option<(u64, f64)>);
