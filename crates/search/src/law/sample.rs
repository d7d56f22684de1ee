//! What laws of the domains' shares are fitted to: each mixture once, with the mean of its runs.
//!
//! Runs of one mixture count as often as they are, and a mixture that is left out leaves with all
//! of them: leaving out a row here is leaving out a group.

use super::folds::parts_of;
use super::least_squares::median;
use super::{Observations, Point};
use crate::error::Result;
use nalgebra::DMatrix;

/// Different mixtures and their mean losses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// p of each mixture. `[n, K]`
    pub shares: DMatrix<f64>,
    /// The mean loss of its runs. `[n]`
    pub losses: Vec<f64>,
    /// Its runs. `[n]`
    pub weights: Vec<f64>,
}

impl Sample {
    /// Checks `observed` and gathers its mixtures, of which `law` needs `least`.
    ///
    /// # Errors
    /// Too few mixtures, lists of unequal lengths, or a value that is no number.
    pub fn of(observed: &Observations, law: &'static str, least: usize) -> Result<Self> {
        observed.check(law, least)?;
        let mixtures = observed.mixtures();
        let domains = observed.points[0].sampling.len();
        let mean_loss = |runs: &Vec<usize>| {
            runs.iter().map(|run| observed.losses[*run]).sum::<f64>() / runs.len() as f64
        };
        Ok(Self {
            shares: DMatrix::from_fn(mixtures.len(), domains, |row, domain| {
                observed.points[mixtures[row][0]].sampling[domain]
            }),
            losses: mixtures.iter().map(mean_loss).collect(),
            weights: mixtures.iter().map(|runs| runs.len() as f64).collect(),
        })
    }

    /// Mixtures.
    pub fn len(&self) -> usize {
        self.losses.len()
    }

    /// Domains.
    pub fn domains(&self) -> usize {
        self.shares.ncols()
    }

    /// The mixtures without part `part` of `parts`, and that part, drawn by `seed`: blocks of a
    /// design take turns in its order.
    pub fn part(&self, part: usize, parts: usize, seed: u64) -> (Self, Self) {
        let part_of = parts_of(self.len(), parts, seed);
        let (out, kept): (Vec<usize>, Vec<usize>) =
            (0..self.len()).partition(|row| part_of[*row] == part);
        let of = |rows: &[usize]| Self {
            shares: self.shares.select_rows(rows),
            losses: rows.iter().map(|row| self.losses[*row]).collect(),
            weights: rows.iter().map(|row| self.weights[*row]).collect(),
        };
        (of(&kept), of(&out))
    }

    /// The domains that some run drew from; a law has nothing to say about the others.
    pub fn drawn(&self) -> Vec<bool> {
        self.shares.column_iter().map(|shares| shares.iter().any(|share| *share > 0.0)).collect()
    }

    /// The lowest loss, and how far the others lie above it: the median, or where half of them tie
    /// the root mean square. Never 0.
    pub fn lowest_and_spread(&self) -> (f64, f64) {
        let lowest = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let median = median(self.losses.iter().copied());
        if median > lowest {
            return (lowest, median - lowest);
        }
        let squares: f64 = self.losses.iter().map(|loss| (loss - lowest).powi(2)).sum();
        let spread = (squares / self.len() as f64).sqrt();
        (lowest, if spread > 0.0 { spread } else { lowest.abs().max(1.0) * 1e-6 })
    }

    /// Σ weight · error², for errors of each mixture.
    pub fn squares(&self, errors: impl IntoIterator<Item = f64>) -> f64 {
        self.weights.iter().zip(errors).map(|(weight, error)| weight * error * error).sum()
    }
}

/// The shares of a point, as a law of shares reads them.
pub(crate) fn share(point: &Point, domain: usize) -> f64 {
    point.sampling.get(domain).copied().unwrap_or(0.0)
}
