//! Reading a [`Source`]: which of its files and in which order, and what stands in them.
//!
//! In: a source, and one of several workers' share of it. Out: [`Span`]s, and of each its
//! [`Chunk`](super::chunk::Chunk)s; or all items of a file, one after another. The order depends on
//! the files alone. Reading holds one chunk at a time (for Parquet, also one page a column). A file
//! on the Hub comes to this machine when [`Source::fetch`] asks for it.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use super::chunk::{ChunkSink, Stretch};
use super::file::SourceFile;
use super::readers;
use super::reading::{Reading, Sink};
use super::resolve::Source;
use super::share::Share;
use crate::error::Result;
use crate::progress::Progress;
use crate::tokenizer::Tokenizer;

/// A file that is to be read, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its number in [`Source::files`].
    pub(crate) file: usize,
    /// The part, in bytes on disk; `None` for the whole file.
    pub(crate) within: Option<Range<u64>>,
}

impl Source {
    /// Brings a file to this machine, where it is not here yet.
    ///
    /// # Errors
    /// The Hub does not give it.
    pub(crate) fn fetch(
        &self,
        file: &SourceFile,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        match &self.snapshot {
            Some(snapshot) => snapshot.fetch(&file.label, progress, interrupted).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Pushes the items of one file. `tokenizer` is the one that tokenized files must match.
    ///
    /// # Errors
    /// The file cannot be read or holds something else than the config says; those of `sink`.
    pub(crate) fn read(
        &self,
        file: &SourceFile,
        tokenizer: Option<&Tokenizer>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let reading =
            Reading { options: &self.options, advance: &|_| (), note: &|_| (), tokenizer };
        readers::read(&reading, file, sink)
    }

    /// Pushes the chunks of a stretch of one file, given by its number. `tokenizer` as for
    /// [`read`](Self::read); `advance` is told of bytes on disk, `note` what people should know.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), as far as they show before parsing.
    pub(crate) fn chunks<'a>(
        &'a self,
        file: usize,
        stretch: &Stretch,
        tokenizer: Option<&'a Tokenizer>,
        advance: &'a (dyn Fn(u64) + Sync),
        note: &'a (dyn Fn(&str) + Sync),
        sink: &mut ChunkSink<'_, 'a>,
    ) -> Result<()> {
        let reading = Reading { options: &self.options, advance, note, tokenizer };
        readers::cut(&reading, &self.files[file], stretch, sink)
    }

    /// Bytes on disk of a span.
    pub(crate) fn span_bytes(&self, span: &Span) -> u64 {
        let whole = || self.files[span.file].bytes;
        span.within.as_ref().map_or_else(whole, |within| within.end - within.start)
    }

    /// What one of several workers reads, in the order of the source: its share of the bytes on
    /// disk, cut within a file where the format allows. The shares of all workers, one after
    /// another, are the source. One with a limit is the first worker's alone: where it ends, only
    /// reading from its start can tell.
    pub(crate) fn spans(&self, share: Share) -> Vec<Span> {
        let share = match self.spec.limit {
            Some(_) if share.number() > 1 => return Vec::new(),
            Some(_) => Share::WHOLE,
            None => share,
        };
        let mine = share.of(self.all_bytes());
        let mut spans = Vec::new();
        let mut start = 0u64;
        for (number, file) in self.files.iter().enumerate() {
            let end = start + file.bytes;
            let splits = readers::splits(file);
            let (from, to) = (start.max(mine.start), end.min(mine.end));
            if splits && from < to {
                let whole = (from, to) == (start, end);
                spans.push(Span {
                    file: number,
                    within: (!whole).then(|| from - start..to - start),
                });
            } else if (!splits || file.bytes == 0) && share.owns(&mine, start) {
                spans.push(Span { file: number, within: None });
            }
            start = end;
        }
        spans
    }
}
