//! Shares from logarithms, as rules that multiply shares by an exponential keep them.

/// exp(x_i) / Σ exp(x_j); `None` where a logarithm is not finite, or there is none.
pub fn softmax(logarithms: &[f64]) -> Option<Vec<f64>> {
    let largest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let usable = !logarithms.is_empty() && logarithms.iter().all(|x| x.is_finite());
    usable.then(|| {
        // Relative to the largest, so that nothing overflows and the sum is at least 1.
        let raw: Vec<f64> = logarithms.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = raw.iter().sum();
        raw.iter().map(|value| value / sum).collect()
    })
}

/// One multiplicative step on shares that a floor keeps above 0:
///
/// p_i ← (1 − ε) · p_i exp(e_i) / Σ_j p_j exp(e_j) + ε/K
///
/// `None` where a share is 0 or below, or a number is not finite.
pub fn softmax_with_floor(shares: &[f64], exponents: &[f64], epsilon: f64) -> Option<Vec<f64>> {
    if shares.len() != exponents.len() {
        return None;
    }
    let logarithms: Vec<f64> = shares.iter().zip(exponents).map(|(p, e)| p.ln() + e).collect();
    Some(with_floor(&softmax(&logarithms)?, epsilon))
}

/// (1 − ε) p_i + ε/K.
pub(crate) fn with_floor(shares: &[f64], epsilon: f64) -> Vec<f64> {
    let even = epsilon / shares.len().max(1) as f64;
    shares.iter().map(|p| (1.0 - epsilon) * p + even).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_finite_logarithms_give_shares() {
        assert_eq!(softmax(&[0.0, 0.0]), Some(vec![0.5, 0.5]));
        assert_eq!(softmax(&[1e6, -1e6]), Some(vec![1.0, 0.0]));
        assert_eq!(softmax(&[-1e300]), Some(vec![1.0]));
        assert_eq!(softmax(&[]), None);
        assert_eq!(softmax(&[0.0, f64::NAN]), None);
        assert_eq!(softmax(&[0.0, f64::INFINITY]), None);
    }

    #[test]
    fn a_floor_keeps_a_share_that_an_exponent_would_take() {
        let found = softmax_with_floor(&[0.5, 0.5], &[0.0, -1e6], 0.1).unwrap();
        assert!((found[0] - 0.95).abs() < 1e-15 && (found[1] - 0.05).abs() < 1e-15, "{found:?}");
        assert_eq!(softmax_with_floor(&[0.5, 0.0], &[0.0, 1.0], 0.1), None);
        assert_eq!(softmax_with_floor(&[0.5, 0.5], &[0.0, f64::NAN], 0.1), None);
        assert_eq!(softmax_with_floor(&[0.5, 0.5], &[0.0], 0.1), None);
    }
}
