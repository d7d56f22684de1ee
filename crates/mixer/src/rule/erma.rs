//! ERMA: loss weights by exponentiated gradient descent on a bound of the population risk.

use super::clamp::Clamp;
use super::update::update;

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
/// their w and count in G at the mean loss of the others. So a shift common to all losses leaves G
/// as it is, as it does where all are known: Σ_j π_j (1 − w_j) is 0.
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
        let centre = centre(&current.pi, |i| known(i).map(|(mean, _)| mean));
        let share = |(i, (pi, w)): (usize, (&f64, &f64))| {
            known(i).map(|(mean, _)| pi * (1.0 - w) * (mean - centre))
        };
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

/// What losses are taken relative to in the gap: the mean of those that are known, weighted by π. 0
/// where all are, since it cancels there.
fn centre(pi: &[f64], loss: impl Fn(usize) -> Option<f64>) -> f64 {
    let (mut sum, mut weight, mut absent) = (0.0, 0.0, false);
    for (i, pi) in pi.iter().enumerate() {
        match loss(i) {
            Some(loss) => (sum, weight) = (sum + pi * loss, weight + pi),
            None => absent = true,
        }
    }
    if absent && weight > 0.0 { sum / weight } else { 0.0 }
}
