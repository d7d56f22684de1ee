//! Runs and comparisons out of their folders.
//!
//! A run folder holds `metrics.jsonl`, and mostly `config.toml`; `samples.json`, a list of
//! `{"prompt", "text"}`, may lie beside it. A comparison's folder holds `comparison.json`, and run
//! folders at `ARM/seed-N`. Of a run that is still writing, what is whole is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_compare::Comparison;
use cuvee_words::{counted, shell_path};
use serde::de::DeserializeOwned;

use crate::error::{ReportError, Result};
use crate::metrics::read_metrics;
use crate::record::Record;
use crate::windows::{DomainWindows, EvalFolder, EvalWindows, read_windows};

use super::input::{EvaluatedText, ReportInput, RunRecord};
use super::runs::SPLIT;

const METRICS: &str = "metrics.jsonl";
const COMPARISON: &str = "comparison.json";
const SAMPLES: &str = "samples.json";

/// Reads run folders, comparisons' folders, or several of them, for one report. Of one comparison
/// its findings are kept; of several, only their runs, since their arms were not tested against one
/// another. What is damaged is left out, and said in a note, as long as a run is left.
///
/// # Errors
/// A path is neither, a folder cannot be read, or every log is damaged.
pub fn read_runs(paths: &[PathBuf]) -> Result<ReportInput> {
    let mut found = Found::default();
    for path in paths {
        found.path(path)?;
    }
    let Found { mut comparisons, runs, mut notes, damaged, .. } = found;
    if let Some(error) = damaged.filter(|_| runs.is_empty()) {
        return Err(error);
    }
    let name = match paths {
        [path] => folder_name(path),
        _ => counted(runs.len(), "run"),
    };
    let title = match comparisons.len() {
        1 => format!("cuvee compare: {name}"),
        _ => format!("cuvee: {name}"),
    };
    if comparisons.len() > 1 {
        notes.push(
            "Several comparisons are shown together: their arms were not tested against one another."
                .to_owned(),
        );
    }
    let single = comparisons.len() == 1;
    let (home, comparison) = comparisons.pop().filter(|_| single).unzip();
    let mut runs = named(runs, home.as_deref());
    if let Some(comparison) = &comparison {
        let place = |arm: &str| comparison.arms.iter().position(|a| a.name == arm);
        runs.sort_by_key(|run| (place(&run.arm).unwrap_or(usize::MAX), run.seed));
    }
    Ok(ReportInput { title, comparison, runs, notes })
}

#[derive(Default)]
struct Found {
    /// Comparisons and their folders.
    comparisons: Vec<(PathBuf, Comparison)>,
    /// Runs without the names of their arms, and the folders that these lie in.
    runs: Vec<(PathBuf, RunRecord)>,
    notes: Vec<String>,
    /// What is wrong with the first log that cannot be read.
    damaged: Option<ReportError>,
    seen: BTreeSet<PathBuf>,
}

impl Found {
    fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            let found = match fs::metadata(path) {
                Ok(_) => "a file".to_owned(),
                Err(error) if error.kind() == ErrorKind::NotFound => "nothing".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(no_run(path, found));
        }
        if path.join(METRICS).is_file() {
            self.run(path, path);
            return Ok(());
        }
        let inner = seed_folders(path)?;
        let findings = path.join(COMPARISON);
        if findings.is_file() {
            match json(&findings, "a comparison's findings") {
                Ok(comparison) => self.comparisons.push((whole(path), comparison)),
                Err(error) if inner.is_empty() => return Err(error),
                Err(error) => self.left_out(path, &findings, &error),
            }
        } else if inner.is_empty() {
            return Err(no_run(path, format!("a folder without {METRICS} and {COMPARISON}")));
        } else {
            self.note(path, path, &format!("has no {COMPARISON} yet."));
        }
        for folder in inner {
            if folder.join(METRICS).is_file() {
                self.run(path, &folder);
            } else {
                self.note(path, &folder, "has not begun.");
            }
        }
        Ok(())
    }

    /// Reads the run in `folder`, which is `asked` or lies below it.
    fn run(&mut self, asked: &Path, folder: &Path) {
        let whole = whole(folder);
        if !self.seen.insert(whole.clone()) {
            return;
        }
        let log = folder.join(METRICS);
        let records = match read_metrics(&log) {
            Ok(records) => records,
            Err(error) => {
                self.left_out(asked, &log, &error);
                self.damaged.get_or_insert(error);
                return;
            }
        };
        if records.is_empty() {
            self.note(asked, folder, "holds no records yet.");
        }
        let config = folder.join("config.toml");
        let config = self.optional(asked, &config, text).unwrap_or_default();
        let samples = |path: &Path| json(path, "a list of prompts and texts");
        let generations = self.optional(asked, &folder.join(SAMPLES), samples).unwrap_or_default();
        let last = records.iter().rev().find_map(|record| match record {
            Record::Eval(eval) if eval.split == SPLIT => Some(eval.step),
            _ => None,
        });
        let evaluated = last.and_then(|step| {
            let windows = EvalFolder::file_in(&folder.join("eval"), step);
            let read = self.optional(asked, &windows, read_windows)?;
            evaluated_text(read)
        });
        let numbered = folder_name(&whole).strip_prefix("seed-").and_then(|n| n.parse().ok());
        let arm_folder = match (numbered, whole.parent()) {
            (Some(_), Some(parent)) => parent.to_path_buf(),
            _ => whole,
        };
        let run = RunRecord {
            seed: seed_of(&config).or(numbered),
            folder: shown(asked, folder),
            records,
            config,
            generations,
            evaluated,
            ..RunRecord::default()
        };
        self.runs.push((arm_folder, run));
    }

    /// What is in a file that a report can do without; `None` too where it is damaged, which is
    /// noted.
    fn optional<T>(
        &mut self,
        asked: &Path,
        path: &Path,
        read: impl Fn(&Path) -> Result<T>,
    ) -> Option<T> {
        if !path.exists() {
            return None;
        }
        read(path).map_err(|error| self.left_out(asked, path, &error)).ok()
    }

    fn left_out(&mut self, asked: &Path, path: &Path, error: &ReportError) {
        self.note(asked, path, &format!("is left out: {}", error.reason()));
    }

    /// Notes something of `path`, which is `asked` or lies below it.
    fn note(&mut self, asked: &Path, path: &Path, said: &str) {
        self.notes.push(format!("{} {said}", shown(asked, path).display()));
    }
}

