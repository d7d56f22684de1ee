//! A search that is declared: its folder, its data and what it is computed with.

use std::path::{Path, PathBuf};

use cuvee_data::Corpus;
use cuvee_search::design::DesignInput;
use cuvee_search::document::{Declared, DeclaredConfig, DeclaredDomain, VERSION};
use cuvee_search::propose::Aim;
use cuvee_train::{
    DataFingerprint, DeviceSpec, EngineKind, ModelConfig, OptimizerKind, Precision, hf,
    published_learning_rate,
};
use cuvee_words::{counted, printable_path, shell_path};

use super::design::{CONFIRM_SEEDS, Design, Method, refused};
use super::mixtures::{arms, designed};
use super::registration;
use crate::config::{Config, ConfigError};
use crate::session::Session;
use crate::sweep::{self, Cost, Sharing, StepTimes, Sweep, Wanted, arithmetic_of, engine_name};

/// Smallest share that a law may propose.
const FLOOR: f64 = 1e-4;

/// Tokens a parameter below which cheap runs order mixtures badly.
pub const TOKENS_A_PARAMETER: f64 = 20.0;

/// Mixtures of a confirmation at most, the uniform one's repetition included.
pub const CONFIRMED: usize = 6;

/// How a search is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Runs at once, if that was asked for.
    pub jobs: Option<usize>,
    /// Workers that share the runs.
    pub workers: usize,
    /// Whether nothing is to be written.
    pub dry: bool,
    /// Whether no run is to be made.
    pub collect: bool,
}

/// A search whose declaration stands.
pub struct Search<'a> {
    /// How to speak, and where Ctrl-C is noticed.
    pub session: &'a Session,
    /// The config's file.
    pub config: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
    /// What the config says.
    pub design: Design,
    /// What was declared.
    pub declared: Declared,
    /// The data.
    pub corpus: Corpus,
    /// Where to compute.
    pub device: DeviceSpec,
    /// Runs at once.
    pub jobs: usize,
    /// Whether no run is to be made.
    pub collect: bool,
}

impl<'a> Search<'a> {
    /// Declares the search of the config at `path`, or takes up the one that its folder holds.
    ///
    /// # Errors
    /// Whatever cannot be searched, before anything is written.
    pub fn open(path: &Path, session: &'a Session, opening: Opening) -> anyhow::Result<Self> {
        sweep::check_jobs(opening.jobs)?;
        let mut design = Design::load(path, session)?;
        let folder = folder_of(path, session)?;
        let before = registration::read(&folder)?;
        let device = match (session.common.device.as_deref(), &before) {
            (Some(device), _) if opening.collect => device.parse()?,
            (None, Some(before)) => before.device.parse()?,
            _ => session.device()?,
        };
        let corpus = sweep::corpus(&design.target, session)?;
        let domains = design.domains(&corpus)?;
        // The time that a run takes was asked when the search was declared.
        if let (Some(before), Some(_)) = (&before, design.spec.hours) {
            design.spec.runs = Some(before.runs);
        }
        let known = before.as_ref().map(|before| before.threads);
        let threads = known.or(design.proxy.train.threads);
        if let Some(hours) = design.spec.hours.filter(|_| design.spec.runs.is_none()) {
            design.spec.runs =
                Some(runs_in(hours, &design, &domains, &corpus, device, opening, threads)?);
        }
        let arithmetic = before.as_ref().and_then(|b| arithmetic_of(&b.engine, &b.precision));
        let mut declared = declare(&mut design, domains, &corpus, device, arithmetic)?;
        // A rule makes about a run a domain.
        let runs = (declared.pilot.len() + declared.swarm.len()).max(declared.domains.len());
        declared.threads = threads.unwrap_or_else(|| threads_of(runs, opening.workers));
        declared.confirm_threads = match before.as_ref().map(|before| before.confirm_threads) {
            Some(known) => known,
            None => {
                let runs = CONFIRMED * declared.confirm_seeds.len();
                let asked = design.target.train.threads;
                asked.unwrap_or_else(|| threads_of(runs, opening.workers))
            }
        };
        design.proxy.train.threads = Some(declared.threads);
        let jobs = jobs(&design, device, opening, declared.threads, runs);
        if !opening.dry {
            declared = match registration::open(&folder, declared, &session.interrupted) {
                // Another worker has declared while this one chose: what that one chose holds, as
                // the number of runs that fit into the hours.
                Err(_) if before.is_none() && registration::read(&folder)?.is_some() => {
                    return Self::open(path, session, opening);
                }
                opened => opened?,
            };
        }
        let config = path.to_owned();
        let collect = opening.collect;
        Ok(Self { session, config, folder, design, declared, corpus, device, jobs, collect })
    }

