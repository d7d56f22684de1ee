//! Loss weights that a rule updates from held-out losses, every so many steps: what `fgls` and
//! `erma` have in common.
//!
//! In: held-out statistics. Out: w as proposals, and their standard error. State: w, the averages
//! of each domain's statistics, and the step of the last update; a domain that was not measured, or
//! not usably, keeps its last averages.

use super::interface::{Context, Setup, Strategy};
use super::last_losses::is_due;
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::observation::{LossStatistics, Observation};
use crate::rule::{Clamp, LossAverage, shrunk};
use crate::simplex::Simplex;
use serde::{Deserialize, Serialize};

/// How much of the past a measurement keeps where a config does not say: nine measurements' worth.
pub(super) const SMOOTHING: f64 = 0.8;

/// What turns held-out statistics into the next loss weights.
pub(super) trait LossRule: Send + std::fmt::Debug {
    /// The rule with its parameters, for people.
    fn describe(&self) -> String;

    /// Whether it can use a variance (finite and at least 0) for a domain.
    fn accepts(&self, variance: f64) -> bool;

    /// The next w; `mean` and `variance` have one value a domain, NaN where nothing is known.
    fn next(
        &self,
        importance: &[f64],
        loss_weight: &[f64],
        mean: &[f64],
        variance: &[f64],
    ) -> Vec<f64>;
}

/// When a rule updates, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Updates {
    /// Steps between updates.
    pub(super) every: u64,
    /// How much of the past a measurement keeps.
    pub(super) smoothing: f64,
    /// Bounds on w.
    pub(super) clamp: Clamp,
}

/// A rule in the loss slot, with its state.
#[derive(Debug)]
pub(super) struct Learned<R> {
    rule: R,
    updates: Updates,
    importance: Simplex,
    loss_weight: Vec<f64>,
    memory: Memory,
    updated: Option<u64>,
}

/// What was measured.
#[derive(Debug)]
enum Memory {
    /// Averages over measurements, and the standard errors of w.
    Average { averages: Vec<Option<LossAverage>>, error: Vec<f64> },
    /// The last measurement alone, always of the same windows, as runs began before measurements
    /// were averaged: such a run goes on to the bit.
    Last(Vec<Option<LossStatistics>>),
}

/// The state as it is saved, with averages.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AverageState {
    loss_weight: Vec<f64>,
    loss_weight_error: Vec<f64>,
    averages: Vec<Option<LossAverage>>,
    updated: Option<u64>,
}

/// The state as it is saved, with the last measurement alone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastState {
    loss_weight: Vec<f64>,
    held_out: Vec<Option<LossStatistics>>,
    updated: Option<u64>,
}

/// What a rule is given, one value a domain, NaN where nothing is known.
struct Known {
    mean: Vec<f64>,
    variance: Vec<f64>,
    mean_error: Vec<f64>,
    log_variance_error: Vec<f64>,
}

