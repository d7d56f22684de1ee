//! The mixer: asks the strategies, draws the batch, keeps the counts.
//!
//! In: [`MixtureSpec`], domains, [`RunSize`]; then observations. Out: a [`StepDraw`] a step, a pure
//! function of (seed, step, weight history). State is one count and one residual a domain, and
//! whatever the strategies keep. Everything that cannot work is refused when the mixer is built.

use crate::collapse::{Collapse, Distribution};
use crate::counts;
use crate::domain::{self, DomainId, DomainInfo, RunSize, check_domains};
use crate::draw::{Draw, StepDraw};
use crate::error::{MixerError, Result};
use crate::limits::Limits;
use crate::measurements::{Measurements, ObservationRequest};
use crate::mixture::Mixture;
use crate::objective::{Counts, MixtureOptions, Normalise, Objective};
use crate::observation::Observation;
use crate::order::WindowOrder;
use crate::plan::{DomainPlan, check_epochs, plan};
use crate::rule;
use crate::seed::{self, CounterRng};
use crate::simplex::Simplex;
use crate::slot::Slot;
use crate::spec::MixtureSpec;
use crate::state::{DomainState, MixerState, SlotState};
use crate::strategy::{Setup, Strategy, StrategySpec};

/// Decides which sequences come next and how much each counts.
#[derive(Debug)]
pub struct Mixer {
    options: MixtureOptions,
    domains: Vec<DomainInfo>,
    run: RunSize,
    importance: Simplex,
    sampling: Box<dyn Strategy>,
    loss: Box<dyn Strategy>,
    request: ObservationRequest,
    orders: Vec<WindowOrder>,
    plan: Vec<DomainPlan>,
    effective_batch_size: f64,
    /// Domains that p and α amount to before anything is learned.
    begun: Begun,
    step: u64,
    consumed: Vec<u64>,
    residuals: Vec<f64>,
    /// Where stratified counts begin, one number a domain; see [`counts`].
    phases: Vec<f64>,
}

/// How many domains each distribution is spread over where a run begins.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    sampling: f64,
    objective: f64,
}

impl Mixer {
    /// Builds the strategies that `spec` names and plans the run.
    ///
    /// # Errors
    /// Every impossible request: empty or repeated domains, shares of unknown domains, missing,
    /// negative or all-zero shares, p = 0 where α > 0 at any forecast step, a domain shorter than a
    /// window, more epochs than `max_epochs`, a strategy in a slot, or under an objective, where it
    /// has no meaning or no effect.
    pub fn new(spec: &MixtureSpec, domains: &[DomainInfo], run: &RunSize) -> Result<Self> {
        run.check()?;
        check_domains(domains, run)?;
        let strategy = |slot: Slot, spec: &StrategySpec| spec.build(&Setup { slot, domains, run });
        let sampling = strategy(Slot::Sampling, &spec.sampling)?;
        let loss = strategy(Slot::Loss, &spec.loss)?;
        if spec.objective == Objective::Sampled && !matches!(spec.loss, StrategySpec::Uniform(_)) {
            let entry = spec.loss.entry();
            let expected = entry.objectives.weighing();
            return Err(MixerError::LossUnused { strategy: entry.name.to_owned(), expected });
        }
        spec.sampling.check_objective(Slot::Sampling, spec.objective)?;
        spec.loss.check_objective(Slot::Loss, spec.objective)?;
        Self::with_strategies(spec.options(), sampling, loss, domains, run)
    }

