//! A data set of the Hugging Face Hub as a source: which of its files are meant.
//!
//! In: `files`, `config`, `split` and `format` of a [`SourceSpec`], and the repository's tree. Out:
//! the files, in the order they are read in; none is fetched yet but the README. Each key that is
//! given narrows the choice:
//!
//! 1. `files`: those that match a pattern, in the order of the patterns;
//! 2. `config` and `split`: as the `configs` in the README's header say, where it has them; else by
//!    names: a configuration is a folder, a split is a word (`train`, `valid`, `test`, …) in the
//!    name of a file or folder;
//! 3. nothing: the only configuration (or `default`), split `train`.
//!
//! What is not one choice is refused, with what there is: text for testing must not end up in
//! training by a guess.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::file::{Found, SourceFile};
use super::names::{TRAIN, canonical, folder_of, is_about, split_of};
use super::readers::{self, endings};
use crate::error::{DataError, Result, list};
use crate::format::Format;
use crate::hub::card::{Config, DataFiles, configs};
use crate::hub::{RepoEntry, RepoKind, Snapshot};
use crate::progress::Progress;
use crate::shard::manifest::{FileRecord, HubRecord};
use crate::spec::{OneOrMany, SourceSpec};
use crate::tokens;

/// The file whose header may list configurations.
const README: &str = "README.md";

/// Finds the files of the data set called `name`, of `format` if that is given.
///
/// # Errors
/// Those of [`Snapshot::open`]; the spec chooses no file, or does not choose one of several.
pub(super) fn find(
    spec: &SourceSpec,
    format: Option<Format>,
    name: &str,
    progress: &dyn Progress,
) -> Result<Found> {
    let revision = spec.revision.as_deref();
    let snapshot = Snapshot::open(RepoKind::Dataset, name, revision, "source.hub", progress)?;
    let entries = snapshot.files()?;
    let by_name = spec.files.is_none() || spec.config.is_some() || spec.split.is_some();
    let configs = match by_name && entries.iter().any(|entry| entry.path == README) {
        true => {
            let path = snapshot.fetch(README, progress, &AtomicBool::new(false))?;
            let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
            configs(&String::from_utf8_lossy(&text)).unwrap_or_else(|message| {
                progress
                    .note(&format!("{name}: the header of its README cannot be read: {message}"));
                Vec::new()
            })
        }
        false => Vec::new(),
    };
    let mut found = Found::default();
    for (entry, format) in choose(spec, format, snapshot.files()?, &configs)? {
        found.files.push(SourceFile {
            path: snapshot.place(entry),
            format,
            bytes: entry.size,
            label: entry.path.clone(),
            package: None,
        });
        found.records.push(FileRecord {
            path: entry.path.clone().into(),
            bytes: entry.size,
            modified: String::new(),
            oid: Some(entry.oid.as_str().to_owned()),
        });
    }
    let record = HubRecord { repository: name.to_owned(), commit: snapshot.commit().to_owned() };
    found.repository = Some((record, snapshot));
    Ok(found)
}

/// The files that a spec means, and what they are.
fn choose<'a>(
    spec: &SourceSpec,
    stated: Option<Format>,
    entries: &'a [RepoEntry],
    configs: &[Config],
) -> Result<Vec<(&'a RepoEntry, Format)>> {
    let mut files: Vec<&RepoEntry> = match &spec.files {
        Some(patterns) => {
            let all = entries.iter().collect();
            matching(all, patterns.as_slice(), PatternsOf::Config)?
        }
        None => entries.iter().filter(|entry| is_data(&entry.path)).collect(),
    };
    if let (Some(format), None) = (stated, &spec.files) {
        files.retain(|entry| readers::recognise(Path::new(&entry.path)) == Some(format));
    }
    if files.is_empty() {
        return Err(refusal(
            if spec.files.is_some() { "source.files" } else { "source.hub" },
            "files of text in the repository".to_owned(),
            format!("none among {}", paths(entries.iter())),
            format!(
                "say which with `files = \"data/*.jsonl\"`; known endings are {}",
                endings(None)
            ),
        ));
    }
    if spec.files.is_none() || spec.config.is_some() || spec.split.is_some() {
        let listed = config(spec, configs)?;
        files = match listed
            .and_then(|config| config.data_files.as_ref().map(|listed| (config, listed)))
        {
            Some((config, data_files)) => of_config(spec, config, data_files, files)?,
            None => of_split(spec, of_folder(spec, listed, files)?)?,
        };
    }
    let format = |entry: &'a RepoEntry| {
        let known = stated.or_else(|| readers::recognise(Path::new(&entry.path)));
        known
            .filter(|format| !is_of_several_files(*format))
            .map(|format| (entry, format))
            .ok_or_else(|| {
                refusal(
                    "source.files",
                    format!("files of text (known endings are {})", endings(None)),
                    format!("`{}`", entry.path),
                    "narrow `files`, or name what they are with `format`".to_owned(),
                )
            })
    };
    let files: Vec<(&RepoEntry, Format)> = files.into_iter().map(format).collect::<Result<_>>()?;
    let found = |format: &Format| files.iter().any(|(_, of)| of == format);
    let formats: Vec<Format> = Format::all().filter(found).collect();
    if formats.len() > 1 && spec.files.is_none() {
        let example = |format: &Format| {
            let first = files.iter().find(|(_, of)| of == format);
            first.map(|(entry, _)| entry.path.clone()).unwrap_or_default()
        };
        return Err(refusal(
            "source.format",
            "files of one kind, since others may hold the same text again".to_owned(),
            list(&formats.iter().map(example).collect::<Vec<_>>()),
            "choose with `format = \"parquet\"`, or with `files`".to_owned(),
        ));
    }
    Ok(files)
}

