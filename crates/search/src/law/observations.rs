//! Runs and the loss of one target, out of a swarm; some of them; and which belong together.

use super::{Observations, Point};
use crate::error::{Result, SearchError};
use crate::swarm::{Swarm, SwarmRun};
use cuvee_mixer::seed::{self, CounterRng};
use std::collections::HashMap;

/// How far shares may be from a sum of 1: what a table rounds them to.
const ROUNDED: f64 = 1e-3;

impl Observations {
    /// The runs of `swarm` and their losses of target number `target` on the split that steers,
    /// checked. Runs of one mixture, α included, are a group.
    ///
    /// Epochs are tokens drawn over tokens available, where the swarm knows what is available; a
    /// run that does not say what it drew drew what was asked for.
    ///
    /// # Errors
    /// A target that is not there, a run without it, or a loss or share that is no number.
    pub fn of(swarm: &Swarm, target: usize) -> Result<Self> {
        let mut numbers = HashMap::new();
        let mut observed = Self { points: Vec::new(), losses: Vec::new(), groups: Vec::new() };
        for run in &swarm.runs {
            observed.losses.push(loss(swarm, run, target)?);
            check_shares(swarm, run, "sampling weights", &run.sampling)?;
            check_shares(swarm, run, "objective weights", &run.objective)?;
            observed.points.push(Point {
                sampling: run.sampling.clone(),
                objective: run.objective.clone(),
                epochs: epochs(swarm, run),
            });
            let shares = run.sampling.iter().chain(&run.objective);
            let mixture: Vec<u64> = shares.map(|share| share.to_bits()).collect();
            let next = numbers.len();
            observed.groups.push(*numbers.entry(mixture).or_insert(next));
        }
        Ok(observed)
    }

    /// Refuses what a law cannot be fitted to, of which it needs `least` different mixtures.
    ///
    /// # Errors
    /// Lists of unequal lengths, a loss, share or number of epochs that is none; too few mixtures.
    pub(super) fn check(&self, law: &'static str, least: usize) -> Result<()> {
        let runs = self.points.len();
        let wrong = |expected: String, found: String, place: String| SearchError::BadValue {
            expected,
            found,
            place,
            hint: "each run has a share a domain, a loss and a group",
        };
        if self.losses.len() != runs || self.groups.len() != runs {
            return Err(wrong(
                format!("{runs} losses and groups, as there are points"),
                format!("{} and {}", self.losses.len(), self.groups.len()),
                "the observations".to_owned(),
            ));
        }
        let domains = self.points.first().map_or(0, |point| point.sampling.len());
        if domains == 0 {
            return Err(wrong(
                "runs over at least one domain".to_owned(),
                format!("{runs} runs over {domains} domains"),
                "the observations".to_owned(),
            ));
        }
        for (run, (point, loss)) in self.points.iter().zip(&self.losses).enumerate() {
            let place = || format!("run {}", run + 1);
            for shares in [&point.sampling, &point.objective] {
                if shares.len() != domains {
                    let found = shares.len().to_string();
                    return Err(wrong(format!("{domains} shares"), found, place()));
                }
            }
            let usable = |value: &f64| value.is_finite() && *value >= 0.0;
            let shares = point.sampling.iter().chain(&point.objective);
            if let Some(share) = shares.copied().find(|share| !usable(share)) {
                return Err(wrong("shares of at least 0".to_owned(), share.to_string(), place()));
            }
            if let Some(epochs) = point.epochs.iter().find(|epochs| !usable(epochs)) {
                return Err(wrong("epochs of at least 0".to_owned(), epochs.to_string(), place()));
            }
            if !loss.is_finite() {
                return Err(wrong("a finite loss".to_owned(), loss.to_string(), place()));
            }
        }
        match self.mixtures().len() {
            found if found < least => Err(SearchError::TooFewRuns { law, least, found }),
            _ => Ok(()),
        }
    }

    /// The runs of each mixture, in the order in which mixtures first occur.
    pub fn mixtures(&self) -> Vec<Vec<usize>> {
        let mut places = HashMap::new();
        let mut mixtures: Vec<Vec<usize>> = Vec::new();
        for (run, group) in self.groups.iter().enumerate() {
            let place = *places.entry(*group).or_insert(mixtures.len());
            if place == mixtures.len() {
                mixtures.push(Vec::new());
            }
            mixtures[place].push(run);
        }
        mixtures
    }

    /// The runs of these numbers, in their order.
    pub fn select(&self, runs: &[usize]) -> Self {
        Self {
            points: runs.iter().map(|run| self.points[*run].clone()).collect(),
            losses: runs.iter().map(|run| self.losses[*run]).collect(),
            groups: runs.iter().map(|run| self.groups[*run]).collect(),
        }
    }

