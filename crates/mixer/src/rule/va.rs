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
    let Some(Rule { objective, share }) = rule(importance, loss_weight, gradient_deviation) else {
        return vec![1.0 / importance.len().max(1) as f64; importance.len()];
    };
    let epsilon = share_of_the_floor(epsilon);
    let floor = epsilon / inside(&objective) as f64;
    let mixed = |(alpha, share): (&f64, f64)| {
        if *alpha > 0.0 { (1.0 - epsilon) * share + floor } else { 0.0 }
    };
    objective.iter().zip(share).map(mixed).collect()
}

/// [`va()`] with a floor that follows the objective, as in a defensive mixture (Hesterberg, 1995):
///
/// p_i = (1 − ε) · π_i w_i v_i / Σ_j π_j w_j v_j + ε · π_i w_i
///
/// So the multiplier π_i w_i / p_i is at most 1/ε whatever v is, which an even floor does not
/// promise a domain of much importance, and a domain of little importance costs no more than its
/// share. It has to be seen once, though: a domain that `measured` does not mark gets ε/K where
/// that is more, from what the rule shares out. **Derived**, as is what counts as inside.
pub fn va_defensive(
    importance: &[f64],
    loss_weight: &[f64],
    gradient_deviation: &[f64],
    measured: &[bool],
    epsilon: f64,
) -> Vec<f64> {
    let Some(Rule { objective, share }) = rule(importance, loss_weight, gradient_deviation) else {
        return vec![1.0 / importance.len().max(1) as f64; importance.len()];
    };
    let alpha = shares(objective.clone()).unwrap_or(objective);
    let epsilon = share_of_the_floor(epsilon);
    let even = epsilon / inside(&alpha) as f64;
    let exploring = |(i, alpha): (usize, &f64)| match measured.get(i).copied().unwrap_or(false) {
        false if *alpha > 0.0 => (even - epsilon * alpha).max(0.0),
        true | false => 0.0,
    };
    let explored: Vec<f64> = alpha.iter().enumerate().map(exploring).collect();
    // Below ε in all, and so more than the rule has where ε is above ½.
    let wanted: f64 = explored.iter().sum();
    let part = wanted.min(1.0 - epsilon);
    let scale = if wanted > 0.0 { part / wanted } else { 0.0 };
    let mixed = |((alpha, share), explored): ((&f64, f64), &f64)| {
        (1.0 - epsilon - part) * share + epsilon * alpha + scale * explored
    };
    alpha.iter().zip(share).zip(&explored).map(mixed).collect()
}

/// What both floors are put under.
struct Rule {
    /// π_i w_i, 0 where it is unusable.
    objective: Vec<f64>,
    /// π_i w_i v_i / Σ_j π_j w_j v_j.
    share: Vec<f64>,
}

/// `None` where nothing is inside the objective.
fn rule(importance: &[f64], loss_weight: &[f64], gradient_deviation: &[f64]) -> Option<Rule> {
    let objective: Vec<f64> = importance
        .iter()
        .enumerate()
        .map(|(i, pi)| valid(pi * loss_weight.get(i).copied().unwrap_or(1.0)).unwrap_or(0.0))
        .collect();
    let deviation = filled(gradient_deviation, importance.len());
    let share = shares(objective.iter().zip(&deviation).map(|(alpha, v)| alpha * v).collect())
        .or_else(|| shares(objective.clone()))?;
    Some(Rule { objective, share })
}

fn inside(objective: &[f64]) -> usize {
    objective.iter().filter(|alpha| **alpha > 0.0).count()
}

fn share_of_the_floor(epsilon: f64) -> f64 {
    if epsilon.is_nan() { 0.0 } else { epsilon.clamp(0.0, 1.0) }
}

/// B_eff = B / Σ_i α_i² / p_i: the size of the batch at p = α whose gradient varies as much within
/// domains, where their gradients scatter alike. At p = α it is B, and never more.
///
/// **Derived** from Σ_i α_i² v² / (B p_i). 0 where some α_i > 0 has p_i = 0.
pub fn effective_batch_size(batch_size: usize, objective: &[f64], sampling: &[f64]) -> f64 {
    let inside = objective.iter().zip(sampling).filter(|(alpha, _)| **alpha > 0.0);
    batch_size as f64 / inside.map(|(alpha, p)| alpha * alpha / p).sum::<f64>()
}

/// Variance of the gradient estimate within domains at p = α over that at the best p ∝ α v:
///
/// Σ_i α_i v_i² / (Σ_i α_i v_i)²
///
/// What there is to win by sampling by v: at least 1, and 1 where all v_i are equal or unknown.
/// **Derived** from Σ_i α_i² v_i² / p_i at the two.
pub fn headroom(objective: &[f64], gradient_deviation: &[f64]) -> f64 {
    let Some(share) = shares(objective.to_vec()) else { return 1.0 };
    let deviation = filled(gradient_deviation, share.len());
    // Relative to the largest, so that no square overflows or vanishes.
    let largest = deviation.iter().copied().fold(0.0, f64::max);
    let term = |(share, v): (&f64, &f64)| (share * v / largest, share * (v / largest).powi(2));
    let terms = share.iter().zip(&deviation).map(term);
    let (mean, square) = terms.fold((0.0, 0.0), |(m, s), (v, v2)| (m + v, s + v2));
    let ratio = square / (mean * mean);
    if ratio.is_finite() { ratio.max(1.0) } else { 1.0 }
}

/// The most that [`headroom`] can be where no v is more than `ratio` times another, whatever the
/// objective: (1 + r)² / 4r (Kantorovich).
pub fn largest_headroom(ratio: f64) -> f64 {
    (1.0 + ratio).powi(2) / (4.0 * ratio)
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
