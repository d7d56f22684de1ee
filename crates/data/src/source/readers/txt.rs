//! Plain text: a file is a document, and a longer one is cut into several.
//!
//! Documents are at most `max_document` bytes. A cut falls behind the last blank line that fits,
//! else behind the last line end, else between two characters; nothing is dropped but a byte-order
//! mark at the start, so the documents put together are the file. Some of them at a time make a
//! chunk that is checked elsewhere. NUL bytes are no text. Memory: a chunk of 1 MiB, and at least
//! one document.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_words::printable_path;
use memchr::memchr;
use memchr::memmem::rfind;

use crate::document::invalid::{Fault, Invalid};
use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::source::chunk::{CHUNK_BYTES, Chunk, ChunkSink, Chunker, Cursor, Stretch};
use crate::source::decompress;
use crate::source::file::SourceFile;
use crate::source::reading::{InvalidByte, Item, Keys, Reading, Sink};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a document begins depends on all that came before it, so a file is not split.
pub(super) static CHUNKER: Chunker = Chunker { splits: |_| false, cut: cut_file };

fn cut_file<'a>(
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    decompress::check(file)?;
    let mut stream = decompress::open(file, reading)?;
    let max = reading.options.max_document;
    let mut buffer = Vec::new();
    // Where the buffer starts in the text.
    let mut offset = stretch.from.offset;
    if offset > 0 {
        let skipped = stream.skip(offset, 0);
        skipped.map_err(|error| {
            stream.error(error, &file.path, decompress::place("before byte", offset))
        })?;
    }
    let within = stream.within();
    let shared = Arc::new(file.clone());
    let mut documents: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut gathered = 0;
    let mut ended = false;
    let told = Arc::new(AtomicBool::new(false));
    loop {
        // One byte more than fits tells whether there is more, and where characters begin.
        let wanted = max.saturating_add(1).saturating_sub(buffer.len()) as u64;
        if !ended && wanted > 0 {
            let read = stream.fill(wanted, &mut buffer).map_err(|error| {
                stream.error(error, &file.path, decompress::place("after byte", offset))
            })?;
            ended = (read as u64) < wanted;
        }
        if offset == 0 && buffer.starts_with(BYTE_ORDER_MARK) {
            buffer.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
            continue;
        }
        let last = buffer.is_empty();
        if !last {
            let cut = if buffer.len() <= max { buffer.len() } else { cut(&buffer, max) };
            let rest = buffer.split_off(cut);
            documents.push((offset, std::mem::replace(&mut buffer, rest)));
            offset += cut as u64;
            gathered += cut;
        }
        if gathered >= CHUNK_BYTES || last && gathered > 0 {
            let (reading, file, told) = (*reading, shared.clone(), told.clone());
            let documents = std::mem::take(&mut documents);
            let parse = move |sink: &mut Sink<'_>| {
                parse(
                    &reading,
                    &file,
                    within,
                    documents,
                    &mut |text| {
                        tell_of_marks(&reading, &file, text, &told);
                    },
                    sink,
                )
            };
            let (bytes, next) = (std::mem::take(&mut gathered), Cursor { number: 0, offset });
            if sink(Chunk { parse: Box::new(parse), bytes, next })?.is_break() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

fn parse(
    reading: &Reading<'_>,
    file: &SourceFile,
    within: &'static str,
    documents: Vec<(u64, Vec<u8>)>,
    look: &mut dyn FnMut(&str),
    sink: &mut Sink<'_>,
) -> Result<ControlFlow<()>> {
    for (start, bytes) in documents {
        let item = match text(reading, file, within, start, bytes) {
            Ok((text, replaced)) => {
                look(&text);
                let Keys { unit, domain, .. } = reading.file_keys(file);
                Item::Document(Document { content: Content::Text(text), unit, domain, replaced })
            }
            Err(fault) => reading.refuse(fault)?,
        };
        if sink(item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The text of a document that begins at `start`, and whether something was replaced in it.
fn text(
    reading: &Reading<'_>,
    file: &SourceFile,
    within: &'static str,
    start: u64,
    bytes: Vec<u8>,
) -> std::result::Result<(String, bool), Fault> {
    let path = file.path.clone();
    if let Some(at) = memchr(0, &bytes).filter(|_| !reading.mends()) {
        let more = bytes[at + 1..].iter().take_while(|byte| **byte == 0).count();
        let found = match more {
            0 => String::new(),
            more => format!(", and {more} more behind it"),
        };
        let offset = start + at as u64;
        return Err(Fault::new(Invalid::Nul, move || DataError::NulByte {
            path,
            offset,
            within,
            found,
        }));
    }
    let (mut text, mut replaced) = reading.text(bytes).map_err(|InvalidByte { at, found }| {
        let offset = start + at as u64;
        Fault::new(Invalid::NotUtf8, move || DataError::InvalidUtf8 {
            path,
            place: "plain text".to_owned(),
            offset,
            within,
            found,
        })
    })?;
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
        replaced = true;
    }
    Ok((text, replaced))
}

/// Tells of byte-order marks where lines begin, once a file. They may be meant, so they stay.
fn tell_of_marks(reading: &Reading<'_>, file: &SourceFile, text: &str, told: &AtomicBool) {
    let is_marked = text.starts_with('\u{feff}') || text.contains("\n\u{feff}");
    if is_marked && !told.swap(true, Ordering::Relaxed) {
        (reading.note)(&format!(
            "{}: byte-order marks (EF BB BF) stand where lines begin, as `cat` leaves them between \
             files; they stay in the text",
            printable_path(&file.path)
        ));
    }
}

/// Where to cut a buffer that is longer than `max`; at least 1 and at most `max`.
fn cut(buffer: &[u8], max: usize) -> usize {
    let window = &buffer[..max];
    let ends = |ending: &[u8]| rfind(window, ending).map(|at| at + ending.len());
    if let Some(blank) = ends(b"\n\n").max(ends(b"\n\r\n")) {
        return blank;
    }
    if let Some(line) = ends(b"\n") {
        return line;
    }
    // A character has at most three continuation bytes; more are invalid anyway.
    let is_start = |at: &usize| buffer[*at] & 0xc0 != 0x80;
    (max.saturating_sub(3).max(1)..=max).rev().find(is_start).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_prefer_blank_lines_then_lines_then_characters() {
        assert_eq!(cut(b"ab\n\ncd\nef gh", 10), 4);
        assert_eq!(cut(b"ab\r\n\r\ncd\nef", 10), 6);
        assert_eq!(cut(b"ab cd\nef gh", 10), 6);
        assert_eq!(cut(b"ab cd ef gh", 10), 10);
        // "é" is two bytes and must not be cut in the middle.
        assert_eq!(cut("abcdefghié".as_bytes(), 10), 9);
        assert_eq!(cut("abcdefg😀".as_bytes(), 10), 7);
    }

    proptest! {
        #[test]
        fn a_cut_makes_progress_between_characters(text in "(a|\n|é|😀){20,60}", max in 8..20usize) {
            prop_assume!(text.len() > max);
            let at = cut(text.as_bytes(), max);
            prop_assert!(at >= 1 && at <= max);
            prop_assert!(text.is_char_boundary(at));
        }
    }
}
