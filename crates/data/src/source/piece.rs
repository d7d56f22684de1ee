//! Reading in two steps: cutting a file into pieces, in order and by one thread, and parsing them,
//! on any.
//!
//! In: a file and where to begin in it. Out: [`Piece`]s, each of which says where the next one
//! begins, so that reading can go on there later. A format may bring its own way of cutting (a
//! row's `pieces`), which makes it parsed in parallel and begun in the middle; every other is read
//! from front to back, and begun in the middle by passing over what came before.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Flow, Item, Reading, Sink, SourceFile};
use crate::error::Result;

/// Bytes of text in a piece, more or less: large enough that handing it over costs nothing, small
/// enough that some of them fit into a processor's cache.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Items in a piece at most, so that many small ones stay in bounds too.
const PIECE_ITEMS: usize = 16 << 10;

/// A place in a file; the default is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// What comes before, as the format counts: lines, rows, items.
    pub(crate) number: u64,
    /// Bytes of text before, after decompression, where the format goes by them.
    pub(crate) offset: u64,
}

/// What is to be read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where to begin: the start, or where an earlier reading stopped.
    pub(crate) from: Place,
    /// The bytes on disk whose documents are meant; `None` for all. Only for formats that split.
    pub(crate) within: Option<Range<u64>>,
}

/// What one piece still needs: its items are pushed until the receiver has enough, which comes
/// back.
pub(crate) type Parse<'a> = Box<dyn FnOnce(&mut Sink<'_>) -> Result<Flow> + Send + 'a>;

/// A part of a file, read but not parsed.
pub(crate) struct Piece<'a> {
    pub(crate) parse: Parse<'a>,
    /// Bytes it holds in memory.
    pub(crate) bytes: usize,
    /// Where the next piece begins.
    pub(crate) next: Place,
}

/// The receiver of pieces.
pub(crate) type PieceSink<'s, 'a> = dyn FnMut(Piece<'a>) -> Result<Flow> + 's;

/// What a format that can be cut into pieces adds to its row of the table.
pub(crate) struct Pieces {
    /// Whether this file can be read by byte ranges, each range by itself ([`Stretch::within`]).
    pub(super) splits: fn(&SourceFile) -> bool,
    /// Cuts a stretch of a file.
    pub(super) cut:
        for<'a> fn(&Reading<'a>, &SourceFile, &Stretch, &mut PieceSink<'_, 'a>) -> Result<()>,
}

/// Reads a whole file by its pieces, each parsed as soon as it is cut.
pub(super) fn read_through(
    pieces: &Pieces,
    reading: &Reading<'_>,
    file: &SourceFile,
    sink: &mut Sink<'_>,
) -> Result<()> {
    (pieces.cut)(reading, file, &Stretch::default(), &mut |piece| (piece.parse)(sink))
}

/// Cuts a file that can only be read from front to back: its items, gathered.
pub(super) fn cut_items<'a>(
    read: fn(&Reading<'_>, &SourceFile, &mut Sink<'_>) -> Result<()>,
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut PieceSink<'_, 'a>,
) -> Result<()> {
    let (mut items, mut bytes, mut number) = (Vec::new(), 0, 0u64);
    let piece = |items: Vec<Item>, bytes: usize, number: u64| Piece {
        parse: Box::new(move |sink| {
            for item in items {
                if sink(item)? == Flow::NextFile {
                    return Ok(Flow::NextFile);
                }
            }
            Ok(Flow::Continue)
        }),
        bytes,
        next: Place { number, offset: 0 },
    };
    let mut flow = Flow::Continue;
    let result = read(reading, file, &mut |item| {
        number += 1;
        if number <= stretch.from.number {
            return Ok(Flow::Continue);
        }
        if let Item::Document(document) = &item {
            bytes += document.content.length() as usize;
        }
        items.push(item);
        if bytes >= PIECE_BYTES || items.len() >= PIECE_ITEMS {
            flow = sink(piece(std::mem::take(&mut items), std::mem::take(&mut bytes), number))?;
        }
        Ok(flow)
    });
    // What came before an error counts.
    if !items.is_empty() && flow == Flow::Continue {
        sink(piece(items, bytes, number))?;
    }
    result
}
