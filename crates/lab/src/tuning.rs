//! The arms once more, each at the learning rate that suits it best.
//!
//! At one shared rate, an arm that makes the gradient less noisy may look no better only because
//! the rate is too small to need it, or better only because the others would need a smaller one.
//! So every arm is also given the best of a few rates, a factor of two apart, by its mean final
//! error on seeds that the study itself does not use. Cost: rates · tuning seeds + seeds
//! trainings of each arm.

use crate::schedule::{Path, Schedule};
use crate::study::{Tried, Tuned};
use crate::summary::{oracle, run_all, summarise};
use crate::weighting::Arm;
use cuvee_report::{Interval, interval};

/// What rates are tried, and on how many seeds.
pub(crate) struct Tuning {
    /// The rate in the middle: the one that all arms share otherwise.
    pub(crate) lr: f64,
    /// How many rates; 0 leaves all of this out.
    pub(crate) rates: u64,
    /// Seeds that choose.
    pub(crate) seeds: u64,
}

impl Tuning {
    /// The rates in rising order, a factor of two apart.
    fn grid(&self) -> Vec<f64> {
        let middle = (self.rates / 2) as i32;
        (0..self.rates as i32).map(|k| self.lr * 2f64.powi(k - middle)).collect()
    }

    /// Trains every arm at every rate on the seeds after `seeds`, and then at its best one on those
    /// below. `train` is given a seed, an arm and a rate, and gives `None` where it is stopped.
    /// `exact` is the oracle's error where no arm is the oracle. `None` where nothing is to be
    /// tuned, or `train` was stopped.
    pub(crate) fn run(
        &self,
        (root, seeds): (u64, u64),
        arms: &[Arm],
        schedule: &Schedule,
        exact: Option<Interval>,
        train: impl Fn(u64, &Arm, f64) -> Option<Path> + Sync,
    ) -> Option<Tuned> {
        let rates = self.grid();
        if rates.is_empty() {
            return None;
        }
        let pairs: Vec<(usize, f64)> =
            (0..arms.len()).flat_map(|arm| rates.iter().map(move |rate| (arm, *rate))).collect();
        let found = run_all(self.seeds, pairs.len(), |seed, pair| {
            let (arm, rate) = pairs[pair];
            let path = train(seeds.saturating_add(seed), &arms[arm], rate)?;
            Some(path.error.last().copied().unwrap_or(f64::NAN))
        })?;
        let errors: Vec<f64> = found.iter().map(|seeds| interval(seeds).mean).collect();
        let tried: Vec<Tried> = arms
            .iter()
            .zip(errors.chunks(rates.len()))
            .map(|(arm, errors)| choose(arm.name, &rates, errors))
            .collect();
        let paths = run_all(seeds, arms.len(), |seed, arm| train(seed, &arms[arm], tried[arm].lr))?;
        let chosen: Vec<f64> = tried.iter().map(|tried| tried.lr).collect();
        let oracle = oracle(arms, &paths).or(exact)?;
        Some(Tuned {
            rates,
            seeds: self.seeds,
            tried,
            arms: summarise(root, arms, &chosen, schedule, &paths),
            oracle_error: oracle.mean,
            oracle_ci95: oracle.ci95,
        })
    }
}

/// The rate of the least error; one that diverged comes last.
fn choose(name: &'static str, rates: &[f64], errors: &[f64]) -> Tried {
    let order = |i: &usize| if errors[*i].is_nan() { f64::INFINITY } else { errors[*i] };
    let best = (0..rates.len()).min_by(|a, b| order(a).total_cmp(&order(b))).unwrap_or(0);
    Tried {
        name,
        lr: rates[best],
        errors: errors.to_vec(),
        at_edge: best == 0 || best + 1 == rates.len(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::weighting::{LossRule, four_arms};

    #[test]
    fn every_arm_gets_its_best_rate_on_seeds_of_its_own() {
        let arms = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        let tuning = Tuning { lr: 1.0, rates: 5, seeds: 3 };
        let schedule = Schedule::new(2, 2, 2);
        // The best rates are 1, 2, ½ and beyond the largest. The study's seeds are harder.
        let best = |arm: &Arm| match arm.name {
            "uniform" => 1.0,
            "loss" => 2.0,
            "va" => 0.5,
            _ => 64.0,
        };
        let path = |seed: u64, arm: &Arm, rate: f64| {
            let diverges = arm.name == "loss" && rate > 3.0;
            let last = if diverges { f64::NAN } else { 1.0 + (rate / best(arm)).ln().powi(2) };
            let hard = if seed < 2 { 10.0 } else { 0.0 };
            let weights = vec![vec![1.0; 2]; 3];
            Some(Path {
                error: vec![20.0, 15.0, last + hard],
                loss_weight: weights.clone(),
                sampling_weight: weights,
                variance_measured: vec![1.0; 3],
                variance_formula: vec![1.0; 3],
            })
        };
        let exact = Some(Interval { mean: 0.5, ci95: None });
        let found = tuning.run((0, 2), &arms, &schedule, exact, path).unwrap();
        assert_eq!(found.rates, [0.25, 0.5, 1.0, 2.0, 4.0]);
        let chosen: Vec<(f64, bool)> = found.tried.iter().map(|t| (t.lr, t.at_edge)).collect();
        assert_eq!(chosen, [(1.0, false), (2.0, false), (0.5, false), (4.0, true)]);
        assert!(found.tried[1].errors[4].is_nan(), "a rate that diverges is not chosen");
        assert_eq!(found.tried[0].errors[2], 1.0, "chosen on seeds that the study does not use");
        assert_eq!((found.arms[0].final_error, found.arms[0].lr), (11.0, 1.0));
        assert_eq!(found.oracle_error, 0.5);
        let none = Tuning { rates: 0, ..tuning };
        assert!(none.run((0, 2), &arms, &schedule, exact, path).is_none());
        let stopped = Tuning { rates: 3, ..none };
        assert!(stopped.run((0, 2), &arms, &schedule, exact, |_, _, _| None).is_none());
    }
}
