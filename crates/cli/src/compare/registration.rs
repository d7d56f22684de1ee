//! `compare.json`: what was going to be compared and how, written before the first run.
//!
//! A verdict holds for what was declared before its data were seen. The file carries the hash of
//! what it declares, so that a later change of the margin, the arms or the number of seeds does not
//! pass for a plan.

use cuvee_words::printable_path;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use cuvee_train::{DataFingerprint, DeviceSpec, EngineKind, Precision};
use serde::{Deserialize, Serialize};

use super::design::Design;
use crate::config::{Config, ConfigError, changes};
use crate::declaration::{Declaring, Differences, hash_of};
use crate::json;
use crate::sweep::{Arm, ArmPlan, arithmetic_of, by_weights, engine_name, matters};

/// Its name in the folder of a comparison.
pub const FILE: &str = "compare.json";

/// The version that is written and read.
const VERSION: u32 = 1;

const DECLARING: Declaring = Declaring { noun: "comparison", done: "compared", version: VERSION };

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

impl Registration {
    /// Reads the one in `folder`, if there is one.
    ///
    /// # Errors
    /// A file that is none, is of a later version, or was edited.
    pub fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        DECLARING.read(&folder.join(FILE))
    }

    /// What holds for a run of the comparison in `folder` that `now` declares: what was declared
    /// before, with the seeds that are new; or `now`, written, where nothing was.
    ///
    /// # Errors
    /// What was declared differs from `now` in more than seeds that come on top.
    pub fn open(folder: &Path, now: Declared, interrupted: &AtomicBool) -> anyhow::Result<Self> {
        // Workers that begin together: the first writes, the others read.
        let _lock = DECLARING.lock(folder, interrupted)?;
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
        cuvee_fs::write_file(&path, json::text(self)?.as_bytes())
            .with_context(|| format!("cannot write {}", printable_path(&path)))
    }

    fn check(&self, now: &Declared, path: &Path) -> anyhow::Result<()> {
        let before = &self.declared;
        let mut differences = Differences::default();
        differences.value("baseline", &before.baseline, &now.baseline);
        differences.value("evaluations", before.evaluations, now.evaluations);
        differences.value("margin", before.margin, now.margin);
        differences.value("alpha", before.alpha, now.alpha);
        differences.value("looks", format!("{:?}", before.looks), format!("{:?}", now.looks));
        differences.value("futility", before.futility, now.futility);
        differences.value("device", &before.device, &now.device);
        differences.value("train.engine", &before.engine, &now.engine);
        differences.value("train.precision", &before.precision, &now.precision);
        let names = |arms: &[DeclaredArm]| {
            arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        differences.value("arms", names(&before.arms), names(&now.arms));
        if differences.is_empty() {
            for (old, new) in before.arms.iter().zip(&now.arms) {
                let parsed = |arm: &DeclaredArm| Config::from_toml(&arm.config);
                let (was, is) = (old.init_sha256.as_deref(), new.init_sha256.as_deref());
                let keys = by_weights(changes(&parsed(old)?, &parsed(new)?)?, was, is);
                let keys = keys.iter().filter(|change| matters(&change.key));
                differences.changes(&format!("arm `{}`: ", old.name), keys);
            }
            if !DataFingerprint::all_agree(&before.data, &now.data) {
                differences.say("the data: other shards than those declared".to_owned());
            }
        }
        let seeds = self.seeds();
        if let Some(missing) = before.seeds.iter().find(|seed| !now.seeds.contains(seed)) {
            differences
                .say(format!("seeds: {missing} was declared and is missing from {:?}", now.seeds));
        } else if !before.looks.is_empty() && now.seeds.iter().any(|seed| !seeds.contains(seed)) {
            differences
                .say(format!("seeds: {seeds:?} → {:?}, though looks were declared", now.seeds));
        }
        DECLARING.refuse(&differences, path, "; only seeds may be added to this one")
    }
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
