//! The model of a regression study: θ, its error, and the gradients of its domains' samples.
//!
//! Samples are drawn with replacement, so that a batch's gradient has variance Σ π²w²/b v² with v²
//! taken over the n training samples, exactly. Cost: O(B · d) a step, and O(K n d) a probe.

use cuvee_mixer::seed::CounterRng;

use crate::linalg::{axpy, distance_square, dot};
use crate::random::stream;
use crate::regression::{Data, Family, RegressionSettings, Samples};
use crate::sgd::Learner;
use crate::weighting::{HeldOut, Weighting, held_out, next_counts};

/// Batches drawn to measure the variance of g at a probe.
const PROBE_BATCHES: u64 = 20;

/// θ on one seed's data.
pub(crate) struct Regression<'a> {
    settings: &'a RegressionSettings,
    family: Family,
    data: &'a Data,
    theta: Vec<f64>,
    order: CounterRng,
    probes: CounterRng,
}

impl<'a> Regression<'a> {
    /// θ = 0 on the data of seed number `index`.
    pub(crate) fn new(
        settings: &'a RegressionSettings,
        family: Family,
        data: &'a Data,
        index: u64,
    ) -> Self {
        Self {
            settings,
            family,
            data,
            theta: vec![0.0; settings.features],
            order: stream(settings.seed, index, "order"),
            probes: stream(settings.seed, index, "probes"),
        }
    }
}

impl Learner for Regression<'_> {
    fn error(&self) -> f64 {
        error(self.family, &self.theta, &self.data.truth)
    }

    fn probe(&self, weighting: &Weighting, step: u64) -> (f64, f64) {
        let spread: Vec<Spread> =
            self.data.train.iter().map(|domain| spread(self.family, domain, &self.theta)).collect();
        let v2: Vec<f64> = spread.iter().map(|s| s.variance).collect();
        let draw = Draw {
            data: self.data,
            family: self.family,
            batch_size: self.settings.batch_size,
            multiplier: &weighting.multiplier(),
            sampling: weighting.sampling_weight(),
        };
        let measured =
            draw.variance(&self.theta, &spread, PROBE_BATCHES, &self.probes.nested(step));
        (measured, weighting.variance(self.settings.batch_size, &v2))
    }

    fn step(
        &mut self,
        step: u64,
        counts: &[usize],
        multiplier: &[f64],
        _: bool,
    ) -> Vec<Option<f64>> {
        let order = self.order.nested(step);
        let batch = gradient(self.family, self.data, &self.theta, counts, multiplier, &order);
        axpy(&mut self.theta, -self.settings.lr, &batch.gradient);
        batch.variance
    }

    fn held_out(&self) -> Vec<HeldOut> {
        self.data.held_out.iter().map(|domain| tell(self.family, domain, &self.theta)).collect()
    }
}

/// Linear: ‖θ − θ_gt‖². Logistic: the share (%) of all x whose side of the boundary θ gets wrong.
/// For spherical x that is the angle between θ and θ_gt over π; half where θ = 0.
fn error(family: Family, theta: &[f64], truth: &[f64]) -> f64 {
    match family {
        Family::Linear => distance_square(theta, truth),
        Family::Logistic => {
            let lengths = (dot(theta, theta) * dot(truth, truth)).sqrt();
            if lengths == 0.0 {
                return 50.0;
            }
            100.0 * (dot(theta, truth) / lengths).clamp(-1.0, 1.0).acos() / std::f64::consts::PI
        }
    }
}

/// What the held-out split says about θ.
fn tell(family: Family, samples: &Samples, theta: &[f64]) -> HeldOut {
    let residual = |x: &[f64], y: f64| family.residual(dot(theta, x), y);
    let losses: Vec<f64> = samples.iter().map(|(x, y)| family.loss(dot(theta, x), y)).collect();
    let squares: Vec<f64> = samples.iter().map(|(x, y)| residual(x, y).powi(2)).collect();
    held_out(&losses, &squares)
}

