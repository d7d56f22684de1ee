//! Damage done on purpose, as a config asks for it; `document/corrupt.rs` does it.

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};

/// What is done to the documents of `train` and `tune`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorruptSpec {
    /// The share of each document's tokens, drawn at random, that change places among themselves; 1
    /// shuffles it whole.
    pub shuffle_tokens: f64,
}

impl CorruptSpec {
    /// Checks that the share is from 0 to 1.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.shuffle_tokens) {
            return Ok(());
        }
        Err(DataError::Spec {
            key: "source.corrupt.shuffle_tokens".to_owned(),
            expected: "a share from 0 to 1".to_owned(),
            found: self.shuffle_tokens.to_string(),
            hint: "0 leaves the text as it is, 1 shuffles each document whole".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shares_that_are_none_are_refused() {
        for share in [-0.1, 1.1, f64::NAN] {
            let error = CorruptSpec { shuffle_tokens: share }.check().unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains("source.corrupt.shuffle_tokens"),
                "{error}"
            );
        }
    }
}
