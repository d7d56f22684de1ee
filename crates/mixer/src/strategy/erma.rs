//! ERMA: loss weights by exponentiated gradient descent on a bound of the population risk.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::learned::{Learned, LossRule, SMOOTHING, Updates};
use crate::error::Result;
use crate::objective::Objective;
use crate::rule::{self, Clamp};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "erma",
    slots: Slots::Loss,
    summary: "loss weights from held-out losses: w ← w·exp(gamma1·π·G·L − gamma2·π·w·Var), every `every` steps",
    source: "arXiv:2511.06913; G = Σ π(1−w)L derived",
    example: r#"{ strategy = "erma", gamma1 = 1, gamma2 = 1, every = 100, smoothing = 0.8, descent = "loss-weight", clamp_min = 0.1, clamp_max = 10 }"#,
    objectives: Objectives::Only(
        &[Objective::Importance],
        "it learns loss weights w and not the objective's shares",
    ),
};

/// w_i ← w_i · exp(γ₁ π_i G L_i − γ₂ π_i w_i Var_i) every `every` steps, from the `tune` split; see
/// [`rule::erma()`], and [`Descent`] for importances that differ.
///
/// The ratio γ₁ : γ₂ sets where w settles, their size how fast it gets there. The defaults are even
/// and not tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Erma {
    /// γ₁ ≥ 0: fidelity to the population risk.
    pub gamma1: f64,
    /// γ₂ ≥ 0: low variance.
    pub gamma2: f64,
    /// Steps between updates, at least 1.
    pub every: u64,
    /// How much of the past a measurement keeps in the averages of mean and variance, from 0 to
    /// below 1.
    pub smoothing: f64,
    /// What the gradient of the bound is taken by.
    pub descent: Descent,
    /// w_min, above 0 and at most 1.
    pub clamp_min: f64,
    /// w_max, at least 1.
    pub clamp_max: f64,
}

/// What ERMA's descent moves. Where the importances of the domains are equal, the two differ by a
/// factor K in the rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Descent {
    /// w: the rule as published. Where importances differ it may end far from the least bound.
    #[default]
    LossWeight,
    /// α = π w: w_i ← w_i · exp(γ₁ G L_i − γ₂ w_i Var_i), descent on the bound at any importances.
    /// **Derived**; see [`rule::erma_objective`].
    Objective,
}

impl Default for Erma {
    fn default() -> Self {
        let clamp = Clamp::default();
        let (clamp_min, clamp_max) = (clamp.min, clamp.max);
        Self {
            gamma1: 1.0,
            gamma2: 1.0,
            every: 100,
            smoothing: SMOOTHING,
            descent: Descent::default(),
            clamp_min,
            clamp_max,
        }
    }
}

impl Erma {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        for (key, value) in [("gamma1", self.gamma1), ("gamma2", self.gamma2)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(setup.bad_parameter(key, value, "a finite number of at least 0"));
            }
        }
        let Self { every, smoothing, .. } = *self;
        Learned::boxed(setup, self.clone(), Updates { every, smoothing, clamp: self.clamp() })
    }

    fn clamp(&self) -> Clamp {
        Clamp { min: self.clamp_min, max: self.clamp_max }
    }
}

impl LossRule for Erma {
    fn describe(&self) -> String {
        let Self { gamma1, gamma2, every, .. } = self;
        let by = match self.descent {
            Descent::LossWeight => "",
            Descent::Objective => ", by the objective",
        };
        format!("{}, gamma {gamma1} and {gamma2}, every {every} steps{by}", ENTRY.name)
    }

    fn accepts(&self, _variance: f64) -> bool {
        true
    }

    fn next(
        &self,
        importance: &[f64],
        loss_weight: &[f64],
        mean: &[f64],
        variance: &[f64],
    ) -> Vec<f64> {
        let (gamma1, gamma2) = (self.gamma1, self.gamma2);
        let rule = match self.descent {
            Descent::LossWeight => rule::erma,
            Descent::Objective => rule::erma_objective,
        };
        rule(importance, loss_weight, mean, variance, gamma1, gamma2, self.clamp())
    }
}
