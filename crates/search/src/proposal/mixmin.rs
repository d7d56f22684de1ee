//! MixMin: the mixture of one model a domain that fits the target's text best.
//!
//! Minimises −mean_x ln Σ_i λ_i e^(ℓ_i(x)) over the simplex, ℓ_i(x) the log-likelihood of target
//! window x under the model that was trained on domain i alone: a convex function. By exponentiated
//! gradient with η = 1 and at most 100 iterations, as published; η is halved wherever the objective
//! would rise, since likelihoods of whole windows differ by many orders of magnitude, and η = 1
//! alone then jumps from corner to corner.

use super::interface::ProposalEntry;
use crate::error::{Result, SearchError};
use crate::shares::{normalised, uniform};

pub(super) const ENTRY: ProposalEntry = ProposalEntry {
    name: "mixmin",
    summary: "the mixture of one model a domain that fits the target's text best",
    source: "arXiv:2502.10510",
    runs: "one run on each domain alone, and its log-likelihood of the target's windows",
};

const RATE: f64 = 1.0;
const ITERATIONS: usize = 100;
/// Halvings of η that end the descent.
const HALVINGS: usize = 40;

/// A certificate below this many nats ends it.
const CONVERGED: f64 = 1e-8;

/// What MixMin finds.
#[derive(Clone, Debug, PartialEq)]
pub struct MixMin {
    /// λ. `[K]`
    pub mixture: Vec<f64>,
    /// −mean_x ln Σ λ e^ℓ, in the log-likelihoods' unit.
    pub value: f64,
    /// How much lower it can be at most: the certificate of a convex function.
    pub gap: f64,
    /// Steps taken.
    pub iterations: usize,
}

/// `log_likelihoods[x][i]` is ln of the probability of the whole window x under domain i's model:
/// the sum over its tokens, not their mean, whose exponential is no likelihood.
///
/// # Errors
/// No window, rows of different lengths, or a window that no model gives a likelihood.
pub fn mixmin(log_likelihoods: &[Vec<f64>]) -> Result<MixMin> {
    let domains = log_likelihoods.first().map_or(0, Vec::len);
    let table = log_likelihoods.iter().enumerate().map(|(window, row)| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let usable = row.len() == domains && row.iter().all(|value| !value.is_nan());
        match usable && largest.is_finite() {
            true => Ok((largest, row.iter().map(|value| (value - largest).exp()).collect())),
            false => Err(bad(format!("{row:?}"), format!("window {window}"))),
        }
    });
    let table: Vec<(f64, Vec<f64>)> = table.collect::<Result<_>>()?;
    if domains == 0 {
        return Err(bad("nothing".to_owned(), "the table".to_owned()));
    }
    let mut mixture = uniform(domains);
    let mut value = value_of(&table, &mixture);
    let mut gap = f64::INFINITY;
    let (mut rate, mut iterations) = (RATE, 0);
    while iterations < ITERATIONS {
        let slope = slope_of(&table, &mixture);
        let least = slope.iter().copied().fold(f64::INFINITY, f64::min);
        gap = slope.iter().zip(&mixture).map(|(g, r)| g * r).sum::<f64>() - least;
        if gap < CONVERGED {
            break;
        }
        let step = |rate: f64| {
            let raw: Vec<f64> =
                mixture.iter().zip(&slope).map(|(r, g)| r * (-rate * (g - least)).exp()).collect();
            let next = normalised(&raw)?;
            let there = value_of(&table, &next);
            (there < value).then_some((next, there))
        };
        let halved = (0..HALVINGS).map(|halving| rate * 0.5f64.powi(halving as i32));
        let Some((used, (next, there))) =
            halved.map(|r| (r, step(r))).find_map(|(r, found)| Some((r, found?)))
        else {
            break;
        };
        (mixture, value) = (next, there);
        rate = (2.0 * used).min(RATE);
        iterations += 1;
    }
    Ok(MixMin { mixture, value, gap, iterations })
}

