//! Which mixtures are run cheaply, what each is called, and the arms that run them.

use std::collections::{BTreeMap, HashMap};

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

/// Gives each mixture a name, by what it is first there for, and a number where there are several.
/// What is asked for twice, as where a cap makes two mixtures one, is run once.
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
        if !runs.iter().any(|other| other.mixture == run.mixture && other.seed == run.seed) {
            runs.push(run);
        }
    }
    // The kind that a mixture is named by is not the kind of all of its runs.
    let alone: HashMap<String, &str> = mixtures
        .iter()
        .filter(|(_, count)| **count == 1)
        .map(|(kind, _)| (format!("{kind}-1"), *kind))
        .collect();
    for run in &mut runs {
        if let Some(kind) = alone.get(&run.mixture) {
            run.mixture = (*kind).to_owned();
        }
    }
    debug_assert!(one_mixture_a_name(&runs), "{runs:?}");
    runs
}

/// Whether runs of one name are of one mixture: they share a folder.
fn one_mixture_a_name(runs: &[DeclaredRun]) -> bool {
    let mut first: HashMap<&str, &DeclaredRun> = HashMap::new();
    runs.iter().all(|run| same(first.entry(run.mixture.as_str()).or_insert(run), run))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_name_is_one_mixture_and_a_mixture_one_name_whatever_the_caps_make_equal() {
        for domains in 2..=4 {
            for cap in [0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0] {
                for capped in 1..=domains {
                    for seed in 0..6 {
                        let even = 1.0 / domains as f64;
                        let caps: Vec<f64> =
                            (0..domains).map(|i| if i < capped { cap } else { 1.0 }).collect();
                        if caps.iter().sum::<f64>() < 1.0 {
                            continue;
                        }
                        let prior = match seed % 2 {
                            0 => vec![even; domains],
                            _ => (1..=domains).map(|i| i as f64).collect(),
                        };
                        let [pilot, swarm] = designed(&DesignInput {
                            prior,
                            caps: caps.clone(),
                            runs: 12,
                            two_knob: 4,
                            frozen: Vec::new(),
                            seed,
                        })
                        .unwrap();
                        for runs in [&pilot, &swarm] {
                            let said = format!("{caps:?} {seed}: {runs:?}");
                            for (i, run) in runs.iter().enumerate() {
                                for other in &runs[..i] {
                                    assert_eq!(
                                        run.mixture == other.mixture,
                                        same(run, other),
                                        "{said}"
                                    );
                                }
                            }
                            let made: HashSet<(&str, u64)> =
                                runs.iter().map(|run| (run.mixture.as_str(), run.seed)).collect();
                            assert_eq!(made.len(), runs.len(), "{said}");
                        }
                        assert!(pilot.iter().filter(|run| run.mixture == "uniform").count() >= 4);
                    }
                }
            }
        }
    }

    #[test]
    fn a_skewed_mixture_that_a_cap_makes_uniform_does_not_name_the_other_one() {
        let [pilot, _] = designed(&DesignInput {
            prior: vec![0.5, 0.5],
            caps: vec![0.5, 1.0],
            runs: 12,
            two_knob: 0,
            frozen: Vec::new(),
            seed: 1,
        })
        .unwrap();
        let names: Vec<&str> = pilot.iter().map(|run| run.mixture.as_str()).collect();
        assert_eq!(names, ["uniform", "uniform", "uniform", "uniform", "skewed"]);
    }
}
