//! VA: sampling weights that minimise the variance of the gradient, from gradient statistics of
//! training steps.
//!
//! In: per-domain gradient statistics of the steps that collect them. Out: p. State: four decaying
//! sums a domain.

use super::{Context, Setup, Slots, Strategy, StrategyEntry};
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{GradientRequest, Measurements, ObservationRequest, VarianceEstimator};
use crate::observation::{GradientStatistics, Observation};
use crate::rule;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "va",
    slots: Slots::Sampling,
    summary: "least gradient variance: p = (1−epsilon)·π·w·v̂/Σ π·w·v̂ + epsilon/K, v̂² the gradient variance within a domain",
    source: "arXiv:2511.06913",
    example: r#"{ strategy = "va", epsilon = 0.05, smoothing = 0.9, start_step = 0, variance = "norm-layers" }"#,
};

/// p_i = (1 − ε) π_i w_i v̂_i / Σ_j π_j w_j v̂_j + ε/K; see [`rule::va`].
///
/// Before there is any v̂, and before `start_step`, all are taken as equal: p ∝ π w, with the
/// floor. A domain that has not been observed yet counts at the mean v̂ of those that have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Va {
    /// ε, above 0 and at most 1: the share of the batch that is spread evenly, so that no domain
    /// goes unobserved.
    pub epsilon: f64,
    /// How much of the past a step that collects keeps in the moving average of v², from 0 to below
    /// 1.
    pub smoothing: f64,
    /// First step at which v̂ counts.
    pub start_step: u64,
    /// How v² is estimated.
    pub variance: VarianceEstimator,
    /// One step in so many collects, at least 1. `None`: each, but of `sketch`, which has a cost,
    /// one in [`SKETCH_EVERY`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
}

/// With it `sketch` costs less than 3 % of a training step on average, also where most of a step is
/// a large vocabulary's.
const SKETCH_EVERY: u64 = 8;

impl Default for Va {
    fn default() -> Self {
        let variance = VarianceEstimator::default();
        Self { epsilon: 0.05, smoothing: 0.9, start_step: 0, variance, every: None }
    }
}

impl Va {
    fn every(&self) -> u64 {
        self.every.unwrap_or(match self.variance {
            VarianceEstimator::Sketch => SKETCH_EVERY,
            VarianceEstimator::NormLayers | VarianceEstimator::Ghost | VarianceEstimator::Exact => {
                1
            }
        })
    }

    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        // Without a floor a domain whose v̂ is 0 once would never be observed again.
        if !(self.epsilon > 0.0 && self.epsilon <= 1.0) {
            return Err(setup.bad_parameter(
                "epsilon",
                self.epsilon,
                "a number above 0 and at most 1",
            ));
        }
        if !(self.smoothing >= 0.0 && self.smoothing < 1.0) {
            return Err(setup.bad_parameter(
                "smoothing",
                self.smoothing,
                "a number from 0 to below 1",
            ));
        }
        if self.every() == 0 {
            return Err(setup.bad_parameter("every", 0, "1 or more steps"));
        }
        let moments = vec![Moments::default(); setup.domains.len()];
        Ok(Box::new(VarianceAware { config: self.clone(), moments }))
    }
}

/// Decaying sums over the steps at which a domain was observed.
///
/// v̂² = (square / sequences) · (noise / paired): the mean squared norm times the share of it that
/// is noise. While a domain has the same number of sequences, at least 2, in each batch, this is
/// exactly the moving average of v², without a transient at the start. It also holds where one
/// sequence comes at a time, of which a variance says nothing: their norms still count, and only
/// the share of noise is older. **Derived.**
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moments {
    /// Σ n · mean ‖∇ℓ‖².
    square: f64,
    /// Σ n.
    sequences: f64,
    /// Σ (n − 1) v², over batches with n ≥ 2.
    noise: f64,
    /// Σ (n − 1) · mean ‖∇ℓ‖², over the same.
    paired: f64,
}

impl Moments {
    fn values(&self) -> [f64; 4] {
        [self.square, self.sequences, self.noise, self.paired]
    }

