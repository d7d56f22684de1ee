//! Parquet: one document a row.
//!
//! Only the columns that are asked for are read, straight from their column chunks, a few rows at a time.
//! A path is the name of a leaf column (`meta.language`), or reaches from one into
//! the JSON it holds. Lists are not read. Text may be of type string or plain bytes; `null`
//! counts as a document without text. Memory: a page of each column.

use std::fs::File;

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use serde_json::{Value, json};

use super::{Content, Document, Flow, Item, Reading, Sink, SourceFile, column};
use crate::error::{DataError, Result};

/// Rows read at once. Documents are kept until the next ones are read, so it bounds memory too.
const ROWS: usize = 64;

pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
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
    let leaves: Vec<Leaf> =
        reading.columns().iter().map(|path| Leaf::find(schema, path, file)).collect::<Result<_>>()?;
    let mut row = 0u64;
    let mut told = 0u64;
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(corrupt(row))?;
        let mut left = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut columns = Vec::with_capacity(leaves.len());
        for leaf in &leaves {
            columns.push(group.get_column_reader(leaf.number).map_err(corrupt(row))?);
        }
        while left > 0 {
            let rows = left.min(ROWS);
            let mut values = Vec::with_capacity(leaves.len());
            for (leaf, column) in leaves.iter().zip(&mut columns) {
                values.push(leaf.read(column, rows).map_err(corrupt(row))?.into_iter());
            }
            for _ in 0..rows {
                row += 1;
                let cells: Vec<Cell> = values.iter_mut().filter_map(Iterator::next).collect();
                if cells.len() < leaves.len() {
                    let error = parquet::errors::ParquetError::EOF("a column ends early".to_owned());
                    return Err(corrupt(row - 1)(error));
                }
                if sink(item(reading, file, &leaves, cells, row)?)? == Flow::NextFile {
                    return Ok(());
                }
            }
            left -= rows;
        }
        let bytes = u64::try_from(group.metadata().compressed_size()).unwrap_or(0);
        let bytes = bytes.min(file.bytes - told);
        (reading.advance)(bytes);
        told += bytes;
    }
    // The footer, and the columns that were not read.
    (reading.advance)(file.bytes - told);
    Ok(())
}

/// One value of a column.
enum Cell {
    Null,
    Bytes(Vec<u8>),
    /// Already in words: numbers and truth values.
    Other(Value),
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
        if kind == PhysicalType::INT96 {
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
        })
    }

    /// The next `rows` values; fewer where the column ends.
    fn read(&self, reader: &mut ColumnReader, rows: usize) -> parquet::errors::Result<Vec<Cell>> {
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
            // Refused when the column was found.
            ColumnReader::Int96ColumnReader(_) => Ok(Vec::new()),
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
                column: reading.source.spec.text.clone(),
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
