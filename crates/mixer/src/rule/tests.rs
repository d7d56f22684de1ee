//! The rules against their closed forms, and against statistics that are wrong.

#![allow(clippy::unwrap_used)]

use super::shares::shares;
use super::*;
use proptest::prelude::*;

/// No bound that any of these tests meets.
const OPEN: Clamp = Clamp { min: 0.0, max: f64::INFINITY };

/// π, w (normalised), and two positive numbers a domain.
#[derive(Clone, Debug)]
struct Instance {
    pi: Vec<f64>,
    w: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
}

fn instances() -> impl Strategy<Value = Instance> {
    (1usize..9).prop_flat_map(|domains| {
        let positive = || prop::collection::vec(0.05f64..5.0, domains);
        (positive(), positive(), positive(), positive()).prop_map(|(pi, w, a, b)| {
            let pi = shares(pi).unwrap();
            let w = normalised(&pi, &w);
            Instance { pi, w, a, b }
        })
    })
}

fn mean(pi: &[f64], w: &[f64]) -> f64 {
    pi.iter().zip(w).map(|(pi, w)| pi * w).sum()
}

fn normalised(pi: &[f64], w: &[f64]) -> Vec<f64> {
    let mean = mean(pi, w);
    w.iter().map(|w| w / mean).collect()
}

fn close(found: &[f64], expected: &[f64], relative: f64) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= relative * b.abs())
}

/// Σ (π w)² v² / p, the variance of the gradient estimate times the batch size.
fn variance(case: &Instance, p: &[f64]) -> f64 {
    let term = |i: usize| (case.pi[i] * case.w[i] * case.a[i]).powi(2) / p[i];
    (0..p.len()).map(term).sum()
}

/// ½ γ₁ (Σ π (1 − w) L)² + ½ γ₂ Σ π w² Var, written out apart from the code under test.
fn bound(pi: &[f64], w: &[f64], loss: &[f64], variance: &[f64], gamma: (f64, f64)) -> f64 {
    let gap: f64 = (0..w.len()).map(|j| pi[j] * (1.0 - w[j]) * loss[j]).sum();
    let spread: f64 = (0..w.len()).map(|j| pi[j] * w[j] * w[j] * variance[j]).sum();
    0.5 * gamma.0 * gap * gap + 0.5 * gamma.1 * spread
}

/// Statistics and weights as they must never come, but might.
fn odd_numbers(domains: usize) -> impl Strategy<Value = Vec<f64>> {
    let odd = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 1e-300, 5e-324];
    prop::collection::vec(
        prop_oneof![3 => 0.01f64..10.0, 1 => prop::sample::select(odd.to_vec())],
        domains,
    )
}

