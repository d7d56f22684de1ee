//! The running estimate of a domain's gradient variance v² that [`va`](super::va()) is given.

use super::shares::filled;
use crate::observation::GradientStatistics;
use serde::{Deserialize, Serialize};

/// Decaying sums over the steps at which a domain was observed.
///
/// v̂² = (square / sequences) · (noise / paired): the mean squared norm times the share of it that
/// is noise. While a domain has the same number of sequences, at least 2, in each batch, this is
/// exactly the moving average of v², without a transient at the start. It also holds where one
/// sequence comes at a time, of which a variance says nothing: their norms still count, and only
/// the share of noise is older. **Derived.**
///
/// ```
/// use cuvee_mixer::GradientStatistics;
/// use cuvee_mixer::rule::{GradientMoments, deviations};
///
/// let mut moments = [GradientMoments::default(); 2];
/// assert_eq!(deviations(&moments), None);
/// moments[0].add(&GradientStatistics { sequences: 8, variance: 4.0, mean_square: 9.0 }, 0.9);
/// // The domain that was not observed counts as the mean of the others.
/// let found = deviations(&moments).unwrap();
/// assert!(found.iter().all(|v| (v - 2.0).abs() < 1e-12));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientMoments {
    /// Σ n · mean ‖∇ℓ‖².
    square: f64,
    /// Σ n.
    sequences: f64,
    /// Σ (n − 1) v², over batches with n ≥ 2.
    noise: f64,
    /// Σ (n − 1) · mean ‖∇ℓ‖², over the same.
    paired: f64,
}

impl GradientMoments {
    /// Whether all sums are finite and at least 0, as [`add`](Self::add) leaves them.
    pub fn is_valid(&self) -> bool {
        self.sums().iter().all(|sum| sum.is_finite() && *sum >= 0.0)
    }

    /// Takes in a step's statistics; the sums before it are multiplied by `smoothing`, in [0, 1).
    /// Unusable statistics change nothing.
    pub fn add(&mut self, seen: &GradientStatistics, smoothing: f64) {
        let n = seen.sequences as f64;
        let pairs = n - 1.0;
        let variance = if pairs >= 1.0 { seen.variance } else { 0.0 };
        // ‖mean ∇ℓ‖² ≥ 0 means that v² is at most n/(n − 1) mean squares; a source that breaks
        // this, by rounding or by leaving the mean square out, is taken at its v².
        let square = if pairs >= 1.0 {
            seen.mean_square.max(variance * pairs / n)
        } else {
            seen.mean_square
        };
        let mut next = *self;
        next.square = smoothing * next.square + n * square;
        next.sequences = smoothing * next.sequences + n;
        if pairs >= 1.0 {
            next.noise = smoothing * next.noise + pairs * variance;
            next.paired = smoothing * next.paired + pairs * square;
        }
        // A gradient that is exactly 0 was masked out, not measured.
        let measured = seen.sequences > 0 && variance >= 0.0 && square > 0.0;
        if measured && next.sums().iter().all(|sum| sum.is_finite()) {
            *self = next;
        }
    }

    fn sums(&self) -> [f64; 4] {
        [self.square, self.sequences, self.noise, self.paired]
    }

    /// The share of the squared norm that is noise; `None` before two sequences came in one batch.
    fn noise_share(&self) -> Option<f64> {
        (self.paired > 0.0).then(|| self.noise / self.paired)
    }

    /// v̂; `None` for a domain that has not been observed.
    fn deviation(&self, default_share: f64) -> Option<f64> {
        let share = self.noise_share().unwrap_or(default_share);
        let variance = self.square / self.sequences * share;
        (self.sequences > 0.0 && variance.is_finite()).then(|| variance.sqrt())
    }
}

