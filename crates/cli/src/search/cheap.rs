//! The cheap runs: which there are, what makes them, and what the finished ones say.

use std::path::{Path, PathBuf};

use cuvee_data::{Share, Split};
use cuvee_report::{EvalRecord, Record, read_metrics};
use cuvee_search::document::{DeclaredRun, RoundsDocument};
use cuvee_search::swarm::{Swarm, SwarmRun};
use cuvee_words::{counted, printable_path};

use super::declared::{Search, not_yet};
use super::mixtures::arms;
use super::registration::read_document;
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

    /// What tables call a run: its folder in that of the search.
    pub fn run_name(self, run: &DeclaredRun) -> String {
        format!("{}/{}/seed-{}", self.name(), run.mixture, run.seed)
    }

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

/// Runs that are planned.
pub struct Planned {
    /// Their arms.
    pub arms: Vec<Arm>,
    /// What is known of these.
    pub plans: Vec<ArmPlan>,
    /// The runs.
    pub runs: Vec<Run>,
    /// The folder that their folders are in.
    pub folder: PathBuf,
}

impl Planned {
    /// As what makes them takes them.
    pub fn sweep<'a>(&'a self, search: &'a Search) -> Sweep<'a> {
        Sweep {
            noun: "search",
            folder: &self.folder,
            arms: &self.arms,
            plans: &self.plans,
            corpus: &search.corpus,
            device: search.device,
        }
    }
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
        let planned = self.batch(batch)?;
        let runs = part_of(&planned.runs, share);
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
        planned.sweep(self).run(&[runs], self.jobs, &Unwatched, self.session)
    }

    /// The runs of a batch, planned.
    ///
    /// # Errors
    /// An arm that cannot be trained.
    pub fn batch(&self, batch: Batch) -> anyhow::Result<Planned> {
        self.of_proxies(&self.declared_runs(batch)?, batch)
    }

    /// Cheap runs of a batch, planned.
    ///
    /// # Errors
    /// An arm that cannot be trained.
    pub fn of_proxies(&self, runs: &[DeclaredRun], batch: Batch) -> anyhow::Result<Planned> {
        let (arms, runs) = arms(&self.design.proxy, &self.declared.domains, runs);
        self.planned(arms, runs, self.batch_folder(batch))
    }

    /// `runs` of `arms` in `folder`, planned.
    ///
    /// # Errors
    /// An arm that cannot be trained.
    pub fn planned(
        &self,
        mut arms: Vec<Arm>,
        runs: Vec<Run>,
        folder: PathBuf,
    ) -> anyhow::Result<Planned> {
        let plans = sweep::resolve(&mut arms, 0, &self.corpus, self.device, self.arithmetic())?;
        sweep::pin_threads(&mut arms, self.declared.threads);
        Ok(Planned { arms, plans, runs, folder })
    }

    /// Reads the runs of `batches`, which are to be finished, and says which have no result. `what`
    /// names them in the error, `stage` makes them.
    ///
    /// # Errors
    /// A run that is not finished; as [`Search::read`].
    pub fn read_all(&self, batches: &[Batch], what: &str, stage: Batch) -> anyhow::Result<Made> {
        let made = self.read(batches)?;
        if made.missing > 0 {
            return not_yet(self, &format!("{what}, {} more", made.missing), stage.name());
        }
        for why in &made.left_out {
            self.session.say(format!("note: left out: {why}"));
        }
        Ok(made)
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
            let Planned { arms, plans, runs, folder: of_batch } = self.batch(batch)?;
            for (run, declared) in runs.iter().zip(&self.declared_runs(batch)?) {
                let name = batch.run_name(declared);
                let folder = arms[run.arm].run_folder(&of_batch, run.seed);
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