    /// Engine and number type of every run.
    pub fn arithmetic(&self) -> Option<(EngineKind, Precision)> {
        arithmetic_of(&self.declared.engine, &self.declared.precision)
    }

    /// ω, one a target.
    pub fn weights(&self) -> Vec<f64> {
        self.declared.domains.iter().map(|domain| domain.weight).collect()
    }

    /// What a proposal minimises, and within which bounds.
    pub fn aim(&self) -> Aim {
        let of = |value: fn(&DeclaredDomain) -> f64| -> Vec<f64> {
            self.declared.domains.iter().map(value).collect()
        };
        Aim {
            target_weights: self.weights(),
            prior: of(|domain| domain.prior),
            kappa: self.declared.kappa,
            caps: of(|domain| domain.cap),
            epochs_per_share: of(|domain| domain.epochs_per_share),
            floor: FLOOR,
            frozen: self.design.frozen(&self.declared.domains),
            candidates: Vec::new(),
        }
    }

    /// What the same command is called with, for hints: config and folder.
    pub fn as_typed(&self) -> String {
        let out = match &self.session.common.out {
            Some(out) => format!(" --out {}", shell_path(out)),
            None => String::new(),
        };
        format!("{}{out}{}", shell_path(&self.config), self.session.as_typed())
    }

    /// What is known of good proxies, held against these: learning rate and length.
    ///
    /// # Errors
    /// A model that cannot be read any more.
    pub fn hints(&self) -> anyhow::Result<String> {
        let (proxy, Config { model, train, base, .. }) = (&self.declared.proxy, &self.design.proxy);
        let vocab_size = self.corpus.tokenizer.vocab_size();
        let model = hf::resolve_model(model, vocab_size, train.context, base)?;
        let parameters = proxy.parameters as f64;
        let length = proxy.tokens as f64 / parameters.max(1.0);
        let short = if length < TOKENS_A_PARAMETER { ", which is few" } else { "" };
        Ok(format!(
            "proxies: {} parameters, {length:.1} tokens a parameter{short} (at least {TOKENS_A_PARAMETER} order mixtures well), lr {}{}",
            cuvee_report::count(parameters),
            train.lr,
            published_rate(train.optimizer.name, &model)
        ))
    }
}

/// The learning rate that is known to be good, where one is: nothing is published for the other
/// optimizers.
fn published_rate(optimizer: OptimizerKind, model: &ModelConfig) -> String {
    match optimizer {
        OptimizerKind::Adamw => format!(
            " (0.0047·(N/108M)^(−1/3) = {:.2e} fits published small runs)",
            published_learning_rate(model)
        ),
        OptimizerKind::Muon | OptimizerKind::Sgd => String::new(),
    }
}

/// Where a search lives: `--out`, or `runs/search-NAME` by the config's name.
fn folder_of(path: &Path, session: &Session) -> anyhow::Result<PathBuf> {
    let folder = session.common.out.clone().unwrap_or_else(|| {
        let stem = path.file_stem().map_or_else(|| "config".into(), |s| s.to_string_lossy());
        Path::new("runs").join(format!("search-{stem}"))
    });
    let what = if crate::run_folder::holds_run(&folder) {
        "a run"
    } else if folder.join("compare.json").exists() {
        "a comparison"
    } else {
        return Ok(folder);
    };
    Err(ConfigError(format!(
        "{} holds {what}, not a search\nhint: name another folder with --out",
        printable_path(&folder)
    ))
    .into())
}

/// Threads of each of `runs` runs that so many `workers` share: one where there are enough runs for
/// all cores.
fn threads_of(runs: usize, workers: usize) -> usize {
    (rayon::current_num_threads() / runs.div_ceil(workers.max(1)).max(1)).max(1)
}

fn jobs(
    design: &Design,
    device: DeviceSpec,
    opening: Opening,
    threads: usize,
    runs: usize,
) -> usize {
    let asked = opening.jobs.or(design.spec.jobs);
    let most = runs.div_ceil(opening.workers.max(1)).max(1);
    let usual = match device {
        DeviceSpec::Cpu => (rayon::current_num_threads() / threads.max(1)).max(1),
        // Runs that share a GPU gain little and need its memory.
        DeviceSpec::Cuda(_) => 1,
    };
    asked.unwrap_or(usual).min(most)
}

