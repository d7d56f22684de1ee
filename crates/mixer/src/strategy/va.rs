//! VA: sampling weights that minimise the variance of the gradient, from gradient statistics of
//! training steps.
//!
//! In: per-domain gradient statistics of the steps that collect them. Out: p. State: four decaying
//! sums a domain, and 34 numbers of a domain whose sequences come one at a time.

use super::interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{GradientRequest, Measurements, ObservationRequest, VarianceEstimator};
use crate::objective::Objective;
use crate::observation::Observation;
use crate::rule::{self, GradientMemory, GradientMoments};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "va",
    slots: Slots::Sampling,
    summary: "least gradient variance: p = (1−epsilon)·π·w·v̂/Σ π·w·v̂ + epsilon·π·w, v̂² the gradient variance within a domain",
    source: "arXiv:2511.06913",
    example: r#"{ strategy = "va", epsilon = 0.05, smoothing = 0.9, start_step = 0, variance = "norm-layers", floor = "objective" }"#,
    objectives: Objectives::Only(
        &[Objective::Importance, Objective::Reweighted],
        "its sampling weights would change the objective and not only the variance of its gradient",
    ),
};

/// p_i = (1 − ε) π_i w_i v̂_i / Σ_j π_j w_j v̂_j + ε π_i w_i; see [`rule::va_defensive()`], and
/// [`Floor`] for the other floor.
///
/// Before there is any v̂, and before `start_step`, all are taken as equal: p ∝ π w, with the
/// floor. A domain that has not been observed yet counts at the mean v̂ of those that have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Va {
    /// ε, above 0 and at most 1: the share of the batch that v̂ has no say in.
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
    /// How ε is spread over the domains.
    pub floor: Floor,
}

/// How the part of the batch that v̂ has no say in is spread over the domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// ε π_i w_i, so that no multiplier is above 1/ε; a domain that was never measured has at least
    /// ε/K until it is.
    #[default]
    Objective,
    /// ε/K, throughout.
    Even,
}

/// With it `sketch` costs less than 3 % of a training step on average, also where most of a step is
/// a large vocabulary's.
const SKETCH_EVERY: u64 = 8;

impl Default for Va {
    fn default() -> Self {
        let variance = VarianceEstimator::default();
        let floor = Floor::default();
        Self { epsilon: 0.05, smoothing: 0.9, start_step: 0, variance, every: None, floor }
    }
}

/// One step in how many collects where a config does not say.
pub(super) fn collect_every(estimator: VarianceEstimator) -> u64 {
    match estimator {
        VarianceEstimator::Sketch => SKETCH_EVERY,
        VarianceEstimator::NormLayers | VarianceEstimator::Ghost | VarianceEstimator::Exact => 1,
    }
}

impl Va {
    fn every(&self) -> u64 {
        self.every.unwrap_or_else(|| collect_every(self.variance))
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
        let memory = Memory::Single(GradientMemory::new(setup.domains.len()));
        Ok(Box::new(VarianceAware { config: self.clone(), seed: setup.run.seed, memory }))
    }
}

/// [`Va`] with its state.
#[derive(Debug)]
struct VarianceAware {
    config: Va,
    seed: u64,
    memory: Memory,
}

/// What was observed.
#[derive(Clone, Debug)]
enum Memory {
    /// Domains with a single sequence too, on a common scale.
    Single(GradientMemory),
    /// As runs began before single sequences counted: batches with two sequences of a domain alone,
    /// and with them all else that such a run did, so that it goes on to the bit: the even floor,
    /// collecting at fixed steps. A checkpoint tells by the form of the state.
    Pairs(Vec<GradientMoments>),
}

impl Memory {
    fn moments(&self) -> &[GradientMoments] {
        match self {
            Self::Single(memory) => memory.moments(),
            Self::Pairs(moments) => moments,
        }
    }
}

impl VarianceAware {
    fn floor(&self) -> Floor {
        match self.memory {
            Memory::Single(_) => self.config.floor,
            Memory::Pairs(_) => Floor::Even,
        }
    }

    fn sampling(&self, context: &Context) -> Vec<f64> {
        let importance = context.importance.values();
        let even = vec![1.0; importance.len()];
        let loss_weight = context.loss_weight.map_or(even.as_slice(), |w| w.values());
        let started = context.step >= self.config.start_step;
        let moments = self.memory.moments();
        let deviation = rule::deviations(moments).filter(|_| started);
        let deviation = deviation.as_deref().unwrap_or(&even);
        let epsilon = self.config.epsilon;
        match self.floor() {
            Floor::Even => rule::va(importance, loss_weight, deviation, epsilon),
            Floor::Objective => {
                let measured: Vec<bool> =
                    moments.iter().map(GradientMoments::is_measured).collect();
                rule::va_defensive(importance, loss_weight, deviation, &measured, epsilon)
            }
        }
    }

