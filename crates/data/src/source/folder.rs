//! Searching folders: which of their files are documents, and what is passed over and why.
//!
//! In: folders, and files that patterns match. Out: candidates in the order of their names, and
//! [`PassedOver`], which says in words what is not read. Links are followed, each folder searched
//! once whatever leads to it. Passed over are hidden files, those of other endings, those that
//! describe a data set (`README.md`), and what is no file, as a pipe. Where some names say `train`,
//! those that say `valid` or `test` are passed over too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cuvee_words::{printable, printable_path};

use super::file::SourceFile;
use super::names::{self, Side};
use super::readers;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::shard::manifest;
use crate::tokens::{self, megatron};

/// Names and endings of one kind that are said.
const SHOWN: usize = 5;
/// Endings that are counted each by itself.
const MOST_ENDINGS: usize = 256;
/// Endings of compressed files that are not read.
const PACKED: [&str; 12] = [
    ".xz", ".bz2", ".zstd", ".gzip", ".lz4", ".lzma", ".br", ".7z", ".zip", ".tar", ".tgz", ".rar",
];

/// Whether a file, by its name, is compressed in a way that is not read.
pub(super) fn is_packed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    PACKED.iter().any(|ending| name.ends_with(ending))
}

/// What a path leads to.
pub(super) enum Target {
    File,
    Folder,
    /// Something that holds no documents, in words.
    Other(&'static str),
    /// A link to nothing, in words.
    Broken(String),
}

/// What a path leads to, links followed.
///
/// # Errors
/// It cannot be looked at.
pub(super) fn target(path: &Path) -> Result<Target> {
    let error = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => return Ok(Target::File),
        Ok(metadata) if metadata.is_dir() => return Ok(Target::Folder),
        Ok(metadata) => return Ok(Target::Other(kind(metadata.file_type()))),
        Err(error) => error,
    };
    match std::fs::read_link(path) {
        Ok(_) if is_circle(&error) => {
            Ok(Target::Broken("a link that leads back to itself".to_owned()))
        }
        Ok(to) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Target::Broken(format!("a link to {}, where nothing is", printable_path(to))))
        }
        _ => Err(DataError::io("read", path)(error)),
    }
}