/// Runs of the swarm that fit into so many hours, with the pilot's.
fn runs_in(
    hours: f64,
    design: &Design,
    domains: &[DeclaredDomain],
    corpus: &Corpus,
    device: DeviceSpec,
    opening: Opening,
    threads: Option<usize>,
) -> anyhow::Result<usize> {
    let least = design.usual_runs(domains.len());
    let input = design_input(design, domains, least);
    let [pilot, _] = designed(&input).map_err(refused)?;
    let (mut arms, mut runs) = arms(&design.proxy, domains, &pilot);
    let plans = sweep::resolve(&mut arms, 0, corpus, device, None)?;
    runs.truncate(1);
    let threads = threads.unwrap_or(1);
    let jobs = jobs(design, device, opening, threads, usize::MAX);
    let wanted = Wanted {
        cores: rayon::current_num_threads(),
        jobs: Some(jobs),
        threads: Some(threads),
        runs: jobs,
    };
    let config = arms[0].run_config(design.seed);
    let sharing = Sharing::choose(&config, corpus, device, wanted, true)?;
    let folder = Path::new("");
    let sweep = Sweep { noun: "search", folder, arms: &arms, plans: &plans, corpus, device };
    let times = StepTimes::measure(&sweep, 0, sharing)?;
    let seconds = Cost::new(&sweep, &runs, times.as_ref()).seconds.unwrap_or(f64::INFINITY);
    let fitting = (hours * 3600.0 / seconds.max(1e-9)) as usize;
    let runs = fitting.saturating_sub(pilot.len());
    if runs < least {
        return Err(ConfigError(format!(
            "search.hours: expected time for {} over {} domains, found time for {runs}: a run takes about {} here, {jobs} at once\nhint: search.hours = {}, or smaller proxies",
            counted(least, "run"),
            domains.len(),
            cuvee_report::duration(seconds * jobs as f64),
            at_least((least + pilot.len() + 1) as f64 * seconds / 3600.0)
        ))
        .into());
    }
    Ok(runs)
}

/// A number that is no smaller, with two digits that count, or two decimals.
fn at_least(value: f64) -> String {
    let decimals = (1.0 - value.log10().floor()).clamp(2.0, 15.0) as usize;
    let unit = 10_f64.powi(decimals as i32);
    format!("{:.decimals$}", (value * unit).ceil() / unit)
}

fn design_input(design: &Design, domains: &[DeclaredDomain], runs: usize) -> DesignInput {
    DesignInput {
        prior: domains.iter().map(|domain| domain.prior).collect(),
        caps: domains.iter().map(|domain| domain.cap).collect(),
        runs,
        two_knob: design.spec.two_knob,
        frozen: design.frozen(domains),
        seed: design.seed,
    }
}

