//! DoReMi: a reference on the prior, a proxy whose objective follows its excess loss over that, and
//! the mean of that objective as sampling weights.

use cuvee_mixer::strategy::ExcessDro;
use cuvee_mixer::{MixtureSpec, Objective, StrategySpec};
use cuvee_report::{Record, read_metrics};
use cuvee_search::proposal::doremi::doremi;
use cuvee_search::shares::uniform;

use super::super::declared::Search;
use super::super::design::refused;
use super::runs::{make, of_shares, on_prior, one};
use crate::config::Config;

/// Its runs.
const REFERENCE: &str = "reference";
const PROXY: &str = "proxy";

/// η and c of the proxy's objective, as published.
const STEP: f64 = 1.0;
const EPSILON: f64 = 1e-4;

/// The reference, and the proxy, which is taken to cost as much.
pub(super) fn planned(search: &Search) -> Vec<(String, Config)> {
    [REFERENCE, PROXY].map(|name| (name.to_owned(), on_prior(search))).into()
}

pub(super) fn mixture(search: &Search) -> anyhow::Result<Vec<f64>> {
    let (domains, proxy) = (&search.declared.domains, &search.design.proxy);
    let reference = one(make(search, vec![(REFERENCE.to_owned(), on_prior(search))])?)?;
    let learning = MixtureSpec {
        objective: Objective::Reweighted,
        loss: StrategySpec::ExcessDro(ExcessDro {
            reference: std::path::absolute(reference)?.display().to_string(),
            step: STEP,
            epsilon: EPSILON,
        }),
        ..of_shares(search, &uniform(domains.len()))
    };
    let learning = Config { mixture: learning, ..proxy.clone() };
    let learned = one(make(search, vec![(PROXY.to_owned(), learning)])?)?;
    let objective: Vec<Vec<f64>> = read_metrics(&learned.join("metrics.jsonl"))?
        .iter()
        .filter_map(|record| match record {
            // α is what is sampled times what it is multiplied by.
            Record::Step(step) => {
                Some(step.domains.0.iter().map(|(_, d)| d.multiplier * d.sampling_weight).collect())
            }
            Record::Eval(_) => None,
        })
        .collect();
    Ok(doremi(&objective).map_err(refused)?)
}
