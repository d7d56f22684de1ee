//! PiKE (arXiv:2502.06244): sampling weights that ask for tasks of large gradients and little
//! noise.

use super::shares::{filled, shares};
use super::{softmax_with_floor, with_floor};

/// One step of the practical rule:
///
/// p_i ← p_i · exp(ζ₁ ‖∇L_i‖² − ζ₂ σ_i² / (2b)), normalised, ζ₂ = r ζ₁
///
/// and then (1 − ε) p_i + ε/K, which is **derived**: a domain at p = 0 would never be observed
/// again. `step` is ζ₁, `noise_ratio` r, `batch_size` b. A domain whose numbers are not known
/// counts at the mean of the others. Where the shares are unusable or the exponents not finite,
/// they stay.
pub fn pike(
    shares: &[f64],
    signal: &[f64],
    noise: &[f64],
    (step, noise_ratio): (f64, f64),
    batch_size: usize,
    epsilon: f64,
) -> Vec<f64> {
    let (signal, noise) = (filled(signal, shares.len()), filled(noise, shares.len()));
    let half = noise_ratio / (2.0 * batch_size.max(1) as f64);
    let exponents: Vec<f64> =
        signal.iter().zip(&noise).map(|(signal, noise)| step * (signal - half * noise)).collect();
    softmax_with_floor(shares, &exponents, epsilon).unwrap_or_else(|| shares.to_vec())
}

/// The mean over the domains of ‖∇L‖² + r σ²/(2b), which the exponents of [`pike`] at `step` = 1
/// are no larger than on average. `None` where it is 0 or not finite. **Derived**: exponents that
/// are divided by it have no scale.
pub fn pike_scale(
    signal: &[f64],
    noise: &[f64],
    noise_ratio: f64,
    batch_size: usize,
) -> Option<f64> {
    let domains = signal.len();
    let half = noise_ratio / (2.0 * batch_size.max(1) as f64);
    let pairs = filled(signal, domains).into_iter().zip(filled(noise, domains));
    let mean: f64 = pairs.map(|(signal, noise)| (signal + half * noise) / domains as f64).sum();
    (mean.is_finite() && mean > 0.0).then_some(mean)
}

/// The weights of least upper bound in closed form:
///
/// w_k = max(0, −(μ + λ_k) / κ_k), μ from Σ w_k = 1
///
/// and then (1 − ε) w_k + ε/K, as in [`pike`]. With the common factor ηβ divided out, which changes
/// no w, λ_k = −‖∇L_k‖² + r σ_k² / (2b) and κ_k = r γ ‖∇L_k‖², r = Lη/β.
///
/// It minimises Σ w_k λ_k + ½ Σ κ_k w_k² on the simplex. **Derived**: where κ_k is 0 at the least
/// λ_k, those domains share evenly what the others leave.
pub fn pike_closed(
    signal: &[f64],
    noise: &[f64],
    (noise_ratio, gamma): (f64, f64),
    batch_size: usize,
    epsilon: f64,
) -> Vec<f64> {
    let domains = signal.len();
    let (signal, noise) = (filled(signal, domains), filled(noise, domains));
    let half = noise_ratio / (2.0 * batch_size.max(1) as f64);
    let linear: Vec<f64> =
        signal.iter().zip(&noise).map(|(signal, noise)| half * noise - signal).collect();
    let curvature: Vec<f64> = signal.iter().map(|signal| noise_ratio * gamma * signal).collect();
    with_floor(&quadratic_on_simplex(&linear, &curvature), epsilon)
}

