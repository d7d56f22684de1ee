//! ADO: sampling weights for the domains whose losses fall fastest, by a scaling law of each that
//! is fitted while training.
//!
//! Source: Jiang, Zhou, Feng, Malladi, Kolter, *Adaptive Data Optimization: Dynamic Sample
//! Selection with Scaling Laws*, arXiv:2410.11820, and its released code. Every `fit_every` steps,
//! for each domain, L(n) = e^E + e^A n^{−a} is fitted to its training losses, n the sequences of
//! the whole run ([`rule::fit_power_law`] has the fit). Then at every step
//!
//! slope_i = max(a_i, 0.05) (L̂_i − e^{E_i}) / n, ρ ∝ μ_i √h_i slope_i, each at least 0.01,
//! p = 0.9 p̄ + 0.1 ρ, p̄ ← running mean of ρ over all steps, h ← 0.9 h + 0.1 · share of the batch.
//!
//! μ is the prior, which also serves until `start_step`. The release takes √(h(1 − h)) for √h:
//! `credit = "spread"`.
//!
//! The release starts at step 1,000 of 60,000, ignores the losses of as many steps and fits every
//! 1,000; here the latter two are 1/60 of the run by default. **Derived**: a law has three
//! parameters and the losses of single batches are noisy, so that it is fitted to 32 points at
//! least, and the first fit is by default at twice the steps ignored, or 32 steps after them where
//! that is later, when there are as many. It fits to every tenth step of a smoothed history that it
//! keeps whole. Here the history is at most 128 means over blocks of steps that
//! double in length as the run goes on, so that a checkpoint stays small. A domain that a batch
//! lacks adds nothing to its history; where a domain cannot be fitted yet it counts at the mean
//! slope of the others. Where there are more than 50 domains the floor is half an even share.
//!
//! It changes what is trained on, so it needs `objective = "sampled"`.
//!
//! In: training losses. Out: p. State: the history, a law a domain, h, p̄ and p. Costs a few
//! milliseconds a domain and fit. Known weaknesses: a fit to a short or noisy history says little,
//! and E ≥ 0.5, which is 1.65 nats a token, suits large vocabularies: see `min_log_irreducible`.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::last_losses::filled;
use super::loss_history::LossHistory;
use super::saved;
use crate::error::Result;
use crate::observation::Observation;
use crate::rule::{self, PowerLaw, PowerLawBounds};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "ado",
    slots: Slots::Sampling,
    summary: "by the slope of a scaling law fitted to each domain's training losses: ρ ∝ prior·√h·slope, h its recent share of batches",
    source: "arXiv:2410.11820",
    example: r#"{ strategy = "ado", floor = 0.01, recent = 0.1, smoothing = 0.9, min_exponent = 0.05, min_log_irreducible = 0.5, credit = "share" }"#,
    objectives: SAMPLED_ALONE,
};

/// Points of its history that a law of a domain is fitted to at least. **Derived**.
const LEAST_POINTS: usize = 32;

/// p = (1 − `recent`) p̄ + `recent` ρ, ρ ∝ μ_i √h_i · max(a_i, 0.05) (L̂_i − e^{E_i}).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ado {
    /// Steps until the first fit, on the prior. `None`: twice the steps ignored, or 32 more than
    /// those where that is later. A domain is not fitted before its history has 32 points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_step: Option<u64>,
    /// Steps at the start whose losses are not fitted to. `None`: a sixtieth of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_steps: Option<u64>,
    /// Steps between fits. `None`: a sixtieth of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit_every: Option<u64>,
    /// Least ρ_i before ρ is normalised, from 0 to below 1; half an even share where it would be
    /// more than that.
    pub floor: f64,
    /// How much of p is the latest ρ and not its mean, above 0 and at most 1.
    pub recent: f64,
    /// How much of the past h keeps a step, from 0 to below 1.
    pub smoothing: f64,
    /// Least a that a slope is computed with, at least 0.
    pub min_exponent: f64,
    /// Least E that is fitted: the logarithm of a loss that no domain gets below.
    pub min_log_irreducible: f64,
    /// What a domain's share of the recent batches is worth.
    pub credit: Credit,
    /// μ by name. `None`: in proportion to the domains' tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<BTreeMap<String, f64>>,
}

/// What a domain's share h of the recent batches is worth in [`Ado`]: a slope is the more the
/// domain's own doing, the more of it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credit {
    /// √h, as in the paper.
    #[default]
    Share,
    /// √(h(1 − h)), as in its release.
    Spread,
}

impl Default for Ado {
    fn default() -> Self {
        Self {
            start_step: None,
            ignore_steps: None,
            fit_every: None,
            floor: 0.01,
            recent: 0.1,
            smoothing: 0.9,
            min_exponent: 0.05,
            min_log_irreducible: PowerLawBounds::default().min_log_irreducible,
            credit: Credit::default(),
            prior: None,
        }
    }
}

