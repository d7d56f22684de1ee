//! Importance: a domain is drawn as often as it matters in the final evaluation.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::ShareSchedule;
use crate::simplex::Simplex;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "importance",
    slots: Slots::Sampling,
    summary: "share ∝ importance: a domain is drawn as often as it counts, so that the multiplier is w",
    source: "the p of least gradient variance where domains are equally noisy, arXiv:2511.06913",
    example: r#""importance""#,
    objectives: Objectives::Any,
};

/// p_i = π_i. No parameters. Where loss weights are learned, [`Va`](super::Va) with `epsilon = 1`
/// follows them: p_i = π_i w_i.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Importance {}

impl Importance {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let raw: Vec<f64> = setup.domains.iter().map(|domain| domain.importance).collect();
        let shares = Simplex::normalise("importance", &setup.names(), &raw)?;
        Ok(Planned::boxed(ENTRY.name, ShareSchedule::constant(shares)))
    }
}
