//! One run of a sweep: an ordinary run folder, begun or gone on with, and what became of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use cuvee_report::{EvalRecord, StepRecord, WindowRecord};
use cuvee_train::{FirstEvaluation, Observer, Outcome, TrainError, Trainer};
use cuvee_words::{printable_path, shell_path};
use serde::{Deserialize, Serialize};

use super::arms::{Run, Sweep, by_weights, matters};
use super::board::Board;
use super::watch::{Course, Watch};
use crate::config::{Config, ConfigError, changes};
use crate::json;
use crate::model_source::reference_engine;
use crate::plan::Plan;
use crate::run_folder::{self, RunRecords, Told};
use crate::samples;
use crate::session::{Interrupted, Session};

/// In the folder of a run that ended before its last step: why.
const STOPPED: &str = "stopped.json";

/// Why a run of a sweep ended before its last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Stopped {
    /// Its arm could not have become better.
    Futile {
        /// Steps done.
        step: u64,
    },
    /// A loss or gradient was not finite: the same would happen again.
    Diverged {
        /// Steps done.
        step: u64,
        /// What was met.
        what: String,
    },
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It has its result.
    Finished,
    /// It has none and will have none.
    Stopped(Stopped),
    /// So many steps are saved, maybe none.
    Unfinished(u64),
}

/// How far the run in `folder` is, which is to make `steps` steps.
///
/// # Errors
/// A damaged checkpoint or note.
pub fn status(folder: &Path, steps: u64) -> anyhow::Result<Status> {
    let note = folder.join(STOPPED);
    if note.exists() {
        let text = std::fs::read_to_string(&note)
            .with_context(|| format!("cannot read {}", printable_path(&note)))?;
        let stopped = serde_json::from_str(&text).map_err(|e| {
            ConfigError(format!(
                "{}: {e}\nhint: remove the run's folder to make the run again",
                printable_path(&note)
            ))
        })?;
        return Ok(Status::Stopped(stopped));
    }
    let state = loop {
        let Some(newest) = cuvee_train::checkpoint::newest(&folder.join("checkpoints"))? else {
            return Ok(Status::Unfinished(0));
        };
        match cuvee_train::checkpoint::load_state(&newest) {
            Ok(state) => break state,
            // Another process makes the run, and has just put a newer one in its place.
            Err(_) if !newest.exists() => {}
            Err(error) => return Err(error.into()),
        }
    };
    let evaluated = state.last_evaluation.as_ref().is_some_and(|e| e.step == steps);
    Ok(match state.step == steps && evaluated && folder.join("export").exists() {
        true => Status::Finished,
        false => Status::Unfinished(state.step),
    })
}

/// What the runs of a sweep share while they are made.
pub struct Bench<'a> {
    /// The sweep.
    pub sweep: &'a Sweep<'a>,
    /// The display.
    pub board: &'a Board,
    /// Who follows the runs.
    pub watch: &'a dyn Watch,
    /// Evaluations before the first step, by the first arm that begins with that model and by seed.
    pub first: BTreeMap<(usize, u64), Arc<FirstEvaluation>>,
    /// Where Ctrl-C is noticed, and how to speak.
    pub session: &'a Session,
    /// Turns true where a run has failed, so that the others stop as well.
    pub failed: &'a AtomicBool,
    /// Seconds that runs have spent in training steps, all together.
    pub training: &'a Mutex<f64>,
}

