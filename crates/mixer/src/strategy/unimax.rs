//! UniMax: as uniform as possible, with no domain read more than `max_epochs` times.

use super::interface::{Objectives, Setup, Strategy, StrategyEntry};
use super::planned::Planned;
use crate::error::{MixerError, Result};
use crate::share_schedule::ShareSchedule;
use crate::simplex::Simplex;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "unimax",
    slots: Slots::Sampling,
    summary: "as uniform as possible with no domain read more than max_epochs times",
    source: "arXiv:2304.09151",
    example: r#"{ strategy = "unimax", max_epochs = 4 }"#,
    objectives: Objectives::Any,
};

/// Domains by ascending size c_i: U_i = min(budget left / domains left, max_epochs · c_i); p = U /
/// ΣU.
///
/// c_i is what one epoch serves, ⌊tokens/context⌋ · context, and the budget is steps · batch_size ·
/// context, so that `max_epochs` is exactly the limit on the epochs that the plan reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unimax {
    /// N > 0: most passes over any domain.
    pub max_epochs: f64,
}

impl Unimax {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if !(self.max_epochs.is_finite() && self.max_epochs > 0.0) {
            return Err(setup.bad_parameter(
                "max_epochs",
                self.max_epochs,
                "a finite number above 0",
            ));
        }
        let run = setup.run;
        let context = run.context as f64;
        let sizes: Vec<f64> = setup
            .domains
            .iter()
            .map(|domain| run.windows(domain.tokens) as f64 * context)
            .collect();
        let step_tokens = run.batch_size as f64 * context;
        let budget = run.steps as f64 * step_tokens;
        let available = self.max_epochs * sizes.iter().sum::<f64>();
        // A whole number of steps either fits or misses by a step; rounding is a 10⁻⁹ part of one
        // at most.
        let fitting_steps = (available / step_tokens + 1e-9) as u64;
        if fitting_steps < run.steps {
            // The published ports go on and exceed their own limit here; a plan that cannot be met
            // is refused instead.
            return Err(MixerError::BudgetExceeded {
                slot: setup.slot,
                budget,
                max_epochs: self.max_epochs,
                available,
                fitting_steps,
            });
        }
        let raw = allocate(&sizes, budget, self.max_epochs);
        let shares = Simplex::normalise("unimax", &setup.names(), &raw)?;
        let description = format!("{}, at most {} epochs", ENTRY.name, self.max_epochs);
        Ok(Planned::boxed(description, ShareSchedule::constant(shares)))
    }
}

/// Tokens for each domain, in the order of `sizes`.
fn allocate(sizes: &[f64], budget: f64, max_epochs: f64) -> Vec<f64> {
    let mut ascending: Vec<usize> = (0..sizes.len()).collect();
    ascending.sort_by(|a, b| sizes[*a].total_cmp(&sizes[*b]));
    let mut allocated = vec![0.0; sizes.len()];
    let mut left = budget;
    for (done, domain) in ascending.iter().enumerate() {
        let even = left / (sizes.len() - done) as f64;
        allocated[*domain] = even.min(max_epochs * sizes[*domain]);
        left -= allocated[*domain];
    }
    allocated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocation_matches_a_hand_calculation() {
        // Sizes 1000, 50, 200; budget 900; N = 2. Ascending: 50 → min(300, 100) = 100, left 800;
        // 200 → min(400, 400) = 400, left 400; 1000 → min(400, 2000) = 400.
        assert_eq!(allocate(&[1000.0, 50.0, 200.0], 900.0, 2.0), [400.0, 100.0, 400.0]);
        // Nothing binds: uniform.
        assert_eq!(allocate(&[1000.0, 500.0], 600.0, 1.0), [300.0, 300.0]);
    }
}
