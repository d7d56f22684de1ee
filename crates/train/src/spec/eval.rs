//! The `[eval]` section: when and on how much to evaluate.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// The `[eval]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSpec {
    /// Steps between evaluations, 0 for none on the way; there is always one before the first step
    /// and one after the last.
    pub every: u64,
    /// Windows of each domain's valid split (fewer where the split has fewer).
    pub sequences: usize,
    /// Windows of each domain's tune split, for strategies that steer by it; the others never look
    /// there.
    pub tune_sequences: usize,
    /// Whether every evaluation after a step measures the tune split as well, always the same
    /// windows: for a search, which chooses by it and verifies on the valid split.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tune: bool,
}

impl Default for EvalSpec {
    fn default() -> Self {
        Self { every: 100, sequences: 64, tune_sequences: 32, tune: false }
    }
}

impl EvalSpec {
    /// Refuses an evaluation of nothing, and a variance of a single window.
    ///
    /// # Errors
    /// [`TrainError::Config`] for 0 windows, or fewer than 2 of the tune split.
    pub fn validate(&self) -> Result<()> {
        let usual = "a few dozen windows a domain are usual";
        if self.sequences == 0 {
            return Err(TrainError::config("eval.sequences", "at least 1", 0, usual));
        }
        if self.tune_sequences < 2 {
            return Err(TrainError::config(
                "eval.tune_sequences",
                "at least 2",
                self.tune_sequences,
                usual,
            ));
        }
        Ok(())
    }
}
