//! A domain's documents, wherever they stand.
//!
//! In: a [`SourceSpec`]. Out: a [`Source`], its files found and its choices checked, which then
//! pushes [`Item`]s one after another, or [`Piece`](piece::Piece)s to be parsed elsewhere, in an
//! order that depends on the files alone. Reading holds one piece at a time (for Parquet, also one
//! page a column). Files on the Hub are found by their names alone; each comes to this machine when
//! [`Source::fetch`] asks for it, right before it is read.

mod cargo;
mod column;
mod datatrove;
mod decompress;
pub(crate) mod files;
#[cfg_attr(not(feature = "hub"), path = "hub_missing.rs")]
mod hub;
mod jsonl;
mod limit;
mod llmc;
mod megatron;
mod nanogpt;
mod olmo;
mod parquet;
pub(crate) mod piece;
pub(crate) mod tokens;
mod txt;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::cleaning::Cleaning;
use crate::error::{DataError, Result};
use crate::hub::Snapshot;
use crate::index::TokenType;
use crate::manifest::{FileRecord, HubRecord, Manifest};
use crate::progress::Progress;
use crate::share::Share;
use crate::spec::{Format, OnInvalid, SourceSpec};
use crate::tokenizer::Tokenizer;
pub use limit::Limit;
pub(crate) use limit::Meter;
use piece::{PieceSink, Pieces, Stretch};
use tokens::{TokenFile, TokenFormat};

/// Where plain text is cut unless the config says otherwise.
const MAX_DOCUMENT: usize = 16 << 10;
/// Smaller documents than this would be crumbs.
const MIN_MAX_DOCUMENT: usize = 64;

/// One way to read a file.
pub(crate) struct Reader {
    format: Format,
    /// Endings of file names, longest first where one ends another.
    endings: &'static [&'static str],
    /// Whether documents have columns that can be named.
    columns: bool,
    /// Whether a file with such an ending is one: where several formats share an ending, the
    /// content tells, if it can.
    is_one: fn(&Path) -> bool,
    /// Pushes a file's items from first to last.
    read: fn(&Reading<'_>, &SourceFile, &mut Sink<'_>) -> Result<()>,
    /// How a file is cut into pieces that are parsed in parallel, and begun in the middle; without
    /// it, a file is read from front to back by one thread.
    pieces: Option<&'static Pieces>,
    /// Of a tokenized format, what else can be done with it.
    tokens: Option<&'static TokenFormat>,
}

/// Every format, with the endings folders are searched for.
const READERS: [Reader; 8] = [
    Reader {
        format: Format::Txt,
        endings: &[".txt", ".text", ".md", ".txt.gz", ".txt.zst"],
        columns: false,
        is_one: |_| true,
        read: txt::read,
        pieces: Some(&txt::PIECES),
        tokens: None,
    },
    Reader {
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
        is_one: |_| true,
        read: jsonl::read,
        pieces: Some(&jsonl::PIECES),
        tokens: None,
    },
    Reader {
        format: Format::Parquet,
        endings: &[".parquet"],
        columns: true,
        is_one: |_| true,
        read: parquet::read,
        pieces: Some(&parquet::PIECES),
        tokens: None,
    },
    tokenized(Format::Megatron, &[".idx"], |_| true, &megatron::FORMAT),
    tokenized(Format::Llmc, &[".bin"], llmc::is_one, &llmc::FORMAT),
    // Nothing tells its files from others: it has to be named.
    tokenized(Format::Nanogpt, &[".bin"], |_| false, &nanogpt::FORMAT),
    tokenized(Format::Datatrove, &[".ds"], |_| true, &datatrove::FORMAT),
    tokenized(Format::Olmo, &[".npy"], |_| true, &olmo::FORMAT),
];