    /// What the floor alone gives each domain, a part of p.
    fn floors(&self, objective: &[f64], sampling: &[f64]) -> Vec<f64> {
        let epsilon = self.config.epsilon;
        let inside = sampling.iter().filter(|p| **p > 0.0).count();
        match self.floor() {
            Floor::Even => vec![epsilon / inside.max(1) as f64; sampling.len()],
            Floor::Objective => objective.iter().map(|alpha| epsilon * alpha).collect(),
        }
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
        let floor = match self.floor() {
            Floor::Even => "",
            Floor::Objective => " of the objective",
        };
        format!(
            "{}, epsilon {epsilon}{floor}, smoothing {smoothing}, variance {variance}{every}{start}",
            ENTRY.name
        )
    }

    fn against_collapse(&self) -> &'static str {
        "a larger `epsilon`, the share that v̂ has no say in, or a larger `smoothing`"
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(self.sampling(context))
    }

    fn observation_request(&self) -> ObservationRequest {
        let seed = match self.memory {
            Memory::Single(_) => Some(self.seed),
            Memory::Pairs(_) => None,
        };
        let (estimator, every) = (self.config.variance, self.config.every());
        let gradient = Some(GradientRequest { estimator, every, seed });
        ObservationRequest { gradient, ..ObservationRequest::default() }
    }

    fn measurements(&self, context: &Context) -> Measurements {
        let sampling = self.sampling(context);
        let importance = context.importance.values();
        let weight = |i: usize| context.loss_weight.map_or(1.0, |w| w.values()[i]);
        let objective: Vec<f64> =
            importance.iter().enumerate().map(|(i, pi)| pi * weight(i)).collect();
        let floors = self.floors(&objective, &sampling);
        let pairs = sampling.iter().zip(&floors).enumerate();
        let floored = pairs.filter(|(_, (p, floor))| **p > 0.0 && **p < 2.0 * **floor);
        let gradient_deviation = rule::deviations(self.memory.moments());
        let headroom = match self.memory {
            Memory::Single(_) => gradient_deviation.as_ref().map(|v| rule::headroom(&objective, v)),
            Memory::Pairs(_) => None,
        };
        Measurements {
            headroom,
            gradient_deviation,
            floored: floored.map(|(index, _)| DomainId(index)).collect(),
            ..Measurements::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let smoothing = self.config.smoothing;
        match &mut self.memory {
            Memory::Single(memory) => memory.observe(&observation.gradient, smoothing),
            Memory::Pairs(moments) => {
                for (moments, seen) in moments.iter_mut().zip(&observation.gradient) {
                    if let Some(statistics) = seen.filter(|seen| seen.sequences >= 2) {
                        moments.add(&statistics, smoothing);
                    }
                }
            }
        }
    }

    fn save(&self) -> serde_json::Value {
        match &self.memory {
            Memory::Single(memory) => serde_json::json!(memory),
            Memory::Pairs(moments) => serde_json::json!(moments),
        }
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.memory.moments().len();
        let refuse = |expected: String, found: String| {
            Err(MixerError::strategy_state(&self.describe(), expected, found))
        };
        let expected = || format!("the moments of {domains} domains, as this strategy saves them");
        // A list is the form of a run that began with pairs alone.
        let memory = match state {
            serde_json::Value::Array(_) => serde_json::from_value(state.clone()).map(Memory::Pairs),
            _ => serde_json::from_value(state.clone()).map(Memory::Single),
        };
        let memory = match memory {
            Ok(memory) => memory,
            Err(error) => return refuse(expected(), error.to_string()),
        };
        let found = memory.moments().len();
        if found != domains {
            return refuse(expected(), format!("{found} entries"));
        }
        let valid = match &memory {
            Memory::Single(memory) => memory.is_valid(domains),
            Memory::Pairs(moments) => moments.iter().all(GradientMoments::is_valid),
        };
        if !valid {
            return refuse(
                "finite sums of at least 0".to_owned(),
                format!("{:?}", memory.moments()),
            );
        }
        self.memory = memory;
        Ok(())
    }
}
