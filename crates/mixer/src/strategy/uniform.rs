//! Uniform: every domain the same. The baseline to beat; called stratified in some papers.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::ShareSchedule;
use crate::simplex::Simplex;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "uniform",
    slots: Slots::Both,
    summary: "every domain the same share; in the loss slot, w = 1",
    source: "the baseline of arXiv:2411.05735",
    example: r#""uniform""#,
    objectives: Objectives::Any,
};

/// p_i = 1/K; in the loss slot w_i = 1. No parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {}

impl Uniform {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let shares = Simplex::uniform(setup.domains.len());
        Ok(Planned::boxed(ENTRY.name, ShareSchedule::constant(shares)))
    }
}
