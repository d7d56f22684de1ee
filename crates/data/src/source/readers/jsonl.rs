//! JSON lines: one object a line, one document an object.
//!
//! Files are cut behind line feeds into chunks of about 1 MiB, which are parsed in parallel; files
//! that are not compressed can also be begun at any byte, which then counts from the next line on.
//! Only the columns that are asked for are kept while a line is parsed. Blank lines are passed
//! over. A document whose text is `null` counts as one without text. Memory: a chunk, and at least
//! one line, which may have 64 MiB at most.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::source::chunk::{CHUNK_BYTES, Chunk, ChunkSink, Chunker, Cursor, Stretch};
use crate::source::file::SourceFile;
use crate::source::reading::{Item, Reading, Sink};
use crate::source::{column, decompress};
use crate::spec::OnInvalid;

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
    let mut stream = decompress::open(&file.path, reading.advance)?;
    let within = stream.within();
    let (start, end) =
        stretch.within.as_ref().map_or((0, u64::MAX), |within| (within.start, within.end));
    let mut at = stretch.from;
    let read_error = |stream: &decompress::Stream<'_>, error, line| {
        stream.error(error, &file.path, format!("after line {line}"))
    };
    if at == Cursor::default() && start > 0 {
        // The line that the byte before belongs to is another's.
        let skip = |stream: &mut decompress::Stream<'_>| {
            stream.skip(start - 1, start)?;
            stream.line(MAX_LINE, &mut Vec::new())
        };
        at.offset =
            start - 1 + skip(&mut stream).map_err(|error| read_error(&stream, error, 0))? as u64;
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
        if endless {
            bytes.truncate(start_of_last);
        }
        let lines = Lines { file: shared.clone(), begun: start, at, within };
        at.offset += bytes.len() as u64;
        at.number += memchr_iter(b'\n', &bytes).count() as u64;
        if bytes.is_empty() && !endless {
            return Ok(());
        }
        let (reading, size) = (*reading, bytes.len());
        let parse = move |sink: &mut Sink<'_>| parse_lines(&reading, &lines, bytes, sink);
        if sink(Chunk { parse: Box::new(parse), bytes: size, next: at })?.is_break() {
            return Ok(());
        }
        if endless {
            let lines = Lines { file: shared, begun: start, at, within };
            return Err(lines.invalid(1, &format!("a line of more than {MAX_LINE} bytes")));
        }
    }
    Ok(())
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

    fn invalid(&self, number: u64, message: &str) -> DataError {
        let line = self.number(number);
        DataError::InvalidJson { path: self.file.path.clone(), line, message: message.to_owned() }
    }
}

fn parse_lines(
    reading: &Reading<'_>,
    lines: &Lines,
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
        let item = match std::str::from_utf8(line) {
            Ok(text) => parse_line(reading, lines, text, number, false, &columns)?,
            Err(_) => {
                let text = reading.text(line.to_vec(), |valid| DataError::InvalidUtf8 {
                    path: lines.file.path.clone(),
                    place: format!("line {}", lines.number(number)),
                    offset: offset + valid as u64,
                    within: lines.within,
                })?;
                match text {
                    None => Item::Skipped,
                    Some((text, replaced)) => {
                        parse_line(reading, lines, &text, number, replaced, &columns)?
                    }
                }
            }
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

fn parse_line(
    reading: &Reading<'_>,
    lines: &Lines,
    text: &str,
    number: u64,
    replaced: bool,
    columns: &[&str],
) -> Result<Item> {
    match parse(text, columns) {
        Ok(row) => {
            let mut document = document(reading, lines, row, text, number)?;
            document.replaced = replaced;
            Ok(Item::Document(document))
        }
        Err(_) if reading.options.on_invalid == OnInvalid::Skip => Ok(Item::Skipped),
        Err(error) if lines.number(number) == 1 && text.trim_start().starts_with('[') => {
            let message =
                format!("a JSON array ({error}); write each of its objects on a line of its own");
            Err(lines.invalid(number, &message))
        }
        Err(error) => Err(lines.invalid(number, &error.to_string())),
    }
}

fn document(
    reading: &Reading<'_>,
    lines: &Lines,
    mut row: Value,
    line_text: &str,
    number: u64,
) -> Result<Document> {
    let file = &*lines.file;
    let place = || format!("line {}", lines.number(number));
    // The names of the columns that are there stand in the whole row, which was not kept.
    let whole = || serde_json::from_str(line_text).unwrap_or_default();
    let (unit, domain) = reading.keys(file, &mut |path| match column::find(&row, path) {
        Some(_) => column::key(&row, path, file, &place),
        None => column::key(&whole(), path, file, &place),
    })?;
    let name = reading.options.text.as_str();
    // Moved out where it can be, copied where it stands deeper.
    let found = match row.get_mut(name) {
        Some(value) => Some(value.take()),
        None => column::find(&row, name).map(|value| value.into_owned()),
    };
    let text = match found {
        Some(Value::String(text)) => text,
        Some(Value::Null) => String::new(),
        Some(other) => {
            return Err(DataError::ColumnType {
                path: file.path.clone(),
                place: place(),
                column: name.to_owned(),
                expected: "text",
                found: column::kind(&other).to_owned(),
            });
        }
        None => return Err(column::missing(column::names(&whole()), name, file, place())),
    };
    Ok(Document { content: Content::Text(text), unit, domain, replaced: false })
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
