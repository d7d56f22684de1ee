//! What a law is worth by its own held-out predictions.
//!
//! Every prediction here is of runs that the fit has not seen, its settings chosen anew without
//! them; runs of one mixture are held out together. In: a law and runs. Out: a [`Judgement`], and a
//! [`TestScore`] where other runs were kept aside.

mod rank;
mod reach;

pub use rank::{permutation_p, ranks, spearman, spearman_ceiling};
pub use reach::{DomainReach, distance_to_nearest, reach};

use crate::error::{Result, SearchError};
use crate::law::{Fitted, LawEntry, LawOptions, Observations, folds};
use cuvee_mixer::seed;
use serde::Serialize;

/// The numbers that say whether a law may be trusted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// The law's name.
    pub law: &'static str,
    /// Runs.
    pub n: usize,
    /// Different mixtures.
    pub mixtures: usize,
    /// 1 − PRESS / PRESS of the mean predictor: the part of the spread over mixtures that held-out
    /// predictions explain. 0 or less is worthless.
    pub loo_r2: f64,
    /// Rank correlation of held-out predictions and mean losses over mixtures.
    pub spearman: f64,
    /// How often a random order is ranked as well.
    pub permutation_p: f64,
    /// The largest Spearman's ρ that the noise allows; `None` without replicates.
    pub noise_ceiling: Option<f64>,
    /// Loss of the mixture that held-out predictions rank first, less the best one's; nats.
    pub regret_at_1: f64,
    /// How much worse that mixture came out than its held-out prediction; nats.
    pub optimism: f64,
    /// Total-variation distance of that mixture to the nearest other one.
    pub distance: f64,
    /// What was tried of each domain. `[K]`
    pub domains: Vec<DomainReach>,
}

/// The largest chance by which a random order may rank as well.
const SIGNIFICANT: f64 = 0.05;

impl Judgement {
    /// Whether predictions are no better than the mean's, or their order no better than chance's.
    pub fn is_worthless(&self) -> bool {
        self.loo_r2 <= 0.0 || self.permutation_p > SIGNIFICANT
    }
}

/// How well a fitted law orders runs that it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TestScore {
    /// Rank correlation of predictions and losses.
    pub spearman: f64,
    /// Loss of the run that is ranked first, less the best one's; nats.
    pub regret_at_1: f64,
}

/// Judges a law by predictions of runs that were left out.
///
/// # Errors
/// Too few runs, or a value that is no number.
pub fn judge(law: &LawEntry, options: &LawOptions, observed: &Observations) -> Result<Judgement> {
    let predicted = (law.make)(options).leave_one_out(observed)?;
    Ok(judge_predictions(law.name, &predicted, options.seed, observed))
}

/// Judges predictions of runs that were left out, wherever they are from.
pub fn judge_predictions(
    law: &'static str,
    predicted: &[f64],
    seed: u64,
    observed: &Observations,
) -> Judgement {
    let mixtures = Mixtures::of(observed, predicted);
    let score = mixtures.score();
    let first = mixtures.ranked_first();
    let others = (0..observed.points.len())
        .filter(|run| observed.groups[*run] != observed.groups[mixtures.runs[first]])
        .map(|run| &observed.points[run]);
    Judgement {
        law,
        n: observed.losses.len(),
        mixtures: mixtures.losses.len(),
        loo_r2: 1.0 - press(predicted, observed) / press(&mean_predictor(observed), observed),
        spearman: score.spearman,
        permutation_p: permutation_p(&mixtures.predicted, &mixtures.losses, seed),
        noise_ceiling: noise_ceiling(observed),
        regret_at_1: score.regret_at_1,
        optimism: mixtures.losses[first] - mixtures.predicted[first],
        distance: distance_to_nearest(others, &observed.points[mixtures.runs[first]]),
        domains: reach(observed),
    }
}

/// Parts of the mixtures whose errors have no say in which law predicts them.
const PARTS: usize = 8;

