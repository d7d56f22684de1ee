//! What a comparison will show, how long it takes and how much disk it needs, before anything runs.

use std::path::Path;

use cuvee_compare::{Comparison, Resolution, Role, power_table};
use cuvee_data::{Corpus, Split};
use cuvee_mixer::ObservationRequest;
use cuvee_words::{counted, shell_path};
use serde_json::json;

use super::design::{ArmPlan, Design, window_tokens};
use super::one_run::{self, Status};
use super::speed::Sharing;
use super::verdict;
use crate::config::ConfigError;
use crate::session::Session;

/// A forward pass costs a third of a step's forward and backward.
const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// Bytes of a step in the metrics log, and of a domain in it: measured on runs of 3 and 8 domains.
const STEP_BYTES: u64 = 250;
const STEP_DOMAIN_BYTES: u64 = 330;

/// Bytes of a window's loss in an evaluation's file.
const WINDOW_BYTES: u64 = 28;

/// What is forecast.
pub struct Forecast<'a> {
    design: &'a Design,
    sharing: Sharing,
    folder: &'a Path,
    /// Runs without a result.
    runs: usize,
    /// Seconds of all of them; `None` where no step was timed.
    seconds: Option<f64>,
    /// Bytes that they write, at most at once.
    bytes: u64,
    /// Arms that are tested.
    tested: usize,
    parameters: u64,
    tokens: u64,
    steps: u64,
}

