//! What is known of a domain's held-out losses after several measurements, and how well.

use crate::observation::LossStatistics;
use serde::{Deserialize, Serialize};

/// Decaying averages of the mean and the variance of a domain's held-out losses.
///
/// The variance of 32 windows is off by √(2/31), a quarter of itself, and stays so while the
/// windows stay the same. Measurements of other windows are averaged, the variances and not the
/// pooled losses, since the mean moves as the model learns. **Derived**, as are the errors, which
/// are those of normal losses: heavier tails have larger ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossAverage {
    /// Σ of the measurements' weights.
    weight: f64,
    /// Σ of their squares.
    weight_squares: f64,
    /// Σ weight · mean.
    mean: f64,
    /// Σ weight · variance.
    variance: f64,
    /// Σ weight · (sequences − 1).
    pairs: f64,
    /// Windows there are to measure, where that is known: no more of them can be learned from.
    windows: Option<u64>,
}

impl LossAverage {
    /// Takes in a measurement of 2 sequences or more; the sums before it are multiplied by
    /// `smoothing`, in [0, 1).
    pub fn add(&mut self, seen: &LossStatistics, windows: Option<u64>, smoothing: f64) {
        let pairs = seen.count as f64 - 1.0;
        let next = Self {
            weight: smoothing * self.weight + 1.0,
            weight_squares: smoothing * smoothing * self.weight_squares + 1.0,
            mean: smoothing * self.mean + seen.mean,
            variance: smoothing * self.variance + seen.variance,
            pairs: smoothing * self.pairs + pairs,
            windows,
        };
        if next.is_valid() {
            *self = next;
        }
    }

    /// Whether the sums are those of one measurement or more.
    pub fn is_valid(&self) -> bool {
        let positive = [self.weight, self.weight_squares, self.pairs];
        positive.iter().all(|sum| sum.is_finite() && *sum > 0.0)
            && self.mean.is_finite()
            && self.variance.is_finite()
            && self.variance >= 0.0
    }

    /// The averaged mean.
    pub fn mean(&self) -> f64 {
        self.mean / self.weight
    }

    /// The averaged variance.
    pub fn variance(&self) -> f64 {
        self.variance / self.weight
    }

    /// Degrees of freedom of the variance, at least 1.
    fn degrees(&self) -> f64 {
        let measurements = self.weight * self.weight / self.weight_squares;
        let seen = measurements * self.pairs / self.weight;
        let there_are = self.windows.map_or(f64::INFINITY, |windows| windows as f64 - 1.0);
        seen.min(there_are).max(1.0)
    }

    /// Standard error of the logarithm of the variance: √(2/ν).
    pub fn log_variance_error(&self) -> f64 {
        (2.0 / self.degrees()).sqrt()
    }

    /// Standard error of the mean.
    pub fn mean_error(&self) -> f64 {
        (self.variance() / (self.degrees() + 1.0)).sqrt()
    }
}

