//! What is run: the arms' configs and plans, and which of them with which seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cuvee_data::{Corpus, Domain, Share, Split};
use cuvee_mixer::ObservationRequest;
use cuvee_train::{DeviceSpec, EngineKind, ModelConfig, Precision, hf};

use crate::config::{Change, Config, ConfigError};
use crate::plan::{Plan, Remark};
use crate::prepare;
use crate::session::Session;

/// One arm: a config that runs of several seeds share.
#[derive(Debug, Clone)]
pub struct Arm {
    /// What tables and folders call it.
    pub name: String,
    /// What it sets, `KEY=VALUE` each.
    pub set: Vec<String>,
    /// Its config, for any seed.
    pub config: Config,
    /// Added to a run's seed for the order of its draws; the config says it where there is none.
    pub order_offset: Option<u64>,
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
    pub remarks: Vec<Remark>,
    /// sha256 of the weights that its runs start from, where they start from a model.
    pub init_sha256: Option<String>,
    /// Bytes of the optimizer's state.
    pub optimizer_bytes: u64,
    /// Floating-point operations of a run.
    pub flops: f64,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Its arm, by its place.
    pub arm: usize,
    /// Its seed's number.
    pub seed: u64,
    /// Whether its model continues a few texts at the end: one run of each arm is enough to read.
    pub sampled: bool,
}

/// Arms, and all that their runs have in common.
pub struct Sweep<'a> {
    /// What messages call the whole, as `comparison`.
    pub noun: &'static str,
    /// The folder that the runs' folders are in.
    pub folder: &'a Path,
    /// The arms.
    pub arms: &'a [Arm],
    /// What is known of them.
    pub plans: &'a [ArmPlan],
    /// The data.
    pub corpus: &'a Corpus,
    /// Where to compute.
    pub device: DeviceSpec,
}

impl Arm {
    /// The config of its run with `seed`.
    pub fn run_config(&self, seed: u64) -> Config {
        let order = self.order_offset.map(|offset| seed.wrapping_add(offset));
        Config { seed, order_seed: order.or(self.config.order_seed), ..self.config.clone() }
    }

    /// The folder of its run with `seed`, within that of the sweep.
    pub fn run_folder(&self, folder: &Path, seed: u64) -> PathBuf {
        folder.join(&self.name).join(format!("seed-{seed}"))
    }

    /// The model that it begins from, if it does.
    ///
    /// # Errors
    /// One that is not there.
    pub fn init(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.config.model.init_dir(&self.config.base)?)
    }
}

impl Sweep<'_> {
    /// What display and messages call a run.
    pub fn run_name(&self, run: Run) -> String {
        format!("{} seed {}", self.arms[run.arm].name, run.seed)
    }

    /// The folder of a run.
    pub fn run_folder(&self, run: Run) -> PathBuf {
        self.arms[run.arm].run_folder(self.folder, run.seed)
    }

    /// Arms that begin with the same model, given the same seed, and are evaluated alike: the place
    /// of the first of them.
    pub fn same_beginning(&self, arm: usize) -> usize {
        let begins = |arm: usize| {
            let config = &self.arms[arm].config;
            (&self.plans[arm].model, &config.model.init, config.train.document_mask)
        };
        (0..arm).find(|&other| begins(other) == begins(arm)).unwrap_or(arm)
    }
}

/// Plans every arm over the data, and pins engine and precision in its config, so that nothing is
/// left for a machine to choose: those `declared` before, where there are any. `reference` is the
/// place of the arm that messages hold the others against.
///
/// # Errors
/// An arm that cannot be trained, or arms that would be computed differently.
pub fn resolve(
    arms: &mut [Arm],
    reference: usize,
    corpus: &Corpus,
    device: DeviceSpec,
    declared: Option<(EngineKind, Precision)>,
) -> anyhow::Result<Vec<ArmPlan>> {
    let mut plans = Vec::new();
    let mut weights: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut arithmetic: Vec<(EngineKind, Precision)> = Vec::new();
    for arm in arms.iter_mut() {
        let within = |error: anyhow::Error| in_arm(&arm.name, error);
        let vocab_size = corpus.tokenizer.vocab_size();
        let (plan, mixer) =
            Plan::new(&arm.config, &corpus.domains, vocab_size, Path::new("")).map_err(within)?;
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
        let init = arm.config.model.init_dir(&arm.config.base)?;
        let init_sha256 = match init {
            None => None,
            // Arms mostly start from one model.
            Some(init) => Some(match weights.get(&init) {
                Some(known) => known.clone(),
                None => {
                    let found =
                        hf::weights_sha256(&init).map_err(|e| in_arm(&arm.name, e.into()))?;
                    weights.entry(init).or_insert(found).clone()
                }
            }),
        };
        plans.push(ArmPlan {
            init_sha256,
            learns: mixer.learns(),
            request: mixer.observation_request(),
            steps: plan.run.steps,
            tokens: plan.tokens(),
            optimizer_bytes: plan.optimizer.bytes,
            flops: plan.flops(),
            remarks: plan.remarks(true),
            model: plan.model,
        });
    }
    let Some(&(engine, precision)) = arithmetic.get(reference) else { return Ok(plans) };
    for (arm, &(other, other_precision)) in arms.iter().zip(&arithmetic) {
        if (other, other_precision) != (engine, precision) {
            return Err(ConfigError(format!(
                "expected one engine and precision for all arms, found the engine {} in {precision} for `{}` and {} in {other_precision} for `{}`: their losses would differ by rounding, too\nhint: set train.engine = \"reference\" for all of them, or another variance estimator in `{}`",
                engine_name(engine), arms[reference].name, engine_name(other), arm.name, arm.name
            ))
            .into());
        }
    }
    Ok(plans)
}

