//! Group DRO: the objective's shares for the domains with the highest losses.
//!
//! Source: Sagawa, Koh, Hashimoto, Liang, *Distributionally Robust Neural Networks for Group
//! Shifts*, arXiv:1911.08731 (ICLR 2020), and its released code. At each step
//!
//! q_i ← q_i · exp(η (L_i + C/√n_i)), normalised; objective Σ q_i L_i,
//!
//! with n_i the sequences of domain i's training split. q is the objective α itself, so the rule
//! serves the loss slot under `objective = "reweighted"` alone, where α = q whatever p is; under
//! `importance` it would be π_i q_i. The published code updates q from a batch and uses it on the
//! same batch. Here a step is weighed before its batch is seen, so that q is one step behind. There
//! a group that a batch lacks counts as a loss of 0; here it keeps its last loss, and one that was
//! never seen counts at the mean of the others.
//!
//! In: training losses. Out: α. State: ln q and one loss a domain. Costs nothing. Known weakness: a
//! domain of high entropy that cannot be learned keeps the highest loss, and takes everything.

use super::interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
use super::last_losses::{self, filled, remember};
use super::log_shares::LogShares;
use super::saved;
use super::weighed::Weighed;
use crate::error::Result;
use crate::objective::Objective;
use crate::observation::Observation;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "group-dro",
    slots: Slots::Loss,
    summary: "objective by loss, for the worst domain: q ← q·exp(step·(L + adjustment/√n)), every step",
    source: "arXiv:1911.08731",
    example: r#"{ strategy = "group-dro", step = 0.01, adjustment = 0 }"#,
    objectives: Objectives::Only(
        &[Objective::Reweighted],
        "it learns the objective's shares α and not loss weights w",
    ),
};

/// q_i ← q_i · exp(η (L_i + C/√n_i)), normalised, after each step. Starts at even shares of the
/// domains that have importance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupDro {
    /// η, above 0: with losses that stay as they are, q_i/q_j grows by exp(η (L_i − L_j)) a step.
    pub step: f64,
    /// C, at least 0: how much more a small domain counts, as its loss is known less well.
    pub adjustment: f64,
}

impl Default for GroupDro {
    fn default() -> Self {
        Self { step: 0.01, adjustment: 0.0 }
    }
}

impl GroupDro {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        setup.check_positive("step", self.step)?;
        setup.check_not_negative("adjustment", self.adjustment)?;
        let sequences = |tokens: u64| setup.run.windows(tokens).max(1) as f64;
        let weighed = Weighed::new(setup);
        Ok(Box::new(Worst {
            config: self.clone(),
            adjustments: setup
                .domains
                .iter()
                .map(|domain| self.adjustment / sequences(domain.tokens).sqrt())
                .collect(),
            state: State {
                log_objective: LogShares::new(&vec![1.0; weighed.count()]),
                last: vec![None; setup.domains.len()],
            },
            weighed,
        }))
    }
}

/// [`GroupDro`] with its state.
#[derive(Debug)]
struct Worst {
    config: GroupDro,
    /// C/√n_i.
    adjustments: Vec<f64>,
    weighed: Weighed,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// ln q of the domains that have importance.
    log_objective: LogShares,
    /// The last loss of each domain.
    last: Vec<Option<f64>>,
}

impl Strategy for Worst {
    fn describe(&self) -> String {
        let GroupDro { step, adjustment } = self.config;
        format!("{}, step {step}, adjustment {adjustment}", ENTRY.name)
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `step`, or `adjustment` = 0: a domain that cannot be learned keeps the highest loss"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.weighed.spread(&self.state.log_objective.shares()))
    }

    fn observe(&mut self, observation: &Observation) {
        if !remember(&mut self.state.last, &observation.training) {
            return;
        }
        let Some(losses) = filled(&self.state.last) else {
            return;
        };
        let exponent = |i: &usize| self.config.step * (losses[*i] + self.adjustments[*i]);
        let exponents: Vec<f64> = self.weighed.places().iter().map(exponent).collect();
        self.state.log_objective.multiply(&exponents);
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let (domains, weighed) = (self.adjustments.len(), self.weighed.count());
        self.state = saved::read(&self.describe(), state, |state: &State| {
            [
                (
                    "log_objective",
                    state.log_objective.is_valid(weighed),
                    format!("logarithms of {weighed} shares, the largest 0"),
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
    use crate::strategy::toy::{Toy, assert_close, training};

    fn toy(text: &str) -> Toy {
        Toy::new(text, Slot::Loss)
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // n = np.array([600, 150, 30])
    // q, last = np.ones(3) / 3, np.full(3, np.nan)
    // for t in range(40):
    //     for i in range(3):
    //         if (t + i) % 3 or i == 1:
    //             last[i] = 2 + i / 2 + np.sin(t + 2 * i)
    //     L = np.where(np.isnan(last), np.nanmean(last), last)
    //     q = q * np.exp(0.05 * (L + 1.5 / np.sqrt(n)))
    //     q /= q.sum()
    // print(q.tolist())
    #[test]
    fn the_trajectory_is_that_of_a_few_lines_of_python() {
        let mut toy = toy(r#"{ strategy = "group-dro", step = 0.05, adjustment = 1.5 }"#);
        for t in 0..40_u64 {
            let seen = |i: u64| !(t + i).is_multiple_of(3) || i == 1;
            let loss = |i: u64| 2.0 + i as f64 / 2.0 + ((t + 2 * i) as f64).sin();
            let losses: Vec<_> = (0..3).map(|i| seen(i).then(|| loss(i))).collect();
            toy.observe(&training(t, &losses));
        }
        assert_close(
            &toy.proposal(40),
            &[0.07444275175158635, 0.21618356085530616, 0.7093736873931075],
        );
    }

    #[test]
    fn the_share_of_the_worst_domain_grows_at_the_rate_of_the_difference() {
        let mut toy = toy(r#"{ strategy = "group-dro", step = 0.1 }"#);
        for step in 0..200 {
            let q = toy.proposal(step);
            let log_odds = (q[2] / q[1]).ln();
            assert!((log_odds - 0.1 * 0.5 * step as f64).abs() < 1e-9, "{log_odds} at {step}");
            toy.observe(&training(step, &[Some(2.0), Some(3.0), Some(3.5)]));
        }
        assert!(toy.proposal(200)[2] > 0.9999, "{:?}", toy.proposal(200));
    }

    #[test]
    fn a_domain_without_importance_has_no_share_of_the_objective() {
        let mut domains = Toy::domains();
        domains[1].importance = 0.0;
        let mut toy = Toy::of("\"group-dro\"", Slot::Loss, domains);
        toy.observe(&training(0, &[Some(2.0), Some(9.0), Some(2.0)]));
        assert_close(&toy.proposal(1), &[0.5, 0.0, 0.5]);
        let state = toy.strategy.save();
        toy.strategy.load(&state).unwrap();
    }
}
