//! Everything that can go wrong between a corpus and its shards.
//!
//! Each message says what was expected, what was found and where; where the reader can do
//! something about it, its last line starts with `hint:`.

use std::io;
use std::path::{Path, PathBuf};

use cuvee_fs::FsError;
use cuvee_words::{counted, printable, printable_path};

use crate::printable::short_name;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, DataError>;

/// The error of every function of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Any of the others, met while working on one domain.
    #[error("domain `{domain}`: {source}")]
    InDomain {
        /// The domain's name in the config.
        domain: String,
        /// What happened.
        source: Box<DataError>,
    },
    /// The operating system refused a read or a write.
    #[error("cannot {doing} {}: {source}{}", printable_path(path), io_hint(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as "read" or "write".
        doing: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// A key of the config has a value that cannot be.
    #[error("`{key}`: expected {expected}, found {found}\nhint: {hint}")]
    Spec {
        /// The key, as written in the config.
        key: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A path, folder or pattern gave no file.
    #[error(
        "no file for `{}` (looked for {}{})\nhint: relative paths start at the config's folder; \
         folders give files ending in {known}",
        printable(pattern),
        printable_path(looked),
        left_out(passed)
    )]
    NoFiles {
        /// The path or pattern as written.
        pattern: String,
        /// The same, absolute.
        looked: PathBuf,
        /// The endings that folders are searched for.
        known: String,
        /// What is there and is not read, in words; empty for nothing.
        passed: String,
    },
    /// Something that was named, or is called as documents are, and is no file.
    #[error("{}: expected a file or a folder, found {found}\nhint: {hint}", printable_path(path))]
    NoFile {
        /// The path.
        path: PathBuf,
        /// What is there: "a pipe", "a link to x, where nothing is".
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file whose ending tells nothing.
    #[error(
        "{}: unknown file type: expected a name ending in {known}\nhint: {hint}",
        printable_path(path)
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The endings that are known.
        known: String,
        /// What to do.
        hint: &'static str,
    },
    /// The two halves of a source and the shards made of it would be the same files.
    #[error(
        "{} is a source, and it lies in the folder the shards go to, {}\nhint: choose another \
         data folder, or move the source",
        printable_path(path),
        printable_path(store)
    )]
    SourceInStore {
        /// The source file.
        path: PathBuf,
        /// The folder to be written.
        store: PathBuf,
    },
    /// A file stands where the folder of the shards should be.
    #[error(
        "{}: expected a folder for the shards, found a file\nhint: move the file, or choose another \
         data folder",
        printable_path(path)
    )]
    StoreIsFile {
        /// The file.
        path: PathBuf,
    },
    /// A path that [`inspect`](crate::inspect()) can say nothing about.
    #[error(
        "{}: expected a domain's folder or its shard.json, an entry's folder or its domains.json, or \
         a tokenized file (a Megatron shard by its prefix, .idx or .bin); found {found}\nhint: {hint}",
        printable_path(path)
    )]
    NotInspectable {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A file to be written is there already.
    #[error(
        "{}: expected no such file yet, found one\nhint: choose another place, or remove it",
        printable_path(path)
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file that holds something else than its name, or the config, says.
    #[error("{}: expected {expected}, found {found}\nhint: {hint}", printable_path(path))]
    WrongContent {
        /// The file.
        path: PathBuf,
        /// What its name says.
        expected: String,
        /// What its first bytes say.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A compressed or columnar file that does not decode.
    #[error("{}: {format} does not decode {place}: {message}\nhint: {hint}", printable_path(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// "gzip", "zstd" or "parquet".
        format: &'static str,
        /// Where in the file, as "after line 12" or "to its end".
        place: String,
        /// The decoder's own words.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A document without the column that was asked for.
    #[error(
        "{}, {place}: no column `{column}`: expected it, found {}\nhint: {}set the column's name \
         (a dotted path reaches into objects){}{more}",
        printable_path(path),
        list(found),
        one_a_line(documents.as_deref()),
        nearest(found)
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", from 1.
        place: Box<str>,
        /// The column as written in the config.
        column: Box<str>,
        /// The columns that are there, the most similar first.
        found: Vec<String>,
        /// The column whose value is a list of objects, which may be the documents.
        documents: Option<Box<str>>,
        /// What else can be done.
        more: &'static str,
    },
    /// A column that holds something else than text.
    #[error(
        "{}, {place}: column `{column}`: expected {expected}, found {found}\nhint: {hint}",
        printable_path(path)
    )]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", from 1.
        place: Box<str>,
        /// The column as written in the config.
        column: String,
        /// What may stand in it.
        expected: &'static str,
        /// What stands in it.
        found: Box<str>,
        /// What to do.
        hint: Box<str>,
    },
    /// A text with half of a character that UTF-16 writes as a pair.
    #[error(
        "{}, {place}: column `{column}`: expected text, found half a surrogate pair (`\\u{half:04x}`), \
         which is no character\nhint: set `on_invalid = \"replace\"` to put U+FFFD in its place, or \
         `\"skip\"` to leave the document out; it will be counted",
        printable_path(path)
    )]
    HalfSurrogate {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", from 1.
        place: String,
        /// The column as written in the config.
        column: String,
        /// The half that is there.
        half: u16,
    },
    /// NUL bytes in plain text.
    #[error(
        "{}, plain text: expected text, found a NUL byte at offset {offset}{within}{found}\nhint: \
         NUL bytes come from files that were allocated and not filled, and from binary files; cut \
         them out (`tr -d '\\000'`), or set `on_invalid = \"skip\"` or `\"replace\"`; it will be counted",
        printable_path(path)
    )]
    NulByte {
        /// The file.
        path: PathBuf,
        /// Bytes before it.
        offset: u64,
        /// What the offset counts from where that is not the file: " of the decompressed text".
        within: &'static str,
        /// What comes with it, as ", and 4095 more behind it".
        found: String,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "{}, {place}: expected UTF-8 text, found an invalid byte at offset {offset}{within}{found}\n\
         hint: set `on_invalid = \"skip\"` or `\"replace\"` to go on without it; it will be counted",
        printable_path(path)
    )]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// "line 3" or "row 3", from 1.
        place: String,
        /// Bytes before the invalid one.
        offset: u64,
        /// What the offset counts from where that is not the file: " of the decompressed text".
        within: &'static str,
        /// What the byte seems to be, where that can be told.
        found: &'static str,
    },
    /// A line that is not a JSON object.
    #[error(
        "{}:{line}: expected one JSON object a line, found {message}\nhint: {hint}",
        printable_path(path)
    )]
    InvalidJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What stands there.
        message: String,
        /// What to do.
        hint: String,
    },
    /// An `.idx` that does not describe a shard.
    #[error("{}: expected {expected}, found {found}\nhint: {}", printable_path(path), REBUILD)]
    Index {
        /// The file.
        path: PathBuf,
        /// What must be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file of token ids that is not what its format says.
    #[error("{}: expected {expected}, found {found}\nhint: {hint}", printable_path(path))]
    TokenFile {
        /// The file, or the one beside it that is wrong.
        path: PathBuf,
        /// What must be there.
        expected: String,
        /// What is there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A file shorter or longer than it must be.
    #[error(
        "{}: expected {}, found {found}: the file is {}\nhint: {}",
        printable_path(path), counted(*expected, "byte"), if found < expected { "truncated" } else { "longer than its index says" }, REBUILD
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A `shard.json` that cannot be used.
    #[error("{}: {message}\nhint: {}", printable_path(path), REBUILD)]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A token that the tokenizer does not have.
    #[error(
        "{}, document {document}: expected token ids below {vocab_size}, found {id}\nhint: {}",
        printable_path(path), beyond_hint(*id)
    )]
    IdBeyondVocabulary {
        /// The file of ids.
        path: PathBuf,
        /// The document, from 0.
        document: u64,
        /// The id; negative where the file's signed type says so.
        id: i64,
        /// Ids of the tokenizer, its largest plus one.
        vocab_size: usize,
    },
    /// A tokenized source made with another tokenizer than the one asked for.
    #[error(
        "{}: expected shards of tokenizer {}, found shards of tokenizer {}\nhint: name the \
         tokenizer.json that made them under [tokenizer], or give the untokenized text",
        printable_path(path),
        short(expected),
        short(found)
    )]
    TokenizerDiffers {
        /// The source's `shard.json`.
        path: PathBuf,
        /// The fingerprint of the tokenizer asked for.
        expected: String,
        /// The fingerprint written in the file.
        found: String,
    },
    /// A `tokenizer.json` that cannot be used.
    #[error("tokenizer {origin}: {message}\nhint: {hint}")]
    Tokenizer {
        /// The file, or what else it came from.
        origin: String,
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// No end-of-text token.
    #[error(
        "tokenizer {origin}: expected {}{} in the vocabulary, found no such token\nhint: {}",
        if tried.len() > 1 { "one of " } else { "" },
        list(tried),
        end_of_text_hint(there)
    )]
    NoEndOfText {
        /// The file, or what else it came from.
        origin: String,
        /// The tokens looked for.
        tried: Vec<String>,
        /// The special tokens that are there, the likeliest first.
        there: Vec<String>,
    },
    /// A file beside a model that cannot be used.
    #[error(
        "{}: expected {expected}, found {found}\nhint: the file may be damaged; download it again, \
         or take the key out of it",
        printable_path(path)
    )]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What it must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A source that gave no document.
    #[error(
        "domain `{domain}` is empty: expected at least one document with text, found {read} in \
         {} ({empty} without text, {invalid} invalid{reasons}){first}\nhint: {hint}",
         counted(*files, "file")
    )]
    EmptyDomain {
        /// The domain.
        domain: String,
        /// Files of the source.
        files: usize,
        /// Documents read.
        read: u64,
        /// Documents without text among them.
        empty: u64,
        /// Documents skipped because they were invalid.
        invalid: u64,
        /// The same by reason, as ": 3 not JSON".
        reasons: Box<str>,
        /// What is wrong with the first of them, as "; the first of these: …".
        first: String,
        /// What to do.
        hint: Box<str>,
    },
    /// The system makes no more threads.
    #[error(
        "cannot start a thread: {source}\nhint: allow more (`ulimit -u`, or the container's limit of \
         processes), or use fewer: RAYON_NUM_THREADS=1"
    )]
    Threads {
        /// The system's own error.
        source: io::Error,
    },
    /// A `domain_by` column that does not name domains.
    #[error(
        "domain `{domain}`: `domain_by = \"{column}\"`: expected at most {limit} different values, \
         found more, as {}\nhint: choose a column with few values, such as a language or a source",
        list(examples)
    )]
    TooManyDomains {
        /// The entry's name.
        domain: String,
        /// The column.
        column: String,
        /// How many are allowed.
        limit: usize,
        /// Some of the values.
        examples: Vec<String>,
    },
    /// Workers' parts that are not there when they are to be put together.
    #[error(
        "{}: expected all {of} parts of the corpus, found {}; missing: {}\nhint: run `cuvee prepare CONFIG --shard {}`, \
         and so on for each; or remove the folder to prepare everything here",
        printable_path(folder), *of as usize - missing.len(), parts(missing), missing.first().map_or("1/1", |part| &part.0)
    )]
    PartsMissing {
        /// The folder of the parts.
        folder: PathBuf,
        /// How many there must be.
        of: u32,
        /// Those that are missing, as "2/4", and why.
        missing: Vec<(String, &'static str)>,
    },
    /// A disk that is full.
    #[error("cannot write {}: {source}: {}\nhint: {}", printable_path(path), space_needed(*needed, *free, *done), MAKE_ROOM)]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
        /// Bytes still needed, where they can be told.
        needed: Option<u64>,
        /// Bytes written and the share of the work done, where `needed` follows from these.
        done: Option<(u64, f64)>,
        /// Bytes that are free, where the system says so.
        free: Option<u64>,
    },
    /// Two entries of one name.
    #[error("two domains are called `{domain}`: expected each name once\nhint: rename one of them")]
    DuplicateDomain {
        /// The name.
        domain: String,
    },
    /// Cargo's sources cannot be had.
    #[error("the sources of Cargo's packages: {message}\nhint: pass a config with your own files")]
    Cargo {
        /// Why.
        message: String,
    },
    /// A repository of the Hugging Face Hub that does not give what is wanted of it.
    #[error("`{repository}` on the Hub: {message}\nhint: {hint}")]
    Hub {
        /// Its name.
        repository: String,
        /// What was expected and what was found.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Something that needs a Cargo feature which this build does not have.
    #[error("{what}: it needs the feature `{feature}`, which is not in this build\nhint: {hint}")]
    MissingFeature {
        /// What was asked for.
        what: String,
        /// The feature of `cuvee-data`.
        feature: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The work was interrupted by request; what was done is kept, and gone on with by the next
    /// call.
    #[error("interrupted")]
    Interrupted,
}

/// Ends a hint where `on_invalid` is another way out.
pub(crate) const OR_SKIP: &str =
    "; or set `on_invalid = \"skip\"` to leave such documents out, which are counted";

/// How a damaged shard is made again.
const REBUILD: &str = "a shard of Cuvee's is made again by `cuvee prepare CONFIG` once its folder is removed; \
                       one from elsewhere, write or fetch again";

/// What to do about a full disk.
const MAKE_ROOM: &str = "make room there and run the same command again: it goes on where it stopped; another place \
                         (`--out`, or `dir` under [data]) would begin anew";

fn space_needed(needed: Option<u64>, free: Option<u64>, done: Option<(u64, f64)>) -> String {
    use crate::units::bytes_in_words as words;
    let needed = match (needed, done) {
        (Some(needed), Some((written, done))) => format!(
            "about {} more are needed, as {} are written and {:.0} % of the source is read",
            words(needed),
            words(written),
            done * 100.0
        ),
        (Some(needed), None) => format!("{} more are needed", words(needed)),
        (None, _) => "too little is done to tell how much more is needed".to_owned(),
    };
    free.map_or(needed.clone(), |free| format!("{needed}, and {} are free", words(free)))
}

/// "`2/4` (not begun), …"
fn parts(missing: &[(String, &'static str)]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> =
        missing.iter().take(SHOWN).map(|(part, why)| format!("{part} ({why})")).collect();
    match missing.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl DataError {
    /// For `map_err`: an I/O error with its path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
        let path = path.to_owned();
        move |source| DataError::Io { path, doing, source }
    }

    /// Whether the config is at fault, by a key that cannot be or keys that contradict one another,
    /// and not what was found on disk. Programs tell the two apart in their exit codes.
    pub fn is_usage(&self) -> bool {
        match self {
            DataError::InDomain { source, .. } => source.is_usage(),
            DataError::Spec { .. }
            | DataError::DuplicateDomain { .. }
            | DataError::SourceInStore { .. }
            | DataError::StoreIsFile { .. }
            | DataError::Exists { .. } => true,
            _ => false,
        }
    }

    /// The same error with the domain's name before it, unless it carries one already.
    pub(crate) fn in_domain(self, domain: &str) -> DataError {
        match self {
            DataError::InDomain { .. }
            | DataError::EmptyDomain { .. }
            | DataError::TooManyDomains { .. }
            | DataError::DuplicateDomain { .. }
            | DataError::Interrupted => self,
            source => DataError::InDomain { domain: domain.to_owned(), source: Box::new(source) },
        }
    }
}

/// "`a`, `b`, … and 3 more", or "nothing". Names may come from anywhere, so they are made
/// printable.
pub(crate) fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", short_name(name))).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What to do about a tokenizer without a token that ends a document.
fn end_of_text_hint(special: &[String]) -> String {
    const SET: &str = "set `end_of_text` under [tokenizer] to the token that ends a document";
    match special {
        [] => format!("{SET}; it has no special token, so that one may have to be added to it"),
        special => format!("{SET}; its special tokens: {}", list(special)),
    }
}

/// What to do about a refusal of the system, on a line of its own; nothing where only the system
/// knows.
fn io_hint(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => {
            "\nhint: look at the path; in a config, relative paths start at the config's folder"
        }
        ErrorKind::PermissionDenied => {
            "\nhint: allow it, as with chmod, for the file and the folders above it, or choose another place"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "\nhint: free some space, or choose another place; shards take two to four bytes a token, \
             and what was begun has to fit beside the old ones"
        }
        ErrorKind::FileTooLarge => {
            "\nhint: allow larger files (`ulimit -f unlimited`), or choose a place whose file system \
             does; the same command goes on where it stopped"
        }
        ErrorKind::ReadOnlyFilesystem => "\nhint: choose a place that can be written to",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "\nhint: a part of the path is a file where a folder is needed; move it, or choose another path"
        }
        ErrorKind::IsADirectory => "\nhint: name a file; this is a folder",
        ErrorKind::InvalidData => {
            "\nhint: the file is not what its name says; look at what is in it"
        }
        _ => "",
    }
}

/// What to do first where a column holds a list of objects.
fn one_a_line(documents: Option<&str>) -> String {
    let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    documents.filter(is_plain).map_or_else(String::new, |name| {
        format!(
            "where the objects in `{name}` are the documents, `jq -c '.{name}[]' FILE > NEW.jsonl` writes \
             each on a line of its own; else "
        )
    })
}

fn left_out(passed: &str) -> String {
    if passed.is_empty() { String::new() } else { format!("; left out: {passed}") }
}

fn nearest(names: &[String]) -> String {
    names
        .first()
        .map_or_else(String::new, |name| format!("; the nearest is `{}`", short_name(name)))
}

/// What to do about an id that the tokenizer does not have.
fn beyond_hint(id: i64) -> &'static str {
    match id {
        ..0 => "it may mark padding or an unknown word: write the ids of tokens alone",
        _ => {
            "the shard was made with another tokenizer, or is damaged; name the one that made it under [tokenizer]"
        }
    }
}