/// The row of a tokenized format.
const fn tokenized(
    format: Format,
    endings: &'static [&'static str],
    is_one: fn(&Path) -> bool,
    tokens: &'static TokenFormat,
) -> Reader {
    Reader {
        format,
        endings,
        columns: false,
        is_one,
        read: tokens::read,
        pieces: None,
        tokens: Some(tokens),
    }
}

impl Format {
    fn reader(self) -> &'static Reader {
        let reader = READERS.iter().find(|reader| reader.format == self);
        // The table has every variant, by a test.
        reader.unwrap_or(&READERS[0])
    }

    /// The format that a file's name tells of, or where it leaves several, its content.
    fn of(path: &Path) -> Option<Format> {
        let is_one = |reader: &&Reader| reader.has_ending(path) && (reader.is_one)(path);
        READERS.iter().find(is_one).map(|reader| reader.format)
    }

    /// Whether what is one file to a config is several on disk, which all must be there.
    #[cfg(feature = "hub")]
    fn of_several_files(self) -> bool {
        matches!(self, Format::Megatron | Format::Datatrove)
    }

    /// What can be done with files of this format if they are tokenized.
    pub(crate) fn tokens(self) -> Option<&'static TokenFormat> {
        self.reader().tokens
    }

    /// Opens a tokenized file of this format, its ids of type `said` if that is given.
    ///
    /// Fails where it is not such a file, and for a format of text.
    pub(crate) fn open(self, path: &Path, said: Option<TokenType>) -> Result<TokenFile> {
        let format = self.tokens().ok_or_else(|| DataError::TokenFile {
            path: path.to_owned(),
            expected: "a tokenized file".to_owned(),
            found: format!("one of text ({})", self.name()),
            hint: "`cuvee prepare CONFIG` tokenizes text".to_owned(),
        })?;
        (format.open)(path, said)
    }

    /// The formats that can be written, by name.
    pub(crate) fn written() -> Vec<&'static str> {
        let layout = |reader: &&Reader| reader.tokens.is_some_and(|format| format.layout.is_some());
        READERS.iter().filter(layout).map(|reader| reader.format.name()).collect()
    }
}

impl Reader {
    fn has_ending(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        self.endings.iter().any(|end| name.ends_with(end))
    }
}

/// The endings of one format, or of all, for messages.
fn endings(format: Option<Format>) -> String {
    let wanted = |reader: &&Reader| format.is_none_or(|format| format == reader.format);
    let endings = READERS.iter().filter(wanted).flat_map(|reader| reader.endings.iter().copied());
    endings.collect::<Vec<_>>().join(", ")
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Where it is; for Megatron shards, the `.idx`; for files on the Hub, where it will be.
    pub(crate) path: PathBuf,
    format: Format,
    /// Length on disk, of both halves for a Megatron shard.
    pub(crate) bytes: u64,
    /// Its name for `split_by = "file"`: relative to what was asked for, so that it does not
    /// depend on the machine.
    label: String,
    /// The package it belongs to (Cargo sources).
    package: Option<cargo::PackageName>,
}

impl SourceFile {
    /// Whether there is more text in it than bytes on disk.
    pub(crate) fn is_compressed(&self) -> bool {
        self.format == Format::Parquet || decompress::is_compressed(&self.path)
    }
}

/// What stands in a document.
pub(crate) enum Content {
    Text(String),
    /// Already tokenized, its ids checked against the vocabulary.
    Tokens(Vec<u32>),
}

/// A document on its way from a file to a shard.
pub(crate) struct Document {
    pub(crate) content: Content,
    /// The value of `split_by`.
    pub(crate) unit: Option<String>,
    /// The value of `domain_by`.
    pub(crate) domain: Option<String>,
    /// Whether U+FFFD stands in it for invalid bytes.
    pub(crate) replaced: bool,
}

/// What a source pushes.
pub(crate) enum Item {
    Document(Document),
    /// An invalid document was left out, as the config asks.
    Skipped,
}

