//! Settings of the linear and the logistic study.

use serde::{Deserialize, Serialize};

use super::family::Family;
use crate::error::{LabError, Result};
use crate::settings::check_learning;

/// Settings of the linear and the logistic study. `Deserialize` starts from neither's defaults:
/// begin with [`RegressionSettings::linear`] or [`RegressionSettings::logistic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegressionSettings {
    /// Independent repetitions, each with its own θ_gt, data and order of samples.
    pub seeds: u64,
    /// Root seed.
    pub seed: u64,
    /// SGD steps.
    pub steps: u64,
    /// Feature covariance C_i of each domain; its length is the number of domains.
    pub c: Vec<f64>,
    /// Noise of each domain: σ_i (linear), or the probability φ_i that a label is turned over
    /// (logistic).
    pub sigma: Vec<f64>,
    /// Features, d.
    pub features: usize,
    /// ‖θ_gt‖, which is also how far from it SGD starts (at θ = 0).
    pub truth_length: f64,
    /// Training samples a domain, n.
    pub samples: usize,
    /// Held-out samples a domain, never trained on.
    pub held_out: usize,
    /// Samples a step, B.
    pub batch_size: usize,
    /// Constant step size of SGD, the same for all arms.
    pub lr: f64,
    /// Step sizes tried for each arm by itself, a factor of two apart around `lr`; 0 tries none.
    pub rates: u64,
    /// Seeds on which they are tried, none of them among `seeds`.
    pub tuning_seeds: u64,
    /// Steps between two updates of the loss weights.
    pub every: u64,
    /// FGLS: share of the new estimate in an update.
    pub beta: f64,
    /// ERMA: fidelity to the population risk.
    pub gamma1: f64,
    /// ERMA: pressure towards low variance.
    pub gamma2: f64,
    /// VA: ε.
    pub epsilon: f64,
    /// VA: share of the old v̂² that a step keeps.
    pub smoothing: f64,
    /// Random instances on which VA's gain is held against its closed form (linear); 0 leaves that
    /// out.
    pub instances: u64,
    /// Batches an instance, for either sampling.
    pub instance_batches: u64,
}

impl RegressionSettings {
    /// The linear study: the paper's hardest ratio of covariances.
    ///
    /// θ_gt has length 1: as long as θ is far off, a domain's residuals tell of the distance and
    /// not of its noise, and FGLS leans on the wrong domain; the farther the start, the more that
    /// detour hides of what the weights do afterwards.
    pub fn linear() -> Self {
        Self {
            seeds: 400,
            seed: 0,
            steps: 3_000,
            c: vec![1.0, 100.0],
            sigma: vec![5.0, 1.0],
            features: 20,
            truth_length: 1.0,
            samples: 200,
            held_out: 200,
            batch_size: 20,
            lr: 6e-4,
            rates: 7,
            tuning_seeds: 40,
            every: 5,
            beta: 0.1,
            gamma1: 0.1,
            gamma2: 0.1,
            epsilon: 0.05,
            smoothing: 0.9,
            instances: 20,
            instance_batches: 20_000,
        }
    }

    /// The logistic study: the first domain's labels are turned over two times in five. θ_gt has
    /// length √20: labels that are not turned over are then nearly always those of the side x lies
    /// on.
    pub fn logistic() -> Self {
        Self {
            c: vec![1.0, 1.0],
            sigma: vec![0.4, 0.0],
            seeds: 200,
            truth_length: 20f64.sqrt(),
            lr: 0.05,
            every: 20,
            instances: 0,
            ..Self::linear()
        }
    }

    /// The same study with `domains` of them, at least 2: C by equal factors and the noise by equal
    /// steps between what it was for the first and the last one, and as many samples a step for
    /// each.
    #[must_use]
    pub fn with_domains(self, domains: usize) -> Self {
        let ends = |values: &[f64]| {
            let first = values.first().copied().unwrap_or(1.0);
            (first, values.last().copied().unwrap_or(first))
        };
        let ((c, ratio), (first, last)) = (factor(ends(&self.c)), ends(&self.sigma));
        let batch_size = self.batch_size * domains / self.domains().max(1);
        let sigma = shares(domains).map(|share| first + (last - first) * share).collect();
        Self { c: geometric(domains, c, ratio), sigma, batch_size, ..self }
    }

    /// The same study with C from 1 to `ratio`, and lr · mean C as it was.
    pub(super) fn at_ratio(&self, ratio: f64) -> Self {
        let mean = |c: &[f64]| c.iter().sum::<f64>() / c.len() as f64;
        let c = geometric(self.domains(), 1.0, ratio);
        let lr = self.lr * (mean(&self.c) / mean(&c));
        // What VA gains on random instances does not depend on C.
        Self { c, lr, instances: 0, ..self.clone() }
    }

    /// Trainings of each arm: one a seed, and where rates are tuned those that try and one a seed
    /// at the arm's own rate.
    pub fn trainings(&self) -> u64 {
        let own = if self.rates == 0 { 0 } else { self.seeds };
        self.seeds.saturating_add(own).saturating_add(self.rates.saturating_mul(self.tuning_seeds))
    }

