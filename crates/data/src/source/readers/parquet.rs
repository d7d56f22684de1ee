//! Parquet: one document a row.
//!
//! Only the columns that are asked for are read, straight from their column chunks, a few rows at a
//! time. A path is the name of a leaf column (`meta.language`), or reaches from one into the JSON
//! it holds. Lists are not read. Text may be of type string or plain bytes; `null` counts as a
//! document without text. Pages are decoded in order; what is in their rows is looked at in
//! parallel. Row groups can be shared out among workers. Memory: a page of each column, and a chunk
//! of 1 MiB.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use serde_json::{Value, json};

use super::parquet_words::Words;
use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::source::chunk::{CHUNK_BYTES, Chunk, ChunkSink, Chunker, Cursor, Stretch};
use crate::source::column;
use crate::source::file::SourceFile;
use crate::source::reading::{Item, Key, Reading, Sink};

/// Rows read at once. Documents are kept until the next ones are read, so it bounds memory too.
const ROWS: usize = 64;

/// Row groups can be read each by itself.
pub(super) static CHUNKER: Chunker = Chunker { splits: |_| true, cut };

fn cut<'a>(
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    let handle = File::open(&file.path).map_err(DataError::io("open", &file.path))?;
    let corrupt = |row: u64| {
        move |error: parquet::errors::ParquetError| DataError::Corrupt {
            path: file.path.clone(),
            format: "parquet",
            place: format!("after row {row}"),
            message: error.to_string(),
        }
    };
    let reader = SerializedFileReader::new(handle).map_err(corrupt(0))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns = reading.columns();
    // The column of `domain_by` is the last, where there is one.
    let names = match reading.options.domain {
        Some(Key::Column(_)) => columns.len() - 1,
        _ => columns.len(),
    };
    let leaves: Arc<[Leaf]> = columns
        .iter()
        .enumerate()
        .map(|(number, path)| Leaf::find(schema, path, file, number == names))
        .collect::<Result<_>>()?;
    let shared = Arc::new(file.clone());
    let mut rows = Rows { first: 0, read: 0, cells: Vec::new(), bytes: 0 };
    for number in 0..reader.num_row_groups() {
        let metadata = reader.metadata().row_group(number);
        let in_group = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let begins =
            metadata.columns().iter().map(|column| column.byte_range().0).min().unwrap_or(0);
        let elsewhere = stretch.within.as_ref().is_some_and(|within| !within.contains(&begins));
        if elsewhere || rows.read + in_group <= stretch.from.number {
            rows.read += in_group;
        } else {
            let group = || -> parquet::errors::Result<Vec<ColumnReader>> {
                let group = reader.get_row_group(number)?;
                leaves.iter().map(|leaf| group.get_column_reader(leaf.number)).collect()
            };
            let mut columns = group().map_err(corrupt(rows.read))?;
            let end = rows.read + in_group;
            while rows.read < end {
                let count = usize::try_from(end - rows.read).unwrap_or(ROWS).min(ROWS);
                let result = rows.gather(&leaves, &mut columns, count, stretch.from.number);
                let full = rows.bytes >= CHUNK_BYTES || rows.read == end || result.is_err();
                // What came before an error counts.
                if full && rows.send(reading, &shared, &leaves, sink)?.is_break() {
                    return Ok(());
                }
                result.map_err(corrupt(rows.read))?;
            }
        }
        if !elsewhere {
            (reading.advance)(u64::try_from(metadata.compressed_size()).unwrap_or(0));
        }
    }
    Ok(())
}

/// Rows that have been read.
struct Rows {
    /// The number of the first, from 1.
    first: u64,
    /// How many rows of the file have been read or passed over.
    read: u64,
    cells: Vec<Vec<Cell>>,
    bytes: usize,
}