/// Rows of the table hold their largest log-likelihood and the others relative to it.
fn value_of(table: &[(f64, Vec<f64>)], mixture: &[f64]) -> f64 {
    let logs = table.iter().map(|(largest, row)| largest + mixed(row, mixture).ln());
    -logs.sum::<f64>() / table.len() as f64
}

fn slope_of(table: &[(f64, Vec<f64>)], mixture: &[f64]) -> Vec<f64> {
    let mut slope = vec![0.0; mixture.len()];
    for (_, row) in table {
        let scale = 1.0 / (mixed(row, mixture) * table.len() as f64);
        slope.iter_mut().zip(row).for_each(|(sum, value)| *sum -= scale * value);
    }
    slope
}

fn mixed(row: &[f64], mixture: &[f64]) -> f64 {
    row.iter().zip(mixture).map(|(a, b)| a * b).sum::<f64>().max(f64::MIN_POSITIVE)
}

fn bad(found: String, place: String) -> SearchError {
    SearchError::BadValue {
        expected: "a log-likelihood of every window under every domain's model".to_owned(),
        found,
        place: format!("mixmin, {place}"),
        hint: "evaluate every model on the same windows",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_of_two_languages_are_mixed_as_they_come() {
        // Three of four windows are only likely under the first model.
        let row = |first: bool| if first { vec![-1.0, -60.0] } else { vec![-60.0, -1.0] };
        let table: Vec<Vec<f64>> = [true, true, true, false].map(row).into();
        let found = mixmin(&table).unwrap();
        assert!((found.mixture[0] - 0.75).abs() < 1e-4, "{found:?}");
        assert!(found.gap < 1e-3 && found.iterations <= 100);
    }

    #[test]
    fn a_model_that_is_better_everywhere_is_taken_alone() {
        let found = mixmin(&vec![vec![-900.0, -903.0, -910.0]; 5]).unwrap();
        assert!(found.mixture[0] > 0.999, "{found:?}");
        // The likelihood of the best model, up to what is left of the others.
        assert!((found.value - 900.0).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn whole_windows_of_many_domains_are_mixed_as_they_come() {
        // A window is e^200 times as likely under its own domain's model; half are the first's.
        for domains in [2usize, 12, 50] {
            let row = |own: usize| (0..domains).map(move |i| if i == own { 0.0 } else { -200.0 });
            let others = (1..domains).map(|own| row(own).collect());
            let firsts = (1..domains).map(|_| row(0).collect());
            let found = mixmin(&firsts.chain(others).collect::<Vec<Vec<f64>>>()).unwrap();
            assert!((found.mixture[0] - 0.5).abs() < 0.01, "{domains}: {found:?}");
            let best = 0.5 * 2f64.ln() + 0.5 * (2.0 * (domains - 1) as f64).ln();
            assert!((found.value - best).abs() < 0.01, "{domains}: {found:?}, {best}");
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        for bad in [vec![vec![0.0, -1.0], vec![0.0]], vec![vec![f64::NAN, 0.0]], vec![]] {
            assert!(mixmin(&bad).unwrap_err().to_string().contains("mixmin"));
        }
        let nowhere = vec![vec![-1.0, -2.0], vec![f64::NEG_INFINITY; 2]];
        assert!(mixmin(&nowhere).unwrap_err().to_string().contains("window 1"));
    }

    proptest! {
        #[test]
        fn nothing_on_the_simplex_is_much_better(
            table in prop::collection::vec(prop::collection::vec(-6.0f64..0.0, 3), 1..20),
            other in prop::collection::vec(1e-3f64..1.0, 3),
        ) {
            let found = mixmin(&table).unwrap();
            prop_assert!((found.mixture.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let other = normalised(&other).unwrap();
            let value = |mixture: &[f64]| -> f64 {
                let log = |row: &Vec<f64>| -> f64 {
                    row.iter().zip(mixture).map(|(l, r)| r * l.exp()).sum::<f64>().ln()
                };
                -table.iter().map(log).sum::<f64>() / table.len() as f64
            };
            prop_assert!((found.value - value(&found.mixture)).abs() < 1e-9);
            prop_assert!(found.value <= value(&other) + found.gap + 1e-9);
            prop_assert!(found.gap >= -1e-12);
        }
    }
}
