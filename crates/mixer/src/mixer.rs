//! The mixer: asks the strategies, draws the batch, keeps the books.
//!
//! In: [`MixtureSpec`], domains, [`RunSize`]; then observations. Out: a [`StepDraw`] a step, a pure
//! function of (seed, step, weight history). State is one count and one residual a domain plus
//! whatever the strategies keep. Everything that cannot work is refused when the mixer is built.

use crate::counts;
use crate::domain::{DomainId, DomainInfo, RunSize, check_domains};
use crate::error::{MixerError, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::mixture::{Counts, MixtureSpec, Normalise, Objective};
use crate::observation::Observation;
use crate::order::WindowOrder;
use crate::plan::{DomainPlan, check_epochs, plan};
use crate::seed::{self, CounterRng};
use crate::simplex::{LossWeights, Simplex};
use crate::state::{DomainState, MixerState, SlotState};
use crate::strategy::{Context, Setup, Slot, Strategy, StrategySpec};

/// Decides which sequences come next and how much each counts.
#[derive(Debug)]
pub struct Mixer {
    objective: Objective,
    counts: Counts,
    normalise: Normalise,
    domains: Vec<DomainInfo>,
    run: RunSize,
    importance: Simplex,
    sampling: Box<dyn Strategy>,
    loss: Box<dyn Strategy>,
    needs: ObservationRequest,
    orders: Vec<WindowOrder>,
    plan: Vec<DomainPlan>,
    step: u64,
    consumed: Vec<u64>,
    residuals: Vec<f64>,
}

/// Everything a step needs to know of the mixture. Lists have one entry a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDraw {
    /// The step, counted from 0.
    pub step: u64,
    /// p.
    pub sampling: Simplex,
    /// w.
    pub loss: LossWeights,
    /// α.
    pub objective: Simplex,
    /// m_i = α_i / p_i, after [`Normalise`]; 0 for a domain outside the objective.
    pub multipliers: Vec<f64>,
    /// What adaptive strategies believe, and where their bounds bite.
    pub estimates: Measurements,
    /// b_i: sequences of each domain in the batch; they sum to the batch size.
    pub counts: Vec<usize>,
    /// The sequences, grouped by domain in the order of the domains.
    pub draws: Vec<Draw>,
}

/// One sequence of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Where it comes from.
    pub domain: DomainId,
    /// Pass over the domain, from 0.
    pub epoch: u64,
    /// Place in the epoch's grid of windows.
    pub window: u64,
    /// First of its `context` + 1 tokens in the domain's circular training stream.
    pub start: u64,
    /// What its loss is multiplied by.
    pub multiplier: f64,
}

/// What the strategies agree on for a step.
pub(crate) struct Mixture {
    pub(crate) sampling: Simplex,
    pub(crate) loss: LossWeights,
    pub(crate) objective: Simplex,
    /// α_i / p_i, before any normalisation by the batch.
    pub(crate) multipliers: Vec<f64>,
    pub(crate) estimates: Measurements,
}

