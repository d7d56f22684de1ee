//! Bounds on loss weights that hold together with their normalisation.
//!
//! In: raw weights, importance, bounds. Out: weights within the bounds whose mean under the
//! importance is what it has to be. Cost: O(K log K) for K domains.

/// Bounds on a loss weight. Since Σ π_i w_i = 1, nothing satisfies both unless `min` ≤ 1 ≤ `max`: a
/// larger `min` and a smaller `max` count as 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// w_min, from 0 to 1.
    pub min: f64,
    /// w_max, at least 1; may be infinite.
    pub max: f64,
}

impl Default for Clamp {
    fn default() -> Self {
        Self { min: 0.1, max: 10.0 }
    }
}

/// Smallest weight relative to the largest: what underflows below it can still be raised by a
/// bound, and `max` divided by it stays finite.
const SMALLEST: f64 = 1e-200;

impl Clamp {
    /// Whether `loss_weight` sits at a bound. The rules return a bound exactly where it bites.
    pub fn holds(self, loss_weight: f64) -> bool {
        let clamp = self.feasible();
        loss_weight <= clamp.min || loss_weight >= clamp.max
    }

    /// Bounds that 1 lies within; NaN counts as no bound beyond that.
    pub(super) fn feasible(self) -> Self {
        let min = if self.min.is_nan() { 0.0 } else { self.min.clamp(0.0, 1.0) };
        let max = if self.max.is_nan() { f64::INFINITY } else { self.max.max(1.0) };
        Self { min, max }
    }

    /// Whether all of `loss_weight` lie within the bounds.
    pub(super) fn contains(self, loss_weight: &[f64]) -> bool {
        loss_weight.iter().all(|w| *w >= self.min && *w <= self.max)
    }

    /// w_i = min(max(s·raw_i, w_min), w_max) with the one s for which Σ π_i w_i = `mass`.
    ///
    /// Clamping first and dividing by the sum afterwards would leave the bounds again. Of the w
    /// that satisfy both, this one is nearest to `raw` in Σ π_i (w_i ln(w_i/raw_i) − w_i + raw_i),
    /// the relative entropy of the objectives α = π w: its stationarity conditions ask for one
    /// factor on all that are free. Where the bounds leave no w of that mass, all sit at the nearer
    /// bound.
    pub(super) fn project(self, importance: &[f64], raw: &[f64], mass: f64) -> Vec<f64> {
        let largest = raw.iter().copied().fold(0.0, f64::max);
        let relative =
            |value: &f64| if largest > 0.0 { (value / largest).max(SMALLEST) } else { 1.0 };
        let raw: Vec<f64> = raw.iter().map(relative).collect();
        let bounded = |scale: f64, value: f64| (scale * value).max(self.min).min(self.max);
        let total = |scale: f64| -> f64 {
            importance.iter().zip(&raw).map(|(pi, value)| pi * bounded(scale, *value)).sum()
        };

        // The sum grows with the scale, in a straight line between the scales at which a domain
        // meets a bound.
        let mut bends: Vec<f64> =
            raw.iter().flat_map(|value| [self.min / value, self.max / value]).collect();
        bends.retain(|bend| bend.is_finite());
        bends.sort_by(f64::total_cmp);
        let above = bends.partition_point(|bend| total(*bend) < mass);
        let lower = above.checked_sub(1).and_then(|below| bends.get(below)).copied().unwrap_or(0.0);
        let upper = bends.get(above).copied().unwrap_or(f64::INFINITY);

        let inside =
            if upper.is_finite() { lower + 0.5 * (upper - lower) } else { (2.0 * lower).max(1.0) };
        let (mut bound_mass, mut slope) = (0.0, 0.0);
        for (pi, value) in importance.iter().zip(&raw) {
            let w = inside * value;
            match w > self.min && w < self.max {
                true => slope += pi * value,
                false => bound_mass += pi * bounded(inside, *value),
            }
        }
        let scale = (mass - bound_mass) / slope;
        let scale = if scale.is_finite() { scale.max(lower).min(upper) } else { lower };
        raw.iter().map(|value| bounded(scale, *value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
        let raw =
            prop_oneof![1e-3f64..1e3, Just(0.0), (-200.0f64..200.0).prop_map(|x| 10f64.powf(x))];
        (1usize..12).prop_flat_map(move |count| {
            let pi = prop::collection::vec(prop_oneof![4 => 1e-3f64..1.0, 1 => Just(1e-12)], count);
            (pi, prop::collection::vec(raw.clone(), count)).prop_map(|(pi, raw)| {
                let sum: f64 = pi.iter().sum();
                (pi.iter().map(|value| value / sum).collect(), raw)
            })
        })
    }

    proptest! {
        #[test]
        fn the_projection_satisfies_both_and_is_the_nearest(
            (pi, raw) in domains(),
            min in prop_oneof![Just(0.1), 0.0f64..=1.0],
            max in prop_oneof![Just(10.0), 1.0f64..20.0, Just(f64::INFINITY)],
        ) {
            let clamp = Clamp { min, max };
            let w = clamp.project(&pi, &raw, 1.0);
            prop_assert!(clamp.contains(&w), "{w:?}");
            let sum: f64 = pi.iter().zip(&w).map(|(pi, w)| pi * w).sum();
            // Terms that add up to 1 (a dozen), one solved from the others: some tens of roundings
            // of at most 1. Where the scale is large, it meets a bound 10⁻¹⁶ of itself early or
            // late, which the sum sees at the same size.
            prop_assert!((sum - 1.0).abs() < 1e-13, "{sum}");
            // Stationarity: one factor for all that are free, a larger one at min, a smaller one at
            // max.
            let largest = raw.iter().copied().fold(0.0, f64::max);
            let factor = |i: usize| w[i] / (raw[i] / largest);
            let seen = |i: &usize| raw[*i] / largest > SMALLEST;
            let free: Vec<f64> =
                (0..w.len()).filter(seen).filter(|i| w[*i] > min && w[*i] < max).map(factor).collect();
            for i in (0..w.len()).filter(seen) {
                for scale in &free {
                    let (up, down) = (factor(i) >= scale * (1.0 - 1e-12), factor(i) <= scale * (1.0 + 1e-12));
                    let (at_min, at_max) = (w[i] <= min, w[i] >= max);
                    prop_assert!((up || at_max) && (down || at_min), "{w:?}");
                }
            }
        }
    }

    #[test]
    fn a_bound_that_bites_moves_the_others_and_not_itself() {
        // Scaling (4, 1, 1) to a mean of 1 gives (2, ½, ½); at most 1.5 leaves 1.5 for the other
        // two: ¾ each.
        let third = [1.0 / 3.0; 3];
        let w = Clamp { min: 0.1, max: 1.5 }.project(&third, &[4.0, 1.0, 1.0], 1.0);
        assert_eq!(w[0], 1.5);
        assert!((w[1] - 0.75).abs() < 1e-15 && w[1] == w[2], "{w:?}");
    }

    #[test]
    fn bounds_that_one_does_not_lie_within_are_widened_to_it() {
        let narrow = Clamp { min: 3.0, max: 0.5 }.feasible();
        assert_eq!((narrow.min, narrow.max), (1.0, 1.0));
        let odd = Clamp { min: f64::NAN, max: f64::NAN }.feasible();
        assert_eq!((odd.min, odd.max), (0.0, f64::INFINITY));
        assert!(
            Clamp::default().holds(0.1)
                && Clamp::default().holds(10.0)
                && !Clamp::default().holds(1.0)
        );
    }
}