    /// Takes in a step's statistics, unless they are unusable: then the last ones stay.
    fn add(&mut self, seen: &GradientStatistics, smoothing: f64) {
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
        if measured && next.values().iter().all(|value| value.is_finite()) {
            *self = next;
        }
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

/// [`Va`] with its state.
#[derive(Debug)]
struct VarianceAware {
    config: Va,
    moments: Vec<Moments>,
}

impl VarianceAware {
    /// v̂, one a domain; `None` before any is known.
    fn deviations(&self) -> Option<Vec<f64>> {
        let shares: Vec<f64> = self.moments.iter().filter_map(Moments::noise_share).collect();
        // A domain that only ever came alone has the others' share of noise, and all of it where
        // nobody has one.
        let default_share = match shares.len() {
            0 => 1.0,
            count => shares.iter().sum::<f64>() / count as f64,
        };
        let known: Vec<Option<f64>> =
            self.moments.iter().map(|moments| moments.deviation(default_share)).collect();
        known.iter().any(Option::is_some).then(|| {
            let raw: Vec<f64> = known.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
            rule::filled(&raw, raw.len())
        })
    }

    fn sampling(&self, context: &Context) -> Vec<f64> {
        let importance = context.importance.values();
        let even = vec![1.0; importance.len()];
        let loss_weight = context.loss_weight.map_or(even.as_slice(), |w| w.values());
        let started = context.step >= self.config.start_step;
        let deviation = self.deviations().filter(|_| started);
        rule::va(
            importance,
            loss_weight,
            deviation.as_deref().unwrap_or(&even),
            self.config.epsilon,
        )
    }

    fn refuse(&self, expected: String, found: impl ToString) -> MixerError {
        let what = format!("the state of strategy `{}`", self.describe());
        MixerError::State { what, expected, found: found.to_string() }
    }
}

impl Strategy for VarianceAware {
    fn describe(&self) -> String {
        let Va { epsilon, smoothing, start_step, variance, .. } = &self.config;
        let start =
            if *start_step > 0 { format!(", from step {start_step}") } else { String::new() };
        let variance = variance.name();
        let every = match self.config.every() {
            1 => String::new(),
            every => format!(" every {every} steps"),
        };
        format!(
            "{}, epsilon {epsilon}, smoothing {smoothing}, variance {variance}{every}{start}",
            ENTRY.name
        )
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(self.sampling(context))
    }

    fn needs(&self) -> ObservationRequest {
        let gradient =
            GradientRequest { estimator: self.config.variance, every: self.config.every() };
        ObservationRequest { held_out_every: None, gradient: Some(gradient) }
    }

    fn estimates(&self, context: &Context) -> Measurements {
        let sampling = self.sampling(context);
        let inside = sampling.iter().filter(|p| **p > 0.0).count();
        let floor = self.config.epsilon / inside.max(1) as f64;
        let floored = sampling.iter().enumerate().filter(|(_, p)| **p > 0.0 && **p < 2.0 * floor);
        Measurements {
            gradient_deviation: self.deviations(),
            floored: floored.map(|(index, _)| DomainId(index)).collect(),
            ..Measurements::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        for (moments, seen) in self.moments.iter_mut().zip(&observation.gradient) {
            if let Some(statistics) = seen {
                moments.add(statistics, self.config.smoothing);
            }
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.moments)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.moments.len();
        let expected =
            format!("a list of {domains} entries, one a domain, as this strategy saves them");
        let moments: Vec<Moments> = serde_json::from_value(state.clone())
            .map_err(|error| self.refuse(expected.clone(), error))?;
        if moments.len() != domains {
            return Err(self.refuse(expected, format!("{} entries", moments.len())));
        }
        if let Some(bad) =
            moments.iter().find(|m| !m.values().iter().all(|v| v.is_finite() && *v >= 0.0))
        {
            return Err(self.refuse("finite sums of at least 0".to_owned(), format!("{bad:?}")));
        }
        self.moments = moments;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(sequences: usize, variance: f64, mean_square: f64) -> GradientStatistics {
        GradientStatistics { sequences, variance, mean_square }
    }

    fn after(steps: &[GradientStatistics], smoothing: f64) -> Moments {
        let mut moments = Moments::default();
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
        let config = Va::default();
        let mut strategy = VarianceAware {
            config,
            moments: vec![alone, after(&[seen(2, 1.0, 4.0)], 0.9), Moments::default()],
        };
        // v² = 9 · ¼ and 1; the unobserved one counts at the mean of 1.5 and 1.
        assert_eq!(strategy.deviations(), Some(vec![1.5, 1.0, 1.25]));
        strategy.moments.truncate(1);
        assert_eq!(strategy.deviations(), Some(vec![3.0]));
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
