//! What a Parquet file says about its own sizes, held against the file.
//!
//! In: a column chunk and what the file says of it. Out: its pages, read by the library, but only
//! where what they claim can be: memory for a claim is taken before the claim shows to be false,
//! and where there is none the process ends.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::sync::Arc;

use parquet::basic::{Compression, Type as PhysicalType};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{Length, SerializedPageReader};

use super::page_header;

/// Pages of up to this size are believed, whatever else the file says.
const ANY_PAGE: u64 = 64 << 20;

fn wrong<T>(message: String) -> Result<T> {
    Err(ParquetError::General(message))
}

/// The rows of a group.
///
/// # Errors
/// There cannot be so many.
pub(super) fn rows(group: &RowGroupMetaData) -> Result<u64> {
    u64::try_from(group.num_rows())
        .or_else(|_| wrong(format!("a row group is said to have {} rows", group.num_rows())))
}

/// The pages of a column chunk that has one value a row.
///
/// # Errors
/// It cannot lie where the file says it does.
pub(super) fn pages(file: &Arc<File>, chunk: &ColumnChunkMetaData, rows: u64) -> Result<Pages> {
    let (start, length) = chunk.byte_range();
    let whole = Length::len(&**file);
    if start.checked_add(length).is_none_or(|end| end > whole) {
        return wrong(format!(
            "a column is said to lie at byte {start}, {length} bytes long, in a file of {whole}"
        ));
    }
    if u64::try_from(chunk.num_values()).ok() != Some(rows) {
        let values = chunk.num_values();
        return wrong(format!("a column is said to have {values} values for {rows} rows"));
    }
    let count = usize::try_from(rows).unwrap_or(usize::MAX);
    let pages = SerializedPageReader::new(file.clone(), chunk, count, None)?;
    let said = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
    Ok(Pages {
        pages,
        kind: chunk.column_type(),
        rows,
        file: file.clone(),
        next: Some((start, length)),
        compression: chunk.compression(),
        largest: said.max(ANY_PAGE),
    })
}

/// How many times smaller than its content compressed data can be, where that has a bound.
fn most_times(compression: Compression) -> Option<u64> {
    match compression {
        Compression::SNAPPY => Some(64),
        Compression::LZ4 | Compression::LZ4_RAW => Some(256),
        Compression::GZIP(_) => Some(1_040),
        _ => None,
    }
}

/// Pages whose counts can be.
pub(super) struct Pages {
    pages: SerializedPageReader<File>,
    kind: PhysicalType,
    /// Rows of the column chunk.
    rows: u64,
    file: Arc<File>,
    /// Where the next page's header lies, and the bytes of the chunk that are left there; none
    /// where that is not known any more.
    next: Option<(u64, u64)>,
    compression: Compression,
    /// The largest page there can be by what the file says elsewhere.
    largest: u64,
}

impl Pages {
    /// Looks at what the next page claims, before the library takes memory for it.
    fn look_ahead(&mut self) -> Result<()> {
        while let Some((at, left)) = self.next.take().filter(|(_, left)| *left > 0) {
            // The library moves the same file about.
            let mut reader = BufReader::new(&*self.file);
            reader.seek(SeekFrom::Start(at))?;
            // What is no header is for the library to say.
            let Ok(Some(header)) = page_header::read(&mut reader) else { return Ok(()) };
            let by_codec = most_times(self.compression)
                .map_or(u64::MAX, |times| header.compressed.saturating_mul(times).max(ANY_PAGE));
            if header.uncompressed > self.largest.min(by_codec) {
                let (said, there) = (header.uncompressed, header.compressed);
                return wrong(format!("a page of {there} bytes is said to hold {said}"));
            }
            let taken = header.length.saturating_add(header.compressed);
            self.next = left.checked_sub(taken).map(|left| (at + taken, left));
            if !header.is_index {
                return Ok(());
            }
        }
        Ok(())
    }

    fn checked(&self, page: Page) -> Result<Page> {
        let Page::DictionaryPage { buf, num_values, .. } = &page else {
            let values = u64::from(page.num_values());
            return match values <= self.rows {
                true => Ok(page),
                false => {
                    wrong(format!("a page is said to have {values} values for {} rows", self.rows))
                }
            };
        };
        let least = match self.kind {
            PhysicalType::BYTE_ARRAY | PhysicalType::INT32 | PhysicalType::FLOAT => 4,
            PhysicalType::INT64 | PhysicalType::DOUBLE => 8,
            _ => 1,
        };
        let length = buf.len();
        match u64::from(*num_values) * least <= length as u64 {
            true => Ok(page),
            false => {
                wrong(format!("a dictionary of {length} bytes is said to have {num_values} values"))
            }
        }
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.look_ahead()?;
        self.pages.get_next_page()?.map(|page| self.checked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}