fn refusal(key: &str, expected: String, found: String, hint: String) -> DataError {
    DataError::Spec { key: key.to_owned(), expected, found, hint }
}

fn paths<'a>(entries: impl Iterator<Item = &'a RepoEntry>) -> String {
    list(&entries.map(|entry| entry.path.clone()).collect::<Vec<_>>())
}

/// Whether what is one file to a config is several on disk, which all must be there.
fn is_of_several_files(format: Format) -> bool {
    let layout = tokens::row(format).and_then(|row| row.layout.as_ref());
    layout.is_some_and(|layout| !layout.beside.is_empty())
}

/// Could a file hold documents, by its name? Not those that describe a repository.
fn is_data(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let known =
        readers::recognise(Path::new(path)).is_some_and(|format| !is_of_several_files(format));
    known && !hidden && !name.ends_with(".md") && !is_about(&name)
}

/// Who wrote patterns of files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PatternsOf {
    /// The user, as `files`.
    Config,
    /// The data set's README, some of whose patterns may match nothing.
    Readme,
}

/// Those that match one of the patterns, in the order of the patterns. `*` stays within a folder,
/// `**` does not.
///
/// # Errors
/// A pattern is none; one of the config's matches nothing.
fn matching<'a>(
    entries: Vec<&'a RepoEntry>,
    patterns: &[String],
    of: PatternsOf,
) -> Result<Vec<&'a RepoEntry>> {
    let key = match of {
        PatternsOf::Config => "source.files",
        PatternsOf::Readme => README,
    };
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    let mut chosen: Vec<&RepoEntry> = Vec::new();
    let mut seen = BTreeSet::new();
    for typed in patterns {
        let text = typed.strip_prefix("./").unwrap_or(typed).trim_end_matches('/');
        let pattern = glob::Pattern::new(text).map_err(|error| {
            let hint = "write a literal `[` as `[[]`".to_owned();
            refusal(key, "a pattern of files".to_owned(), format!("\"{typed}\": {error}"), hint)
        })?;
        let is_in = |path: &str| path.strip_prefix(text).is_some_and(|rest| rest.starts_with('/'));
        let fits =
            |entry: &&&RepoEntry| pattern.matches_with(&entry.path, options) || is_in(&entry.path);
        let fitting: Vec<&RepoEntry> = entries.iter().filter(fits).copied().collect();
        if fitting.is_empty() && of == PatternsOf::Config {
            let hint = "`*` stays within a folder, `**` does not".to_owned();
            return Err(refusal(
                key,
                format!("files that match \"{typed}\""),
                paths(entries.into_iter()),
                hint,
            ));
        }
        chosen.extend(fitting.into_iter().filter(|entry| seen.insert(entry.path.as_str())));
    }
    Ok(chosen)
}

/// The configuration of the README that is meant; `None` where it lists none.
fn config<'a>(spec: &SourceSpec, configs: &'a [Config]) -> Result<Option<&'a Config>> {
    let chosen = match (&spec.config, configs) {
        (_, []) => return Ok(None),
        (Some(name), _) => configs.iter().find(|config| config.config_name == *name),
        (None, [only]) => Some(only),
        (None, _) => {
            configs.iter().find(|config| config.default || config.config_name == "default")
        }
    };
    let names: Vec<String> = configs.iter().map(|config| config.config_name.clone()).collect();
    chosen.map(Some).ok_or_else(|| {
        refusal(
            "source.config",
            format!("one of {}", list(&names)),
            spec.config.as_ref().map_or_else(|| "none".to_owned(), |name| format!("\"{name}\"")),
            "choose one, or name files with `files`".to_owned(),
        )
    })
}

