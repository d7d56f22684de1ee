//! Strategies: what proposes sampling weights and loss weights.
//!
//! In: the domains, the step, the importance, and (for online strategies) observations. Out: raw
//! non-negative numbers, one a domain, which the mixer normalises: to a [`Simplex`] in the sampling
//! slot, to Σ π_i w_i = 1 in the loss slot.
//!
//! A strategy is one file here and one row of the list below, from which come the config's choices,
//! the table [`STRATEGIES`], its Markdown, and the tests that hold for all of them.

mod erma;
mod fgls;
mod fixed;
mod learned;
mod planned;
mod proportional;
mod schedule;
mod temperature;
mod uniform;
mod unimax;
mod va;

pub use erma::{Descent, Erma};
pub use fgls::{Fgls, Sigma};
pub use fixed::Fixed;
pub use planned::Planned;
pub use proportional::Proportional;
pub use schedule::{Schedule, Stage};
pub use temperature::Temperature;
pub use uniform::Uniform;
pub use unimax::Unimax;
pub use va::Va;

use crate::domain::{DomainInfo, RunSize};
use crate::error::{MixerError, Result, nearest_hint};
use crate::measurements::{Measurements, ObservationRequest};
use crate::mixture::Objective;
use crate::observation::Observation;
use crate::share_schedule::ShareSchedule;
use crate::simplex::{LossWeights, Simplex};
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// Makes the config's enum and the table from one list; the tag of a variant is its name in
/// kebab-case.
macro_rules! strategies {
    ($($variant:ident in $module:ident),+ $(,)?) => {
        /// A strategy and its parameters, as a config names them.
        ///
        /// `{ strategy = "temperature", temperature = 2 }`, or just the name where no parameter is
        /// needed: `"uniform"`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "strategy", rename_all = "kebab-case", remote = "Self")]
        pub enum StrategySpec {
            $(#[doc = concat!("See [`", stringify!($variant), "`].")] $variant($variant)),+
        }

        /// All strategies, in the order of the documentation.
        pub const STRATEGIES: &[StrategyEntry] = &[$($module::ENTRY),+];

        impl StrategySpec {
            /// The table row of this strategy.
            pub fn entry(&self) -> &'static StrategyEntry {
                match self { $(Self::$variant(_) => &$module::ENTRY),+ }
            }

            fn build_any(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
                match self { $(Self::$variant(spec) => spec.build(setup)),+ }
            }
        }
    };
}

strategies! {
    Proportional in proportional,
    Uniform in uniform,
    Fixed in fixed,
    Temperature in temperature,
    Unimax in unimax,
    Schedule in schedule,
    Va in va,
    Fgls in fgls,
    Erma in erma,
}

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
}

/// The two places a strategy can be put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `mixture.sampling`: proposes p.
    Sampling,
    /// `mixture.loss`: proposes w, or α under `objective = "reweighted"`.
    Loss,
}

impl Slot {
    /// The slot's key in a config.
    pub fn path(self) -> &'static str {
        match self {
            Self::Sampling => "mixture.sampling",
            Self::Loss => "mixture.loss",
        }
    }
}

/// Which slots a strategy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// Only `mixture.sampling`.
    Sampling,
    /// Only `mixture.loss`.
    Loss,
    /// Either.
    Both,
}