/// A batch's gradient, and what it says about each domain's.
struct Batch {
    gradient: Vec<f64>,
    variance: Vec<Option<f64>>,
}

/// g = (1/B) Σ m_i ∇ℓ_ij on `counts` samples, sample j of domain i by number (i, j) of `rng`; and
/// the unbiased v̂_i² = b/(b − 1) (mean ‖∇ℓ‖² − ‖mean ∇ℓ‖²) where b_i ≥ 2.
fn gradient(
    family: Family,
    data: &Data,
    theta: &[f64],
    counts: &[usize],
    multiplier: &[f64],
    rng: &CounterRng,
) -> Batch {
    let batch_size: usize = counts.iter().sum();
    let mut batch = Batch { gradient: vec![0.0; theta.len()], variance: vec![None; counts.len()] };
    let mut sum = vec![0.0; theta.len()];
    for (domain, (samples, count)) in data.train.iter().zip(counts).enumerate() {
        let draws = rng.nested(domain as u64);
        let mut square = 0.0;
        sum.fill(0.0);
        for j in 0..*count as u64 {
            let (x, y) = samples.at(draws.below(j, samples.len() as u64) as usize);
            let residual = family.residual(dot(theta, x), y);
            square += residual * residual * dot(x, x);
            axpy(&mut sum, residual, x);
        }
        axpy(&mut batch.gradient, multiplier[domain] / batch_size as f64, &sum);
        if *count >= 2 {
            let b = *count as f64;
            batch.variance[domain] = Some((square - dot(&sum, &sum) / b) / (b - 1.0));
        }
    }
    batch
}

/// Mean of a domain's ∇ℓ over its training samples, and the trace of their covariance (over n, not
/// n − 1).
pub(crate) struct Spread {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: f64,
}

/// Exact gradient statistics of a domain at θ.
pub(crate) fn spread(family: Family, samples: &Samples, theta: &[f64]) -> Spread {
    let mut mean = vec![0.0; theta.len()];
    let (mut square, share) = (0.0, 1.0 / samples.len() as f64);
    for (x, y) in samples.iter() {
        let residual = family.residual(dot(theta, x), y);
        square += share * residual * residual * dot(x, x);
        axpy(&mut mean, share * residual, x);
    }
    let variance = (square - dot(&mean, &mean)).max(0.0);
    Spread { mean, variance }
}

/// How batches are drawn at a fixed θ.
pub(crate) struct Draw<'a> {
    pub(crate) data: &'a Data,
    pub(crate) family: Family,
    pub(crate) batch_size: usize,
    pub(crate) multiplier: &'a [f64],
    pub(crate) sampling: &'a [f64],
}

