//! Steps that an arm takes to uniform's final error, with bootstrap intervals over seeds.
//!
//! Both are read off isotonic curves: mean errors scatter from step to step, and the first of many
//! to fall below a level is early by luck. Cost: some thousand times seeds × arms × measured steps.

use cuvee_compare::{falling, first_at_most};
use rayon::prelude::*;

use crate::linalg::dot;
use crate::random::stream;
use crate::schedule::Path;

/// Resamples of the bootstrap: the 2.5 % quantile is then the 51st smallest value, and drawing anew
/// moves it by about a twentieth of σ.
const RESAMPLES: u64 = 2_000;

/// When an arm's mean error, on its isotonic curve, first is at most the first arm's last one.
pub(crate) struct Reached {
    /// Over all seeds; `None` is never.
    pub(crate) steps: Option<u64>,
    /// 95 % interval of `steps`; none from a single seed, of which every resample is the same.
    pub(crate) interval: Option<[Option<u64>; 2]>,
    /// 95 % interval of `steps` less the last arm's, on the same resamples.
    pub(crate) less_last: Option<[Option<i64>; 2]>,
}

/// For each arm its [`Reached`], with bootstrap intervals over seeds in which uniform's final error
/// is drawn anew each time.
pub(crate) fn steps_to_uniform(seed: u64, steps: &[u64], paths: &[&Vec<Path>]) -> Vec<Reached> {
    let seeds = paths.first().map_or(0, |paths| paths.len());
    // `[arm][step][seed]`: a resample is then one dot product a step, with how often it has each
    // seed.
    let by_step = |arm: &&Vec<Path>| -> Vec<Vec<f64>> {
        (0..steps.len()).map(|at| arm.iter().map(|path| path.error[at]).collect()).collect()
    };
    let errors: Vec<Vec<Vec<f64>>> = paths.iter().map(by_step).collect();
    let reach = |times: &[f64]| -> Vec<Option<u64>> {
        let curve = |arm: &Vec<Vec<f64>>| -> Vec<f64> {
            falling(&arm.iter().map(|error| dot(error, times)).collect::<Vec<f64>>())
        };
        let curves: Vec<Vec<f64>> = errors.iter().map(curve).collect();
        // No level that is not finite is ever reached.
        let target = curves.first().and_then(|uniform| uniform.last()).copied();
        let target = target.filter(|target| target.is_finite());
        let first = |curve: &Vec<f64>| first_at_most(curve, target?);
        curves.iter().map(|curve| first(curve).map(|at| steps[at])).collect()
    };
    let found = reach(&vec![1.0; seeds]);
    let rng = stream(seed, 0, "bootstrap");
    let resamples: Vec<Vec<Option<u64>>> = (0..if seeds < 2 { 0 } else { RESAMPLES })
        .into_par_iter()
        .map(|r| {
            let draw = rng.nested(r);
            let mut times = vec![0.0; seeds];
            (0..seeds as u64).for_each(|i| times[draw.below(i, seeds as u64) as usize] += 1.0);
            reach(&times)
        })
        .collect();
    let of_arm = |(arm, steps): (usize, Option<u64>)| {
        let less_last =
            |r: &Vec<Option<u64>>| Some(r[arm]? as i64 - r.last().copied().flatten()? as i64);
        Reached {
            steps,
            interval: quantiles(resamples.iter().map(|r| r[arm]).collect()),
            less_last: quantiles(resamples.iter().map(less_last).collect()),
        }
    };
    found.into_iter().enumerate().map(of_arm).collect()
}

/// The 2.5 % and 97.5 % quantiles, where `None` (never) comes after every number; of no values
/// there are none.
fn quantiles<T: Ord + Copy>(mut values: Vec<Option<T>>) -> Option<[Option<T>; 2]> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable_by_key(|value| (value.is_none(), *value));
    let last = values.len().saturating_sub(1) as f64;
    let at = |quantile: f64| values.get((quantile * last).round() as usize).copied().flatten();
    Some([0.025, 0.975].map(at))
}
