//! Which mixtures are run cheaply, what each is called, and the arms that run them.

use std::collections::BTreeMap;

use cuvee_search::SearchError;
use cuvee_search::design::{Asked, DesignInput, pilot, swarm};
use cuvee_search::document::{DeclaredDomain, DeclaredRun};
use cuvee_search::shares::total_variation;

use super::design::mixture_spec;
use crate::config::Config;
use crate::sweep::{Arm, Run};

/// Mixtures nearer than this are one.
const SAME: f64 = 1e-9;

/// The runs of pilot and swarm; what both ask for is the pilot's.
///
/// # Errors
/// Domains that nothing can be designed for.
pub fn designed(input: &DesignInput) -> Result<[Vec<DeclaredRun>; 2], SearchError> {
    let pilot = named(&pilot(input)?, input.seed);
    let mut swarm = named(&swarm(input)?, input.seed);
    swarm.retain(|run| !pilot.iter().any(|other| other.seed == run.seed && same(other, run)));
    Ok([pilot, swarm])
}

fn same(a: &DeclaredRun, b: &DeclaredRun) -> bool {
    total_variation(&a.sampling, &b.sampling) < SAME
        && total_variation(&a.objective, &b.objective) < SAME
}

/// Gives each mixture a name, by what it is there for, and a number where there are several.
fn named(asked: &[Asked], seed: u64) -> Vec<DeclaredRun> {
    let mut runs: Vec<DeclaredRun> = Vec::with_capacity(asked.len());
    let mut mixtures: BTreeMap<&str, usize> = BTreeMap::new();
    for asked in asked {
        let mut run = DeclaredRun {
            mixture: String::new(),
            kind: asked.kind.to_owned(),
            block: asked.block,
            seed: seed.wrapping_add(asked.block as u64),
            sampling: asked.sampling.clone(),
            objective: asked.objective.clone(),
        };
        run.mixture = match runs.iter().find(|other| same(other, &run)) {
            Some(other) => other.mixture.clone(),
            None => {
                let number = mixtures.entry(asked.kind).or_default();
                *number += 1;
                format!("{}-{number}", asked.kind)
            }
        };
        runs.push(run);
    }
    for run in runs.iter_mut().filter(|run| mixtures.get(run.kind.as_str()) == Some(&1)) {
        run.mixture = run.kind.clone();
    }
    runs
}

/// The arms of `runs`, one a mixture, and the runs by their arms' places.
pub fn arms(
    proxy: &Config,
    domains: &[DeclaredDomain],
    runs: &[DeclaredRun],
) -> (Vec<Arm>, Vec<Run>) {
    let mut arms: Vec<Arm> = Vec::new();
    let mut list = Vec::with_capacity(runs.len());
    for run in runs {
        let known = arms.iter().position(|arm| arm.name == run.mixture);
        let arm = known.unwrap_or_else(|| {
            let mixture = mixture_spec(&proxy.mixture, domains, &run.sampling, &run.objective);
            let config = Config { mixture, ..proxy.clone() };
            arms.push(Arm {
                name: run.mixture.clone(),
                set: Vec::new(),
                config,
                order_offset: None,
            });
            arms.len() - 1
        });
        list.push(Run { arm, seed: run.seed, sampled: false });
    }
    (arms, list)
}
