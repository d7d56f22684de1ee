//! JSON lines: one object a line, one document an object.
//!
//! Only the columns that are asked for are kept while a line is parsed. Blank lines are passed
//! over. A document whose text is `null` counts as one without text. Memory: one line, at most
//! 256 MiB.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Content, Document, Flow, Item, Reading, Sink, SourceFile, column, decompress};
use crate::error::{DataError, Result};
use crate::spec::OnInvalid;

/// A longer line is taken for a file that is no JSON lines at all.
const MAX_LINE: u64 = 256 << 20;

pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
    let mut stream = decompress::open(&file.path, reading.advance)?;
    let columns = reading.columns();
    let (mut line, mut offset) = (0u64, 0u64);
    loop {
        let mut bytes = Vec::new();
        let length = stream
            .line(MAX_LINE, &mut bytes)
            .map_err(|error| stream.error(error, &file.path, format!("after line {line}")))?
            as u64;
        if length == 0 {
            return Ok(());
        }
        line += 1;
        let start = offset;
        offset += length;
        let invalid = |message: String| DataError::InvalidJson { path: file.path.clone(), line, message };
        if length == MAX_LINE && bytes.last() != Some(&b'\n') {
            return Err(invalid(format!("a line of more than {MAX_LINE} bytes")));
        }
        if line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let text = reading.text(bytes, |valid| DataError::InvalidUtf8 {
            path: file.path.clone(),
            place: format!("line {line}"),
            offset: start + valid as u64,
            within: stream.within(),
        })?;
        let item = match text {
            None => Item::Skipped,
            Some((text, replaced)) => match parse(&text, &columns) {
                Ok(row) => {
                    let mut document = document(reading, file, row, &text, line)?;
                    document.replaced = replaced;
                    Item::Document(document)
                }
                Err(_) if reading.source.on_invalid == OnInvalid::Skip => Item::Skipped,
                Err(error) if line == 1 && text.trim_start().starts_with('[') => {
                    return Err(invalid(format!(
                        "a JSON array ({error}); write each of its objects on a line of its own"
                    )));
                }
                Err(error) => return Err(invalid(error.to_string())),
            },
        };
        if sink(item)? == Flow::NextFile {
            return Ok(());
        }
    }
}

fn document(
    reading: &Reading<'_>,
    file: &SourceFile,
    mut row: Value,
    line_text: &str,
    line: u64,
) -> Result<Document> {
    let place = || format!("line {line}");
    // The names of the columns that are there stand in the whole row, which was not kept.
    let whole = || serde_json::from_str(line_text).unwrap_or_default();
    let (unit, domain) = reading.keys(file, &mut |path| match column::find(&row, path) {
        Some(_) => column::key(&row, path, file, &place),
        None => column::key(&whole(), path, file, &place),
    })?;
    let name = reading.source.spec.text.as_str();
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

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
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
