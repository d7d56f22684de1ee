//! The training run: a plan, an engine, a mixer and prepared domains in; metrics, checkpoints and a
//! trained engine out.
//!
//! [`Trainer::run`] is the loop, top to bottom. It goes round once more than there are steps, so
//! that the last evaluation and the last checkpoint are no special case. It draws nothing itself
//! (the mixer does), computes nothing itself (the engine does) and prints nothing itself (the
//! [`Observer`] does).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cuvee_data::{Domain, Shard, Split, Tokenizer};
use cuvee_mixer::{DomainId, LossStatistics, Mixer, ObservationRequest, StepDraw};

use crate::batch::read_batch;
use crate::checkpoint::{self, CheckpointSpec, RunState};
use crate::engine::Engine;
use crate::error::{Result, TrainError};
use crate::evaluate::{
    EvalPlan, EvalSpec, Evaluation, bits_per_byte, check_split, evaluate, sequence_losses,
};
use crate::schedule::learning_rate;
use crate::spec::TrainSpec;

/// The knobs of the loop.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Optimizer updates in all.
    pub steps: u64,
    /// Batch, context, learning rate.
    pub train: TrainSpec,
    /// When and on how much to evaluate.
    pub eval: EvalSpec,
    /// When to checkpoint.
    pub checkpoint: CheckpointSpec,
    /// π, one a domain, sums to 1.
    pub importance: Vec<f64>,
    /// RUN/checkpoints.
    pub checkpoints: PathBuf,
}

/// One step as the log tells it.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// (1/B) Σ m ℓ, nats a token.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Global norm before clipping.
    pub gradient_norm: f64,
    /// Of this step alone, evaluation and checkpoints left out.
    pub tokens_per_second: f64,
    /// In the order of the config.
    pub domains: Vec<DomainStep>,
    /// Domains whose loss weight a clamp holds.
    pub clamped: Vec<String>,
    /// Domains whose sampling weight sits at the exploration floor.
    pub floored: Vec<String>,
}

/// One domain's part in a step.
#[derive(Debug, Clone)]
pub struct DomainStep {
    /// The domain.
    pub name: String,
    /// π.
    pub importance: f64,
    /// Mean loss of its sequences, nats a token; `None` when it had none.
    pub loss: Option<f64>,
    /// p.
    pub sampling_weight: f64,
    /// w.
    pub loss_weight: f64,
    /// m.
    pub multiplier: f64,
    /// b: its sequences in this batch.
    pub sequences: usize,
    /// Passes over its training split so far.
    pub epochs: f64,
    /// v̂: the estimated root of its gradient variance, where a strategy keeps one.
    pub gradient_deviation: Option<f64>,
}

/// What a strategy that steers by held-out text is shown of a domain.
#[derive(Debug, Clone)]
pub struct HeldOut {
    /// The domain.
    pub name: String,
    /// Mean and variance of the losses of its tune split's windows.
    pub statistics: LossStatistics,
    /// The mean loss in bits per byte of the split.
    pub bits_per_byte: f64,
}

/// Who watches a run: the metrics log, the progress bar. An error from it stops the run.
pub trait Observer {
    /// A step is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it, a full disk say.
    fn step(&mut self, report: &StepReport) -> std::io::Result<()>;
    /// An evaluation over `windows` windows begins.
    fn evaluating(&mut self, step: u64, windows: usize);
    /// `windows` more windows are evaluated.
    fn evaluated(&mut self, windows: usize);
    /// An evaluation is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it.
    fn evaluation(&mut self, evaluation: &Evaluation) -> std::io::Result<()>;
    /// The tune split was measured after `step` steps, for the strategies.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it.
    fn held_out(&mut self, step: u64, domains: &[HeldOut]) -> std::io::Result<()>;
    /// A checkpoint is on disk.
    fn checkpoint(&mut self, folder: &Path);
    /// Puts the log on the disk and says its length in bytes: a resumed run cuts the log there.
    ///
    /// # Errors
    /// Whatever keeps it from the disk.
    fn sync_log(&mut self) -> std::io::Result<u64>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Ctrl-C: the step was finished and a checkpoint written.
    Interrupted,
}

/// A run in progress.
pub struct Trainer<'a> {
    plan: &'a RunPlan,
    domains: &'a [Domain],
    tokenizer: &'a Tokenizer,
    mixer: Mixer,
    /// What the strategies want measured besides the losses of the steps.
    needs: ObservationRequest,
    engine: Box<dyn Engine>,
    state: RunState,
    /// The step whose checkpoint is on disk already.
    saved: Option<u64>,
}

