//! What is compared: the arms' configs, made from the config and what each arm sets, and what they
//! must have in common.

use std::path::{Path, PathBuf};

use cuvee_compare::{Role, earliest_futility_step};
use cuvee_data::Corpus;
use cuvee_train::{DeviceSpec, EngineKind, Precision};
use cuvee_words::printable_path;

use crate::compare_spec::{CompareSpec, REPLICA};
use crate::config::{Config, ConfigError, changes};
use crate::model_source::fetched_model;
use crate::session::Session;
use crate::sweep::{self, Arm, ArmPlan, Run, Sweep};

/// Added to a seed for the draws of the baseline's repetition.
const REPLICA_ORDER: u64 = 1_000_000;

/// What messages about its runs call it.
pub const NOUN: &str = "comparison";

/// The whole comparison, before any data is read.
#[derive(Debug, Clone)]
pub struct Design {
    /// How the verdict is reached.
    pub spec: CompareSpec,
    /// The arms in the order of the config, then the baseline's repetition.
    pub arms: Vec<Arm>,
    /// Which of them is the baseline.
    pub baseline: usize,
    /// The seeds' numbers.
    pub seeds: Vec<u64>,
}

impl Design {
    /// Reads the config at `path` and makes the arms of it.
    ///
    /// # Errors
    /// A config without `[compare]`, a bad value there, an arm whose keys are not the config's, or
    /// one that differs in what all must have in common.
    pub fn load(path: &Path, session: &Session) -> anyhow::Result<Self> {
        let common = &session.common;
        let base = Config::load(path, &common.set, common.seed)?;
        let Some(spec) = base.compare.clone() else {
            return Err(ConfigError(format!(
                "{}: expected a section [compare] with the arms to compare, found none\nhint: [compare]\n      arms = [{{ name = \"uniform\", set = {{ mixture.sampling = \"uniform\" }} }}, {{ name = \"va\", set = {{ mixture.sampling = \"va\" }} }}]",
                printable_path(path)
            ))
            .into());
        };
        if base.order_seed.is_some() {
            return Err(ConfigError(format!(
                "{}: expected no order_seed, since each of compare.seeds gives its own order, found one\nhint: remove order_seed",
                printable_path(path)
            ))
            .into());
        }
        let named = |what: String| ConfigError(format!("{}: {what}", printable_path(path)));
        spec.check().map_err(named)?;
        let seeds = spec.seed_list(base.seed).map_err(named)?;
        let mut arms = Vec::new();
        for arm in &spec.arms {
            let set = arm.overrides();
            let all: Vec<String> = common.set.iter().chain(&set).cloned().collect();
            let load = Config::load(path, &all, common.seed);
            let mut config = load.map_err(|e| ConfigError(format!("arm `{}`: {e}", arm.name)))?;
            config.compare = None;
            if let Some(init) = &config.model.init
                && let Some(folder) = fetched_model(&config.base.join(init), init, session)?
            {
                config.model.init = Some(folder.display().to_string());
            }
            arms.push(Arm { name: arm.name.clone(), set, config, order_offset: None });
        }
        let baseline = arms.iter().position(|arm| arm.name == spec.baseline_name()).unwrap_or(0);
        let first = arms[baseline].clone();
        for arm in &arms {
            check_common(&first, arm)?;
        }
        let name = format!("{}{REPLICA}", first.name);
        arms.push(Arm { name, order_offset: Some(REPLICA_ORDER), ..first });
        Ok(Self { spec, arms, baseline, seeds })
    }

    /// What an arm is there for: the last is the baseline's repetition.
    pub fn role(&self, arm: usize) -> Role {
        match arm {
            arm if arm == self.baseline => Role::Baseline,
            arm if arm + 1 == self.arms.len() => Role::Replica,
            _ => Role::Arm,
        }
    }

    /// Arms that are tested: neither the baseline nor its repetition.
    pub fn tested(&self) -> usize {
        (0..self.arms.len()).filter(|&arm| self.role(arm) == Role::Arm).count()
    }

    /// Plans every arm over the data, and pins engine and precision in its config, so that nothing
    /// is left for a machine to choose: those `declared` before, where there are any.
    ///
    /// # Errors
    /// An arm that cannot be trained, or arms that would be computed differently.
    pub fn resolve(
        &mut self,
        corpus: &Corpus,
        device: DeviceSpec,
        declared: Option<(EngineKind, Precision)>,
    ) -> anyhow::Result<Vec<ArmPlan>> {
        let plans = sweep::resolve(&mut self.arms, self.baseline, corpus, device, declared)?;
        let first = &self.arms[self.baseline];
        for (index, arm) in self.arms.iter().enumerate() {
            let every = arm.config.eval.every;
            if self.spec.futility
                && self.role(index) == Role::Arm
                && futility_step(&plans[index], every).is_none()
            {
                return Err(ConfigError(format!(
                    "compare.futility: expected an evaluation of `{}` before its last step, {}, and not before step {}, found none with eval.every = {every}\nhint: evaluate more often, or leave compare.futility out",
                    arm.name,
                    plans[index].steps,
                    earliest_futility_step(plans[index].steps, plans[index].learns)
                ))
                .into());
            }
            if plans[index].steps != plans[self.baseline].steps {
                return Err(ConfigError(format!(
                    "arm `{}`: expected {} steps as in `{}`, found {}\nhint: with another train.batch_size give train.steps in place of train.tokens",
                    arm.name, plans[self.baseline].steps, first.name, plans[index].steps
                ))
                .into());
            }
        }
        Ok(plans)
    }

