//! From what the config names to the files it means.
//!
//! In: files, folders, patterns and shard prefixes, relative to the config's folder. Out: files,
//! sorted within each of them, each once whatever its names, and notes of what is not read. How
//! folders are searched says `folder`. Patterns leave out names that are not UTF-8; what else they
//! match must be readable, so that nothing is lost by a typing error. A name that is there as it
//! is written is no pattern, whatever characters it has.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use cuvee_words::printable_path;

use super::file::SourceFile;
use super::folder::{
    MEND_LINK, Origin, Search, Target, WRITE_IT_DOWN, is_half, is_packed, no_file, target,
};
use super::identity::FileId;
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

    /// Whether the pattern takes all there is, as `texts/*` and `texts/**/*` do.
    fn takes_all(&self) -> bool {
        let last = self.pattern.rsplit('/').next().unwrap_or_default();
        !last.is_empty() && last.bytes().all(|byte| byte == b'*')
    }

    fn looked(&self) -> PathBuf {
        if self.pattern.is_empty() { self.folder.clone() } else { self.folder.join(&self.pattern) }
    }
}

/// The files of all `patterns`, and what there is to say about those that are left out.
///
/// # Errors
/// One of them gives no file, or something that was named is no file or of an unknown type.
pub(super) fn find(
    patterns: &[PathPattern],
    format: Option<Format>,
) -> Result<(Vec<SourceFile>, Vec<String>)> {
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let search = search(pattern, format)?;
        if search.found.is_empty() {
            return Err(DataError::NoFiles {
                pattern: pattern.typed.clone(),
                looked: pattern.looked(),
                known: endings(format),
                passed: search.passed.words(),
            });
        }
        notes.extend(search.passed.notes(&pattern.typed));
        files.extend(search.found.into_iter().map(|candidate| candidate.file));
    }
    let files = each_once(files, &mut notes)?;
    Ok((files, notes))
}

/// The files that a path means to be evaluated, whatever split their names tell of. Relative paths
/// start at the current folder.
///
/// # Errors
/// The path gives no file, or something that was named is no file or of an unknown type.
pub(super) fn to_evaluate(path: &str) -> Result<Vec<SourceFile>> {
    let base = std::env::current_dir().unwrap_or_default();
    let pattern = PathPattern::new(path, &base);
    let mut search = gather(&pattern, None)?;
    search.pass_over_descriptions();
    if search.found.is_empty() {
        let passed = search.passed.words();
        let besides = if passed.is_empty() { String::new() } else { format!(", but {passed}") };
        return Err(DataError::Spec {
            key: "--text".to_owned(),
            expected: "files of text: .txt, .jsonl, .parquet and their like".to_owned(),
            found: format!("none at {}{besides}", printable_path(pattern.looked())),
            hint: "name a file, or a folder with such files in it".to_owned(),
        });
    }
    Ok(search.found.into_iter().map(|candidate| candidate.file).collect())
}

/// Looks for what one path of the config means.
fn search(pattern: &PathPattern, format: Option<Format>) -> Result<Search> {
    let mut search = gather(pattern, format)?;
    search.sift();
    Ok(search)
}

/// All files of one path.
fn gather(pattern: &PathPattern, format: Option<Format>) -> Result<Search> {
    let mut search = Search::new(format);
    let origin = match pattern.pattern.is_empty() {
        true => Origin::Named,
        false if pattern.takes_all() => Origin::Searched,
        false => Origin::Matched,
    };
    for path in expand(pattern)? {
        // Labels start where the pattern does, or in the folder that was named.
        let from = (!pattern.pattern.is_empty()).then_some(pattern.folder.as_path());
        match target(&path)? {
            Target::Folder => search.folder(&path, from.unwrap_or(&path))?,
            Target::File => {
                let kind = format.or_else(|| format_of(&path));
                let kind = kind.ok_or_else(|| unknown(&path))?;
                search.add(&path, kind, from.or(path.parent()), origin)?;
            }
            Target::Other(found) => return Err(no_file(&path, found.to_owned(), WRITE_IT_DOWN)),
            Target::Broken(found) => return Err(no_file(&path, found, MEND_LINK)),
        }
    }
    Ok(search)
}

/// Leaves out files that came before, also by another name.
fn each_once(files: Vec<SourceFile>, notes: &mut Vec<String>) -> Result<Vec<SourceFile>> {
    let mut once: Vec<SourceFile> = Vec::with_capacity(files.len());
    let mut seen: HashMap<FileId, usize> = HashMap::new();
    let mut same: Vec<[PathBuf; 2]> = Vec::new();
    for file in files {
        match seen.entry(FileId::of(&content(&file))?) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(once.len());
                once.push(file);
            }
            std::collections::hash_map::Entry::Occupied(place) => {
                let first = &once[*place.get()].path;
                if *first != file.path {
                    same.push([file.path, first.clone()]);
                }
            }
        }
    }
    if let Some(first) = same.first() {
        let [again, path] = first.each_ref().map(printable_path);
        let more = match same.len() - 1 {
            0 => String::new(),
            1 => ", and so is 1 more file".to_owned(),
            more => format!(", and so are {more} more files"),
        };
        notes.push(format!("{path} and {again} are one file, which is read once{more}"));
    }
    Ok(once)
}

/// The file that holds what is read: of a Megatron shard the ids, since indexes of different shards
/// may be the same.
fn content(file: &SourceFile) -> PathBuf {
    match file.format {
        Format::MEGATRON => megatron::files(&file.path).1,
        _ => file.path.clone(),
    }
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

/// What to do about an ending that is another one written out.
fn long_ending(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "gzip" => Some("let its name end in .gz; to pass over it, narrow the pattern"),
        "zstd" => Some("let its name end in .zst; to pass over it, narrow the pattern"),
        _ => None,
    }
}

/// The refusal of a file whose format nobody knows.
pub(crate) fn unknown(path: &Path) -> DataError {
    let is_bin = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("bin"));
    let hint = if is_bin {
        "a .bin without an .idx beside it and without llm.c's header may be anything; if it holds ids alone, say \
         so: format = \"nanogpt\""
    } else if let Some(hint) = long_ending(path) {
        hint
    } else if is_packed(path) {
        "of compressed files only .gz and .zst are read: unpack this one, or pack it so; to pass \
         over it, narrow the pattern or name the folder"
    } else {
        "name the format, as in `format = \"txt\"`; to pass over the file, narrow the pattern or \
         name the folder"
    };
    DataError::UnknownFormat { path: path.to_owned(), known: endings(None), hint }
}

/// A path as it is, a shard's prefix as its index, or what a pattern matches.
fn expand(pattern: &PathPattern) -> Result<Vec<PathBuf>> {
    let looked = pattern.looked();
    // A link that leads nowhere was named too.
    if pattern.pattern.is_empty() && looked.symlink_metadata().is_ok() {
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
