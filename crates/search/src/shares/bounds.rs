//! Shares within a floor and caps.

use crate::error::{Result, SearchError};

/// How far sums of caps may be below 1 and still count as 1: far above their rounding.
const TOLERANCE: f64 = 1e-9;

/// Smallest raw share relative to the largest: what is 0 can still be raised by a floor.
const SMALLEST: f64 = 1e-200;

/// A share below this is 0: no run draws a token of it.
const NOTHING: f64 = 1e-100;

/// The shares r with floor_i ≤ r_i ≤ cap_i and Σ r = 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    lower: Vec<f64>,
    upper: Vec<f64>,
}

impl Bounds {
    /// Every share at least `floor` and at most its cap. A cap below the floor wins over it, and a
    /// floor that takes more than half of the whole is lowered to that.
    ///
    /// # Errors
    /// Caps that are negative or no numbers, or sum to less than 1.
    pub fn new(floor: f64, caps: &[f64]) -> Result<Self> {
        let bad = |found: String, hint| SearchError::BadValue {
            expected: "caps between 0 and 1 whose sum is at least 1".to_owned(),
            found,
            place: "the largest shares of the domains".to_owned(),
            hint,
        };
        if let Some(cap) = caps.iter().find(|cap| cap.is_nan() || **cap < 0.0) {
            return Err(bad(cap.to_string(), "a cap is tokens · max_epochs / budget"));
        }
        let upper: Vec<f64> = caps.iter().map(|cap| cap.min(1.0)).collect();
        let sum: f64 = upper.iter().sum();
        if sum < 1.0 - TOLERANCE {
            let hint =
                "the domains cannot fill the run: raise max_epochs, or train on fewer tokens";
            return Err(bad(format!("caps that sum to {sum:.4}"), hint));
        }
        let floor = floor.clamp(0.0, 0.5 / caps.len().max(1) as f64);
        Ok(Self { lower: upper.iter().map(|cap| floor.min(*cap)).collect(), upper })
    }

    /// Number of domains.
    pub fn domains(&self) -> usize {
        self.upper.len()
    }

    /// The smallest shares.
    pub fn lower(&self) -> &[f64] {
        &self.lower
    }

    /// The largest shares.
    pub fn upper(&self) -> &[f64] {
        &self.upper
    }

    /// Whether `shares` keep the bounds, up to rounding.
    pub fn contains(&self, shares: &[f64]) -> bool {
        let inside = |(r, (lower, upper)): (&f64, (&f64, &f64))| {
            *r >= lower - TOLERANCE && *r <= upper + TOLERANCE
        };
        shares.iter().zip(self.lower.iter().zip(&self.upper)).all(inside)
            && (shares.iter().sum::<f64>() - 1.0).abs() < TOLERANCE
    }

    /// Of all shares within the bounds the nearest to `raw` in relative entropy: r_i = min(max(s ·
    /// raw_i, floor_i), cap_i) with the one s for which they sum to 1. Whoever is at no bound keeps
    /// its proportion to the others. What is no number counts as 0.
    pub fn project(&self, raw: &[f64]) -> Vec<f64> {
        let usable = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let largest = raw.iter().map(|value| usable(*value)).fold(0.0, f64::max);
        let relative: Vec<f64> = (0..self.domains())
            .map(|i| match raw.get(i) {
                Some(value) if largest > 0.0 => (usable(*value) / largest).max(SMALLEST),
                _ => SMALLEST,
            })
            .collect();
        let bounded = |s: f64, i: usize| (s * relative[i]).max(self.lower[i]).min(self.upper[i]);
        let total = |s: f64| (0..self.domains()).map(|i| bounded(s, i)).sum::<f64>();

        // The sum grows with s, in a straight line between the s at which a share meets a bound.
        let mut bends: Vec<f64> = (0..self.domains())
            .flat_map(|i| [self.lower[i] / relative[i], self.upper[i] / relative[i]])
            .collect();
        bends.sort_by(f64::total_cmp);
        let above = bends.partition_point(|bend| total(*bend) < 1.0);
        let Some(upper) = bends.get(above).copied() else {
            return self.upper.clone(); // all at their caps, whose sum is 1 but for rounding
        };
        let lower = above.checked_sub(1).map_or(0.0, |below| bends[below]);
        let inside = lower + 0.5 * (upper - lower);
        let (mut held, mut slope) = (0.0, 0.0);
        for (i, raw) in relative.iter().enumerate() {
            let share = inside * raw;
            match share > self.lower[i] && share < self.upper[i] {
                true => slope += raw,
                false => held += bounded(inside, i),
            }
        }
        let s = (1.0 - held) / slope;
        let s = if s.is_finite() { s.clamp(lower, upper) } else { upper };
        let vanished = |share: f64, i: usize| share < NOTHING && self.lower[i] == 0.0;
        (0..self.domains())
            .map(|i| bounded(s, i))
            .enumerate()
            .map(|(i, share)| if vanished(share, i) { 0.0 } else { share })
            .collect()
    }

