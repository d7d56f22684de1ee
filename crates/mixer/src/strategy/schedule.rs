//! Schedule: stages of shares, held or joined by straight lines.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::{Interpolate, ShareSchedule};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "schedule",
    slots: Slots::Both,
    summary: "stages of shares, held until the next stage or moving to it linearly",
    source: "common practice (curricula, annealing)",
    example: r#"{ strategy = "schedule", interpolate = "linear", stages = [{ from_step = 0, shares = { web = 1, code = 1, math = 0 } }, { from_step = 6, shares = { web = 1, code = 1, math = 2 } }] }"#,
    objectives: Objectives::Any,
};

/// Piecewise shares: each stage's are normalised first, and `linear` moves between the normalised
/// ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// By ascending `from_step`, the first at step 0.
    pub stages: Vec<Stage>,
    /// What happens between two stages.
    #[serde(default)]
    pub interpolate: Interpolate,
}

/// One stage of a [`Schedule`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// First step of the stage, counted from 0.
    pub from_step: u64,
    /// One number a domain, as in `fixed`.
    pub shares: BTreeMap<String, f64>,
}

impl Schedule {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let shares = |(index, stage): (usize, &Stage)| {
            let key = format!("stages[{index}].shares");
            Ok((stage.from_step, setup.shares(&key, &stage.shares)?))
        };
        let stages = self.stages.iter().enumerate().map(shares).collect::<Result<Vec<_>>>()?;
        let schedule = ShareSchedule::piecewise(stages, self.interpolate).ok_or_else(|| {
            let found: Vec<u64> = self.stages.iter().map(|stage| stage.from_step).collect();
            let expected = "at least one stage, the first with from_step = 0, from_step ascending";
            setup.bad_parameter("stages", format!("a list with from_step = {found:?}"), expected)
        })?;
        let movement = match self.interpolate {
            Interpolate::Hold => "held",
            Interpolate::Linear => "linear",
        };
        let description = format!("{} of {} stages, {movement}", ENTRY.name, self.stages.len());
        Ok(Planned::boxed(description, schedule))
    }
}
