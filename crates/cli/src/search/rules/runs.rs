//! The runs of a rule: cheap runs of its own mixtures.

use std::path::PathBuf;

use cuvee_mixer::MixtureSpec;

use super::super::cheap::Planned;
use super::super::declared::{Search, not_yet};
use super::super::design::mixture_spec;
use crate::config::{Config, ConfigError};
use crate::sweep::{self, Arm, Run, Status, Unwatched};

/// The folder of a rule's runs, in that of the search.
pub const RUNS: &str = "rule";

/// A cheap run on the prior.
pub(super) fn on_prior(search: &Search) -> Config {
    let prior: Vec<f64> = search.declared.domains.iter().map(|domain| domain.prior).collect();
    Config { mixture: of_shares(search, &prior), ..search.design.proxy.clone() }
}

/// The mixture of one knob as a config names it.
pub(super) fn of_shares(search: &Search, shares: &[f64]) -> MixtureSpec {
    mixture_spec(&search.design.proxy.mixture, &search.declared.domains, shares, shares)
}

/// The domain at `place` alone.
fn alone(search: &Search, place: usize) -> Vec<f64> {
    let domains = search.declared.domains.len();
    (0..domains).map(|domain| if domain == place { 1.0 } else { 0.0 }).collect()
}

/// A cheap run on one domain, which it may go through more often than the target run would, as any
/// cheap run may: nothing of that domain alone is proposed.
pub(super) fn on_one_domain(search: &Search, config: &Config, place: usize) -> Config {
    Config { mixture: of_shares(search, &alone(search, place)), ..config.clone() }
}

/// The runs `named`, one an arm.
///
/// # Errors
/// An arm that cannot be trained.
pub fn arms_of(search: &Search, named: Vec<(String, Config)>) -> anyhow::Result<Planned> {
    let arm = |(name, config)| Arm { name, set: Vec::new(), config, order_offset: None };
    let arms: Vec<Arm> = named.into_iter().map(arm).collect();
    let seed = search.declared.seed;
    let runs = (0..arms.len()).map(|arm| Run { arm, seed, sampled: false }).collect();
    search.planned(arms, runs, search.folder.join(RUNS))
}

/// Makes the runs `named`, and gives their folders.
pub(super) fn make(search: &Search, named: Vec<(String, Config)>) -> anyhow::Result<Vec<PathBuf>> {
    let planned = arms_of(search, named)?;
    let Planned { plans, runs, .. } = &planned;
    let sweep = planned.sweep(search);
    if !search.collect {
        sweep.run(std::slice::from_ref(runs), search.jobs, &Unwatched, search.session)?;
    }
    let mut folders = Vec::with_capacity(runs.len());
    for &run in runs {
        let folder = sweep.run_folder(run);
        match sweep::status(&folder, plans[run.arm].steps)? {
            Status::Finished => folders.push(folder),
            Status::Unfinished(_) if search.collect => {
                let what = format!("the finished run {} of the rule", sweep.run_name(run));
                return not_yet(search, &what, "propose");
            }
            Status::Stopped(_) | Status::Unfinished(_) => {
                return Err(ConfigError(format!(
                    "the run {} ended without a result, and the rule needs it\nhint: a lower learning rate (search.proxy.train.lr)",
                    sweep.run_name(run)
                ))
                .into());
            }
        }
    }
    Ok(folders)
}

/// The only one of `folders`.
pub(super) fn one(folders: Vec<PathBuf>) -> anyhow::Result<PathBuf> {
    folders.into_iter().next().ok_or_else(|| anyhow::anyhow!("a sweep of one run made none"))
}