/// Whether following links was given up because they lead in a circle.
fn is_circle(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    {
        rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// What is neither a file nor a folder, in words.
fn kind(kind: std::fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    let _ = kind;
    "a device"
}

/// What to do about a pipe, a socket or a device that was named.
pub(super) const WRITE_IT_DOWN: &str = "files are read several times, and from anywhere: write what comes out of it to a file, and \
     name that";
/// What to do about a link that leads nowhere.
pub(super) const MEND_LINK: &str = "remove the link, or put a file where it leads";

/// The refusal of something that was named and is no file.
pub(super) fn no_file(path: &Path, found: String, hint: &'static str) -> DataError {
    DataError::NoFile { path: path.to_owned(), found, hint }
}

/// How a file was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The config names it.
    Named,
    /// A pattern of the config matches it, and says what names it wants.
    Matched,
    /// It lies in a folder, or a pattern takes all there is.
    Searched,
}

/// A file that may be read.
pub(super) struct Candidate {
    pub(super) file: SourceFile,
    pub(super) origin: Origin,
}

/// Gathers the files of one path of the config.
pub(super) struct Search {
    format: Option<Format>,
    pub(super) found: Vec<Candidate>,
    pub(super) passed: PassedOver,
    /// Each once, though several matches of a pattern may lead to it.
    paths: HashSet<PathBuf>,
    /// By their paths without links, how they were come by.
    folders: HashMap<PathBuf, PathBuf>,
}

impl Search {
    pub(super) fn new(format: Option<Format>) -> Search {
        Search {
            format,
            found: Vec::new(),
            passed: PassedOver::default(),
            paths: HashSet::new(),
            folders: HashMap::new(),
        }
    }

    /// Takes a file's word for what it is, unless the config names the format.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub(super) fn add(
        &mut self,
        path: &Path,
        format: Format,
        from: Option<&Path>,
        origin: Origin,
    ) -> Result<()> {
        if self.paths.insert(path.to_owned()) {
            let file = file(path, format, label(path, from))?;
            self.found.push(Candidate { file, origin });
        }
        Ok(())
    }

    /// Searches a folder and those in it. Labels are relative to `from`.
    ///
    /// # Errors
    /// A folder cannot be read; a link whose name says that it holds documents leads nowhere.
    pub(super) fn folder(&mut self, folder: &Path, from: &Path) -> Result<()> {
        let unreadable = || DataError::io("read", folder);
        let true_path = folder.canonicalize().map_err(unreadable())?;
        if let Some(known) = self.folders.get(&true_path) {
            if known != folder {
                self.passed.again.push(folder.to_owned());
            }
            return Ok(());
        }
        self.folders.insert(true_path, folder.to_owned());
        let entries = std::fs::read_dir(folder).map_err(unreadable())?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<std::io::Result<_>>().map_err(unreadable())?;
        paths.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with('.') {
                self.passed.hidden.push(name);
                continue;
            }
            match target(&path)? {
                Target::Folder => self.folder(&path, from)?,
                Target::File => self.file(&path, from)?,
                Target::Other(found) => self.passed.other.push((path, found.to_owned())),
                Target::Broken(found) if self.has_known_ending(&path) => {
                    return Err(no_file(&path, found, MEND_LINK));
                }
                Target::Broken(found) => self.passed.other.push((path, found)),
            }
        }
        Ok(())
    }

    /// Whether a name promises documents.
    fn has_known_ending(&self, path: &Path) -> bool {
        match self.format {
            Some(format) => readers::has_ending(format, path),
            None => Format::all().any(|format| readers::has_ending(format, path)),
        }
    }

    /// A file of a folder.
    fn file(&mut self, path: &Path, from: &Path) -> Result<()> {
        if is_own_description(path) || is_half(path) || is_beside(path) {
            return Ok(());
        }
        // A format that was named decides about endings that several share.
        let kind = match self.format {
            Some(format) => readers::has_ending(format, path).then_some(format),
            None => readers::recognise(path),
        };
        match kind {
            Some(kind) => self.add(path, kind, Some(from), Origin::Searched),
            None => {
                self.passed.endings.push(path.file_name().unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Passes over what by its name tells of the data.
    pub(super) fn pass_over_descriptions(&mut self) {
        let (about, found): (Vec<_>, Vec<_>) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(|c| c.origin == Origin::Searched && c.is_about());
        self.passed.about.extend(about.into_iter().map(|c| c.file.label));
        self.found = found;
    }

    /// Passes over what by its name is not to be trained on.
    pub(super) fn sift(&mut self) {
        self.pass_over_descriptions();
        let (passed, found) = (&mut self.passed, std::mem::take(&mut self.found));
        let trains = found.iter().find(|c| c.side() == Some(Side::Train));
        passed.beside = trains.map(|c| c.file.label.clone()).unwrap_or_default();
        for candidate in found {
            let held_out = !passed.beside.is_empty() && candidate.side() == Some(Side::HeldOut);
            match candidate.origin {
                Origin::Searched if held_out => {
                    passed.held_out.push(candidate.file.label);
                    continue;
                }
                Origin::Matched if held_out => {
                    passed.trained_on.push(candidate.file.label.clone());
                }
                _ => {}
            }
            self.found.push(candidate);
        }
        let formats = self.found.iter().filter(|c| c.origin == Origin::Searched);
        for candidate in formats {
            *passed.formats.entry(candidate.file.format.name()).or_default() += 1;
        }
    }
}

impl Candidate {
    fn is_about(&self) -> bool {
        let name = self.file.path.file_name().unwrap_or_default();
        names::is_about(&name.to_string_lossy())
    }

    /// Which side of training the name speaks for. The splits of Cuvee's own shards say nothing:
    /// their documents are split again, the same way.
    fn side(&self) -> Option<Side> {
        if self.origin == Origin::Named || is_in_domain(&self.file.path) {
            return None;
        }
        names::side_of(&self.file.label.replace(std::path::MAIN_SEPARATOR, "/"))
    }
}

/// Whether a file is the `.bin` of a Megatron shard.
pub(super) fn is_half(path: &Path) -> bool {
    let is_bin = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin"));
    is_bin && megatron::files(path).0.is_file()
}

/// A file's name for `split_by = "file"`.
fn label(path: &Path, from: Option<&Path>) -> String {
    let relative = from.and_then(|from| path.strip_prefix(from).ok()).unwrap_or(path);
    relative.to_string_lossy().into_owned()
}

/// A file as it is on disk, with the other half of a Megatron shard.
///
/// # Errors
/// One of its files cannot be looked at.
fn file(path: &Path, format: Format, label: String) -> Result<SourceFile> {
    let length = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path).map_err(DataError::io("read", path))?.len())
    };
    let (path, bytes) = if format == Format::MEGATRON {
        let (idx, bin) = megatron::files(path);
        let bytes = length(&idx)? + length(&bin)?;
        (idx, bytes)
    } else {
        (path.to_owned(), length(path)?)
    };
    Ok(SourceFile { path, format, bytes, label, package: None })
}

