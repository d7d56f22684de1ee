//! Runs held out: folds that keep the runs of one mixture together.

use cuvee_mixer::seed::CounterRng;
use rayon::prelude::*;

use super::{Fitted, Observations};
use crate::error::{Result, SearchError};

/// Number of different mixtures.
pub(super) fn mixtures(observed: &Observations) -> usize {
    let mut groups = observed.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    groups.len()
}

/// Refuses runs that a law cannot be fitted to.
///
/// # Errors
/// Fewer than `least` different mixtures, lists of different lengths, a loss that is no number.
pub(super) fn check(law: &'static str, least: usize, observed: &Observations) -> Result<()> {
    let found = mixtures(observed);
    if found < least {
        return Err(SearchError::TooFewRuns { law, least, found });
    }
    let bad = |expected: &str, found: String, place: String| SearchError::BadValue {
        expected: expected.to_owned(),
        found,
        place,
        hint: "leave out the run",
    };
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    for (run, (point, loss)) in observed.points.iter().zip(&observed.losses).enumerate() {
        if !loss.is_finite() {
            return Err(bad("a loss", loss.to_string(), format!("run number {run}")));
        }
        let shares = [&point.sampling, &point.objective];
        let usable = |share: &f64| share.is_finite() && *share >= 0.0;
        if shares.iter().any(|list| list.len() != domains || !list.iter().all(usable)) {
            let expected = format!("{domains} shares of at least 0");
            return Err(bad(&expected, format!("{shares:?}"), format!("run number {run}")));
        }
    }
    Ok(())
}

/// The runs whose group `keep` says.
pub(super) fn only(observed: &Observations, keep: impl Fn(usize) -> bool) -> Observations {
    let runs: Vec<usize> =
        (0..observed.points.len()).filter(|run| keep(observed.groups[*run])).collect();
    Observations {
        points: runs.iter().map(|run| observed.points[*run].clone()).collect(),
        losses: runs.iter().map(|run| observed.losses[*run]).collect(),
        groups: runs.iter().map(|run| observed.groups[*run]).collect(),
    }
}

/// A fold of 0 to `folds` − 1 for each run, even in the number of mixtures, drawn by the seed.
pub(super) fn folds(observed: &Observations, folds: usize, seed: u64) -> Vec<usize> {
    let rng = CounterRng::new(seed);
    let mut groups = observed.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    groups.sort_by_key(|group| rng.bits(*group as u64));
    let place = |group: &usize| groups.iter().position(|other| other == group).unwrap_or(0);
    observed.groups.iter().map(|group| place(group) % folds).collect()
}

/// The prediction of each run by `fit` to all runs but its group's. `[n]`
///
/// # Errors
/// What `fit` fails with.
pub(super) fn leave_one_out(
    observed: &Observations,
    fit: impl Fn(&Observations) -> Result<Box<dyn Fitted>> + Sync,
) -> Result<Vec<f64>> {
    let mut groups = observed.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    let fits: Vec<(usize, Box<dyn Fitted>)> = groups
        .par_iter()
        .map(|group| Ok((*group, fit(&only(observed, |other| other != *group))?)))
        .collect::<Result<_>>()?;
    let predict = |(point, group): (_, &usize)| {
        let place = fits.partition_point(|(other, _)| other < group);
        fits.get(place).map_or(f64::NAN, |(_, fitted)| fitted.predict(point))
    };
    Ok(observed.points.iter().zip(&observed.groups).map(predict).collect())
}
