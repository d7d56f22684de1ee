//! What every strategy does, and what it may look at.
//!
//! A strategy gets a [`Setup`] when it is built and a [`Context`] whenever it proposes, and has a
//! [`StrategyEntry`] in the table above.

use crate::domain::{self, DomainInfo, RunSize};
use crate::error::{MixerError, Place, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::nearest::nearest_hint;
use crate::objective::Objective;
use crate::observation::Observation;
use crate::share_schedule::ShareSchedule;
use crate::simplex::{LossWeights, Simplex};
use crate::slot::{Slot, Slots};
use std::collections::BTreeMap;

/// What the documentation and the errors say of a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrategyEntry {
    /// Name in configs.
    pub name: &'static str,
    /// Slots it may be put into.
    pub slots: Slots,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// A TOML value that selects it, for domains called `web`, `code` and `math`.
    pub example: &'static str,
    /// Objectives under which its numbers mean what its rule says.
    pub objectives: Objectives,
}

/// The objective of a rule that samples to change what is trained on. Under the others the
/// multiplier α/p keeps the objective as it is, and only the variance of the gradient would change.
pub(super) const SAMPLED_ALONE: Objectives = Objectives::Only(
    &[Objective::Sampled],
    "its sampling weights are to change what is trained on, which the multiplier would take back",
);

/// A set of objectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objectives {
    /// All of them.
    Any,
    /// The listed ones, and the reason, as the end of a sentence: "since …".
    Only(&'static [Objective], &'static str),
}

impl Objectives {
    /// Those of the set under which a loss strategy is asked at all.
    pub(crate) fn weighing(self) -> &'static [Objective] {
        match self {
            Self::Any => &[Objective::Importance, Objective::Reweighted],
            Self::Only(expected, _) => expected,
        }
    }
}

/// A rule that proposes one number a domain for each step.
///
/// A proposal is a pure function of the step and of what was observed before it, so that asking
/// twice changes nothing; only [`observe`](Self::observe) changes state. Randomness, where a rule
/// needs it, comes from a counter-based generator keyed by the step.
pub trait Strategy: Send + std::fmt::Debug {
    /// The strategy with its parameters, for people: `temperature 2`.
    fn describe(&self) -> String;

    /// Raw, non-negative numbers, one a domain, in any scale.
    ///
    /// # Errors
    /// Whatever makes a proposal impossible.
    fn propose(&self, context: &Context) -> Result<Vec<f64>>;

    /// The normalised proposals for all steps, where they are known in advance. With it a run's
    /// epochs are planned and checked up front, and stratified counts keep their bound under any
    /// schedule.
    fn forecast(&self) -> Option<&ShareSchedule> {
        None
    }

    /// What it has to be told besides the training losses; the same throughout a run.
    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest::default()
    }

    /// What it believes at the step that it proposes for, and where its bounds bite.
    fn measurements(&self, _context: &Context) -> Measurements {
        Measurements::default()
    }

    /// Whether its proposal for `step` is a measurement, and not what it has learned.
    fn is_trial(&self, _step: u64) -> bool {
        false
    }

    /// What keeps that which it learns from collapsing onto one domain, in the words of its
    /// parameters, for a hint.
    fn against_collapse(&self) -> &'static str {
        "a strategy whose shares are fixed, as `uniform`"
    }

    /// Takes in what is known after a step, and in the loss slot, where something was asked for
    /// that is known before the step, that as well.
    fn observe(&mut self, _observation: &Observation) {}

    /// State for a checkpoint; `Null` for a strategy that keeps none.
    fn save(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes back what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// A state that is not this strategy's.
    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        match state {
            serde_json::Value::Null => Ok(()),
            other => {
                Err(MixerError::strategy_state(&self.describe(), "null (it keeps none)", other))
            }
        }
    }
}

/// What a strategy may look at when it proposes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The step to propose for, counted from 0.
    pub step: u64,
    /// The domains.
    pub domains: &'a [DomainInfo],
    /// π.
    pub importance: &'a Simplex,
    /// w of the same step, in the sampling slot, which is asked second; `None` in the loss slot.
    pub loss_weight: Option<&'a LossWeights>,
}

/// What a strategy may look at when it is built.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The slot it is built for.
    pub slot: Slot,
    /// The domains.
    pub domains: &'a [DomainInfo],
    /// The size of the run.
    pub run: &'a RunSize,
}

