//! The training run: a plan, an engine, a mixer and prepared domains in; records, checkpoints and a
//! trained engine out.
//!
//! [`Trainer::run`] is the loop, top to bottom. It goes round once more than there are steps, so
//! that the last evaluation and the last checkpoint are no special case. The mixer draws, the
//! engine computes, and the [`Observer`] is handed the records of what happened.

mod before;
mod clock;
mod first;
mod observer;
mod record;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_data::{Domain, Shard, Split, Tokenizer};
use cuvee_kernels::{Alone, Collective};
use cuvee_mixer::{
    DomainId, LossStatistics, Measurements, Mixer, MixerError, Observation, ObservationRequest,
    Simplex,
};
use cuvee_report::{EvalRecord, RAW_SPLIT as RAW, RAW_TUNE_SPLIT as RAW_TUNE, WindowRecord};

use crate::batch::{Batch, BatchReader, check_documents};
use crate::checkpoint::{self, DataFingerprint, RunState};
use crate::engine::Engine;
use crate::error::{Result, TrainError};
use crate::evaluate::{EvalPlan, Evaluation, check_split, evaluate, sequence_losses, window_count};
use crate::hf::{ExportTokenizer, Inherited};
use crate::optim::learning_rate;
use crate::ranks::{any_rank, check_same_on_ranks};
use crate::spec::{Averaging, CheckpointSpec, EvalSpec, TrainSpec};
use clock::StepClock;
pub use first::FirstEvaluation;
pub use observer::{Observer, Outcome};
use record::{StepFigures, collapse_record, held_out_record, step_record};

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
    /// The average of the weights that evaluations and exports are of, if any.
    pub average: Option<Averaging>,
    /// Whether the weights themselves are evaluated beside their average.
    pub raw: bool,
    /// π, one a domain.
    pub importance: Simplex,
    /// The folder of the run's checkpoints.
    pub checkpoints: PathBuf,
    /// What checkpoints carry on of the model that the run starts from, if it does.
    pub inherited: Option<Inherited>,
}

