//! Skill-It: sampling weights for the domains that help those whose held-out losses are high.
//!
//! Source: Chen, Roberts, Bhatia, Wang, Zhang, Sala, Ré, *Skill-it! A Data-Driven Skills Framework
//! for Understanding and Training Language Models*, arXiv:2307.14430, and its released code. With
//! A_ij how much training on domain i lowers the loss of domain j,
//!
//! p_i ∝ prior_i · exp(η Σ_j A_ij S_j), S_j the sum of domain j's last `window` held-out losses.
//!
//! Before anything is measured S = 1, as in the release. A domain that was not measured keeps its
//! last loss; one that never was counts at the mean of the others. A comes from runs on single
//! domains and pairs of them, which are not part of this: without it, each domain helps itself
//! alone, and the rule is multiplicative weights on the held-out losses.
//!
//! It changes what is trained on, so it needs `objective = "sampled"`.
//!
//! In: losses on the `tune` split, every `every` steps. Out: p. State: `window` losses a domain.
//! Costs the measurements, and the runs behind A. Known weakness: losses of domains are compared by
//! their size, though their entropies differ; the sum of three evaluations at η = 0.2 is a steep
//! exponent for losses above 2 nats.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::last_losses::{self, filled, is_due, remember};
use super::log_shares::LogShares;
use super::saved;
use crate::error::Result;
use crate::measurements::ObservationRequest;
use crate::observation::Observation;
use crate::rule;
use crate::seed;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "skill-it",
    slots: Slots::Sampling,
    summary: "by what helps where losses are high: p ∝ prior·exp(step·graph·Σ L), of the last `window` held-out losses",
    source: "arXiv:2307.14430",
    example: r#"{ strategy = "skill-it", graph = { web = { code = 0.3 } }, step = 0.2, window = 3, epsilon = 0 }"#,
    objectives: SAMPLED_ALONE,
};

/// p_i ∝ prior_i · exp(η Σ_j A_ij Σ_{last evaluations} L_j) every `every` steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SkillIt {
    /// A by name, a row for each domain that is trained on: `{ web = { code = 0.3 } }` says that
    /// training on `web` helps `code` by 0.3. What is not named is 1 for a domain itself and 0 for
    /// others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub graph: BTreeMap<String, BTreeMap<String, f64>>,
    /// η, above 0.
    pub step: f64,
    /// Steps between updates, at least 1. The paper's differ by experiment. `None`: a twentieth of
    /// the run, at most 100, which is chosen here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Evaluations whose losses are summed, at least 1.
    pub window: usize,
    /// The share of the batch that is spread evenly, at least 0 and at most 1. **Derived**: 0 is as
    /// published.
    pub epsilon: f64,
    /// By name; `None`: even.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<BTreeMap<String, f64>>,
}

impl Default for SkillIt {
    fn default() -> Self {
        let graph = BTreeMap::new();
        Self { graph, step: 0.2, every: None, window: 3, epsilon: 0.0, prior: None }
    }
}

/// Largest number of evaluations that are kept.
const MOST: usize = 1_000;

impl SkillIt {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        setup.check_positive("step", self.step)?;
        let every = setup.update_every(self.every)?;
        if !(1..=MOST).contains(&self.window) {
            return Err(setup.bad_parameter("window", self.window, "1 to 1000 evaluations"));
        }
        if !(0.0..=1.0).contains(&self.epsilon) {
            let expected = "a number from 0 to 1";
            return Err(setup.bad_parameter("epsilon", self.epsilon, expected));
        }
        let prior = setup.prior(self.prior.as_ref(), |_| 1.0)?;
        let graph = self.rows(setup)?;
        // Rust writes a float so that it reads back as the same one.
        let graph_hash = seed::derive(0, &format!("{graph:?}"));
        let last = vec![None; prior.len()];
        let state = State { prior, graph_hash, last, evaluations: Vec::new(), updated: None };
        Ok(Box::new(Skills { config: self.clone(), every, graph, state }))
    }

    /// The rows of A without their zeros, in the order of the domains.
    fn rows(&self, setup: &Setup) -> Result<Vec<Vec<(usize, f64)>>> {
        setup.check_names("graph", self.graph.keys())?;
        let none = BTreeMap::new();
        let row = |name: &str| {
            let given = self.graph.get(name).unwrap_or(&none);
            let key = format!("graph.{name}");
            setup.check_names(&key, given.keys())?;
            for (other, value) in given {
                setup.check_not_negative(&format!("{key}.{other}"), *value)?;
            }
            let entry = |(j, other): (usize, &&str)| {
                let own = if *other == name { 1.0 } else { 0.0 };
                (j, given.get(*other).copied().unwrap_or(own))
            };
            let entries = setup.names();
            Ok(entries.iter().enumerate().map(entry).filter(|(_, value)| *value > 0.0).collect())
        };
        setup.names().iter().map(|name| row(name)).collect()
    }
}

