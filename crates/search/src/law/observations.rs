//! Runs and the loss of one target, out of a swarm; some of them; and which belong together.

use super::{Observations, Point};
use crate::error::{Result, SearchError};
use crate::swarm::{Swarm, SwarmRun};
use cuvee_mixer::seed::{self, CounterRng};
use std::collections::HashMap;

impl Observations {
    /// The runs of `swarm` and the loss of its target number `target` on the split that steers.
    ///
    /// Runs of one mixture, α included, are a group. How often tokens were gone through is known
    /// where a run says what it has seen, and the swarm what there is.
    pub fn of(swarm: &Swarm, target: usize) -> Self {
        let mut numbers = HashMap::new();
        let group = |run: &SwarmRun| {
            let shares = run.sampling.iter().chain(&run.objective);
            let mixture: Vec<u64> = shares.map(|share| share.to_bits()).collect();
            let next = numbers.len();
            *numbers.entry(mixture).or_insert(next)
        };
        let epochs = |run: &SwarmRun| -> Vec<f64> {
            let sizes = run.seen.iter().zip(&swarm.available);
            sizes.map(|(seen, available)| seen / available).collect()
        };
        Self {
            points: swarm
                .runs
                .iter()
                .map(|run| Point {
                    sampling: run.sampling.clone(),
                    objective: run.objective.clone(),
                    epochs: epochs(run),
                })
                .collect(),
            losses: swarm.runs.iter().map(|run| run.tune[target]).collect(),
            groups: swarm.runs.iter().map(group).collect(),
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
