//! One update of loss weights, whatever the rule: the proposal is brought within the bounds and to
//! Σ π_i w_i = 1, and a domain without one keeps its loss weight.

use super::clamp::Clamp;
use super::shares::{shares, valid};

/// How far Σ π_i and Σ π_i w_i may be from 1 and still count as normalised: far above their
/// rounding.
const TOLERANCE: f64 = 1e-9;

/// π and w that are known to be usable: Σ π_i = 1, Σ π_i w_i = 1, w within the bounds.
pub(crate) struct Current {
    pub(crate) pi: Vec<f64>,
    pub(crate) w: Vec<f64>,
}

/// Replaces w of the domains for which `proposal` has a value, in any scale, by what
/// [`Clamp::project`] makes of them; the others keep theirs.
pub(crate) fn update(
    importance: &[f64],
    loss_weight: &[f64],
    clamp: Clamp,
    proposal: impl FnOnce(&Current) -> Vec<Option<f64>>,
) -> Vec<f64> {
    let clamp = clamp.feasible();
    let mut current = usable(importance, loss_weight, clamp);
    let proposed = proposal(&current);
    let usable = proposed.iter().flatten().all(|value| value.is_finite());
    let known: Vec<usize> = (0..proposed.len()).filter(|i| proposed[*i].is_some()).collect();
    if known.is_empty() || !usable {
        return current.w;
    }
    let raw: Vec<f64> = proposed.iter().flatten().copied().collect();
    let pi: Vec<f64> = known.iter().map(|i| current.pi[*i]).collect();
    let kept: f64 = (0..proposed.len())
        .filter(|i| proposed[*i].is_none())
        .map(|i| current.pi[i] * current.w[i])
        .sum();
    for (i, w) in known.iter().zip(clamp.project(&pi, &raw, 1.0 - kept)) {
        current.w[*i] = w;
    }
    current.w
}

/// What the caller gave, untouched where it is already in order.
fn usable(importance: &[f64], loss_weight: &[f64], clamp: Clamp) -> Current {
    let domains = importance.len();
    let pi: Vec<f64> = importance.iter().map(|pi| valid(*pi).unwrap_or(0.0)).collect();
    let pi = match (pi.iter().sum::<f64>() - 1.0).abs() < TOLERANCE {
        true => pi,
        false => shares(pi).unwrap_or_else(|| vec![1.0 / domains.max(1) as f64; domains]),
    };
    let w: Vec<f64> =
        (0..domains).map(|i| loss_weight.get(i).copied().and_then(valid).unwrap_or(1.0)).collect();
    let sum: f64 = pi.iter().zip(&w).map(|(pi, w)| pi * w).sum();
    let w = match (sum - 1.0).abs() < TOLERANCE && clamp.contains(&w) {
        true => w,
        false => clamp.project(&pi, &w, 1.0),
    };
    Current { pi, w }
}
