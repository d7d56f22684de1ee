//! `compare.json`: what was going to be compared and how, written before the first run.
//!
//! A verdict holds for what was declared before its data were seen. The file carries the hash of
//! what it declares, so that a later change of the margin, the arms or the number of seeds does not
//! pass for a plan.

use cuvee_words::printable_path;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use cuvee_fs::{FileLock, LockKind, wait_for_lock};
use cuvee_train::{DataFingerprint, DeviceSpec, EngineKind, Precision};
use serde::{Deserialize, Serialize};

use super::design::Design;
use crate::config::{Config, ConfigError, changes};
use crate::session::Interrupted;
use crate::sweep::{Arm, ArmPlan, arithmetic_of, by_weights, engine_name, matters};

/// Its name in the folder of a comparison.
pub const FILE: &str = "compare.json";

/// The version that is written and read.
const VERSION: u32 = 1;

/// `compare.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// What was declared before the first run.
    pub declared: Declared,
    /// sha256 of `declared`, as compact JSON.
    pub hash: String,
    /// Seeds that were added after results had been seen.
    #[serde(default)]
    pub added_seeds: Vec<u64>,
}

/// What was declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// Layout of the file.
    pub version: u32,
    /// The program that wrote it.
    pub cuvee: String,
    /// The arm that the others are compared with.
    pub baseline: String,
    /// The seeds' numbers.
    pub seeds: Vec<u64>,
    /// The split whose loss is compared: Σ π_i L_i.
    pub split: String,
    /// The last evaluations of a run that are averaged.
    pub evaluations: usize,
    /// δ.
    pub margin: f64,
    /// α.
    pub alpha: f64,
    /// Numbers of seeds after which to look.
    pub looks: Vec<usize>,
    /// Whether runs that cannot become better are stopped.
    pub futility: bool,
    /// Optimizer steps of every run.
    pub steps: u64,
    /// Where they are computed.
    pub device: String,
    /// Engine of every run.
    pub engine: String,
    /// Number type of its arithmetic.
    pub precision: String,
    /// Threads of a run.
    pub threads: usize,
    /// The arms.
    pub arms: Vec<DeclaredArm>,
    /// The data, one entry a domain.
    pub data: Vec<DataFingerprint>,
}

/// An arm as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeclaredArm {
    /// Its name.
    pub name: String,
    /// What it sets, `KEY=VALUE` each.
    pub set: Vec<String>,
    /// Its whole config, TOML.
    pub config: String,
    /// sha256 of the weights that its runs start from, where they start from a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
}

impl Declared {
    /// What `design` declares; its configs name engine, precision and threads.
    ///
    /// # Errors
    /// A config that cannot be written.
    pub fn of(
        design: &Design,
        plans: &[ArmPlan],
        data: Vec<DataFingerprint>,
        device: DeviceSpec,
    ) -> anyhow::Result<Self> {
        let (spec, baseline) = (&design.spec, &design.arms[design.baseline]);
        let arm = |(arm, plan): (&Arm, &ArmPlan)| -> anyhow::Result<DeclaredArm> {
            let (name, set) = (arm.name.clone(), arm.set.clone());
            let init_sha256 = plan.init_sha256.clone();
            Ok(DeclaredArm { name, set, config: arm.config.to_toml()?, init_sha256 })
        };
        let arms = design.arms.iter().zip(plans).map(arm);
        let train = &baseline.config.train;
        Ok(Self {
            version: VERSION,
            cuvee: env!("CARGO_PKG_VERSION").to_owned(),
            baseline: baseline.name.clone(),
            seeds: design.seeds.clone(),
            split: cuvee_data::Split::Valid.to_string(),
            evaluations: spec.evaluations,
            margin: spec.margin,
            alpha: spec.alpha,
            looks: spec.looks.clone(),
            futility: spec.futility,
            steps: plans[design.baseline].steps,
            device: device.to_string(),
            engine: engine_name(train.engine).to_owned(),
            precision: train.precision.to_string(),
            threads: train.thread_count(),
            arms: arms.collect::<anyhow::Result<_>>()?,
            data,
        })
    }

    /// Engine and number type, where this program has them.
    pub fn arithmetic(&self) -> Option<(EngineKind, Precision)> {
        arithmetic_of(&self.engine, &self.precision)
    }

    fn hash(&self) -> anyhow::Result<String> {
        hash_of(&serde_json::to_value(self)?)
    }
}

/// sha256 of what a file declares as it stands there, also what only a later version knows.
fn hash_of(declared: &serde_json::Value) -> anyhow::Result<String> {
    Ok(cuvee_data::sha256_hex(&serde_json::to_vec(declared)?))
}

