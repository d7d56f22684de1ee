//! Shares that a rule multiplies by exponentials, kept as logarithms: a product that would be 0 in
//! floating point can rise again.

use crate::rule;
use serde::{Deserialize, Serialize};

/// ln of each share, up to a common constant: the largest is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LogShares(Vec<f64>);

/// Least logarithm that is kept: e^−700 is near the smallest number there is.
const LEAST: f64 = -700.0;

impl LogShares {
    /// From shares above 0, in any scale.
    pub(super) fn new(shares: &[f64]) -> Self {
        Self(within(shares.iter().map(|share| share.ln()).collect()))
    }

    /// p_i ← p_i · exp(exponent_i), up to a common factor; nothing where an exponent is missing or
    /// not finite.
    pub(super) fn multiply(&mut self, exponents: &[f64]) {
        if exponents.len() == self.0.len() && exponents.iter().all(|exponent| exponent.is_finite())
        {
            self.0 = within(self.0.iter().zip(exponents).map(|(log, e)| log + e).collect());
        }
    }

    /// The shares, which sum to 1.
    pub(super) fn shares(&self) -> Vec<f64> {
        // All are finite, and their exponentials sum to 1 or more.
        rule::softmax(&self.0).unwrap_or_else(|| vec![1.0; self.0.len()])
    }

    /// Whether these are the logarithms of shares of `domains` domains.
    pub(super) fn is_valid(&self, domains: usize) -> bool {
        self.0.len() == domains && self.0.iter().all(|log| (LEAST..=0.0).contains(log))
    }
}

/// The logarithms relative to the largest, within what is kept.
fn within(logarithms: Vec<f64>) -> Vec<f64> {
    let largest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logarithms.iter().map(|log| (log - largest).max(LEAST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_multiplied_and_come_back_from_next_to_nothing() {
        let mut shares = LogShares::new(&[3.0, 1.0]);
        let near = |found: &LogShares, expected: f64| {
            let first = found.shares()[0];
            assert!((first - expected).abs() < 1e-15, "{found:?} {expected}");
            assert!(found.is_valid(2) && !found.is_valid(3));
        };
        near(&shares, 0.75);
        shares.multiply(&[0.0, f64::ln(3.0)]);
        near(&shares, 0.5);
        shares.multiply(&[-1e308, 1e308]);
        near(&shares, 0.0);
        shares.multiply(&[700.0, 0.0]);
        near(&shares, 0.5);
        for unusable in [&[f64::NAN, 0.0][..], &[f64::INFINITY, 0.0], &[1.0]] {
            shares.multiply(unusable);
            near(&shares, 0.5);
        }
    }
}