impl Content {
    /// Bytes of text, or four a token.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Content::Text(text) => text.len() as u64,
            Content::Tokens(tokens) => 4 * tokens.len() as u64,
        }
    }
}

/// What the receiver of items answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// No more of this file.
    NextFile,
}

/// The receiver of items.
pub(crate) type Sink<'a> = dyn FnMut(Item) -> Result<Flow> + 'a;

/// How `split_by` and `domain_by` are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    File,
    Crate,
    License,
    Column(String),
}

/// A source with its files found and its choices made.
#[derive(Debug)]
pub(crate) struct Source {
    /// As typed.
    pub(crate) spec: SourceSpec,
    pub(crate) files: Vec<SourceFile>,
    /// What the manifest says of the files.
    pub(crate) records: Vec<FileRecord>,
    pub(crate) deduplicate: bool,
    /// What is done to each text before anything else looks at it.
    pub(crate) cleaning: Cleaning,
    /// The repository and commit (Hub sources).
    pub(crate) hub: Option<HubRecord>,
    /// Where the files come from (Hub sources).
    snapshot: Option<Snapshot>,
    /// The spec's licence, or what the packages say (Cargo sources).
    pub(crate) license: Option<String>,
    /// What makes it this source, wherever the config lies: the spec with its paths resolved.
    pub(crate) identity: Value,
    on_invalid: OnInvalid,
    max_document: usize,
    unit: Option<Key>,
    domain: Option<Key>,
}

/// A file that is to be read, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its number in [`Source::files`].
    pub(crate) file: usize,
    /// The part, in bytes on disk; `None` for the whole file.
    pub(crate) within: Option<std::ops::Range<u64>>,
}

/// What reading needs beyond the source.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    source: &'a Source,
    /// Hears about bytes of files that have been read.
    advance: &'a (dyn Fn(u64) + Sync),
    /// The tokenizer that tokenized sources must match; `None` where there is none yet.
    tokenizer: Option<&'a Tokenizer>,
}

