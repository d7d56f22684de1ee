//! What the gradient of a batch estimates, and how a batch is drawn from the weights.

use serde::{Deserialize, Serialize};

/// The training objective Σ α_i L_i, by how its shares α come about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// α = p and every multiplier is 1: what is sampled is the objective, as in every other
    /// trainer.
    #[default]
    Sampled,
    /// α_i = π_i w_i, with the importance π of the domains and w from the loss strategy.
    Importance,
    /// α from the loss strategy, as in DoReMi's proxy run; w_i = α_i / π_i is reported.
    Reweighted,
}

impl Objective {
    /// Its name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Importance => "importance",
            Self::Reweighted => "reweighted",
        }
    }
}

/// How expected counts B p_i become whole sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// Every domain's cumulative count stays within 1 of its cumulative expectation.
    #[default]
    Stratified,
    /// B independent draws from p. A domain's `max_epochs` is then kept in expectation where p is
    /// known in advance, and by every draw where it is learned.
    Multinomial,
}

/// What the weighted losses of a batch are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// The number of sequences B: unbiased, since the multiplier is 1 in expectation.
    #[default]
    Sequences,
    /// The realised Σ m over the batch, as in DoReMi's code: a steady scale, at the price of a
    /// small bias.
    Multipliers,
}

/// All of a mixture but its strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MixtureOptions {
    /// Which objective the gradient is an estimate of.
    pub objective: Objective,
    /// How the B p_i sequences of a step become whole numbers.
    pub counts: Counts,
    /// What the weighted losses of a batch are divided by.
    pub normalise: Normalise,
}
