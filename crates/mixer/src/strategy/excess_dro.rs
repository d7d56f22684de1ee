//! Excess DRO, the proxy stage of DoReMi: the objective's shares for the domains that the model has
//! most to learn of, by a reference model.
//!
//! Source: *DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining*,
//! arXiv:2305.10429, and its released code. Before each step
//!
//! λ_i = mean over domain i's tokens of max(ℓ_proxy − ℓ_ref, 0), clipped a token at a time,
//! log α ← log α + ηλ, softmax, α ← (1 − c)α + c/K,
//!
//! and the step is made with the new α. Its result is the mean of α over the run, for the sampling
//! weights of a later one.
//!
//! In: λ before a step. Out: α. State: α, its mean, and one λ a domain. Costs a forward pass of the
//! model and one of the reference model over each batch, and the memory of the reference model.

use super::interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
use super::mean_shares::{MeanShares, are_shares};
use super::weighed::Weighed;
use crate::error::{MixerError, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::objective::Objective;
use crate::observation::Observation;
use crate::rule;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "excess-dro",
    slots: Slots::Loss,
    summary: "objective by excess loss over a reference model: α ← softmax(log α + step·λ), λ = mean max(ℓ − ℓ_ref, 0); its mean is the result",
    source: "arXiv:2305.10429 (DoReMi's proxy)",
    example: r#"{ strategy = "excess-dro", reference = "runs/reference", step = 1, epsilon = 1e-4 }"#,
    objectives: Objectives::Only(
        &[Objective::Reweighted],
        "it learns the objective's shares α and not loss weights w",
    ),
};

/// α_i ← (1 − c) · α_i exp(η λ_i) / Σ_j α_j exp(η λ_j) + c/K before each step; see
/// [`rule::excess_losses()`] for λ. K is the number of domains that have importance; the others
/// have no share. Starts at even shares.
///
/// A domain that the batch lacks keeps its last λ; one that was never seen counts at the mean of
/// the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExcessDro {
    /// The reference model: a checkpoint, an export or a run folder, of the same vocabulary and at
    /// least the same context. From the folder of the config.
    pub reference: String,
    /// η, above 0.
    #[serde(default = "default_step")]
    pub step: f64,
    /// c, above 0 and at most 1: the share of the objective that is spread evenly. The paper's
    /// script for the Pile has 10⁻³.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
}

fn default_step() -> f64 {
    1.0
}

fn default_epsilon() -> f64 {
    1e-4
}

impl ExcessDro {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if self.reference.is_empty() {
            let expected = "the folder of a model: a checkpoint, an export or a run";
            return Err(setup.bad_parameter("reference", "\"\"", expected));
        }
        if !(self.step.is_finite() && self.step > 0.0) {
            return Err(setup.bad_parameter("step", self.step, "a finite number above 0"));
        }
        // Without a floor a share that is 0 once would stay there.
        if !(self.epsilon > 0.0 && self.epsilon <= 1.0) {
            let expected = "a number above 0 and at most 1";
            return Err(setup.bad_parameter("epsilon", self.epsilon, expected));
        }
        let weighed = Weighed::new(setup);
        let even = weighed.even();
        Ok(Box::new(Excess {
            config: self.clone(),
            state: State {
                objective: even.clone(),
                mean: MeanShares::new(even),
                excess: vec![None; weighed.count()],
            },
            weighed,
        }))
    }
}

/// [`ExcessDro`] with its state.
#[derive(Debug)]
struct Excess {
    config: ExcessDro,
    weighed: Weighed,
    state: State,
}

/// What is known of the domains that have importance, and what was made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// α, each at least c/K.
    objective: Vec<f64>,
    mean: MeanShares,
    /// The last λ of each domain.
    excess: Vec<Option<f64>>,
}

fn usable(excess: f64) -> bool {
    excess.is_finite() && excess >= 0.0
}

