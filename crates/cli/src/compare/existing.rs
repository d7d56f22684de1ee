//! Runs that exist already: which arms they make, and whether they can be compared.

use cuvee_words::printable_path;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::registration::Registration;
use super::run_data::{RunData, incomparable, read_run};
use crate::config::{Change, ConfigError, changes};
use crate::sweep::{self, Status, by_weights, matters};

/// Runs that differ in their seeds alone.
#[derive(Debug)]
pub struct ArmRuns {
    /// What it is called: the folder that its runs are in, or the folder of the first.
    pub name: String,
    /// Its runs, by seed.
    pub runs: BTreeMap<u64, RunData>,
    /// The keys that differ from the baseline's config.
    pub changes: Vec<Change>,
}

/// Reads the runs in `folders` and sorts them into arms, those of the baseline first: the arm
/// called `baseline`, or that of the first run. A folder of a comparison stands for its runs that
/// have a result; `notes` takes a sentence about each other one.
///
/// # Errors
/// A folder without a finished run, runs that cannot be compared and why, one seed twice in an arm,
/// or no such baseline.
pub fn arms_of(
    folders: &[PathBuf],
    baseline: Option<&str>,
    evaluations: usize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<ArmRuns>> {
    let mut runs = Vec::new();
    for folder in folders {
        for run in runs_in(folder, notes)? {
            runs.push(read_run(&run, evaluations)?);
        }
    }
    let Some(first) = runs.first().cloned() else {
        return Err(ConfigError("expected run folders to compare, found none\nhint: cuvee compare CONFIG.toml, or cuvee compare RUN RUN …".to_owned()).into());
    };
    let mut arms: Vec<ArmRuns> = Vec::new();
    for run in runs {
        if let Some(why) = incomparable(&first, &run) {
            return Err(ConfigError(format!(
                "{} and {} cannot be compared; {why}\nhint: compare runs of one config that differ in `mixture`, `model`, the learning rate and the like",
                printable_path(&first.folder),
                printable_path(&run.folder)
            ))
            .into());
        }
        let found = arms.iter().position(|arm| {
            let one = arm.runs.values().next();
            one.is_some_and(|one| trained_alike(one, &run))
        });
        let index = found.unwrap_or_else(|| {
            let name = free_name(&arms, &run.folder);
            arms.push(ArmRuns { name, runs: BTreeMap::new(), changes: Vec::new() });
            arms.len() - 1
        });
        let (arm, seed) = (&mut arms[index], run.config.seed);
        if let Some(other) = arm.runs.insert(seed, run.clone()) {
            return Err(ConfigError(format!(
                "{} and {} are runs of one arm and one seed, {seed}\nhint: name one of them",
                printable_path(&other.folder),
                printable_path(&run.folder)
            ))
            .into());
        }
    }
    if let Some(name) = baseline {
        let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
        let Some(place) = names.iter().position(|known| *known == name) else {
            return Err(ConfigError(format!(
                "baseline: expected one of the arms, found `{name}`\nhint: the arms are {}",
                names.join(", ")
            ))
            .into());
        };
        let arm = arms.remove(place);
        arms.insert(0, arm);
    }
    if let Some((first, others)) = arms.split_first_mut()
        && let Some(base) = first.runs.values().next()
    {
        for arm in others {
            if let Some(run) = arm.runs.values().next() {
                arm.changes = differences(base, run)?
                    .into_iter()
                    .filter(|change| tells_arms(&change.key))
                    .collect();
            }
        }
    }
    Ok(arms)
}

/// The folders of all runs, in the order of arms and seeds.
pub fn folders(arms: &[ArmRuns]) -> Vec<PathBuf> {
    arms.iter().flat_map(|arm| arm.runs.values()).map(|run| run.folder.clone()).collect()
}

/// The run folders that `folder` stands for: itself, or those of a comparison in it, the
/// baseline's first.
fn runs_in(folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<Vec<PathBuf>> {
    let Some(Registration { declared, .. }) = Registration::read(folder)? else {
        return Ok(vec![folder.to_owned()]);
    };
    let list = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let read = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", printable_path(folder)))?;
        let mut found: Vec<PathBuf> = read
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir())
            .collect();
        found.sort();
        Ok(found)
    };
    let mut names: Vec<&str> = declared.arms.iter().map(|arm| arm.name.as_str()).collect();
    names.sort_by_key(|name| *name != declared.baseline);
    let mut runs = Vec::new();
    for arm in names.into_iter().map(|name| folder.join(name)).filter(|arm| arm.is_dir()) {
        for run in list(&arm)?.into_iter().filter(|run| run.join("config.toml").exists()) {
            match sweep::status(&run, declared.steps)? {
                Status::Finished => runs.push(run),
                Status::Stopped(_) | Status::Unfinished(_) => {
                    notes.push(format!("{} has no result.", printable_path(&run)));
                }
            }
        }
    }
    Ok(runs)
}

/// Whether a key tells arms apart: not the seed, nor what changes nothing.
fn tells_arms(key: &str) -> bool {
    key != "seed" && !key.starts_with("eval.") && matters(key)
}

/// Whether two runs differ in their seeds alone.
fn trained_alike(a: &RunData, b: &RunData) -> bool {
    // What draws in another order is an arm of its own, but the number of that order is a seed's.
    let tells = |change: &Change| match change.key.as_str() {
        "order_seed" => change.old.is_none() || change.new.is_none(),
        key => tells_arms(key),
    };
    differences(a, b).is_ok_and(|changes| !changes.iter().any(tells))
}

/// What differs between two runs' configs and the weights that they start from.
fn differences(a: &RunData, b: &RunData) -> Result<Vec<Change>, ConfigError> {
    let (old, new) = (a.init_sha256.as_deref(), b.init_sha256.as_deref());
    Ok(by_weights(changes(&a.config, &b.config)?, old, new))
}

/// The arm of the run in `folder`, by its path: `uniform` for `runs/uniform/seed-3`.
pub fn arm_name(folder: &Path) -> String {
    let absolute = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name_of = |path: &Path| {
        path.file_name().map_or_else(|| "run".to_owned(), |n| n.to_string_lossy().into_owned())
    };
    let own = name_of(&absolute);
    match absolute.parent() {
        Some(parent) if own.starts_with("seed-") => name_of(parent),
        _ => own,
    }
}

/// What to call a new arm.
fn free_name(arms: &[ArmRuns], folder: &Path) -> String {
    let base = arm_name(folder);
    let taken = |name: &str| arms.iter().any(|arm| arm.name == name);
    let numbered = |n: u32| if n == 1 { base.clone() } else { format!("{base} ({n})") };
    (1..).map(numbered).find(|name| !taken(name)).unwrap_or(base.clone())
}