/// Whether a file lies among the shards of a domain.
fn is_in_domain(path: &Path) -> bool {
    path.with_file_name(manifest::FILE_NAME).is_file()
}

/// `shard.json` and `tokenizer.json` in a folder of shards are not documents.
fn is_own_description(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name, Some("shard.json" | "tokenizer.json" | "domains.json"))
        && path.with_file_name("train.idx").is_file()
}

/// Whether a file belongs to a tokenized one beside it, as `.ds.index` does.
fn is_beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let layouts = tokens::FORMATS.iter().filter_map(|row| row.layout.as_ref());
    let mut besides =
        layouts.flat_map(|layout| layout.beside.iter().map(move |beside| (layout, beside)));
    let belongs = besides.any(|(layout, beside)| {
        let at = name.len().checked_sub(beside.ending.len());
        let Some((bare, found)) = at.and_then(|at| name.split_at_checked(at)) else { return false };
        // An ending behind the other's, or in its place.
        let main = match beside.ending.strip_prefix(layout.ending) {
            Some(behind) => name.get(..name.len() - behind.len()).unwrap_or_default().to_owned(),
            None => format!("{bare}{}", layout.ending),
        };
        found.eq_ignore_ascii_case(beside.ending) && path.with_file_name(main).is_file()
    });
    belongs && readers::recognise(path).is_none()
}

/// What a search has passed over.
#[derive(Default)]
pub(super) struct PassedOver {
    hidden: Hidden,
    endings: Endings,
    /// What is no file, and what it is.
    other: Vec<(PathBuf, String)>,
    /// Folders that had been searched by another name.
    again: Vec<PathBuf>,
    /// Files that describe the data.
    about: Vec<String>,
    /// Files whose names say that they are not trained on, and one that says it is.
    held_out: Vec<String>,
    beside: String,
    /// Such files that a pattern takes all the same.
    trained_on: Vec<String>,
    /// How many files of each format are read.
    formats: BTreeMap<&'static str, u64>,
}

/// Hidden files and folders.
#[derive(Default)]
struct Hidden {
    count: u64,
    examples: Vec<String>,
}

impl Hidden {
    fn push(&mut self, name: &OsStr) {
        self.count += 1;
        if self.examples.len() < SHOWN {
            self.examples.push(name.to_string_lossy().into_owned());
        }
    }
}

/// Files of endings that are not read.
#[derive(Default)]
struct Endings(BTreeMap<String, u64>);

impl Endings {
    fn push(&mut self, name: &OsStr) {
        let name = name.to_string_lossy().to_lowercase();
        let ending = name.rsplit_once('.').filter(|(stem, ending)| {
            !stem.is_empty() && !ending.is_empty() && ending.chars().count() <= 12
        });
        let ending = ending.map_or_else(String::new, |(_, ending)| format!(".{ending}"));
        let full = self.0.len() >= MOST_ENDINGS && !self.0.contains_key(&ending);
        *self.0.entry(if full { String::new() } else { ending }).or_default() += 1;
    }

    /// "3 .png, 1 .xz and 2 without one": those that were probably meant first, then by number.
    fn words(&self) -> String {
        let mut endings: Vec<(&String, &u64)> = self.0.iter().collect();
        let is_packed = |ending: &String| PACKED.contains(&ending.as_str());
        endings.sort_by_key(|(ending, count)| (!is_packed(ending), u64::MAX - **count));
        let words = endings.iter().map(|(ending, count)| match ending.as_str() {
            "" => format!("{count} of none or others"),
            ending => format!("{count} of {}", printable(ending)),
        });
        shortened(words.collect())
    }