impl Rows {
    /// Reads `count` more, of which those up to number `known` are passed over.
    fn gather(
        &mut self,
        leaves: &[Leaf],
        columns: &mut [ColumnReader],
        count: usize,
        known: u64,
    ) -> parquet::errors::Result<()> {
        let mut values = Vec::with_capacity(leaves.len());
        for (leaf, column) in leaves.iter().zip(columns) {
            values.push(leaf.read(column, count)?.into_iter());
        }
        for _ in 0..count {
            let cells: Vec<Cell> = values.iter_mut().filter_map(Iterator::next).collect();
            if cells.len() < leaves.len() {
                return Err(parquet::errors::ParquetError::EOF("a column ends early".to_owned()));
            }
            self.read += 1;
            if self.read > known {
                if self.cells.is_empty() {
                    self.first = self.read;
                }
                self.bytes += cells.iter().map(Cell::bytes).sum::<usize>();
                self.cells.push(cells);
            }
        }
        Ok(())
    }

    /// Sends what there is off as a chunk.
    fn send<'a>(
        &mut self,
        reading: &Reading<'a>,
        file: &Arc<SourceFile>,
        leaves: &Arc<[Leaf]>,
        sink: &mut ChunkSink<'_, 'a>,
    ) -> Result<ControlFlow<()>> {
        if self.cells.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let (reading, file, leaves) = (*reading, file.clone(), leaves.clone());
        let (first, cells) = (self.first, std::mem::take(&mut self.cells));
        let parse = move |sink: &mut Sink<'_>| {
            for (cells, row) in cells.into_iter().zip(first..) {
                if sink(item(&reading, &file, &leaves, cells, row)?)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        let (bytes, next) =
            (std::mem::take(&mut self.bytes), Cursor { number: self.read, offset: 0 });
        sink(Chunk { parse: Box::new(parse), bytes, next })
    }
}

/// One value of a column.
enum Cell {
    Null,
    Bytes(Vec<u8>),
    /// Already in words: numbers and truth values.
    Other(Value),
}

impl Cell {
    /// The same as people write it.
    fn written(self, words: Words) -> Cell {
        let written = match &self {
            Cell::Null => None,
            Cell::Bytes(bytes) => words.bytes(bytes),
            Cell::Other(value) => match value.as_i64() {
                Some(number) => words.number(number),
                None => value.as_f64().and_then(|number| words.float(number)),
            },
        };
        written.map_or(self, |written| Cell::Other(Value::String(written)))
    }

    /// Bytes in memory, more or less.
    fn bytes(&self) -> usize {
        match self {
            Cell::Bytes(bytes) => bytes.len() + 64,
            Cell::Null | Cell::Other(_) => 64,
        }
    }
}

/// Where a path leads: a column, and what is left of the path inside the JSON it holds.
struct Leaf {
    /// The path as typed.
    path: String,
    number: usize,
    /// The column's own name.
    name: String,
    /// The rest of the path, empty where the column itself is meant.
    inside: String,
    /// The definition level of a value that is not null.
    defined: i16,
    /// How values that name domains are written, where not as they are stored.
    words: Option<Words>,
}

impl Leaf {
    fn find(
        schema: &SchemaDescriptor,
        path: &str,
        file: &SourceFile,
        is_name: bool,
    ) -> Result<Leaf> {
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let mut best: Option<(usize, &str)> = None;
        for (number, name) in names.iter().enumerate() {
            let Some(rest) = path.strip_prefix(name.as_str()) else { continue };
            let inside = rest.strip_prefix('.');
            let longer = best.is_none_or(|(best, _)| names[best].len() < name.len());
            if longer && (rest.is_empty() || inside.is_some()) {
                best = Some((number, inside.unwrap_or_default()));
            }
        }
        let Some((number, inside)) = best else {
            return Err(column::missing(names, path, file, "schema".to_owned()));
        };
        let descriptor = schema.column(number);
        let wrong = |found: String| DataError::ColumnType {
            path: file.path.clone(),
            place: "schema".to_owned(),
            column: path.to_owned(),
            expected: "text",
            found,
        };
        if descriptor.max_rep_level() > 0 {
            return Err(wrong("a list".to_owned()));
        }
        let kind = descriptor.physical_type();
        if kind == PhysicalType::INT96 && !is_name {
            return Err(wrong("a time (INT96)".to_owned()));
        }
        if !inside.is_empty() && kind != PhysicalType::BYTE_ARRAY {
            return Err(wrong(format!("`{}` of type {kind}, with nothing inside", names[number])));
        }
        Ok(Leaf {
            path: path.to_owned(),
            number,
            name: names[number].clone(),
            inside: inside.to_owned(),
            defined: descriptor.max_def_level(),
            words: if is_name { Words::of(&descriptor) } else { None },
        })
    }

