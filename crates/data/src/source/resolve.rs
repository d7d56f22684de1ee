//! From a [`SourceSpec`] to a [`Source`]: its files found, its choices made and checked.
//!
//! In: a source as the config has it, and the folder that relative paths start from. Out: what the
//! other stages need: the files and their order, what readers are told, what is done to each text,
//! and what tells this source from any other. Files on the Hub are found by their names alone.

use std::path::Path;

use cuvee_words::printable_path;
use serde_json::{Value, json};

use super::file::{Found, SourceFile};
use super::reading::{Key, ReadOptions};
use super::{cargo, files, hub, readers};
use crate::document::cleaning::Cleaning;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::hub::Snapshot;
use crate::progress::Progress;
use crate::shard::manifest::{FileRecord, HubRecord};
use crate::spec::limit::Limit;
use crate::spec::{OnInvalid, SourceSpec};
use crate::tokens;

/// Where plain text is cut unless the config says otherwise.
const MAX_DOCUMENT: usize = 16 << 10;
/// The least that a config may ask for.
const MIN_MAX_DOCUMENT: usize = 64;

/// A source with its files found and its choices made.
#[derive(Debug)]
pub(crate) struct Source {
    /// As typed.
    pub(crate) spec: SourceSpec,
    pub(crate) files: Vec<SourceFile>,
    /// What the manifest says of the files.
    pub(crate) records: Vec<FileRecord>,
    /// What people should know about files that are left out.
    pub(crate) notes: Vec<String>,
    /// What readers are told.
    pub(crate) options: ReadOptions,
    pub(crate) deduplicate: bool,
    /// What is done to each text before anything else looks at it.
    pub(crate) cleaning: Cleaning,
    /// The repository and commit (Hub sources).
    pub(crate) hub: Option<HubRecord>,
    /// Where the files come from (Hub sources).
    pub(super) snapshot: Option<Snapshot>,
    /// The spec's licence, or what the packages say (Cargo sources).
    pub(crate) license: Option<String>,
    /// What makes it this source, wherever the config lies: of the spec, all that can change a
    /// token, its paths resolved.
    pub(crate) identity: Value,
}

impl Source {
    /// Checks a spec and finds its files.
    ///
    /// # Errors
    /// The spec contradicts itself, nothing matches, or a file's type is unknown.
    pub(crate) fn resolve(
        spec: &SourceSpec,
        domain_by: Option<&str>,
        base: &Path,
        progress: &dyn Progress,
    ) -> Result<Source> {
        check_origin(spec)?;
        only_with_hub(spec)?;
        let format = readers::stated(spec)?;
        let max_document = max_document(spec)?;
        if let Some(corrupt) = &spec.corrupt {
            corrupt.check()?;
        }
        let cleaning = Cleaning::new(spec)?;
        let (found, identity) = find(spec, format, base, progress)?;
        check_token_type(spec, &found.files)?;
        check_cleaning(&cleaning, &found.files)?;
        let default_unit = spec.cargo.map(|_| "crate");
        let unit = spec.split_by.as_deref().or(default_unit);
        let options = ReadOptions {
            text: spec.text.clone(),
            on_invalid: spec.on_invalid.unwrap_or(match spec.cargo {
                Some(_) => OnInvalid::Skip,
                None => OnInvalid::Error,
            }),
            max_document,
            unit: key(spec, &found.files, "source.split_by", unit)?,
            domain: key(spec, &found.files, "domain_by", domain_by)?,
            token_type: spec.token_type,
        };
        check_limit(spec, &found.files)?;
        let (hub, snapshot) = found.repository.unzip();
        Ok(Source {
            spec: spec.clone(),
            files: found.files,
            records: found.records,
            notes: found.notes,
            options,
            deduplicate: spec.deduplicate.unwrap_or(spec.cargo.is_some()),
            cleaning,
            hub,
            snapshot,
            license: spec.license.clone().or(found.license),
            identity,
        })
    }

