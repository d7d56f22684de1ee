//! Exponentiated gradient on shares within bounds.
//!
//! r ← the shares within the bounds that are nearest, in relative entropy, to r · e^(−η g): a step
//! of mirror descent, exact. η doubles while steps lower the value by a third of what the slope
//! promises, and halves where they do not, so that the value never rises.
//!
//! It stops by a certificate: max over the bounds of ⟨g, r − s⟩ (Frank & Wolfe's gap), which is how
//! much lower a convex function could be anywhere. At a gap of 0 the conditions of Karush, Kuhn and
//! Tucker hold.

use crate::shares::Bounds;

/// Part of the promised descent that a step must keep.
const KEPT: f64 = 0.3;

/// Smallest step that is tried.
const SMALLEST_STEP: f64 = 1e-12;

/// Something to minimise over shares, or over several lists of shares, one behind another.
pub(super) trait Smooth {
    fn value(&self, at: &[f64]) -> f64;

    /// `None` where there is no slope.
    fn slope(&self, at: &[f64]) -> Option<Vec<f64>>;
}

/// Where a descent ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) at: Vec<f64>,
    pub(super) value: f64,
    /// Infinite where there is no slope.
    pub(super) gap: f64,
}

/// Descends from `start` until the gap is at most `tolerance`, or for `steps` steps.
pub(super) fn descend(
    function: &impl Smooth,
    blocks: &[&Bounds],
    start: &[f64],
    tolerance: f64,
    steps: usize,
) -> End {
    let mut at = in_blocks(blocks, start, Bounds::project);
    let mut value = function.value(&at);
    let mut gap = f64::INFINITY;
    let mut step = 1.0;
    for _ in 0..=steps {
        let Some(slope) = function.slope(&at) else { break };
        let best = in_blocks(blocks, &slope, Bounds::cheapest);
        gap = promised(&slope, &at, &best);
        if gap <= tolerance || gap.is_nan() {
            break;
        }
        let Some((moved, lower, used)) = lower(function, blocks, (&at, value), &slope, step) else {
            break;
        };
        (at, value, step) = (moved, lower, 2.0 * used);
    }
    End { at, value, gap }
}

/// The first step, from `step` downwards, that lowers the value enough: where, how low, which step.
fn lower(
    function: &impl Smooth,
    blocks: &[&Bounds],
    (at, value): (&[f64], f64),
    slope: &[f64],
    mut step: f64,
) -> Option<(Vec<f64>, f64, f64)> {
    let least = slope.iter().copied().fold(f64::INFINITY, f64::min);
    while step > SMALLEST_STEP {
        let raw: Vec<f64> =
            at.iter().zip(slope).map(|(r, g)| r * (-step * (g - least)).exp()).collect();
        let moved = in_blocks(blocks, &raw, Bounds::project);
        let promise = promised(slope, at, &moved);
        let reached = function.value(&moved);
        if promise > 0.0 && reached <= value - KEPT * promise {
            return Some((moved, reached, step));
        }
        step *= 0.5;
    }
    None
}

/// ⟨g, from − to⟩
fn promised(slope: &[f64], from: &[f64], to: &[f64]) -> f64 {
    slope.iter().zip(from.iter().zip(to)).map(|(g, (from, to))| g * (from - to)).sum()
}

/// `rule` on the part of `values` that belongs to each block.
fn in_blocks(
    blocks: &[&Bounds],
    values: &[f64],
    rule: impl Fn(&Bounds, &[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let mut rest = values;
    let mut all = Vec::with_capacity(values.len());
    for bounds in blocks {
        let (own, behind) = rest.split_at(bounds.domains().min(rest.len()));
        all.extend(rule(bounds, own));
        rest = behind;
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shares::{normalised, uniform};
    use proptest::prelude::*;

    /// Σ b_i (−ln r_i): least at r ∝ b.
    struct Logs(Vec<f64>);

    impl Smooth for Logs {
        fn value(&self, at: &[f64]) -> f64 {
            -self.0.iter().zip(at).map(|(b, r)| b * r.ln()).sum::<f64>()
        }

        fn slope(&self, at: &[f64]) -> Option<Vec<f64>> {
            Some(self.0.iter().zip(at).map(|(b, r)| -b / r).collect())
        }
    }

    proptest! {
        #[test]
        fn the_known_optimum_is_found_within_the_certificate(
            weights in prop::collection::vec(0.01f64..1.0, 2..40),
            slack in 1.05f64..20.0,
        ) {
            let domains = weights.len();
            let caps = vec![(slack / domains as f64).min(1.0); domains];
            let bounds = Bounds::new(1e-4, &caps).unwrap();
            let weights = normalised(&weights).unwrap();
            let logs = Logs(weights.clone());
            let end = descend(&logs, &[&bounds], &uniform(domains), 1e-6, 5000);
            prop_assert!(end.gap <= 1e-6, "{}", end.gap);
            prop_assert!(bounds.contains(&end.at));
            // r ∝ b within bounds is the projection of b.
            let best = logs.value(&bounds.project(&weights));
            prop_assert!(end.value <= best + end.gap + 1e-12, "{} {best}", end.value);
        }
    }
}