/// [`SkillIt`] with its state.
#[derive(Debug)]
struct Skills {
    config: SkillIt,
    every: u64,
    /// The rows of A without their zeros.
    graph: Vec<Vec<(usize, f64)>>,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Where p starts.
    prior: Vec<f64>,
    /// Of the graph that it was made with, which has too many entries to keep.
    graph_hash: u64,
    /// The last held-out loss of each domain.
    last: Vec<Option<f64>>,
    /// The losses of the last evaluations, the newest last.
    evaluations: Vec<Vec<f64>>,
    /// The step of the last update.
    updated: Option<u64>,
}

impl Skills {
    fn sampling(&self) -> Vec<f64> {
        let State { prior, evaluations, .. } = &self.state;
        let sum = |j: usize| match evaluations.is_empty() {
            true => 1.0,
            false => evaluations.iter().map(|losses| losses[j]).sum(),
        };
        let sums: Vec<f64> = (0..prior.len()).map(sum).collect();
        let help = |row: &Vec<(usize, f64)>| row.iter().map(|(j, a)| a * sums[*j]).sum::<f64>();
        let exponents: Vec<f64> =
            self.graph.iter().map(|row| self.config.step * help(row)).collect();
        let mut shares = LogShares::new(prior);
        shares.multiply(&exponents);
        rule::with_floor(&shares.shares(), self.config.epsilon)
    }
}