    /// Number of domains, K.
    pub fn domains(&self) -> usize {
        self.c.len()
    }

    /// Checks every setting, for a study of `family`.
    ///
    /// # Errors
    /// [`LabError::Setting`] with the first one that is out of its range.
    pub(super) fn check(&self, family: Family) -> Result<()> {
        let study = family.name();
        let fail = |key: &'static str, value: String, expected: &str| {
            Err(LabError::Setting { study, key, value, expected: expected.to_owned() })
        };
        let positive = |v: &f64| v.is_finite() && *v > 0.0;
        let noise = match family {
            Family::Linear => "above 0",
            Family::Logistic => "from 0 to 1",
        };
        let noisy = |v: &f64| match family {
            Family::Linear => positive(v),
            Family::Logistic => (0.0..=1.0).contains(v),
        };
        if self.c.len() < 2 || !self.c.iter().all(positive) {
            return fail(
                "c",
                format!("{:?}", self.c),
                "at least two finite numbers above 0, one a domain",
            );
        }
        if self.sigma.len() != self.c.len() || !self.sigma.iter().all(noisy) {
            let expected =
                format!("{} {noise}, as many as c", cuvee_words::counted(self.c.len(), "number"));
            return fail("sigma", format!("{:?}", self.sigma), &expected);
        }
        for (key, value, most) in
            [("seeds", self.seeds, 1_000_000), ("steps", self.steps, 100_000_000)]
        {
            if value == 0 || value > most {
                return fail(key, value.to_string(), &format!("from 1 to {most}"));
            }
        }
        if self.rates > 64 {
            return fail("rates", self.rates.to_string(), "from 0 to 64");
        }
        if self.rates > 0 && !(1..=1_000_000).contains(&self.tuning_seeds) {
            return fail("tuning_seeds", self.tuning_seeds.to_string(), "from 1 to 1000000");
        }
        if self.instances > 0 && self.instance_batches == 0 {
            return fail("instance_batches", "0".into(), "at least 1, or instances = 0");
        }
        if self.every == 0 {
            return fail("every", "0".into(), "at least 1");
        }
        let sizes =
            [("features", self.features, 1, 1_000), ("samples", self.samples, 2, 1_000_000)];
        let more = [
            ("held_out", self.held_out, 2, 1_000_000),
            ("batch_size", self.batch_size, 1, 1_000_000),
        ];
        for (key, value, least, most) in sizes.into_iter().chain(more) {
            if !(least..=most).contains(&value) {
                return fail(key, value.to_string(), &format!("from {least} to {most}"));
            }
        }
        if self.samples.saturating_mul(self.domains()) <= self.features {
            return fail(
                "samples",
                self.samples.to_string(),
                "more samples in all domains together than features",
            );
        }
        for (key, value) in [("lr", self.lr), ("truth_length", self.truth_length)] {
            if !positive(&value) {
                return fail(key, value.to_string(), "a finite number above 0");
            }
        }
        check_learning(study, self.beta, self.gamma1, self.gamma2, self.epsilon, self.smoothing)
    }
}

/// From 0 for the first of `domains` to 1 for the last.
fn shares(domains: usize) -> impl Iterator<Item = f64> {
    (0..domains).map(move |i| i as f64 / domains.saturating_sub(1).max(1) as f64)
}

/// The first value, and the last over the first.
fn factor((first, last): (f64, f64)) -> (f64, f64) {
    (first, last / first)
}

/// `domains` values by equal factors, from `first` to `first · ratio`.
fn geometric(domains: usize, first: f64, ratio: f64) -> Vec<f64> {
    shares(domains).map(|share| first * ratio.powf(share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let linear = RegressionSettings::linear;
        let wrong = [
            ("c", RegressionSettings { c: vec![1.0], ..linear() }),
            ("sigma", RegressionSettings { sigma: vec![1.0], ..linear() }),
            ("sigma", RegressionSettings { sigma: vec![0.0, 1.0], ..linear() }),
            ("steps", RegressionSettings { steps: 0, ..linear() }),
            ("rates", RegressionSettings { rates: 65, ..linear() }),
            ("tuning_seeds", RegressionSettings { tuning_seeds: 0, ..linear() }),
            ("samples", RegressionSettings { samples: 4, features: 8, ..linear() }),
            ("lr", RegressionSettings { lr: f64::NAN, ..linear() }),
            ("truth_length", RegressionSettings { truth_length: 0.0, ..linear() }),
            ("epsilon", RegressionSettings { epsilon: 0.0, ..linear() }),
            ("beta", RegressionSettings { beta: 1.5, ..linear() }),
        ];
        for (expected, settings) in wrong {
            match settings.check(Family::Linear) {
                Err(LabError::Setting { key, .. }) => assert_eq!(key, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(
            linear().check(Family::Linear).is_ok()
                && RegressionSettings::logistic().check(Family::Logistic).is_ok()
        );
    }
}
