//! Every format that can be read, with its reader and the endings of its files.
//!
//! A new format of text is a file beside this one and a row in [`TEXT`]; the tokenized formats come
//! from the table in `tokens/mod.rs`.

use std::path::Path;

use super::chunk::{self, ChunkSink, Chunker, Stretch};
use super::file::SourceFile;
use super::reading::{Reading, Sink};
use super::{jsonl, parquet, tokenized, txt};
use crate::error::Result;
use crate::spec::Format;
use crate::tokens::{self, file::TokenFormat};

/// A format of text.
struct TextFormat {
    format: Format,
    /// Endings of file names.
    endings: &'static [&'static str],
    /// Whether documents have columns that can be named.
    columns: bool,
    /// How a file is cut into chunks that are parsed in parallel, and begun in the middle.
    chunker: &'static Chunker,
}

/// Every format of text.
static TEXT: [TextFormat; 3] = [
    TextFormat {
        format: Format::Txt,
        endings: &[".txt", ".text", ".md", ".txt.gz", ".txt.zst"],
        columns: false,
        chunker: &txt::CHUNKER,
    },
    TextFormat {
        format: Format::Jsonl,
        endings: &[
            ".jsonl",
            ".jsonl.gz",
            ".jsonl.zst",
            ".ndjson",
            ".ndjson.gz",
            ".ndjson.zst",
            ".json",
            ".json.gz",
            ".json.zst",
        ],
        columns: true,
        chunker: &jsonl::CHUNKER,
    },
    TextFormat {
        format: Format::Parquet,
        endings: &[".parquet"],
        columns: true,
        chunker: &parquet::CHUNKER,
    },
];

/// The row of a format, in either table.
enum Row {
    Text(&'static TextFormat),
    Tokens(&'static TokenFormat),
}

/// All rows: text first, each table in its order.
fn rows() -> impl Iterator<Item = Row> {
    TEXT.iter().map(Row::Text).chain(tokens::FORMATS.iter().map(Row::Tokens))
}

impl Row {
    fn format(&self) -> Format {
        match self {
            Row::Text(row) => row.format,
            Row::Tokens(row) => row.format,
        }
    }

    fn endings(&self) -> &'static [&'static str] {
        match self {
            Row::Text(row) => row.endings,
            Row::Tokens(row) => row.endings,
        }
    }

    fn has_ending(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        self.endings().iter().any(|ending| name.ends_with(ending))
    }

    fn takes(&self, path: &Path) -> bool {
        self.has_ending(path)
            && match self {
                Row::Text(_) => true,
                Row::Tokens(row) => (row.is_one)(path),
            }
    }
}

/// The row of a format of text.
fn text(format: Format) -> Option<&'static TextFormat> {
    TEXT.iter().find(|row| row.format == format)
}

/// The format that a file's name tells of, or where it leaves several, its content.
pub(super) fn recognise(path: &Path) -> Option<Format> {
    rows().find(|row| row.takes(path)).map(|row| row.format())
}

/// Whether a file's name has one of the format's endings.
pub(super) fn has_ending(format: Format, path: &Path) -> bool {
    rows().any(|row| row.format() == format && row.has_ending(path))
}

/// The endings of one format, or of all, for messages.
pub(super) fn endings(format: Option<Format>) -> String {
    let wanted = rows().filter(|row| format.is_none_or(|format| format == row.format()));
    wanted.flat_map(|row| row.endings().iter().copied()).collect::<Vec<_>>().join(", ")
}

/// Whether documents of the format have columns that can be named.
pub(super) fn has_columns(format: Format) -> bool {
    text(format).is_some_and(|row| row.columns)
}

/// Whether this file can be read by byte ranges, each range by itself.
pub(super) fn splits(file: &SourceFile) -> bool {
    text(file.format).is_some_and(|row| (row.chunker.splits)(file))
}

/// Pushes the chunks of a stretch of a file.
///
/// # Errors
/// Those of the format's reader and of `sink`.
pub(super) fn cut<'a>(
    reading: &Reading<'a>,
    file: &SourceFile,
    stretch: &Stretch,
    sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    match text(file.format) {
        Some(row) => (row.chunker.cut)(reading, file, stretch, sink),
        None => chunk::cut_items(tokenized::read, reading, file, stretch, sink),
    }
}

/// Pushes a file's items from first to last.
///
/// # Errors
/// Those of the format's reader and of `sink`.
pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
    match text(file.format) {
        Some(row) => {
            let whole = Stretch::default();
            (row.chunker.cut)(reading, file, &whole, &mut |chunk| (chunk.parse)(sink))
        }
        None => tokenized::read(reading, file, sink),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_row() {
        for format in Format::ALL {
            assert_eq!(rows().filter(|row| row.format() == format).count(), 1, "{format:?}");
        }
        for (name, format) in [
            ("a.txt", Some(Format::Txt)),
            ("a.JSONL.ZST", Some(Format::Jsonl)),
            ("a.json.gz", Some(Format::Jsonl)),
            ("a.parquet", Some(Format::Parquet)),
            ("a.idx", Some(Format::Megatron)),
            ("a.ds", Some(Format::Datatrove)),
            ("a.npy", Some(Format::Olmo)),
            ("a.ds.index", None),
            ("a.bin", None),
            ("a.csv", None),
            ("jsonl", None),
        ] {
            assert_eq!(recognise(Path::new(name)), format, "{name}");
        }
    }
}