    /// As [`new`](Self::new), with strategies that need not be in the table.
    ///
    /// # Errors
    /// As [`new`](Self::new), except for what only a [`MixtureSpec`] can get wrong.
    pub fn with_strategies(
        options: MixtureOptions,
        sampling: Box<dyn Strategy>,
        loss: Box<dyn Strategy>,
        domains: &[DomainInfo],
        run: &RunSize,
    ) -> Result<Self> {
        run.check()?;
        check_domains(domains, run)?;
        let raw: Vec<f64> = domains.iter().map(|domain| domain.importance).collect();
        let order = |domain: &DomainInfo| {
            WindowOrder::new(run.seed, &domain.name, domain.tokens, run.context)
        };
        let mut mixer = Self {
            options,
            importance: Simplex::normalise("importance", &domain::names(domains), &raw)?,
            orders: domains.iter().map(order).collect(),
            plan: Vec::new(),
            effective_batch_size: run.batch_size as f64,
            begun: Begun::default(),
            step: 0,
            consumed: vec![0; domains.len()],
            residuals: vec![0.0; domains.len()],
            phases: domains.iter().map(|domain| phase(run.seed, &domain.name)).collect(),
            domains: domains.to_vec(),
            run: *run,
            request: sampling.observation_request().merge(loss.observation_request())?,
            sampling,
            loss,
        };
        let forecast = mixer.sampling.forecast();
        let first = mixer.mixture(0)?;
        mixer.begun = Begun {
            sampling: first.sampling.effective_domains(),
            objective: first.objective.effective_domains(),
        };
        let mut effective = mixer.effective(&first);
        if let (Some(sampling), Some(loss)) = (forecast, mixer.loss.forecast()) {
            let breakpoints = sampling.breakpoints().chain(loss.breakpoints());
            for step in breakpoints.filter(|step| *step < run.steps) {
                effective = effective.min(mixer.effective(&mixer.mixture(step)?));
            }
        }
        let mut rows = plan(domains, run, &first, forecast);
        match forecast {
            Some(forecast) => check_epochs(domains, run, &rows, forecast)?,
            None => {
                let limits = mixer.limits(0);
                for (index, row) in rows.iter_mut().enumerate() {
                    row.largest_share = limits.cap(index);
                }
            }
        }
        mixer.plan = rows;
        mixer.effective_batch_size = effective;
        Ok(mixer)
    }

    /// Draws the next batch.
    ///
    /// # Errors
    /// The run is over, or an adaptive strategy's proposal is unusable. The mixer is unchanged by
    /// an error.
    pub fn next_step(&mut self) -> Result<StepDraw> {
        let (step, run) = (self.step, &self.run);
        if step >= run.steps {
            return Err(MixerError::RunOver { steps: run.steps });
        }
        let mut mixture = self.mixture(step)?;
        let mut residuals = self.residuals.clone();
        let counts = self.draw_counts(mixture.sampling.values(), &mut residuals)?;

        if self.options.normalise == Normalise::Multipliers {
            mixture.normalise_multipliers(&counts, run.batch_size);
        }

        let mut draws = Vec::with_capacity(run.batch_size);
        for (index, count) in counts.iter().enumerate() {
            for nth in 0..*count as u64 {
                let window = self.orders[index].window(self.consumed[index] + nth);
                draws.push(Draw {
                    domain: DomainId(index),
                    epoch: window.epoch,
                    window: window.window,
                    start: window.start,
                    multiplier: mixture.multipliers[index],
                });
            }
        }
        for (consumed, count) in self.consumed.iter_mut().zip(&counts) {
            *consumed += *count as u64;
        }
        mixture.measurements.collapse = self.collapse(step, &mixture.sampling, &mixture.objective);
        self.residuals = residuals;
        self.step += 1;
        Ok(StepDraw {
            step,
            sampling: mixture.sampling,
            loss: mixture.loss,
            objective: mixture.objective,
            multipliers: mixture.multipliers,
            measurements: mixture.measurements,
            counts,
            draws,
        })
    }

    /// Tells the loss strategy what is known of the batch in `draw`, the step drawn last, before it
    /// is trained on, and weighs the batch anew by what it proposes then. Which sequences were
    /// drawn stays as it is, and so do p and the sampling strategy, which is not told.
    ///
    /// For what [`observation_request`](Self::observation_request) asks to be known before a step:
    /// `gram_every` and `excess`.
    ///
    /// # Errors
    /// A proposal that is unusable. `draw` is then unchanged, and the strategy has been told.
    pub fn observe_before(&mut self, draw: &mut StepDraw, observation: &Observation) -> Result<()> {
        self.loss.observe(observation);
        let mut mixture = Mixture::reweighed(
            draw.step,
            self.options.objective,
            &self.domains,
            &self.importance,
            draw.sampling.clone(),
            self.loss.as_ref(),
        )?;
        if self.options.normalise == Normalise::Multipliers {
            mixture.normalise_multipliers(&draw.counts, self.run.batch_size);
        }
        for sequence in &mut draw.draws {
            if let Some(multiplier) = mixture.multipliers.get(sequence.domain.0) {
                sequence.multiplier = *multiplier;
            }
        }
        draw.loss = mixture.loss;
        draw.objective = mixture.objective;
        draw.multipliers = mixture.multipliers;
        draw.measurements.objective_mean = mixture.measurements.objective_mean;
        draw.measurements.collapse = self.collapse(draw.step, &draw.sampling, &draw.objective);
        Ok(())
    }

