//! Target DRO: sampling weights for the domains whose held-out loss is furthest above its target.
//!
//! Source: the dynamic batch loading of *Sheared LLaMA: Accelerating Language Model Pre-training
//! via Structured Pruning*, arXiv:2310.06694, and its released code. After each measurement
//!
//! p ← softmax(ln p + η (L_i − L_i^target)), p ← (1 − c) p + c/K.
//!
//! Differences below 0 count as well, so that p stands still only where all domains are as far from
//! their targets. It changes what is trained on, so it needs `objective = "sampled"`.
//!
//! In: losses on the `tune` split, every `every` steps. Out: p. State: p and one loss a domain.
//! Costs the measurements. Known weakness: a target below what the model can reach draws the batch
//! towards its domain for good.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::last_losses::{self, filled, is_due, remember};
use super::saved;
use crate::error::Result;
use crate::measurements::ObservationRequest;
use crate::observation::Observation;
use crate::rule;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "target-dro",
    slots: Slots::Sampling,
    summary: "towards given losses: p ← softmax(ln p + step·(L − target)), every `every` steps, of held-out losses",
    source: "arXiv:2310.06694 (LLM-Shearing)",
    example: r#"{ strategy = "target-dro", targets = { web = 2.9, code = 1.8, math = 2.1 }, step = 1, epsilon = 1e-4 }"#,
    objectives: SAMPLED_ALONE,
};

/// p_i ← (1 − c) · p_i exp(η (L_i − L_i^target)) / Σ_j p_j exp(η (L_j − L_j^target)) + c/K every
/// `every` steps.
///
/// A domain that was not measured keeps its last loss; one that never was counts at the mean
/// distance of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetDro {
    /// L_i^target of each domain, in nats a token. The paper takes them from scaling laws.
    pub targets: BTreeMap<String, f64>,
    /// η, above 0.
    #[serde(default = "default_step")]
    pub step: f64,
    /// Steps between updates, at least 1. The paper updates whenever it evaluates. `None`: a
    /// twentieth of the run, at most 100, which is chosen here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// c, above 0 and at most 1: the share of the batch that is spread evenly.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// Where p starts, by name. `None`: in proportion to the domains' tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<BTreeMap<String, f64>>,
}

fn default_step() -> f64 {
    1.0
}

fn default_epsilon() -> f64 {
    1e-4
}

impl TargetDro {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let expected = "a finite loss of at least 0, in nats a token";
        let usable = |target: f64| target.is_finite() && target >= 0.0;
        let targets = setup.numbers("targets", &self.targets, expected, usable)?;
        setup.check_positive("step", self.step)?;
        let every = setup.update_every(self.every)?;
        // Without a floor a share that is 0 once would stay there.
        if !(self.epsilon > 0.0 && self.epsilon <= 1.0) {
            let expected = "a number above 0 and at most 1";
            return Err(setup.bad_parameter("epsilon", self.epsilon, expected));
        }
        let sampling = setup.prior(self.prior.as_ref(), |domain| domain.tokens as f64)?;
        let last = vec![None; targets.len()];
        let state = State { targets, sampling, last, updated: None };
        Ok(Box::new(Towards { config: self.clone(), every, state }))
    }
}

/// [`TargetDro`] with its state.
#[derive(Debug)]
struct Towards {
    config: TargetDro,
    every: u64,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The targets that it was made with.
    targets: Vec<f64>,
    /// p, each above 0.
    sampling: Vec<f64>,
    /// The last held-out loss of each domain.
    last: Vec<Option<f64>>,
    /// The step of the last update.
    updated: Option<u64>,
}

