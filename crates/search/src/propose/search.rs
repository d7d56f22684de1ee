//! Proposals: descents from many starts, and sampling where a law has no slope.

use cuvee_mixer::seed::{CounterRng, derive};
use rayon::prelude::*;

use super::descent::{End, Smooth, descend};
use super::objective::Objective;
use super::{Aim, Proposal};
use crate::error::Result;
use crate::law::Fitted;
use crate::shares::{between, dirichlet, normalised, uniform};

/// A gap of this many nats ends a descent.
const TOLERANCE: f64 = 1e-6;

/// Steps from every start, and from the best few of where these end.
const FIRST_STEPS: usize = 60;
const LAST_STEPS: usize = 4000;
const FINISHED: usize = 3;

/// Starts drawn at random, and the most starts towards single domains.
const RANDOM_STARTS: u64 = 12;
const CORNER_STARTS: usize = 32;

/// RegMix's search (Liu et al., arXiv:2407.01492): mixtures that are tried, and how many of the
/// best are averaged.
const SAMPLES: u64 = 100_000;
const AVERAGED: usize = 128;
const STRENGTHS: [f64; 2] = [0.1, 5.0];

impl Smooth for Objective<'_> {
    fn value(&self, at: &[f64]) -> f64 {
        Objective::value(self, at)
    }

    fn slope(&self, at: &[f64]) -> Option<Vec<f64>> {
        Objective::slope(self, at)
    }
}

/// The mixture with the least Σ ω L + κ KL(r ‖ prior) within caps and floor.
///
/// Laws with slopes: exponentiated gradient from the uniform mixture, the prior, the aim's
/// candidates, each domain's side and random mixtures; the result is no worse than any of these.
/// Laws without: the mean of the best 128 of 100,000 random mixtures, as RegMix does, or the best
/// of the uniform mixture, prior and candidates where that is predicted to be better.
///
/// # Errors
/// Lists of different lengths, caps that cannot fill the run, laws that say nothing.
pub fn propose(laws: &[Box<dyn Fitted>], aim: &Aim, seed: u64) -> Result<Proposal> {
    let objective = Objective::new(laws, aim)?;
    let given = given(&objective);
    let rng = CounterRng::new(derive(seed, "propose"));
    if objective.slope(&given[0]).is_none() {
        return Ok(objective.proposal(&sampled(&objective, given, SAMPLES, rng), None));
    }
    let mut starts = given;
    starts.extend(corners(&objective));
    starts.extend((0..RANDOM_STARTS).map(|i| {
        let concentration = vec![1.0; objective.bounds.domains()];
        dirichlet(rng.nested(i), &concentration)
    }));
    let end = best_end(&objective, &starts);
    Ok(objective.proposal(&end.at, Some(end.gap)))
}

/// The uniform mixture, the prior and the candidates, within the bounds, in shares of groups.
pub(super) fn given(objective: &Objective) -> Vec<Vec<f64>> {
    let even = uniform(objective.prior.len());
    let all = [&even, &objective.prior].into_iter().chain(&objective.aim.candidates);
    all.map(|shares| objective.bounds.project(&objective.groups.collapse(shares))).collect()
}

/// Half of the uniform mixture, the other half one group's: of those that the slope at the uniform
/// mixture likes best.
fn corners(objective: &Objective) -> Vec<Vec<f64>> {
    let even = uniform(objective.bounds.domains());
    let slope = objective.slope(&objective.bounds.project(&even)).unwrap_or_default();
    let mut order: Vec<usize> = (0..slope.len()).collect();
    order.sort_by(|a, b| slope[*a].total_cmp(&slope[*b]));
    let corner = |group: usize| {
        let mut alone = vec![0.0; even.len()];
        alone[group] = 1.0;
        between(&even, &alone, 0.5)
    };
    order.into_iter().take(CORNER_STARTS).map(corner).collect()
}

/// A short descent from every start, then a long one from the best few ends.
pub(super) fn best_end(objective: &Objective, starts: &[Vec<f64>]) -> End {
    let run = |start: &Vec<f64>, steps: usize| {
        descend(objective, &[&objective.bounds], start, TOLERANCE, steps)
    };
    let mut ends: Vec<End> = starts.par_iter().map(|start| run(start, FIRST_STEPS)).collect();
    // Stable: of equals the first, whatever the threads did.
    ends.sort_by(|a, b| a.value.total_cmp(&b.value));
    ends.truncate(FINISHED);
    let mut ends: Vec<End> = ends.par_iter().map(|end| run(&end.at, LAST_STEPS)).collect();
    ends.sort_by(|a, b| a.value.total_cmp(&b.value));
    ends.swap_remove(0)
}

/// The mean of the best 128 of so many random mixtures, or the best of those given.
pub(super) fn sampled(
    objective: &Objective,
    given: Vec<Vec<f64>>,
    samples: u64,
    rng: CounterRng,
) -> Vec<f64> {
    let roots: Vec<f64> =
        objective.groups.collapse(&objective.prior).iter().map(|share| share.sqrt()).collect();
    let tempered = normalised(&roots).unwrap_or_else(|| uniform(roots.len()));
    let mixture = |i: u64| {
        let rng = rng.nested(i);
        let [weakest, strongest] = STRENGTHS.map(f64::ln);
        let strength = (weakest + (strongest - weakest) * rng.unit(0)).exp();
        let concentration: Vec<f64> = tempered.iter().map(|share| share * strength).collect();
        objective.bounds.project(&dirichlet(rng.nested(1), &concentration))
    };
    let mut values: Vec<(f64, u64)> =
        (0..samples).into_par_iter().map(|i| (objective.value(&mixture(i)), i)).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut mean = vec![0.0; tempered.len()];
    for (_, i) in values.iter().take(AVERAGED) {
        mean.iter_mut().zip(mixture(*i)).for_each(|(sum, r)| *sum += r / AVERAGED as f64);
    }
    let all = std::iter::once(mean).chain(given);
    let value = |shares: &Vec<f64>| objective.value(shares);
    all.min_by(|a, b| value(a).total_cmp(&value(b))).unwrap_or_default()
}