/// What is declared; its configs name engine and precision.
fn declare(
    design: &mut Design,
    domains: Vec<DeclaredDomain>,
    corpus: &Corpus,
    device: DeviceSpec,
    arithmetic: Option<(EngineKind, Precision)>,
) -> anyhow::Result<Declared> {
    let runs = design.runs(domains.len());
    let [pilot, swarm] = match design.method {
        // It has runs of its own, or none.
        Method::Rule(_) => [Vec::new(), Vec::new()],
        Method::Law(_) | Method::Auto => {
            let input = design_input(design, &domains, design.designed(domains.len(), runs));
            designed(&input).map_err(|error| ConfigError(format!("search.runs: {error}")))?
        }
    };
    if let Method::Law(law) = design.method {
        let mut mixtures: Vec<(&[f64], &[f64])> = pilot
            .iter()
            .chain(&swarm)
            .map(|run| (run.sampling.as_slice(), run.objective.as_slice()))
            .collect();
        mixtures.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        mixtures.dedup();
        let least = (law.least)(domains.len());
        if mixtures.len() < least {
            return Err(ConfigError(format!(
                "search.runs: expected runs of at least {least} different mixtures for the law `{}` over {} domains, found {}\nhint: leave search.runs out to take {}",
                law.name,
                domains.len(),
                mixtures.len(),
                design.usual_runs(domains.len())
            ))
            .into());
        }
    }
    // One arm, where the rule has none yet, says what all runs are computed with.
    let prior: Vec<f64> = domains.iter().map(|domain| domain.prior).collect();
    let probe = |name: &str, shares: &[f64]| cuvee_search::document::DeclaredRun {
        mixture: name.to_owned(),
        kind: name.to_owned(),
        block: 0,
        seed: design.seed,
        sampling: shares.to_vec(),
        objective: shares.to_vec(),
    };
    let mut all: Vec<_> = pilot.iter().chain(&swarm).cloned().collect();
    if all.is_empty() {
        all.push(probe("prior", &prior));
    }
    let (mut cheap, _) = arms(&design.proxy, &domains, &all);
    let cheap_plans = sweep::resolve(&mut cheap, 0, corpus, device, arithmetic)?;
    let (mut full, _) = arms(&design.target, &domains, &[probe("prior", &prior)]);
    let full_plans = sweep::resolve(&mut full, 0, corpus, device, arithmetic)?;
    for (config, arm) in [(&mut design.proxy, &cheap[0]), (&mut design.target, &full[0])] {
        config.train.engine = arm.config.train.engine;
        config.train.precision = arm.config.train.precision;
    }
    let declared = |config: &Config, plan: &sweep::ArmPlan| -> anyhow::Result<DeclaredConfig> {
        Ok(DeclaredConfig {
            config: config.to_toml()?,
            parameters: plan.model.parameters(),
            steps: plan.steps,
            tokens: plan.tokens,
        })
    };
    let train = &design.proxy.train;
    let confirm = design.seed.wrapping_add(CONFIRM_SEEDS);
    let by_document = train.by_document() || design.target.train.by_document();
    Ok(Declared {
        version: VERSION,
        cuvee: env!("CARGO_PKG_VERSION").to_owned(),
        seed: design.seed,
        law: design.spec.law.clone(),
        kappa: design.spec.kappa,
        runs,
        two_knob: design.spec.two_knob,
        batch: design.spec.batch,
        freeze: design.spec.freeze.clone(),
        chosen_on: cuvee_data::Split::Tune.to_string(),
        verified_on: cuvee_data::Split::Valid.to_string(),
        device: device.to_string(),
        engine: engine_name(train.engine).to_owned(),
        precision: train.precision.to_string(),
        threads: 0,
        confirm_threads: 0,
        target: declared(&design.target, &full_plans[0])?,
        proxy: declared(&design.proxy, &cheap_plans[0])?,
        pilot,
        swarm,
        confirm_seeds: (0..design.spec.confirm_seeds as u64)
            .map(|seed| confirm.wrapping_add(seed))
            .collect(),
        data: serde_json::to_value(DataFingerprint::of(&corpus.domains, by_document))?,
        domains,
    })
}

/// Says that a stage needs what another has not left yet.
///
/// # Errors
/// Always.
pub fn not_yet<T>(search: &Search, what: &str, stage: &str) -> anyhow::Result<T> {
    Err(ConfigError(format!(
        "{}: expected {what}, found none\nhint: cuvee search {stage} {}",
        printable_path(&search.folder),
        search.as_typed()
    ))
    .into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_published_rate_is_hinted_for_its_own_optimizer_as_auto_takes_it() {
        let model = cuvee_train::ModelSpec::default().resolve(4096, 256, None).unwrap();
        let auto = cuvee_train::TrainSpec {
            lr: cuvee_train::LearningRate::Auto,
            ..cuvee_train::TrainSpec::default()
        };
        let rate = cuvee_train::peak_learning_rate(&auto, &model);
        let hinted = published_rate(OptimizerKind::Adamw, &model);
        assert!(hinted.contains(&format!(" = {rate:.2e} ")), "{hinted}");
        for other in [OptimizerKind::Muon, OptimizerKind::Sgd] {
            assert_eq!(published_rate(other, &model), "");
        }
    }

    #[test]
    fn hours_that_are_advised_are_never_0_and_never_too_few() {
        for (value, text) in
            [(0.000_012_3, "0.000013"), (0.0049, "0.0049"), (0.0341, "0.035"), (1.231, "1.24")]
        {
            assert_eq!(at_least(value), text);
        }
        for value in [1e-9, 3.3e-4, 0.5, 2.0, 123.456] {
            let advised: f64 = at_least(value).parse().unwrap_or(0.0);
            assert!(advised >= value && advised <= value * 1.2, "{value} {advised}");
        }
    }
}