impl Strategy for Towards {
    fn describe(&self) -> String {
        let TargetDro { step, epsilon, .. } = &self.config;
        let (name, every) = (ENTRY.name, self.every);
        format!("{name}, step {step}, every {every} steps, epsilon {epsilon}")
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `step`, a larger `epsilon`, or targets within reach of every domain"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.state.sampling.clone())
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest {
            held_out_every: Some(self.every),
            rotate: true,
            ..ObservationRequest::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let State { targets, sampling, last, updated } = &mut self.state;
        if !is_due(observation.step, *updated, self.every) || !remember(last, &observation.held_out)
        {
            return;
        }
        let pairs = last.iter().zip(&*targets);
        let distances: Vec<_> = pairs.map(|(loss, target)| loss.map(|l| l - target)).collect();
        let exponents: Vec<f64> = filled(&distances)
            .unwrap_or_default()
            .iter()
            .map(|distance| self.config.step * distance)
            .collect();
        if let Some(next) = rule::softmax_with_floor(sampling, &exponents, self.config.epsilon) {
            *sampling = next;
        }
        *updated = Some(observation.step);
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let targets = &self.state.targets;
        let domains = targets.len();
        self.state = saved::read(&self.describe(), state, |state: &State| {
            [
                ("targets", state.targets == *targets, format!("those of the config, {targets:?}")),
                (
                    "sampling",
                    saved::are_shares_above_zero(&state.sampling, domains),
                    format!("{domains} shares above 0 that sum to 1"),
                ),
                (
                    "last",
                    last_losses::are_valid(&state.last, domains),
                    format!("{domains} losses, finite where they are known"),
                ),
            ]
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::Slot;
    use crate::strategy::toy::{Toy, assert_close, held_out};

    fn toy(more: &str) -> Toy {
        let targets = "targets = { web = 2, code = 3, math = 2.5 }";
        Toy::new(&format!("{{ strategy = \"target-dro\", {targets}{more} }}"), Slot::Sampling)
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // target, eta, c = np.array([2, 3, 2.5]), 0.5, 0.02
    // p, last = np.array([6000, 1500, 300]) / 7800, np.full(3, np.nan)
    // for t in range(9, 100, 10):
    //     for i in range(3):
    //         if t % 4 or i != 2:
    //             last[i] = 2.5 + i / 4 + np.sin(t + 2 * i)
    //     d = last - target
    //     log_p = np.log(p) + eta * np.where(np.isnan(d), np.nanmean(d), d)
    //     p = np.exp(log_p - log_p.max())
    //     p = (1 - c) * p / p.sum() + c / 3
    // print(p.tolist())
    #[test]
    fn the_trajectory_is_that_of_a_few_lines_of_python() {
        let mut toy = toy(", step = 0.5, every = 10, epsilon = 0.02");
        for t in (9..100_u64).step_by(10) {
            let loss = |i: u64| 2.5 + i as f64 / 4.0 + ((t + 2 * i) as f64).sin();
            let seen = |i: u64| !t.is_multiple_of(4) || i != 2;
            let losses: Vec<_> = (0..3).map(|i| seen(i).then(|| loss(i))).collect();
            toy.observe(&held_out(t, &losses));
            // Measured again within the same ten steps: no update.
            toy.observe(&held_out(t + 3, &losses));
        }
        assert_close(
            &toy.proposal(100),
            &[0.8296034590856839, 0.03323279811305927, 0.13716374280125682],
        );
    }

    #[test]
    fn where_losses_are_on_target_it_stands_still() {
        // But for the floor, which draws towards even shares by a share of 10⁻⁹ an update.
        let mut toy = toy(", every = 1, epsilon = 1e-9");
        let start = toy.proposal(0);
        for step in 0..50 {
            toy.observe(&held_out(step, &[Some(2.0), Some(3.0), Some(2.5)]));
        }
        let moved =
            toy.proposal(50).iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(moved < 1e-7, "{moved}");
        // As far above it, all of them: still.
        for step in 50..60 {
            toy.observe(&held_out(step, &[Some(3.0), Some(4.0), Some(3.5)]));
        }
        let moved =
            toy.proposal(60).iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0., f64::max);
        assert!(moved < 1e-7, "{moved}");
    }

    #[test]
    fn targets_must_name_exactly_the_domains() {
        let message = |targets: &str| {
            let text = format!("{{ strategy = \"target-dro\", targets = {targets} }}");
            Toy::build(&text, Slot::Sampling, &Toy::domains()).unwrap_err().to_string()
        };
        let missing = message("{ web = 2, code = 3 }");
        assert!(missing.contains("sampling.targets.math is missing"), "{missing}");
        let unknown = message("{ web = 2, code = 3, maths = 2 }");
        assert!(
            unknown.contains("`maths`") && unknown.contains("did you mean `math`"),
            "{unknown}"
        );
        let bad = message("{ web = 2, code = 3, math = nan }");
        assert!(bad.contains("sampling.targets.math is NaN") && bad.contains("\nhint: "), "{bad}");
    }
}
