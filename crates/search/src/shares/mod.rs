//! Shares of domains: numbers that are at least 0 and sum to 1.
//!
//! | file | what it does |
//! | --- | --- |
//! | `bounds` | shares within a floor and caps: the nearest, and the best for a linear price |
//! | `dirichlet` | random shares |
//! | `groups` | domains whose inner ratios stay as they are |

mod bounds;
mod dirichlet;
mod groups;

pub use bounds::Bounds;
pub use dirichlet::dirichlet;
pub use groups::Groups;

/// Shares nearer than this in total variation count as one mixture.
pub(crate) const SAME: f64 = 1e-9;

/// Equal shares of `domains` domains.
pub fn uniform(domains: usize) -> Vec<f64> {
    vec![1.0 / domains.max(1) as f64; domains]
}

/// `raw` divided by its sum; `None` where a value is negative or no number, or all are 0.
pub fn normalised(raw: &[f64]) -> Option<Vec<f64>> {
    let largest = raw.iter().copied().fold(0.0, f64::max);
    let usable = raw.iter().all(|value| value.is_finite() && *value >= 0.0);
    if !usable || largest == 0.0 {
        return None;
    }
    // By the largest first, so that the sum neither overflows nor vanishes.
    let sum: f64 = raw.iter().map(|value| value / largest).sum();
    Some(raw.iter().map(|value| value / largest / sum).collect())
}

/// Total variation ½ Σ |a − b|: the share of the tokens that would have to change their domain.
pub fn total_variation(a: &[f64], b: &[f64]) -> f64 {
    0.5 * a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>()
}

/// Relative entropy KL(r ‖ q) = Σ r ln(r/q), in nats; infinite where q is 0 and r is not.
pub fn relative_entropy(r: &[f64], q: &[f64]) -> f64 {
    let term = |(r, q): (&f64, &f64)| if *r > 0.0 { r * (r / q).ln() } else { 0.0 };
    r.iter().zip(q).map(term).sum()
}

/// (1 − t)·a + t·b.
pub fn between(a: &[f64], b: &[f64], t: f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| (1.0 - t) * a + t * b).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn extreme_scales_are_normalised_and_what_is_no_number_is_not() {
        assert_eq!(normalised(&[f64::MAX, f64::MAX, 0.0]).unwrap(), [0.5, 0.5, 0.0]);
        assert_eq!(normalised(&[5e-324, 0.0, 5e-324]).unwrap(), [0.5, 0.0, 0.5]);
        for bad in [&[0.0, 0.0][..], &[1.0, -0.1], &[1.0, f64::NAN], &[f64::INFINITY, 1.0], &[]] {
            assert_eq!(normalised(bad), None);
        }
    }

    #[test]
    fn distances_of_a_hand_calculation() {
        assert!((total_variation(&[0.7, 0.2, 0.1], &[0.5, 0.2, 0.3]) - 0.2).abs() < 1e-15);
        let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((relative_entropy(&[0.75, 0.25], &[0.5, 0.5]) - expected).abs() < 1e-15);
        assert_eq!(relative_entropy(&[1.0, 0.0], &[1.0, 0.0]), 0.0);
        assert_eq!(relative_entropy(&[0.5, 0.5], &[1.0, 0.0]), f64::INFINITY);
    }
}
