//! From what the config names to the files it means.
//!
//! In: files, folders, patterns and shard prefixes, relative to the config's folder. Out: files,
//! sorted within each of them, each once. Folders are searched through, links followed, hidden
//! files and files of unknown endings left out; patterns also leave out names that are not UTF-8. A
//! name that is there as it is written is no pattern, whatever characters it has.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::file::SourceFile;
use super::readers::{self, endings};
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::shard::manifest::FileRecord;
use crate::tokens::megatron;

/// A path of the config: what is literal of it, and the pattern that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    /// As typed.
    typed: String,
    /// Everything up to the first part that is a pattern; all of it where none is.
    folder: PathBuf,
    /// From there on; empty where nothing is a pattern.
    pattern: String,
}

impl PathPattern {
    /// Takes a path apart. A part with `*`, `?` or `[` in it that is there as written, such as a
    /// folder called `[x]`, is literal.
    pub(super) fn new(typed: &str, base: &Path) -> PathPattern {
        let mut folder = base.to_owned();
        let mut pattern: Vec<&str> = Vec::new();
        for part in Path::new(typed).components().filter(|part| *part != Component::CurDir) {
            // A part of a `str` is one; the fallback is never taken.
            let part = part.as_os_str().to_str().unwrap_or_default();
            let literal = || !part.contains(['*', '?', '[']) || folder.join(part).exists();
            if pattern.is_empty() && literal() {
                folder.push(part);
            } else {
                pattern.push(part);
            }
        }
        let mut pattern = pattern.join("/");
        if !pattern.is_empty() && typed.ends_with('/') {
            // A pattern for folders alone.
            pattern.push('/');
        }
        PathPattern { typed: typed.to_owned(), folder, pattern }
    }

    /// What tells this path from any other, wherever the config lies: without links, `.` and
    /// `..`, and the literal part apart from the pattern.
    pub(super) fn identity(&self) -> [String; 2] {
        // A shard's prefix is no file, but the folder it is in is there.
        let within = || {
            let parent = self.folder.parent()?.canonicalize().ok()?;
            Some(parent.join(self.folder.file_name()?))
        };
        let folder = self.folder.canonicalize().ok().or_else(within);
        let folder = folder.unwrap_or_else(|| self.folder.clone());
        [folder.to_string_lossy().into_owned(), self.pattern.clone()]
    }

    fn looked(&self) -> PathBuf {
        if self.pattern.is_empty() { self.folder.clone() } else { self.folder.join(&self.pattern) }
    }
}

/// The files of all `patterns`.
///
/// # Errors
/// One of them gives no file, or a file that was named has an unknown type.
pub(super) fn find(patterns: &[PathPattern], format: Option<Format>) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let before = files.len();
        for path in expand(pattern)? {
            // Labels start where the pattern does, or in the folder that was named.
            let from = (!pattern.pattern.is_empty()).then_some(pattern.folder.as_path());
            if path.is_dir() {
                walk(&path, from.unwrap_or(&path), format, &mut files)?;
            } else {
                let kind = format.or_else(|| format_of(&path));
                let kind = kind.ok_or_else(|| unknown(&path))?;
                files.push(file(&path, kind, label(&path, from.or(path.parent())))?);
            }
        }
        if files.len() == before {
            return Err(DataError::NoFiles {
                pattern: pattern.typed.clone(),
                looked: pattern.looked(),
                known: endings(format),
            });
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.path.clone()));
    Ok(files)
}

/// What the manifest says of a file.
///
/// # Errors
/// The file cannot be looked at.
pub(super) fn record(file: &SourceFile) -> Result<FileRecord> {
    let changed = std::fs::metadata(&file.path)
        .and_then(|metadata| metadata.modified())
        .map_err(DataError::io("read", &file.path))?;
    let path = file.path.canonicalize().map_err(DataError::io("read", &file.path))?;
    Ok(FileRecord {
        // JSON holds no other names than those in UTF-8.
        path: PathBuf::from(path.to_string_lossy().into_owned()),
        bytes: file.bytes,
        modified: nanoseconds(changed),
        oid: None,
    })
}