    /// Tells both strategies what came out of the step just done.
    pub fn observe(&mut self, observation: &Observation) {
        self.loss.observe(observation);
        self.sampling.observe(observation);
    }

    /// What both strategies have to be told of a step, besides the training losses.
    pub fn observation_request(&self) -> ObservationRequest {
        self.request
    }

    /// The state after the steps done so far.
    pub fn state(&self) -> MixerState {
        let slot = |strategy: &dyn Strategy| SlotState {
            strategy: strategy.describe(),
            state: strategy.save(),
        };
        let counts = self.consumed.iter().zip(&self.residuals).zip(&self.phases);
        MixerState {
            step: self.step,
            seed: self.run.seed,
            context: self.run.context,
            domains: self
                .domains
                .iter()
                .zip(counts)
                .map(|(domain, ((consumed, residual), phase))| DomainState {
                    name: domain.name.clone(),
                    tokens: domain.tokens,
                    consumed: *consumed,
                    residual: *residual,
                    phase: *phase,
                })
                .collect(),
            sampling: slot(self.sampling.as_ref()),
            loss: slot(self.loss.as_ref()),
        }
    }

    /// Goes on from `state`, on a mixer built for the same data and seed. Shares, objective and
    /// batch size may differ: each domain's order goes on where it was. A strategy that learns must
    /// be the one that saved its state, with the same settings.
    ///
    /// # Errors
    /// Another seed, context, list of domains or token count, another strategy where either keeps a
    /// state, a strategy's state that does not fit, or less left of the domains than the steps to
    /// come need. The mixer is unchanged by an error.
    pub fn restore(&mut self, state: &MixerState) -> Result<()> {
        state.check(&self.domains, &self.run)?;
        let before = self.state();
        let restored = self.take(state);
        if restored.is_err() {
            self.take(&before)?;
        }
        restored
    }

    fn take(&mut self, state: &MixerState) -> Result<()> {
        load(Slot::Sampling, self.sampling.as_mut(), &state.sampling)?;
        load(Slot::Loss, self.loss.as_mut(), &state.loss)?;
        self.step = state.step;
        self.consumed = state.domains.iter().map(|domain| domain.consumed).collect();
        self.residuals = state.domains.iter().map(|domain| domain.residual).collect();
        self.phases = state.domains.iter().map(|domain| domain.phase).collect();
        // A state may say how its strategy observes.
        let (sampling, loss) = (self.sampling.as_ref(), self.loss.as_ref());
        self.request = sampling.observation_request().merge(loss.observation_request())?;
        match self.step < self.run.steps {
            true => self.mixture(self.step).map(drop),
            false => Ok(()),
        }
    }

    /// What the whole run takes from each domain, in expectation.
    pub fn plan(&self) -> &[DomainPlan] {
        &self.plan
    }

    /// B_eff of the first step; of a schedule, the least of its stages. See
    /// [`rule::effective_batch_size`].
    pub fn effective_batch_size(&self) -> f64 {
        self.effective_batch_size
    }

    /// What the strategies believe at the next step, `None` at the end of the run.
    ///
    /// # Errors
    /// As [`next_step`](Self::next_step).
    pub fn measurements(&self) -> Result<Option<Measurements>> {
        match self.step < self.run.steps {
            true => Ok(Some(self.mixture(self.step)?.measurements)),
            false => Ok(None),
        }
    }

    /// Whether the sampling weights are learned while training, so that the plan knows only the
    /// first.
    pub fn learns_sampling(&self) -> bool {
        self.sampling.forecast().is_none()
    }

    /// Whether any weights are learned while training.
    pub fn learns(&self) -> bool {
        self.learns_sampling() || self.loss.forecast().is_none()
    }

    /// Steps done; the next one has this number.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The domains.
    pub fn domains(&self) -> &[DomainInfo] {
        &self.domains
    }

    /// π, normalised.
    pub fn importance(&self) -> &Simplex {
        &self.importance
    }

    /// N_i: sequences drawn so far, one entry a domain.
    pub fn consumed(&self) -> &[u64] {
        &self.consumed
    }

    /// Passes made so far, one entry a domain: N_i / windows.
    pub fn epochs(&self) -> Vec<f64> {
        let counts = self.consumed.iter().zip(&self.orders);
        counts.map(|(consumed, order)| *consumed as f64 / order.windows() as f64).collect()
    }

    /// E_i − N_i: how far each domain's count is behind its expectation, in sequences.
    pub fn residuals(&self) -> &[f64] {
        &self.residuals
    }