/// v̂, one a domain; `None` before any is known.
///
/// A domain that was not observed counts at the mean of the others' v̂. One whose sequences only
/// ever came alone has the mean of the others' shares of noise, and all of its norm is noise where
/// no domain has a share yet.
pub fn deviations(moments: &[GradientMoments]) -> Option<Vec<f64>> {
    let shares: Vec<f64> = moments.iter().filter_map(GradientMoments::noise_share).collect();
    let default_share = match shares.len() {
        0 => 1.0,
        count => shares.iter().sum::<f64>() / count as f64,
    };
    let known: Vec<Option<f64>> =
        moments.iter().map(|moments| moments.deviation(default_share)).collect();
    known.iter().any(Option::is_some).then(|| {
        let raw: Vec<f64> = known.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
        filled(&raw, raw.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(sequences: usize, variance: f64, mean_square: f64) -> GradientStatistics {
        GradientStatistics { sequences, variance, mean_square }
    }

    fn after(steps: &[GradientStatistics], smoothing: f64) -> GradientMoments {
        let mut moments = GradientMoments::default();
        steps.iter().for_each(|step| moments.add(step, smoothing));
        moments
    }

    proptest! {
        #[test]
        fn at_steady_counts_it_is_the_moving_average_of_the_variance(
            steps in prop::collection::vec((0.1f64..10.0, 1.0f64..5.0), 1..40),
            sequences in 2usize..9,
            smoothing in 0.0f64..0.99,
        ) {
            let list: Vec<GradientStatistics> =
                steps.iter().map(|(variance, excess)| seen(sequences, *variance, variance * excess)).collect();
            let (mut sum, mut total) = (0.0, 0.0);
            for (variance, _) in &steps {
                sum = smoothing * sum + variance;
                total = smoothing * total + 1.0;
            }
            let found = after(&list, smoothing).deviation(0.0).map(|v| v * v);
            // Positive sums of at most 40 terms: some 100 roundings of 10⁻¹⁶.
            prop_assert!(found.is_some_and(|v| (v * total / sum - 1.0).abs() < 1e-13), "{found:?}");
        }
    }

    #[test]
    fn single_sequences_keep_the_estimate_fresh() {
        // Half of the squared norm is noise; then norms grow a hundredfold while sequences come one
        // at a time.
        let mut moments = after(&[seen(4, 2.0, 4.0)], 0.5);
        assert_eq!(moments.deviation(1.0), Some(2f64.sqrt()));
        for _ in 0..60 {
            moments.add(&seen(1, 0.0, 400.0), 0.5);
        }
        let variance = moments.deviation(1.0).map_or(0.0, |v| v * v);
        assert!((variance - 200.0).abs() < 1e-9, "{variance}");
    }

    #[test]
    fn a_domain_that_only_came_alone_takes_the_share_of_noise_of_the_others() {
        let alone = after(&[seen(1, 0.0, 9.0)], 0.9);
        assert_eq!(alone.noise_share(), None);
        assert_eq!(alone.deviation(1.0), Some(3.0));
        let three = [alone, after(&[seen(2, 1.0, 4.0)], 0.9), GradientMoments::default()];
        // v² = 9 · ¼ and 1; the unobserved one counts at the mean of 1.5 and 1.
        assert_eq!(deviations(&three), Some(vec![1.5, 1.0, 1.25]));
        assert_eq!(deviations(&three[..1]), Some(vec![3.0]));
        assert_eq!(deviations(&three[2..]), None);
    }

    #[test]
    fn unusable_statistics_leave_the_last_ones() {
        let good = after(&[seen(4, 2.0, 4.0)], 0.9);
        for bad in [
            seen(4, f64::NAN, 4.0),
            seen(4, 2.0, f64::INFINITY),
            seen(4, -1.0, 4.0),
            seen(4, 0.0, 0.0),
            seen(1, 0.0, 0.0),
            seen(1, f64::NAN, f64::NAN),
            seen(0, 1.0, 1.0),
            seen(4, f64::MAX, f64::MAX),
        ] {
            let mut moments = good;
            moments.add(&bad, 0.9);
            assert_eq!(moments, good, "{bad:?}");
        }
        // No variance at all is a fact, where the gradients themselves are not 0.
        assert_eq!(after(&[seen(4, 0.0, 4.0)], 0.9).deviation(1.0), Some(0.0));
        // A source that leaves the mean square out is taken at its variance.
        assert!(
            after(&[seen(4, 2.0, 0.0)], 0.9)
                .deviation(1.0)
                .is_some_and(|v| (v * v - 2.0).abs() < 1e-15)
        );
    }
}