impl Strategy for Excess {
    fn describe(&self) -> String {
        let ExcessDro { step, epsilon, .. } = &self.config;
        format!("{}, step {step}, epsilon {epsilon}", ENTRY.name)
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `step` (0.1), a larger `epsilon`, a larger batch, or a reference model trained on the domains in proportion to their sizes"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.weighed.spread(&self.state.objective))
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest { excess: true, ..ObservationRequest::default() }
    }

    fn measurements(&self, _context: &Context) -> Measurements {
        Measurements {
            objective_mean: Some(self.weighed.spread(self.state.mean.values())),
            ..Measurements::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let State { objective, mean, excess } = &mut self.state;
        let mut any = false;
        for (last, place) in excess.iter_mut().zip(self.weighed.places()) {
            let seen = observation.excess.get(*place).copied().flatten();
            if let Some(seen) = seen.filter(|seen| usable(*seen)) {
                *last = Some(seen);
                any = true;
            }
        }
        if !any {
            return;
        }
        let known = excess.iter().copied().flatten();
        let (count, sum) = known.fold((0, 0.0), |(count, sum), x| (count + 1, sum + x));
        let unknown = sum / f64::from(count);
        let exponents: Vec<f64> =
            excess.iter().map(|last| self.config.step * last.unwrap_or(unknown)).collect();
        if let Some(next) = rule::softmax_with_floor(objective, &exponents, self.config.epsilon) {
            mean.add(&next);
            *objective = next;
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.state.excess.len();
        let refuse = |expected: &str, found: String| {
            let expected = format!("{expected} of {domains} domains");
            Err(MixerError::strategy_state(&self.describe(), expected, found))
        };
        let state: State = match serde_json::from_value(state.clone()) {
            Ok(state) => state,
            Err(error) => {
                let expected = "objective, mean and excess, as this strategy saves them,";
                return refuse(expected, error.to_string());
            }
        };
        let State { objective, mean, excess } = &state;
        if !are_shares(objective, domains) || !objective.iter().all(|alpha| *alpha > 0.0) {
            return refuse("shares above 0 that sum to 1", format!("{objective:?}"));
        }
        if !mean.is_valid(domains) {
            return refuse("mean shares", format!("{:?}", mean.values()));
        }
        if excess.len() != domains || !excess.iter().flatten().all(|excess| usable(*excess)) {
            return refuse("finite excess losses of at least 0", format!("{excess:?}"));
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::DomainId;
    use crate::strategy::StrategySpec;
    use crate::{DomainInfo, RunSize, Simplex, Slot};

    const RUN: RunSize = RunSize { steps: 100, batch_size: 8, context: 4, seed: 3 };

    fn build(config: serde_json::Value, domains: usize) -> Result<Box<dyn Strategy>> {
        let list: Vec<DomainInfo> =
            (0..domains).map(|i| DomainInfo::new(&format!("d{i}"), 1_000)).collect();
        let spec: StrategySpec = serde_json::from_value(config).unwrap();
        spec.build(&Setup { slot: Slot::Loss, domains: &list, run: &RUN })
    }

    fn proposal(strategy: &dyn Strategy, domains: usize) -> Vec<f64> {
        let importance = Simplex::uniform(domains);
        let context = Context { step: 0, domains: &[], importance: &importance, loss_weight: None };
        strategy.propose(&context).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    fn config() -> serde_json::Value {
        serde_json::json!({ "strategy": "excess-dro", "reference": "runs/reference" })
    }

    fn seen(step: u64, excess: &[Option<f64>]) -> Observation {
        Observation::before_step(step).with_excess(excess.to_vec())
    }

    fn mean(strategy: &dyn Strategy, domains: usize) -> Vec<f64> {
        let importance = Simplex::uniform(domains);
        let context = Context { step: 0, domains: &[], importance: &importance, loss_weight: None };
        strategy.measurements(&context).objective_mean.unwrap()
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // K, T, eta, c = 3, 4, 0.25, 0.01
    // a, mean, lam = np.full(K, 1 / K), np.zeros(K), np.full(K, np.nan)
    // for t in range(15):
    //     domains = [0, 2, 0] if t % 4 else [0, 1, 2]
    //     proxy = [[(7 * b + 3 * k + 5 * t) % 11 / 4 for k in range(T)] for b in range(3)]
    //     ref = [[(5 * domains[b] + 2 * k + 3 * t) % 7 / 4 for k in range(T)] for b in range(3)]
    //     excess = np.maximum(np.array(proxy) - np.array(ref), 0)
    //     for i in set(domains):
    //         lam[i] = np.concatenate([excess[b] for b in range(3) if domains[b] == i]).mean()
    //     log_a = np.log(a) + eta * np.where(np.isnan(lam), np.nanmean(lam), lam)
    //     a = np.exp(log_a - log_a.max())
    //     a = (1 - c) * a / a.sum() + c / K
    //     mean += a / 15
    // print(a.tolist(), mean.tolist())
    #[test]
    fn the_trajectory_is_that_of_twenty_lines_of_python() {
        let mut text = config();
        text["step"] = serde_json::json!(0.25);
        text["epsilon"] = serde_json::json!(0.01);
        let mut strategy = build(text, 3).unwrap();
        for t in 0..15_usize {
            let domains = if t.is_multiple_of(4) { [0, 1, 2] } else { [0, 2, 0] };
            let pairs = || (0..3_usize).flat_map(|b| (0..4_usize).map(move |k| (b, k)));
            let proxy: Vec<f32> =
                pairs().map(|(b, k)| ((7 * b + 3 * k + 5 * t) % 11) as f32 / 4.0).collect();
            let reference: Vec<f32> =
                pairs().map(|(b, k)| ((5 * domains[b] + 2 * k + 3 * t) % 7) as f32 / 4.0).collect();
            let excess = rule::excess_losses(3, &domains.map(DomainId), &proxy, &reference);
            strategy.observe(&seen(t as u64, &excess));
        }
        let found = (proposal(strategy.as_ref(), 3), mean(strategy.as_ref(), 3));
        assert!(
            close(&found.0, &[0.3232095105227705, 0.24976235940257524, 0.42702813007465423]),
            "{found:?}"
        );
        assert!(
            close(&found.1, &[0.3079324536041124, 0.3002181055358364, 0.3918494408600512]),
            "{found:?}"
        );
    }

    #[test]
    fn two_domains_with_fixed_losses_part_by_the_exponential_of_their_excess() {
        let mut strategy = build(config(), 2).unwrap();
        let mut alpha = [0.5, 0.5];
        for step in 0..5 {
            strategy.observe(&seen(step, &[Some(0.3), Some(0.1)]));
            let odds = alpha[0] / alpha[1] * f64::exp(0.2);
            let share = odds / (1.0 + odds);
            alpha = [share, 1.0 - share].map(|share| (1.0 - 1e-4) * share + 5e-5);
            let found = proposal(strategy.as_ref(), 2);
            // Kept from step to step, and a share of 1 in all.
            assert!(close(&found, &alpha), "{found:?} {alpha:?}");
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn where_the_reference_knows_as_much_the_objective_stays_even() {
        let mut strategy = build(config(), 3).unwrap();
        let losses = [2.0_f32, 3.5, 1.25, 4.0, 0.5, 2.0];
        let domains = [0, 1, 2].map(DomainId);
        for step in 0..50 {
            let excess = rule::excess_losses(3, &domains, &losses, &losses);
            strategy.observe(&seen(step, &excess));
        }
        assert!(close(&proposal(strategy.as_ref(), 3), &[1.0 / 3.0; 3]));
        assert!(close(&mean(strategy.as_ref(), 3), &[1.0 / 3.0; 3]));
    }

    #[test]
    fn clipping_a_domain_at_once_would_have_given_other_shares() {
        let (proxy, reference) = ([3.0, 1.0, 2.0, 2.0], [1.0, 3.0, 1.5, 2.0]);
        let domains = [0, 1].map(DomainId);
        let mut strategy = build(config(), 2).unwrap();
        strategy.observe(&seen(0, &rule::excess_losses(2, &domains, &proxy, &reference)));
        // λ = 1 and ¼, by tokens; clipped by domains it would be 0 and ¼, the other way round.
        let found = proposal(strategy.as_ref(), 2);
        assert!(found[0] > found[1], "{found:?}");
    }

    #[test]
    fn an_absent_domain_keeps_its_excess_and_one_never_seen_counts_at_the_mean() {
        let mut strategy = build(config(), 3).unwrap();
        strategy.observe(&seen(0, &[Some(0.2), Some(0.4), None]));
        let found = proposal(strategy.as_ref(), 3);
        assert!((found[2] / found[0] - f64::exp(0.1)).abs() < 1e-3, "{found:?}");
        strategy.observe(&seen(1, &[None, Some(0.5), None]));
        let state = strategy.save();
        assert_eq!(state["excess"], serde_json::json!([0.2, 0.5, null]));
    }

    #[test]
    fn a_domain_without_importance_has_no_share_and_says_nothing_of_the_others() {
        let mut list: Vec<DomainInfo> =
            ["web", "none", "code"].map(|name| DomainInfo::new(name, 1_000)).to_vec();
        list[1].importance = 0.0;
        let spec: StrategySpec = serde_json::from_value(config()).unwrap();
        let setup = Setup { slot: Slot::Loss, domains: &list, run: &RUN };
        let (mut three, mut two) = (spec.build(&setup).unwrap(), build(config(), 2).unwrap());
        for step in 0..5 {
            let excess = [Some(0.3), Some(9.0), Some(0.1)];
            three.observe(&seen(step, &excess[..if step == 0 { 2 } else { 3 }]));
            two.observe(&seen(step, &[Some(0.3), excess[2].filter(|_| step > 0)]));
            let (found, expected) = (proposal(three.as_ref(), 3), proposal(two.as_ref(), 2));
            assert_eq!(found, [expected[0], 0.0, expected[1]]);
        }
        let (found, expected) = (mean(three.as_ref(), 3), mean(two.as_ref(), 2));
        assert_eq!(found, [expected[0], 0.0, expected[1]]);
        let state = three.save();
        three.load(&state).unwrap();
        assert_eq!(state, two.save());
    }

    #[test]
    fn losses_that_are_unusable_poison_nothing_and_one_or_300_domains_do() {
        for domains in [1, 300] {
            let mut strategy = build(config(), domains).unwrap();
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
                strategy.observe(&seen(0, &vec![Some(bad); domains]));
            }
            strategy.observe(&seen(1, &[]));
            strategy.observe(&seen(2, &vec![Some(1e308); domains]));
            strategy.observe(&seen(3, &vec![Some(0.5); domains]));
            let alpha = proposal(strategy.as_ref(), domains);
            let even = 1.0 / domains as f64;
            assert!(alpha.iter().all(|alpha| (alpha - even).abs() < 1e-12), "{alpha:?}");
            let state = strategy.save();
            let mut other = build(config(), domains).unwrap();
            other.load(&state).unwrap();
            assert_eq!(other.save(), state);
        }
    }

    #[test]
    fn a_state_that_it_did_not_save_is_refused() {
        let mut strategy = build(config(), 2).unwrap();
        assert!(strategy.load(&build(config(), 3).unwrap().save()).is_err());
        for (key, bad) in [
            ("objective", serde_json::json!([0.0, 1.0])),
            ("objective", serde_json::json!([0.4, 0.4])),
            ("mean", serde_json::json!({ "mean": [1.0], "updates": 1 })),
            ("excess", serde_json::json!([-1.0, null])),
            ("more", serde_json::json!(1)),
        ] {
            let mut state = strategy.save();
            state[key] = bad;
            let error = strategy.load(&state).unwrap_err().to_string();
            assert!(error.contains("excess-dro"), "{error}");
        }
    }
}