impl<'a> Forecast<'a> {
    /// Of the runs in `folder` that have no result yet.
    pub fn new(
        design: &'a Design,
        plans: &[ArmPlan],
        corpus: &Corpus,
        sharing: Sharing,
        folder: &'a Path,
    ) -> Self {
        let baseline = &plans[design.baseline];
        let config = &design.arms[design.baseline].config;
        let evaluated = window_tokens(
            &corpus.domains,
            Split::Valid,
            config.eval.sequences,
            config.train.context,
        );
        let per_step = config.train.tokens_per_step().max(1) as f64;
        let evaluations = 1 + evaluations(config.eval.every, baseline.steps);
        // Time in steps of the baseline.
        let (mut runs, mut steps_left, mut bytes) = (0, 0.0, 0);
        for (arm, plan) in plans.iter().enumerate() {
            for &seed in &design.seeds {
                let status = one_run::status(&design.run_folder(folder, arm, seed), plan.steps);
                let done = match status {
                    Ok(Status::Finished | Status::Stopped(_)) => continue,
                    Ok(Status::Unfinished(step)) => step,
                    Err(_) => 0,
                };
                runs += 1;
                let left = (plan.steps - done.min(plan.steps)) as f64;
                // A batch of another size takes as much longer.
                let length = plan.tokens as f64 / baseline.tokens.max(1) as f64;
                let own = &design.arms[arm].config;
                let (sequences, context) = (own.eval.tune_sequences, own.train.context);
                let tuned = window_tokens(&corpus.domains, Split::Tune, sequences, context);
                steps_left += left * length * (1.0 + extra(&plan.request));
                let forward = left * measurements(&plan.request) * tuned as f64
                    + (evaluations * evaluated) as f64;
                steps_left += forward * FORWARD_SHARE / per_step;
                bytes += run_bytes(&design.arms[arm].config, plan, corpus.domains.len(), evaluated);
            }
        }
        let seconds = sharing.seconds_per_step.map(|s| steps_left * s / sharing.jobs as f64);
        Self {
            design,
            sharing,
            folder,
            runs,
            seconds,
            bytes,
            tested: design.arms.iter().filter(|arm| arm.role == Role::Arm).count(),
            parameters: baseline.model.parameters(),
            tokens: baseline.tokens,
            steps: baseline.steps,
        }
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

    /// Prints the forecast; `pilot` is the folder of an earlier comparison.
    ///
    /// # Errors
    /// A pilot that cannot be read.
    pub fn print(&self, pilot: Option<&Path>, session: &Session) -> anyhow::Result<()> {
        let pilot = pilot.map(verdict::read).transpose()?;
        let (spec, seeds) = (&self.design.spec, self.design.seeds.len());
        let mut counts: Vec<usize> = vec![3, 4, 5, 6, 8, 10, 12];
        counts.push(seeds);
        counts.sort_unstable();
        counts.dedup();
        let table = power_table(counts, self.tested, spec.alpha);
        session.say(self.words(&table, pilot.as_ref()));
        let row = |r: &Resolution| {
            json!({
                "seeds": r.seeds, "detectable": r.detectable,
                "detectable_corrected": r.detectable_corrected, "equivalent": r.equivalent,
            })
        };
        session.emit(&json!({
            "folder": self.folder,
            "arms": self.design.arms.iter().map(|arm| &arm.name).collect::<Vec<_>>(),
            "seeds": self.design.seeds,
            "runs": self.runs,
            "steps": self.steps,
            "tokens": self.tokens,
            "parameters": self.parameters,
            "jobs": self.sharing.jobs,
            "threads": self.sharing.threads,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "resolution_in_standard_deviations": table.iter().map(row).collect::<Vec<_>>(),
            "pilot": pilot.map(|pilot| scatter(&pilot).into_iter().map(|(name, s)| {
                json!({ "arm": name, "sd_seeds": s })
            }).collect::<Vec<_>>()),
        }))
    }

    fn words(&self, table: &[Resolution], pilot: Option<&Comparison>) -> String {
        let (spec, seeds) = (&self.design.spec, self.design.seeds.len());
        let mut text = format!(
            "Plan: {} left to make ({} × {}), {} of {} tokens each, {} parameters\n{} at once with {} each{}; {} on the disk\n",
            counted(self.runs, "run"),
            counted(self.design.arms.len(), "arm"),
            counted(seeds, "seed"),
            counted(self.steps, "step"),
            cuvee_report::count(self.tokens as f64),
            cuvee_report::count(self.parameters as f64),
            self.sharing.jobs,
            counted(self.sharing.threads, "thread"),
            self.seconds.map_or_else(String::new, |s| format!(
                ", about {} in all",
                cuvee_report::duration(s)
            )),
            cuvee_report::bytes(self.bytes),
        );
        text.push_str(&format!(
            "\nWhat a number of seeds resolves, in units of s, the standard deviation over seeds of an\narm's difference to `{}` (α = {}, four of five comparisons):\n\n  seeds   detectable, 1 arm   the same, {} corrected   margin that shows equivalence\n",
            self.design.arms[self.design.baseline].name,
            spec.alpha,
            counted(self.tested, "arm"),
        ));
        for row in table {
            let mark = if row.seeds == seeds { "  ← this comparison" } else { "" };
            text.push_str(&format!(
                "  {:>5}   {:>17.2}   {:>23.2}   {:>28.2}{mark}\n",
                row.seeds, row.detectable, row.detectable_corrected, row.equivalent
            ));
        }
        let known = pilot.map(scatter).unwrap_or_default();
        if known.is_empty() {
            text.push_str(&format!(
                "\ns is not known before anything has run; it differs tenfold between arms (from about 0.01\nnats for arms that draw the baseline's text to 0.1 for skewed sampling weights). The margin is\n{} nats.\nhint: make a short comparison first and name its folder: --plan --pilot DIR",
                spec.margin
            ));
            return text;
        }
        let now = table.iter().find(|row| row.seeds == seeds);
        text.push_str(&format!(
            "\nBy the scatter of the pilot, {} will resolve:\n",
            counted(seeds, "seed")
        ));
        for (name, s) in known {
            let resolved = now.map(|row| row.in_nats(s));
            let line = resolved.map_or_else(String::new, |row| {
                format!(
                    "  {name:<16} s {s:.4}: differences from {:.4} nats on, {:.4} corrected; equivalence within {:.4}\n",
                    row.detectable, row.detectable_corrected, row.equivalent
                )
            });
            text.push_str(&line);
        }
        text.push_str(&format!("The margin is {} nats.", spec.margin));
        text
    }
}

/// s of every arm that has one.
fn scatter(comparison: &Comparison) -> Vec<(String, f64)> {
    let arms = comparison.arms.iter();
    arms.filter_map(|arm| Some((arm.name.clone(), arm.sd_seeds?))).collect()
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

/// Evaluations after the first step.
fn evaluations(every: u64, steps: u64) -> u64 {
    match every {
        0 => 1,
        every => steps.div_ceil(every),
    }
}

/// Bytes of a run's folder, at most.
fn run_bytes(
    config: &crate::config::Config,
    plan: &ArmPlan,
    domains: usize,
    evaluated: u64,
) -> u64 {
    let parameters = 4 * plan.model.parameters();
    // A checkpoint holds the parameters and two moments; one more is there while the next is
    // written. The export holds the parameters alone.
    let checkpoints = 3 * (config.checkpoint.keep as u64 + 1) + 1;
    let log = plan.steps * (STEP_BYTES + STEP_DOMAIN_BYTES * domains as u64);
    // TensorBoard's files hold the same numbers under longer names, in fewer digits.
    let logs = log * (1 + u64::from(config.log.tensorboard));
    let windows = evaluated / config.train.context.max(1) as u64;
    let evaluations = (1 + evaluations(config.eval.every, plan.steps)) * windows * WINDOW_BYTES;
    parameters * checkpoints + logs + evaluations
}