    /// Of all shares within the bounds the ones with the least Σ price_i r_i: the floor everywhere,
    /// and the rest to the cheapest domains up to their caps.
    pub fn cheapest(&self, price: &[f64]) -> Vec<f64> {
        let mut shares = self.lower.clone();
        let mut left = 1.0 - shares.iter().sum::<f64>();
        let mut order: Vec<usize> = (0..self.domains()).collect();
        order.sort_by(|a, b| price[*a].total_cmp(&price[*b]));
        for i in order {
            let more = (self.upper[i] - shares[i]).min(left);
            shares[i] += more;
            left -= more;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{relative_entropy, uniform};
    use super::*;
    use proptest::prelude::*;

    fn cases() -> impl Strategy<Value = (Vec<f64>, f64, Vec<f64>)> {
        (1usize..12).prop_flat_map(|domains| {
            let raw = prop_oneof![4 => 1e-6f64..1.0, 1 => Just(0.0), 1 => 1e-300f64..1e-200];
            let caps =
                prop::collection::vec(prop_oneof![3 => 1e-3f64..1.0, 1 => Just(1.0)], domains);
            let caps = (caps, 1.0f64..3.0).prop_map(|(caps, slack)| {
                let sum: f64 = caps.iter().sum();
                caps.iter().map(|cap| cap * (slack / sum).max(1.0)).collect()
            });
            let floor = prop_oneof![Just(0.0), Just(1e-4), 0.0f64..1.0];
            (prop::collection::vec(raw, domains), floor, caps)
        })
    }

    proptest! {
        #[test]
        fn projected_shares_sum_to_one_keep_the_bounds_and_are_the_nearest(
            (raw, floor, caps) in cases(),
            other in prop::collection::vec(1e-6f64..1.0, 12),
        ) {
            let bounds = Bounds::new(floor, &caps).unwrap();
            let shares = bounds.project(&raw);
            prop_assert!(bounds.contains(&shares), "{shares:?}");
            // Whoever is free has one factor; a larger one sits at a floor, a smaller one at a cap.
            let largest = raw.iter().copied().fold(0.0, f64::max);
            let factor = |i: usize| shares[i] / (raw[i] / largest).max(SMALLEST);
            let free = |i: &usize| shares[*i] > bounds.lower[*i] && shares[*i] < bounds.upper[*i];
            for i in (0..raw.len()).filter(free) {
                for j in (0..raw.len()).filter(|j| shares[*j] > 0.0) {
                    let up = factor(j) >= factor(i) * (1.0 - 1e-9);
                    let down = factor(j) <= factor(i) * (1.0 + 1e-9);
                    prop_assert!(up || shares[j] >= bounds.upper[j], "{shares:?}");
                    prop_assert!(down || shares[j] <= bounds.lower[j], "{shares:?}");
                }
            }
            // No other mixture within the bounds is nearer.
            if raw.iter().all(|value| *value > 1e-7) {
                let other = bounds.project(&other[..raw.len()]);
                let raw = super::super::normalised(&raw).unwrap();
                let nearest = relative_entropy(&shares, &raw);
                prop_assert!(nearest <= relative_entropy(&other, &raw) + 1e-9);
            }
            // Asking twice changes rounding alone.
            let again = bounds.project(&shares);
            prop_assert!(again.iter().zip(&shares).all(|(a, b)| (a - b).abs() < 1e-9));
        }

        #[test]
        fn nothing_within_the_bounds_is_cheaper_than_the_cheapest(
            (raw, floor, caps) in cases(),
            price in prop::collection::vec(-1.0f64..1.0, 12),
        ) {
            let bounds = Bounds::new(floor, &caps).unwrap();
            let cheapest = bounds.cheapest(&price);
            prop_assert!(bounds.contains(&cheapest));
            let cost = |shares: &[f64]| -> f64 { shares.iter().zip(&price).map(|(r, c)| r * c).sum() };
            prop_assert!(cost(&cheapest) <= cost(&bounds.project(&raw)) + 1e-9);
        }
    }

    #[test]
    fn caps_that_cannot_fill_the_run_are_refused_with_their_sum() {
        let error = Bounds::new(0.0, &[0.3, 0.4]).unwrap_err().to_string();
        assert!(error.contains("0.7000") && error.contains("\nhint: "), "{error}");
        assert!(Bounds::new(0.0, &[f64::NAN, 1.0]).is_err());
        // Caps that just fit leave one mixture.
        let bounds = Bounds::new(1e-4, &[0.25, 0.75]).unwrap();
        assert!(bounds.contains(&bounds.project(&uniform(2))));
    }
}
