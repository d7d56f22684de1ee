//! Parquet: one document a row.
//!
//! Only the columns that are asked for are read, straight from their column chunks, a few rows at a
//! time. A path is the name of a leaf column (`meta.language`), or reaches from one into the JSON
//! it holds. Lists are not read. Text may be of type string or plain bytes; `null` counts as a
//! document without text. Pages are decoded in order; what is in their rows is looked at in
//! parallel. Row groups can be shared out among workers. What the library panics on is an error as
//! any other. Memory: a page of each column, and a chunk of 1 MiB.

mod bounds;
mod page_header;
mod types;

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;

use cuvee_words::printable;
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result as Decoded};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use self::types::Meaning;
use crate::document::invalid::{Fault, Invalid};
use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::guard::caught;
use crate::source::chunk::{CHUNK_BYTES, Chunk, ChunkSink, Chunker, Cursor, Stretch};
use crate::source::file::SourceFile;
use crate::source::json::Json;
use crate::source::reading::{InvalidByte, Item, Keys, Reading, Sink};
use crate::source::{column, decompress, signature};

/// Rows read at once. Documents are kept until the next ones are read, so it bounds memory too.
const ROWS: usize = 64;

/// Parts of a value that a message names.
const MOST_PARTS: usize = 5;

/// What to do about a list.
const LIST: &str = "join the parts into one text, or name another column";

/// Row groups can be read each by itself.
pub(super) static CHUNKER: Chunker = Chunker { splits: |_| true, cut };

