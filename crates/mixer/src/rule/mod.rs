//! The update rules of the seed method, as plain functions of per-domain numbers.
//!
//! In: π, w and statistics, one number a domain in each list. Out: the next loss weights w, or the
//! sampling weights p. No state and no randomness: the strategies keep the state, and studies
//! outside of language models use the same rules. Source: Salmani, Worah, Razaviyayn, Mirrokni,
//! *Sampling and Loss Weights in Multi-Domain Training*, arXiv:2511.06913 (2025); what was worked
//! out for Cuvee instead of read there is marked **derived**.
//!
//! A statistic that is missing, not finite or out of its range is ignored and the domain keeps its
//! loss weight, so that nothing here returns a NaN or panics.

mod clamp;

pub use clamp::Clamp;

/// How far Σ π_i and Σ π_i w_i may be from 1 and still count as normalised: far above their
/// rounding.
const TOLERANCE: f64 = 1e-9;

/// One step of feasible generalised least squares in one run (the paper's Algorithm 1):
///
/// w_i ← (1 − β) w_i + β c/σ̂_i²
///
/// with c such that Σ π_i c/σ̂_i² = 1, then Σ π_i w_i = 1 within `clamp`. By Aitken's theorem w_i ∝
/// 1/σ_i² is the best linear unbiased estimator for linear regression with residual variance σ_i²
/// in domain i. `residual_variance` holds σ̂_i² > 0, from data that are not trained on; `beta`,
/// from 0 to 1, says how much of w is replaced.
///
/// **Derived**: the choice of c (the paper's drops out only at β = 1), the projection onto the
/// bounds ([`Clamp`]), and that domains of unknown σ̂² keep their w while the others share what
/// these leave.
pub fn fgls(
    importance: &[f64],
    loss_weight: &[f64],
    residual_variance: &[f64],
    beta: f64,
    clamp: Clamp,
) -> Vec<f64> {
    let known = |i: usize| {
        residual_variance.get(i).copied().filter(|value| value.is_finite() && *value > 0.0)
    };
    let smallest = (0..importance.len()).filter_map(known).fold(f64::INFINITY, f64::min);
    let beta = if beta.is_nan() { 0.0 } else { beta.clamp(0.0, 1.0) };
    update(importance, loss_weight, clamp, |current| {
        // Precisions relative to the largest, so that the inverse of a tiny variance does not
        // overflow.
        let precision: Vec<Option<f64>> =
            (0..current.pi.len()).map(|i| known(i).map(|value| smallest / value)).collect();
        let masses = current.pi.iter().zip(&current.w).zip(&precision);
        let (held, raw) =
            masses.fold((0.0, 0.0), |(held, raw), ((pi, w), precision)| match precision {
                Some(precision) => (held + pi * w, raw + pi * precision),
                None => (held, raw),
            });
        // Nothing of importance is known: w of the known ones is free, and 1/σ² in any scale will
        // do.
        let c = if raw > 0.0 { held / raw } else { 1.0 };
        let blend = |(w, precision): (&f64, &Option<f64>)| {
            precision.map(|r| (1.0 - beta) * w + beta * c * r)
        };
        current.w.iter().zip(&precision).map(blend).collect()
    })
}

/// One step of ERMA, the paper's rule for general models:
///
/// w_i ← w_i · exp(γ₁ π_i G L_i − γ₂ π_i w_i Var_i)
///
/// then Σ π_i w_i = 1 within `clamp`. `loss` holds L_i and `loss_variance` Var_i ≥ 0, the mean and
/// the variance over the samples of domain i, both from data that are not trained on.
///
/// **Derived**: G = Σ_j π_j (1 − w_j) L_j, the gap between the population risk and the weighted
/// risk. With it the exponent of w_i is −∂/∂w_i of the bound ½ γ₁ (Σ_j π_j (1 − w_j) L_j)² + ½ γ₂
/// Σ_j π_j w_j² Var_j: γ₁ buys fidelity to the population risk, γ₂ low variance. Where the π_i are
/// equal this is exponentiated gradient descent on the bound. Where they differ it is not: scaling
/// w to Σ π_i w_i = 1 is not the projection that belongs to that exponent, w settles where π_i (γ₁
/// G L_i − γ₂ w_i Var_i) is the same for all domains, and that may be far from the least bound, as
/// a noisy domain of small importance hardly feels its noise. [`erma_objective`] has no such
/// trouble.
///
/// Derived also: the projection onto the bounds ([`Clamp`]), and that domains of unknown loss keep
/// their w and add nothing to G.
pub fn erma(
    importance: &[f64],
    loss_weight: &[f64],
    loss: &[f64],
    loss_variance: &[f64],
    gamma1: f64,
    gamma2: f64,
    clamp: Clamp,
) -> Vec<f64> {
    exponentiated((importance, loss_weight), (loss, loss_variance), (gamma1, gamma2), clamp, |pi| {
        pi
    })
}