impl Registration {
    /// Reads the one in `folder`, if there is one.
    ///
    /// # Errors
    /// A file that is none, is of a later version, or was edited.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", printable_path(&path)))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| damaged(&path, &e.to_string()))?;
        let version = value["declared"]["version"].as_u64();
        if version != Some(u64::from(VERSION)) {
            return Err(damaged(
                &path,
                &format!(
                    "expected version {VERSION}, found {}",
                    version.map_or("none".to_owned(), |v| v.to_string())
                ),
            ));
        }
        let hash = hash_of(&value["declared"])?;
        let read: Self =
            serde_json::from_value(value).map_err(|e| damaged(&path, &e.to_string()))?;
        if hash != read.hash {
            return Err(ConfigError(format!(
                "{} was changed after it was written: it declares what is compared before the first run (expected sha256 {:.12}…, found {hash:.12}…)\nhint: put it back as it was, or begin a new comparison with another --out",
                printable_path(&path),
                read.hash
            ))
            .into());
        }
        Ok(Some(read))
    }

    /// What holds for a run of the comparison in `folder` that `now` declares: what was declared
    /// before, with the seeds that are new; or `now`, written, where nothing was.
    ///
    /// # Errors
    /// What was declared differs from `now` in more than seeds that come on top.
    pub fn open(folder: &Path, now: Declared, interrupted: &AtomicBool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "cannot make the folder {}\nhint: give --out a folder that can be written",
                printable_path(folder)
            )
        })?;
        // Workers that begin together: the first writes, the others read.
        let _lock = lock(folder, interrupted)?;
        let (mut registration, changed) = match Self::read(folder)? {
            None => {
                refuse_runs(folder, &now)?;
                let hash = now.hash()?;
                (Self { declared: now, hash, added_seeds: Vec::new() }, true)
            }
            Some(before) => {
                let path = folder.join(FILE);
                before.check(&now, &path)?;
                let known: Vec<u64> = before.seeds();
                let added: Vec<u64> =
                    now.seeds.iter().copied().filter(|seed| !known.contains(seed)).collect();
                let changed = !added.is_empty();
                let added_seeds = before.added_seeds.iter().copied().chain(added).collect();
                (Self { added_seeds, ..before }, changed)
            }
        };
        if changed {
            registration.write(folder)?;
        }
        registration.added_seeds.retain(|seed| !registration.declared.seeds.contains(seed));
        Ok(registration)
    }

    /// All seeds, those declared first.
    pub fn seeds(&self) -> Vec<u64> {
        self.declared.seeds.iter().chain(&self.added_seeds).copied().collect()
    }

    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        cuvee_fs::write_file(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", printable_path(&path)))
    }

    fn check(&self, now: &Declared, path: &Path) -> anyhow::Result<()> {
        let before = &self.declared;
        let mut changed = Vec::new();
        let mut compare = |key: &str, old: String, new: String| {
            if old != new {
                changed.push(format!("{key}: {old} → {new}"));
            }
        };
        compare("baseline", before.baseline.clone(), now.baseline.clone());
        compare("evaluations", before.evaluations.to_string(), now.evaluations.to_string());
        compare("margin", before.margin.to_string(), now.margin.to_string());
        compare("alpha", before.alpha.to_string(), now.alpha.to_string());
        compare("looks", format!("{:?}", before.looks), format!("{:?}", now.looks));
        compare("futility", before.futility.to_string(), now.futility.to_string());
        compare("device", before.device.clone(), now.device.clone());
        compare("train.engine", before.engine.clone(), now.engine.clone());
        compare("train.precision", before.precision.clone(), now.precision.clone());
        let names = |arms: &[DeclaredArm]| {
            arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        compare("arms", names(&before.arms), names(&now.arms));
        if changed.is_empty() {
            for (old, new) in before.arms.iter().zip(&now.arms) {
                let parsed = |arm: &DeclaredArm| Config::from_toml(&arm.config);
                let (was, is) = (old.init_sha256.as_deref(), new.init_sha256.as_deref());
                let keys = by_weights(changes(&parsed(old)?, &parsed(new)?)?, was, is);
                let keys = keys.iter().filter(|change| matters(&change.key));
                changed.extend(keys.map(|change| format!("arm `{}`: {change}", old.name)));
            }
            if before.data != now.data {
                changed.push("the data: other shards than those declared".to_owned());
            }
        }
        let seeds = self.seeds();
        if let Some(missing) = before.seeds.iter().find(|seed| !now.seeds.contains(seed)) {
            changed
                .push(format!("seeds: {missing} was declared and is missing from {:?}", now.seeds));
        } else if !before.looks.is_empty() && now.seeds.iter().any(|seed| !seeds.contains(seed)) {
            changed.push(format!("seeds: {seeds:?} → {:?}, though looks were declared", now.seeds));
        }
        if changed.is_empty() {
            return Ok(());
        }
        Err(ConfigError(format!(
            "{} declares another comparison; changed since:\n  {}\nhint: begin the new one with another --out; only seeds may be added to this one",
            printable_path(path),
            changed.join("\n  ")
        ))
        .into())
    }
}

/// Waits until no other process writes what lies in the folder of a comparison itself.
///
/// # Errors
/// [`Interrupted`], or a lock that cannot be had.
pub fn lock(folder: &Path, interrupted: &AtomicBool) -> anyhow::Result<FileLock> {
    let waiting = || match interrupted.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let lock = wait_for_lock(&folder.join(".lock"), LockKind::Exclusive, waiting)?;
    lock.ok_or_else(|| Interrupted.into())
}

/// Refuses to declare what has been made already.
fn refuse_runs(folder: &Path, now: &Declared) -> anyhow::Result<()> {
    let begun = now.arms.iter().map(|arm| folder.join(&arm.name)).find(|arm| arm.exists());
    let Some(begun) = begun else { return Ok(()) };
    Err(ConfigError(format!(
        "{} holds runs, but no {FILE} that declares what they are compared for\nhint: put it back, compare the runs as they are (cuvee compare RUN RUN …), or begin anew with another --out",
        printable_path(&begun)
    ))
    .into())
}

fn damaged(path: &PathBuf, what: &str) -> anyhow::Error {
    ConfigError(format!(
        "{} cannot be read: {what}\nhint: put it back as it was, or begin a new comparison with another --out",
        printable_path(path)
    ))
    .into()
}