    /// The weights of `step`.
    fn mixture(&self, step: u64) -> Result<Mixture> {
        let (sampling, loss) = (self.sampling.as_ref(), self.loss.as_ref());
        let objective = self.options.objective;
        let limit = |p: Simplex| match sampling.forecast() {
            // Checked when the mixer was built.
            Some(_) => Ok((p, Vec::new())),
            None => self.limits(step).project(step, &self.domains, &self.run, p),
        };
        Mixture::at_step(step, objective, &self.domains, &self.importance, sampling, loss, limit)
    }

    /// What of `step` is learned and has collapsed: first the objective, which sampling may follow.
    fn collapse(&self, step: u64, sampling: &Simplex, objective: &Simplex) -> Option<Collapse> {
        let of = |which: Distribution, strategy: &dyn Strategy, shares: &Simplex, begun: f64| {
            let learned = strategy.forecast().is_none() && !strategy.is_trial(step);
            let remedy = strategy.against_collapse();
            learned.then(|| Collapse::of(which, shares, begun, remedy)).flatten()
        };
        // Where p is the objective, the loss strategy has no say.
        let weighs = self.options.objective != Objective::Sampled;
        let loss = Some(self.loss.as_ref()).filter(|_| weighs);
        let objective = loss
            .and_then(|loss| of(Distribution::Objective, loss, objective, self.begun.objective));
        let sampled =
            || of(Distribution::Sampling, self.sampling.as_ref(), sampling, self.begun.sampling);
        objective.or_else(sampled)
    }

    /// What is left of the domains at `step`, the next one.
    fn limits(&self, step: u64) -> Limits {
        Limits::at_step(step, &self.domains, &self.run, &self.consumed, &self.residuals)
    }

    fn effective(&self, mixture: &Mixture) -> f64 {
        let (objective, p) = (mixture.objective.values(), mixture.sampling.values());
        rule::effective_batch_size(self.run.batch_size, objective, p)
    }

    /// Whole counts for this step; `residuals` are brought up to date.
    ///
    /// # Errors
    /// [`MixerError::DomainExhausted`] where they exceed a domain's `max_epochs`, which neither a
    /// forecast nor limits on p leave room for.
    fn draw_counts(&self, sampling: &[f64], residuals: &mut [f64]) -> Result<Vec<usize>> {
        let batch_size = self.run.batch_size;
        let forecast = self.sampling.forecast();
        let mut counts = match self.options.counts {
            Counts::Stratified => match forecast {
                None => counts::extrapolated(residuals, sampling, &self.phases, batch_size),
                Some(forecast) => {
                    let next = self.step + 1;
                    let deadline = |domain: usize, missing: f64| {
                        forecast.first_step_reaching(domain, next, missing / batch_size as f64)
                    };
                    counts::stratified(residuals, sampling, &self.phases, batch_size, deadline)
                }
            },
            Counts::Multinomial => {
                let rng = CounterRng::new(seed::derive(self.run.seed, seed::DATA));
                let counts = counts::multinomial(&rng.nested(self.step), sampling, batch_size);
                for ((residual, p), count) in residuals.iter_mut().zip(sampling).zip(&counts) {
                    *residual += batch_size as f64 * p - *count as f64;
                }
                counts
            }
        };
        if forecast.is_none() {
            let limits = self.limits(self.step);
            limits.keep(&mut counts, residuals, sampling);
            if let Some(domain) = limits.exceeded(&counts) {
                let info = &self.domains[domain];
                return Err(MixerError::DomainExhausted {
                    domain: info.name.clone(),
                    max_epochs: info.max_epochs.unwrap_or(f64::INFINITY),
                    windows: self.orders[domain].windows(),
                    step: self.step,
                });
            }
        }
        Ok(counts)
    }
}

/// Loads a strategy's state, which must be of the same strategy with the same settings. They are
/// compared once it is loaded, since a state of an older form says how its strategy goes on.
fn load(slot: Slot, strategy: &mut dyn Strategy, saved: &SlotState) -> Result<()> {
    let differs = saved.check(slot, strategy);
    match strategy.load(&saved.state) {
        Ok(()) => saved.check(slot, strategy),
        Err(error) => Err(differs.err().unwrap_or(error)),
    }
}

/// Where the stratified counts of a domain begin in a run: uniform over seeds, and independent of
/// what other domains there are.
fn phase(seed: u64, domain: &str) -> f64 {
    CounterRng::new(seed::derive(seed::derive(seed, seed::DATA), domain)).unit(0)
}