impl Bench<'_> {
    /// Whether the runs are to save what they have and stop.
    pub fn stopping(&self) -> bool {
        self.session.interrupted.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    fn add_training(&self, seconds: f64) {
        *self.training.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// Makes `run`, or goes on with it; `None` where another process is making it.
    ///
    /// # Errors
    /// [`Interrupted`] where everything is being stopped; whatever keeps the run from being made,
    /// but not a loss that is not finite, which is a result of its own.
    pub fn make(&self, run: Run) -> anyhow::Result<Option<Made>> {
        let (sweep, arm) = (self.sweep, &self.sweep.arms[run.arm]);
        let folder = sweep.run_folder(run);
        let steps = sweep.plans[run.arm].steps;
        let Some(_lock) = run_folder::lock_if_free(&folder)? else { return Ok(None) };
        let config = arm.run_config(run.seed);
        let started_from = sweep.plans[run.arm].init_sha256.as_deref();
        check_config(sweep.noun, &folder, &config, started_from)?;
        match status(&folder, steps)? {
            Status::Unfinished(_) => {}
            // Another process has made it in the meantime.
            ended => {
                self.catch_up(run)?;
                return Ok(Some(Made { status: ended, here: false }));
            }
        }
        let resolved = config.to_toml()?;
        let begun = run_folder::newest_checkpoint(&folder)?;
        let (domains, tokenizer) = (&sweep.corpus.domains, &sweep.corpus.tokenizer);
        let (mut plan, mixer) = Plan::new(&config, domains, tokenizer.vocab_size(), &folder)?;
        let init = arm.init()?;
        plan.know_init(init.as_deref(), tokenizer)?;
        if plan.init_sha256.as_deref() != started_from {
            return Err(other_weights(sweep.noun, &arm.name, started_from, &plan).into());
        }
        let engine = plan.engine(init.as_deref(), tokenizer, sweep.device, config.seed)?;
        let mut trainer =
            Trainer::new(&plan.run, domains, tokenizer, mixer, engine, resolved.clone())?;
        if let Some(first) = self.first.get(&(sweep.same_beginning(run.arm), run.seed)) {
            trainer.share_first_evaluation(first.clone());
        }
        let train = &plan.run.train;
        let reference = reference_engine(&config, train, tokenizer, sweep.device, self.session)?;
        if let Some(reference) = reference {
            trainer.compare_with(reference)?;
        }
        if let Some(begun) = &begun {
            trainer.restore(&begun.checkpoint)?;
        }
        let warn = |text: &str| self.board.line(&format!("{}: {text}", printable_path(&folder)));
        let name = sweep.run_name(run);
        let told =
            Told { spec: config.log_spec(), name: name.clone(), group: Some(arm.name.clone()) };
        let resumed = begun.is_some();
        let records = RunRecords::open(&folder, &resolved, &told, &plan, &trainer, resumed, warn)?;
        let stop = AtomicBool::new(self.stopping());
        let mut watcher =
            Watcher { bench: self, run, name: &name, records, stop: &stop, futile: None };
        // Killed between this evaluation and the note that the run was stopped at it.
        if let Some(evaluation) = &trainer.state().last_evaluation {
            watcher.ask(evaluation.step);
        }
        self.board.begin(&name, trainer.state().step, steps);
        let before = trainer.state().seconds;
        let outcome = trainer.run(&mut watcher, &stop);
        self.add_training(trainer.state().seconds - before);
        let futile = watcher.futile;
        let done = trainer.state().step;
        let stopped = match outcome {
            Ok(Outcome::Finished) => {
                // Before the export, which tells that the run is finished.
                if run.sampled
                    && let Err(error) = samples::write(&folder, trainer.engine_mut(), sweep.corpus)
                {
                    self.board.line(&format!("warning: {name} has no samples: {error}"));
                }
                let (_, remark) = run_folder::write_export(&folder, &trainer, tokenizer, &plan)?;
                if let Some(remark) = remark {
                    self.board.line(&format!("{name}: {remark}"));
                }
                return Ok(Some(Made { status: Status::Finished, here: true }));
            }
            Ok(Outcome::Interrupted) => match futile {
                Some(step) => Stopped::Futile { step },
                None => return Err(Interrupted.into()),
            },
            Err(error @ TrainError::NonFinite(_)) => {
                let what = cuvee_words::without_hints(&error.to_string());
                Stopped::Diverged { step: done, what: what.to_owned() }
            }
            Err(error) => return Err(error).with_context(|| format!("in the run {name}")),
        };
        cuvee_fs::write_file(&folder.join(STOPPED), json::text(&stopped)?.as_bytes())?;
        Ok(Some(Made { status: Status::Stopped(stopped), here: true }))
    }

    /// Tells whoever follows the runs what another process has found of `run` so far.
    ///
    /// # Errors
    /// A damaged log.
    pub fn catch_up(&self, run: Run) -> anyhow::Result<()> {
        for (step, loss) in evaluations(&self.sweep.run_folder(run))? {
            self.watch.evaluated(run, step, loss);
        }
        Ok(())
    }
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// How.
    pub status: Status,
    /// Whether this process made its last step.
    pub here: bool,
}

/// The weights that an arm starts from are not those that its sweep began with.
fn other_weights(noun: &str, arm: &str, expected: Option<&str>, plan: &Plan) -> ConfigError {
    let short = |hash: Option<&str>| hash.map_or("none".to_owned(), |hash| format!("{hash:.12}…"));
    ConfigError(format!(
        "arm `{arm}`: model.init: expected the weights that the {noun} began with (sha256 {}), found others (sha256 {})\nhint: put the model back as it was, or begin a new {noun} with another --out",
        short(expected),
        short(plan.init_sha256.as_deref())
    ))
}

/// Refuses a run in `folder` that was made with another config than `config`, finished or not.
/// `noun` is what messages call the whole that it is to be part of, `init_sha256` what the weights
/// are that it starts from: they may lie elsewhere now.
///
/// # Errors
/// The keys that differ.
pub fn check_config(
    noun: &str,
    folder: &Path,
    config: &Config,
    init_sha256: Option<&str>,
) -> anyhow::Result<()> {
    let file = folder.join("config.toml");
    if !file.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", printable_path(&file)))?;
    let changes = changes(&Config::from_toml(&text)?, config)?;
    let changes = by_weights(changes, init_of(folder).as_deref(), init_sha256);
    let changed: Vec<String> =
        changes.iter().filter(|c| matters(&c.key)).map(ToString::to_string).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{} holds a run that is not of this {noun}; its config differs:\n  {}\nhint: move it away, or begin the {noun} in another folder with --out",
        shell_path(folder),
        changed.join("\n  ")
    ))
    .into())
}