    /// A run, by the places of its arm and seed. The first seed's models continue a few texts.
    pub fn run(&self, arm: usize, seed: usize) -> Run {
        Run { arm, seed: self.seeds[seed], sampled: seed == 0 }
    }

    /// Every run, seed by seed, so that every arm has as many seeds whenever it is looked at; the
    /// baseline first, whose evaluations runs of other arms may wait for.
    pub fn runs(&self) -> Vec<Run> {
        (0..self.seeds.len()).flat_map(|seed| self.runs_of_seed(seed)).collect()
    }

    /// Those of the seed at this place.
    pub fn runs_of_seed(&self, seed: usize) -> impl Iterator<Item = Run> + '_ {
        let others = (0..self.arms.len()).filter(|arm| *arm != self.baseline);
        [self.baseline].into_iter().chain(others).map(move |arm| self.run(arm, seed))
    }

    /// The run whose steps are timed: the baseline's first.
    pub fn timed_config(&self) -> Config {
        self.arms[self.baseline].run_config(self.seeds.first().copied().unwrap_or(0))
    }

    /// The arms, as what makes their runs takes them.
    pub fn sweep<'a>(
        &'a self,
        plans: &'a [ArmPlan],
        folder: &'a Path,
        corpus: &'a Corpus,
        device: DeviceSpec,
    ) -> Sweep<'a> {
        Sweep { noun: NOUN, folder, arms: &self.arms, plans, corpus, device }
    }

    /// The folder of a run within that of the comparison.
    pub fn run_folder(&self, folder: &Path, arm: usize, seed: u64) -> PathBuf {
        self.arms[arm].run_folder(folder, seed)
    }

    /// The folders of all runs that have begun, in the order of arms and seeds.
    pub fn folders(&self, folder: &Path) -> Vec<PathBuf> {
        let runs = (0..self.arms.len()).flat_map(|arm| self.seeds.iter().map(move |&s| (arm, s)));
        let folders = runs.map(|(arm, seed)| self.run_folder(folder, arm, seed));
        folders.filter(|folder| folder.join("metrics.jsonl").exists()).collect()
    }
}

/// Refuses an arm that differs from the baseline in what must be common, by the key's name.
fn check_common(baseline: &Arm, arm: &Arm) -> Result<(), ConfigError> {
    for change in changes(&baseline.config, &arm.config)? {
        if let Some(reason) = must_be_common(&change.key) {
            return Err(ConfigError(format!(
                "arm `{}`: expected the same {} in every arm, found {} in `{}`: {reason}\nhint: set it for all arms, outside of compare.arms",
                arm.name,
                change.key,
                match (&change.old, &change.new) {
                    (Some(old), Some(new)) => format!("{new}, and {old}"),
                    (None, Some(new)) => format!("{new}, and none"),
                    (_, None) => "none, though there is one".to_owned(),
                },
                baseline.name
            )));
        }
    }
    Ok(())
}

/// Why a key must be the same in every arm; `None` where it may differ.
pub fn must_be_common(key: &str) -> Option<&'static str> {
    let section = key.split('.').next().unwrap_or(key);
    match (section, key) {
        (_, "seed" | "order_seed") => Some("compare.seeds gives every arm the same seeds"),
        ("tokenizer", _) => Some("losses of different tokens cannot be compared"),
        ("data" | "domain" | "base", _) => Some("every arm must see the same text"),
        (_, "train.steps" | "train.tokens") => Some("arms are compared after as many steps"),
        (_, "train.context") => Some("its evaluation windows would be others"),
        (_, "train.engine" | "train.precision" | "train.threads") => {
            Some("their losses would differ by rounding, too")
        }
        (_, "eval.tune_sequences") => None,
        ("eval", _) => Some("every arm must be evaluated on the same windows"),
        _ => None,
    }
}

/// The step whose evaluation, of those every `every` steps, decides whether a run can still become
/// better; `None` where there is none before the last step.
pub fn futility_step(plan: &ArmPlan, every: u64) -> Option<u64> {
    let earliest = earliest_futility_step(plan.steps, plan.learns);
    let step = earliest.checked_next_multiple_of(every).filter(|_| every > 0)?;
    (step < plan.steps).then_some(step)
}
