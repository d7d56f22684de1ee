//! The cheap runs: which there are, what makes them, and what the finished ones say.

use std::path::{Path, PathBuf};

use cuvee_data::{Share, Split};
use cuvee_report::{EvalRecord, Record, read_metrics};
use cuvee_search::document::{DeclaredRun, RoundsDocument};
use cuvee_search::swarm::{Swarm, SwarmRun};
use cuvee_words::{counted, printable_path};

use super::mixtures::arms;
use super::registration::read_document;
use super::search::Search;
use crate::config::ConfigError;
use crate::sweep::{self, Arm, ArmPlan, Run, Status, Stopped, Sweep, Unwatched, part_of};

/// Which of the cheap runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Those that tell whether to search.
    Pilot,
    /// The others that the design asks for.
    Swarm,
    /// Those that fits of the runs before ask for.
    Rounds,
}

impl Batch {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Pilot, Self::Swarm, Self::Rounds];

    /// The folder that they are in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pilot => "pilot",
            Self::Swarm => "swarm",
            Self::Rounds => "rounds",
        }
    }
}

/// The rounds' name in the folder of a search.
pub const ROUNDS: &str = "rounds.json";

/// What finished runs say.
pub struct Made {
    /// Those with a result.
    pub swarm: Swarm,
    /// Those without, and why, a sentence each.
    pub left_out: Vec<String>,
    /// Those that are not finished.
    pub missing: usize,
}