impl Slots {
    /// Whether `slot` is among them.
    pub fn contains(self, slot: Slot) -> bool {
        match self {
            Self::Both => true,
            Self::Sampling => slot == Slot::Sampling,
            Self::Loss => slot == Slot::Loss,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::Loss => "loss",
            Self::Both => "sampling, loss",
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
    fn needs(&self) -> ObservationRequest {
        ObservationRequest::default()
    }

    /// What it believes at the step that it proposes for, and where its bounds bite.
    fn estimates(&self, _context: &Context) -> Measurements {
        Measurements::default()
    }

    /// Takes in what is known after a step.
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
            other => Err(MixerError::State {
                what: format!("the state of strategy `{}`", self.describe()),
                expected: "null (it keeps none)".to_owned(),
                found: other.to_string(),
            }),
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
        self.domains.iter().map(|domain| domain.name.as_str()).collect()
    }

    /// Puts shares by name into the order of the domains and normalises them; `key` is where they
    /// stand in the slot.
    ///
    /// # Errors
    /// A name that is no domain, a domain without an entry, and what [`Simplex::normalise`]
    /// refuses.
    pub fn shares(&self, key: &str, shares: &BTreeMap<String, f64>) -> Result<Simplex> {
        let place = format!("{}.{key}", self.slot.path());
        let names = self.names();
        if let Some(name) = shares.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(MixerError::UnknownDomain {
                place,
                name: name.clone(),
                hint: nearest_hint(name, &names),
            });
        }
        let share = |name: &&str| {
            shares.get(*name).copied().ok_or_else(|| MixerError::MissingShare {
                place: place.clone(),
                domain: (*name).to_owned(),
            })
        };
        let raw: Vec<f64> = names.iter().map(share).collect::<Result<_>>()?;
        Simplex::normalise(&place, &names, &raw)
    }

    /// An error about the parameter `key` of the strategy in this slot.
    pub fn bad_parameter(&self, key: &str, value: impl ToString, expected: &str) -> MixerError {
        MixerError::BadParameter {
            place: format!("{}.{key}", self.slot.path()),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }
}

impl StrategySpec {
    /// Refuses an objective under which the numbers of the strategy would mean something else than
    /// the rule that they come from: VA reduces the variance of an objective that sampling leaves
    /// alone, FGLS and ERMA learn w and not α.
    pub(crate) fn check_objective(&self, slot: Slot, objective: Objective) -> Result<()> {
        let (expected, reason) = match (self, objective) {
            (Self::Va(_), Objective::Sampled) => (
                "\"importance\" or \"reweighted\"",
                "its sampling weights would change the objective and not only the variance of its gradient",
            ),
            (Self::Fgls(_) | Self::Erma(_), Objective::Reweighted) => {
                ("\"importance\"", "it learns loss weights w and not the objective's shares")
            }
            _ => return Ok(()),
        };
        Err(MixerError::WrongObjective {
            strategy: self.entry().name.to_owned(),
            slot,
            objective: objective.name().to_owned(),
            expected: expected.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// Builds the strategy for a slot of a run.
    ///
    /// # Errors
    /// A slot that it does not serve, or parameters that do not fit the domains.
    pub fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let entry = self.entry();
        if !entry.slots.contains(setup.slot) {
            let fitting = STRATEGIES.iter().filter(|row| row.slots.contains(setup.slot));
            return Err(MixerError::WrongSlot {
                strategy: entry.name.to_owned(),
                slot: setup.slot,
                fitting: fitting.map(|row| row.name.to_owned()).collect(),
            });
        }
        self.build_any(setup)
    }
}

impl Serialize for StrategySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // The derived functions: `remote = "Self"` makes them inherent, so that this impl can add
        // the bare name below.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for StrategySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

/// Accepts `"uniform"` for `{ strategy = "uniform" }`. An untagged enum would too, but its errors
/// name nothing.
struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = StrategySpec;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(
            "a strategy's name, or a table such as { strategy = \"temperature\", temperature = 2 }",
        )
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<StrategySpec, E> {
        let table = std::iter::once(("strategy", name));
        StrategySpec::deserialize(MapDeserializer::<_, E>::new(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<StrategySpec, A::Error> {
        StrategySpec::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The table of strategies in Markdown, one row a strategy.
pub fn strategies_markdown() -> String {
    let mut table = String::from(
        "| strategy | slots | what it does | source | example |\n| --- | --- | --- | --- | --- |\n",
    );
    for entry in STRATEGIES {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} | `{}` |\n",
            entry.name,
            entry.slots.words(),
            entry.summary,
            entry.source,
            entry.example
        ));
    }
    table
}

#[cfg(test)]
mod tests;