impl<'a> Trainer<'a> {
    /// A run at its beginning. `config` is the resolved config (TOML), kept in every checkpoint.
    ///
    /// # Errors
    /// [`TrainError::SplitTooShort`] when a domain cannot be evaluated.
    pub fn new(
        plan: &'a RunPlan,
        domains: &'a [Domain],
        tokenizer: &'a Tokenizer,
        mixer: Mixer,
        mut engine: Box<dyn Engine>,
        config: String,
    ) -> Result<Self> {
        check_split(domains, Split::Valid, plan.train.context)?;
        let needs = mixer.observation_request();
        if needs.held_out_every.is_some() {
            check_split(domains, Split::Tune, plan.train.context)?;
        }
        // Refused here if the engine does not have it, rather than at the first step that asks.
        engine.collect(needs.gradient.map(|gradient| gradient.estimator))?;
        let state = RunState::new(mixer.state(), config, engine.precision(), domains);
        Ok(Self { plan, domains, tokenizer, mixer, needs, engine, state, saved: None })
    }

    /// Takes up the run frozen in `folder`.
    ///
    /// # Errors
    /// Other data than the checkpoint's, a damaged checkpoint, or a mixer that does not fit it.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let mut state = checkpoint::load_state(folder)?;
        state.check_data(self.domains)?;
        self.mixer.restore(&state.mixer)?;
        checkpoint::load_engine(folder, self.engine.as_mut(), state.updates)?;
        // How often to evaluate and save may differ from the checkpoint's; what is written from
        // here on says what was asked.
        state.config = std::mem::take(&mut self.state.config);
        // The engine's from here on, whatever it was.
        state.precision = self.state.precision;
        self.saved = Some(state.step);
        self.state = state;
        Ok(())
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The engine, trained as far as the run got.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Trains to the end, or until `interrupted` turns true.
    ///
    /// # Errors
    /// A loss or gradient that is not finite (before the update, naming step and domain), an id
    /// beyond the vocabulary, or a file that cannot be written. The checkpoints written so far
    /// stay.
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        let names: Vec<String> = self.domains.iter().map(|d| d.name.clone()).collect();
        let shards: Vec<&Shard> = self.domains.iter().map(|d| d.shard(Split::Train)).collect();
        shards.iter().for_each(|shard| shard.advise_random());
        let vocab_size = self.engine.model().vocab_size;
        loop {
            let done = self.state.step;
            let finished = done >= self.plan.steps;
            let evaluation_due = finished || done == 0 || is_due(done, self.plan.eval.every);
            if evaluation_due && !interrupted.load(Ordering::Relaxed) {
                self.evaluate_once(observer, interrupted)?;
            }
            // Also while evaluating: what is missing then is evaluated when the run goes on.
            let stopping = interrupted.load(Ordering::Relaxed);
            let save = finished || stopping || is_due(done, self.plan.checkpoint.every);
            if save && self.saved != Some(done) {
                self.state.log_bytes =
                    observer.sync_log().map_err(|e| TrainError::Log { step: done, source: e })?;
                self.state.mixer = self.mixer.state();
                let (root, keep) = (&self.plan.checkpoints, self.plan.checkpoint.keep);
                let folder = checkpoint::save(
                    root,
                    keep,
                    self.engine.as_ref(),
                    &self.state,
                    self.tokenizer,
                )?;
                observer.checkpoint(&folder);
                self.saved = Some(done);
            }
            if stopping {
                return Ok(Outcome::Interrupted);
            }
            if finished {
                return Ok(Outcome::Finished);
            }

            let clock = Instant::now();
            let draw = self.mixer.next_step()?;
            let batch =
                read_batch(&draw.draws, &shards, &names, self.plan.train.context, vocab_size)?;
            let rate = learning_rate(&self.plan.train, done, self.plan.steps);
            self.engine.collect(self.needs.estimator_at(done))?;
            let output = self
                .engine
                .step(&batch, rate)
                .map_err(|e| place(e, done + 1, &batch.domains, &names))?;
            let mut observation =
                draw.observation(&output.sequence_losses).with_gradient(output.gradient);
            if self.needs.held_out_every.is_some_and(|every| is_due(done + 1, every)) {
                observation = observation.with_held_out(self.measure_held_out(done + 1, observer)?);
            }
            self.mixer.observe(&observation);
            let seconds = clock.elapsed().as_secs_f64();

            let tokens = batch.inputs.len() as u64;
            self.state.step += 1;
            self.state.updates += 1;
            self.state.tokens += tokens;
            self.state.seconds += seconds;
            observer
                .step(&StepReport {
                    step: self.state.step,
                    tokens: self.state.tokens,
                    loss: output.loss,
                    learning_rate: rate,
                    gradient_norm: output.gradient_norm,
                    tokens_per_second: tokens as f64 / seconds.max(1e-9),
                    domains: self.domain_steps(&names, &draw, &observation.training),
                    clamped: names_of(&draw.measurements.clamped, &names),
                    floored: names_of(&draw.measurements.floored, &names),
                })
                .map_err(|e| TrainError::Log { step: done + 1, source: e })?;
        }
    }

    /// Evaluates unless the checkpoint this run came from had done so already.
    fn evaluate_once(
        &mut self,
        observer: &mut dyn Observer,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let step = self.state.step;
        if self.state.last_evaluation.as_ref().is_some_and(|e| e.step == step) {
            return Ok(());
        }
        let plan = EvalPlan {
            domains: self.domains,
            importance: &self.plan.importance,
            split: Split::Valid,
            sequences: self.plan.eval.sequences,
            context: self.plan.train.context,
        };
        observer.evaluating(step, plan.windows());
        let mut progress = |windows| {
            observer.evaluated(windows);
            if interrupted.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let Some(evaluation) = evaluate(self.engine.as_mut(), &plan, step, &mut progress)? else {
            return Ok(());
        };
        observer.evaluation(&evaluation).map_err(|e| TrainError::Log { step, source: e })?;
        if step == 0 {
            self.state.first_evaluation = Some(evaluation.clone());
        }
        self.state.last_evaluation = Some(evaluation);
        // A checkpoint of this step that is on disk already lacks it.
        self.saved = None;
        Ok(())
    }

    /// Mean and variance of the losses of every domain's tune split, for the strategies that steer
    /// by them.
    fn measure_held_out(
        &mut self,
        step: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Option<LossStatistics>>> {
        let plan = EvalPlan {
            domains: self.domains,
            importance: &self.plan.importance,
            split: Split::Tune,
            sequences: self.plan.eval.tune_sequences,
            context: self.plan.train.context,
        };
        // Part of the step: breaking it off would leave a step that was drawn and trained on but
        // not observed.
        let losses =
            sequence_losses(self.engine.as_mut(), &plan, step, &mut |_| ControlFlow::Continue(()))?;
        let statistics: Vec<_> =
            losses.unwrap_or_default().iter().map(|l| LossStatistics::from_losses(l)).collect();
        let named = |(domain, statistics): (&Domain, &Option<LossStatistics>)| {
            let statistics = (*statistics)?;
            let bits_per_byte = bits_per_byte(domain, Split::Tune, statistics.mean);
            Some(HeldOut { name: domain.name.clone(), statistics, bits_per_byte })
        };
        let shown: Vec<HeldOut> = self.domains.iter().zip(&statistics).filter_map(named).collect();
        observer.held_out(step, &shown).map_err(|e| TrainError::Log { step, source: e })?;
        Ok(statistics)
    }

    fn domain_steps(
        &self,
        names: &[String],
        draw: &StepDraw,
        losses: &[Option<LossStatistics>],
    ) -> Vec<DomainStep> {
        let epochs = self.mixer.epochs();
        names
            .iter()
            .enumerate()
            .map(|(i, name)| DomainStep {
                name: name.clone(),
                importance: self.plan.importance[i],
                loss: losses[i].map(|statistics| statistics.mean),
                sampling_weight: draw.sampling.values()[i],
                loss_weight: draw.loss.values()[i],
                multiplier: draw.multipliers[i],
                sequences: draw.counts[i],
                epochs: epochs[i],
                gradient_deviation: draw.measurements.gradient_deviation.as_ref().map(|v| v[i]),
            })
            .collect()
    }
}

/// Says where a value that is not finite was met: the step, and the domain of its sequence.
fn place(error: TrainError, step: u64, domain_of: &[usize], names: &[String]) -> TrainError {
    let sequence = error.non_finite_sequence();
    match sequence.and_then(|j| domain_of.get(j)).and_then(|&d| names.get(d)) {
        Some(name) => error.at_step(step).in_domain(name),
        None => error.at_step(step),
    }
}

fn names_of(domains: &[DomainId], names: &[String]) -> Vec<String> {
    domains.iter().filter_map(|domain| names.get(domain.0)).cloned().collect()
}

/// Every `every` steps, the first time after `every` of them; never when `every` is 0.
fn is_due(done: u64, every: u64) -> bool {
    done > 0 && every > 0 && done.is_multiple_of(every)
}