impl Setup<'_> {
    /// Names of the domains, in order.
    pub fn names(&self) -> Vec<&str> {
        domain::names(self.domains)
    }

    /// Puts shares by name into the order of the domains and normalises them; `key` is the
    /// parameter that holds them.
    ///
    /// # Errors
    /// A name that is no domain, a domain without an entry, and what [`Simplex::normalise`]
    /// refuses.
    pub fn shares(&self, key: &str, shares: &BTreeMap<String, f64>) -> Result<Simplex> {
        let place = Place::Parameter(self.slot, key.to_owned());
        let names = self.names();
        self.check_names(key, shares.keys())?;
        let share = |name: &&str| {
            shares.get(*name).copied().ok_or_else(|| MixerError::MissingShare {
                place: place.clone(),
                domain: (*name).to_owned(),
            })
        };
        let raw: Vec<f64> = names.iter().map(share).collect::<Result<_>>()?;
        Simplex::normalise(place, &names, &raw)
    }

    /// Puts numbers by name into the order of the domains, where each has to have one that is
    /// `valid`; `key` is the parameter that holds them.
    ///
    /// # Errors
    /// A name that is no domain, a domain without a number or with another one than `expected`.
    pub fn numbers(
        &self,
        key: &str,
        numbers: &BTreeMap<String, f64>,
        expected: &str,
        valid: impl Fn(f64) -> bool,
    ) -> Result<Vec<f64>> {
        self.check_names(key, numbers.keys())?;
        let number = |name: &&str| match numbers.get(*name) {
            Some(value) if valid(*value) => Ok(*value),
            other => {
                let found = other.map_or("missing".to_owned(), f64::to_string);
                Err(self.bad_parameter(&format!("{key}.{name}"), found, expected))
            }
        };
        self.names().iter().map(number).collect()
    }

    /// Checks that each name in the parameter `key` is a domain's.
    ///
    /// # Errors
    /// [`MixerError::UnknownDomain`] with the first that is not.
    pub fn check_names<'n>(
        &self,
        key: &str,
        mut found: impl Iterator<Item = &'n String>,
    ) -> Result<()> {
        let names = self.names();
        if let Some(name) = found.find(|name| !names.contains(&name.as_str())) {
            return Err(MixerError::UnknownDomain {
                place: Place::Parameter(self.slot, key.to_owned()),
                name: name.clone(),
                hint: nearest_hint(name, &names),
            });
        }
        Ok(())
    }

    /// Where a rule starts: the shares of the parameter `prior`, in any scale, or without one the
    /// shares ∝ `otherwise`. Each is above 0, since a rule that multiplies shares never leaves 0
    /// again.
    ///
    /// # Errors
    /// As [`numbers`](Self::numbers).
    pub fn prior(
        &self,
        prior: Option<&BTreeMap<String, f64>>,
        otherwise: impl Fn(&DomainInfo) -> f64,
    ) -> Result<Vec<f64>> {
        let raw = match prior {
            Some(prior) => {
                let expected = "a finite share above 0, since the rule multiplies it";
                self.numbers("prior", prior, expected, |share| share.is_finite() && share > 0.0)?
            }
            None => self.domains.iter().map(otherwise).collect(),
        };
        Ok(Simplex::normalise("prior", &self.names(), &raw)?.values().to_vec())
    }

    /// Checks that a parameter is finite and above 0.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`] where it is not.
    pub fn check_positive(&self, key: &str, value: f64) -> Result<()> {
        match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(self.bad_parameter(key, value, "a finite number above 0")),
        }
    }

    /// Checks that a parameter is finite and at least 0.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`] where it is not.
    pub fn check_not_negative(&self, key: &str, value: f64) -> Result<()> {
        match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(self.bad_parameter(key, value, "a finite number of at least 0")),
        }
    }

    /// Checks that a parameter says how much of the past is kept: from 0 to below 1.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`] where it does not.
    pub fn check_smoothing(&self, key: &str, value: f64) -> Result<()> {
        match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(self.bad_parameter(key, value, "a number from 0 to below 1")),
        }
    }

    /// Checks that a parameter is a number of steps that can pass.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`] for 0.
    pub fn check_steps(&self, key: &str, steps: u64) -> Result<()> {
        match steps {
            0 => Err(self.bad_parameter(key, steps, "at least 1 step")),
            _ => Ok(()),
        }
    }

    /// Steps between updates: `given` in the parameter `every`, or else a twentieth of the run, at
    /// least 1 and at most 100.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`] for 0, [`MixerError::NeverUpdates`] for as many as the run has.
    pub fn update_every(&self, given: Option<u64>) -> Result<u64> {
        let every = given.unwrap_or((self.run.steps / 20).clamp(1, 100));
        self.check_steps("every", every)?;
        self.check_first_update("every", every, every)?;
        Ok(every)
    }

    /// Checks that the first update comes while there is a step left that it counts at; `first` is
    /// how many steps it takes, because of the parameter `key`.
    ///
    /// # Errors
    /// [`MixerError::NeverUpdates`] where it does not.
    pub fn check_first_update(&self, key: &str, value: u64, first: u64) -> Result<()> {
        let steps = self.run.steps;
        if first < steps {
            return Ok(());
        }
        let place = Place::Parameter(self.slot, key.to_owned());
        Err(MixerError::NeverUpdates { place, value, first, steps })
    }

    /// An error about the parameter `key` of the strategy in this slot.
    pub fn bad_parameter(&self, key: &str, value: impl ToString, expected: &str) -> MixerError {
        MixerError::BadParameter {
            place: Place::Parameter(self.slot, key.to_owned()),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }
}
