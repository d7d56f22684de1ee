//! Strategies: what proposes sampling weights and loss weights.
//!
//! In: the domains, the step, the importance, and (for online strategies) observations. Out: raw
//! non-negative numbers, one a domain, which the mixer normalises: to a
//! [`Simplex`](crate::Simplex) in the sampling slot, to Σ π_i w_i = 1 in the loss slot.
//!
//! A strategy is one file here and one row of the list below, from which come the config's choices,
//! the table [`STRATEGIES`], its Markdown, and the tests that hold for all of them. `interface.rs`
//! has what they all implement.

mod ado;
mod aioli;
mod doge;
mod erma;
mod excess_dro;
mod fgls;
mod fixed;
mod group_dro;
mod importance;
mod interface;
mod last_losses;
mod learned;
mod log_shares;
mod loss_history;
mod mean_shares;
mod odm;
mod pike;
mod planned;
mod proportional;
mod saved;
mod schedule;
mod skill_it;
mod target_dro;
mod temperature;
mod uniform;
mod unimax;
mod va;
mod weighed;

pub use ado::{Ado, Credit};
pub use aioli::Aioli;
pub use doge::Doge;
pub use erma::{Descent, Erma};
pub use excess_dro::ExcessDro;
pub use fgls::{Fgls, Sigma};
pub use fixed::Fixed;
pub use group_dro::GroupDro;
pub use importance::Importance;
pub use interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
pub use odm::{Odm, Variant};
pub use pike::{Form, Pike};
pub use planned::Planned;
pub use proportional::Proportional;
pub use schedule::{Schedule, Stage};
pub use skill_it::SkillIt;
pub use target_dro::TargetDro;
pub use temperature::Temperature;
pub use uniform::Uniform;
pub use unimax::Unimax;
pub use va::{Floor, Va};

use crate::error::{MixerError, Result};
use crate::objective::Objective;
use crate::slot::Slot;
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

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
    Importance in importance,
    Fixed in fixed,
    Temperature in temperature,
    Unimax in unimax,
    Schedule in schedule,
    Va in va,
    Fgls in fgls,
    Erma in erma,
    GroupDro in group_dro,
    ExcessDro in excess_dro,
    TargetDro in target_dro,
    Odm in odm,
    Ado in ado,
    Pike in pike,
    Doge in doge,
    SkillIt in skill_it,
    Aioli in aioli,
}

impl StrategySpec {
    /// Checks that the numbers of the strategy mean what its rule says under `objective`.
    ///
    /// # Errors
    /// [`MixerError::WrongObjective`] where they do not.
    pub(crate) fn check_objective(&self, slot: Slot, objective: Objective) -> Result<()> {
        let entry = self.entry();
        match entry.objectives {
            Objectives::Only(expected, reason) if !expected.contains(&objective) => {
                Err(MixerError::WrongObjective {
                    strategy: entry.name.to_owned(),
                    slot,
                    objective,
                    expected,
                    reason,
                })
            }
            Objectives::Only(..) | Objectives::Any => Ok(()),
        }
    }

    /// The model that losses are compared with, as the config names it, where the strategy compares
    /// them.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::ExcessDro(spec) => Some(&spec.reference),
            _ => None,
        }
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
#[cfg(test)]
mod toy;
