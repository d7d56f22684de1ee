//! How long the runs that are left take and how much disk they need, before any is made.

use std::path::{Path, PathBuf};

use cuvee_data::Split;
use cuvee_mixer::ObservationRequest;
use cuvee_words::{counted, shell_path};

use super::arms::{ArmPlan, Run, Sweep, window_tokens};
use super::one_run::{Status, status};
use super::step_times::{FORWARD_SHARE, StepTimes};
use crate::config::{Config, ConfigError};

/// Bytes of a step in the metrics log, and of a domain in it: measured on runs of 3 and 8 domains.
const STEP_BYTES: u64 = 250;
const STEP_DOMAIN_BYTES: u64 = 330;

/// Bytes of a window's loss in an evaluation's file.
const WINDOW_BYTES: u64 = 28;

/// What runs cost.
#[derive(Debug, Clone)]
pub struct Cost {
    folder: PathBuf,
    /// Runs without a result.
    pub runs: usize,
    /// Seconds of all of them; `None` where no step was timed.
    pub seconds: Option<f64>,
    /// Bytes that they write, at most at once.
    pub bytes: u64,
}

impl Cost {
    /// Of those of `runs` that have no result yet, where the arms' steps take so long.
    pub fn new(sweep: &Sweep, runs: &[Run], times: Option<&StepTimes>) -> Self {
        let domains = &sweep.corpus.domains;
        let (mut count, mut seconds, mut bytes) = (0, 0.0, 0);
        for &run in runs {
            let (config, plan) = (&sweep.arms[run.arm].config, &sweep.plans[run.arm]);
            let done = match status(&sweep.run_folder(run), plan.steps) {
                Ok(Status::Finished | Status::Stopped(_)) => continue,
                Ok(Status::Unfinished(step)) => step,
                Err(_) => 0,
            };
            count += 1;
            let left = (plan.steps - done.min(plan.steps)) as f64;
            let windows =
                |split, sequences| window_tokens(domains, split, sequences, config.train.context);
            let evaluated =
                evaluations(config, plan.steps) * windows(Split::Valid, config.eval.sequences);
            let tuned = windows(Split::Tune, config.eval.tune_sequences);
            let forward = left * measurements(&plan.request) * tuned as f64 + evaluated as f64;
            let forward = forward / config.train.tokens_per_step().max(1) as f64;
            seconds += times.map(|times| times.arms[run.arm]).map_or(0.0, |time| {
                left * (1.0 + extra(&plan.request)) * time.seconds + time.forward(forward)
            });
            bytes += run_bytes(config, plan, domains.len(), evaluated);
        }
        let seconds = times.map(|times| seconds / times.jobs as f64);
        Self { folder: sweep.folder.to_owned(), runs: count, seconds, bytes }
    }

    /// Refuses to begin where the disk cannot hold all runs.
    ///
    /// # Errors
    /// How much is needed and how much there is.
    pub fn check_disk(&self) -> Result<(), ConfigError> {
        let there = self.folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
        let Some(free) = cuvee_fs::free_space(there) else { return Ok(()) };
        if free >= self.bytes {
            return Ok(());
        }
        Err(ConfigError(format!(
            "{} need {} on the disk of {}, which has {} left\nhint: make room, name another disk with --out, or keep fewer checkpoints (checkpoint.keep)",
            counted(self.runs, "run"),
            cuvee_report::bytes(self.bytes),
            shell_path(there),
            cuvee_report::bytes(free)
        )))
    }
}

/// What the measurements before a step cost, in steps: a backward pass of each domain's sequences
/// to compare gradients, a forward pass of two models to compare losses.
fn extra(request: &ObservationRequest) -> f64 {
    let gram = request.gram_every.map_or(0.0, |every| 1.0 / every as f64);
    gram + if request.excess { 2.0 * FORWARD_SHARE } else { 0.0 }
}

/// Measurements of the tune split in a step, on average.
fn measurements(request: &ObservationRequest) -> f64 {
    let each = [request.held_out_every, request.held_out_also];
    each.iter().flatten().map(|every| 1.0 / *every as f64).sum()
}

/// Evaluations of a run, the one before the first step among them; one of the weights beside that
/// of their average counts, too.
fn evaluations(config: &Config, steps: u64) -> u64 {
    let after = match config.eval.every {
        0 => 1,
        every => steps.div_ceil(every),
    };
    (1 + after) * (1 + u64::from(config.average.as_ref().is_some_and(|average| average.raw)))
}

/// Bytes of a run's folder, at most, where its evaluations look at so many tokens.
fn run_bytes(config: &Config, plan: &ArmPlan, domains: usize, evaluated: u64) -> u64 {
    let parameters = 4 * plan.model.parameters();
    // A checkpoint holds the parameters, the state of the optimizer and maybe an average; one more
    // is there while the next is written. The export holds the parameters alone.
    let average = if config.average.is_some() { parameters } else { 0 };
    let held = parameters + plan.optimizer_bytes + average;
    let checkpoints = held * (config.checkpoint.keep as u64 + 1);
    let log = plan.steps * (STEP_BYTES + STEP_DOMAIN_BYTES * domains as u64);
    // TensorBoard's files hold the same numbers under longer names, in fewer digits.
    let logs = log * (1 + u64::from(config.log.tensorboard));
    let windows = evaluated / config.train.context.max(1) as u64;
    parameters + checkpoints + logs + windows * WINDOW_BYTES
}
