//! JSON lines: one object a line, one document an object.
//!
//! Files are cut behind line feeds into chunks of about 1 MiB, which are parsed in parallel; files
//! that are not compressed can also be begun at any byte, which then counts from the next line on.
//! Only the columns that are asked for are kept while a line is parsed, and what stands in others
//! is looked at only as far as it takes to find its end. Blank lines are passed over. A document
//! whose text is `null` counts as one without text. A file that is one value, as an array, or
//! values over several lines, is refused as a whole. Memory: a chunk, and at least one line, which
//! may have 64 MiB at most; a longer one is passed over without being kept.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::document::invalid::{Fault, Invalid};
use crate::document::{Content, Document};
use crate::error::{DataError, OR_SKIP, Result};
use crate::source::chunk::{CHUNK_BYTES, Chunk, ChunkSink, Chunker, Cursor, Stretch};
use crate::source::file::SourceFile;
use crate::source::json::{self, Json, Trouble};
use crate::source::reading::{InvalidByte, Item, Keys, Reading, Sink};
use crate::source::{column, decompress};

/// A longer line is taken for a file that is no JSON lines at all. It bounds the memory that one
/// document takes.
const MAX_LINE: u64 = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) static CHUNKER: Chunker =
    Chunker { splits: |file| !decompress::is_compressed(&file.path), cut };

