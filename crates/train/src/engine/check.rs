//! What every engine refuses before it computes.

use super::Scored;
use crate::batch::{TokenBuffer, check_ids};
use crate::error::{Result, TrainError};
use crate::model::ModelConfig;

/// Checks that sequences fit the model. Their ids were checked when the buffer was built, against a
/// vocabulary that must be the model's or a smaller one.
///
/// # Errors
/// [`TrainError::Context`], [`TrainError::Batch`].
pub(super) fn check_fit(model: &ModelConfig, tokens: &TokenBuffer) -> Result<()> {
    check_length(model, tokens.context())?;
    if tokens.vocab_size() > model.vocab_size {
        return Err(TrainError::Batch {
            what: "ids in its vocabulary, as the model has, or fewer",
            expected: model.vocab_size,
            found: tokens.vocab_size(),
        });
    }
    Ok(())
}

/// The last of `tokens`, as many as the model sees.
///
/// # Errors
/// [`TrainError::Context`] for no token, [`TrainError::TokenId`].
pub(super) fn visible<'a>(model: &ModelConfig, tokens: &'a [u32]) -> Result<&'a [u32]> {
    let window = &tokens[tokens.len().saturating_sub(model.longest())..];
    check_prompt(model, window)?;
    Ok(window)
}

/// Checks one sequence of inputs without targets.
///
/// # Errors
/// [`TrainError::Context`] for no token or more than the model sees, [`TrainError::TokenId`].
pub(super) fn check_prompt(model: &ModelConfig, tokens: &[u32]) -> Result<()> {
    check_length(model, tokens.len())?;
    check_ids(tokens, tokens.len(), model.vocab_size)
}

/// Checks sequences of which some tokens are scored.
///
/// # Errors
/// [`TrainError::Batch`], [`TrainError::Context`], [`TrainError::TokenId`].
pub(super) fn check_scored(model: &ModelConfig, sequences: &[Scored<'_>]) -> Result<()> {
    for sequence in sequences {
        let most = sequence.inputs();
        if sequence.scored == 0 || sequence.scored > most {
            let what = "scored tokens at most, at least 1";
            return Err(TrainError::Batch { what, expected: most, found: sequence.scored });
        }
        check_length(model, most)?;
        check_ids(sequence.tokens, sequence.tokens.len(), model.vocab_size)?;
    }
    Ok(())
}

fn check_length(model: &ModelConfig, context: usize) -> Result<()> {
    if context == 0 || context > model.longest() {
        return Err(TrainError::Context { found: context, max_context: model.longest() });
    }
    Ok(())
}
