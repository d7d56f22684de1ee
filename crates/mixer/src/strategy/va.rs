//! VA: sampling weights that minimise the variance of the gradient, from gradient statistics of
//! training steps.
//!
//! In: per-domain gradient statistics of the steps that collect them. Out: p. State: four decaying
//! sums a domain.

use super::interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{GradientRequest, Measurements, ObservationRequest, VarianceEstimator};
use crate::objective::Objective;
use crate::observation::Observation;
use crate::rule::{self, GradientMoments};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "va",
    slots: Slots::Sampling,
    summary: "least gradient variance: p = (1−epsilon)·π·w·v̂/Σ π·w·v̂ + epsilon/K, v̂² the gradient variance within a domain",
    source: "arXiv:2511.06913",
    example: r#"{ strategy = "va", epsilon = 0.05, smoothing = 0.9, start_step = 0, variance = "norm-layers" }"#,
    objectives: Objectives::Only(
        &[Objective::Importance, Objective::Reweighted],
        "its sampling weights would change the objective and not only the variance of its gradient",
    ),
};

/// p_i = (1 − ε) π_i w_i v̂_i / Σ_j π_j w_j v̂_j + ε/K; see [`rule::va()`].
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
    /// one in 8.
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
        let moments = vec![GradientMoments::default(); setup.domains.len()];
        Ok(Box::new(VarianceAware { config: self.clone(), moments }))
    }
}

/// [`Va`] with its state.
#[derive(Debug)]
struct VarianceAware {
    config: Va,
    moments: Vec<GradientMoments>,
}

impl VarianceAware {
    fn sampling(&self, context: &Context) -> Vec<f64> {
        let importance = context.importance.values();
        let even = vec![1.0; importance.len()];
        let loss_weight = context.loss_weight.map_or(even.as_slice(), |w| w.values());
        let started = context.step >= self.config.start_step;
        let deviation = rule::deviations(&self.moments).filter(|_| started);
        rule::va(
            importance,
            loss_weight,
            deviation.as_deref().unwrap_or(&even),
            self.config.epsilon,
        )
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

    fn observation_request(&self) -> ObservationRequest {
        let gradient =
            GradientRequest { estimator: self.config.variance, every: self.config.every() };
        ObservationRequest { held_out_every: None, gradient: Some(gradient) }
    }

    fn measurements(&self, context: &Context) -> Measurements {
        let sampling = self.sampling(context);
        let inside = sampling.iter().filter(|p| **p > 0.0).count();
        let floor = self.config.epsilon / inside.max(1) as f64;
        let floored = sampling.iter().enumerate().filter(|(_, p)| **p > 0.0 && **p < 2.0 * floor);
        Measurements {
            gradient_deviation: rule::deviations(&self.moments),
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
        let refuse = |expected: String, found: String| {
            Err(MixerError::strategy_state(&self.describe(), expected, found))
        };
        let expected =
            format!("a list of {domains} entries, one a domain, as this strategy saves them");
        let moments: Vec<GradientMoments> = match serde_json::from_value(state.clone()) {
            Ok(moments) => moments,
            Err(error) => return refuse(expected, error.to_string()),
        };
        if moments.len() != domains {
            return refuse(expected, format!("{} entries", moments.len()));
        }
        if let Some(bad) = moments.iter().find(|moments| !moments.is_valid()) {
            return refuse("finite sums of at least 0".to_owned(), format!("{bad:?}"));
        }
        self.moments = moments;
        Ok(())
    }
}
