//! The `[checkpoint]` section: when to write a checkpoint and how many to keep.

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// The `[checkpoint]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSpec {
    /// Steps between checkpoints, 0 for none on the way; there is always one after the last step
    /// and on an interruption.
    pub every: u64,
    /// How many of the newest to keep, at least 1.
    pub keep: usize,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { every: 500, keep: 2 }
    }
}

impl CheckpointSpec {
    /// Refuses to keep nothing.
    ///
    /// # Errors
    /// [`TrainError::Config`] for 0 checkpoints.
    pub fn validate(&self) -> Result<()> {
        if self.keep == 0 {
            return Err(TrainError::config(
                "checkpoint.keep",
                "at least 1",
                0,
                "the newest checkpoint is the run's result",
            ));
        }
        Ok(())
    }
}