/// The law that errs least on runs that were left out, by a margin: of those whose PRESS is within
/// a standard error of the lowest, the one that stands first in `laws`. Laws that cannot be fitted
/// to these runs do not stand. The judgement is of the choice: each mixture is predicted by the law
/// that would be chosen without that mixture's part of the errors.
///
/// # Errors
/// The first law's, where none can be fitted.
pub fn choose<'a>(
    laws: &'a [LawEntry],
    options: &LawOptions,
    observed: &Observations,
) -> Result<(&'a LawEntry, Judgement)> {
    let mut candidates = Vec::with_capacity(laws.len());
    let mut refusal = None;
    for law in laws {
        match (law.make)(options).leave_one_out(observed) {
            Ok(predicted) => candidates.push((law, predicted)),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    let squares: Vec<Vec<f64>> = candidates
        .iter()
        .map(|(_, predicted)| {
            let pairs = predicted.iter().zip(&observed.losses);
            pairs.map(|(guess, loss)| (guess - loss).powi(2)).collect()
        })
        .collect();
    let part_of = folds(observed, PARTS, seed::derive(options.seed, "choose"));
    let all: Vec<usize> = (0..observed.losses.len()).collect();
    let mut predicted = vec![f64::NAN; all.len()];
    for part in 0..PARTS {
        let (own, others): (Vec<usize>, Vec<usize>) =
            all.iter().copied().partition(|run| part_of[*run] == part);
        if let Some(index) = least_erring(&squares, &others) {
            own.iter().for_each(|run| predicted[*run] = candidates[index].1[*run]);
        }
    }
    let chosen = least_erring(&squares, &all).map(|index| candidates[index].0);
    match (chosen, refusal) {
        (Some(law), _) => {
            Ok((law, judge_predictions(law.name, &predicted, options.seed, observed)))
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(SearchError::BadValue {
            expected: "at least one law".to_owned(),
            found: "none".to_owned(),
            place: "the laws to choose from".to_owned(),
            hint: "`cuvee inspect laws` lists them",
        }),
    }
}

/// The first row of squared errors whose sum over `runs` is within a standard error of the lowest
/// row's. `[laws][n]`
fn least_erring(squares: &[Vec<f64>], runs: &[usize]) -> Option<usize> {
    let sum = |row: &Vec<f64>| runs.iter().map(|run| row[*run]).sum::<f64>();
    let lowest = squares.iter().min_by(|a, b| sum(a).total_cmp(&sum(b)))?;
    squares.iter().position(|own| {
        let excess: Vec<f64> = runs.iter().map(|run| own[*run] - lowest[*run]).collect();
        let n = excess.len() as f64;
        let sum: f64 = excess.iter().sum();
        let spread: f64 = excess.iter().map(|value| (value - sum / n).powi(2)).sum();
        sum <= (spread * n / (n - 1.0).max(1.0)).sqrt()
    })
}

/// Scores a fitted law on runs that it has not seen.
pub fn score(fitted: &dyn Fitted, test: &Observations) -> TestScore {
    let predicted: Vec<f64> = test.points.iter().map(|point| fitted.predict(point)).collect();
    Mixtures::of(test, &predicted).score()
}

/// The prediction of each run by the mean of all runs of other mixtures. `[n]`
pub fn mean_predictor(observed: &Observations) -> Vec<f64> {
    let groups = observed.groups.iter();
    groups
        .map(|own| {
            let others = observed.losses.iter().zip(&observed.groups);
            let others: Vec<f64> =
                others.filter(|(_, group)| *group != own).map(|(loss, _)| *loss).collect();
            others.iter().sum::<f64>() / others.len() as f64
        })
        .collect()
}

/// Sum of squared errors of held-out predictions.
fn press(predicted: &[f64], observed: &Observations) -> f64 {
    predicted.iter().zip(&observed.losses).map(|(guess, loss)| (guess - loss).powi(2)).sum()
}

/// Mixtures with the mean over their runs.
struct Mixtures {
    losses: Vec<f64>,
    predicted: Vec<f64>,
    /// A run of each.
    runs: Vec<usize>,
}

impl Mixtures {
    fn of(observed: &Observations, predicted: &[f64]) -> Self {
        let mut mixtures = Self { losses: Vec::new(), predicted: Vec::new(), runs: Vec::new() };
        for runs in observed.mixtures() {
            let mean = |values: &[f64]| {
                runs.iter().map(|run| values[*run]).sum::<f64>() / runs.len() as f64
            };
            mixtures.losses.push(mean(&observed.losses));
            mixtures.predicted.push(mean(predicted));
            mixtures.runs.push(runs[0]);
        }
        mixtures
    }

    /// The mixture with the lowest prediction; of equal ones the first.
    fn ranked_first(&self) -> usize {
        (1..self.predicted.len()).fold(0, |best, index| {
            if self.predicted[index] < self.predicted[best] { index } else { best }
        })
    }

    fn score(&self) -> TestScore {
        let best = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        TestScore {
            spearman: spearman(&self.predicted, &self.losses),
            regret_at_1: self.losses[self.ranked_first()] - best,
        }
    }
}

/// The ceiling by the noise that replicates show: the reliability of a mixture's mean is the part
/// of the variance between mixtures that σ²/runs does not explain.
fn noise_ceiling(observed: &Observations) -> Option<f64> {
    let mixtures = observed.mixtures();
    let (mut squares, mut degrees) = (0.0, 0);
    let mut means = Vec::with_capacity(mixtures.len());
    let mut shrinkage = 0.0;
    for runs in &mixtures {
        let mean = runs.iter().map(|run| observed.losses[*run]).sum::<f64>() / runs.len() as f64;
        squares += runs.iter().map(|run| (observed.losses[*run] - mean).powi(2)).sum::<f64>();
        degrees += runs.len() - 1;
        shrinkage += 1.0 / (runs.len() * mixtures.len()) as f64;
        means.push(mean);
    }
    if degrees == 0 || means.len() < 3 {
        return None;
    }
    let noise = squares / degrees as f64 * shrinkage;
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    let spread =
        means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (means.len() - 1) as f64;
    let reliability = if spread > 0.0 { 1.0 - noise / spread } else { 0.0 };
    Some(spearman_ceiling(reliability, means.len()))
}

#[cfg(test)]
mod tests;
