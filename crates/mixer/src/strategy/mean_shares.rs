//! The mean over time of shares that a rule moves: the result of the rules that look for the
//! mixture of a later run.

use serde::{Deserialize, Serialize};

/// Mean of the shares after each update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeanShares {
    mean: Vec<f64>,
    updates: u64,
}

impl MeanShares {
    /// No update yet: the mean is where the rule starts.
    pub(super) fn new(start: Vec<f64>) -> Self {
        Self { mean: start, updates: 0 }
    }

    /// One value a domain.
    pub(super) fn values(&self) -> &[f64] {
        &self.mean
    }

    /// Takes in the shares after an update.
    pub(super) fn add(&mut self, shares: &[f64]) {
        self.updates += 1;
        let count = self.updates as f64;
        for (mean, share) in self.mean.iter_mut().zip(shares) {
            *mean += (share - *mean) / count;
        }
    }

    /// Whether it is the mean of shares of `domains` domains.
    pub(super) fn is_valid(&self, domains: usize) -> bool {
        are_shares(&self.mean, domains) && self.updates < u64::MAX
    }
}

/// Whether these are `domains` shares that sum to 1, but for roundings.
pub(super) fn are_shares(shares: &[f64], domains: usize) -> bool {
    let near = (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6;
    shares.len() == domains && near && shares.iter().all(|share| (0.0..=1.0 + 1e-6).contains(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_the_updates_and_not_of_the_start() {
        let mut mean = MeanShares::new(vec![0.5, 0.5]);
        assert_eq!(mean.values(), [0.5, 0.5]);
        for share in [1.0, 0.0, 0.25, 0.75] {
            mean.add(&[share, 1.0 - share]);
        }
        assert_eq!(mean.values(), [0.5, 0.5]);
        mean.add(&[1.0, 0.0]);
        assert!((mean.values()[0] - 0.6).abs() < 1e-15 && mean.is_valid(2) && !mean.is_valid(3));
        assert!(!are_shares(&[0.5, f64::NAN], 2) && !are_shares(&[1.5, -0.5], 2));
    }
}
