//! The mixer's state for checkpoints: O(domains), exact to the bit through JSON.

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
