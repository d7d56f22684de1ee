//! The rules that need no law: the runs that each makes, and its mixture. A rule is its file and a
//! line here.

mod demix;
mod doremi;
mod mixmin;
mod runs;

use cuvee_search::shares::{Bounds, uniform};

use super::declared::Search;
use super::design::{Rule, refused};

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