/// Bounds on a restored domain: a state from a file may hold anything.
const RESIDUAL_LIMIT: f64 = (1u64 << 32) as f64;
const CONSUMED_LIMIT: u64 = 1 << 62;

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
            return Err(MixerError::LossUnused { strategy: spec.loss.entry().name.to_owned() });
        }
        spec.sampling.check_objective(Slot::Sampling, spec.objective)?;
        spec.loss.check_objective(Slot::Loss, spec.objective)?;
        Self::with_strategies(spec, sampling, loss, domains, run)
    }

    /// As [`new`](Self::new), with strategies from outside the table in place of those that `spec`
    /// names.
    ///
    /// # Errors
    /// As [`new`](Self::new), except for what only the config can get wrong.
    pub fn with_strategies(
        spec: &MixtureSpec,
        sampling: Box<dyn Strategy>,
        loss: Box<dyn Strategy>,
        domains: &[DomainInfo],
        run: &RunSize,
    ) -> Result<Self> {
        run.check()?;
        check_domains(domains, run)?;
        let names: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
        let raw: Vec<f64> = domains.iter().map(|domain| domain.importance).collect();
        let order = |domain: &DomainInfo| {
            WindowOrder::new(run.seed, &domain.name, domain.tokens, run.context)
        };
        let mut mixer = Self {
            objective: spec.objective,
            counts: spec.counts,
            normalise: spec.normalise,
            importance: Simplex::normalise("importance", &names, &raw)?,
            orders: domains.iter().map(order).collect(),
            plan: Vec::new(),
            step: 0,
            consumed: vec![0; domains.len()],
            residuals: vec![0.0; domains.len()],
            domains: domains.to_vec(),
            run: *run,
            needs: sampling.needs().merge(loss.needs())?,
            sampling,
            loss,
        };
        let forecast = mixer.sampling.forecast();
        let first = mixer.mixture(0)?;
        if let (Some(sampling), Some(loss)) = (forecast, mixer.loss.forecast()) {
            let breakpoints = sampling.breakpoints().chain(loss.breakpoints());
            for step in breakpoints.filter(|step| *step < run.steps) {
                mixer.mixture(step)?;
            }
        }
        let rows = plan(domains, run, &first, forecast);
        if let Some(forecast) = forecast {
            check_epochs(domains, run, &rows, forecast)?;
        }
        mixer.plan = rows;
        Ok(mixer)
    }

    /// Draws the next batch.
    ///
    /// # Errors
    /// The run is over; an adaptive strategy's proposal is unusable, or it has used up a domain's
    /// `max_epochs`. The mixer is unchanged by an error.
    pub fn next_step(&mut self) -> Result<StepDraw> {
        let (step, run) = (self.step, &self.run);
        if step >= run.steps {
            return Err(MixerError::RunOver { steps: run.steps });
        }
        let mut mixture = self.mixture(step)?;
        let mut residuals = self.residuals.clone();
        let counts = self.draw_counts(mixture.sampling.values(), &mut residuals);
        self.check_exhaustion(&counts)?;

        if self.normalise == Normalise::Multipliers {
            let realised: f64 =
                counts.iter().zip(&mixture.multipliers).map(|(b, m)| *b as f64 * m).sum();
            // A batch of nothing but domains outside the objective has no scale to restore.
            if realised > 0.0 {
                let factor = run.batch_size as f64 / realised;
                mixture.multipliers.iter_mut().for_each(|m| *m *= factor);
            }
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
        self.residuals = residuals;
        self.step += 1;
        Ok(StepDraw {
            step,
            sampling: mixture.sampling,
            loss: mixture.loss,
            objective: mixture.objective,
            multipliers: mixture.multipliers,
            estimates: mixture.estimates,
            counts,
            draws,
        })
    }

    /// Tells both strategies what came out of the step just done.
    pub fn observe(&mut self, observation: &Observation) {
        self.loss.observe(observation);
        self.sampling.observe(observation);
    }

    /// What both strategies have to be told after a step, besides the training losses.
    pub fn needs(&self) -> ObservationRequest {
        self.needs
    }

    /// The state after the steps done so far.
    pub fn state(&self) -> MixerState {
        let slot = |strategy: &dyn Strategy| SlotState {
            strategy: strategy.describe(),
            state: strategy.save(),
        };
        let books = self.consumed.iter().zip(&self.residuals);
        MixerState {
            step: self.step,
            seed: self.run.seed,
            context: self.run.context,
            domains: self
                .domains
                .iter()
                .zip(books)
                .map(|(domain, (consumed, residual))| DomainState {
                    name: domain.name.clone(),
                    tokens: domain.tokens,
                    consumed: *consumed,
                    residual: *residual,
                })
                .collect(),
            sampling: slot(self.sampling.as_ref()),
            loss: slot(self.loss.as_ref()),
        }
    }

    /// Goes on from `state`, on a mixer built for the same data and seed. Shares, objective and
    /// batch size may differ: each domain's order goes on where it was.
    ///
    /// # Errors
    /// Another seed, context, list of domains or token count, or a strategy's state that does not
    /// fit.
    pub fn restore(&mut self, state: &MixerState) -> Result<()> {
        let differs = |what: &str, expected: String, found: String| {
            Err(MixerError::State { what: what.to_owned(), expected, found })
        };
        if state.seed != self.run.seed {
            return differs("seed", self.run.seed.to_string(), state.seed.to_string());
        }
        if state.context != self.run.context {
            return differs("context", self.run.context.to_string(), state.context.to_string());
        }
        let expected: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        let found: Vec<&str> = state.domains.iter().map(|domain| domain.name.as_str()).collect();
        if expected != found {
            return differs("the list of domains", expected.join(", "), found.join(", "));
        }
        for (domain, saved) in self.domains.iter().zip(&state.domains) {
            if domain.tokens != saved.tokens {
                let what = format!("the number of training tokens of domain `{}`", domain.name);
                return differs(&what, domain.tokens.to_string(), saved.tokens.to_string());
            }
            // Far beyond what any run reaches; within it no sum below can overflow.
            if saved.residual.is_nan() || saved.residual.abs() >= RESIDUAL_LIMIT {
                let what = format!("residual of domain `{}`", domain.name);
                return differs(
                    &what,
                    format!("within ±{RESIDUAL_LIMIT}"),
                    saved.residual.to_string(),
                );
            }
            if saved.consumed >= CONSUMED_LIMIT {
                let what = format!("the number of sequences consumed of domain `{}`", domain.name);
                return differs(
                    &what,
                    format!("below {CONSUMED_LIMIT}"),
                    saved.consumed.to_string(),
                );
            }
        }
        let before = self.sampling.save();
        self.sampling.load(&state.sampling.state)?;
        if let Err(error) = self.loss.load(&state.loss.state) {
            self.sampling.load(&before)?;
            return Err(error);
        }
        self.step = state.step;
        self.consumed = state.domains.iter().map(|domain| domain.consumed).collect();
        self.residuals = state.domains.iter().map(|domain| domain.residual).collect();
        Ok(())
    }

    /// What the whole run takes from each domain, in expectation.
    pub fn plan(&self) -> &[DomainPlan] {
        &self.plan
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
        let books = self.consumed.iter().zip(&self.orders);
        books.map(|(consumed, order)| *consumed as f64 / order.windows() as f64).collect()
    }

    /// E_i − N_i: how far each domain's count is behind its expectation, in sequences.
    pub fn residuals(&self) -> &[f64] {
        &self.residuals
    }

    /// Asks the strategies for `step`, the loss first since the sampling may depend on it, and
    /// combines the answers.
    fn mixture(&self, step: u64) -> Result<Mixture> {
        let names: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        let context = Context {
            step,
            domains: &self.domains,
            importance: &self.importance,
            loss_weight: None,
        };
        let role = |strategy: &dyn Strategy, what: &str| {
            format!("{what} (strategy {}, step {step})", strategy.describe())
        };
        let beliefs = self.loss.estimates(&context);
        let (loss, reweighted) = match self.objective {
            Objective::Sampled => (LossWeights::ones(names.len()), None),
            Objective::Importance => {
                let raw = self.loss.propose(&context)?;
                let role = role(self.loss.as_ref(), "loss_weight");
                (LossWeights::normalise(&role, &names, &self.importance, &raw)?, None)
            }
            Objective::Reweighted => {
                let raw = self.loss.propose(&context)?;
                let alpha =
                    Simplex::normalise(&role(self.loss.as_ref(), "objective"), &names, &raw)?;
                (LossWeights::implied(&names, &alpha, &self.importance)?, Some(alpha))
            }
        };
        let context = Context { loss_weight: Some(&loss), ..context };
        let raw = self.sampling.propose(&context)?;
        let estimates = self.sampling.estimates(&context).merge(beliefs);
        let sampling =
            Simplex::normalise(&role(self.sampling.as_ref(), "sampling_weight"), &names, &raw)?;
        let (objective, multipliers) = match (self.objective, reweighted) {
            (Objective::Sampled, _) => (sampling.clone(), vec![1.0; names.len()]),
            (_, alpha) => {
                let alpha = alpha.unwrap_or_else(|| Simplex::product(&self.importance, &loss));
                let multipliers = multipliers(&names, &alpha, &sampling, step)?;
                (alpha, multipliers)
            }
        };
        Ok(Mixture { sampling, loss, objective, multipliers, estimates })
    }

    /// Whole counts for this step; `residuals` are brought up to date.
    fn draw_counts(&self, sampling: &[f64], residuals: &mut [f64]) -> Vec<usize> {
        let batch_size = self.run.batch_size;
        match self.counts {
            Counts::Stratified => {
                let step = self.step;
                let deadline = |domain: usize, missing: f64| {
                    let shares = missing / batch_size as f64;
                    match self.sampling.forecast() {
                        Some(forecast) => forecast.first_step_reaching(domain, step + 1, shares),
                        // Saturates, to "never", for p = 0.
                        None => step.saturating_add((shares / sampling[domain]).ceil() as u64),
                    }
                };
                counts::stratified(residuals, sampling, batch_size, deadline)
            }
            Counts::Multinomial => {
                let rng = CounterRng::new(seed::derive(self.run.seed, seed::DATA));
                let counts = counts::multinomial(&rng.nested(self.step), sampling, batch_size);
                for ((residual, p), count) in residuals.iter_mut().zip(sampling).zip(&counts) {
                    *residual += batch_size as f64 * p - *count as f64;
                }
                counts
            }
        }
    }

    /// Refuses to exceed `max_epochs` where no forecast could be checked up front.
    fn check_exhaustion(&self, counts: &[usize]) -> Result<()> {
        if self.sampling.forecast().is_some() {
            return Ok(());
        }
        for (index, domain) in self.domains.iter().enumerate() {
            let windows = self.orders[index].windows();
            let consumed = self.consumed[index] + counts[index] as u64;
            if let Some(max_epochs) = domain.max_epochs
                && counts[index] > 0
                && consumed as f64 > (max_epochs * windows as f64).ceil()
            {
                return Err(MixerError::DomainExhausted {
                    domain: domain.name.clone(),
                    max_epochs,
                    windows,
                    step: self.step,
                });
            }
        }
        Ok(())
    }
}

/// m_i = α_i / p_i; 0 for a domain outside the objective, whatever its p.
fn multipliers(names: &[&str], alpha: &Simplex, p: &Simplex, step: u64) -> Result<Vec<f64>> {
    let quotient = |((alpha, p), name): ((&f64, &f64), &&str)| match alpha / p {
        _ if *alpha == 0.0 => Ok(0.0),
        m if m.is_finite() => Ok(m),
        _ => Err(MixerError::ZeroSampling { domain: (*name).to_owned(), step, objective: *alpha }),
    };
    alpha.values().iter().zip(p.values()).zip(names).map(quotient).collect()
}