impl Ado {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if let Some(steps) = self.fit_every {
            setup.check_steps("fit_every", steps)?;
        }
        setup.check_smoothing("floor", self.floor)?;
        if !(self.recent > 0.0 && self.recent <= 1.0) {
            let expected = "a number above 0 and at most 1";
            return Err(setup.bad_parameter("recent", self.recent, expected));
        }
        setup.check_smoothing("smoothing", self.smoothing)?;
        setup.check_not_negative("min_exponent", self.min_exponent)?;
        // Within what a fit may find: e^−20 to e^10 nats.
        if !(-20.0..=10.0).contains(&self.min_log_irreducible) {
            let (key, value) = ("min_log_irreducible", self.min_log_irreducible);
            return Err(setup.bad_parameter(key, value, "a number from -20 to 10"));
        }
        let prior = setup.prior(self.prior.as_ref(), |domain| domain.tokens as f64)?;
        let sixtieth = (setup.run.steps / 60).max(1);
        let ignore_steps = self.ignore_steps.unwrap_or(sixtieth);
        let enough = ignore_steps.saturating_add(LEAST_POINTS as u64);
        let start_step = self.start_step.unwrap_or(enough.max(ignore_steps.saturating_mul(2)));
        let fit_every = self.fit_every.unwrap_or(sixtieth);
        setup.check_first_update("ignore_steps", ignore_steps, enough)?;
        setup.check_first_update("start_step", start_step, start_step)?;
        let fits = enough.saturating_sub(start_step).div_ceil(fit_every);
        let first = start_step.saturating_add(fits.saturating_mul(fit_every));
        setup.check_first_update("fit_every", fit_every, first)?;
        Ok(Box::new(Laws {
            config: self.clone(),
            start_step,
            ignore_steps,
            fit_every,
            state: State {
                sequences: 0,
                history: LossHistory::new(),
                laws: vec![None; prior.len()],
                recent_share: prior.clone(),
                mean: prior.clone(),
                sampling: prior.clone(),
                prior,
            },
        }))
    }
}

/// [`Ado`] with its state.
#[derive(Debug)]
struct Laws {
    config: Ado,
    start_step: u64,
    ignore_steps: u64,
    fit_every: u64,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// μ.
    prior: Vec<f64>,
    /// n: sequences observed so far.
    sequences: u64,
    history: LossHistory,
    laws: Vec<Option<PowerLaw>>,
    /// h.
    recent_share: Vec<f64>,
    /// p̄.
    mean: Vec<f64>,
    /// p.
    sampling: Vec<f64>,
}

impl Laws {
    fn fit(&mut self) {
        let State { history, laws, .. } = &mut self.state;
        let min_log_irreducible = self.config.min_log_irreducible;
        let bounds = PowerLawBounds { min_log_irreducible, ..PowerLawBounds::default() };
        for (domain, law) in laws.iter_mut().enumerate() {
            let points = history.points(domain, self.ignore_steps);
            if points.len() >= LEAST_POINTS {
                *law = rule::fit_power_law(&points, bounds, *law).or(*law);
            }
        }
    }

    /// ρ; `None` before any law is known.
    fn preference(&self) -> Option<Vec<f64>> {
        let Ado { floor, min_exponent, credit, .. } = self.config;
        let State { prior, sequences, laws, recent_share, .. } = &self.state;
        // n divides all of them, and drops out.
        let slope = |law: &Option<PowerLaw>| {
            law.map(|law| law.exponent.max(min_exponent) * law.reducible(*sequences as f64))
        };
        let slopes = filled(&laws.iter().map(slope).collect::<Vec<_>>())?;
        let credited = |h: f64| match credit {
            Credit::Share => h.sqrt(),
            Credit::Spread => (h * (1.0 - h)).max(0.0).sqrt(),
        };
        let raw: Vec<f64> =
            (0..prior.len()).map(|i| prior[i] * credited(recent_share[i]) * slopes[i]).collect();
        let sum: f64 = raw.iter().sum();
        if !(sum.is_finite() && sum > 0.0) {
            return None;
        }
        let floor = floor.min(0.5 / prior.len() as f64);
        let floored: Vec<f64> = raw.iter().map(|value| (value / sum).max(floor)).collect();
        let sum: f64 = floored.iter().sum();
        Some(floored.iter().map(|value| value / sum).collect())
    }
}