impl Draw<'_> {
    /// Mean of ‖g − ∇L̂‖² over `batches` batches, where ∇L̂ = Σ m_i p_i ∇L_i is known exactly.
    pub(crate) fn variance(
        &self,
        theta: &[f64],
        spread: &[Spread],
        batches: u64,
        rng: &CounterRng,
    ) -> f64 {
        let mut expected = vec![0.0; theta.len()];
        for ((spread, m), p) in spread.iter().zip(self.multiplier).zip(self.sampling) {
            axpy(&mut expected, m * p, &spread.mean);
        }
        let mut residual = vec![0.0; self.sampling.len()];
        let total: f64 = (0..batches)
            .map(|batch| {
                let counts = next_counts(&mut residual, self.sampling, self.batch_size);
                let g = gradient(
                    self.family,
                    self.data,
                    theta,
                    &counts,
                    self.multiplier,
                    &rng.nested(batch),
                );
                distance_square(&g.gradient, &expected)
            })
            .sum();
        total / batches as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (RegressionSettings, Data) {
        let settings =
            RegressionSettings { samples: 40, features: 5, ..RegressionSettings::linear() };
        let data = Data::draw(&settings, Family::Linear, 0, false);
        (settings, data)
    }

    #[test]
    fn the_mean_of_g_does_not_depend_on_p_and_its_variance_follows_the_formula() {
        let (_, data) = small();
        let theta = vec![0.3; 5];
        let spread: Vec<Spread> =
            data.train.iter().map(|d| spread(Family::Linear, d, &theta)).collect();
        let (objective, batch_size, batches) = ([0.3, 0.7], 20usize, 4_000u64);
        for sampling in [[0.5, 0.5], [0.9, 0.1]] {
            let multiplier = [objective[0] / sampling[0], objective[1] / sampling[1]];
            let counts = sampling.map(|p| (batch_size as f64 * p).round() as usize);
            let rng = stream(5, 0, "mean");
            let mut mean = vec![0.0; 5];
            for batch in 0..batches {
                let g = gradient(
                    Family::Linear,
                    &data,
                    &theta,
                    &counts,
                    &multiplier,
                    &rng.nested(batch),
                );
                axpy(&mut mean, 1.0 / batches as f64, &g.gradient);
            }
            let mut expected = vec![0.0; 5];
            for (alpha, domain) in objective.iter().zip(&spread) {
                axpy(&mut expected, *alpha, &domain.mean);
            }
            let formula: f64 =
                (0..2).map(|i| objective[i].powi(2) / counts[i] as f64 * spread[i].variance).sum();
            // ‖mean − expected‖² has expectation formula/batches and, at worst (one direction), a
            // χ² with one degree of freedom: above 25 times that once in two million.
            assert!(distance_square(&mean, &expected) < 25.0 * formula / batches as f64);
            let draw = Draw {
                data: &data,
                family: Family::Linear,
                batch_size,
                multiplier: &multiplier,
                sampling: &sampling,
            };
            let measured = draw.variance(&theta, &spread, batches, &stream(6, 0, "variance"));
            // The mean of 4,000 squares, in one direction at worst: relative σ √(2/4000) = 2.2 %, a
            // little more for their excess kurtosis; bound at 5σ.
            assert!((measured / formula - 1.0).abs() < 0.12, "{sampling:?}: {measured} {formula}");
        }
    }

    #[test]
    fn a_batch_s_gradient_variance_is_unbiased() {
        let (_, data) = small();
        let theta = vec![0.1; 5];
        let rng = stream(8, 0, "unbiased");
        let batches = 4_000u64;
        let mut mean = [0.0; 2];
        for batch in 0..batches {
            let g =
                gradient(Family::Linear, &data, &theta, &[3, 3], &[1.0, 1.0], &rng.nested(batch));
            for (mean, v2) in mean.iter_mut().zip(&g.variance) {
                *mean += v2.unwrap_or(f64::NAN) / batches as f64;
            }
        }
        for (mean, domain) in mean.iter().zip(&data.train) {
            // Squared norms of 3 products of normal factors: relative σ of one estimate about 1.5,
            // of the mean 2.4 %; at 5σ.
            let expected = spread(Family::Linear, domain, &theta).variance;
            assert!((mean / expected - 1.0).abs() < 0.12, "{mean} {expected}");
        }
    }

    #[test]
    fn one_sample_tells_no_variance() {
        let (_, data) = small();
        let batch =
            gradient(Family::Linear, &data, &[0.0; 5], &[1, 2], &[1.0; 2], &stream(0, 0, "x"));
        assert!(batch.variance[0].is_none() && batch.variance[1].is_some());
    }

    #[test]
    fn the_logistic_error_is_the_angle() {
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}")
        };
        near(error(Family::Logistic, &[0.0, 0.0], &[1.0, 0.0]), 50.0);
        near(error(Family::Logistic, &[3.0, 0.0], &[1.0, 0.0]), 0.0);
        near(error(Family::Logistic, &[1.0, 1.0], &[1.0, 0.0]), 25.0);
        near(error(Family::Logistic, &[-2.0, 0.0], &[1.0, 0.0]), 100.0);
    }
}