impl Strategy for Skills {
    fn describe(&self) -> String {
        let SkillIt { step, window, epsilon, .. } = &self.config;
        let (name, every) = (ENTRY.name, self.every);
        format!("{name}, step {step}, every {every} steps, window {window}, epsilon {epsilon}")
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `step` or a larger `epsilon`"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.sampling())
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest {
            held_out_every: Some(self.every),
            rotate: true,
            ..ObservationRequest::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let State { last, evaluations, updated, .. } = &mut self.state;
        if !is_due(observation.step, *updated, self.every) || !remember(last, &observation.held_out)
        {
            return;
        }
        let Some(losses) = filled(last) else {
            return;
        };
        evaluations.push(losses);
        let old = evaluations.len().saturating_sub(self.config.window);
        evaluations.drain(..old);
        *updated = Some(observation.step);
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let State { prior, graph_hash, .. } = &self.state;
        let (domains, window) = (prior.len(), self.config.window);
        let usable = |losses: &Vec<f64>| {
            losses.len() == domains && losses.iter().all(|loss| loss.is_finite())
        };
        self.state = saved::read(&self.describe(), state, |state: &State| {
            [
                ("prior", state.prior == *prior, format!("that of the config, {prior:?}")),
                (
                    "graph_hash",
                    state.graph_hash == *graph_hash,
                    format!("{graph_hash}, of the config's graph"),
                ),
                (
                    "last",
                    last_losses::are_valid(&state.last, domains),
                    format!("{domains} losses, finite where they are known"),
                ),
                (
                    "evaluations",
                    state.evaluations.len() <= window && state.evaluations.iter().all(usable),
                    format!("at most {window} lists of {domains} finite losses"),
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
        Toy::new(&format!("{{ strategy = \"skill-it\"{more} }}"), Slot::Sampling)
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // A = np.array([[1, 0.3, 0], [0, 1, 0], [0.5, 0.1, 0.8]])
    // prior, eta, last, evals = np.array([0.5, 0.3, 0.2]), 0.2, np.full(3, np.nan), []
    // p = prior * np.exp(eta * A @ np.ones(3))
    // print((p / p.sum()).tolist())
    // for t in range(9, 60, 10):
    //     for i in range(3):
    //         if t % 4 or i != 2:
    //             last[i] = 2.5 + i / 4 + np.sin(t + 2 * i)
    //     evals.append(np.where(np.isnan(last), np.nanmean(last), last))
    // p = prior * np.exp(eta * A @ np.sum(evals[-3:], axis=0))
    // print(((1 - 0.1) * p / p.sum() + 0.1 / 3).tolist())
    #[test]
    fn the_trajectory_is_that_of_a_few_lines_of_python() {
        let graph =
            ", graph = { web = { code = 0.3 }, math = { web = 0.5, code = 0.1, math = 0.8 } }";
        let prior = ", prior = { web = 5, code = 3, math = 2 }";
        assert_close(
            &toy(&format!("{graph}{prior}")).proposal(0),
            &[0.5068066011445655, 0.28637548940659807, 0.20681790944883652],
        );
        let mut toy = toy(&format!("{graph}{prior}, every = 10, epsilon = 0.1"));
        for t in (9..60_u64).step_by(10) {
            let loss = |i: u64| 2.5 + i as f64 / 4.0 + ((t + 2 * i) as f64).sin();
            let seen = |i: u64| !t.is_multiple_of(4) || i != 2;
            let losses: Vec<_> = (0..3).map(|i| seen(i).then(|| loss(i))).collect();
            toy.observe(&held_out(t, &losses));
        }
        assert_close(
            &toy.proposal(60),
            &[0.513429655521121, 0.20153663996613314, 0.28503370451274584],
        );
    }

    #[test]
    fn without_a_graph_it_is_multiplicative_weights_on_the_last_three_losses() {
        let mut toy = toy(", every = 1");
        assert_close(&toy.proposal(0), &[1.0 / 3.0; 3]);
        for t in 0..7 {
            toy.observe(&held_out(t, &[Some(9.0 - t as f64), Some(2.0), Some(2.0)]));
        }
        let p = toy.proposal(7);
        // 5 + 4 + 3 against 2 + 2 + 2.
        assert!((p[0] / p[1] - f64::exp(0.2 * 6.0)).abs() < 1e-12 && p[1] == p[2], "{p:?}");
    }

    #[test]
    fn a_domain_that_helps_one_in_need_is_drawn_more() {
        let losses = [Some(2.0), Some(4.0), Some(2.0)];
        let mut helped = toy(", every = 1, graph = { math = { code = 0.5 } }");
        helped.observe(&held_out(0, &losses));
        let p = helped.proposal(1);
        assert!((p[2] / p[0] - f64::exp(0.2 * 0.5 * 4.0)).abs() < 1e-12, "{p:?}");
    }

    #[test]
    fn a_state_knows_its_graph_without_keeping_it() {
        let graph = |value: &str| {
            let rows = ["web", "code", "math"].map(|name| format!("{name} = {value}"));
            toy(&format!(", every = 1, graph = {{ {} }}", rows.join(", ")))
        };
        let mut one = graph("{ web = 0.25, code = 0.5, math = 0.125 }");
        one.observe(&held_out(0, &[Some(2.0), Some(4.0), Some(2.0)]));
        let state = one.strategy.save();
        let text = state.to_string();
        assert!(!text.contains("0.25") && !text.contains("0.125"), "{text}");
        let mut same = graph("{ web = 0.25, code = 0.5, math = 0.125 }");
        same.strategy.load(&state).unwrap();
        assert_eq!(same.proposal(1), one.proposal(1));
        let mut other = graph("{ web = 0.25, code = 0.5, math = 0.25 }");
        let error = other.strategy.load(&state).unwrap_err().to_string();
        assert!(error.contains("graph_hash") && error.contains("the config's graph"), "{error}");
    }

    #[test]
    fn a_graph_names_domains_and_helps() {
        let message = |graph: &str| {
            let text = format!("{{ strategy = \"skill-it\", graph = {graph} }}");
            Toy::build(&text, Slot::Sampling, &Toy::domains()).unwrap_err().to_string()
        };
        let row = message("{ wob = { code = 1 } }");
        assert!(row.contains("sampling.graph names the domain `wob`"), "{row}");
        let column = message("{ web = { cod = 1 } }");
        assert!(column.contains("sampling.graph.web names the domain `cod`"), "{column}");
        let negative = message("{ web = { code = -1 } }");
        assert!(negative.contains("sampling.graph.web.code is -1"), "{negative}");
    }
}