fn cut<'a>(
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    check(file)?;
    let mut stream = decompress::open(file, reading)?;
    let within = stream.within();
    let (start, end) =
        stretch.within.as_ref().map_or((0, u64::MAX), |within| (within.start, within.end));
    let mut at = stretch.from;
    let read_error = |stream: &decompress::Stream<'_>, error, line| {
        stream.error(error, &file.path, decompress::place("after line", line))
    };
    if at == Cursor::default() && start > 0 {
        // The line that the byte before belongs to is another's.
        let skip = |stream: &mut decompress::Stream<'_>| {
            stream.skip(start - 1, start)?;
            stream.skip_line()
        };
        at.offset = start - 1 + skip(&mut stream).map_err(|error| read_error(&stream, error, 0))?;
    } else if at != Cursor::default() {
        let skipped = stream.skip(at.offset, start);
        skipped.map_err(|error| read_error(&stream, error, at.number))?;
    }
    let shared = Arc::new(file.clone());
    while at.offset < end {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + 4096);
        let mut fill = |stream: &mut decompress::Stream<'_>| {
            stream.fill((end - at.offset).min(CHUNK_BYTES as u64), &mut bytes)?;
            // A line belongs to where its first byte lies.
            let tail = bytes.len() - last_line(&bytes);
            if tail > 0 {
                stream.line(MAX_LINE - tail as u64, &mut bytes)?;
            }
            Ok(())
        };
        fill(&mut stream).map_err(|error| read_error(&stream, error, at.number))?;
        let start_of_last = last_line(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        let endless = (bytes.len() - start_of_last) as u64 == MAX_LINE && !bytes.ends_with(b"\n");
        let long = endless.then(|| long_line(&bytes[start_of_last..]));
        if endless {
            bytes.truncate(start_of_last);
            bytes.shrink_to_fit();
        }
        let place = |at| Arc::new(Lines { file: shared.clone(), begun: start, at, within });
        let lines = place(at);
        at.offset += bytes.len() as u64;
        at.number += memchr_iter(b'\n', &bytes).count() as u64;
        if bytes.is_empty() && !endless {
            return Ok(());
        }
        if !bytes.is_empty() {
            let (reading, size) = (*reading, bytes.len());
            let parse = move |sink: &mut Sink<'_>| parse_lines(&reading, &lines, bytes, sink);
            if sink(Chunk { parse: Box::new(parse), bytes: size, next: at })?.is_break() {
                return Ok(());
            }
        }
        if let Some(trouble) = long {
            let item = reading.refuse(place(at).fault(1, trouble))?;
            let rest = stream.skip_line().map_err(|error| read_error(&stream, error, at.number))?;
            at.offset += MAX_LINE + rest;
            at.number += 1;
            let parse = move |sink: &mut Sink<'_>| sink(item);
            if sink(Chunk { parse: Box::new(parse), bytes: 0, next: at })?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Checks that a file may hold lines of JSON.
///
/// # Errors
/// It is something else as a whole, so that no line of it could give a document.
fn check(file: &SourceFile) -> Result<()> {
    let (head, is_whole) = decompress::check(file)?;
    let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&head);
    let (text, is_whole) = match std::str::from_utf8(head) {
        Ok(text) => (text, is_whole),
        Err(error) => (str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(), false),
    };
    match json::not_lines(text, is_whole) {
        None => Ok(()),
        Some(json::NotLines { line, found, hint }) => {
            let path = file.path.clone();
            Err(DataError::InvalidJson { path, line, message: found, hint })
        }
    }
}

/// What is wrong with a line that is too long, by its beginning.
fn long_line(line: &[u8]) -> Trouble {
    let has_cr = line.contains(&b'\r');
    let hint = match line.trim_ascii_start().first() {
        Some(b'[') => "`jq -c '.[]' FILE > NEW.jsonl` writes each element on a line of its own",
        _ if has_cr => "it has carriage returns (CR) in it: `tr '\\r' '\\n' < FILE > NEW.jsonl`",
        _ => "cut the document into several",
    };
    Trouble {
        reason: Invalid::LongLine,
        found: format!("a line of more than {MAX_LINE} bytes (64 MiB)"),
        hint: format!("{hint}{OR_SKIP}"),
    }
}

/// Where the last line begins, which is the end where that is a line feed.
fn last_line(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// Where the lines of a chunk stand, for messages.
struct Lines {
    file: Arc<SourceFile>,
    /// Where the lines are counted from, in bytes of the file.
    begun: u64,
    at: Cursor,
    within: &'static str,
}

impl Lines {
    /// The number in the file of the chunk's line `number`, from 1. Where the file was begun in the
    /// middle, the lines before are counted only now, when somebody wants to know.
    fn number(&self, number: u64) -> u64 {
        let count = || {
            let mut before = BufReader::with_capacity(1 << 20, File::open(&self.file.path)?)
                .take(self.begun - 1);
            let mut buffer = vec![0; 1 << 20];
            let mut lines = 0;
            loop {
                match before.read(&mut buffer)? {
                    0 => return Ok::<u64, std::io::Error>(lines),
                    read => lines += memchr_iter(b'\n', &buffer[..read]).count() as u64,
                }
            }
        };
        // The line of the byte before is another's, and counts too.
        let before = if self.begun == 0 { 0 } else { count().unwrap_or(0) + 1 };
        before + self.at.number + number
    }

    /// What is wrong with the chunk's line `number`.
    fn fault(self: &Arc<Self>, number: u64, trouble: Trouble) -> Fault {
        let lines = self.clone();
        let Trouble { reason, found: message, hint } = trouble;
        Fault::new(reason, move || DataError::InvalidJson {
            path: lines.file.path.clone(),
            line: lines.number(number),
            message,
            hint,
        })
    }

    /// The name of the chunk's line `number`, once somebody asks for it.
    fn place(self: &Arc<Self>, number: u64) -> impl FnOnce() -> String + Send + use<> {
        let lines = self.clone();
        move || format!("line {}", lines.number(number))
    }
}

fn parse_lines(
    reading: &Reading<'_>,
    lines: &Arc<Lines>,
    mut bytes: Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<ControlFlow<()>> {
    let columns = reading.columns();
    let (mut number, mut start) = (0u64, 0);
    while start < bytes.len() {
        let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at + 1);
        let (mut line, offset) = (&bytes[start..end], lines.at.offset + start as u64);
        number += 1;
        start = end;
        if offset == 0 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let document = match std::str::from_utf8(line) {
            Ok(text) => parse_line(reading, lines, text, number, &columns),
            Err(_) => mended(reading, lines, line, number, offset).and_then(|text| {
                let document = parse_line(reading, lines, &text, number, &columns)?;
                Ok(Document { replaced: true, ..document })
            }),
        };
        let item = match document {
            Ok(document) => Item::Document(document),
            Err(fault) => reading.refuse(fault)?,
        };
        if start == bytes.len() {
            // The last line is often the only one, and long: what is made of it needs room.
            bytes = Vec::new();
            start = 0;
        }
        if sink(item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A line that is not UTF-8, with U+FFFD where it is not.
fn mended(
    reading: &Reading<'_>,
    lines: &Arc<Lines>,
    line: &[u8],
    number: u64,
    offset: u64,
) -> std::result::Result<String, Fault> {
    let InvalidByte { at, found } = match reading.text(line.to_vec()) {
        Ok((text, _)) => return Ok(text),
        Err(invalid) => invalid,
    };
    let (path, place, within) = (lines.file.path.clone(), lines.place(number), lines.within);
    let offset = offset + at as u64;
    Err(Fault::new(Invalid::NotUtf8, move || DataError::InvalidUtf8 {
        path,
        place: place(),
        offset,
        within,
        found,
    }))
}

fn parse_line(
    reading: &Reading<'_>,
    lines: &Arc<Lines>,
    text: &str,
    number: u64,
    columns: &[&str],
) -> std::result::Result<Document, Fault> {
    let row = match parse(text, columns) {
        Ok(row) => Json::from(row),
        // The fast parser also refuses what only columns that nobody asked for have wrong.
        Err(_) => json::line(text, !text.ends_with('\n'))
            .map_err(|trouble| lines.fault(number, trouble))?,
    };
    document(reading, &lines.file, row, text)
        .map_err(|wrong| wrong.at(lines.file.clone(), lines.place(number)))
}

fn document(
    reading: &Reading<'_>,
    file: &SourceFile,
    mut row: Json,
    line_text: &str,
) -> std::result::Result<Document, column::Wrong> {
    let mends = reading.mends();
    // The names of the columns that are there stand in the whole row, which was not kept.
    let there = || {
        let row = json::value(line_text);
        row.map_or_else(column::There::default, |row| column::There::in_row(&row))
    };
    let Keys { unit, domain, mended } =
        reading.keys(file, &mut |path| column::key(&row, path, mends, there))?;
    let name = reading.options.text.as_str();
    // Moved out where it can be, copied where it stands deeper.
    let found = match row.take(name) {
        Some(value) => Some(value),
        None => column::find(&row, name).map(|value| value.into_owned()),
    };
    let Some(found) = found else {
        return Err(column::Wrong::missing(Invalid::MissingColumn, name, there()));
    };
    let (text, replaced) = column::text(found, name, mends)?;
    let content = Content::Text(text);
    Ok(Document { content, unit, domain, replaced: replaced || mended })
}

/// The object in a line, with those of its entries that one of the `columns` may start with.
fn parse(line: &str, columns: &[&str]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let row = Entries(columns).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Value::Object(row))
}

struct Entries<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut row = Map::new();
        while let Some(key) = map.next_key_seed(Wanted(self.0))? {
            match key {
                Some(key) => {
                    row.insert(key, map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(row)
    }
}

/// A key, if it is a column's name or the first part of one.
struct Wanted<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Wanted<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Self::Value, E> {
        let starts = |column: &&str| {
            column.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        Ok(self.0.iter().any(starts).then(|| key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_wanted_entries_are_kept() {
        let line = r#"{"text": "a", "meta": {"x": 1}, "metadata": 2, "a.b": 3, "other": [1, {}]}"#;
        assert_eq!(
            parse(line, &["text", "meta.x", "a.b"]).unwrap(),
            json!({"text": "a", "meta": {"x": 1}, "a.b": 3})
        );
        for wrong in ["[1]", "3", "{\"a\": 1} x", "{\"a\": }", "{", "\"text\""] {
            assert!(parse(wrong, &["text"]).is_err(), "{wrong}");
        }
    }
}