proptest! {
    #[test]
    fn va_is_the_closed_form_and_no_other_allocation_is_better(
        case in instances(),
        noise in prop::collection::vec(-0.5f64..0.5, 8),
    ) {
        let p = va(&case.pi, &case.w, &case.a, 0.0);
        let product: Vec<f64> = (0..p.len()).map(|i| case.pi[i] * case.w[i] * case.a[i]).collect();
        let sum: f64 = product.iter().sum();
        prop_assert!(close(&p, &product.iter().map(|a| a / sum).collect::<Vec<_>>(), 1e-14));
        let other = shares(p.iter().zip(&noise).map(|(p, noise)| p * noise.exp()).collect()).unwrap();
        // Sums of at most 8 terms that differ by roundings: 10⁻¹⁵ each, far below 10⁻¹⁴.
        prop_assert!(variance(&case, &other) >= variance(&case, &p) * (1.0 - 1e-14));
        // Cauchy–Schwarz, with equality at the closed form.
        prop_assert!((variance(&case, &p) / (sum * sum) - 1.0).abs() < 1e-14);
    }

    #[test]
    fn va_sums_to_one_and_keeps_its_floor(case in instances(), epsilon in 0.0f64..=1.0) {
        let p = va(&case.pi, &case.w, &case.a, epsilon);
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        let floor = epsilon / p.len() as f64;
        prop_assert!(p.iter().all(|p| *p >= floor));
        // Only proportions matter, at any scale.
        for scale in [1e-290, 1e290] {
            let scaled: Vec<f64> = case.a.iter().map(|v| v * scale).collect();
            prop_assert!(close(&va(&case.pi, &case.w, &scaled, epsilon), &p, 1e-13));
        }
    }

    #[test]
    fn the_defensive_floor_bounds_every_multiplier_and_shows_every_new_domain(
        case in instances(),
        epsilon in 0.001f64..=1.0,
        new in prop::collection::vec(any::<bool>(), 8),
    ) {
        let measured: Vec<bool> = (0..case.pi.len()).map(|i| !new[i]).collect();
        let p = va_defensive(&case.pi, &case.w, &case.a, &measured, epsilon);
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        let even = epsilon / p.len() as f64;
        let mut wanted = 0.0;
        for i in 0..p.len() {
            let alpha = case.pi[i] * case.w[i];
            prop_assert!(alpha / p[i] <= (1.0 + 1e-12) / epsilon, "{p:?}");
            wanted += if measured[i] { 0.0 } else { (even - epsilon * alpha).max(0.0) };
        }
        // As long as the rule has that much to give.
        if wanted <= 1.0 - epsilon {
            prop_assert!((0..p.len()).all(|i| measured[i] || p[i] >= even * (1.0 - 1e-12)), "{p:?}");
        }
        // With all measured it is the rule and ε of the objective.
        let all = va_defensive(&case.pi, &case.w, &case.a, &vec![true; p.len()], epsilon);
        let rule = va(&case.pi, &case.w, &case.a, 0.0);
        let mixed: Vec<f64> = (0..p.len())
            .map(|i| (1.0 - epsilon) * rule[i] + epsilon * case.pi[i] * case.w[i])
            .collect();
        prop_assert!(close(&all, &mixed, 1e-12));
    }

    #[test]
    fn the_effective_batch_is_the_batch_at_the_objective_and_less_elsewhere(
        case in instances(),
        other in prop::collection::vec(0.01f64..1.0, 8),
    ) {
        let alpha: Vec<f64> = (0..case.pi.len()).map(|i| case.pi[i] * case.w[i]).collect();
        prop_assert!((effective_batch_size(32, &alpha, &alpha) / 32.0 - 1.0).abs() < 1e-13);
        let p = shares(other[..alpha.len()].to_vec()).unwrap();
        let effective = effective_batch_size(32, &alpha, &p);
        prop_assert!(effective > 0.0 && effective < 32.0 * (1.0 + 1e-13), "{effective}");
        // It is what the variance says, where all v are equal.
        let even = Instance { a: vec![1.0; alpha.len()], ..case.clone() };
        let ratio = variance(&even, &alpha) / variance(&even, &p);
        prop_assert!((effective / 32.0 / ratio - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_headroom_is_what_sampling_by_v_saves_and_within_its_bound(case in instances()) {
        let alpha: Vec<f64> = (0..case.pi.len()).map(|i| case.pi[i] * case.w[i]).collect();
        let best = va(&case.pi, &case.w, &case.a, 0.0);
        let found = headroom(&alpha, &case.a);
        let expected = variance(&case, &alpha) / variance(&case, &best);
        prop_assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        let of = |f: fn(f64, f64) -> f64, start| case.a.iter().copied().fold(start, f);
        let ratio = of(f64::max, 0.0) / of(f64::min, f64::INFINITY);
        prop_assert!(found <= largest_headroom(ratio) * (1.0 + 1e-12), "{found} {ratio}");
        // Equal ones have none; shares that sum to 1 within some roundings.
        for equal in [f64::NAN, 0.0, 0.05] {
            let none = headroom(&alpha, &vec![equal; alpha.len()]);
            prop_assert!((1.0..1.0 + 1e-14).contains(&none), "{equal}: {none}");
        }
    }

    #[test]
    fn fgls_with_nothing_kept_is_the_inverse_variance(case in instances()) {
        let w = fgls(&case.pi, &case.w, &case.a, 1.0, OPEN);
        let inverse: Vec<f64> = case.a.iter().map(|variance| 1.0 / variance).collect();
        prop_assert!(close(&w, &normalised(&case.pi, &inverse), 1e-13));
    }

    #[test]
    fn fgls_stays_at_its_fixed_point_and_approaches_it_geometrically(case in instances(), beta in 0.01f64..=1.0) {
        let inverse: Vec<f64> = case.a.iter().map(|variance| 1.0 / variance).collect();
        let fixed = normalised(&case.pi, &inverse);
        prop_assert!(close(&fgls(&case.pi, &fixed, &case.a, beta, OPEN), &fixed, 1e-13));
        let mut w = case.w.clone();
        for round in 1..6 {
            w = fgls(&case.pi, &w, &case.a, beta, OPEN);
            for (i, now) in w.iter().enumerate() {
                let left = (1.0 - beta).powi(round) * (case.w[i] - fixed[i]);
                // w is at most 10⁴ here (5/0.05 of a mean of 1 by importances of at least 0.05/40),
                // rounded some 10 times.
                prop_assert!((now - fixed[i] - left).abs() < 1e-10, "{now} {} {left}", fixed[i]);
            }
        }
    }

    #[test]
    fn ermas_exponent_is_the_negative_gradient_of_its_bound(case in instances(), g1 in 0.0f64..0.5, g2 in 0.0f64..0.5) {
        let next = erma(&case.pi, &case.w, &case.a, &case.b, g1, g2, OPEN);
        let step = 1e-4;
        let descent = |i: usize| {
            let moved = |by: f64| {
                let mut w = case.w.clone();
                w[i] += by;
                bound(&case.pi, &w, &case.a, &case.b, (g1, g2))
            };
            (moved(-step) - moved(step)) / (2.0 * step)
        };
        for i in 1..next.len() {
            let found = (next[i] / case.w[i]).ln() - (next[0] / case.w[0]).ln();
            let expected = descent(i) - descent(0);
            // A quadratic has no error of its own in a central difference. Roundings: |w| < 200 and
            // |bound| < 10⁷, so 10⁷ · 2⁻⁵² / 10⁻⁴ = 2·10⁻⁵ at the very worst; in most cases below
            // 10⁻¹⁰.
            let size = bound(&case.pi, &case.w, &case.a, &case.b, (g1, g2)).abs() + 1.0;
            let tolerance = 16.0 * size * f64::EPSILON / step + 1e-11;
            // An exponent below ln of the smallest weight that is kept has underflowed.
            prop_assume!(expected.abs() < 400.0);
            prop_assert!((found - expected).abs() < tolerance, "{found} {expected}");
        }
    }

    #[test]
    fn small_steps_by_the_objective_descend(case in instances(), g1 in 0.0f64..1.0, g2 in 0.0f64..1.0) {
        // Mirror descent with the entropy of α descends at rates up to 1/λ where λ bounds diag(√α)
        // H diag(√α), H the Hessian γ₁ L Lᵀ + γ₂ diag(Var/π) by α: its trace is at most 5² + 5 Σ w.
        // Σ w ≤ 8 · max w ≤ 8/min π, and π ≥ 0.05/40. At a hundred times less than that, the
        // Hessian's change along a step does not matter.
        let trace = 25.0 + 5.0 * case.w.iter().sum::<f64>();
        let (r1, r2) = (0.01 * g1 / trace, 0.01 * g2 / trace);
        let next = erma_objective(&case.pi, &case.w, &case.a, &case.b, r1, r2, OPEN);
        let at = |w: &[f64]| bound(&case.pi, w, &case.a, &case.b, (g1, g2));
        prop_assert!(at(&next) <= at(&case.w) * (1.0 + 1e-13) + 1e-15, "{} {}", at(&case.w), at(&next));
    }

    #[test]
    fn both_readings_of_erma_agree_where_importances_are_equal(case in instances(), g1 in 0.0f64..0.5, g2 in 0.0f64..0.5) {
        let domains = case.pi.len() as f64;
        let pi = vec![1.0 / domains; case.pi.len()];
        let w = normalised(&pi, &case.w);
        let by_weight = erma(&pi, &w, &case.a, &case.b, domains * g1, domains * g2, OPEN);
        let by_objective = erma_objective(&pi, &w, &case.a, &case.b, g1, g2, OPEN);
        // Exponents of at most 0.5 · 25 + 0.5 · 40 · 5, to 10⁻¹⁶ of themselves.
        prop_assert!(close(&by_weight, &by_objective, 1e-12));
    }

    #[test]
    fn a_common_shift_of_the_losses_changes_no_gap(
        case in instances(),
        absent in 0usize..16,
        shift in -20.0f64..20.0,
    ) {
        // Half of the cases know every domain. By the objective the exponents of all known domains
        // move by the same γ₁ G · shift, which the normalisation takes out, whatever π is.
        let mut loss = case.a.clone();
        if let Some(loss) = loss.get_mut(absent) {
            *loss = f64::NAN;
        }
        let shifted: Vec<f64> = loss.iter().map(|loss| loss + shift).collect();
        let step = |loss: &[f64]| erma_objective(&case.pi, &case.w, loss, &case.b, 0.01, 0.01, OPEN);
        let (plain, moved) = (step(&loss), step(&shifted));
        // |G| ≤ Σ π |1 − w| |L| < 2 · 25, rounded to 10⁻¹⁵ of itself and of 25 + 20; exponents are
        // some 0.01 · 50 · 25 of that.
        prop_assert!(close(&moved, &plain, 1e-10), "{plain:?} {moved:?}");
    }

    #[test]
    fn normalisation_and_bounds_hold_whatever_comes(
        (pi, w, a, b) in (1usize..9).prop_flat_map(|domains| {
            let importance = prop::collection::vec(prop_oneof![4 => 0.01f64..1.0, 1 => Just(0.0)], domains);
            (importance, odd_numbers(domains), odd_numbers(domains), odd_numbers(domains))
        }),
        gamma in odd_numbers(2),
        min in 0.0f64..=1.0,
        max in 1.0f64..20.0,
    ) {
        prop_assume!(pi.iter().sum::<f64>() > 0.0);
        let pi = shares(pi).unwrap();
        let clamp = Clamp { min, max };
        for next in [
            fgls(&pi, &w, &a, gamma[0], clamp),
            erma(&pi, &w, &a, &b, gamma[0], gamma[1], clamp),
            erma_objective(&pi, &w, &a, &b, gamma[0], gamma[1], clamp),
        ] {
            prop_assert!(next.iter().all(|w| *w >= min && *w <= max), "{next:?}");
            // `usable` lets w through whose sum is off by 10⁻⁹; what the rule changes is solved for
            // more exactly.
            prop_assert!((mean(&pi, &next) - 1.0).abs() < 2e-9, "{next:?}");
        }
        for p in [va(&pi, &w, &a, 0.05), va_defensive(&pi, &w, &a, &[], 0.7)] {
            let sum: f64 = p.iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-13 && p.iter().all(|p| *p >= 0.0), "{p:?}");
        }
        let ratio = variance_ratio(&pi, &w, &a);
        prop_assert!(ratio >= 1.0 - 1e-13 && ratio <= pi.len() as f64 + 1e-13, "{ratio}");
    }

    #[test]
    fn a_domain_without_statistics_keeps_its_loss_weight(case in instances(), absent in 0usize..8, zero in any::<bool>()) {
        let clamp = Clamp { min: 1e-4, max: 1e4 };
        let absent = absent % case.pi.len();
        let mut a = case.a.clone();
        a[absent] = if zero { 0.0 } else { f64::NAN };
        let mut b = case.b.clone();
        b[absent] = f64::NAN;
        for next in [
            fgls(&case.pi, &case.w, &a, 0.5, clamp),
            erma(&case.pi, &case.w, &a, &b, 0.5, 0.5, clamp),
            erma_objective(&case.pi, &case.w, &a, &b, 0.5, 0.5, clamp),
        ] {
            prop_assert_eq!(next[absent], case.w[absent]);
            prop_assert!((mean(&case.pi, &next) - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn the_variance_ratio_is_that_of_the_two_allocations() {
    let rng = crate::seed::CounterRng::new(7);
    for case in 0..20u64 {
        let rng = rng.nested(case);
        let domains = 2 + case as usize % 7;
        let draw = |kind: u64| {
            (0..domains as u64).map(|i| 0.1 + rng.unit(100 * kind + i)).collect::<Vec<f64>>()
        };
        let pi = shares(draw(0)).unwrap();
        let case = Instance { w: normalised(&pi, &draw(1)), pi, a: draw(2), b: Vec::new() };
        let uniform = variance(&case, &vec![1.0 / domains as f64; domains]);
        let best = variance(&case, &va(&case.pi, &case.w, &case.a, 0.0));
        let ratio = variance_ratio(&case.pi, &case.w, &case.a);
        assert!(
            (ratio - uniform / best).abs() < 1e-12 && ratio > 1.0,
            "{ratio} {}",
            uniform / best
        );
    }
    assert_eq!(variance_ratio(&[0.5, 0.5], &[1.0, 1.0], &[3.0, 3.0]), 1.0);
    // a = (3, 1): 2 · 10 / 16.
    assert!((variance_ratio(&[0.5, 0.5], &[1.0, 1.0], &[3.0, 1.0]) - 1.25).abs() < 1e-15);
    assert_eq!(variance_ratio(&[0.5, 0.5], &[1.0, 1.0], &[0.0, 0.0]), 1.0);
}

#[test]
fn erma_matches_a_hand_calculation() {
    // π = ½, w = (1.5, 0.5), L = (2, 4), Var = (1, 3): G = ½(−½·2 + ½·4) = ½;
    // exponents ½·½·2·γ₁ − ½·1.5·1·γ₂ = 0.5γ₁ − 0.75γ₂ and ½·½·4·γ₁ − ½·0.5·3·γ₂ = γ₁ − 0.75γ₂.
    let next = erma(&[0.5, 0.5], &[1.5, 0.5], &[2.0, 4.0], &[1.0, 3.0], 0.2, 0.7, OPEN);
    let raw = [1.5 * 0.1f64.exp(), 0.5 * 0.2f64.exp()];
    assert!(close(&next, &normalised(&[0.5, 0.5], &raw), 1e-14), "{next:?}");
}

#[test]
fn only_the_objectives_descent_finds_the_least_bound_where_importances_differ() {
    let (pi, loss, noise) = ([0.8, 0.2], [3.0, 4.0], [0.3, 1.0]);
    let (mut by_weight, mut by_objective) = (vec![1.0, 1.0], vec![1.0, 1.0]);
    for _ in 0..5_000 {
        by_weight = erma(&pi, &by_weight, &loss, &noise, 0.1, 0.1, Clamp::default());
        by_objective =
            erma_objective(&pi, &by_objective, &loss, &noise, 0.1, 0.1, Clamp::default());
    }
    // The least of ½(G² + Σ π w² Var) on w = (1 + 0.2 d, 1 − 0.8 d), where G = −0.16 d·3 + 0.16 d·4
    // = 0.16 d: 0.0256 d + 0.8·0.3·0.2·(1 + 0.2 d) − 0.2·0.8·(1 − 0.8 d) = 0, so d = 0.112/0.1632.
    let d = 0.112 / 0.1632;
    assert!(close(&by_objective, &[1.0 + 0.2 * d, 1.0 - 0.8 * d], 1e-9), "{by_objective:?}");
    // The rule as printed gives the noisy domain more, not less.
    assert!(by_weight[1] > 2.0, "{by_weight:?}");
    let at = |w: &[f64]| bound(&pi, w, &loss, &noise, (1.0, 1.0));
    assert!(at(&by_objective) < at(&[1.0, 1.0]) && at(&[1.0, 1.0]) < at(&by_weight));
}

#[test]
fn a_noisy_domain_loses_weight_under_either_rule() {
    let half = [0.5, 0.5];
    let (mut by_fgls, mut by_erma) = (vec![1.0, 1.0], vec![1.0, 1.0]);
    for _ in 0..200 {
        by_fgls = fgls(&half, &by_fgls, &[1.0, 25.0], 0.1, Clamp::default());
        by_erma = erma(&half, &by_erma, &[1.0, 1.0], &[1.0, 25.0], 0.1, 0.1, Clamp::default());
    }
    // 1/σ² would be (25, 1)/13 = (1.92, 0.077): the bound holds the second, and the first makes up
    // for it.
    assert_eq!(by_fgls[1], 0.1);
    assert!((by_fgls[0] - 1.9).abs() < 1e-14, "{by_fgls:?}");
    // Equal losses: the gap is 0, and the least Σ w² Var is at w ∝ 1/Var as well.
    assert_eq!(by_erma[1], 0.1);
}

#[test]
fn a_single_domain_stays_at_one() {
    assert_eq!(fgls(&[1.0], &[1.0], &[4.0], 0.3, Clamp::default()), [1.0]);
    assert_eq!(erma(&[1.0], &[1.0], &[4.0], &[2.0], 0.3, 0.3, Clamp::default()), [1.0]);
    assert_eq!(va(&[1.0], &[1.0], &[4.0], 0.05), [1.0]);
    assert_eq!(variance_ratio(&[1.0], &[1.0], &[4.0]), 1.0);
}

#[test]
fn unknown_deviations_count_as_the_mean_and_none_as_equal() {
    let third = [1.0 / 3.0; 3];
    let p = va(&third, &[1.0; 3], &[2.0, f64::NAN, 4.0], 0.0);
    assert!(close(&p, &[2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0], 1e-15), "{p:?}");
    let none = va(&[0.5, 0.3, 0.2], &[1.0; 3], &[f64::NAN; 3], 0.0);
    assert!(close(&none, &[0.5, 0.3, 0.2], 1e-15), "{none:?}");
    let still = va(&[0.5, 0.3, 0.2], &[1.0; 3], &[0.0; 3], 0.0);
    assert!(close(&still, &[0.5, 0.3, 0.2], 1e-15), "{still:?}");
}

#[test]
fn a_domain_outside_the_objective_takes_no_part_of_the_floor() {
    let p = va(&[0.5, 0.5, 0.0], &[1.0; 3], &[1.0, 3.0, 9.0], 0.2);
    assert!(close(&p, &[0.8 * 0.25 + 0.1, 0.8 * 0.75 + 0.1, 0.0], 1e-15), "{p:?}");
}

#[test]
fn lists_too_short_or_empty_are_taken_as_unknown() {
    assert_eq!(fgls(&[0.5, 0.5], &[], &[], 0.5, Clamp::default()), [1.0, 1.0]);
    assert_eq!(erma(&[], &[], &[], &[], 1.0, 1.0, Clamp::default()), Vec::<f64>::new());
    assert_eq!(va(&[], &[], &[], 0.1), Vec::<f64>::new());
    assert_eq!(va(&[0.0, 0.0], &[1.0, 1.0], &[1.0, 2.0], 0.1), [0.5, 0.5]);
}
