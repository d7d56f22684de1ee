//! Loss weights that a rule updates from held-out losses, every so many steps: what `fgls` and
//! `erma` have in common.
//!
//! In: held-out statistics. Out: w as proposals. State: w, the last usable statistics of each
//! domain, and the step of the last update; a domain that was not measured, or not usably, keeps
//! its last statistics.

use super::interface::{Context, Setup, Strategy};
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::observation::{LossStatistics, Observation};
use crate::rule::Clamp;
use crate::simplex::Simplex;
use serde::{Deserialize, Serialize};

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

/// A rule in the loss slot, with its state.
#[derive(Debug)]
pub(super) struct Learned<R> {
    rule: R,
    every: u64,
    clamp: Clamp,
    importance: Simplex,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    loss_weight: Vec<f64>,
    held_out: Vec<Option<LossStatistics>>,
    updated: Option<u64>,
}

impl<R: LossRule + 'static> Learned<R> {
    /// Starts at w = 1 and updates every `every` steps.
    ///
    /// # Errors
    /// `every` = 0, bounds that 1 does not lie within, an unusable importance.
    pub(super) fn boxed(
        setup: &Setup,
        rule: R,
        every: u64,
        clamp: Clamp,
    ) -> Result<Box<dyn Strategy>> {
        if every == 0 {
            return Err(setup.bad_parameter("every", every, "at least 1 step"));
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
        let state =
            State { loss_weight: vec![1.0; domains], held_out: vec![None; domains], updated: None };
        Ok(Box::new(Self { rule, every, clamp, importance, state }))
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
}

impl<R: LossRule + 'static> Strategy for Learned<R> {
    fn describe(&self) -> String {
        self.rule.describe()
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.state.loss_weight.clone())
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest { held_out_every: Some(self.every), gradient: None }
    }

    fn measurements(&self, context: &Context) -> Measurements {
        let weights = context.importance.values().iter().zip(&self.state.loss_weight).enumerate();
        let clamped = weights.filter(|(_, (pi, w))| **pi > 0.0 && self.clamp.holds(**w));
        Measurements {
            clamped: clamped.map(|(index, _)| DomainId(index)).collect(),
            ..Measurements::default()
        }
    }

    /// Measurements may come more often than `every` steps, where the other slot needs them. The
    /// first one in each stretch of `every` steps updates, from the `every`-th step on.
    fn observe(&mut self, observation: &Observation) {
        let mut measured = false;
        for (index, seen) in observation.held_out.iter().enumerate() {
            let usable = seen.filter(|statistics| self.usable(statistics));
            if let (Some(statistics), Some(kept)) = (usable, self.state.held_out.get_mut(index)) {
                *kept = Some(statistics);
                measured = true;
            }
        }
        let stretch = |step: u64| step.saturating_add(1) / self.every;
        if !measured || stretch(observation.step) <= self.state.updated.map_or(0, stretch) {
            return;
        }
        let column = |value: fn(&LossStatistics) -> f64| -> Vec<f64> {
            self.state.held_out.iter().map(|seen| seen.as_ref().map_or(f64::NAN, value)).collect()
        };
        let (mean, variance) = (column(|seen| seen.mean), column(|seen| seen.variance));
        let importance = self.importance.values();
        self.state.loss_weight =
            self.rule.next(importance, &self.state.loss_weight, &mean, &variance);
        self.state.updated = Some(observation.step);
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let expected = "loss_weight, held_out and updated, as this strategy saves them";
        let state: State =
            serde_json::from_value(state.clone()).map_err(|error| self.refuse(expected, error))?;
        let domains = self.state.loss_weight.len();
        if state.loss_weight.len() != domains || state.held_out.len() != domains {
            let found = format!("{} and {}", state.loss_weight.len(), state.held_out.len());
            return Err(self.refuse(&format!("{domains} entries, one a domain"), found));
        }
        if let Some(bad) = state.loss_weight.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            return Err(self.refuse("finite loss weights above 0", bad));
        }
        if let Some(bad) = state.held_out.iter().flatten().find(|seen| !self.usable(seen)) {
            return Err(self.refuse("statistics of at least 2 sequences", format!("{bad:?}")));
        }
        self.state = state;
        Ok(())
    }
}