/// Variances whose logarithms are drawn towards their mean by as much as their errors explain their
/// differences: ln σ̂² − ln σ̃² = e²/(e² + τ²) · (ln σ̂² − mean), τ² being the variance of ln σ̂²
/// over the domains less the mean e², at least 0 (empirical Bayes: Efron, Morris, 1973).
///
/// So domains that cannot be told apart get equal weights, and a difference that is far above its
/// error stays. `errors` are those of the logarithms. A variance that is not above 0 or has no
/// error stays as it is. **Derived.**
pub fn shrunk(variances: &[f64], errors: &[f64]) -> Vec<f64> {
    let known = |i: usize| {
        let error = errors.get(i).copied().filter(|e| e.is_finite() && *e >= 0.0)?;
        let variance = variances[i];
        (variance.is_finite() && variance > 0.0).then(|| (variance.ln(), error * error))
    };
    let logs: Vec<(f64, f64)> = (0..variances.len()).filter_map(known).collect();
    if logs.len() < 2 {
        return variances.to_vec();
    }
    let count = logs.len() as f64;
    let mean = logs.iter().map(|(log, _)| log).sum::<f64>() / count;
    let scatter = logs.iter().map(|(log, _)| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let noise = logs.iter().map(|(_, square)| square).sum::<f64>() / count;
    let apart = (scatter - noise).max(0.0);
    let drawn = |i: usize| match known(i) {
        Some((log, square)) if square > 0.0 => {
            (log - square / (square + apart) * (log - mean)).exp()
        }
        Some(_) | None => variances[i],
    };
    (0..variances.len()).map(drawn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::CounterRng;
    use proptest::prelude::*;

    /// A measurement of 32 normal losses.
    fn measured(rng: &CounterRng, mean: f64, deviation: f64) -> LossStatistics {
        let losses: Vec<f64> = (0..32).map(|i| mean + deviation * rng.normal(i)).collect();
        LossStatistics::from_losses(&losses).unwrap_or(LossStatistics {
            mean,
            variance: 0.0,
            count: 1,
        })
    }

    #[test]
    fn averaged_measurements_know_the_variance_as_well_as_their_error_says() {
        let root = CounterRng::new(2);
        let (runs, mut squares, mut said) = (400u64, 0.0, 0.0);
        for run in 0..runs {
            let mut average = LossAverage::default();
            for time in 0..40 {
                // The mean falls, as it does in training.
                let rng = root.nested(run).nested(time);
                average.add(&measured(&rng, 5.0 - 0.02 * time as f64, 0.5), Some(100_000), 0.8);
            }
            squares += (average.variance() / 0.25).ln().powi(2) / runs as f64;
            said = average.log_variance_error();
        }
        // Nine measurements' worth of 31 pairs: √(2/279) = 8.5 %, against 25 % of one. The standard
        // deviation of 400 has an error of 3.5 %.
        assert!((said - (2.0f64 / 279.0).sqrt()).abs() < 1e-3, "{said}");
        assert!((squares.sqrt() / said - 1.0).abs() < 0.2, "{} {said}", squares.sqrt());
    }

    #[test]
    fn measuring_the_same_windows_again_tells_nothing_new() {
        let mut average = LossAverage::default();
        for _ in 0..50 {
            let seen = LossStatistics { mean: 3.0, variance: 0.4, count: 32 };
            average.add(&seen, Some(32), 0.8);
        }
        assert!((average.log_variance_error() - (2.0f64 / 31.0).sqrt()).abs() < 1e-12);
        assert!((average.variance() - 0.4).abs() < 1e-12 && (average.mean() - 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_noise_explains_is_made_equal_and_a_real_difference_stays() {
        // ln σ² differs by 0.1 with errors of 0.25: no difference at all.
        let same = shrunk(&[1.0, 1.1, 1.0], &[0.25; 3]);
        assert!(same.iter().all(|v| (v / same[0] - 1.0).abs() < 1e-12), "{same:?}");
        // A factor of 100 with errors of 5 %.
        let apart = shrunk(&[1.0, 100.0, 10.0], &[0.05; 3]);
        assert!((apart[1] / apart[0] / 100.0 - 1.0).abs() < 0.01, "{apart:?}");
        assert_eq!(shrunk(&[3.0], &[0.5]), [3.0]);
        let odd = shrunk(&[0.0, f64::NAN, 2.0, 2.0], &[0.1, 0.1, f64::NAN, 0.1]);
        assert!(odd[0] == 0.0 && odd[1].is_nan() && odd[2] == 2.0 && odd[3] == 2.0, "{odd:?}");
    }

    proptest! {
        #[test]
        fn shrinking_keeps_order_and_mean_of_equally_known_logarithms(
            logs in prop::collection::vec(-3.0f64..3.0, 2..9),
            error in 0.0f64..1.0,
        ) {
            let variances: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
            let found = shrunk(&variances, &vec![error; logs.len()]);
            let mean = |values: &[f64]| values.iter().map(|v| v.ln()).sum::<f64>();
            prop_assert!((mean(&found) - mean(&variances)).abs() < 1e-12);
            for i in 0..logs.len() {
                for j in (0..logs.len()).filter(|j| variances[i] < variances[*j]) {
                    prop_assert!(found[i] <= found[j] * (1.0 + 1e-12), "{found:?}");
                    prop_assert!(found[j] / found[i] <= variances[j] / variances[i] * (1.0 + 1e-12));
                }
            }
        }
    }
}
