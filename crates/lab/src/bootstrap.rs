//! Steps that an arm takes to uniform's final error, with bootstrap intervals over seeds.
//!
//! Both are read off isotonic curves: mean errors scatter from step to step, and the first of many
//! to fall below a level is early by luck. Cost: some thousand times seeds × arms × measured steps.

use cuvee_compare::{falling, first_at_most};
use rayon::prelude::*;

use crate::linalg::dot;
use crate::random::stream;
use crate::schedule::Path;
use crate::study::Lag;

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
    pub(crate) less_last: Option<[Lag; 2]>,
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
            falling(&arm.iter().map(|error| sum(error, times)).collect::<Vec<f64>>())
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
        // Never comes after every number.
        let interval = quantiles(resamples.iter().map(|r| (r[arm].is_none(), r[arm])).collect());
        // A resample in which neither arm gets there tells nothing of which is ahead: it counts
        // against either end.
        let lags = |neither: Lag| {
            let lag = |r: &Vec<Option<u64>>| lag(r[arm], r.last().copied().flatten(), neither);
            quantiles(resamples.iter().map(lag).collect())
        };
        Reached {
            steps,
            interval: interval.map(|ends| ends.map(|(_, steps)| steps)),
            less_last: lags(Lag::LastNever)
                .zip(lags(Lag::Never))
                .map(|([low, _], [_, high])| [low, high]),
        }
    };
    found.into_iter().enumerate().map(of_arm).collect()
}

/// Σ of `times` as often each error. A seed that was not drawn adds nothing, also where its error
/// is not finite.
fn sum(errors: &[f64], times: &[f64]) -> f64 {
    let sum = dot(errors, times);
    if sum.is_finite() {
        return sum;
    }
    let drawn = errors.iter().zip(times).filter(|(_, times)| **times > 0.0);
    drawn.map(|(error, times)| error * times).sum()
}

/// An arm's steps less the last arm's; `neither` where both are never.
fn lag(arm: Option<u64>, last: Option<u64>, neither: Lag) -> Lag {
    match (arm, last) {
        (Some(arm), Some(last)) => Lag::Steps(arm as i64 - last as i64),
        (Some(_), None) => Lag::LastNever,
        (None, Some(_)) => Lag::Never,
        (None, None) => neither,
    }
}

/// The 2.5 % and 97.5 % quantiles; of no values there are none.
fn quantiles<T: Ord + Copy>(mut values: Vec<T>) -> Option<[T; 2]> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)? as f64;
    let at = |quantile: f64| values.get((quantile * last).round() as usize).copied();
    Some([at(0.025)?, at(0.975)?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn path(error: [f64; 3]) -> Path {
        Path {
            error: error.to_vec(),
            loss_weight: Vec::new(),
            sampling_weight: Vec::new(),
            variance_measured: Vec::new(),
            variance_formula: Vec::new(),
        }
    }

    fn reached(arms: &[&Vec<Path>]) -> Vec<Reached> {
        steps_to_uniform(0, &[0, 1, 2], arms)
    }

    #[test]
    fn a_seed_that_diverges_counts_in_the_resamples_that_draw_it_alone() {
        // Of 40 seeds one diverges: (39/40)^40, 36 % of the resamples, are without it.
        for bad in [f64::NAN, f64::INFINITY] {
            let uniform = vec![path([9.0, 5.0, 3.0]); 40];
            let mut arm = vec![path([9.0, 2.0, 1.0]); 40];
            arm[7] = path([9.0, bad, bad]);
            let [_, reached, _] = &reached(&[&uniform, &arm, &uniform])[..] else { panic!() };
            assert_eq!(reached.steps, None);
            assert_eq!(reached.interval, Some([Some(1), None]));
            assert_eq!(reached.less_last, Some([Lag::Steps(-1), Lag::Never]));
        }
    }

    #[test]
    fn never_is_late_for_the_arm_and_early_for_what_it_is_compared_with() {
        let good = vec![path([9.0, 5.0, 3.0]); 5];
        let late = vec![path([9.0, 8.0, 7.0]); 5];
        // The last arm is never there, and neither is the third.
        let all = reached(&[&good, &good, &late, &late]);
        let lags: Vec<_> = all.iter().map(|reached| reached.less_last).collect();
        assert_eq!(lags[..2], [Some([Lag::LastNever; 2]); 2]);
        assert_eq!(lags[2], Some([Lag::LastNever, Lag::Never]), "nothing is known of their order");
        let all = reached(&[&good, &late, &good]);
        assert_eq!(all[1].less_last, Some([Lag::Never; 2]));
        assert_eq!(all[1].interval, Some([None, None]));
    }
}
