//! Temperature: between proportional (T = 1) and uniform (T → ∞), as in seqio.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::Result;
use crate::share_schedule::ShareSchedule;
use crate::simplex::Simplex;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "temperature",
    slots: Slots::Both,
    summary: "share ∝ min(tokens · scale, max_tokens)^(1/temperature): 1 is proportional, ∞ uniform",
    source: "seqio; arXiv:1910.10683",
    example: r#"{ strategy = "temperature", temperature = 2 }"#,
    objectives: Objectives::Any,
};

/// p_i ∝ min(tokens_i · scale, max_tokens)^{1/T} (seqio's `mixing_rate_num_examples`, on tokens).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// T > 0; may be infinite.
    pub temperature: f64,
    /// Factor on a domain's tokens before the limit, above 0.
    #[serde(default = "one")]
    pub scale: f64,
    /// Limit on the scaled tokens, at least 1: larger domains count as this large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
}

fn one() -> f64 {
    1.0
}

impl Temperature {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            let expected = "a number above 0 (1 is proportional, inf is uniform)";
            return Err(setup.bad_parameter("temperature", self.temperature, expected));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(setup.bad_parameter("scale", self.scale, "a finite number above 0"));
        }
        if self.max_tokens == Some(0) {
            return Err(setup.bad_parameter("max_tokens", 0, "at least 1 token"));
        }
        let limit = self.max_tokens.map_or(f64::INFINITY, |tokens| tokens as f64);
        // Logarithms, relative to the largest: a power such as tokens^100 would overflow.
        let size = |tokens: u64| (tokens as f64 * self.scale).min(limit).ln();
        let sizes: Vec<f64> = setup.domains.iter().map(|domain| size(domain.tokens)).collect();
        let largest = sizes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let raw: Vec<f64> =
            sizes.iter().map(|size| ((size - largest) / self.temperature).exp()).collect();
        let shares = Simplex::normalise("temperature", &setup.names(), &raw)?;
        let description = format!("{} {}", ENTRY.name, self.temperature);
        Ok(Planned::boxed(description, ShareSchedule::constant(shares)))
    }
}