impl Source {
    /// Checks a spec and finds its files.
    ///
    /// Fails where the spec contradicts itself, nothing matches, or a file's type is unknown.
    pub(crate) fn resolve(
        spec: &SourceSpec,
        domain_by: Option<&str>,
        base: &Path,
        progress: &dyn Progress,
    ) -> Result<Source> {
        let origins = [
            ("path", spec.path.is_some()),
            ("hub", spec.hub.is_some()),
            ("cargo", spec.cargo.is_some()),
        ];
        let given: Vec<&str> = origins.iter().filter(|(_, is)| *is).map(|(key, _)| *key).collect();
        if given.len() != 1 {
            return Err(DataError::Spec {
                key: "source".to_owned(),
                expected: "exactly one of `path`, `hub` and `cargo`".to_owned(),
                found: if given.is_empty() { "none".to_owned() } else { given.join(" and ") },
                hint: "for files of your own, `source = { path = \"data/*.jsonl\" }`".to_owned(),
            });
        }
        only_with_hub(spec)?;
        let max_document = spec.max_document.unwrap_or(MAX_DOCUMENT);
        if max_document < MIN_MAX_DOCUMENT {
            return Err(DataError::Spec {
                key: "source.max_document".to_owned(),
                expected: format!("at least {MIN_MAX_DOCUMENT} bytes"),
                found: max_document.to_string(),
                hint: "it is the length at which plain-text files are cut into documents"
                    .to_owned(),
            });
        }
        if let Some(corrupt) = &spec.corrupt {
            corrupt.check()?;
        }
        let mut source = Source {
            spec: spec.clone(),
            files: Vec::new(),
            records: Vec::new(),
            deduplicate: spec.deduplicate.unwrap_or(spec.cargo.is_some()),
            cleaning: Cleaning::new(spec)?,
            hub: None,
            snapshot: None,
            license: spec.license.clone(),
            identity: Value::Null,
            on_invalid: spec.on_invalid.unwrap_or(match spec.cargo {
                Some(_) => OnInvalid::Skip,
                None => OnInvalid::Error,
            }),
            max_document: if spec.cargo.is_some() { usize::MAX } else { max_document },
            unit: None,
            domain: None,
        };
        let rest = SourceSpec { path: None, ..spec.clone() };
        if let Some(kind) = spec.cargo {
            let found = cargo::find(kind, base)?;
            source.license = source.license.or(Some(found.license));
            // The lock file beside the workspace decides which packages there are.
            let root = found.root.canonicalize().unwrap_or(found.root);
            source.identity = json!({ "spec": rest, "workspace": root.to_string_lossy() });
            (source.files, source.records) = (found.files, found.records);
        } else if let Some(name) = &spec.hub {
            let found = hub::find(spec, name, progress)?;
            source.identity = json!({ "spec": rest });
            (source.files, source.records) = (found.files, found.records);
            (source.hub, source.snapshot) = (Some(found.record), Some(found.snapshot));
        } else if let Some(paths) = &spec.path {
            let places = places(paths.as_slice(), base)?;
            let identities: Vec<_> = places.iter().map(files::Place::identity).collect();
            source.identity = json!({ "spec": rest, "paths": identities });
            source.files = files::find(&places, spec.format)?;
            source.records = source.files.iter().map(files::record).collect::<Result<_>>()?;
        }
        if let (Some(kind), None) = (spec.token_type, source.tokenized()) {
            return Err(DataError::Spec {
                key: "source.token_type".to_owned(),
                expected: "nothing: no file of this source is tokenized".to_owned(),
                found: format!("\"{}\"", kind.name()),
                hint: "leave it out, or name the files' `format`".to_owned(),
            });
        }
        let default_unit = spec.cargo.map(|_| "crate");
        source.check_cleaning()?;
        source.unit = source.key("source.split_by", spec.split_by.as_deref().or(default_unit))?;
        source.domain = source.key("domain_by", domain_by)?;
        if let (Some(Limit::Bytes(_)), Some(file)) = (spec.limit, source.tokenized()) {
            return Err(DataError::Spec {
                key: "source.limit".to_owned(),
                expected: format!(
                    "a number of documents: {} holds no text to count",
                    file.path.display()
                ),
                found: "a size".to_owned(),
                hint: "write `limit = \"100k docs\"`".to_owned(),
            });
        }
        Ok(source)
    }

    /// Bytes of all files on disk.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// In words, that the repository has moved on since the shards in `dir` were made.
    pub(crate) fn moved_since(&self, dir: &Path) -> Option<String> {
        let now = self.hub.as_ref()?;
        // Any of the domains will do: an entry's are made together.
        let folders =
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut manifests = std::iter::once(dir.to_owned())
            .chain(folders)
            .filter_map(|dir| Manifest::read(&dir).ok());
        let then = manifests.next()?.source.hub?;
        (then.repository == now.repository && then.commit != now.commit).then(|| {
            format!(
                "{} has moved from commit {} to {}: made again",
                now.repository, then.commit, now.commit
            )
        })
    }

