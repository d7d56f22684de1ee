//! Feasible generalised least squares: loss weights inverse to the noise of each domain.

use super::clamp::Clamp;
use super::update::update;

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
