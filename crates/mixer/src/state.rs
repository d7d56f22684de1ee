//! The mixer's state for checkpoints: O(domains), exact to the bit through JSON.

use crate::domain::{self, DomainInfo, RunSize};
use crate::error::{MixerError, Result};
use crate::slot::Slot;
use crate::strategy::Strategy;
use serde::{Deserialize, Serialize};

/// Everything that decides the draws to come, besides the config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixerState {
    /// Steps done.
    pub step: u64,
    /// Root seed of the run.
    pub seed: u64,
    /// Predicted tokens in a sequence.
    pub context: usize,
    /// One entry a domain, in the order of the config.
    pub domains: Vec<DomainState>,
    /// The sampling strategy.
    pub sampling: SlotState,
    /// The loss strategy.
    pub loss: SlotState,
}

/// Where a domain stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainState {
    /// The domain's name.
    pub name: String,
    /// Tokens in its training split.
    pub tokens: u64,
    /// N_i: sequences consumed.
    pub consumed: u64,
    /// E_i − N_i: cumulative expectation less consumption, in sequences.
    pub residual: f64,
    /// Where its stratified counts begin: from 0 to below 1, drawn from the seed when the run
    /// began. 0 in states from before there were phases, so that those runs go on as they began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub phase: f64,
}

fn is_zero(phase: &f64) -> bool {
    *phase == 0.0
}

/// A strategy's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotState {
    /// The strategy, with its parameters in words.
    pub strategy: String,
    /// What it saved; null where it keeps nothing.
    pub state: serde_json::Value,
}

impl SlotState {
    /// Checks that the state is one that `strategy` saved, with the settings it has now. What keeps
    /// no state may differ: its shares are no part of a run's past.
    ///
    /// # Errors
    /// [`MixerError::State`] with both strategies in words.
    pub(crate) fn check(&self, slot: Slot, strategy: &dyn Strategy) -> Result<()> {
        let now = strategy.describe();
        let stateless = self.state.is_null() && strategy.save().is_null();
        if stateless || self.strategy == now {
            return Ok(());
        }
        Err(MixerError::State {
            what: format!("the {} strategy", slot.key()),
            expected: format!("`{now}`"),
            found: format!("`{}`", self.strategy),
        })
    }
}

/// Bounds on a domain's state: a state from a file may hold anything. Both are far beyond what any
/// run reaches, and within them no later sum overflows.
const RESIDUAL_LIMIT: f64 = (1u64 << 32) as f64;
const CONSUMED_LIMIT: u64 = 1 << 62;

impl MixerState {
    /// Checks that the state is one of a run on `domains` with the seed and context of `run`.
    ///
    /// # Errors
    /// [`MixerError::State`] with the first thing that differs.
    pub(crate) fn check(&self, domains: &[DomainInfo], run: &RunSize) -> Result<()> {
        let differs = |what: &str, expected: String, found: String| {
            Err(MixerError::State { what: what.to_owned(), expected, found })
        };
        if self.seed != run.seed {
            return differs("seed", run.seed.to_string(), self.seed.to_string());
        }
        if self.context != run.context {
            return differs("context", run.context.to_string(), self.context.to_string());
        }
        let expected = domain::names(domains);
        let found: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        if expected != found {
            return differs("the list of domains", expected.join(", "), found.join(", "));
        }
        for (domain, saved) in domains.iter().zip(&self.domains) {
            let of_domain = |what: &str| format!("{what} of domain `{}`", domain.name);
            if domain.tokens != saved.tokens {
                let what = of_domain("the number of training tokens");
                return differs(&what, domain.tokens.to_string(), saved.tokens.to_string());
            }
            if saved.residual.is_nan() || saved.residual.abs() >= RESIDUAL_LIMIT {
                let (what, expected) = (of_domain("residual"), format!("within ±{RESIDUAL_LIMIT}"));
                return differs(&what, expected, saved.residual.to_string());
            }
            if !(0.0..1.0).contains(&saved.phase) {
                let what = of_domain("phase");
                return differs(&what, "from 0 to below 1".into(), saved.phase.to_string());
            }
            if saved.consumed >= CONSUMED_LIMIT {
                let what = of_domain("the number of sequences consumed");
                return differs(
                    &what,
                    format!("below {CONSUMED_LIMIT}"),
                    saved.consumed.to_string(),
                );
            }
        }
        Ok(())
    }
}
