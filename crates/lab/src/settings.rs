//! Checks of the settings that all studies share.

use crate::error::{LabError, Result};

/// Checks the settings of the rules that learn w and p, which all studies share.
///
/// # Errors
/// [`LabError::Setting`] with the first one that is out of its range.
pub(crate) fn check_learning(
    study: &'static str,
    beta: f64,
    gamma1: f64,
    gamma2: f64,
    epsilon: f64,
    smoothing: f64,
) -> Result<()> {
    let checks = [
        ("beta", beta, beta > 0.0 && beta <= 1.0, "above 0, at most 1"),
        ("gamma1", gamma1, gamma1.is_finite() && gamma1 >= 0.0, "a finite number of at least 0"),
        ("gamma2", gamma2, gamma2.is_finite() && gamma2 >= 0.0, "a finite number of at least 0"),
        ("epsilon", epsilon, epsilon > 0.0 && epsilon <= 1.0, "above 0, at most 1"),
        ("smoothing", smoothing, (0.0..1.0).contains(&smoothing), "at least 0, below 1"),
    ];
    for (key, value, holds, expected) in checks {
        if !holds {
            return Err(LabError::Setting {
                study,
                key,
                value: value.to_string(),
                expected: expected.into(),
            });
        }
    }
    Ok(())
}
