//! DoReMi: the mean objective of a proxy trained against a reference is what the final run samples.

use super::interface::ProposalEntry;
use crate::error::{Result, SearchError};
use crate::shares::normalised;

pub(super) const ENTRY: ProposalEntry = ProposalEntry {
    name: "doremi",
    summary: "sampling weights are a proxy's mean objective under excess-dro",
    source: "arXiv:2305.10429",
    runs: "a reference on the prior, and a proxy whose loss weights are `excess-dro` against it",
};

/// The mean of `objective` over the proxy's steps. `[steps][K]` to `[K]`
///
/// # Errors
/// No step, steps of different lengths, or what is no share.
pub fn doremi(objective: &[Vec<f64>]) -> Result<Vec<f64>> {
    let domains = objective.first().map_or(0, Vec::len);
    let mut sum = vec![0.0; domains];
    for (step, alpha) in objective.iter().enumerate() {
        let shares = normalised(alpha).filter(|shares| shares.len() == domains);
        let shares = shares.ok_or_else(|| bad(format!("{alpha:?}"), format!("step {step}")))?;
        sum.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
    }
    normalised(&sum).ok_or_else(|| bad("no step".to_owned(), "the proxy's record".to_owned()))
}

fn bad(found: String, place: String) -> SearchError {
    SearchError::BadValue {
        expected: "one share of the objective a domain".to_owned(),
        found,
        place: format!("doremi, {place}"),
        hint: "take `objective` of every step of the proxy",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_mean_over_steps_counts_each_step_once() {
        let shares = doremi(&[vec![1.0, 0.0], vec![2.0, 6.0], vec![0.5, 0.5]]).unwrap();
        assert!((shares[0] - 1.75 / 3.0).abs() < 1e-12, "{shares:?}");
        for bad in [vec![], vec![vec![0.5, 0.5], vec![1.0]], vec![vec![f64::NAN, 1.0]]] {
            assert!(doremi(&bad).is_err());
        }
    }
}
