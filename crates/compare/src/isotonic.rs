//! Isotonic regression: the falling curve nearest to a noisy one.
//!
//! In: a mean error at every measured step. Out: the non-increasing sequence with the least sum of
//! squared distances from it, by pooling adjacent violators (Ayer et al., *An empirical
//! distribution function for sampling with incomplete information*, 1955). A single lucky step does
//! not take it below a level that the steps after it do not hold. Cost: O(n).

/// The non-increasing sequence nearest to `values` in least squares. What is not a number counts as
/// infinite, so that a diverging curve is never low before its end.
pub fn falling(values: &[f64]) -> Vec<f64> {
    // Blocks of (sum, length), whose means fall.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    let mean = |(sum, length): (f64, usize)| sum / length as f64;
    for value in values {
        let mut block = (if value.is_nan() { f64::INFINITY } else { *value }, 1);
        while let Some(before) = blocks.pop_if(|before| mean(*before) < mean(block)) {
            block = (block.0 + before.0, block.1 + before.1);
        }
        blocks.push(block);
    }
    blocks.iter().flat_map(|block| std::iter::repeat_n(mean(*block), block.1)).collect()
}

/// The first index at which a falling curve is at most `target`.
pub fn first_at_most(curve: &[f64], target: f64) -> Option<usize> {
    let index = curve.partition_point(|value| *value > target);
    (index < curve.len()).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distance(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    fn curves() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![-5.0f64..5.0, Just(1.0)], 1..40)
    }

    proptest! {
        #[test]
        fn the_fit_falls_and_keeps_the_sum(values in curves()) {
            let fit = falling(&values);
            prop_assert_eq!(fit.len(), values.len());
            prop_assert!(fit.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", fit);
            // Every block has the sum of its values; 40 values of at most 5, rounded.
            prop_assert!((fit.iter().sum::<f64>() - values.iter().sum::<f64>()).abs() < 1e-12);
        }

        #[test]
        fn no_falling_curve_is_nearer(values in curves(), other in curves(), share in 0.0f64..1.0) {
            let fit = falling(&values);
            // Any falling curve, and those between it and the fit: they form a convex set.
            let mut falls: Vec<f64> = other.iter().cycle().take(values.len()).copied().collect();
            falls.sort_by(|a, b| b.total_cmp(a));
            let between: Vec<f64> =
                fit.iter().zip(&falls).map(|(a, b)| a + share * (b - a)).collect();
            prop_assert!(distance(&fit, &values) <= distance(&falls, &values) + 1e-10);
            prop_assert!(distance(&fit, &values) <= distance(&between, &values) + 1e-10);
        }

        #[test]
        fn a_falling_curve_is_its_own_fit(values in curves()) {
            let mut falls = values;
            falls.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(falling(&falls), falls.clone());
            // And a fit is that of itself.
            prop_assert_eq!(falling(&falling(&falls)), falls);
        }

        #[test]
        fn the_first_step_below_a_target_is_found(values in curves(), target in -6.0f64..6.0) {
            let fit = falling(&values);
            let expected = fit.iter().position(|value| *value <= target);
            prop_assert_eq!(first_at_most(&fit, target), expected);
            // Whatever the curve ends at, it has reached.
            prop_assert!(first_at_most(&fit, fit[fit.len() - 1]).is_some());
        }
    }

    #[test]
    fn one_lucky_step_does_not_count() {
        assert_eq!(falling(&[9.0, 1.0, 5.0, 3.0]), [9.0, 3.0, 3.0, 3.0]);
        assert_eq!(first_at_most(&falling(&[9.0, 1.0, 5.0, 4.0]), 2.0), None);
    }

    #[test]
    fn a_curve_that_diverges_is_never_low() {
        for end in [f64::NAN, f64::INFINITY] {
            assert_eq!(first_at_most(&falling(&[3.0, 1.0, end]), 2.0), None);
        }
        assert_eq!(falling(&[f64::NAN, 2.0]), [f64::INFINITY, 2.0]);
        assert_eq!((falling(&[]), first_at_most(&[], 1.0)), (vec![], None));
    }
}