    /// Brings a file to this machine, where it is not here yet.
    pub(crate) fn fetch(
        &self,
        file: &SourceFile,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        match &self.snapshot {
            Some(snapshot) => snapshot.fetch(&file.label, progress, interrupted).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Pushes the items of one file. `tokenizer` is the one that tokenized files must match.
    pub(crate) fn read(
        &self,
        file: &SourceFile,
        tokenizer: Option<&Tokenizer>,
        advance: &(dyn Fn(u64) + Sync),
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        (file.format.reader().read)(&Reading { source: self, advance, tokenizer }, file, sink)
    }

    /// Pushes the pieces of a stretch of one file, given by its number. `tokenizer` as for
    /// [`read`](Self::read).
    pub(crate) fn pieces<'a>(
        &'a self,
        file: usize,
        stretch: &Stretch,
        tokenizer: Option<&'a Tokenizer>,
        advance: &'a (dyn Fn(u64) + Sync),
        sink: &mut PieceSink<'_, 'a>,
    ) -> Result<()> {
        let reading = Reading { source: self, advance, tokenizer };
        let file = &self.files[file];
        let reader = file.format.reader();
        match reader.pieces {
            Some(pieces) => (pieces.cut)(&reading, file, stretch, sink),
            None => piece::cut_items(reader.read, &reading, file, stretch, sink),
        }
    }

    /// Bytes on disk of a span.
    pub(crate) fn span_bytes(&self, span: &Span) -> u64 {
        let whole = || self.files[span.file].bytes;
        span.within.as_ref().map_or_else(whole, |within| within.end - within.start)
    }

    /// What one of several workers reads, in the order of the source: its share of the bytes on
    /// disk, cut within a file where the format allows. The shares of all workers, one after
    /// another, are the source. One with a limit is the first worker's alone: where it ends, only
    /// reading from its start can tell.
    pub(crate) fn spans(&self, share: Share) -> Vec<Span> {
        let share = match self.spec.limit {
            Some(_) if share.number() > 1 => return Vec::new(),
            Some(_) => Share::WHOLE,
            None => share,
        };
        let mine = share.of(self.all_bytes());
        let mut spans = Vec::new();
        let mut start = 0u64;
        for (number, file) in self.files.iter().enumerate() {
            let end = start + file.bytes;
            let splits = file.format.reader().pieces.is_some_and(|pieces| (pieces.splits)(file));
            let (from, to) = (start.max(mine.start), end.min(mine.end));
            if splits && from < to {
                let whole = (from, to) == (start, end);
                spans.push(Span {
                    file: number,
                    within: (!whole).then(|| from - start..to - start),
                });
            } else if (!splits || file.bytes == 0) && share.owns(&mine, start) {
                spans.push(Span { file: number, within: None });
            }
            start = end;
        }
        spans
    }

    /// The first file that comes tokenized.
    fn tokenized(&self) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.format.tokens().is_some())
    }

    /// That what comes tokenized is not to be changed as text.
    fn check_cleaning(&self) -> Result<()> {
        match (self.cleaning.changes_text(), self.tokenized()) {
            (Some(key), Some(file)) => Err(DataError::Spec {
                key: format!("source.{key}"),
                expected: format!("text to change: {} is tokenized", file.path.display()),
                found: "tokens".to_owned(),
                hint: "leave it out, or give the untokenized text".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn key(&self, name: &str, value: Option<&str>) -> Result<Option<Key>> {
        let Some(value) = value else { return Ok(None) };
        let cargo = self.spec.cargo.is_some();
        let key = match value {
            "file" => Key::File,
            "crate" if cargo => Key::Crate,
            "license" if cargo => Key::License,
            column => Key::Column(column.to_owned()),
        };
        let without = self.files.iter().find(|file| !file.format.reader().columns);
        if let (Key::Column(column), Some(file)) = (&key, without) {
            let choice = if cargo { "\"crate\", \"license\" or \"file\"" } else { "\"file\"" };
            return Err(DataError::Spec {
                key: name.to_owned(),
                expected: format!("{choice}: {} has no columns", file.path.display()),
                found: format!("\"{column}\""),
                hint: "columns exist in jsonl and parquet files".to_owned(),
            });
        }
        Ok(Some(key))
    }
}

/// The paths of a spec, taken apart.
///
/// Fails where there is none, or one is empty: it would name the config's own folder.
fn places(paths: &[String], base: &Path) -> Result<Vec<files::Place>> {
    let empty = match paths {
        [] => Some("an empty list"),
        paths if paths.iter().any(|path| path.trim().is_empty()) => Some("an empty string"),
        _ => None,
    };
    if let Some(found) = empty {
        return Err(DataError::Spec {
            key: "source.path".to_owned(),
            expected: "a path or a pattern, or a list of them".to_owned(),
            found: found.to_owned(),
            hint: "name a file, a folder or a pattern, as in `path = \"texts/*.jsonl\"`".to_owned(),
        });
    }
    // An empty base is the current folder, which has a name too.
    let base = match base.as_os_str().is_empty() {
        true => std::env::current_dir(),
        false => std::path::absolute(base),
    }
    .unwrap_or_else(|_| base.to_owned());
    Ok(paths.iter().map(|path| files::Place::new(path, &base)).collect())
}

/// That no key is there which would do nothing.
fn only_with_hub(spec: &SourceSpec) -> Result<()> {
    let keys = [
        ("config", spec.config.is_some()),
        ("split", spec.split.is_some()),
        ("files", spec.files.is_some()),
        ("revision", spec.revision.is_some()),
    ];
    match keys.iter().find(|(_, given)| *given && spec.hub.is_none()) {
        None => Ok(()),
        Some((key, _)) => Err(DataError::Spec {
            key: format!("source.{key}"),
            expected: "it beside `hub` only".to_owned(),
            found: "it without".to_owned(),
            hint: "name the data set with `hub`, or remove the key".to_owned(),
        }),
    }
}

impl Reading<'_> {
    /// The values of `split_by` and `domain_by` for a document of `file`; `column` answers for
    /// columns.
    fn keys(
        &self,
        file: &SourceFile,
        column: &mut dyn FnMut(&str) -> Result<String>,
    ) -> Result<(Option<String>, Option<String>)> {
        let mut value = |key: &Option<Key>| -> Result<Option<String>> {
            let package = file.package.as_ref();
            Ok(match key {
                None => None,
                Some(Key::File) => Some(file.label.clone()),
                Some(Key::Crate) => package.map(|package| package.name.clone()),
                Some(Key::License) => package.map(|package| package.license.clone()),
                Some(Key::Column(name)) => Some(column(name)?),
            })
        };
        Ok((value(&self.source.unit)?, value(&self.source.domain)?))
    }

    /// The columns that documents are asked for: the text, and those of the keys.
    fn columns(&self) -> Vec<&str> {
        let mut columns = vec![self.source.spec.text.as_str()];
        for key in [&self.source.unit, &self.source.domain] {
            if let Some(Key::Column(name)) = key {
                columns.push(name);
            }
        }
        columns
    }

    /// Decides on bytes that should be text: the text, or `None` where it is to be skipped. The
    /// flag says whether something was replaced. `offset` is where the bytes start in the file's
    /// text.
    fn text(
        &self,
        bytes: Vec<u8>,
        place: impl FnOnce(usize) -> DataError,
    ) -> Result<Option<(String, bool)>> {
        match (String::from_utf8(bytes), self.source.on_invalid) {
            (Ok(text), _) => Ok(Some((text, false))),
            (Err(error), OnInvalid::Error) => Err(place(error.utf8_error().valid_up_to())),
            (Err(_), OnInvalid::Skip) => Ok(None),
            (Err(error), OnInvalid::Replace) => {
                Ok(Some((String::from_utf8_lossy(error.as_bytes()).into_owned(), true)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_empty_base_is_the_current_folder() {
        let path = ["Cargo.toml".to_owned()];
        let here = std::env::current_dir().and_then(|folder| folder.canonicalize()).unwrap();
        for base in ["", ".", "../data/."] {
            let places = places(&path, Path::new(base)).unwrap();
            let expected = here.join("Cargo.toml").to_string_lossy().into_owned();
            assert_eq!(places[0].identity(), [expected, String::new()], "{base}");
        }
    }

    #[test]
    fn every_format_has_its_reader() {
        for format in Format::ALL {
            assert_eq!(format.reader().format, format);
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
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }
}
