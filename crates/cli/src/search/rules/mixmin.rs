//! MixMin: a model of each domain alone, and the mixture of these models that fits the held-out
//! text best, each domain's text in proportion to its importance.

use cuvee_data::Split;
use cuvee_report::read_windows;
use cuvee_search::proposal::mixmin::mixmin;

use super::super::declared::Search;
use super::super::design::refused;
use super::runs::{make, on_one_domain};
use crate::config::{Config, ConfigError};

/// Windows that the objective is a mean over, at most about so many.
const MOST_WINDOWS: f64 = 20_000.0;

/// A run on each domain alone.
pub(super) fn planned(search: &Search) -> Vec<(String, Config)> {
    let proxy = &search.design.proxy;
    let run = |place: usize| (format!("alone-{}", place + 1), on_one_domain(search, proxy, place));
    (0..search.declared.domains.len()).map(run).collect()
}

pub(super) fn mixture(search: &Search) -> anyhow::Result<Vec<f64>> {
    let domains = &search.declared.domains;
    let folders = make(search, planned(search))?;
    let step = search.declared.proxy.steps;
    let mut losses: Vec<Vec<Vec<f64>>> = Vec::new();
    for folder in &folders {
        let file = folder.join(format!("eval/step-{step:08}.json"));
        let windows = read_windows(&file)?;
        let tune = windows.splits.get(&Split::Tune.to_string());
        let of = |name: &str| tune.and_then(|tune| tune.get(name)).map(|d| d.losses.clone());
        let all: Option<Vec<Vec<f64>>> = domains.iter().map(|domain| of(&domain.name)).collect();
        let Some(all) = all else {
            return Err(ConfigError(format!(
                "{}: expected the windows of the tune split\nhint: remove the run's folder to make the run again",
                cuvee_words::printable_path(&file)
            ))
            .into());
        };
        losses.push(all);
    }
    let windows = |domain: usize| losses[0][domain].len();
    // A window's log-likelihood is the sum over its tokens.
    let tokens = search.design.proxy.train.context as f64;
    // So many rows that every window of a domain that counts is there, and each domain as often as
    // it counts.
    let counted = (0..domains.len()).filter(|i| domains[*i].weight > 0.0);
    let rows = counted.map(|i| windows(i) as f64 / domains[i].weight).fold(0.0, f64::max);
    let rows = rows.min(MOST_WINDOWS);
    let mut table = Vec::new();
    for (domain, declared) in domains.iter().enumerate() {
        let copies = (declared.weight * rows).round() as usize;
        let row = |n: usize| {
            let window = n % windows(domain).max(1);
            losses.iter().map(|model| -tokens * model[domain][window]).collect::<Vec<f64>>()
        };
        table.extend((0..copies).map(row));
    }
    Ok(mixmin(&table).map_err(refused)?.mixture)
}