impl<R: LossRule + 'static> Learned<R> {
    /// Starts at w = 1.
    ///
    /// # Errors
    /// `every` = 0, a `smoothing` out of its range, bounds that 1 does not lie within, an unusable
    /// importance.
    pub(super) fn boxed(setup: &Setup, rule: R, updates: Updates) -> Result<Box<dyn Strategy>> {
        let Updates { every, smoothing, clamp } = updates;
        if every == 0 {
            return Err(setup.bad_parameter("every", every, "at least 1 step"));
        }
        if !(0.0..1.0).contains(&smoothing) {
            let expected = "a number from 0 to below 1";
            return Err(setup.bad_parameter("smoothing", smoothing, expected));
        }
        // 0 is no bound a product can leave again: a domain at w = 0 would stay there.
        if !(clamp.min > 0.0 && clamp.min <= 1.0) {
            let expected = "a number above 0 and at most 1, the mean of all loss weights";
            return Err(setup.bad_parameter("clamp_min", clamp.min, expected));
        }
        if !(clamp.max.is_finite() && clamp.max >= 1.0) {
            let expected = "a finite number of at least 1, the mean of all loss weights";
            return Err(setup.bad_parameter("clamp_max", clamp.max, expected));
        }
        let raw: Vec<f64> = setup.domains.iter().map(|domain| domain.importance).collect();
        let importance = Simplex::normalise("importance", &setup.names(), &raw)?;
        let domains = setup.domains.len();
        let memory = Memory::Average { averages: vec![None; domains], error: vec![0.0; domains] };
        let loss_weight = vec![1.0; domains];
        Ok(Box::new(Self { rule, updates, importance, loss_weight, memory, updated: None }))
    }

    fn refuse(&self, expected: &str, found: impl ToString) -> MixerError {
        MixerError::strategy_state(&self.rule.describe(), expected, found)
    }

    fn usable(&self, statistics: &LossStatistics) -> bool {
        let finite = statistics.mean.is_finite() && statistics.variance.is_finite();
        // The variance of a single sequence is unknown, and reported as 0.
        statistics.count >= 2
            && finite
            && statistics.variance >= 0.0
            && self.rule.accepts(statistics.variance)
    }

    /// Takes in what was measured; whether any of it is usable.
    fn remember(&mut self, observation: &Observation) -> bool {
        let mut measured = false;
        for (index, seen) in observation.held_out.iter().enumerate().take(self.loss_weight.len()) {
            let Some(statistics) = seen.filter(|statistics| self.usable(statistics)) else {
                continue;
            };
            match &mut self.memory {
                Memory::Average { averages, .. } => {
                    let windows = observation.held_out_windows.get(index).copied();
                    let average = averages[index].get_or_insert_default();
                    average.add(&statistics, windows, self.updates.smoothing);
                }
                Memory::Last(held_out) => held_out[index] = Some(statistics),
            }
            measured = true;
        }
        measured
    }

    fn next(&self, loss_weight: &[f64], mean: &[f64], variance: &[f64]) -> Vec<f64> {
        self.rule.next(self.importance.values(), loss_weight, mean, variance)
    }

    /// The next w from averages, and its standard errors.
    ///
    /// The error of one update is the root of the squares of what it would change by, were each
    /// statistic off by its own error. Those of successive updates are taken to be the same, since
    /// averages overlap: the error of w is that of one update and what the rule keeps of the last
    /// error.
    fn next_with_error(&self, known: &Known, error: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let Known { mean, variance, mean_error, log_variance_error } = known;
        let step = |w: &[f64], mean: &[f64], variance: &[f64]| {
            self.next(w, mean, &shrunk(variance, log_variance_error))
        };
        let next = step(&self.loss_weight, mean, variance);
        let with = |list: &[f64], index: usize, value: f64| {
            let mut list = list.to_vec();
            list[index] = value;
            list
        };
        let mut squares = vec![0.0; next.len()];
        let mut kept = vec![0.0; next.len()];
        for j in (0..next.len()).filter(|j| mean[*j].is_finite()) {
            let louder = with(variance, j, variance[j] * log_variance_error[j].exp());
            let higher = with(mean, j, mean[j] + mean_error[j]);
            for moved in
                [step(&self.loss_weight, mean, &louder), step(&self.loss_weight, &higher, variance)]
            {
                for (square, (moved, next)) in squares.iter_mut().zip(moved.iter().zip(&next)) {
                    *square += (moved - next).powi(2);
                }
            }
            let by = 1e-4 * self.loss_weight[j];
            let heavier = with(&self.loss_weight, j, self.loss_weight[j] + by);
            kept[j] = ((step(&heavier, mean, variance)[j] - next[j]) / by).abs().min(1.0);
        }
        let error = (0..next.len()).map(|i| kept[i] * error[i] + f64::sqrt(squares[i])).collect();
        (next, error)
    }
}

impl Known {
    fn of(averages: &[Option<LossAverage>]) -> Self {
        let column = |value: fn(&LossAverage) -> f64| -> Vec<f64> {
            averages.iter().map(|average| average.as_ref().map_or(f64::NAN, value)).collect()
        };
        Self {
            mean: column(LossAverage::mean),
            variance: column(LossAverage::variance),
            mean_error: column(LossAverage::mean_error),
            log_variance_error: column(LossAverage::log_variance_error),
        }
    }
}

