//! Reading in two steps: cutting a file into chunks, in order and by one thread, and parsing them,
//! on any.
//!
//! In: a file and where to begin in it. Out: [`Chunk`]s, each of which says where the next one
//! begins, so that reading can go on there later. A format of text brings its own way of cutting (a
//! [`Chunker`]): its chunks are parsed in parallel, and it is begun in the middle. Tokenized files
//! are read from front to back, and begun in the middle by passing over what came before.

use std::ops::{ControlFlow, Range};

use serde::{Deserialize, Serialize};

use super::file::SourceFile;
use super::reading::{Item, Reading, Sink};
use crate::error::Result;

/// Bytes of text in a chunk, more or less: large enough that handing it over costs nothing, small
/// enough that some of them fit into a processor's cache.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// Items in a chunk at most, so that many small ones stay in bounds too.
const CHUNK_ITEMS: usize = 16 << 10;

/// A position in a file; the default is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// What comes before, as the format counts: lines, rows, items.
    pub(crate) number: u64,
    /// Bytes of text before, after decompression, where the format goes by them.
    pub(crate) offset: u64,
}

/// What is to be read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where to begin: the start, or where an earlier reading stopped.
    pub(crate) from: Cursor,
    /// The bytes on disk whose documents are meant; `None` for all. Only for formats that split.
    pub(crate) within: Option<Range<u64>>,
}

/// Pushes a chunk's items until the receiver breaks, and says whether it did.
pub(crate) type Parse<'a> = Box<dyn FnOnce(&mut Sink<'_>) -> Result<ControlFlow<()>> + Send + 'a>;

/// A part of a file, read but not parsed.
pub(crate) struct Chunk<'a> {
    pub(crate) parse: Parse<'a>,
    /// Bytes it holds in memory.
    pub(crate) bytes: usize,
    /// Where the next chunk begins.
    pub(crate) next: Cursor,
}

/// The receiver of chunks.
pub(crate) type ChunkSink<'s, 'a> = dyn FnMut(Chunk<'a>) -> Result<ControlFlow<()>> + 's;

/// How a format of text is cut into chunks: part of its row of the table.
pub(crate) struct Chunker {
    /// Whether this file can be read by byte ranges, each range by itself ([`Stretch::within`]).
    pub(super) splits: fn(&SourceFile) -> bool,
    /// Cuts a stretch of a file.
    pub(super) cut:
        for<'a> fn(&Reading<'a>, &SourceFile, &Stretch, &mut ChunkSink<'_, 'a>) -> Result<()>,
}

/// Cuts a file that can only be read from front to back: its items, gathered.
///
/// # Errors
/// Those of `read`, after the items before, and of `sink`.
pub(super) fn cut_items<'a>(
    read: fn(&Reading<'_>, &SourceFile, &mut Sink<'_>) -> Result<()>,
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    let (mut items, mut bytes, mut number) = (Vec::new(), 0, 0u64);
    let chunk = |items: Vec<Item>, bytes: usize, number: u64| Chunk {
        parse: Box::new(move |sink| {
            for item in items {
                if sink(item)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }),
        bytes,
        next: Cursor { number, offset: 0 },
    };
    let mut flow = ControlFlow::Continue(());
    let result = read(reading, file, &mut |item| {
        number += 1;
        if number <= stretch.from.number {
            return Ok(ControlFlow::Continue(()));
        }
        if let Item::Document(document) = &item {
            bytes += document.content.length() as usize;
        }
        items.push(item);
        if bytes >= CHUNK_BYTES || items.len() >= CHUNK_ITEMS {
            flow = sink(chunk(std::mem::take(&mut items), std::mem::take(&mut bytes), number))?;
        }
        Ok(flow)
    });
    // What came before an error counts.
    if !items.is_empty() && flow.is_continue() {
        // Nothing comes after it, whatever the receiver answers.
        let _ = sink(chunk(items, bytes, number))?;
    }
    result
}
