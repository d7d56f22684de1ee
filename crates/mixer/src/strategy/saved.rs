//! Reading a strategy's state back from a checkpoint: a state from a file may hold anything.

use crate::error::{MixerError, Result};
use serde::de::DeserializeOwned;

/// Longest piece of a state that an error shows.
const SHOWN: usize = 120;

/// The state that `strategy` saved. `check` says of its fields whether they are in order and what
/// was expected.
///
/// # Errors
/// [`MixerError::State`] with what is no such state, or with the first field that is not in order.
pub(super) fn read<T: DeserializeOwned, const FIELDS: usize>(
    strategy: &str,
    state: &serde_json::Value,
    check: impl FnOnce(&T) -> [(&'static str, bool, String); FIELDS],
) -> Result<T> {
    let refuse = |expected: String, found: String| {
        Err(MixerError::strategy_state(strategy, expected, found))
    };
    let parsed: T = match serde_json::from_value(state.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            return refuse("what this strategy saves".to_owned(), error.to_string());
        }
    };
    for (field, valid, expected) in check(&parsed) {
        if !valid {
            let found = state.get(field).unwrap_or(&serde_json::Value::Null).to_string();
            let shown: String = found.chars().take(SHOWN).collect();
            let more = if shown.len() < found.len() { "…" } else { "" };
            return refuse(format!("{field} to be {expected}"), format!("{shown}{more}"));
        }
    }
    Ok(parsed)
}

/// Whether these are shares of `domains` domains, each above 0, that sum to 1 but for roundings.
pub(super) fn are_shares_above_zero(shares: &[f64], domains: usize) -> bool {
    let near = (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6;
    shares.len() == domains && near && shares.iter().all(|share| *share > 0.0)
}
