//! Shares under caps: what is cut off where a cap holds goes to the others in proportion.

/// How far the caps' sum may be below 1 and still count as 1: far above its rounding.
const TOLERANCE: f64 = 1e-9;

/// The shares p'_i = min(cap_i, s · p_i) with the one s for which they sum to 1.
///
/// Of all shares within the caps these are the nearest to p in relative entropy: the domains that
/// no cap holds keep their proportions. `shares` sum to 1; a domain with none keeps none. Where
/// every share is within its cap nothing changes, to the bit. `None` where the caps of the domains
/// that have a share sum to less than 1. A cap that is missing does not bind.
///
/// ```
/// use cuvee_mixer::rule::water_filled;
///
/// let capped = water_filled(&[0.6, 0.2, 0.2], &[0.4, 1.0, 1.0]).unwrap();
/// assert!(capped.iter().zip([0.4, 0.3, 0.3]).all(|(p, expected)| (p - expected).abs() < 1e-15));
/// assert_eq!(water_filled(&[0.6, 0.4], &[0.5, 0.4]), None);
/// ```
pub fn water_filled(shares: &[f64], caps: &[f64]) -> Option<Vec<f64>> {
    let cap = |i: usize| caps.get(i).copied().unwrap_or(f64::INFINITY);
    let mut filled = shares.to_vec();
    if (0..shares.len()).all(|i| shares[i] <= cap(i)) {
        return Some(filled);
    }
    // A rising s meets the caps in the order of cap/p.
    let mut order: Vec<usize> = (0..shares.len()).filter(|i| shares[*i] > 0.0).collect();
    order.sort_by(|a, b| (cap(*a) / shares[*a]).total_cmp(&(cap(*b) / shares[*b])));
    // Σ p from each place of the order on: summed anew, since differences would lose small shares.
    let mut rest = vec![0.0; order.len() + 1];
    for (place, i) in order.iter().enumerate().rev() {
        rest[place] = rest[place + 1] + shares[*i];
    }
    let mut left = 1.0;
    for (place, i) in order.iter().enumerate() {
        let scale = left / rest[place];
        if scale * shares[*i] <= cap(*i) {
            order[place..].iter().for_each(|i| filled[*i] = scale * shares[*i]);
            return Some(filled);
        }
        filled[*i] = cap(*i).max(0.0);
        left -= filled[*i];
    }
    // Every cap holds.
    let sum = 1.0 - left;
    (left <= TOLERANCE).then(|| {
        filled.iter_mut().for_each(|p| *p /= sum);
        filled
    })
}

#[cfg(test)]
mod tests {
    use super::super::shares::shares;
    use super::*;
    use proptest::prelude::*;

    /// Shares that sum to 1, some 0, and caps whose sum over those with a share is 1 or more.
    fn cases() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let domain = (
            prop_oneof![4 => 1e-6f64..1.0, 1 => Just(0.0)],
            prop_oneof![4 => 1e-6f64..1.0, 1 => Just(f64::INFINITY)],
        );
        (prop::collection::vec(domain, 1..12), 1.0f64..3.0)
            .prop_filter("some share", |(domains, _)| domains.iter().any(|(p, _)| *p > 0.0))
            .prop_map(|(domains, slack)| {
                let p = shares(domains.iter().map(|(p, _)| *p).collect()).unwrap_or_default();
                let inside = domains.iter().filter(|(p, _)| *p > 0.0);
                let sum: f64 = inside.map(|(_, cap)| cap).sum();
                let scale = if sum.is_finite() { slack / sum } else { 1.0 };
                (p, domains.iter().map(|(_, cap)| scale * cap).collect())
            })
    }

    proptest! {
        #[test]
        fn capped_shares_sum_to_one_keep_their_caps_and_the_order_of_the_rest((p, caps) in cases()) {
            let filled = water_filled(&p, &caps);
            prop_assert!(filled.is_some(), "{p:?} {caps:?}");
            let filled = filled.unwrap_or_default();
            // A dozen terms that are each rounded a few times.
            prop_assert!((filled.iter().sum::<f64>() - 1.0).abs() < 1e-13, "{filled:?}");
            for i in 0..p.len() {
                prop_assert!(filled[i] >= 0.0 && (p[i] > 0.0) == (filled[i] > 0.0));
                prop_assert!(filled[i] <= caps[i] * (1.0 + 1e-9), "{filled:?} {caps:?}");
                let free = |i: usize| filled[i] < caps[i] * (1.0 - 1e-12);
                // Whoever is not at a cap has lost nothing, and no less than any other's factor.
                prop_assert!(!free(i) || filled[i] >= p[i] * (1.0 - 1e-12), "{p:?} {filled:?}");
                for j in (0..p.len()).filter(|j| free(i) && p[*j] > 0.0 && p[i] > 0.0) {
                    let (a, b) = (filled[i] / p[i], filled[j] / p[j]);
                    prop_assert!(b <= a * (1.0 + 1e-9), "{p:?} {caps:?} {filled:?}");
                    // Order is kept among the free.
                    prop_assert!(!free(j) || p[i] >= p[j] || filled[i] <= filled[j]);
                }
            }
            // What is within the caps stays, to the bit; so asking twice changes only rounding.
            let slack = vec![f64::INFINITY; p.len()];
            prop_assert_eq!(water_filled(&p, &slack), Some(p.clone()));
            prop_assert_eq!(water_filled(&p, &p), Some(p.clone()));
        }

        #[test]
        fn caps_below_one_in_all_are_refused((p, caps) in cases(), part in 0.1f64..0.999) {
            let sum: f64 = p.iter().zip(&caps).filter(|(p, _)| **p > 0.0).map(|(_, cap)| cap).sum();
            prop_assume!(sum.is_finite());
            let low: Vec<f64> = caps.iter().map(|cap| cap * part / sum).collect();
            prop_assert_eq!(water_filled(&p, &low), None);
        }

        #[test]
        fn a_cap_takes_from_a_domain_only_what_the_floor_of_the_others_allows(
            (p, caps) in cases(),
            epsilon in 0.01f64..0.5,
        ) {
            // A defensive floor p ≥ ε α stays wherever no cap holds: shares only grow there.
            let alpha = vec![1.0 / p.len() as f64; p.len()];
            let mixed: Vec<f64> =
                p.iter().zip(&alpha).map(|(p, alpha)| (1.0 - epsilon) * p + epsilon * alpha).collect();
            if let Some(filled) = water_filled(&mixed, &caps) {
                for i in 0..p.len() {
                    let floor = (epsilon * alpha[i]).min(caps[i]);
                    prop_assert!(filled[i] >= floor * (1.0 - 1e-12), "{filled:?} {caps:?}");
                }
            }
        }
    }

    #[test]
    fn caps_that_just_fit_are_the_shares() {
        let caps = [0.1, 0.2, 0.7];
        let filled = water_filled(&[0.5, 0.3, 0.2], &caps).unwrap_or_default();
        assert!(filled.iter().zip(caps).all(|(p, cap)| (p - cap).abs() < 1e-12), "{filled:?}");
        // A domain outside the objective takes nothing, and its cap helps nobody.
        assert_eq!(water_filled(&[1.0, 0.0], &[0.5, 0.9]), None);
    }
}
