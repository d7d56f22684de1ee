//! Runs held out: parts and folds that keep the runs of one mixture together, and predictions of
//! what was left out.

use cuvee_mixer::seed::CounterRng;
use rayon::prelude::*;

use super::{Fitted, Observations};
use crate::error::Result;

/// A part of 0 to `parts` − 1 for each of `items`, drawn by the seed; parts are even in size.
pub(super) fn parts_of(items: usize, parts: usize, seed: u64) -> Vec<usize> {
    let rng = CounterRng::new(seed);
    let mut order: Vec<usize> = (0..items).collect();
    order.sort_by_key(|item| rng.bits(*item as u64));
    let mut part_of = vec![0; items];
    order.into_iter().enumerate().for_each(|(place, item)| part_of[item] = place % parts);
    part_of
}

/// A fold of 0 to `folds` − 1 for each run, even in the number of mixtures, drawn by the seed.
pub(crate) fn folds(observed: &Observations, folds: usize, seed: u64) -> Vec<usize> {
    let mixtures = observed.mixtures();
    let mut fold = vec![0; observed.points.len()];
    for (runs, part) in mixtures.iter().zip(parts_of(mixtures.len(), folds, seed)) {
        runs.iter().for_each(|run| fold[*run] = part);
    }
    fold
}

/// Up to as many mixtures, each is left out alone; beyond, several at once in [`AT_ONCE`] parts. A
/// fit then has fewer runs than it could have, and errs on the careful side.
const ALONE: usize = 64;
const AT_ONCE: usize = 16;

/// The prediction of each run by `fit` to all runs but those of its mixture. `[n]`
///
/// # Errors
/// What `fit` refuses.
pub(super) fn leave_one_out(
    observed: &Observations,
    fit: impl Fn(&Observations) -> Result<Box<dyn Fitted>> + Sync,
) -> Result<Vec<f64>> {
    let mixtures = observed.mixtures();
    let parts = if mixtures.len() <= ALONE { mixtures.len() } else { AT_ONCE };
    let held_out = (0..parts).into_par_iter().map(|part| {
        let out: Vec<usize> =
            mixtures.iter().skip(part).step_by(parts).flatten().copied().collect();
        let mut kept = vec![true; observed.points.len()];
        out.iter().for_each(|run| kept[*run] = false);
        let kept: Vec<usize> = (0..kept.len()).filter(|run| kept[*run]).collect();
        let fitted = fit(&observed.select(&kept))?;
        Ok(out.into_iter().map(|run| (run, fitted.predict(&observed.points[run]))).collect())
    });
    let held_out: Vec<Vec<(usize, f64)>> = held_out.collect::<Result<_>>()?;
    let mut predicted = vec![0.0; observed.points.len()];
    held_out.into_iter().flatten().for_each(|(run, loss)| predicted[run] = loss);
    Ok(predicted)
}
