//! Holm's correction: the chance of any false call among several tests stays at α.
//!
//! S. Holm, *A simple sequentially rejective multiple test procedure*, 1979. The smallest of m p
//! counts m times, the next m − 1 times, and so on; a corrected p is never below one that stands
//! before it.

/// The corrected p of each test in a family of `family` tests, those without a p included: they
/// count as the largest. No p is corrected to above 1.
pub fn holm(p_values: &[Option<f64>], family: usize) -> Vec<Option<f64>> {
    step_down(p_values, family, |p, remaining| p * remaining as f64)
}

/// Steps down from the smallest p: `corrected` says what a p counts where so many tests remain.
pub(crate) fn step_down(
    p_values: &[Option<f64>],
    family: usize,
    corrected: impl Fn(f64, usize) -> f64,
) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        p_values.iter().enumerate().filter_map(|(index, p)| Some((index, (*p)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut result = vec![None; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, (index, p)) in order.into_iter().enumerate() {
        let remaining = family.max(p_values.len()) - rank;
        largest = largest.max(corrected(p, remaining)).min(1.0);
        result[index] = Some(largest);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smallest_counts_most() {
        // By hand: 4·.01, 3·.02, then 2·.03 = .06 and .9.
        let p = [0.03, 0.01, 0.9, 0.02].map(Some);
        let found = holm(&p, 4);
        let expected = [0.06, 0.04, 0.9, 0.06];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.unwrap_or(9.0) - expected).abs() < 1e-15, "{found:?}");
        }
        // A test without a result counts, and has none.
        assert_eq!(holm(&[None, Some(0.01)], 2), [None, Some(0.02)]);
        assert_eq!(holm(&[Some(0.01)], 3), [Some(0.03)]);
        assert_eq!(holm(&[], 0), []);
    }

    proptest! {
        #[test]
        fn corrected_p_are_monotone_and_never_below_the_raw_ones(
            p in prop::collection::vec(prop::option::of(0.0f64..=1.0), 0..12),
            more in 0usize..5,
        ) {
            let found = holm(&p, p.len() + more);
            let both: Vec<(f64, f64)> =
                p.iter().zip(&found).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
            prop_assert_eq!(both.len(), p.iter().flatten().count());
            for (raw, corrected) in &both {
                prop_assert!(raw <= corrected && *corrected <= 1.0);
                for (other, other_corrected) in &both {
                    prop_assert!(raw > other || corrected <= other_corrected);
                }
            }
            // Bonferroni is never below.
            let family = (p.len() + more) as f64;
            prop_assert!(both.iter().all(|(raw, c)| *c <= (raw * family).min(1.0) + 1e-15));
        }
    }
}
