//! The domains of a regression study: settings in, one seed's data out.
//!
//! Domain i: x ~ N(0, C_i I_d). Linear: y = θᵀx + ε with ε ~ N(0, σ_i²). Logistic: y ~
//! Bernoulli(1/(1 + e^−θᵀx)), then turned over with probability φ_i. θ_gt points in a random
//! direction, anew for each seed; its length is a setting.

use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::linalg::dot;
use crate::random::{normals, stream};

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

    /// Number of domains, K.
    pub fn domains(&self) -> usize {
        self.c.len()
    }

    /// Checks every setting of `study` (`linear` or `logistic`).
    pub(crate) fn check(&self, study: &'static str) -> Result<()> {
        let fail = |key: &'static str, value: String, expected: &str| {
            Err(LabError::Setting { study, key, value, expected: expected.to_owned() })
        };
        let positive = |v: &f64| v.is_finite() && *v > 0.0;
        let noise = if study == "logistic" { "from 0 to 1" } else { "above 0" };
        let noisy =
            |v: &f64| if study == "logistic" { (0.0..=1.0).contains(v) } else { positive(v) };
        if self.c.len() < 2 || !self.c.iter().all(positive) {
            return fail(
                "c",
                format!("{:?}", self.c),
                "at least two finite numbers above 0, one a domain",
            );
        }
        if self.sigma.len() != self.c.len() || !self.sigma.iter().all(noisy) {
            let expected = format!("{} numbers {noise}, as many as c", self.c.len());
            return fail("sigma", format!("{:?}", self.sigma), &expected);
        }
        for (key, value, most) in
            [("seeds", self.seeds, 1_000_000), ("steps", self.steps, 100_000_000)]
        {
            if value == 0 || value > most {
                return fail(key, value.to_string(), &format!("from 1 to {most}"));
            }
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
        learning(study, self.beta, self.gamma1, self.gamma2, self.epsilon, self.smoothing)
    }
}

/// Checks the settings that all studies share.
pub(crate) fn learning(
    study: &'static str,
    beta: f64,
    gamma1: f64,
    gamma2: f64,
    epsilon: f64,
    smoothing: f64,
) -> Result<()> {
    let checks = [
        ("beta", beta, beta > 0.0 && beta <= 1.0, "above 0, at most 1"),
        ("gamma1", gamma1, gamma1.is_finite() && gamma1 >= 0.0, "a finite number of at least 0"),
        ("gamma2", gamma2, gamma2.is_finite() && gamma2 >= 0.0, "a finite number of at least 0"),
        ("epsilon", epsilon, epsilon > 0.0 && epsilon <= 1.0, "above 0, at most 1"),
        ("smoothing", smoothing, (0.0..1.0).contains(&smoothing), "at least 0, below 1"),
    ];
    for (key, value, holds, expected) in checks {
        if !holds {
            return Err(LabError::Setting {
                study,
                key,
                value: value.to_string(),
                expected: expected.into(),
            });
        }
    }
    Ok(())
}

/// What y is, given θᵀx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// ℓ = ½ (θᵀx − y)².
    Linear,
    /// ℓ = ln(1 + e^z) − y z at z = θᵀx, y ∈ {0, 1}.
    Logistic,
}

impl Family {
    /// dℓ/dz at z = θᵀx: ∇ℓ = residual · x.
    pub(crate) fn residual(self, z: f64, y: f64) -> f64 {
        match self {
            Self::Linear => z - y,
            Self::Logistic => logistic(z) - y,
        }
    }

    /// ℓ at z = θᵀx.
    pub(crate) fn loss(self, z: f64, y: f64) -> f64 {
        match self {
            Self::Linear => 0.5 * (z - y) * (z - y),
            // ln(1 + e^z) without overflow.
            Self::Logistic => z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z,
        }
    }
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Samples of one domain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Samples {
    /// Rows of d features.
    pub(crate) x: Vec<f64>,
    /// One a row.
    pub(crate) y: Vec<f64>,
    d: usize,
}

impl Samples {
    /// (x, y) of sample `index`, which must exist.
    pub(crate) fn at(&self, index: usize) -> (&[f64], f64) {
        (&self.x[index * self.d..(index + 1) * self.d], self.y[index])
    }

    /// All samples in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[f64], f64)> {
        self.x.chunks_exact(self.d).zip(self.y.iter().copied())
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.y.len()
    }
}

/// One seed's world.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Data {
    /// θ_gt.
    pub(crate) truth: Vec<f64>,
    /// Training split, one a domain.
    pub(crate) train: Vec<Samples>,
    /// Held-out split, one a domain.
    pub(crate) held_out: Vec<Samples>,
}

