//! Gradients of a regression: those of drawn batches, and their exact mean and variance.
//!
//! Samples are drawn with replacement, so that a batch's gradient has variance Σ π²w²/b v² with v²
//! taken over the n training samples, exactly. Cost: O(B · d) a batch, O(n d) a domain's exact
//! statistics.

use cuvee_mixer::seed::CounterRng;
use cuvee_mixer::{GradientStatistics, stratified_counts};

use super::data::{Data, Samples};
use super::family::Family;
use crate::linalg::{axpy, distance_square, dot};

/// A batch's gradient, and what it says about each domain's.
pub(super) struct Batch {
    pub(super) gradient: Vec<f64>,
    /// `None` for a domain with fewer than two samples, as in training.
    pub(super) statistics: Vec<Option<GradientStatistics>>,
}

/// g = (1/B) Σ m_i ∇ℓ_ij on `counts` samples, sample j of domain i by number (i, j) of `rng`.
pub(super) fn gradient(
    family: Family,
    data: &Data,
    theta: &[f64],
    counts: &[usize],
    multiplier: &[f64],
    rng: &CounterRng,
) -> Batch {
    let batch_size: usize = counts.iter().sum();
    let mut batch =
        Batch { gradient: vec![0.0; theta.len()], statistics: vec![None; counts.len()] };
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
            batch.statistics[domain] =
                Some(GradientStatistics::from_sums(*count, square, dot(&sum, &sum)));
        }
    }
    batch
}

/// Mean of a domain's ∇ℓ over its training samples, and the trace of their covariance (over n, not
/// n − 1).
pub(super) struct Spread {
    pub(super) mean: Vec<f64>,
    pub(super) variance: f64,
}

/// Exact gradient statistics of a domain at θ.
pub(super) fn spread(family: Family, samples: &Samples, theta: &[f64]) -> Spread {
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
pub(super) struct Draw<'a> {
    pub(super) data: &'a Data,
    pub(super) family: Family,
    pub(super) batch_size: usize,
    pub(super) multiplier: &'a [f64],
    pub(super) sampling: &'a [f64],
}

impl Draw<'_> {
    /// Mean of ‖g − ∇L̂‖² over `batches` batches, where ∇L̂ = Σ m_i p_i ∇L_i is known exactly.
    pub(super) fn variance(
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
                let counts = stratified_counts(&mut residual, self.sampling, self.batch_size);
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
    use crate::random::stream;
    use crate::regression::settings::RegressionSettings;

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
            for (mean, seen) in mean.iter_mut().zip(&g.statistics) {
                *mean += seen.map_or(f64::NAN, |seen| seen.variance) / batches as f64;
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
        assert!(batch.statistics[0].is_none() && batch.statistics[1].is_some());
    }
}