/// A run in progress.
pub struct Trainer<'a> {
    plan: &'a RunPlan,
    domains: &'a [Domain],
    tokenizer: &'a Tokenizer,
    mixer: Mixer,
    /// What the strategies want measured besides the losses of the steps.
    request: ObservationRequest,
    engine: Box<dyn Engine>,
    /// What losses are compared with, for a strategy that compares them.
    reference: Option<Box<dyn Engine>>,
    /// Those that train together.
    ranks: Arc<dyn Collective>,
    state: RunState,
    /// The step whose checkpoint is on disk already.
    saved: Option<u64>,
    /// Whether the engine has been handed the average for good, at the end of the run.
    handed_over: bool,
    /// The evaluation before the first step, where other runs begin with the same model.
    first: Option<Arc<FirstEvaluation>>,
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
        check_documents(domains, &plan.train)?;
        let request = mixer.observation_request();
        if request.held_out_every.is_some() || plan.eval.tune {
            check_split(domains, Split::Tune, plan.train.context)?;
        }
        // Refused here if the engine does not have it, rather than at the first step that asks.
        engine.collect(request.gradient.map(|gradient| gradient.estimator))?;
        engine.seed_projections(request.gradient.and_then(|gradient| gradient.seed));
        let (precision, optimizer) = (engine.precision(), plan.train.optimizer.name);
        let data = DataFingerprint::of(domains, plan.train.by_document());
        let state = RunState::new(mixer.state(), config, precision, optimizer, data);
        Ok(Self {
            plan,
            domains,
            tokenizer,
            mixer,
            request,
            engine,
            reference: None,
            ranks: Arc::new(Alone),
            state,
            saved: None,
            handed_over: false,
            first: None,
        })
    }

    /// Takes in the model that losses are compared with, which is never trained. Before
    /// [`restore`](Self::restore).
    ///
    /// # Errors
    /// [`TrainError::Config`] for another vocabulary or a shorter context than the run's,
    /// [`TrainError::Tensor`].
    pub fn compare_with(&mut self, reference: Box<dyn Engine>) -> Result<()> {
        let (own, other) = (self.engine.model(), reference.model());
        if other.vocab_size != own.vocab_size {
            return Err(TrainError::config(
                REFERENCE,
                format!("a model with the {} ids of this run's vocabulary", own.vocab_size),
                format!("one with {}", other.vocab_size),
                "train the reference with this run's tokenizer",
            ));
        }
        let context = self.plan.train.context;
        if other.longest() < context {
            return Err(TrainError::config(
                REFERENCE,
                format!("a model that sees the {context} tokens of train.context"),
                format!("one that sees {}", other.longest()),
                "train the reference with this context or a longer one, or lower train.context",
            ));
        }
        self.state.reference = Some(before::fingerprint(reference.as_ref())?);
        self.reference = Some(reference);
        Ok(())
    }

    /// Trains together with other ranks, each of which makes the same calls on a trainer of the
    /// same run; after [`compare_with`](Self::compare_with). Rank 0 writes the checkpoints. The
    /// observers of all are told the same.
    ///
    /// # Errors
    /// [`TrainError::Config`] for several ranks and an engine or an estimator that is not for them.
    pub fn join(&mut self, ranks: Arc<dyn Collective>) -> Result<()> {
        let shard = self.plan.train.shard_optimizer;
        self.engine.join(ranks.clone(), shard)?;
        if let Some(reference) = &mut self.reference {
            reference.join(ranks.clone(), false)?;
        }
        self.ranks = ranks;
        let reference = self.state.reference.clone().unwrap_or_default();
        check_same_on_ranks(&*self.ranks, &[("reference model", reference)])
    }

    /// Checks that every rank has the same weights and the same state of the mixture, as each
    /// evaluation does again.
    ///
    /// # Errors
    /// [`TrainError::RanksDiffer`], [`TrainError::Ranks`].
    pub fn check_ranks(&self) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mixer = serde_json::to_string(&self.mixer.state()).unwrap_or_default();
        let weights = before::fingerprint(self.engine.as_ref())?;
        let things = [("state of the mixture", mixer), ("hash of the weights", weights)];
        check_same_on_ranks(&*self.ranks, &things)
    }

    /// Goes on with the run whose checkpoint `folder` is.
    ///
    /// # Errors
    /// Other data than the checkpoint's, a damaged checkpoint, or a mixer that does not fit it.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let state = checkpoint::load_state(folder)?;
        state.check_data(&self.state, folder)?;
        state.check_optimizer(&self.state, folder)?;
        state.check_reference(&self.state, folder)?;
        self.mixer.restore(&state.mixer)?;
        // What is observed, and when, is as the run began.
        self.request = self.mixer.observation_request();
        self.engine.seed_projections(self.request.gradient.and_then(|gradient| gradient.seed));
        checkpoint::load_engine(folder, self.engine.as_mut(), state.updates)?;
        if self.averages(state.step) {
            checkpoint::load_average(folder, self.engine.as_mut())?;
        }
        self.saved = Some(state.step);
        self.state = state.resumed(self.state.clone());
        Ok(())
    }

    /// Shares the evaluation before the first step with other runs of the same engine, model,
    /// initial parameters, and evaluation windows: the first that gets there computes it.
    pub fn share_first_evaluation(&mut self, first: Arc<FirstEvaluation>) {
        self.first = Some(first);
    }

    /// Where the run stands.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// What the strategies believe at the next step, `None` at the end of the run.
    ///
    /// # Errors
    /// [`TrainError::Mixer`] where the step cannot be drawn.
    pub fn measurements(&self) -> Result<Option<Measurements>> {
        Ok(self.mixer.measurements()?)
    }

    /// The engine, trained as far as the run got; where an average of the weights is kept, with it
    /// in their place once the run is finished.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// The engine, for what changes nothing of the model, such as generating text.
    pub fn engine_mut(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    /// Trains to the end, or until `interrupted` turns true, on any rank.
    ///
    /// # Errors
    /// A loss or gradient that is not finite (before the update, naming step and domain), an id
    /// beyond the vocabulary, or a file that cannot be written. The checkpoints written so far
    /// stay. A step that cannot be drawn or weighed, after a checkpoint of the steps before it.
    /// [`TrainError::Ranks`], [`TrainError::RanksDiffer`] where several train together.
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        interrupted: &AtomicBool,
    ) -> Result<Outcome> {
        if self.request.excess && self.reference.is_none() {
            return Err(TrainError::config(
                REFERENCE,
                "a model to compare losses with",
                "none",
                "give the trainer one with `Trainer::compare_with`",
            ));
        }
        let names: Vec<String> = self.domains.iter().map(|d| d.name.clone()).collect();
        let shards = self.domains.iter().map(|d| d.shard(Split::Train));
        shards.for_each(Shard::advise_random);
        let (seed, vocab_size) = (self.mixer.state().seed, self.engine.model().vocab_size);
        let mut reader = BatchReader::new(self.domains, &self.plan.train, seed, vocab_size)?;
        loop {
            let done = self.state.step;
            let finished = done >= self.plan.steps;
            let evaluation_due = finished || done == 0 || is_due(done, self.plan.eval.every);
            if evaluation_due && !self.stopping(interrupted)? {
                self.evaluate_once(observer, interrupted)?;
            }
            // Also while evaluating: what is missing then is evaluated when the run goes on.
            let stopping = self.stopping(interrupted)?;
            let save = finished || stopping || is_due(done, self.plan.checkpoint.every);
            if save && self.saved != Some(done) {
                self.save(observer)?;
            }
            if stopping {
                return Ok(Outcome::Interrupted);
            }
            if finished {
                if self.averages(done) && !std::mem::replace(&mut self.handed_over, true) {
                    self.engine.exchange_average()?;
                }
                return Ok(Outcome::Finished);
            }

            let mut clock = StepClock::new();
            // Where the batch is looked at before its step, what a failure then goes back to.
            let looks = self.request.excess || self.request.gram_at(done);
            let before_draw = looks.then(|| self.mixer.state());
            let mut draw = match self.mixer.next_step() {
                Ok(draw) => draw,
                Err(error) => return Err(self.not_drawn(error, observer)),
            };
            let mut batch = reader.read(&draw.draws)?;
            let model = self.engine.model();
            let rate = learning_rate(&self.plan.train, model, done, self.plan.steps);
            if let Some(known) = self
                .look_at(&batch, &names, rate)
                .map_err(|e| place(e, done + 1, batch.domains(), &names))?
            {
                if let Err(error) = self.mixer.observe_before(&mut draw, &known) {
                    if let Some(before_draw) = &before_draw {
                        self.mixer.restore(before_draw)?;
                    }
                    return Err(self.not_drawn(error, observer));
                }
                batch.reweigh(&draw.draws);
            }
            self.engine.collect(self.request.estimator_at(done))?;
            let mut output = self
                .engine
                .step(&batch, rate)
                .map_err(|e| place(e, done + 1, batch.domains(), &names))?;
            let averaging = self.plan.average;
            if let Some(share) = averaging.and_then(|a| a.share(done + 1, self.plan.steps)) {
                self.engine.move_average(share)?;
            }
            let mut observation = draw
                .observation(&output.sequence_losses)
                .with_gradient(std::mem::take(&mut output.gradient));
            if let Some(number) = self.request.held_out_at(done + 1) {
                let turn = if self.request.rotate { number } else { 0 };
                // Of the weights themselves, whatever the evaluations are of.
                let name = if self.averages(done + 1) { RAW_TUNE } else { Split::Tune.name() };
                let measured =
                    clock.beside(|| self.measure_held_out(done + 1, turn, name, observer))?;
                observation =
                    observation.with_held_out(measured).with_held_out_windows(self.tune_windows());
            }
            self.mixer.observe(&observation);
            let seconds = clock.seconds();

            let tokens = batch.predicted_tokens();
            self.state.step += 1;
            self.state.updates += 1;
            self.state.tokens += tokens;
            self.state.seconds += seconds;
            // Said once a run, however often it is resumed.
            let collapse = draw.measurements.collapse.as_ref();
            let collapse = collapse
                .filter(|_| self.state.collapse.is_none())
                .map(|found| collapse_record(self.state.step, &names, found));
            self.state.collapse = self.state.collapse.take().or_else(|| collapse.clone());
            let figures = StepFigures {
                step: self.state.step,
                tokens: self.state.tokens,
                learning_rate: rate,
                tokens_per_second: tokens as f64 / seconds.max(1e-9),
                clip: self.plan.train.clip,
                importance: &self.plan.importance,
                epochs: &self.mixer.epochs(),
                collapse,
            };
            let record = step_record(&figures, &names, &draw, &output, &observation.training);
            observer.step(&record).map_err(|e| TrainError::Log { step: done + 1, source: e })?;
        }
    }

    /// Whether any rank was interrupted.
    fn stopping(&self, interrupted: &AtomicBool) -> Result<bool> {
        any_rank(&*self.ranks, interrupted.load(Ordering::Relaxed))
    }

    /// What the strategies want to know of the next step's batch before it is trained on; `None`
    /// where they do not.
    fn look_at(
        &mut self,
        batch: &Batch,
        names: &[String],
        rate: f64,
    ) -> Result<Option<Observation>> {
        let step = self.state.step;
        let mut known = None;
        if self.request.gram_at(step) {
            let gram = before::gram(self.engine.as_mut(), batch, names, rate)?;
            known = Some(Observation::before_step(step).with_gram(gram));
        }
        if let Some(reference) = self.reference.as_mut().filter(|_| self.request.excess) {
            let (engine, reference) = (self.engine.as_mut(), reference.as_mut());
            let excess = before::excess(engine, reference, batch, names.len())?;
            let others = known.unwrap_or_else(|| Observation::before_step(step));
            known = Some(others.with_excess(excess));
        }
        Ok(known)
    }

    /// What becomes of a run whose next step cannot be drawn or weighed: the steps done are good,
    /// and saved, so that whoever mends the cause goes on from there.
    fn not_drawn(&mut self, source: MixerError, observer: &mut dyn Observer) -> TrainError {
        let step = self.state.step;
        if self.saved != Some(step)
            && let Err(error) = self.save(observer)
        {
            return error;
        }
        TrainError::Draw { step, source }
    }

    /// Writes a checkpoint of the steps done.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let step = self.state.step;
        self.state.log_bytes =
            observer.sync_log().map_err(|e| TrainError::Log { step, source: e })?;
        self.state.mixer = self.mixer.state();
        let (root, keep) = (&self.plan.checkpoints, self.plan.checkpoint.keep);
        let tokenizer = ExportTokenizer {
            json: self.tokenizer.json(),
            end_of_text: self.tokenizer.end_of_text(),
            inherited: self.plan.inherited.as_ref(),
        };
        let engine = self.engine.as_ref();
        if self.ranks.rank() == 0 {
            let folder = checkpoint::save(root, keep, engine, &self.state, tokenizer)?;
            observer.checkpoint(&folder);
        } else if self.plan.train.shard_optimizer {
            checkpoint::hand_over(engine)?;
        }
        // However long a file system takes over it.
        self.ranks.barrier()?;
        self.saved = Some(step);
        Ok(())
    }

    /// Whether there is an average of the weights after `step` steps.
    fn averages(&self, step: u64) -> bool {
        self.plan.average.is_some_and(|average| average.begun(step, self.plan.steps))
    }

    /// What `work` makes of the trainer with the average of the weights in their place, where there
    /// is one. The weights are back afterwards, also where it fails.
    fn averaged<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !self.averages(self.state.step) || self.handed_over {
            return work(self);
        }
        self.engine.exchange_average()?;
        let result = work(self);
        self.engine.exchange_average()?;
        result
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
        self.check_ranks()?;
        // Recorded once all is there: what is broken off is evaluated again.
        let raw = match self.plan.raw && self.averages(step) {
            true => match self.evaluate_weights(observer, interrupted)? {
                None => return Ok(()),
                known => known,
            },
            false => None,
        };
        let evaluation = self.averaged(|own| {
            let found = own.evaluate_weights(observer, interrupted)?;
            let Some((evaluation, windows)) = found else { return Ok(None) };
            if let Some((evaluation, windows)) = raw {
                let windows = WindowRecord { split: RAW.to_owned(), ..windows };
                observer
                    .windows(&windows)
                    .and_then(|()| observer.held_out(&evaluation.record(RAW)))
                    .map_err(|e| TrainError::Log { step, source: e })?;
            }
            observer
                .windows(&windows)
                .and_then(|()| observer.evaluation(&evaluation.record(Split::Valid.name())))
                .map_err(|e| TrainError::Log { step, source: e })?;
            // A model that was not trained yet tells nothing of a mixture.
            if own.plan.eval.tune && step > 0 {
                own.measure_held_out(step, 0, Split::Tune.name(), observer)?;
            }
            Ok(Some(evaluation))
        })?;
        let Some(evaluation) = evaluation else { return Ok(()) };
        if step == 0 {
            self.state.first_evaluation = Some(evaluation.clone());
        }
        self.state.last_evaluation = Some(evaluation);
        // A checkpoint of this step that is on disk already lacks it.
        self.saved = None;
        Ok(())
    }

    /// What the valid split costs the weights that the engine has now; `None` where it was broken
    /// off.
    fn evaluate_weights(
        &mut self,
        observer: &mut dyn Observer,
        interrupted: &AtomicBool,
    ) -> Result<Option<(Evaluation, WindowRecord)>> {
        let step = self.state.step;
        let plan = EvalPlan {
            domains: self.domains,
            importance: &self.plan.importance,
            split: Split::Valid,
            sequences: self.plan.eval.sequences,
            context: self.plan.train.context,
            document_mask: self.plan.train.document_mask,
            turn: 0,
        };
        observer.evaluating(step, plan.windows());
        let ranks = self.ranks.clone();
        let mut progress = |windows| {
            observer.evaluated(windows);
            // Ranks that do not answer are told of by whoever asks them next.
            match any_rank(&*ranks, interrupted.load(Ordering::Relaxed)) {
                Ok(false) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        };
        let mut evaluate = || evaluate(self.engine.as_mut(), &plan, step, &mut progress);
        match self.first.as_ref().filter(|_| step == 0) {
            Some(first) => first.get_or_compute(evaluate),
            None => evaluate(),
        }
    }

    /// Windows of each domain's tune split.
    fn tune_windows(&self) -> Vec<u64> {
        let context = self.plan.train.context;
        let tokens = |domain: &Domain| domain.shard(Split::Tune).tokens();
        self.domains.iter().map(|domain| window_count(tokens(domain), context)).collect()
    }

    /// Mean and variance of the losses of every domain's tune split, for the strategies that steer
    /// by them and for whoever chooses between runs; `turn` moves the windows on.
    fn measure_held_out(
        &mut self,
        step: u64,
        turn: u64,
        name: &str,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Option<LossStatistics>>> {
        let plan = EvalPlan {
            domains: self.domains,
            importance: &self.plan.importance,
            split: Split::Tune,
            sequences: self.plan.eval.tune_sequences,
            context: self.plan.train.context,
            document_mask: self.plan.train.document_mask,
            turn,
        };
        // Never broken off: that would leave a step that was drawn and trained on but not observed.
        let losses =
            sequence_losses(self.engine.as_mut(), &plan, step, &mut |_| ControlFlow::Continue(()))?;
        let losses = losses.unwrap_or_default();
        let statistics: Vec<_> = losses.iter().map(|l| LossStatistics::from_losses(l)).collect();
        let record = held_out_record(step, self.domains, &self.plan.importance, &statistics);
        let record = EvalRecord { split: name.to_owned(), ..record };
        let windows = WindowRecord { split: name.to_owned(), ..plan.window_record(step, &losses) };
        observer
            .windows(&windows)
            .and_then(|()| observer.held_out(&record))
            .map_err(|e| TrainError::Log { step, source: e })?;
        Ok(statistics)
    }
}

/// The key of the model that losses are compared with.
const REFERENCE: &str = "mixture.loss.reference";

/// Says where a value that is not finite was met: the step, and the domain of its sequence, unless
/// that is known already.
fn place(error: TrainError, step: u64, domain_of: &[DomainId], names: &[String]) -> TrainError {
    if error.domain().is_some() {
        return error.at_step(step);
    }
    let sequence = error.non_finite_sequence();
    match sequence.and_then(|j| domain_of.get(j)).and_then(|d| names.get(d.0)) {
        Some(name) => error.at_step(step).in_domain(name),
        None => error.at_step(step),
    }
}

/// Every `every` steps, the first time after `every` of them; never when `every` is 0.
fn is_due(done: u64, every: u64) -> bool {
    done > 0 && every > 0 && done.is_multiple_of(every)
}
