//! The rules that need no law: the runs that each makes, and its mixture. A rule is its file and a
//! line here.

mod demix;
mod doremi;
mod mixmin;

use std::path::PathBuf;

use cuvee_mixer::MixtureSpec;
use cuvee_search::shares::{Bounds, uniform};

use super::design::{Rule, mixture_spec, refused};
use super::search::Search;
use crate::config::{Config, ConfigError};
use crate::sweep::{self, Arm, Run, Status, Unwatched};

/// The folder of a rule's runs, in that of the search.
const RUNS: &str = "rule";

/// The mixture that `rule` proposes; makes its runs first.
///
/// # Errors
/// A run that fails or ends without a result.
pub fn mixture(search: &Search, rule: Rule) -> anyhow::Result<Vec<f64>> {
    let caps: Vec<f64> = search.declared.domains.iter().map(|domain| domain.cap).collect();
    let bounds = Bounds::new(0.0, &caps).map_err(refused)?;
    Ok(bounds.project(&match rule {
        Rule::Doremi => doremi::mixture(search)?,
        Rule::Mixmin => mixmin::mixture(search)?,
        Rule::Demix => demix::mixture(search)?,
        // As uniform as the caps let it be.
        Rule::Unimax => uniform(caps.len()),
    }))
}

/// The mixture of one knob as a config names it.
fn of_shares(search: &Search, shares: &[f64]) -> MixtureSpec {
    mixture_spec(&search.design.proxy.mixture, &search.declared.domains, shares, shares)
}

/// The domain at `place` alone.
fn alone(search: &Search, place: usize) -> Vec<f64> {
    let domains = search.declared.domains.len();
    (0..domains).map(|domain| if domain == place { 1.0 } else { 0.0 }).collect()
}

/// A cheap run on one domain, which it may go through more often than the target run would: nothing
/// of that domain alone is proposed.
fn on_one_domain(search: &Search, config: &Config, place: usize) -> Config {
    let mut config =
        Config { mixture: of_shares(search, &alone(search, place)), ..config.clone() };
    config.domains.iter_mut().for_each(|domain| domain.max_epochs = None);
    config
}

/// Makes the runs `named`, and gives their folders.
fn make(search: &Search, named: Vec<(String, Config)>) -> anyhow::Result<Vec<PathBuf>> {
    let arm = |(name, config)| Arm { name, set: Vec::new(), config, order_offset: None };
    let mut arms: Vec<Arm> = named.into_iter().map(arm).collect();
    let arithmetic = search.arithmetic();
    let plans = sweep::resolve(&mut arms, 0, &search.corpus, search.device, arithmetic)?;
    sweep::pin_threads(&mut arms, search.declared.threads);
    let folder = search.folder.join(RUNS);
    let seed = search.declared.seed;
    let runs: Vec<Run> =
        (0..arms.len()).map(|arm| Run { arm, seed, sampled: false }).collect();
    let sweep = search.sweep(&folder, &arms, &plans);
    sweep.run(std::slice::from_ref(&runs), search.jobs, &Unwatched, search.session)?;
    let mut folders = Vec::with_capacity(runs.len());
    for run in runs {
        let folder = sweep.run_folder(run);
        match sweep::status(&folder, plans[run.arm].steps)? {
            Status::Finished => folders.push(folder),
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
fn one(folders: Vec<PathBuf>) -> anyhow::Result<PathBuf> {
    folders.into_iter().next().ok_or_else(|| anyhow::anyhow!("a sweep of one run made none"))
}