impl Search<'_> {
    /// The runs of a batch.
    ///
    /// # Errors
    /// Rounds that cannot be read.
    pub fn declared_runs(&self, batch: Batch) -> anyhow::Result<Vec<DeclaredRun>> {
        Ok(match batch {
            Batch::Pilot => self.declared.pilot.clone(),
            Batch::Swarm => self.declared.swarm.clone(),
            Batch::Rounds => {
                let rounds: Option<RoundsDocument> = read_document(&self.folder.join(ROUNDS))?;
                rounds.unwrap_or_default().rounds.into_iter().flat_map(|round| round.runs).collect()
            }
        })
    }

    /// The folder of a batch.
    pub fn batch_folder(&self, batch: Batch) -> PathBuf {
        self.folder.join(batch.name())
    }

    /// Makes the runs of a batch that have no result yet; of `share` only its part.
    ///
    /// # Errors
    /// [`crate::session::Interrupted`], or what the first run that failed says.
    pub fn make(&self, batch: Batch, share: Option<Share>) -> anyhow::Result<()> {
        let (arms, plans, runs) = self.batch_arms(batch)?;
        let folder = self.batch_folder(batch);
        let sweep = self.sweep(&folder, &arms, &plans);
        let runs = part_of(&runs, share);
        self.session.say(format!(
            "{}: {} of {} tokens each, {} parameters, {} at once with {} each",
            match batch {
                Batch::Pilot => "Pilot",
                Batch::Swarm => "Swarm",
                Batch::Rounds => "Rounds",
            },
            counted(runs.len(), "run"),
            cuvee_report::count(self.declared.proxy.tokens as f64),
            cuvee_report::count(self.declared.proxy.parameters as f64),
            counted(self.jobs, "run"),
            counted(self.declared.threads, "thread"),
        ));
        sweep.run(&[runs], self.jobs, &Unwatched, self.session)
    }

    /// The arms of a batch, their plans, and its runs.
    ///
    /// # Errors
    /// An arm that cannot be trained.
    pub fn batch_arms(&self, batch: Batch) -> anyhow::Result<(Vec<Arm>, Vec<ArmPlan>, Vec<Run>)> {
        let (mut arms, runs) =
            arms(&self.design.proxy, &self.declared.domains, &self.declared_runs(batch)?);
        let plans = sweep::resolve(&mut arms, 0, &self.corpus, self.device, self.arithmetic())?;
        sweep::pin_threads(&mut arms, self.declared.threads);
        Ok((arms, plans, runs))
    }

    /// `arms` as what makes their runs takes them.
    pub fn sweep<'b>(
        &'b self,
        folder: &'b Path,
        arms: &'b [Arm],
        plans: &'b [ArmPlan],
    ) -> Sweep<'b> {
        Sweep { noun: "search", folder, arms, plans, corpus: &self.corpus, device: self.device }
    }

    /// Reads the finished runs of `batches`, in their order.
    ///
    /// # Errors
    /// A run that cannot be read, or that is not of this search.
    pub fn read(&self, batches: &[Batch]) -> anyhow::Result<Made> {
        let domains: Vec<String> =
            self.declared.domains.iter().map(|domain| domain.name.clone()).collect();
        let available = self.declared.domains.iter().map(|domain| domain.tokens).collect();
        let mut made = Made {
            swarm: Swarm { targets: domains.clone(), domains, available, runs: Vec::new() },
            left_out: Vec::new(),
            missing: 0,
        };
        for &batch in batches {
            let (arms, plans, runs) = self.batch_arms(batch)?;
            for (run, declared) in runs.iter().zip(&self.declared_runs(batch)?) {
                let name = format!("{}/{}/seed-{}", batch.name(), declared.mixture, run.seed);
                let folder = arms[run.arm].run_folder(&self.batch_folder(batch), run.seed);
                let started_from = plans[run.arm].init_sha256.as_deref();
                let config = arms[run.arm].run_config(run.seed);
                sweep::check_config("search", &folder, &config, started_from)?;
                match sweep::status(&folder, self.declared.proxy.steps)? {
                    Status::Finished => {
                        made.swarm.runs.push(self.finished(&folder, name, declared)?);
                    }
                    Status::Stopped(Stopped::Diverged { step, what }) => made
                        .left_out
                        .push(format!("{name} ended after step {step} without a result: {what}")),
                    Status::Stopped(Stopped::Futile { .. }) | Status::Unfinished(_) => {
                        made.missing += 1;
                    }
                }
            }
        }
        Ok(made)
    }

    /// What a finished run says.
    fn finished(
        &self,
        folder: &Path,
        name: String,
        declared: &DeclaredRun,
    ) -> anyhow::Result<SwarmRun> {
        let log = folder.join("metrics.jsonl");
        let records = read_metrics(&log)?;
        let (steps, tokens) = (self.declared.proxy.steps, self.declared.proxy.tokens);
        let context = self.design.proxy.train.context as f64;
        let mut run = SwarmRun {
            name,
            kind: declared.kind.clone(),
            seed: declared.seed,
            block: declared.block,
            steps,
            tokens: tokens as f64,
            sampling: declared.sampling.clone(),
            objective: declared.objective.clone(),
            seen: vec![0.0; self.declared.domains.len()],
            tune: Vec::new(),
            valid: Vec::new(),
            curve: Vec::new(),
        };
        let per_step = tokens / steps.max(1);
        let (tune, valid) = (Split::Tune.to_string(), Split::Valid.to_string());
        for record in &records {
            match record {
                Record::Step(step) => {
                    for (seen, (_, domain)) in run.seen.iter_mut().zip(&step.domains.0) {
                        *seen += domain.sequences as f64 * context;
                    }
                }
                Record::Eval(eval) if eval.split == tune => {
                    let at = (eval.step * per_step) as f64;
                    run.curve.retain(|(tokens, _)| *tokens < at);
                    run.curve.push((at, self.losses(eval)));
                }
                Record::Eval(eval) if eval.split == valid && eval.step == steps => {
                    run.valid = self.losses(eval);
                }
                Record::Eval(_) => {}
            }
        }
        match run.curve.last() {
            Some((at, losses)) if *at == tokens as f64 && !run.valid.is_empty() => {
                run.tune = losses.clone();
            }
            _ => {
                return Err(ConfigError(format!(
                    "{}: expected the losses of both held-out splits after step {steps}, found none\nhint: remove the run's folder to make the run again",
                    printable_path(&log)
                ))
                .into());
            }
        }
        Ok(run)
    }

    /// The losses of the targets, which are the domains.
    fn losses(&self, eval: &EvalRecord) -> Vec<f64> {
        let loss = |name: &String| eval.domains.get(name).map_or(f64::NAN, |domain| domain.loss);
        self.declared.domains.iter().map(|domain| loss(&domain.name)).collect()
    }
}
