//! The rules that need no law: the runs that each makes, and its mixture. A rule is its file and a
//! line here.

mod demix;
mod doremi;
mod mixmin;
mod runs;

pub use runs::{RUNS, arms_of};

use cuvee_search::shares::{Bounds, uniform};

use super::declared::Search;
use super::design::{Rule, refused};
use crate::config::Config;

/// The runs that `rule` makes, by their names, for what they cost: in parts of runs of one length,
/// each with the tokens that are evaluated after it.
pub fn planned(search: &Search, rule: Rule) -> Vec<(Vec<(String, Config)>, u64)> {
    match rule {
        Rule::Doremi => vec![(doremi::planned(search), 0)],
        Rule::Mixmin => vec![(mixmin::planned(search), 0)],
        Rule::Demix => {
            let [base, branches] = demix::planned(search);
            vec![(base, 0), (branches, demix::evaluated(search))]
        }
        Rule::Unimax => Vec::new(),
    }
}

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
