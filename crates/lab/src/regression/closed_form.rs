//! Weighted least squares without SGD: the minimiser of Σ_i a_i ‖X_i θ − y_i‖² and its covariance.
//!
//! With A = Σ a_i X_iᵀX_i the minimiser is A⁻¹ Σ a_i X_iᵀy_i, its covariance given X is A⁻¹ (Σ a_i²
//! σ_i² X_iᵀX_i) A⁻¹. At a_i = 1/σ_i² (generalised least squares: the best linear unbiased
//! estimator by Aitken, 1935) this is A⁻¹ itself; at a_i = 1 it is that of ordinary least squares.
//! Cost: O(n d² + d³).

use super::data::Samples;
use crate::linalg::{axpy, cholesky, solve};

/// The minimiser at per-domain weights `a`; `None` where A is singular.
pub(super) fn minimiser(domains: &[Samples], a: &[f64], d: usize) -> Option<Vec<f64>> {
    let factor = cholesky(&gram(domains, a, d), d)?;
    let mut right = vec![0.0; d];
    for (samples, a) in domains.iter().zip(a) {
        for (x, y) in samples.iter() {
            axpy(&mut right, a * y, x);
        }
    }
    Some(solve(&factor, &right))
}

/// Trace of the minimiser's covariance given X, where domain i's noise has standard deviation
/// `sigma[i]`.
pub(super) fn covariance_trace(
    domains: &[Samples],
    a: &[f64],
    sigma: &[f64],
    d: usize,
) -> Option<f64> {
    let factor = cholesky(&gram(domains, a, d), d)?;
    let squared: Vec<f64> = a.iter().zip(sigma).map(|(a, sigma)| a * a * sigma * sigma).collect();
    let middle = gram(domains, &squared, d);
    // tr(A⁻¹ M A⁻¹) = tr(A⁻¹ (A⁻¹ M)ᵀ): solve the columns of M, then those of the transpose.
    let columns: Vec<Vec<f64>> = middle.chunks_exact(d).map(|row| solve(&factor, row)).collect();
    let trace = |k: usize| {
        let row: Vec<f64> = columns.iter().map(|column| column[k]).collect();
        solve(&factor, &row)[k]
    };
    Some((0..d).map(trace).sum())
}

/// Σ a_i X_iᵀX_i.
fn gram(domains: &[Samples], a: &[f64], d: usize) -> Vec<f64> {
    let mut gram = vec![0.0; d * d];
    for (samples, a) in domains.iter().zip(a) {
        for (x, _) in samples.iter() {
            for (row, value) in gram.chunks_exact_mut(d).zip(x) {
                axpy(row, a * value, x);
            }
        }
    }
    gram
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::linalg::{distance_square, dot};
    use crate::random::{normals, stream};
    use crate::regression::data::Data;
    use crate::regression::family::Family;
    use crate::regression::settings::RegressionSettings;
    use proptest::prelude::*;

    fn settings() -> RegressionSettings {
        RegressionSettings {
            c: vec![1.0, 9.0],
            sigma: vec![3.0, 1.0],
            features: 4,
            samples: 15,
            ..RegressionSettings::linear()
        }
    }

    proptest! {
        #[test]
        fn the_minimiser_has_no_gradient(index in 0u64..500, a in 0.05f64..5.0) {
            let data = Data::draw(&settings(), Family::Linear, index, false);
            let theta = minimiser(&data.train, &[a, 1.0], 4).unwrap();
            let mut gradient = vec![0.0; 4];
            for (samples, a) in data.train.iter().zip([a, 1.0]) {
                for (x, y) in samples.iter() {
                    axpy(&mut gradient, a * (dot(&theta, x) - y), x);
                }
            }
            // Sums of 30 products of size 100 in f64: rounding of some 1e-12; a margin of a
            // thousand.
            prop_assert!(dot(&gradient, &gradient).sqrt() < 1e-9);
        }

        #[test]
        fn no_weights_beat_the_inverse_variances(index in 0u64..500, a in 0.01f64..100.0) {
            // Gauss, Markov and Aitken, given X: the trace at a_i = 1/σ_i² is the least. The margin
            // is rounding.
            let data = Data::draw(&settings(), Family::Linear, index, false);
            let trace = |a: [f64; 2]| covariance_trace(&data.train, &a, &[3.0, 1.0], 4).unwrap();
            prop_assert!(trace([1.0 / 9.0, 1.0]) <= trace([a, 1.0]) * (1.0 + 1e-9));
            // And it does not depend on the scale of the weights.
            prop_assert!((trace([a, 1.0]) / trace([3.0 * a, 3.0]) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn errors_of_least_squares_have_the_closed_forms_covariance() {
        // Fixed X, R = 3,000 draws of the noise: ‖θ − θ_gt‖² has, in the worst case of one
        // direction, a relative σ of √(2/R) = 2.6 %; bound at 5σ.
        let settings = settings();
        let data = Data::draw(&settings, Family::Linear, 1, false);
        let repeats = 3_000u64;
        for a in [[1.0, 1.0], [1.0 / 9.0, 1.0]] {
            let formula = covariance_trace(&data.train, &a, &settings.sigma, 4).unwrap();
            let mut measured = 0.0;
            for repeat in 0..repeats {
                let mut domains = data.train.clone();
                for ((domain, sigma), i) in domains.iter_mut().zip(&settings.sigma).zip(0..) {
                    let noise = normals(&stream(repeat, i, "noise"), 15, sigma * sigma);
                    let z: Vec<f64> = domain.iter().map(|(x, _)| dot(x, &data.truth)).collect();
                    domain.y = z.iter().zip(noise).map(|(z, noise)| z + noise).collect();
                }
                let theta = minimiser(&domains, &a, 4).unwrap();
                measured += distance_square(&theta, &data.truth) / repeats as f64;
            }
            assert!((measured / formula - 1.0).abs() < 0.13, "{a:?}: {measured} {formula}");
        }
    }
}