    /// `runs` of the runs, drawn by `seed`, in the order that they have here.
    ///
    /// # Errors
    /// More than there are.
    pub fn subset(&self, runs: usize, seed: u64) -> Result<Self> {
        let n = self.losses.len();
        if runs > n {
            return Err(SearchError::BadValue {
                expected: format!("at most the {n} runs that there are"),
                found: runs.to_string(),
                place: "the number of runs".to_owned(),
                hint: "leave it out to take all",
            });
        }
        let rng = CounterRng::new(seed::derive(seed, "subset"));
        let mut order: Vec<usize> = (0..n).collect();
        for place in 0..runs {
            let rest = (n - place) as u64;
            order.swap(place, place + rng.below(place as u64, rest) as usize);
        }
        order.truncate(runs);
        order.sort_unstable();
        Ok(self.select(&order))
    }
}

/// The run's loss of a target.
fn loss(swarm: &Swarm, run: &SwarmRun, target: usize) -> Result<f64> {
    let found = run.tune.get(target);
    if let Some(loss) = found.filter(|loss| loss.is_finite()) {
        return Ok(*loss);
    }
    Err(SearchError::BadValue {
        expected: "a loss, lower is better".to_owned(),
        found: found.map_or("none".to_owned(), f64::to_string),
        place: match swarm.targets.get(target) {
            Some(name) => format!("run `{}`, target `{name}`", run.name),
            None => format!("run `{}`, target number {target}", run.name),
        },
        hint: "leave out the run, or the target",
    })
}

fn check_shares(swarm: &Swarm, run: &SwarmRun, role: &str, shares: &[f64]) -> Result<()> {
    let sum: f64 = shares.iter().sum();
    let domains = swarm.domains.len();
    let usable = shares.len() == domains && shares.iter().all(|share| *share >= 0.0);
    if usable && (sum - 1.0).abs() < ROUNDED {
        return Ok(());
    }
    Err(SearchError::BadValue {
        expected: format!("{domains} {role} of at least 0 that sum to 1"),
        found: format!("{} that sum to {sum}", shares.len()),
        place: format!("run `{}`", run.name),
        hint: "divide by the sum",
    })
}

/// How often the run went through each domain; empty where a size is unknown.
fn epochs(swarm: &Swarm, run: &SwarmRun) -> Vec<f64> {
    let known = swarm.available.len() == swarm.domains.len();
    if !known || !swarm.available.iter().all(|tokens| *tokens > 0.0) {
        return Vec::new();
    }
    let seen = |i: usize| run.seen.get(i).copied().unwrap_or(run.tokens * run.sampling[i]);
    swarm.available.iter().enumerate().map(|(i, available)| seen(i) / available).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(name: &str, sampling: [f64; 2], loss: f64) -> SwarmRun {
        SwarmRun {
            name: name.into(),
            kind: "spread".into(),
            seed: 0,
            block: 0,
            steps: 10,
            tokens: 100.0,
            sampling: sampling.into(),
            objective: sampling.into(),
            seen: Vec::new(),
            tune: vec![loss],
            valid: Vec::new(),
            curve: Vec::new(),
        }
    }

    fn swarm(runs: Vec<SwarmRun>) -> Swarm {
        let names = vec!["a".to_owned(), "b".to_owned()];
        Swarm { domains: names, targets: vec!["a".into()], available: vec![50.0, 200.0], runs }
    }

    #[test]
    fn runs_of_one_mixture_share_a_number_and_epochs_follow_from_sizes() {
        let runs = vec![
            run("0", [0.5, 0.5], 2.0),
            run("1", [0.2, 0.8], 2.1),
            run("2", [0.5, 0.5], 2.2),
            run("3", [0.9, 0.1], 1.9),
        ];
        let observed = Observations::of(&swarm(runs), 0).unwrap();
        assert_eq!(observed.groups, [0, 1, 0, 2]);
        assert_eq!(observed.points[0].epochs, [1.0, 0.25]);
        assert_eq!(observed.losses, [2.0, 2.1, 2.2, 1.9]);
    }

    #[test]
    fn a_loss_that_is_no_number_and_shares_that_do_not_sum_name_the_run() {
        let error =
            Observations::of(&swarm(vec![run("bad", [0.5, 0.5], f64::NAN)]), 0).unwrap_err();
        assert!(error.to_string().contains("run `bad`, target `a`"), "{error}");
        let error = Observations::of(&swarm(vec![run("odd", [0.5, 0.2], 1.0)]), 0).unwrap_err();
        assert!(error.to_string().contains("run `odd`"), "{error}");
        assert!(Observations::of(&swarm(vec![run("few", [0.5, 0.5], 1.0)]), 3).is_err());
    }
}
