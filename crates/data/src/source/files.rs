//! From what the config names to the files it means.
//!
//! In: files, folders, patterns and shard prefixes, relative to the config's folder. Out: files,
//! sorted within each of them, each once. Folders are searched through, links followed, hidden
//! files and files of unknown endings left out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::{SourceFile, endings};
use crate::error::{DataError, Result};
use crate::manifest::FileRecord;
use crate::shard;
use crate::spec::Format;

/// The files of all `patterns`.
///
/// Fails where one of them gives no file, or a file that was named has an unknown type.
pub(super) fn find(patterns: &[String], format: Option<Format>, base: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let before = files.len();
        let looked = base.join(pattern);
        for path in expand(pattern, &looked, base)? {
            if path.is_dir() {
                walk(&path, format, &mut files)?;
            } else {
                let kind = format.or_else(|| format_of(&path));
                let kind = kind
                    .ok_or_else(|| DataError::UnknownFormat { path: path.clone(), known: endings(None) })?;
                let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push(file(&path, kind, label)?);
            }
        }
        if files.len() == before {
            return Err(DataError::NoFiles { pattern: pattern.clone(), looked, known: endings(format) });
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.path.clone()));
    Ok(files)
}

/// What the manifest says of a file.
pub(super) fn record(file: &SourceFile) -> Result<FileRecord> {
    let changed = std::fs::metadata(&file.path)
        .and_then(|metadata| metadata.modified())
        .map_err(DataError::io("read", &file.path))?;
    Ok(FileRecord {
        path: file.path.canonicalize().map_err(DataError::io("read", &file.path))?,
        bytes: file.bytes,
        modified: nanoseconds(changed),
    })
}

/// Nanoseconds since 1970; earlier times count as 1970.
pub(super) fn nanoseconds(time: std::time::SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// Also knows the second half of a shard.
fn format_of(path: &Path) -> Option<Format> {
    let is_bin = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin"));
    if is_bin && shard::files(path).0.is_file() {
        return Some(Format::Megatron);
    }
    Format::of(path)
}

/// A path as it is, a shard's prefix as its index, or what a pattern matches.
fn expand(pattern: &str, looked: &Path, base: &Path) -> Result<Vec<PathBuf>> {
    if looked.exists() {
        return Ok(vec![looked.to_owned()]);
    }
    let (idx, bin) = shard::files(looked);
    if idx.is_file() && bin.is_file() {
        return Ok(vec![idx]);
    }
    // The folder of the config may have brackets in its name; those are no pattern.
    let full = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => Path::new(&glob::Pattern::escape(&base.to_string_lossy()))
            .join(pattern)
            .to_string_lossy()
            .into_owned(),
    };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let matches = glob::glob_with(&full, options).map_err(|error| DataError::Spec {
        key: "source.path".to_owned(),
        expected: "a path or a pattern".to_owned(),
        found: format!("\"{pattern}\": {error}"),
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
    paths.retain(|path| {
        let is_half = format_of(path) == Some(Format::Megatron) && Format::of(path).is_none();
        !(is_half && pattern.ends_with('*'))
    });
    paths.sort();
    Ok(paths)
}

fn walk(folder: &Path, format: Option<Format>, files: &mut Vec<SourceFile>) -> Result<()> {
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
        let Some(kind) = Format::of(path).filter(|_| entry.file_type().is_file()) else { continue };
        if format.is_some_and(|format| format != kind) || is_own_description(path) {
            continue;
        }
        let label = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
        files.push(file(path, kind, label)?);
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
    let (path, bytes) = if format == Format::Megatron {
        let (idx, bin) = shard::files(path);
        let bytes = length(&idx)? + length(&bin)?;
        (idx, bytes)
    } else {
        (path.to_owned(), length(path)?)
    };
    Ok(SourceFile { path, format, bytes, label, package: None })
}
