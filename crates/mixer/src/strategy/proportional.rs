//! Proportional: a domain's share is its share of the training tokens.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::ShareSchedule;
use crate::simplex::Simplex;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "proportional",
    slots: Slots::Both,
    summary: "share ∝ training tokens: every token equally often",
    source: "common practice",
    example: r#""proportional""#,
    objectives: Objectives::Any,
};

/// p_i ∝ tokens_i. No parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proportional {}

impl Proportional {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let raw: Vec<f64> = setup.domains.iter().map(|domain| domain.tokens as f64).collect();
        let shares = Simplex::normalise("tokens", &setup.names(), &raw)?;
        Ok(Planned::boxed(ENTRY.name, ShareSchedule::constant(shares)))
    }
}