/// The first twelve characters of a fingerprint: enough to tell two apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

impl From<FsError> for DataError {
    fn from(FsError { action, path, source }: FsError) -> Self {
        DataError::Io { path, doing: action, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: io::ErrorKind) -> DataError {
        DataError::io("write", Path::new("a/b"))(io::Error::from(kind))
    }

    #[test]
    fn refusals_of_the_system_say_what_to_do() {
        use io::ErrorKind::{Interrupted, NotADirectory, NotFound, PermissionDenied, StorageFull};
        for (kind, words) in [
            (NotFound, "look at the path"),
            (PermissionDenied, "chmod"),
            (StorageFull, "free some space"),
            (NotADirectory, "a file where a folder is needed"),
        ] {
            let error = io(kind).to_string();
            assert!(error.starts_with("cannot write a/b: "), "{error}");
            let hint = error.lines().last().unwrap_or_default();
            assert!(hint.starts_with("hint: ") && hint.contains(words), "{error}");
        }
        assert!(!io(Interrupted).to_string().contains("hint"));
    }

    #[test]
    fn usage_is_what_the_config_says_and_not_what_is_on_disk() {
        let spec = || DataError::Spec {
            key: "k".to_owned(),
            expected: "e".to_owned(),
            found: "f".to_owned(),
            hint: "h".to_owned(),
        };
        assert!(spec().is_usage());
        assert!(spec().in_domain("d").is_usage());
        assert!(DataError::DuplicateDomain { domain: "d".to_owned() }.is_usage());
        assert!(!io(io::ErrorKind::NotFound).is_usage());
        assert!(!io(io::ErrorKind::NotFound).in_domain("d").is_usage());
        assert!(!DataError::Interrupted.is_usage());
    }
}