/// One step of ERMA with the gradient taken by the objective's shares α_i = π_i w_i in place of
/// w_i:
///
/// w_i ← w_i · exp(γ₁ G L_i − γ₂ w_i Var_i)
///
/// then Σ π_i w_i = 1 within `clamp`; all else is as in [`erma`].
///
/// **Derived**: α lies on the simplex, where exponentiated gradient descent ends with a division by
/// the sum, and −∂/∂α_i of the same bound is this exponent. So it is descent on the bound whatever
/// the importances. Where they are equal it is [`erma`] at K times the rates.
pub fn erma_objective(
    importance: &[f64],
    loss_weight: &[f64],
    loss: &[f64],
    loss_variance: &[f64],
    gamma1: f64,
    gamma2: f64,
    clamp: Clamp,
) -> Vec<f64> {
    exponentiated((importance, loss_weight), (loss, loss_variance), (gamma1, gamma2), clamp, |_| {
        1.0
    })
}

/// w_i ← w_i · exp(`factor`(π_i) · (γ₁ G L_i − γ₂ w_i Var_i)), normalised and within the bounds.
fn exponentiated(
    (importance, loss_weight): (&[f64], &[f64]),
    (loss, loss_variance): (&[f64], &[f64]),
    (gamma1, gamma2): (f64, f64),
    clamp: Clamp,
    factor: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let known = |i: usize| {
        let pair = loss.get(i).copied().zip(loss_variance.get(i).copied());
        pair.filter(|(mean, variance)| mean.is_finite() && variance.is_finite() && *variance >= 0.0)
    };
    update(importance, loss_weight, clamp, |current| {
        let terms = || current.pi.iter().zip(&current.w).enumerate();
        let share =
            |(i, (pi, w)): (usize, (&f64, &f64))| known(i).map(|(mean, _)| pi * (1.0 - w) * mean);
        let gap: f64 = terms().filter_map(share).sum();
        let logarithm = |(i, (pi, w)): (usize, (&f64, &f64))| {
            known(i).map(|(mean, variance)| {
                w.ln() + factor(*pi) * (gamma1 * gap * mean - gamma2 * w * variance)
            })
        };
        let logarithms: Vec<Option<f64>> = terms().map(logarithm).collect();
        // Relative to the largest, so that large rates neither overflow nor make everything 0.
        let largest = logarithms.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let relative = |logarithm: f64| (logarithm - largest).exp();
        logarithms.iter().map(|logarithm| logarithm.map(relative)).collect()
    })
}

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

/// Deviations with what is unknown replaced by the mean of what is known, by 1 where nothing is.
pub(crate) fn filled(gradient_deviation: &[f64], domains: usize) -> Vec<f64> {
    let known: Vec<f64> = gradient_deviation.iter().copied().filter_map(valid).collect();
    // Each divided first: the sum of finite numbers may overflow, their mean does not.
    let mean = match known.len() {
        0 => 1.0,
        count => known.iter().map(|v| v / count as f64).sum(),
    };
    (0..domains)
        .map(|i| gradient_deviation.get(i).copied().and_then(valid).unwrap_or(mean))
        .collect()
}

/// `raw` divided by its sum, `None` where that is 0.
fn shares(raw: Vec<f64>) -> Option<Vec<f64>> {
    // By the largest first, so that the sum neither overflows nor vanishes.
    let largest = raw.iter().copied().fold(0.0, f64::max).min(f64::MAX);
    if largest == 0.0 {
        return None;
    }
    let relative: Vec<f64> = raw.iter().map(|value| value.min(f64::MAX) / largest).collect();
    let sum: f64 = relative.iter().sum();
    Some(relative.iter().map(|value| value / sum).collect())
}

fn valid(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// π and w that are known to be usable: Σ π_i = 1, Σ π_i w_i = 1, w within the bounds.
struct Current {
    pi: Vec<f64>,
    w: Vec<f64>,
}

/// Replaces w of the domains for which `proposal` has a value, in any scale, by what
/// [`Clamp::project`] makes of them; the others keep theirs.
fn update(
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

#[cfg(test)]
mod tests;