fn cut<'a>(
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    check(file)?;
    let handle = File::open(&file.path).map_err(DataError::io("open", &file.path))?;
    let again = handle.try_clone().map_err(DataError::io("open", &file.path))?;
    let corrupt = |row: u64| {
        move |message: String| DataError::Corrupt {
            path: file.path.clone(),
            format: "parquet",
            place: decompress::place("after row", row),
            message,
            hint: "the file is damaged or was cut off; fetch or write it again",
        }
    };
    let reader = decode(|| SerializedFileReader::new(handle)).map_err(corrupt(0))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let leaves: Arc<[Leaf]> = reading
        .columns()
        .iter()
        .map(|path| Leaf::find(schema, path, file))
        .collect::<Result<_>>()?;
    let (shared, handle) = (Arc::new(file.clone()), Arc::new(again));
    let mut rows = Rows { first: 0, read: 0, cells: Vec::new(), bytes: 0 };
    for number in 0..reader.num_row_groups() {
        let metadata = reader.metadata().row_group(number);
        let place = || {
            let begins = metadata.columns().iter().map(|column| column.byte_range().0).min();
            Ok((bounds::rows(metadata)?, begins.unwrap_or(0)))
        };
        let (in_group, begins) = decode(place).map_err(corrupt(rows.read))?;
        let elsewhere = stretch.within.as_ref().is_some_and(|within| !within.contains(&begins));
        let end = rows.read.saturating_add(in_group);
        if elsewhere || end <= stretch.from.number {
            rows.read = end;
        } else {
            let group = || -> Decoded<Vec<ColumnReader>> {
                let column = |leaf: &Leaf| {
                    let pages = bounds::pages(&handle, metadata.column(leaf.number), in_group)?;
                    Ok(get_column_reader(schema.column(leaf.number), Box::new(pages)))
                };
                leaves.iter().map(column).collect()
            };
            let mut columns = decode(group).map_err(corrupt(rows.read))?;
            while rows.read < end {
                let count = usize::try_from(end - rows.read).unwrap_or(ROWS).min(ROWS);
                let from = stretch.from.number;
                let result = decode(|| rows.gather(&leaves, &mut columns, count, from));
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

/// Checks that a file is Parquet by its first bytes.
///
/// # Errors
/// It is something else.
fn check(file: &SourceFile) -> Result<()> {
    let head = decompress::raw_head(&file.path)?;
    if head.starts_with(b"PAR1") {
        return Ok(());
    }
    let again = "fetch or write the file again";
    let (found, hint) = match (head.as_slice(), signature::of(&head)) {
        ([], _) => ("an empty file", again),
        (b"PARE", _) => ("an encrypted Parquet file", "decrypt it"),
        (_, Some(is)) => (is.what, is.hint),
        (head, None) => match head.trim_ascii_start().first() {
            Some(b'<') => ("HTML or XML, as of an error page", again),
            Some(b'{' | b'[') => ("JSON", "let its name tell, as in .jsonl"),
            _ => ("other bytes", again),
        },
    };
    Err(DataError::WrongContent {
        path: file.path.clone(),
        expected: "a Parquet file, which begins with PAR1".to_owned(),
        found: found.to_owned(),
        hint: hint.to_owned(),
    })
}

/// What the library makes of a file.
///
/// # Errors
/// Its own, in words; or that it panicked.
fn decode<T>(work: impl FnOnce() -> Decoded<T>) -> std::result::Result<T, String> {
    match caught(work) {
        Ok(result) => result.map_err(|error| match error {
            ParquetError::General(said) | ParquetError::EOF(said) => said,
            ParquetError::External(inner) => inner.to_string(),
            other => other.to_string(),
        }),
        Err(panic) => Err(format!("it holds what no writer writes ({panic})")),
    }
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
    ) -> Decoded<()> {
        let mut values = Vec::with_capacity(leaves.len());
        for (leaf, column) in leaves.iter().zip(columns) {
            values.push(leaf.read(column, count)?.into_iter());
        }
        for _ in 0..count {
            let cells: Vec<Cell> = values.iter_mut().filter_map(Iterator::next).collect();
            if cells.len() < leaves.len() {
                return Err(ParquetError::EOF("a column ends early".to_owned()));
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
                let item = match document(&reading, &file, &leaves, cells, row) {
                    Ok(document) => Item::Document(document),
                    Err(fault) => reading.refuse(fault)?,
                };
                if sink(item)?.is_break() {
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
    /// Numbers and truth values.
    Other(Json),
}

impl Cell {
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
    meaning: Meaning,
    /// Whether its values are bytes, and no text.
    is_binary: bool,
}

impl Leaf {
    fn find(schema: &SchemaDescriptor, path: &str, file: &SourceFile) -> Result<Leaf> {
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
        let wrong = |found: String, hint: &str| DataError::ColumnType {
            path: file.path.clone(),
            place: "schema".into(),
            column: path.to_owned(),
            expected: "text",
            found: found.into(),
            hint: hint.into(),
        };
        let Some((number, inside)) = best else {
            let within =
                |name: &&String| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
            return Err(match names.iter().position(|name| within(&name)) {
                None => {
                    let there = column::There::of(names);
                    column::missing(there, path, file, "schema".to_owned(), "")
                }
                // A value of several parts, each a column.
                Some(first) if schema.column(first).max_rep_level() > 0 => {
                    let found = match schema.column(first).physical_type() {
                        PhysicalType::BYTE_ARRAY => "a list of texts",
                        _ => "a list",
                    };
                    wrong(found.to_owned(), LIST)
                }
                Some(first) => {
                    let parts = names.iter().filter(within).take(MOST_PARTS);
                    let parts: Vec<String> = parts.map(|name| format!("`{name}`")).collect();
                    let hint = format!(
                        "a dotted path reaches into it, as `text = \"{}\"`",
                        printable(&names[first])
                    );
                    wrong(format!("an object ({})", parts.join(", ")), &hint)
                }
            });
        };
        let descriptor = schema.column(number);
        let kind = descriptor.physical_type();
        if descriptor.max_rep_level() > 0 {
            return Err(match kind {
                PhysicalType::INT32 | PhysicalType::INT64 => wrong(
                    "a list of numbers".to_owned(),
                    "where these are token ids, give the text they were made of, or a file in a \
                     tokenized format; else name a column that holds text",
                ),
                _ => wrong("a list".to_owned(), LIST),
            });
        }
        let meaning = Meaning::of(&descriptor);
        let is_binary = meaning.is_binary(kind);
        if !inside.is_empty() && (kind != PhysicalType::BYTE_ARRAY || is_binary) {
            let found = format!("`{}` of type {kind}, with nothing inside", names[number]);
            return Err(wrong(found, "name a column that holds text"));
        }
        Ok(Leaf {
            path: path.to_owned(),
            number,
            name: names[number].clone(),
            inside: inside.to_owned(),
            defined: descriptor.max_def_level(),
            meaning,
            is_binary,
        })
    }

    /// The next `rows` values; fewer where the column ends.
    fn read(&self, reader: &mut ColumnReader, rows: usize) -> Decoded<Vec<Cell>> {
        let meaning = self.meaning;
        let bytes = |value: &[u8]| match self.is_binary {
            true => Cell::Other(meaning.binary(value)),
            false => Cell::Bytes(value.to_vec()),
        };
        let other = Cell::Other;
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.cells(reader, rows, |value| bytes(value.data()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                self.cells(reader, rows, |value| bytes(value.data()))
            }
            ColumnReader::BoolColumnReader(reader) => {
                self.cells(reader, rows, |value| other(Json::Bool(value)))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                self.cells(reader, rows, |value| other(meaning.integer(i64::from(value), 32)))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                self.cells(reader, rows, |value| other(meaning.integer(value, 64)))
            }
            ColumnReader::FloatColumnReader(reader) => self.cells(reader, rows, |value| {
                other(types::float(f64::from(value), Some(format!("{value:?}"))))
            }),
            ColumnReader::DoubleColumnReader(reader) => {
                self.cells(reader, rows, |value| other(types::float(value, None)))
            }
            ColumnReader::Int96ColumnReader(reader) => self.cells(reader, rows, |value| {
                let words = value.data();
                let word = |at: usize| words.get(at).copied().unwrap_or(0);
                other(types::time_of_julian_day([word(0), word(1), word(2)]))
            }),
        }
    }

    fn cells<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        rows: usize,
        cell: impl Fn(T::T) -> Cell,
    ) -> Decoded<Vec<Cell>> {
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

/// The document of one row; `cells` are those of the text and of the keys, in the order of
/// [`Reading::columns`].
fn document(
    reading: &Reading<'_>,
    file: &Arc<SourceFile>,
    leaves: &[Leaf],
    cells: Vec<Cell>,
    row: u64,
) -> std::result::Result<Document, Fault> {
    let mends = reading.mends();
    let at_row = |wrong: column::Wrong| wrong.at(file.clone(), move || format!("row {row}"));
    let mut replaced = false;
    let mut values = Vec::with_capacity(cells.len());
    for (leaf, cell) in leaves.iter().zip(cells) {
        let value = match cell {
            Cell::Null => Json::Null,
            Cell::Other(value) => value,
            Cell::Bytes(bytes) => {
                let (text, was_replaced) = reading.text(bytes).map_err(|invalid| {
                    let (path, name) = (file.path.clone(), leaf.name.clone());
                    let InvalidByte { at, found } = invalid;
                    Fault::new(Invalid::NotUtf8, move || DataError::InvalidUtf8 {
                        path,
                        place: format!("row {row}, column `{name}`"),
                        offset: at as u64,
                        within: " of the value",
                        found,
                    })
                })?;
                replaced |= was_replaced;
                Json::Text(text)
            }
        };
        values.push(if leaf.inside.is_empty() {
            value
        } else {
            match column::find(&value, &leaf.inside).map(|inner| inner.into_owned()) {
                Some(inner) => inner,
                None => {
                    // The text's column comes first.
                    let reason =
                        if values.is_empty() { Invalid::MissingColumn } else { Invalid::Key };
                    let row = Json::Object(vec![(leaf.name.clone(), value)]);
                    let there = column::There::in_row(&row);
                    return Err(at_row(column::Wrong::missing(reason, &leaf.path, there)));
                }
            }
        });
    }
    let mut values = values.into_iter();
    let value = values.next().unwrap_or(Json::Null);
    let (text, mended) = column::text(value, &reading.options.text, mends).map_err(at_row)?;
    // The keys are asked for in the order their columns were listed in.
    let Keys { unit, domain, mended: mended_key } = reading
        .keys(file, &mut |path| {
            let row = Json::Object(vec![(path.to_owned(), values.next().unwrap_or(Json::Null))]);
            column::key(&row, path, mends, column::There::default)
        })
        .map_err(at_row)?;
    let replaced = replaced || mended || mended_key;
    Ok(Document { content: Content::Text(text), unit, domain, replaced })
}
