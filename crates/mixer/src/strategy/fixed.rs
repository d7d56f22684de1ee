//! Fixed: shares given by name, in any scale.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::ShareSchedule;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "fixed",
    slots: Slots::Both,
    summary: "the given shares, in any scale",
    source: "common practice",
    example: r#"{ strategy = "fixed", shares = { web = 6, code = 3, math = 1 } }"#,
    objectives: Objectives::Any,
};

/// p_i ∝ shares_i; in the loss slot w_i ∝ shares_i (or α_i, under `reweighted`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// One number a domain, all of them listed; 0 leaves a domain out.
    pub shares: BTreeMap<String, f64>,
}

impl Fixed {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let shares = setup.shares("shares", &self.shares)?;
        Ok(Planned::boxed(ENTRY.name, ShareSchedule::constant(shares)))
    }
}