    fn has_packed(&self) -> bool {
        PACKED.iter().any(|ending| self.0.contains_key(*ending))
    }
}

impl PassedOver {
    /// What was passed over of `typed`, a line each reason.
    pub(super) fn notes(&self, typed: &str) -> Vec<String> {
        let mut notes = Vec::new();
        let mut say = |line: String| notes.push(format!("`{}`: {line}", printable(typed)));
        if !self.endings.0.is_empty() {
            let left_out = match self.endings.0.values().sum() {
                1u64 => "1 file is left out for its ending".to_owned(),
                count => format!("{count} files are left out for their endings"),
            };
            let packed = match self.endings.has_packed() {
                true => {
                    "; of compressed files only .gz and .zst are read: unpack the others, or pack \
                     them so (.gzip and .zstd are the same: rename them)"
                }
                false => "",
            };
            say(format!("{left_out}: {}{packed}", self.endings.words()));
        }
        if self.hidden.count > 0 {
            let examples = names_of(&self.hidden.examples, self.hidden.count);
            say(format!("hidden and left out: {examples}"));
        }
        if !self.about.is_empty() {
            let about = names_of(&self.about, self.about.len() as u64);
            say(format!(
                "left out, since the name says that it tells of the data: {about}; to read it as text, name it"
            ));
        }
        if !self.held_out.is_empty() {
            let held_out = names_of(&self.held_out, self.held_out.len() as u64);
            let beside = printable(&self.beside);
            say(format!(
                "left out, since the name beside `{beside}` says that it is held out from training: {held_out}; to train on it, name it"
            ));
        }
        if !self.trained_on.is_empty() {
            let trained_on = names_of(&self.trained_on, self.trained_on.len() as u64);
            let beside = printable(&self.beside);
            say(format!(
                "the pattern takes files as data for training whose names beside `{beside}` say that they are held out: {trained_on}"
            ));
        }
        for (path, found) in self.other.iter().take(SHOWN) {
            say(format!("{} is {}, and is left out", printable_path(path), printable(found)));
        }
        if let Some(more) = self.other.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            say(format!("{more} more that are no files are left out"));
        }
        if let Some(first) = self.again.first() {
            let more = match self.again.len() - 1 {
                0 => String::new(),
                more => format!(", and so were {more} more"),
            };
            say(format!(
                "{} leads to a folder that had been searched, and is left out{more}",
                printable_path(first)
            ));
        }
        if self.formats.len() > 1 {
            let formats = self.formats.iter().map(|(name, count)| format!("{count} {name}"));
            say(format!(
                "files of several formats are read: {}; `format` chooses one",
                formats.collect::<Vec<_>>().join(", ")
            ));
        }
        notes
    }

    /// What was passed over, for the end of an error; empty for nothing.
    pub(super) fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.endings.0.is_empty() {
            words.push(format!("by their endings {}", self.endings.words()));
        }
        if self.hidden.count > 0 {
            words.push(format!("hidden {}", names_of(&self.hidden.examples, self.hidden.count)));
        }
        if !self.about.is_empty() {
            let about = names_of(&self.about, self.about.len() as u64);
            words.push(format!("{about}, which by name tells of the data"));
        }
        for (path, found) in self.other.iter().take(SHOWN) {
            words.push(format!("{}, {}", printable_path(path), printable(found)));
        }
        words.join("; ")
    }
}

/// The first of `count` names, and how many more there are.
fn names_of(names: &[String], count: u64) -> String {
    let shown: Vec<String> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", printable(name))).collect();
    match count.saturating_sub(shown.len() as u64) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The first of some words, and how many more there are.
fn shortened(words: Vec<String>) -> String {
    match words.len().saturating_sub(SHOWN) {
        0 => words.join(", "),
        1 => format!("{} and 1 other ending", words[..SHOWN].join(", ")),
        more => format!("{} and {more} other endings", words[..SHOWN].join(", ")),
    }
}