impl<R: LossRule + 'static> Strategy for Learned<R> {
    fn describe(&self) -> String {
        let rule = self.rule.describe();
        match self.memory {
            Memory::Average { .. } => {
                let Clamp { min, max } = self.updates.clamp;
                format!("{rule}, smoothing {}, w from {min} to {max}", self.updates.smoothing)
            }
            Memory::Last(_) => rule,
        }
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `clamp_max`, a larger `clamp_min`, or a larger `smoothing`"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.loss_weight.clone())
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest {
            held_out_every: Some(self.updates.every),
            rotate: matches!(self.memory, Memory::Average { .. }),
            ..ObservationRequest::default()
        }
    }

    fn measurements(&self, context: &Context) -> Measurements {
        let weights = context.importance.values().iter().zip(&self.loss_weight).enumerate();
        let clamped = weights.filter(|(_, (pi, w))| **pi > 0.0 && self.updates.clamp.holds(**w));
        let loss_weight_error = match &self.memory {
            Memory::Average { error, .. } => self.updated.map(|_| error.clone()),
            Memory::Last(_) => None,
        };
        Measurements {
            loss_weight_error,
            clamped: clamped.map(|(index, _)| DomainId(index)).collect(),
            ..Measurements::default()
        }
    }

    /// The first measurement in each stretch of `every` steps counts. What the other slot has
    /// measured in between would make the memory shorter than `smoothing` says.
    fn observe(&mut self, observation: &Observation) {
        if !is_due(observation.step, self.updated, self.updates.every)
            || !self.remember(observation)
        {
            return;
        }
        let (next, error) = match &self.memory {
            Memory::Average { averages, error } => {
                self.next_with_error(&Known::of(averages), error)
            }
            Memory::Last(held_out) => {
                let column = |value: fn(&LossStatistics) -> f64| -> Vec<f64> {
                    held_out.iter().map(|seen| seen.as_ref().map_or(f64::NAN, value)).collect()
                };
                let (mean, variance) = (column(|seen| seen.mean), column(|seen| seen.variance));
                (self.next(&self.loss_weight, &mean, &variance), Vec::new())
            }
        };
        self.loss_weight = next;
        if let Memory::Average { error: kept, .. } = &mut self.memory {
            *kept = error;
        }
        self.updated = Some(observation.step);
    }

    fn save(&self) -> serde_json::Value {
        let (loss_weight, updated) = (self.loss_weight.clone(), self.updated);
        match &self.memory {
            Memory::Average { averages, error } => serde_json::json!(AverageState {
                loss_weight,
                loss_weight_error: error.clone(),
                averages: averages.clone(),
                updated,
            }),
            Memory::Last(held_out) => {
                serde_json::json!(LastState { loss_weight, held_out: held_out.clone(), updated })
            }
        }
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let expected = "loss_weight, averages and updated, as this strategy saves them";
        let refuse = |error: serde_json::Error| self.refuse(expected, error);
        // Only a run that began with single measurements keeps the last one.
        let (loss_weight, memory, updated) = if state.get("held_out").is_some() {
            let state: LastState = serde_json::from_value(state.clone()).map_err(refuse)?;
            (state.loss_weight, Memory::Last(state.held_out), state.updated)
        } else {
            let state: AverageState = serde_json::from_value(state.clone()).map_err(refuse)?;
            let (averages, error) = (state.averages, state.loss_weight_error);
            (state.loss_weight, Memory::Average { averages, error }, state.updated)
        };
        let domains = self.loss_weight.len();
        let lengths = match &memory {
            Memory::Average { averages, error } => {
                vec![loss_weight.len(), averages.len(), error.len()]
            }
            Memory::Last(held_out) => vec![loss_weight.len(), held_out.len()],
        };
        if lengths.iter().any(|length| *length != domains) {
            let found: Vec<String> = lengths.iter().map(ToString::to_string).collect();
            let expected = format!("{domains} entries, one a domain");
            return Err(self.refuse(&expected, found.join(" and ")));
        }
        if let Some(bad) = loss_weight.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return Err(self.refuse("finite loss weights above 0", bad));
        }
        match &memory {
            Memory::Average { averages, error } => {
                if let Some(bad) = averages.iter().flatten().find(|average| !average.is_valid()) {
                    return Err(self.refuse("averages of at least 2 sequences", format!("{bad:?}")));
                }
                if let Some(bad) = error.iter().find(|e| !(e.is_finite() && **e >= 0.0)) {
                    return Err(self.refuse("finite errors of at least 0", bad));
                }
            }
            Memory::Last(held_out) => {
                if let Some(bad) = held_out.iter().flatten().find(|seen| !self.usable(seen)) {
                    return Err(
                        self.refuse("statistics of at least 2 sequences", format!("{bad:?}"))
                    );
                }
            }
        }
        (self.loss_weight, self.memory, self.updated) = (loss_weight, memory, updated);
        Ok(())
    }
}