/// What the weights were that the run in `folder` started from, as far as its plan says.
fn init_of(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct PlanFile {
        #[serde(default)]
        init_sha256: Option<String>,
    }
    let text = std::fs::read_to_string(folder.join("plan.json")).ok()?;
    serde_json::from_str::<PlanFile>(&text).ok()?.init_sha256
}

/// The evaluations that the log of a run holds: step and L_π.
///
/// # Errors
/// A damaged log.
pub fn evaluations(folder: &Path) -> anyhow::Result<Vec<(u64, f64)>> {
    let log = folder.join("metrics.jsonl");
    if !log.exists() {
        return Ok(Vec::new());
    }
    let valid = cuvee_data::Split::Valid.to_string();
    let records = cuvee_report::read_evaluations(&log)?.into_iter();
    let own = records.filter(|eval| eval.split == valid);
    Ok(own.map(|eval| (eval.step, eval.mean_loss)).collect())
}

/// Keeps the records of a run, tells the display, and stops it where everything stops or whoever
/// follows it says so.
struct Watcher<'a> {
    bench: &'a Bench<'a>,
    run: Run,
    name: &'a str,
    records: RunRecords,
    stop: &'a AtomicBool,
    /// The step at which it was found that it can no longer become better.
    futile: Option<u64>,
}

impl Watcher<'_> {
    fn look(&self) {
        if self.bench.stopping() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn warn(&mut self) {
        if let Some(warning) = self.records.warning() {
            self.bench.board.line(&format!("{}: {warning}", self.name));
        }
    }

    fn ask(&mut self, step: u64) {
        let stopping = || self.bench.stopping();
        match self.bench.watch.after_evaluation(self.run, step, &stopping) {
            Course::On => return,
            Course::Futile => self.futile = Some(step),
            Course::Stopping => {}
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Observer for Watcher<'_> {
    fn step(&mut self, r: &StepRecord) -> std::io::Result<()> {
        self.records.step(r)?;
        self.warn();
        if let Some(collapse) = &r.collapse {
            self.bench.board.line(&format!("warning: {}, {}", self.name, collapse.words()));
        }
        self.bench.board.step(self.name, r.step, r.loss, r.tokens_per_second);
        self.look();
        Ok(())
    }

    fn evaluating(&mut self, _step: u64, _windows: usize) {}

    fn evaluated(&mut self, _windows: usize) {
        self.look();
    }

    fn windows(&mut self, record: &WindowRecord) -> std::io::Result<()> {
        self.records.windows(record)
    }

    fn evaluation(&mut self, record: &EvalRecord) -> std::io::Result<()> {
        self.records.evaluation(record)?;
        self.bench.watch.evaluated(self.run, record.step, record.mean_loss);
        self.ask(record.step);
        Ok(())
    }

    fn held_out(&mut self, record: &EvalRecord) -> std::io::Result<()> {
        self.records.evaluation(record)
    }

    fn checkpoint(&mut self, _folder: &Path) {}

    fn sync_log(&mut self) -> std::io::Result<u64> {
        let length = self.records.sync()?;
        self.warn();
        Ok(length)
    }
}
