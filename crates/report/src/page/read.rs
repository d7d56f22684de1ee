//! Runs and comparisons out of their folders.
//!
//! A run folder holds `metrics.jsonl`, and mostly `config.toml`; `samples.json`, a list of
//! `{"prompt", "text"}`, may lie beside it. A comparison's folder holds `comparison.json`, and run
//! folders at `ARM/seed-N`. Of a run that is still writing, what is whole is read.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_compare::Comparison;
use cuvee_words::{counted, shell_path};
use serde::de::DeserializeOwned;

use crate::error::{ReportError, Result};
use crate::metrics::read_metrics;

use super::input::{ReportInput, RunRecord};

const METRICS: &str = "metrics.jsonl";
const COMPARISON: &str = "comparison.json";
const SAMPLES: &str = "samples.json";

/// Reads run folders, comparisons' folders, or several of them, for one report. Of one comparison
/// its findings are kept; of several, only their runs, since their arms were not tested against one
/// another.
///
/// # Errors
/// A path is neither, or a file in it cannot be read or is damaged.
pub fn read_runs(paths: &[PathBuf]) -> Result<ReportInput> {
    let mut found = Found::default();
    for path in paths {
        found.path(path)?;
    }
    let Found { mut comparisons, mut runs, mut notes, .. } = found;
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
    let comparison = comparisons.pop().filter(|_| single);
    if let Some(comparison) = &comparison {
        let place = |arm: &str| comparison.arms.iter().position(|a| a.name == arm);
        runs.sort_by_key(|run| (place(&run.arm).unwrap_or(usize::MAX), run.seed));
    }
    Ok(ReportInput { title, comparison, runs, notes })
}

#[derive(Default)]
struct Found {
    comparisons: Vec<Comparison>,
    runs: Vec<RunRecord>,
    /// For each run the folder that its arm lies in.
    homes: Vec<PathBuf>,
    notes: Vec<String>,
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
            return self.run(path);
        }
        let inner = seed_folders(path)?;
        let findings = path.join(COMPARISON);
        if findings.is_file() {
            self.comparisons.push(json(&findings, "a comparison's findings")?);
        } else if inner.is_empty() {
            return Err(no_run(path, format!("a folder without {METRICS} and {COMPARISON}")));
        } else {
            self.notes.push(format!("{} has no {COMPARISON} yet.", path.display()));
        }
        for folder in inner {
            if folder.join(METRICS).is_file() {
                self.run(&folder)?;
            } else {
                self.notes.push(format!("{} has not begun.", folder.display()));
            }
        }
        Ok(())
    }

    fn run(&mut self, folder: &Path) -> Result<()> {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        if !self.seen.insert(whole.clone()) {
            return Ok(());
        }
        let records = read_metrics(&folder.join(METRICS))?;
        if records.is_empty() {
            self.notes.push(format!("{} holds no records yet.", folder.display()));
        }
        let config = text(&folder.join("config.toml"))?.unwrap_or_default();
        let samples = folder.join(SAMPLES);
        let generations = match samples.is_file() {
            true => json(&samples, "a list of prompts and texts")?,
            false => Vec::new(),
        };
        let numbered = folder_name(&whole).strip_prefix("seed-").and_then(|n| n.parse().ok());
        let up = |path: &Path| path.parent().unwrap_or(path).to_path_buf();
        let arm_folder = if numbered.is_some() { up(&whole) } else { whole };
        let (mut arm, home) = (folder_name(&arm_folder), up(&arm_folder));
        // Arms of two comparisons may have one name.
        if self.runs.iter().zip(&self.homes).any(|(run, other)| run.arm == arm && *other != home) {
            arm = format!("{}/{arm}", folder_name(&home));
        }
        let seed = seed_of(&config).or(numbered);
        let label = match seed {
            Some(seed) => format!("{arm}, seed {seed}"),
            None => arm.clone(),
        };
        let folder = folder.to_path_buf();
        self.runs.push(RunRecord { arm, seed, label, folder, records, config, generations });
        self.homes.push(home);
        Ok(())
    }
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

fn folder_name(path: &Path) -> String {
    let whole = path.canonicalize();
    let path = whole.as_deref().unwrap_or(path);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A file's text; `None` where there is none.
fn text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::io("read", path, source)),
    }
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
