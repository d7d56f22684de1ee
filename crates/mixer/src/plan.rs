//! What a run will take from each domain, before it starts.
//!
//! In: the forecast of the sampling strategy. Out: expected sequences, tokens and epochs of each
//! domain, or an error with these numbers where they exceed a domain's `max_epochs`.

use crate::domain::{DomainInfo, RunSize};
use crate::error::{MixerError, Result};
use crate::mixture::Mixture;
use crate::share_schedule::ShareSchedule;
use serde::Serialize;

/// One row of the plan table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DomainPlan {
    /// The domain's name.
    pub name: String,
    /// Tokens in its training split.
    pub tokens: u64,
    /// Windows in one epoch.
    pub windows: u64,
    /// Mean of its sampling weight p over the run; for an adaptive strategy, p of the first step.
    pub share: f64,
    /// Expected sequences, B Σ_t p(t).
    pub sequences: f64,
    /// Expected tokens, sequences · context.
    pub expected_tokens: f64,
    /// Expected passes over the training split.
    pub epochs: f64,
    /// w at the first step.
    pub loss_weight: f64,
    /// m = α/p at the first step.
    pub multiplier: f64,
    /// Largest p at which the domain's `max_epochs` last for the whole run; absent without a limit,
    /// and where the shares of all steps are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_share: Option<f64>,
}

/// Relative excess over `max_epochs` that counts as rounding of the sums.
const TOLERANCE: f64 = 1e-9;

/// Plans the run from its first mixture and, where the strategy knows it, the shares of all steps.
pub(crate) fn plan(
    domains: &[DomainInfo],
    run: &RunSize,
    first: &Mixture,
    forecast: Option<&ShareSchedule>,
) -> Vec<DomainPlan> {
    let steps = run.steps as f64;
    let row = |(index, domain): (usize, &DomainInfo)| {
        let share = match forecast {
            Some(forecast) => forecast.total(index, 0, run.steps) / steps,
            None => first.sampling.values()[index],
        };
        let windows = run.windows(domain.tokens);
        let sequences = share * steps * run.batch_size as f64;
        DomainPlan {
            name: domain.name.clone(),
            tokens: domain.tokens,
            windows,
            share,
            sequences,
            expected_tokens: sequences * run.context as f64,
            epochs: sequences / windows as f64,
            loss_weight: first.loss.values()[index],
            multiplier: first.multipliers[index],
            largest_share: None,
        }
    };
    domains.iter().enumerate().map(row).collect()
}

/// Checks that the forecast keeps every domain's `max_epochs`.
///
/// # Errors
/// [`MixerError::EpochsExceeded`] with the domain that exceeds its limit the most, and the number
/// of steps that would fit.
pub(crate) fn check_epochs(
    domains: &[DomainInfo],
    run: &RunSize,
    plan: &[DomainPlan],
    forecast: &ShareSchedule,
) -> Result<()> {
    let excess =
        |domain: &DomainInfo, epochs: f64| domain.max_epochs.map_or(0.0, |max| epochs / max);
    let worst = domains
        .iter()
        .zip(plan)
        .max_by(|a, b| excess(a.0, a.1.epochs).total_cmp(&excess(b.0, b.1.epochs)));
    let Some((domain, row)) = worst else {
        return Ok(());
    };
    let max_epochs = match domain.max_epochs {
        Some(max) if row.epochs > max * (1.0 + TOLERANCE) => max,
        _ => return Ok(()),
    };
    let fits = |steps: u64| {
        domains.iter().enumerate().all(|(index, domain)| {
            let sequences = forecast.total(index, 0, steps) * run.batch_size as f64;
            let epochs = sequences / run.windows(domain.tokens) as f64;
            domain.max_epochs.is_none_or(|max| epochs <= max * (1.0 + TOLERANCE))
        })
    };
    // Totals only grow with the number of steps: bisect.
    let (mut low, mut high) = (0, run.steps);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        match fits(middle) {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    Err(MixerError::EpochsExceeded {
        domain: domain.name.clone(),
        epochs: row.epochs,
        max_epochs,
        windows: row.windows,
        sequences: row.sequences,
        steps: run.steps,
        fitting_steps: low,
    })
}