/// Gives every run so many threads.
pub fn pin_threads(arms: &mut [Arm], threads: usize) {
    for arm in arms {
        arm.config.train.threads = Some(threads);
    }
}

/// The part of `runs` that one of several workers makes, by their places.
pub fn part_of(runs: &[Run], share: Option<Share>) -> Vec<Run> {
    let Some(share) = share else { return runs.to_vec() };
    let (number, of) = (share.number() as usize - 1, share.count() as usize);
    runs.iter().copied().skip(number).step_by(of.max(1)).collect()
}

/// The data, which all arms share.
///
/// # Errors
/// What keeps it from being prepared.
pub fn corpus(config: &Config, session: &Session) -> anyhow::Result<Corpus> {
    session.say("Preparing the domains");
    let init = config.model.init_dir(&config.base)?;
    let store = config.store(None);
    prepare::corpus(config, &config.tokenizer, init.as_deref(), store, session)
}

/// The engine's name in a config.
pub fn engine_name(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Auto => "auto",
        EngineKind::Reference => "reference",
        EngineKind::Fused => "fused",
    }
}

/// Engine and number type by their names in a config, where this program has them.
pub fn arithmetic_of(engine: &str, precision: &str) -> Option<(EngineKind, Precision)> {
    let named = |name: &str| serde_json::Value::String(name.to_owned());
    Some((
        serde_json::from_value(named(engine)).ok()?,
        serde_json::from_value(named(precision)).ok()?,
    ))
}

/// An error about an arm, with its name; still the kind of error that it is.
fn in_arm(name: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<ConfigError>() {
        Ok(ConfigError(what)) => ConfigError(format!("arm `{name}`: {what}")).into(),
        Err(other) => other.context(format!("arm `{name}`")),
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

/// The changes between two configs where the weights that each starts from are known by their
/// sha256: where these lie does not matter then, and what they are does.
pub fn by_weights(changes: Vec<Change>, old: Option<&str>, new: Option<&str>) -> Vec<Change> {
    const INIT: &str = "model.init";
    let (Some(old), Some(new)) = (old, new) else { return changes };
    let mut changes: Vec<Change> = changes.into_iter().filter(|c| c.key != INIT).collect();
    if old != new {
        let said = |hash: &str| Some(format!("weights of sha256 {hash:.12}…"));
        changes.push(Change { key: INIT.to_owned(), old: said(old), new: said(new) });
    }
    changes
}

/// Whether a key that differs makes runs those of another sweep: all but where data lie, and what
/// is saved and logged.
pub fn matters(key: &str) -> bool {
    let elsewhere =
        ["base", "data.dir", "data.commit_every", "data.remember_documents", "tokenizer.file"];
    let source = key.starts_with("domain.")
        && [".source.path", ".source.license"].iter().any(|end| key.ends_with(end));
    let kept = ["checkpoint.", "export.", "log."].iter().any(|section| key.starts_with(section));
    !(elsewhere.contains(&key) || source || kept || key == "train.threads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_told_apart_by_what_they_are_and_not_by_where_they_lie() {
        let change = |key: &str, old: &str, new: &str| Change {
            key: key.to_owned(),
            old: Some(old.to_owned()),
            new: Some(new.to_owned()),
        };
        let moved = || vec![change("model.init", "a", "b"), change("train.lr", "1", "2")];
        let keys = |changes: Vec<Change>| -> Vec<String> {
            changes.iter().map(ToString::to_string).collect()
        };
        assert_eq!(keys(by_weights(moved(), Some("1f"), Some("1f"))), ["train.lr: 1 → 2"]);
        let other = "model.init: weights of sha256 1f… → weights of sha256 2f…";
        assert_eq!(keys(by_weights(moved(), Some("1f"), Some("2f")))[1], other);
        assert_eq!(keys(by_weights(Vec::new(), Some("1f"), Some("2f"))), [other]);
        // Of runs from before they were kept only the path is known.
        for (old, new) in [(None, Some("1f")), (Some("1f"), None), (None, None)] {
            assert_eq!(by_weights(moved(), old, new), moved());
        }
    }
}
