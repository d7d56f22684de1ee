//! DeMix: one model a domain, whose averaged parameters stand for a model trained on the mixture.
//!
//! Θ(r) = Θ₀ + Σ_k r_k (Θ_k − Θ₀): each domain's model branched from one base. Averaging and
//! evaluating is the trainer's, and costs no training, so that many mixtures can be tried. Here:
//! which ones, and what to make of their losses.

use cuvee_mixer::seed::{CounterRng, derive};

use super::interface::ProposalEntry;
use crate::error::{Result, SearchError};
use crate::law::{Fitted, LawEntry, LawOptions, Observations, Point};
use crate::propose::{Aim, Proposal, propose};
use crate::shares::{Bounds, dirichlet, uniform};

pub(super) const ENTRY: ProposalEntry = ProposalEntry {
    name: "demix",
    summary: "averages of one model a domain are evaluated as if trained on the mixture",
    source: "arXiv:2602.00747",
    runs: "a base, and one short run on each domain that goes on from it",
};

/// `count` mixtures to average and evaluate: uniform, each domain alone, and random ones that are
/// even over the simplex; all within caps.
///
/// # Errors
/// Caps that cannot fill the run.
pub fn averages(caps: &[f64], count: usize, seed: u64) -> Result<Vec<Vec<f64>>> {
    let bounds = Bounds::new(0.0, caps)?;
    let rng = CounterRng::new(derive(seed, "demix"));
    let even = vec![1.0; caps.len()];
    let alone = |domain: usize| {
        let mut price = vec![0.0; caps.len()];
        price[domain] = -1.0;
        bounds.cheapest(&price)
    };
    let first = std::iter::once(bounds.project(&uniform(caps.len())));
    let random = (0..).map(|i| bounds.project(&dirichlet(rng.nested(i), &even)));
    Ok(first.chain((0..caps.len()).map(alone)).chain(random).take(count).collect())
}

/// The mixture that a law proposes from the averages' losses. `[n]` mixtures, `[n][M]` losses.
///
/// # Errors
/// As the law's fit and [`propose`].
pub fn demix(
    mixtures: &[Vec<f64>],
    losses: &[Vec<f64>],
    law: &LawEntry,
    aim: &Aim,
    seed: u64,
) -> Result<Proposal> {
    check(mixtures, losses, aim)?;
    let form = (law.make)(&LawOptions { seed, ..LawOptions::default() });
    let fit = |target: usize| {
        form.fit(&Observations {
            points: mixtures.iter().map(|shares| Point::both(shares.clone())).collect(),
            losses: losses.iter().map(|row| row[target]).collect(),
            groups: (0..mixtures.len()).collect(),
        })
    };
    let laws: Vec<Box<dyn Fitted>> =
        (0..aim.target_weights.len()).map(fit).collect::<Result<_>>()?;
    propose(&laws, aim, seed)
}

/// The evaluated average with the least Σ ω L, without a law: its number.
///
/// # Errors
/// No average, or lists of different lengths.
pub fn best_average(mixtures: &[Vec<f64>], losses: &[Vec<f64>], aim: &Aim) -> Result<usize> {
    check(mixtures, losses, aim)?;
    let loss =
        |row: &Vec<f64>| row.iter().zip(&aim.target_weights).map(|(l, w)| l * w).sum::<f64>();
    let best = (0..losses.len()).min_by(|a, b| loss(&losses[*a]).total_cmp(&loss(&losses[*b])));
    best.ok_or_else(|| bad("none".to_owned(), "the averages".to_owned()))
}

fn check(mixtures: &[Vec<f64>], losses: &[Vec<f64>], aim: &Aim) -> Result<()> {
    if mixtures.len() != losses.len() {
        let found = format!("{} averages and {} rows of losses", mixtures.len(), losses.len());
        return Err(bad(found, "the averages".to_owned()));
    }
    let fits = |row: &Vec<f64>| {
        row.len() == aim.target_weights.len() && row.iter().all(|loss| loss.is_finite())
    };
    match losses.iter().position(|row| !fits(row)) {
        Some(row) => Err(bad(format!("{:?}", losses[row]), format!("average {row}"))),
        None => Ok(()),
    }
}

fn bad(found: String, place: String) -> SearchError {
    SearchError::BadValue {
        expected: "a loss of every target for every average".to_owned(),
        found,
        place: format!("demix, {place}"),
        hint: "evaluate every average on the same windows",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn aim() -> Aim {
        Aim {
            target_weights: vec![0.5, 0.5],
            prior: vec![0.5; 2],
            caps: vec![1.0; 2],
            floor: 1e-4,
            ..Aim::default()
        }
    }

    #[test]
    fn averages_are_mixtures_and_the_least_loss_is_chosen() {
        let mixtures = averages(&[1.0, 0.6], 12, 3).unwrap();
        assert_eq!(mixtures, averages(&[1.0, 0.6], 12, 3).unwrap());
        assert_eq!(mixtures[1], [1.0, 0.0]);
        assert!((mixtures[2][1] - 0.6).abs() < 1e-12);
        for shares in &mixtures {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares[1] <= 0.6 + 1e-9);
        }
        let loss = |r: &Vec<f64>| vec![(r[0] - 0.7).powi(2), (r[0] - 0.5).powi(2)];
        let losses: Vec<Vec<f64>> = mixtures.iter().map(loss).collect();
        let best = best_average(&mixtures, &losses, &aim()).unwrap();
        assert!(mixtures.iter().all(|r| (r[0] - 0.6).abs() >= (mixtures[best][0] - 0.6).abs()));
        assert!(best_average(&mixtures, &losses[1..], &aim()).is_err());
        assert!(best_average(&[], &[], &aim()).is_err());
    }
}