/// Nanoseconds since 1970; earlier times count as 1970.
pub(super) fn nanoseconds(time: std::time::SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// Also knows the `.bin` of a Megatron shard.
pub(crate) fn format_of(path: &Path) -> Option<Format> {
    if is_half(path) { Some(Format::MEGATRON) } else { readers::recognise(path) }
}

/// Whether a file is the `.bin` of a Megatron shard.
fn is_half(path: &Path) -> bool {
    let is_bin = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin"));
    is_bin && megatron::files(path).0.is_file()
}

/// The refusal of a file whose format nobody knows.
pub(crate) fn unknown(path: &Path) -> DataError {
    let is_bin = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin"));
    let hint = match is_bin {
        true => {
            "a .bin without an .idx beside it and without llm.c's header may be anything; if it holds ids alone, say \
             so: format = \"nanogpt\""
        }
        false => "name the format, as in `format = \"txt\"`",
    };
    DataError::UnknownFormat { path: path.to_owned(), known: endings(None), hint }
}

/// A path as it is, a shard's prefix as its index, or what a pattern matches.
fn expand(pattern: &PathPattern) -> Result<Vec<PathBuf>> {
    let looked = pattern.looked();
    if pattern.pattern.is_empty() && looked.exists() {
        return Ok(vec![looked]);
    }
    let (idx, bin) = megatron::files(&looked);
    if idx.is_file() && bin.is_file() {
        return Ok(vec![idx]);
    }
    if pattern.pattern.is_empty() {
        return Ok(Vec::new());
    }
    let folder = glob::Pattern::escape(&pattern.folder.to_string_lossy());
    let full = Path::new(&folder).join(&pattern.pattern).to_string_lossy().into_owned();
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let matches = glob::glob_with(&full, options).map_err(|error| DataError::Spec {
        key: "source.path".to_owned(),
        expected: "a path or a pattern".to_owned(),
        found: format!("\"{}\": {error}", pattern.typed),
        hint: "write a literal `[` as `[[]`".to_owned(),
    })?;
    let mut paths = Vec::new();
    for path in matches {
        paths.push(path.map_err(|error| {
            let path = error.path().to_owned();
            DataError::io("read", &path)(error.into())
        })?);
    }
    // Both halves of a shard match `*`: the index stands for it.
    paths.retain(|path| !(is_half(path) && pattern.pattern.ends_with('*')));
    paths.sort();
    Ok(paths)
}

/// A file's name for `split_by = "file"`.
fn label(path: &Path, from: Option<&Path>) -> String {
    let relative = from.and_then(|from| path.strip_prefix(from).ok()).unwrap_or(path);
    relative.to_string_lossy().into_owned()
}

fn walk(
    folder: &Path,
    from: &Path,
    format: Option<Format>,
    files: &mut Vec<SourceFile>,
) -> Result<()> {
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let entries = WalkDir::new(folder)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    for entry in entries {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_owned();
            DataError::io("read", &path)(error.into())
        })?;
        let path = entry.path();
        // A format that was named decides about endings that several share.
        let named = |format: &Format| readers::has_ending(*format, path) && !is_half(path);
        let kind = if format.is_some() { format.filter(named) } else { readers::recognise(path) };
        let Some(kind) = kind.filter(|_| entry.file_type().is_file()) else { continue };
        if is_own_description(path) {
            continue;
        }
        files.push(file(path, kind, label(path, Some(from)))?);
    }
    Ok(())
}

/// `shard.json` and `tokenizer.json` in a folder of shards are not documents.
fn is_own_description(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name, Some("shard.json" | "tokenizer.json" | "domains.json"))
        && path.with_file_name("train.idx").is_file()
}

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
