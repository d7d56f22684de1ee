//! What the rules do to their numbers first: leave out what is unusable, and scale to a sum of 1.

/// Deviations with what is unknown replaced by the mean of what is known, by 1 where nothing is.
pub(super) fn filled(gradient_deviation: &[f64], domains: usize) -> Vec<f64> {
    let known: Vec<f64> = gradient_deviation.iter().copied().filter_map(valid).collect();
    // Each divided first: the sum of finite numbers may overflow, their mean does not.
    let mean = match known.len() {
        0 => 1.0,
        count => known.iter().map(|v| v / count as f64).sum(),
    };
    (0..domains)
        .map(|i| gradient_deviation.get(i).copied().and_then(valid).unwrap_or(mean))
        .collect()
}

/// `raw` divided by its sum, `None` where that is 0.
pub(super) fn shares(raw: Vec<f64>) -> Option<Vec<f64>> {
    // By the largest first, so that the sum neither overflows nor vanishes.
    let largest = raw.iter().copied().fold(0.0, f64::max).min(f64::MAX);
    if largest == 0.0 {
        return None;
    }
    let relative: Vec<f64> = raw.iter().map(|value| value.min(f64::MAX) / largest).collect();
    let sum: f64 = relative.iter().sum();
    Some(relative.iter().map(|value| value / sum).collect())
}

/// `value` where it is finite and at least 0.
pub(super) fn valid(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}
