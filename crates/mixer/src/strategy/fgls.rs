//! FGLS: loss weights inverse to the noise of each domain, estimated on held-out text while
//! training.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::learned::{Learned, LossRule, SMOOTHING, Updates};
use crate::error::Result;
use crate::objective::Objective;
use crate::rule::{self, Clamp};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "fgls",
    slots: Slots::Loss,
    summary: "loss weights inverse to the held-out noise: w ← (1−beta)·w + beta·c/σ̂², every `every` steps",
    source: "arXiv:2511.06913; σ̂² of a language model derived, experimental",
    example: r#"{ strategy = "fgls", beta = 0.1, every = 100, smoothing = 0.8, sigma = "loss-variance", clamp_min = 0.1, clamp_max = 10 }"#,
    objectives: Objectives::Only(
        &[Objective::Importance],
        "it learns loss weights w and not the objective's shares",
    ),
};

/// w_i ← (1 − β) w_i + β c/σ̂_i² every `every` steps, from the `tune` split; see [`rule::fgls()`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fgls {
    /// β, above 0 and at most 1: how much of w an update replaces.
    pub beta: f64,
    /// Steps between updates, at least 1.
    pub every: u64,
    /// How much of the past a measurement keeps in the averages of mean and variance, from 0 to
    /// below 1.
    pub smoothing: f64,
    /// What stands for σ̂².
    pub sigma: Sigma,
    /// w_min, above 0 and at most 1.
    pub clamp_min: f64,
    /// w_max, at least 1.
    pub clamp_max: f64,
}

/// What stands for the noise σ̂² of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sigma {
    /// The held-out variance of ℓ_ij, the mean token cross-entropy of a sequence, over the
    /// sequences of the domain. **Derived**, experimental: the paper's rule is for the squared
    /// residuals of a regression.
    #[default]
    LossVariance,
}

impl Default for Fgls {
    fn default() -> Self {
        let clamp = Clamp::default();
        let (clamp_min, clamp_max) = (clamp.min, clamp.max);
        Self {
            beta: 0.1,
            every: 100,
            smoothing: SMOOTHING,
            sigma: Sigma::default(),
            clamp_min,
            clamp_max,
        }
    }
}

impl Fgls {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if !(self.beta > 0.0 && self.beta <= 1.0) {
            return Err(setup.bad_parameter("beta", self.beta, "a number above 0 and at most 1"));
        }
        let Self { every, smoothing, .. } = *self;
        Learned::boxed(setup, self.clone(), Updates { every, smoothing, clamp: self.clamp() })
    }

    fn clamp(&self) -> Clamp {
        Clamp { min: self.clamp_min, max: self.clamp_max }
    }
}

impl LossRule for Fgls {
    fn describe(&self) -> String {
        let sigma = match self.sigma {
            Sigma::LossVariance => "loss variance",
        };
        format!("{}, beta {}, every {} steps, by {sigma}", ENTRY.name, self.beta, self.every)
    }

    fn accepts(&self, variance: f64) -> bool {
        variance > 0.0
    }

    fn next(
        &self,
        importance: &[f64],
        loss_weight: &[f64],
        _mean: &[f64],
        variance: &[f64],
    ) -> Vec<f64> {
        match self.sigma {
            Sigma::LossVariance => {
                rule::fgls(importance, loss_weight, variance, self.beta, self.clamp())
            }
        }
    }
}
