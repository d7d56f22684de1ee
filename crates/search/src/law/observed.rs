//! A swarm as what laws are fitted to.

use super::Observations;
use crate::error::{Result, SearchError};
use crate::swarm::{Swarm, SwarmRun};

/// How far shares may be from a sum of 1: what a table rounds them to.
const ROUNDED: f64 = 1e-3;

/// The runs of `swarm` and their losses of target number `target` on the split that steers,
/// checked.
///
/// Epochs are tokens drawn over tokens available, where the swarm knows what is available; a run
/// that does not say what it drew drew what was asked for.
///
/// # Errors
/// A target that is not there, a run without it, or a loss or share that is no number.
pub fn observations(swarm: &Swarm, target: usize) -> Result<Observations> {
    for run in &swarm.runs {
        check_loss(swarm, run, target)?;
        check_shares(swarm, run, "sampling weights", &run.sampling)?;
        check_shares(swarm, run, "objective weights", &run.objective)?;
    }
    let mut observed = Observations::of(swarm, target);
    for (point, run) in observed.points.iter_mut().zip(&swarm.runs) {
        point.epochs = epochs(swarm, run);
    }
    Ok(observed)
}

fn check_loss(swarm: &Swarm, run: &SwarmRun, target: usize) -> Result<()> {
    let found = run.tune.get(target);
    if found.is_some_and(|loss| loss.is_finite()) {
        return Ok(());
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
        let observed = observations(&swarm(runs), 0).unwrap();
        assert_eq!(observed.groups, [0, 1, 0, 2]);
        assert_eq!(observed.points[0].epochs, [1.0, 0.25]);
        assert_eq!(observed.losses, [2.0, 2.1, 2.2, 1.9]);
    }

    #[test]
    fn a_loss_that_is_no_number_and_shares_that_do_not_sum_name_the_run() {
        let error = observations(&swarm(vec![run("bad", [0.5, 0.5], f64::NAN)]), 0).unwrap_err();
        assert!(error.to_string().contains("run `bad`, target `a`"), "{error}");
        let error = observations(&swarm(vec![run("odd", [0.5, 0.2], 1.0)]), 0).unwrap_err();
        assert!(error.to_string().contains("run `odd`"), "{error}");
        assert!(observations(&swarm(vec![run("few", [0.5, 0.5], 1.0)]), 3).is_err());
    }
}