impl Data {
    /// The world of seed number `index`. `clean` leaves the noise out of the training labels
    /// (logistic only).
    pub(crate) fn draw(
        settings: &RegressionSettings,
        family: Family,
        index: u64,
        clean: bool,
    ) -> Self {
        let d = settings.features;
        let mut truth = normals(&stream(settings.seed, index, "truth"), d, 1.0);
        let length = dot(&truth, &truth).sqrt();
        truth.iter_mut().for_each(|t| *t *= settings.truth_length / length);
        let split = |name: &str, count: usize| -> Vec<Samples> {
            let domains = settings.c.iter().zip(&settings.sigma).zip(0u64..);
            let of_domain = |((c, sigma), domain): ((&f64, &f64), u64)| {
                let rng = stream(settings.seed, index, name).nested(domain);
                let x = normals(&rng.nested(0), count * d, *c);
                let (noise, flips) = (normals(&rng.nested(1), count, 1.0), rng.nested(2));
                let y = x.chunks_exact(d).zip(noise).zip(0u64..).map(|((x, noise), row)| {
                    let z = dot(x, &truth);
                    match family {
                        Family::Linear => z + sigma * noise,
                        Family::Logistic => {
                            let one = flips.unit(2 * row) < logistic(z);
                            let turned = !clean && flips.unit(2 * row + 1) < *sigma;
                            f64::from(u8::from(one != turned))
                        }
                    }
                });
                let y = y.collect();
                Samples { x, y, d }
            };
            domains.map(of_domain).collect()
        };
        let (train, held_out) =
            (split("train", settings.samples), split("held-out", settings.held_out));
        Self { truth, train, held_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_residual_is_the_derivative_of_the_loss(z in -30f64..30.0, y in 0u8..2) {
            // Central differences with h = 1e-4: error h²/6 |ℓ'''| (below 0.1·1e-8) and rounding
            // 1e-16·|ℓ|/h (below 1e-9).
            let (h, y) = (1e-4, f64::from(y));
            for family in [Family::Linear, Family::Logistic] {
                let slope = (family.loss(z + h, y) - family.loss(z - h, y)) / (2.0 * h);
                prop_assert!((slope - family.residual(z, y)).abs() < 1e-8, "{family:?} {slope}");
            }
        }
    }

    #[test]
    fn data_depend_on_seed_and_index_alone_and_splits_differ() {
        let settings =
            RegressionSettings { samples: 30, held_out: 30, ..RegressionSettings::linear() };
        let draw = |index| Data::draw(&settings, Family::Linear, index, false);
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3).train, draw(4).train);
        assert_ne!(draw(3).train, draw(3).held_out);
    }

    #[test]
    fn noise_and_covariance_are_as_asked() {
        // Variances of n = 4,000 normal values have a relative σ of √(2/n) = 2.3 %, of n·d = 80,000
        // of 0.5 %; bounds at 5σ.
        let settings = RegressionSettings { samples: 4_000, ..RegressionSettings::linear() };
        let data = Data::draw(&settings, Family::Linear, 0, false);
        for ((domain, c), sigma) in data.train.iter().zip(&settings.c).zip(&settings.sigma) {
            let features = dot(&domain.x, &domain.x) / domain.x.len() as f64;
            let noise: f64 = domain.iter().map(|(x, y)| (y - dot(x, &data.truth)).powi(2)).sum();
            assert!((features / c - 1.0).abs() < 0.025, "{features}");
            assert!((noise / domain.len() as f64 / (sigma * sigma) - 1.0).abs() < 0.115, "{noise}");
        }
    }

    #[test]
    fn labels_are_turned_over_at_the_rate_asked_and_not_where_clean() {
        let settings = RegressionSettings { samples: 4_000, ..RegressionSettings::logistic() };
        let noisy = Data::draw(&settings, Family::Logistic, 0, false);
        let clean = Data::draw(&settings, Family::Logistic, 0, true);
        for ((a, b), rate) in noisy.train.iter().zip(&clean.train).zip(&settings.sigma) {
            assert_eq!(a.x, b.x);
            let turned = a.y.iter().zip(&b.y).filter(|(a, b)| a != b).count() as f64 / 4_000.0;
            // σ of a share is at most √(0.25/4000) = 0.8 %; bound at 5σ.
            assert!((turned - rate).abs() < 0.04, "{turned} {rate}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let linear = RegressionSettings::linear;
        let wrong = [
            ("c", RegressionSettings { c: vec![1.0], ..linear() }),
            ("sigma", RegressionSettings { sigma: vec![1.0], ..linear() }),
            ("sigma", RegressionSettings { sigma: vec![0.0, 1.0], ..linear() }),
            ("steps", RegressionSettings { steps: 0, ..linear() }),
            ("samples", RegressionSettings { samples: 4, features: 8, ..linear() }),
            ("lr", RegressionSettings { lr: f64::NAN, ..linear() }),
            ("truth_length", RegressionSettings { truth_length: 0.0, ..linear() }),
            ("epsilon", RegressionSettings { epsilon: 0.0, ..linear() }),
            ("beta", RegressionSettings { beta: 1.5, ..linear() }),
        ];
        for (expected, settings) in wrong {
            match settings.check("linear") {
                Err(LabError::Setting { key, .. }) => assert_eq!(key, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(
            linear().check("linear").is_ok()
                && RegressionSettings::logistic().check("logistic").is_ok()
        );
    }
}