/// `path` from the folder `asked` on, with that folder's name.
fn shown(asked: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(asked).unwrap_or(Path::new(""));
    Path::new(&folder_name(asked)).components().chain(below.components()).collect()
}

/// Gives each run the name of its arm: that of the arm's folder, with as many of the folders above
/// as tell arms apart. The arms of the comparison in the folder `compared` keep the names that its
/// findings call them by.
fn named(runs: Vec<(PathBuf, RunRecord)>, compared: Option<&Path>) -> Vec<RunRecord> {
    let mut names: BTreeMap<&Path, usize> = BTreeMap::new();
    for (folder, _) in &runs {
        names.insert(folder, 1);
    }
    loop {
        let mut shared: BTreeMap<String, usize> = BTreeMap::new();
        for (folder, parts) in &names {
            *shared.entry(last_parts(folder, *parts)).or_default() += 1;
        }
        let mut longer = false;
        for (folder, parts) in &mut names {
            let fixed = compared.is_some() && folder.parent() == compared;
            let more = *parts < folder.components().count();
            if !fixed && more && shared[&last_parts(folder, *parts)] > 1 {
                (*parts, longer) = (*parts + 1, true);
            }
        }
        if !longer {
            break;
        }
    }
    let arms: Vec<String> =
        runs.iter().map(|(folder, _)| last_parts(folder, names[folder.as_path()])).collect();
    let name = |((_, run), arm): ((PathBuf, RunRecord), String)| {
        let label = match run.seed {
            Some(seed) => format!("{arm}, seed {seed}"),
            None => arm.clone(),
        };
        RunRecord { arm, label, ..run }
    };
    runs.into_iter().zip(arms).map(name).collect()
}

/// The last `parts` folders of a path.
fn last_parts(path: &Path, parts: usize) -> String {
    let all: Vec<_> = path.components().collect();
    let kept: PathBuf = all[all.len().saturating_sub(parts)..].iter().collect();
    kept.to_string_lossy().into_owned()
}

/// What text an evaluation was of.
fn evaluated_text(mut read: EvalWindows) -> Option<EvaluatedText> {
    let domains = read.splits.remove(SPLIT)?.0;
    let windows = |(name, domain): (String, DomainWindows)| (name, (domain.data, domain.windows));
    Some(EvaluatedText {
        context: read.context,
        domains: domains.into_iter().map(windows).collect(),
    })
}

fn no_run(path: &Path, found: String) -> ReportError {
    ReportError::NoRun { path: path.to_owned(), found }
}

/// The seed in a config; none in one that cannot be read.
fn seed_of(config: &str) -> Option<u64> {
    let table: toml::Table = toml::from_str(config).ok()?;
    table.get("seed")?.as_integer()?.try_into().ok()
}

/// `ARM/seed-N` below a folder, arms by name, seeds by number.
fn seed_folders(path: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for arm in folders(path)? {
        for folder in folders(&arm)? {
            let name = folder_name(&folder);
            if let Some(seed) = name.strip_prefix("seed-").and_then(|n| n.parse::<u64>().ok()) {
                out.push((arm.clone(), seed, folder));
            }
        }
    }
    out.sort();
    Ok(out.into_iter().map(|(_, _, folder)| folder).collect())
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| ReportError::io("read", path, source);
    let mut out = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            out.push(path);
        }
    }
    Ok(out)
}

/// The path without links and dots, as far as there is such a folder.
fn whole(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn folder_name(path: &Path) -> String {
    let path = whole(path);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| ReportError::io("read", path, source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T> {
    let bytes = fs::read(path).map_err(|source| ReportError::io("read", path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| ReportError::BadFile {
        path: path.to_owned(),
        expected,
        reason: error.to_string(),
        folder: shell_path(path.parent().unwrap_or(path)),
    })
}