    /// Bytes of all files on disk.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The files that a spec means, and what tells the source from any other: the spec but for what
/// cannot change a token (the licence) and for its paths, which are resolved.
fn find(
    spec: &SourceSpec,
    format: Option<Format>,
    base: &Path,
    progress: &dyn Progress,
) -> Result<(Found, Value)> {
    let rest = SourceSpec { path: None, license: None, ..spec.clone() };
    if let Some(kind) = spec.cargo {
        let (found, root) = cargo::find(kind, base)?;
        // The lock file beside the workspace decides which packages there are.
        let root = root.canonicalize().unwrap_or(root);
        return Ok((found, json!({ "spec": rest, "workspace": root.to_string_lossy() })));
    }
    if let Some(name) = &spec.hub {
        return Ok((hub::find(spec, format, name, progress)?, json!({ "spec": rest })));
    }
    let paths = spec.path.as_ref().map_or(&[][..], |paths| paths.as_slice());
    let patterns = path_patterns(paths, base)?;
    let identities: Vec<_> = patterns.iter().map(files::PathPattern::identity).collect();
    let (files, notes) = files::find(&patterns, format)?;
    let records = files.iter().map(files::record).collect::<Result<_>>()?;
    let found = Found { files, records, notes, ..Found::default() };
    Ok((found, json!({ "spec": rest, "paths": identities })))
}

/// Checks that there is one origin.
fn check_origin(spec: &SourceSpec) -> Result<()> {
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
    Ok(())
}

/// The longest document of plain text. The sources of packages are not cut.
fn max_document(spec: &SourceSpec) -> Result<usize> {
    let max_document = spec.max_document.unwrap_or(MAX_DOCUMENT);
    if max_document < MIN_MAX_DOCUMENT {
        return Err(DataError::Spec {
            key: "source.max_document".to_owned(),
            expected: format!("at least {MIN_MAX_DOCUMENT} bytes"),
            found: max_document.to_string(),
            hint: "it is the length at which plain-text files are cut into documents".to_owned(),
        });
    }
    Ok(if spec.cargo.is_some() { usize::MAX } else { max_document })
}

/// The first file that comes tokenized.
fn tokenized(files: &[SourceFile]) -> Option<&SourceFile> {
    files.iter().find(|file| tokens::row(file.format).is_some())
}

/// Checks that `token_type` is given for tokenized files only.
fn check_token_type(spec: &SourceSpec, files: &[SourceFile]) -> Result<()> {
    match (spec.token_type, tokenized(files)) {
        (Some(kind), None) => Err(DataError::Spec {
            key: "source.token_type".to_owned(),
            expected: "nothing: no file of this source is tokenized".to_owned(),
            found: format!("\"{}\"", kind.name()),
            hint: "leave it out, or name the files' `format`".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Checks that what comes tokenized is not to be changed as text.
fn check_cleaning(cleaning: &Cleaning, files: &[SourceFile]) -> Result<()> {
    match (cleaning.changes_text(), tokenized(files)) {
        (Some(key), Some(file)) => Err(DataError::Spec {
            key: format!("source.{key}"),
            expected: format!("text to change: {} is tokenized", printable_path(&file.path)),
            found: "tokens".to_owned(),
            hint: "leave it out, or give the untokenized text".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Checks that bytes of text are counted of text only.
fn check_limit(spec: &SourceSpec, files: &[SourceFile]) -> Result<()> {
    match (spec.limit, tokenized(files)) {
        (Some(Limit::Bytes(_)), Some(file)) => Err(DataError::Spec {
            key: "source.limit".to_owned(),
            expected: format!(
                "a number of documents: {} holds no text to count",
                printable_path(&file.path)
            ),
            found: "a size".to_owned(),
            hint: "write `limit = \"100k docs\"`".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// How `split_by` or `domain_by`, called `name`, is answered.
///
/// # Errors
/// It names a column, and a file has none.
fn key(
    spec: &SourceSpec,
    files: &[SourceFile],
    name: &str,
    value: Option<&str>,
) -> Result<Option<Key>> {
    let Some(value) = value else { return Ok(None) };
    let cargo = spec.cargo.is_some();
    let key = match value {
        "file" => Key::File,
        "crate" if cargo => Key::Crate,
        "license" if cargo => Key::License,
        column => Key::Column(column.to_owned()),
    };
    let without = files.iter().find(|file| !readers::has_columns(file.format));
    if let (Key::Column(column), Some(file)) = (&key, without) {
        let choice = if cargo { "\"crate\", \"license\" or \"file\"" } else { "\"file\"" };
        return Err(DataError::Spec {
            key: name.to_owned(),
            expected: format!("{choice}: {} has no columns", printable_path(&file.path)),
            found: format!("\"{column}\""),
            hint: "columns exist in jsonl and parquet files".to_owned(),
        });
    }
    Ok(Some(key))
}

/// The paths of a spec, taken apart.
///
/// # Errors
/// There is none, or one is empty: it would name the config's own folder.
fn path_patterns(paths: &[String], base: &Path) -> Result<Vec<files::PathPattern>> {
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
    Ok(paths.iter().map(|path| files::PathPattern::new(path, &base)).collect())
}

/// Checks that no key is there which would do nothing.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_empty_base_is_the_current_folder() {
        let path = ["Cargo.toml".to_owned()];
        let here = std::env::current_dir().and_then(|folder| folder.canonicalize()).unwrap();
        for base in ["", ".", "../data/."] {
            let patterns = path_patterns(&path, Path::new(base)).unwrap();
            let expected = here.join("Cargo.toml").to_string_lossy().into_owned();
            assert_eq!(patterns[0].identity(), [expected, String::new()], "{base}");
        }
    }
}