/// The w on the simplex that minimises Σ λ_k w_k + ½ κ_k w_k², κ ≥ 0, by bisection of μ. Numbers
/// that are not finite give even shares.
fn quadratic_on_simplex(linear: &[f64], curvature: &[f64]) -> Vec<f64> {
    let even = || vec![1.0 / linear.len().max(1) as f64; linear.len()];
    let pairs = || linear.iter().zip(curvature);
    // At `low` one weight alone is 1 or more, at `high` all are 0.
    let mut low = pairs().map(|(l, k)| -l - k).fold(f64::NEG_INFINITY, f64::max);
    let mut high = linear.iter().map(|l| -l).fold(f64::NEG_INFINITY, f64::max);
    let finite = pairs().all(|(l, k)| l.is_finite() && k.is_finite()) && low.is_finite();
    if !finite || linear.len() != curvature.len() {
        return even();
    }
    let weight =
        |mu: f64, (l, k): (&f64, &f64)| if *k > 0.0 { (-(mu + l) / k).max(0.0) } else { 0.0 };
    let weights = |mu: f64| -> Vec<f64> { pairs().map(|pair| weight(mu, pair)).collect() };
    // Where a domain of no curvature holds μ up, it and its like take what is left.
    let free: Vec<bool> = pairs().map(|(l, k)| *k <= 0.0 && -l >= low).collect();
    let count = free.iter().filter(|free| **free).count();
    let mut found = weights(low);
    let rest = 1.0 - found.iter().sum::<f64>();
    if count > 0 && rest >= 0.0 {
        let each = rest / count as f64;
        found.iter_mut().zip(&free).filter(|(_, free)| **free).for_each(|(w, _)| *w = each);
        return found;
    }
    // Each halves the interval; it ends where there is no number between its ends any more.
    for _ in 0..2_000 {
        let middle = low + 0.5 * (high - low);
        if middle <= low || middle >= high {
            break;
        }
        if weights(middle).iter().sum::<f64>() >= 1.0 { low = middle } else { high = middle }
    }
    // What is left is the rounding of μ.
    shares(weights(low)).unwrap_or_else(even)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Numbers of a domain: λ, κ.
    fn problems() -> impl Strategy<Value = Vec<(f64, f64)>> {
        prop::collection::vec((-5.0f64..5.0, prop_oneof![4 => 0.01f64..5.0, 1 => Just(0.0)]), 1..9)
    }

    proptest! {
        #[test]
        fn the_closed_form_meets_the_conditions_of_karush_kuhn_and_tucker(problem in problems()) {
            let (linear, curvature): (Vec<f64>, Vec<f64>) = problem.into_iter().unzip();
            let w = quadratic_on_simplex(&linear, &curvature);
            let sum: f64 = w.iter().sum();
            // At most 9 roundings of numbers up to 1.
            prop_assert!((sum - 1.0).abs() < 1e-14 && w.iter().all(|w| *w >= 0.0), "{w:?}");
            // λ_k + κ_k w_k is −μ where w_k > 0 and at least that where it is 0. μ is up to 10 and
            // known to a few units of its last place, κ is 0.01 or more: a weight to 10⁻¹².
            let slope = |k: usize| linear[k] + curvature[k] * w[k];
            let least = (0..w.len()).map(slope).fold(f64::INFINITY, f64::min);
            for k in 0..w.len() {
                prop_assert!(slope(k) >= least);
                prop_assert!(w[k] < 1e-11 || slope(k) - least < 1e-11, "{k}: {w:?}");
            }
        }

        #[test]
        fn no_other_weights_have_a_lower_bound(
            problem in problems(),
            other in prop::collection::vec(0.001f64..1.0, 9),
        ) {
            let (linear, curvature): (Vec<f64>, Vec<f64>) = problem.into_iter().unzip();
            let w = quadratic_on_simplex(&linear, &curvature);
            let other = shares(other[..w.len()].to_vec()).unwrap();
            let bound = |w: &[f64]| -> f64 {
                (0..w.len()).map(|k| linear[k] * w[k] + 0.5 * curvature[k] * w[k] * w[k]).sum()
            };
            prop_assert!(bound(&w) <= bound(&other) + 1e-12);
        }
    }

    #[test]
    fn two_domains_by_hand() {
        // λ = −4 + 1 = −3 and −1 + 1 = 0 (r σ²/(2b) = 2·8/16), κ = 2·4 and 2·1:
        // (3 − μ)/8 + (0 − μ)/2 = 1 asks μ = −1: w = ½, ½.
        let w = pike_closed(&[4.0, 1.0], &[8.0, 8.0], (2.0, 1.0), 8, 0.0);
        assert!((w[0] - 0.5).abs() < 1e-15 && (w[1] - 0.5).abs() < 1e-15, "{w:?}");
        // A domain of noise alone has no part but the floor's.
        let w = pike_closed(&[4.0, 0.1], &[8.0, 800.0], (2.0, 1.0), 8, 0.1);
        assert!((w[0] - 0.95).abs() < 1e-15 && (w[1] - 0.05).abs() < 1e-15, "{w:?}");
        // p · exp(½ (4 − 2·8/16)) = ½ e^1.5 against ½ e^0.
        let p = pike(&[0.5, 0.5], &[4.0, 1.0], &[8.0, 8.0], (0.5, 2.0), 8, 0.0);
        assert!((p[0] / p[1] - f64::exp(1.5)).abs() < 1e-13, "{p:?}");
    }

    #[test]
    fn unusable_numbers_give_shares_all_the_same() {
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e308] {
            let w = pike_closed(&[1.0, bad], &[bad, 1.0], (1e10, 1.0), 8, 0.01);
            assert!(w.iter().all(|w| (0.005..=1.0).contains(w)), "{bad}: {w:?}");
            let p = pike(&[0.5, 0.5], &[1.0, bad], &[bad, 1.0], (1e10, 1.0), 8, 0.01);
            assert!(p.iter().all(|p| (0.005..=1.0).contains(p)), "{bad}: {p:?}");
        }
        assert_eq!(pike_closed(&[0.0; 3], &[0.0; 3], (1.0, 1.0), 8, 0.0), [1.0 / 3.0; 3]);
        assert!(pike_closed(&[], &[], (1.0, 1.0), 8, 0.0).is_empty());
        let many = pike_closed(&vec![1.0; 300], &vec![1.0; 300], (1.0, 1.0), 8, 0.1);
        assert!(many.iter().all(|w| (w - 1.0 / 300.0).abs() < 1e-15));
    }
}
