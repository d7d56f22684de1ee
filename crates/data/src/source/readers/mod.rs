//! Every format that can be read, with its reader and the endings of its files.
//!
//! A new format of text is a file in this folder and a row in [`TEXT`]; the tokenized formats come
//! from the table in `tokens/mod.rs`.

mod jsonl;
#[cfg_attr(not(feature = "parquet"), path = "parquet_missing.rs")]
mod parquet;
mod tokenized;
mod txt;

use std::collections::HashSet;
use std::path::Path;

use super::chunk::{self, ChunkSink, Chunker, Stretch};
use super::decompress;
use super::file::SourceFile;
use super::reading::{Reading, Sink};
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::spec::SourceSpec;
use crate::tokens::{self, file::TokenFormat};

/// A format of text.
struct TextFormat {
    format: Format,
    /// Endings of file names.
    endings: &'static [&'static str],
    /// Whether documents have columns that can be named.
    columns: bool,
    /// Whether the format itself compresses, so that there is more text than bytes on disk.
    compresses: bool,
    /// How a file is cut into chunks that are parsed in parallel, and begun in the middle.
    chunker: &'static Chunker,
}

impl Format {
    /// Plain UTF-8 text.
    pub const TXT: Format = Format::new("txt");
    /// One JSON object a line, plain or compressed with gzip or zstd.
    pub const JSONL: Format = Format::new("jsonl");
    /// Apache Parquet.
    pub const PARQUET: Format = Format::new("parquet");

    /// All formats: those of text, then the tokenized ones.
    pub fn all() -> impl Iterator<Item = Format> {
        rows().map(|row| row.format())
    }
}

/// Every format of text.
static TEXT: [TextFormat; 3] = [
    TextFormat {
        format: Format::TXT,
        endings: &[".txt", ".text", ".md", ".txt.gz", ".txt.zst"],
        columns: false,
        compresses: false,
        chunker: &txt::CHUNKER,
    },
    TextFormat {
        format: Format::JSONL,
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
        compresses: false,
        chunker: &jsonl::CHUNKER,
    },
    TextFormat {
        format: Format::PARQUET,
        endings: &[".parquet"],
        columns: true,
        compresses: true,
        chunker: &parquet::CHUNKER,
    },
];

/// The length of the ending by which a name tells its format of text; of several, the longest.
pub(super) fn text_ending(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    let endings = TEXT.iter().flat_map(|row| row.endings);
    endings.filter(|ending| name.ends_with(**ending)).map(|ending| ending.len()).max()
}

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

/// The format that a spec names.
///
/// # Errors
/// There is none of that name.
pub(super) fn stated(spec: &SourceSpec) -> Result<Option<Format>> {
    let Some(name) = &spec.format else { return Ok(None) };
    if let Some(format) = Format::all().find(|format| format.name() == name) {
        return Ok(Some(format));
    }
    let names: Vec<&str> = Format::all().map(Format::name).collect();
    let written = name.to_ascii_lowercase();
    let likeness = |known: &&&str| strsim::jaro_winkler(&written, known);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(DataError::Spec {
        key: "source.format".to_owned(),
        expected: format!("one of {}", names.join(", ")),
        found: format!("\"{name}\""),
        hint: nearest.map_or_else(String::new, |nearest| format!("did you mean `{nearest}`?")),
    })
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
    let mut endings: Vec<&str> = wanted.flat_map(|row| row.endings()).copied().collect();
    let mut seen = HashSet::new();
    endings.retain(|ending| seen.insert(*ending));
    endings.join(", ")
}

/// Whether documents of the format have columns that can be named.
pub(super) fn has_columns(format: Format) -> bool {
    text(format).is_some_and(|row| row.columns)
}

/// Whether there is more text in a file than bytes on disk.
pub(crate) fn is_compressed(file: &SourceFile) -> bool {
    text(file.format).is_some_and(|row| row.compresses) || decompress::is_compressed(&file.path)
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_format_has_its_row() {
        for format in Format::all() {
            assert_eq!(rows().filter(|row| row.format() == format).count(), 1, "{format:?}");
        }
        for (name, format) in [
            ("a.txt", Some(Format::TXT)),
            ("a.JSONL.ZST", Some(Format::JSONL)),
            ("a.json.gz", Some(Format::JSONL)),
            ("a.parquet", Some(Format::PARQUET)),
            ("a.idx", Some(Format::MEGATRON)),
            ("a.ds", Some(Format::DATATROVE)),
            ("a.npy", Some(Format::OLMO)),
            ("a.ds.index", None),
            ("a.bin", None),
            ("a.csv", None),
            ("jsonl", None),
        ] {
            assert_eq!(recognise(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_format_is_found_by_its_name_or_refused_with_the_nearest() {
        let of = |name: &str| {
            stated(&SourceSpec { format: Some(name.to_owned()), ..SourceSpec::default() })
                .map_err(|error| error.to_string())
        };
        assert_eq!(stated(&SourceSpec::default()).ok(), Some(None));
        for format in Format::all() {
            assert_eq!(of(format.name()), Ok(Some(format)));
        }
        for (name, nearest) in [("nanogp", "nanogpt"), ("JSONL", "jsonl"), ("json", "jsonl")] {
            let error = of(name).unwrap_err();
            let known = "`source.format`: expected one of txt, jsonl, parquet, megatron, ";
            assert!(error.starts_with(known), "{error}");
            let found = format!("found \"{name}\"\nhint: did you mean `{nearest}`?");
            assert!(error.ends_with(&found), "{error}");
        }
    }
}