/// Those of `files` that a configuration lists for the split that is meant.
fn of_config<'a>(
    spec: &SourceSpec,
    config: &Config,
    data_files: &DataFiles,
    files: Vec<&'a RepoEntry>,
) -> Result<Vec<&'a RepoEntry>> {
    let wanted = spec.split.as_deref().unwrap_or(TRAIN);
    let splits: Vec<(&str, &OneOrMany<String>)> = match data_files {
        DataFiles::Train(patterns) => vec![(TRAIN, patterns)],
        DataFiles::Splits(splits) => {
            splits.iter().map(|split| (split.split.as_str(), &split.path)).collect()
        }
    };
    let listed = splits.iter().find(|(split, _)| *split == wanted);
    let listed =
        listed.or_else(|| splits.iter().find(|(split, _)| canonical(split) == canonical(wanted)));
    let names = || list(&splits.iter().map(|(split, _)| (*split).to_owned()).collect::<Vec<_>>());
    let Some((_, patterns)) = listed else { return Err(no_split(wanted, names())) };
    let folder = config.data_dir.as_ref().map(|folder| format!("{}/", folder.trim_matches('/')));
    let folder = folder.unwrap_or_default();
    let patterns: Vec<String> =
        patterns.as_slice().iter().map(|pattern| format!("{folder}{pattern}")).collect();
    let all = paths(files.iter().copied());
    let chosen = matching(files, &patterns, PatternsOf::Readme)?;
    match chosen.is_empty() {
        false => Ok(chosen),
        true => Err(refusal(
            "source.config",
            format!("files that match {}, as the README lists them", list(&patterns)),
            all,
            "name files with `files`, without `config` and `split`".to_owned(),
        )),
    }
}

fn no_split(wanted: &str, there: String) -> DataError {
    let hint = "choose one with `split`, or name files with `files`".to_owned();
    refusal("source.split", there, format!("no split \"{wanted}\" among them"), hint)
}

/// The files of one folder: the one that `config` names, where given, else the only one there is.
fn of_folder<'a>(
    spec: &SourceSpec,
    listed: Option<&Config>,
    files: Vec<&'a RepoEntry>,
) -> Result<Vec<&'a RepoEntry>> {
    let names: BTreeSet<String> = files.iter().map(|entry| folder_of(&entry.path)).collect();
    let found = list(
        &names
            .iter()
            .map(|name| if name.is_empty() { "." } else { name }.to_owned())
            .collect::<Vec<_>>(),
    );
    // A folder that the README names, or one that the config does.
    let folder = listed.and_then(|config| config.data_dir.as_ref()).or(spec.config.as_ref());
    let Some(folder) = folder.filter(|_| listed.is_none_or(|config| config.data_dir.is_some()))
    else {
        if names.len() > 1 && spec.files.is_none() {
            let hint = "choose one with `config`, or name files with `files`".to_owned();
            return Err(refusal(
                "source.config",
                "one of the repository's folders".to_owned(),
                found,
                hint,
            ));
        }
        return Ok(files);
    };
    let folder = folder.trim_matches('/');
    let is_in = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let chosen: Vec<&RepoEntry> = files
        .into_iter()
        .filter(|entry| is_in(&entry.path) || entry.path.strip_prefix("data/").is_some_and(is_in))
        .collect();
    match chosen.is_empty() {
        false => Ok(chosen),
        true => Err(refusal(
            "source.config",
            format!("one of {found}"),
            format!("\"{folder}\""),
            "choose one, or name files with `files`".to_owned(),
        )),
    }
}

/// The files of one split, by their names: the one that is asked for, else `train`. Where no name
/// tells of a split, all is `train`; where some do, those that do not are `train` unless others say
/// that they are.
fn of_split<'a>(spec: &SourceSpec, files: Vec<&'a RepoEntry>) -> Result<Vec<&'a RepoEntry>> {
    let wanted = match (&spec.split, &spec.files) {
        (Some(split), _) => split.as_str(),
        (None, Some(_)) => return Ok(files),
        (None, None) => TRAIN,
    };
    let wanted = canonical(wanted).unwrap_or(wanted);
    let labels: Vec<Option<String>> = files.iter().map(|entry| split_of(&entry.path)).collect();
    let of = |wanted: Option<&str>| -> Vec<&'a RepoEntry> {
        let pairs = files.iter().zip(&labels).filter(|(_, label)| label.as_deref() == wanted);
        pairs.map(|(entry, _)| *entry).collect()
    };
    let mut chosen = of(Some(wanted));
    if chosen.is_empty() && wanted == TRAIN {
        chosen = of(None);
    }
    if chosen.is_empty() {
        // A name of the repository's own, as the first word of files or a folder.
        let named = |part: &str| {
            part.strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.', '_']))
        };
        chosen = files.iter().filter(|entry| entry.path.split('/').any(named)).copied().collect();
    }
    if chosen.is_empty() {
        let there: BTreeSet<String> = labels.into_iter().flatten().collect();
        let there = match there.is_empty() {
            true => format!(
                "files with a split in their names (there is {})",
                paths(files.iter().copied())
            ),
            false => format!("one of {}", list(&there.into_iter().collect::<Vec<_>>())),
        };
        return Err(no_split(wanted, there));
    }
    Ok(chosen)
}
