//! VA: sampling weights of the least gradient variance, and what they gain.

use super::shares::{filled, shares, valid};

/// Variance-aware sampling weights (the paper's Algorithm 2, with an exploration floor):
///
/// p_i = (1 − ε) · π_i w_i v_i / Σ_j π_j w_j v_j + ε/K
///
/// `gradient_deviation` holds v_i = √(v_i²) ≥ 0, the root of the trace of the covariance of ∇ℓ_ij
/// within domain i. Without the floor p B is the allocation b that minimises the variance Σ_i (π_i
/// w_i)² v_i² / b_i of the gradient estimate.
///
/// **Derived**: K counts the domains inside the objective (π_i w_i > 0); one outside has p = 0,
/// since its multiplier is 0 and its draws would tell nothing. A deviation that is missing,
/// negative or not finite counts as the mean of the others; where all are 0 or unknown they count
/// as equal, p ∝ π w. Returns uniform shares where nothing is inside.
pub fn va(
    importance: &[f64],
    loss_weight: &[f64],
    gradient_deviation: &[f64],
    epsilon: f64,
) -> Vec<f64> {
    let objective: Vec<f64> = importance
        .iter()
        .enumerate()
        .map(|(i, pi)| valid(pi * loss_weight.get(i).copied().unwrap_or(1.0)).unwrap_or(0.0))
        .collect();
    let inside = objective.iter().filter(|alpha| **alpha > 0.0).count();
    if inside == 0 {
        return vec![1.0 / importance.len().max(1) as f64; importance.len()];
    }
    let deviation = filled(gradient_deviation, importance.len());
    let share = shares(objective.iter().zip(&deviation).map(|(alpha, v)| alpha * v).collect())
        .or_else(|| shares(objective.clone()));
    let epsilon = if epsilon.is_nan() { 0.0 } else { epsilon.clamp(0.0, 1.0) };
    let floor = epsilon / inside as f64;
    let mixed = |(alpha, share): (&f64, f64)| {
        if *alpha > 0.0 { (1.0 - epsilon) * share + floor } else { 0.0 }
    };
    objective.iter().zip(share.unwrap_or_default()).map(mixed).collect()
}

/// Variance of the gradient estimate under equal counts b_i = B/K over that under the best
/// allocation of the same batch, b_i ∝ a_i = π_i w_i v_i:
///
/// K Σ_i a_i² / (Σ_i a_i)²
///
/// At least 1, and 1 where all a_i are equal or 0. **Derived** from Σ_i a_i² / b_i at the two
/// allocations.
pub fn variance_ratio(importance: &[f64], loss_weight: &[f64], gradient_deviation: &[f64]) -> f64 {
    let product = |((pi, w), v): ((&f64, &f64), &f64)| {
        valid(pi * w).and_then(|alpha| valid(alpha * v)).unwrap_or(0.0)
    };
    let raw: Vec<f64> =
        importance.iter().zip(loss_weight).zip(gradient_deviation).map(product).collect();
    let domains = raw.len() as f64;
    shares(raw)
        .map_or(1.0, |shares| domains * shares.iter().map(|share| share * share).sum::<f64>())
}
