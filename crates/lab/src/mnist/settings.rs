//! Settings of the MNIST study.

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::settings::check_learning;

/// Settings of the MNIST study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MnistSettings {
    /// Independent repetitions, each with its own split, labels, initial parameters and order.
    pub seeds: u64,
    /// Root seed.
    pub seed: u64,
    /// SGD steps.
    pub steps: u64,
    /// Training images a domain.
    pub samples: usize,
    /// Held-out images a domain, never trained on.
    pub held_out: usize,
    /// Share of the second domain's labels that are drawn anew from all ten digits.
    pub random_labels: f64,
    /// Hidden units.
    pub hidden: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Constant step size of SGD, the same for all arms.
    pub lr: f64,
    /// Step sizes tried for each arm by itself, a factor of two apart around `lr`; 0, the default,
    /// tries none: it takes several times as long.
    pub rates: u64,
    /// Seeds on which they are tried, none of them among `seeds`.
    pub tuning_seeds: u64,
    /// Steps between two updates of the loss weights.
    pub every: u64,
    /// ERMA: fidelity to the population risk.
    pub gamma1: f64,
    /// ERMA: pressure towards low variance.
    pub gamma2: f64,
    /// VA: ε.
    pub epsilon: f64,
    /// VA: share of the old v̂² that a step keeps.
    pub smoothing: f64,
}

impl Default for MnistSettings {
    fn default() -> Self {
        Self {
            seeds: 4,
            seed: 0,
            steps: 3_000,
            samples: 3_500,
            held_out: 500,
            random_labels: 0.6,
            hidden: 128,
            batch_size: 64,
            lr: 0.05,
            rates: 0,
            tuning_seeds: 2,
            every: 20,
            gamma1: 0.1,
            gamma2: 0.1,
            epsilon: 0.05,
            smoothing: 0.9,
        }
    }
}

impl MnistSettings {
    /// Trainings of each arm: one a seed, and where rates are tuned those that try and one a seed
    /// at the arm's own rate.
    pub fn trainings(&self) -> u64 {
        let own = if self.rates == 0 { 0 } else { self.seeds };
        self.seeds.saturating_add(own).saturating_add(self.rates.saturating_mul(self.tuning_seeds))
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`LabError::Setting`] with the first one that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let fail = |key: &'static str, value: String, expected: &str| {
            Err(LabError::Setting { study: "mnist", key, value, expected: expected.to_owned() })
        };
        for (key, value, most) in [("seeds", self.seeds, 10_000), ("steps", self.steps, 10_000_000)]
        {
            if value == 0 || value > most {
                return fail(key, value.to_string(), &format!("from 1 to {most}"));
            }
        }
        let sizes = [
            ("samples", self.samples, 2),
            ("held_out", self.held_out, 2),
            ("hidden", self.hidden, 1),
        ];
        for (key, value, least) in sizes.into_iter().chain([("batch_size", self.batch_size, 1)]) {
            if !(least..=100_000).contains(&value) {
                return fail(key, value.to_string(), &format!("from {least} to 100000"));
            }
        }
        if self.every == 0 {
            return fail("every", "0".into(), "at least 1");
        }
        if self.rates > 64 {
            return fail("rates", self.rates.to_string(), "from 0 to 64");
        }
        if self.rates > 0 && !(1..=10_000).contains(&self.tuning_seeds) {
            return fail("tuning_seeds", self.tuning_seeds.to_string(), "from 1 to 10000");
        }
        if !(0.0..=1.0).contains(&self.random_labels) {
            return fail("random_labels", self.random_labels.to_string(), "from 0 to 1");
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return fail("lr", self.lr.to_string(), "a finite number above 0");
        }
        check_learning("mnist", 1.0, self.gamma1, self.gamma2, self.epsilon, self.smoothing)
    }
}
