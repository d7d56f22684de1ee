//! Runs held out: folds that keep the runs of one mixture together. For laws that look at more of a
//! run than the shares it drew.

use cuvee_mixer::seed::CounterRng;
use rayon::prelude::*;

use super::{Fitted, Observations};
use crate::error::{Result, SearchError};

/// Refuses runs that a law cannot be fitted to.
///
/// # Errors
/// Fewer than `least` different mixtures, a loss or share that is no number.
pub(super) fn check(law: &'static str, least: usize, observed: &Observations) -> Result<()> {
    let found = observed.mixtures().len();
    if found < least {
        return Err(SearchError::TooFewRuns { law, least, found });
    }
    let bad = |expected: &str, found: String, run: usize| SearchError::BadValue {
        expected: expected.to_owned(),
        found,
        place: format!("run {}", run + 1),
        hint: "leave out the run",
    };
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    for (run, (point, loss)) in observed.points.iter().zip(&observed.losses).enumerate() {
        if !loss.is_finite() {
            return Err(bad("a loss", loss.to_string(), run));
        }
        let usable = |share: &f64| share.is_finite() && *share >= 0.0;
        let whole = |shares: &Vec<f64>| shares.len() == domains && shares.iter().all(usable);
        let epochs = point.epochs.iter().all(usable);
        if !whole(&point.sampling) || !whole(&point.objective) || !epochs {
            let expected = format!("{domains} shares, and epochs, of at least 0");
            return Err(bad(&expected, format!("{point:?}"), run));
        }
    }
    Ok(())
}

/// A fold of 0 to `folds` − 1 for each run, even in the number of mixtures, drawn by the seed.
pub(super) fn folds(observed: &Observations, folds: usize, seed: u64) -> Vec<usize> {
    let rng = CounterRng::new(seed);
    let mixtures = observed.mixtures();
    let mut order: Vec<usize> = (0..mixtures.len()).collect();
    order.sort_by_key(|mixture| rng.bits(*mixture as u64));
    let mut fold = vec![0; observed.points.len()];
    for (place, mixture) in order.iter().enumerate() {
        mixtures[*mixture].iter().for_each(|run| fold[*run] = place % folds);
    }
    fold
}

/// Up to as many mixtures, each is left out alone; beyond, several at once in [`AT_ONCE`] parts. A
/// fit then has fewer runs than it could have, and errs on the careful side.
pub(super) const ALONE: usize = 64;
pub(super) const AT_ONCE: usize = 16;

/// The prediction of each run by `fit` to all runs but those of its mixture. `[n]`
pub(super) fn leave_one_out(
    observed: &Observations,
    fit: impl Fn(&Observations) -> Box<dyn Fitted> + Sync,
) -> Vec<f64> {
    let mixtures = observed.mixtures();
    let all = 0..observed.points.len();
    let parts = if mixtures.len() <= ALONE { mixtures.len() } else { AT_ONCE };
    let held_out = (0..parts).into_par_iter().map(|part| {
        let out: Vec<usize> =
            mixtures.iter().skip(part).step_by(parts).flatten().copied().collect();
        let kept: Vec<usize> = all.clone().filter(|run| !out.contains(run)).collect();
        let fitted = fit(&observed.select(&kept));
        out.iter().map(|run| (*run, fitted.predict(&observed.points[*run]))).collect()
    });
    let held_out: Vec<Vec<(usize, f64)>> = held_out.collect();
    let mut predicted = vec![0.0; observed.points.len()];
    held_out.into_iter().flatten().for_each(|(run, loss)| predicted[run] = loss);
    predicted
}