    /// The next `rows` values; fewer where the column ends.
    fn read(&self, reader: &mut ColumnReader, rows: usize) -> parquet::errors::Result<Vec<Cell>> {
        let cells = self.stored(reader, rows)?;
        Ok(match self.words {
            Some(words) => cells.into_iter().map(|cell| cell.written(words)).collect(),
            None => cells,
        })
    }

    /// The next values as they are stored.
    fn stored(&self, reader: &mut ColumnReader, rows: usize) -> parquet::errors::Result<Vec<Cell>> {
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Bytes(value.data().to_vec()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Bytes(value.data().to_vec()))
            }
            ColumnReader::BoolColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value)))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value)))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value)))
            }
            ColumnReader::FloatColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value)))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value)))
            }
            // Refused when the column was found, unless it names domains.
            ColumnReader::Int96ColumnReader(reader) => {
                self.cells(reader, rows, |value| Cell::Other(json!(value.to_nanos())))
            }
        }
    }

    fn cells<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        cell: fn(T::T) -> Cell,
    ) -> parquet::errors::Result<Vec<Cell>> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (read, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
        let mut values = values.into_iter().map(cell);
        if self.defined == 0 {
            return Ok(values.collect());
        }
        // Only values that are there are stored; the levels say which those are.
        let levels = levels.into_iter().take(read);
        Ok(levels
            .map(|level| match level == self.defined {
                true => values.next().unwrap_or(Cell::Null),
                false => Cell::Null,
            })
            .collect())
    }
}

/// The item of one row; `cells` are those of the text and of the keys, in the order of
/// [`Reading::columns`].
fn item(
    reading: &Reading<'_>,
    file: &SourceFile,
    leaves: &[Leaf],
    cells: Vec<Cell>,
    row: u64,
) -> Result<Item> {
    let place = || format!("row {row}");
    let mut replaced = false;
    let mut values = Vec::with_capacity(cells.len());
    for (leaf, cell) in leaves.iter().zip(cells) {
        let value = match cell {
            Cell::Null => Value::Null,
            Cell::Other(value) => value,
            Cell::Bytes(bytes) => {
                let text = reading.text(bytes, |valid| DataError::InvalidUtf8 {
                    path: file.path.clone(),
                    place: format!("row {row}, column `{}`", leaf.name),
                    offset: valid as u64,
                    within: " of the value",
                })?;
                let Some((text, was_replaced)) = text else { return Ok(Item::Skipped) };
                replaced |= was_replaced;
                Value::String(text)
            }
        };
        values.push(if leaf.inside.is_empty() {
            value
        } else {
            let inner = column::find(&value, &leaf.inside).map(|inner| inner.into_owned());
            inner.ok_or_else(|| {
                let row = json!({ &leaf.name: value });
                column::missing(column::names(&row), &leaf.path, file, place())
            })?
        });
    }
    let mut values = values.into_iter();
    let content = match values.next() {
        Some(Value::String(text)) => Content::Text(text),
        Some(Value::Null) | None => Content::Text(String::new()),
        Some(other) => {
            return Err(DataError::ColumnType {
                path: file.path.clone(),
                place: place(),
                column: reading.options.text.clone(),
                expected: "text",
                found: column::kind(&other).to_owned(),
            });
        }
    };
    // The keys are asked for in the order their columns were listed in.
    let (unit, domain) = reading.keys(file, &mut |path| {
        let mut row = serde_json::Map::new();
        row.insert(path.to_owned(), values.next().unwrap_or(Value::Null));
        column::key(&Value::Object(row), path, file, &place)
    })?;
    Ok(Item::Document(Document { content, unit, domain, replaced }))
}
