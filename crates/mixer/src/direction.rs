//! A short summary of a gradient, by which two gradients of different steps are compared.
//!
//! In: the elements of a gradient, any number. Out: its squared norm, and 32 numbers whose
//! distances stand for those of the gradients. Each element is added, with a sign, to one of the
//! numbers; bucket and sign are a hash of its place (Charikar, Chen, Farach-Colton, *Finding
//! frequent items in data streams*, 2002). Over hashes the squared distance of two summaries is
//! that of the gradients on average, off by a quarter of itself at most times. So nothing as long
//! as a gradient has to be kept between steps.

use crate::seed;
use serde::{Deserialize, Serialize};

/// Numbers of a summary.
const BUCKETS: usize = 32;

/// Where a gradient points, in 32 numbers, and its squared norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    buckets: [f64; BUCKETS],
    square: f64,
}

impl Direction {
    /// The summary of a gradient with these elements. Only summaries of the same elements in the
    /// same order can be compared.
    pub fn of(elements: impl IntoIterator<Item = f64>) -> Self {
        let (mut buckets, mut square) = ([0.0; BUCKETS], 0.0);
        for (place, element) in (0u64..).zip(elements) {
            let hash = seed::mix(place);
            let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
            buckets[hash as usize % BUCKETS] += sign * element;
            square += element * element;
        }
        Self { buckets, square }
    }

    /// ‖x‖².
    pub(crate) fn square(&self) -> f64 {
        self.square
    }

    /// Estimate of ‖x − y‖².
    pub(crate) fn square_distance(&self, other: &Self) -> f64 {
        self.buckets.iter().zip(&other.buckets).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    /// That of the gradient times `factor`.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let buckets = self.buckets.map(|value| factor * value);
        Self { buckets, square: factor * factor * self.square }
    }

    /// Whether it is that of a gradient of finite numbers.
    pub(crate) fn is_finite(&self) -> bool {
        self.square.is_finite() && self.buckets.iter().all(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::CounterRng;

    #[test]
    fn distances_of_summaries_are_those_of_the_gradients() {
        // A bucket's part of ‖x − y‖² has a relative error of √2, and 32 of them √(2/32) = 0.25.
        // Over 100 pairs the mean is off by 0.025; bounds at five of each.
        let rng = CounterRng::new(3);
        let (mut mean, pairs) = (0.0, 100);
        for pair in 0..pairs {
            let vector = |which: u64| -> Vec<f64> {
                let rng = rng.nested(2 * pair + which);
                (0..3_000).map(|i| rng.normal(i)).collect()
            };
            let (x, y) = (vector(0), vector(1));
            let exact: f64 = x.iter().zip(&y).map(|(a, b)| (a - b) * (a - b)).sum();
            let found = Direction::of(x).square_distance(&Direction::of(y)) / exact;
            assert!((found - 1.0).abs() < 1.25, "{found}");
            mean += found / pairs as f64;
        }
        assert!((mean - 1.0).abs() < 0.125, "{mean}");
    }

    #[test]
    fn equal_gradients_have_no_distance_and_a_scaled_one_keeps_its_direction() {
        let x = Direction::of((0..500).map(f64::from));
        assert_eq!(x.square_distance(&x), 0.0);
        let twice = Direction::of((0..500).map(|i| 2.0 * f64::from(i)));
        assert_eq!(x.scaled(2.0), twice);
        assert!((twice.square() / x.square() - 4.0).abs() < 1e-12);
    }
}