impl Strategy for Laws {
    fn describe(&self) -> String {
        let Ado { floor, recent, smoothing, min_exponent, min_log_irreducible, credit, .. } =
            &self.config;
        let Self { start_step, ignore_steps, fit_every, .. } = self;
        let credit = match credit {
            Credit::Share => "share",
            Credit::Spread => "spread",
        };
        format!(
            "{}, from step {start_step}, fits every {fit_every} steps without the first \
             {ignore_steps}, floor {floor}, recent {recent}, smoothing {smoothing}, exponent from \
             {min_exponent}, log irreducible from {min_log_irreducible}, credit {credit}",
            ENTRY.name
        )
    }

    fn against_collapse(&self) -> &'static str {
        "a larger `floor`, a smaller `recent`, or a `prior` that is nearer to even shares"
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(match context.step < self.start_step {
            true => self.state.prior.clone(),
            false => self.state.sampling.clone(),
        })
    }

    fn observe(&mut self, observation: &Observation) {
        let seen = &observation.training;
        let domains = self.state.prior.len();
        let count = |i: usize| seen.get(i).copied().flatten().map_or(0, |seen| seen.count as u64);
        let counts: Vec<u64> = (0..domains).map(count).collect();
        let total = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        if total == 0 {
            return;
        }
        let keep = self.config.smoothing;
        self.state.sequences = self.state.sequences.saturating_add(total);
        for (h, count) in self.state.recent_share.iter_mut().zip(&counts) {
            *h = keep * *h + (1.0 - keep) * *count as f64 / total as f64;
        }
        let losses: Vec<_> = (0..domains).map(|i| seen.get(i).copied().flatten()).collect();
        self.state.history.add(observation.step, self.state.sequences, &losses);
        let done = observation.step.saturating_add(1);
        if done < self.start_step {
            return;
        }
        if (done - self.start_step).is_multiple_of(self.fit_every) {
            self.fit();
        }
        if let Some(preference) = self.preference() {
            let recent = self.config.recent;
            let State { mean, sampling, .. } = &mut self.state;
            for ((p, mean), rho) in sampling.iter_mut().zip(mean.iter_mut()).zip(&preference) {
                *p = (1.0 - recent) * *mean + recent * rho;
                *mean += (rho - *mean) / (done as f64 + 1.0);
            }
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let prior = &self.state.prior;
        let domains = prior.len();
        let shares = format!("{domains} shares above 0 that sum to 1");
        let recent = |h: &f64| (0.0..=1.0 + 1e-6).contains(h);
        self.state = saved::read(&self.describe(), state, |state: &State| {
            let laws = &state.laws;
            [
                ("prior", state.prior == *prior, format!("that of the config, {prior:?}")),
                (
                    "history",
                    state.history.is_valid(domains),
                    format!("at most 128 blocks of {domains} finite sums"),
                ),
                (
                    "laws",
                    laws.len() == domains && laws.iter().flatten().all(PowerLaw::is_finite),
                    format!("{domains} laws, finite where they are known"),
                ),
                (
                    "recent_share",
                    state.recent_share.len() == domains && state.recent_share.iter().all(recent),
                    format!("{domains} shares of recent batches"),
                ),
                ("mean", saved::are_shares_above_zero(&state.mean, domains), shares.clone()),
                ("sampling", saved::are_shares_above_zero(&state.sampling, domains), shares),
            ]
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::strategy::toy::{RUN, Toy, assert_close, losses, training};
    use crate::{RunSize, Slot};

    fn toy(text: &str) -> Toy {
        Toy::new(text, Slot::Sampling)
    }

    const TRUTH: [PowerLaw; 3] = [
        PowerLaw { log_irreducible: 0.7, log_scale: 2.0, exponent: 0.3 },
        PowerLaw { log_irreducible: 1.0, log_scale: 2.5, exponent: 0.5 },
        PowerLaw { log_irreducible: 0.6, log_scale: 1.5, exponent: 0.2 },
    ];

    /// The step `t` of a run of 8 sequences a step whose losses follow `TRUTH`.
    fn step(t: u64) -> Observation {
        let n = 8.0 * (t + 1) as f64;
        let mut observation = training(t, &TRUTH.map(|law| Some(law.loss(n))));
        let means = TRUTH.map(|law| Some(law.loss(n)));
        for (i, count) in [5, 2, 1].into_iter().enumerate() {
            observation.training[i] = losses(&means, count)[i];
        }
        observation
    }

    // The expected numbers are what this prints, with the true laws where the strategy has fits:
    //
    // import numpy as np
    // E, A, a = np.array([0.7, 1, 0.6]), np.array([2, 2.5, 1.5]), np.array([0.3, 0.5, 0.2])
    // mu = np.array([6000, 1500, 300]) / 7800
    // h, mean = mu.copy(), mu.copy()
    // for t in range(100):
    //     n = 8 * (t + 1)
    //     h = 0.9 * h + 0.1 * np.array([5, 2, 1]) / 8
    //     if t + 1 < 60:
    //         continue
    //     rho = mu * np.sqrt(h) * np.maximum(a, 0.05) * np.exp(A) * n**-a / n
    //     rho = np.maximum(rho / rho.sum(), 0.01)
    //     rho /= rho.sum()
    //     p = 0.9 * mean + 0.1 * rho
    //     mean += (rho - mean) / (t + 2)
    // print(p.tolist())
    #[test]
    fn on_exact_power_laws_the_trajectory_is_that_of_a_few_lines_of_python() {
        let mut toy =
            toy(r#"{ strategy = "ado", start_step = 60, ignore_steps = 0, fit_every = 20 }"#);
        let prior = [6000.0 / 7800.0, 1500.0 / 7800.0, 300.0 / 7800.0];
        for t in 0..100 {
            toy.observe(&step(t));
            if t < 59 {
                assert_close(&toy.proposal(t + 1), &prior);
            }
        }
        let expected = [0.8203700009912921, 0.15184873741846744, 0.027781261590240434];
        for (found, expected) in toy.proposal(100).iter().zip(expected) {
            // The laws are fitted to 10⁻⁴.
            assert!((found - expected).abs() < 1e-5, "{:?} {expected:?}", toy.proposal(100));
        }
    }

    #[test]
    fn a_run_that_is_longer_than_its_history_finds_the_same_slopes() {
        // 1,200 steps are 75 blocks of 16; by default the first 20 steps are ignored.
        let mut toy = toy("\"ado\"");
        assert_eq!(RUN.steps / 60, 20);
        for t in 0..1_200 {
            toy.observe(&step(t));
        }
        let state = toy.strategy.save();
        let slope = |law: &PowerLaw| law.exponent * law.reducible(9_600.0);
        for (i, truth) in TRUTH.iter().enumerate() {
            let law: PowerLaw = serde_json::from_value(state["laws"][i].clone()).unwrap();
            assert!((slope(&law) / slope(truth) - 1.0).abs() < 0.01, "{law:?} {truth:?}");
        }
        let blocks = state["history"]["blocks"].as_array().unwrap().len();
        assert!((64..=128).contains(&blocks), "{blocks}");
    }

    #[test]
    fn what_learns_faster_is_drawn_more_and_no_domain_less_than_the_floor() {
        let text = r#"{ strategy = "ado", start_step = 20, recent = 1, prior = { web = 1, code = 1, math = 1 } }"#;
        let mut toy = toy(text);
        for t in 0..80 {
            let n = 8.0 * (t + 1) as f64;
            let fast = TRUTH[1].loss(n);
            toy.observe(&training(t, &[Some(fast), Some(3.0), Some(3.0)]));
        }
        let p = toy.proposal(80);
        // The floor holds before ρ is normalised, when two domains at it are 0.02 of more than 1.
        let least = 0.01 / 1.02;
        assert!(p[0] > 0.9 && p[1] >= least && p[2] >= least, "{p:?}");
    }

    #[test]
    fn a_law_counts_from_its_32nd_point_on() {
        let mut toy =
            toy(r#"{ strategy = "ado", start_step = 1, ignore_steps = 4, fit_every = 1 }"#);
        let prior = toy.proposal(0);
        for t in 0..60 {
            toy.observe(&step(t));
            // Of the steps from 4 on.
            let known = t + 1 >= 4 + 32;
            assert_eq!(toy.proposal(t + 1) != prior, known, "{t}");
        }
    }

    #[test]
    fn a_default_start_has_as_many_points_in_runs_of_any_length() {
        for steps in [40, 600, 1_200, 7_000, 60_000] {
            let run = RunSize { steps, ..RUN };
            let built = Toy::build_for("\"ado\"", Slot::Sampling, &Toy::domains(), &run).unwrap();
            let ignored = (steps / 60).max(1);
            let start = (2 * ignored).max(ignored + 32);
            let described = format!("from step {start}, fits every {ignored} steps");
            assert!(built.describe().contains(&described), "{built:?}");
            let mut history = LossHistory::new();
            for t in 0..start {
                history.add(t, 8 * (t + 1), &losses(&[Some(3.0)], 1));
            }
            let points = history.points(0, ignored).len();
            assert!(points >= LEAST_POINTS, "{points} of {steps}");
        }
    }

    #[test]
    fn before_any_law_is_known_the_prior_serves() {
        let mut toy = toy(r#"{ strategy = "ado", start_step = 1, fit_every = 1 }"#);
        let prior = toy.proposal(0);
        for t in 0..4 {
            toy.observe(&training(t, &[Some(3.0), None, None]));
            assert_eq!(toy.proposal(t + 1), prior);
        }
    }
}
