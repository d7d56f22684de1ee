//! The domains of a regression study: settings in, one seed's data out.
//!
//! Domain i: x ~ N(0, C_i I_d). Linear: y = θᵀx + ε with ε ~ N(0, σ_i²). Logistic: y ~
//! Bernoulli(1/(1 + e^−θᵀx)), then turned over with probability φ_i. θ_gt points in a random
//! direction, anew for each seed; its length is a setting.

use super::family::{Family, logistic};
use super::settings::RegressionSettings;
use crate::linalg::dot;
use crate::random::{normals, stream};

/// Samples of one domain.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Samples {
    /// Rows of d features.
    pub(super) x: Vec<f64>,
    /// One a row.
    pub(super) y: Vec<f64>,
    d: usize,
}

impl Samples {
    /// (x, y) of sample `index`, which must exist.
    pub(super) fn at(&self, index: usize) -> (&[f64], f64) {
        (&self.x[index * self.d..(index + 1) * self.d], self.y[index])
    }

    /// All samples in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[f64], f64)> {
        self.x.chunks_exact(self.d).zip(self.y.iter().copied())
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.y.len()
    }
}

/// One seed's world.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Data {
    /// θ_gt.
    pub(super) truth: Vec<f64>,
    /// Training split, one a domain.
    pub(super) train: Vec<Samples>,
    /// Held-out split, one a domain.
    pub(super) held_out: Vec<Samples>,
}

impl Data {
    /// The world of seed number `index`. `clean` leaves the noise out of the training labels
    /// (logistic only).
    pub(super) fn draw(
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
}
