//! The `[mixture]` section of a config: objective, sampling strategy, loss strategy, and how counts
//! are drawn.

use crate::objective::{Counts, MixtureOptions, Normalise, Objective};
use crate::strategy::StrategySpec;
use serde::{Deserialize, Serialize};

/// The `[mixture]` section. Its default is what most trainers do: sample in proportion to size,
/// count each sequence once.
///
/// ```toml
/// [mixture]
/// objective = "importance"
/// sampling = { strategy = "temperature", temperature = 2 }
/// loss = "uniform"
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixtureSpec {
    /// Which objective the gradient is an estimate of.
    pub objective: Objective,
    /// Proposes the sampling weights p. Default: `proportional`.
    pub sampling: StrategySpec,
    /// Proposes the loss weights w, or α under `reweighted`. Default: `uniform`.
    pub loss: StrategySpec,
    /// How the B p_i sequences of a step become whole numbers.
    pub counts: Counts,
    /// What the weighted losses of a batch are divided by.
    pub normalise: Normalise,
}

impl Default for MixtureSpec {
    fn default() -> Self {
        Self {
            objective: Objective::default(),
            sampling: StrategySpec::Proportional(Default::default()),
            loss: StrategySpec::Uniform(Default::default()),
            counts: Counts::default(),
            normalise: Normalise::default(),
        }
    }
}

impl MixtureSpec {
    /// All of it but the strategies.
    pub fn options(&self) -> MixtureOptions {
        let Self { objective, counts, normalise, .. } = *self;
        MixtureOptions { objective, counts, normalise }
    }
}
