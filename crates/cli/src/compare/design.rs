//! What is compared: the arms' configs, made from the config and what each arm sets, and what they
//! must have in common.

use cuvee_words::printable_path;
use std::path::{Path, PathBuf};

use cuvee_compare::{Role, earliest_futility_step};
use cuvee_data::{Corpus, Domain, Split};
use cuvee_mixer::ObservationRequest;
use cuvee_train::{DeviceSpec, EngineKind, ModelConfig, Precision};

use crate::compare_spec::{CompareSpec, REPLICA};
use crate::config::{Config, ConfigError, changes};
use crate::model_source::fetched_model;
use crate::plan::Plan;
use crate::session::Session;

/// Added to a seed for the draws of the baseline's repetition.
const REPLICA_ORDER: u64 = 1_000_000;

/// One arm.
#[derive(Debug, Clone)]
pub struct Arm {
    /// What tables and folders call it.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// What it sets, `KEY=VALUE` each.
    pub set: Vec<String>,
    /// Its config, for any seed.
    pub config: Config,
}

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

/// What is known of an arm once the data is there.
#[derive(Debug, Clone)]
pub struct ArmPlan {
    /// Shape of its model.
    pub model: ModelConfig,
    /// Whether any weights are learned while training.
    pub learns: bool,
    /// What its strategies want measured besides the losses of the steps.
    pub request: ObservationRequest,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens of a run.
    pub tokens: u64,
    /// What its plan remarks on, for people.
    pub remarks: Vec<String>,
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
            let role = match arm.name == spec.baseline_name() {
                true => Role::Baseline,
                false => Role::Arm,
            };
            arms.push(Arm { name: arm.name.clone(), role, set, config });
        }
        let baseline = arms.iter().position(|arm| arm.role == Role::Baseline).unwrap_or(0);
        let first = arms[baseline].clone();
        for arm in &arms {
            check_common(&first, arm)?;
        }
        let name = format!("{}{REPLICA}", first.name);
        arms.push(Arm { name, role: Role::Replica, ..first });
        Ok(Self { spec, arms, baseline, seeds })
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
        let mut plans = Vec::new();
        let mut arithmetic: Vec<(EngineKind, Precision)> = Vec::new();
        for arm in &mut self.arms {
            let name = arm.name.clone();
            let within = |error: anyhow::Error| in_arm(&name, error);
            let vocab_size = corpus.tokenizer.vocab_size();
            let (plan, mixer) = Plan::new(&arm.config, &corpus.domains, vocab_size, Path::new(""))
                .map_err(within)?;
            let estimator = mixer.observation_request().gradient.map(|g| g.estimator);
            let own = &mut arm.config.train;
            if let Some((engine, precision)) = declared {
                // What the config leaves open stays as it was declared, on any machine.
                own.engine = if own.engine == EngineKind::Auto { engine } else { own.engine };
                own.precision =
                    if own.precision == Precision::Auto { precision } else { own.precision };
            }
            let train = own.resolved(device, estimator);
            (own.engine, own.precision) = (train.engine, train.precision);
            arithmetic.push((own.engine, own.precision));
            plans.push(ArmPlan {
                learns: mixer.learns(),
                request: mixer.observation_request(),
                steps: plan.run.steps,
                tokens: plan.tokens(),
                remarks: plan.remarks(true),
                model: plan.model,
            });
        }
        let first = &self.arms[self.baseline];
        let (engine, precision) = arithmetic[self.baseline];
        for (index, arm) in self.arms.iter().enumerate() {
            if arithmetic[index] != (engine, precision) {
                let (other, other_precision) = arithmetic[index];
                return Err(ConfigError(format!(
                    "expected one engine and precision for all arms, found the engine {} in {precision} for `{}` and {} in {other_precision} for `{}`: their losses would differ by rounding, too\nhint: set train.engine = \"reference\" for all of them, or another variance estimator in `{}`",
                    engine_name(engine), first.name, engine_name(other), arm.name, arm.name
                ))
                .into());
            }
            let every = arm.config.eval.every;
            if self.spec.futility
                && arm.role == Role::Arm
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

    /// Gives every run so many threads.
    pub fn pin_threads(&mut self, threads: usize) {
        for arm in &mut self.arms {
            arm.config.train.threads = Some(threads);
        }
    }

    /// The config of a run.
    pub fn run_config(&self, arm: usize, seed: u64) -> Config {
        let arm = &self.arms[arm];
        let order_seed = match arm.role {
            Role::Replica => Some(seed.wrapping_add(REPLICA_ORDER)),
            Role::Baseline | Role::Arm => arm.config.order_seed,
        };
        Config { seed, order_seed, ..arm.config.clone() }
    }

    /// The folder of a run within that of the comparison.
    pub fn run_folder(&self, folder: &Path, arm: usize, seed: u64) -> PathBuf {
        folder.join(&self.arms[arm].name).join(format!("seed-{seed}"))
    }

    /// The folders of all runs that have begun, in the order of arms and seeds.
    pub fn folders(&self, folder: &Path) -> Vec<PathBuf> {
        let runs = (0..self.arms.len()).flat_map(|arm| self.seeds.iter().map(move |&s| (arm, s)));
        let folders = runs.map(|(arm, seed)| self.run_folder(folder, arm, seed));
        folders.filter(|folder| folder.join("metrics.jsonl").exists()).collect()
    }

    /// The model that an arm begins from, if it does.
    ///
    /// # Errors
    /// One that is not there.
    pub fn init(&self, arm: usize) -> anyhow::Result<Option<PathBuf>> {
        let config = &self.arms[arm].config;
        Ok(config.model.init_dir(&config.base)?)
    }
}

/// The engine's name in a config.
pub fn engine_name(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Auto => "auto",
        EngineKind::Reference => "reference",
        EngineKind::Fused => "fused",
    }
}

/// An error about an arm, with its name; still the kind of error that it is.
fn in_arm(name: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<ConfigError>() {
        Ok(ConfigError(what)) => ConfigError(format!("arm `{name}`: {what}")).into(),
        Err(other) => other.context(format!("arm `{name}`")),
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

/// Tokens of a split's windows, at most `sequences` a domain: what an evaluation costs.
pub fn window_tokens(domains: &[Domain], split: Split, sequences: usize, context: usize) -> u64 {
    let windows = |domain: &Domain| {
        let tokens = domain.shard(split).tokens();
        cuvee_train::evaluation_starts(tokens, context, sequences).len()
    };
    (domains.iter().map(windows).sum::<usize>() * context) as u64
}

/// The step whose evaluation, of those every `every` steps, decides whether a run can still become
/// better; `None` where there is none before the last step.
pub fn futility_step(plan: &ArmPlan, every: u64) -> Option<u64> {
    let earliest = earliest_futility_step(plan.steps, plan.learns);
    let step = earliest.checked_next_multiple_of(every).filter(|_| every > 0)?;
    (step < plan.steps).then_some(step)
}

/// Whether a key that differs makes runs those of another comparison: all but where data lie, and
/// what is saved and logged.
pub fn matters(key: &str) -> bool {
    let elsewhere =
        ["base", "data.dir", "data.commit_every", "data.remember_documents", "tokenizer.file"];
    let source = key.starts_with("domain.")
        && [".source.path", ".source.license"].iter().any(|end| key.ends_with(end));
    let kept = ["checkpoint.", "log."].iter().any(|section| key.starts_with(section));
    !(elsewhere.contains(&key) || source || kept || key == "train.threads")
}
