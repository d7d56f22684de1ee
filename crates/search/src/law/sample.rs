//! What laws of the domains' shares are fitted to: each mixture once, with the mean of its runs.
//!
//! Runs of one mixture count as often as they are, and a mixture that is left out leaves with all
//! of them: leaving out a row here is leaving out a group.

use super::{Observations, Point};
use crate::error::{Result, SearchError};
use cuvee_mixer::seed::CounterRng;
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
        check(observed)?;
        let mixtures = observed.mixtures();
        if mixtures.len() < least {
            return Err(SearchError::TooFewRuns { law, least, found: mixtures.len() });
        }
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
        let rng = CounterRng::new(seed);
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|row| rng.bits(*row as u64));
        let out: Vec<usize> = order.iter().copied().skip(part).step_by(parts).collect();
        let kept: Vec<usize> = (0..self.len()).filter(|row| !out.contains(row)).collect();
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
        let mut sorted = self.losses.clone();
        sorted.sort_by(f64::total_cmp);
        let (lowest, middle) = (sorted[0], sorted.len() / 2);
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        if median > lowest {
            return (lowest, median - lowest);
        }
        let squares: f64 = sorted.iter().map(|loss| (loss - lowest).powi(2)).sum();
        let spread = (squares / sorted.len() as f64).sqrt();
        (lowest, if spread > 0.0 { spread } else { lowest.abs().max(1.0) * 1e-6 })
    }

    /// Σ weight · error², for errors of each mixture.
    pub fn squares(&self, errors: impl IntoIterator<Item = f64>) -> f64 {
        self.weights.iter().zip(errors).map(|(weight, error)| weight * error * error).sum()
    }
}

fn check(observed: &Observations) -> Result<()> {
    let runs = observed.points.len();
    let wrong = |expected: String, found: String, place: String| SearchError::BadValue {
        expected,
        found,
        place,
        hint: "each run has a share a domain, a loss and a group",
    };
    if observed.losses.len() != runs || observed.groups.len() != runs {
        return Err(wrong(
            format!("{runs} losses and groups, as there are points"),
            format!("{} and {}", observed.losses.len(), observed.groups.len()),
            "the observations".to_owned(),
        ));
    }
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    if runs == 0 || domains == 0 {
        return Err(wrong(
            "runs over at least one domain".to_owned(),
            format!("{runs} runs over {domains} domains"),
            "the observations".to_owned(),
        ));
    }
    for (run, (point, loss)) in observed.points.iter().zip(&observed.losses).enumerate() {
        let place = || format!("run {}", run + 1);
        if point.sampling.len() != domains {
            let found = point.sampling.len().to_string();
            return Err(wrong(format!("{domains} shares"), found, place()));
        }
        if let Some(share) = point.sampling.iter().find(|share| !(0.0..).contains(*share)) {
            return Err(wrong("shares of at least 0".to_owned(), share.to_string(), place()));
        }
        if !loss.is_finite() {
            return Err(wrong("a finite loss".to_owned(), loss.to_string(), place()));
        }
    }
    Ok(())
}

/// The shares of a point, as a law of shares reads them.
pub(crate) fn share(point: &Point, domain: usize) -> f64 {
    point.sampling.get(domain).copied().unwrap_or(0.0)
}
