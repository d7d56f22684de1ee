//! `max_epochs` under a strategy whose shares nobody knows in advance.
//!
//! In: p as the strategy proposes it, and what is left of each domain. Out: the nearest p at which
//! every domain lasts until the end of the run, and whole counts that do not exceed what is left.
//! A domain's multiplier grows by as much as its p is cut, so that the objective stays.
//!
//! With E_i sequences expected of domain i so far and at most M_i over the run, p_i ≤ (M_i − E_i) /
//! (B · steps left). Whatever p was before, M_i − E_i stays above 0 until the last step, and Σ (M_i
//! − E_i) ≥ B · steps left: what fits at the start fits throughout.

use crate::domain::{DomainId, DomainInfo, RunSize};
use crate::error::{MixerError, Result};
use crate::rule::water_filled;
use crate::simplex::Simplex;

/// What each domain may still give.
pub(crate) struct Limits {
    /// Sequences left, whole; `u64::MAX` for no limit.
    left: Vec<u64>,
    /// Largest p_i at which the domain lasts until the end of the run; infinite for no limit.
    caps: Vec<f64>,
}

impl Limits {
    /// At `step`, after `consumed` sequences; `residuals` are those of the counts.
    pub(crate) fn at_step(
        step: u64,
        domains: &[DomainInfo],
        run: &RunSize,
        consumed: &[u64],
        residuals: &[f64],
    ) -> Self {
        let ahead = run.steps.saturating_sub(step).max(1) as f64 * run.batch_size as f64;
        let limit = |(domain, (consumed, residual)): (&DomainInfo, (&u64, &f64))| {
            let Some(most) = most_sequences(domain, run) else {
                return (u64::MAX, f64::INFINITY);
            };
            let left = most.saturating_sub(*consumed);
            let expected = most as f64 - *consumed as f64 - residual;
            (left, (expected / ahead).max(0.0))
        };
        let rows = domains.iter().zip(consumed.iter().zip(residuals));
        let (left, caps) = rows.map(limit).unzip();
        Self { left, caps }
    }

    /// Largest p of a domain, `None` for no limit.
    pub(crate) fn cap(&self, domain: usize) -> Option<f64> {
        self.caps.get(domain).copied().filter(|cap| cap.is_finite())
    }

    /// The nearest shares within the caps, and the domains that a cap holds.
    ///
    /// # Errors
    /// [`MixerError::TooFewWindows`] where the domains that are sampled do not last.
    pub(crate) fn project(
        &self,
        step: u64,
        domains: &[DomainInfo],
        run: &RunSize,
        sampling: Simplex,
    ) -> Result<(Simplex, Vec<DomainId>)> {
        let p = sampling.values();
        let held: Vec<DomainId> =
            (0..p.len()).filter(|i| p[*i] > self.caps[*i]).map(DomainId).collect();
        if held.is_empty() {
            return Ok((sampling, held));
        }
        let Some(filled) = water_filled(p, &self.caps) else {
            let sampled: Vec<usize> = (0..p.len()).filter(|i| p[*i] > 0.0).collect();
            let available = sampled.iter().map(|i| self.left[*i]).fold(0, u64::saturating_add);
            return Err(MixerError::TooFewWindows {
                domains: sampled.iter().map(|i| domains[*i].name.clone()).collect(),
                available,
                needed: run.steps.saturating_sub(step).saturating_mul(run.batch_size as u64),
                fitting_steps: step.saturating_add(available / run.batch_size as u64),
            });
        };
        let at_cap = |i: &usize| p[*i] > 0.0 && filled[*i] >= self.caps[*i] * (1.0 - 1e-9);
        let held = (0..p.len()).filter(at_cap);
        let held = held.map(DomainId).collect();
        Ok((Simplex::projected(filled), held))
    }

    /// Moves what `counts` take beyond what is left to the domains that are furthest behind, where
    /// something is; a domain with p = 0 gets nothing. What could not be moved stays where it was.
    pub(crate) fn keep(&self, counts: &mut [usize], residuals: &mut [f64], sampling: &[f64]) {
        let room = |counts: &[usize], i: usize| self.left[i].saturating_sub(counts[i] as u64);
        for i in 0..counts.len() {
            while counts[i] as u64 > self.left[i] {
                let open = (0..counts.len()).filter(|j| sampling[*j] > 0.0 && room(counts, *j) > 0);
                let behind = |a: &usize, b: &usize| residuals[*a].total_cmp(&residuals[*b]);
                let Some(other) = open.max_by(|a, b| behind(a, b).then(b.cmp(a))) else {
                    return;
                };
                counts[i] -= 1;
                residuals[i] += 1.0;
                counts[other] += 1;
                residuals[other] -= 1.0;
            }
        }
    }

    /// The first domain of which `counts` take more than is left.
    pub(crate) fn exceeded(&self, counts: &[usize]) -> Option<usize> {
        (0..counts.len()).find(|i| counts[*i] as u64 > self.left[*i])
    }
}

/// Sequences of `max_epochs` passes, the last one whole.
fn most_sequences(domain: &DomainInfo, run: &RunSize) -> Option<u64> {
    domain.max_epochs.map(|max| (max * run.windows(domain.tokens) as f64).ceil() as u64)
}
