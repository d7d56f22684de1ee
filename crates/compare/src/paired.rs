//! Paired differences over seeds: their mean, their noise from seeds and from windows, intervals
//! and p.
//!
//! D is an arm's mean loss less the baseline's of the same seed. Its noise has two parts. Other
//! seeds would give other D: s, their standard deviation. Other windows of the same text would give
//! another mean of all D: √V_w, from a two-way table of seeds by windows in each domain, whose
//! windows differ by more than seeds and rounding explain.
//!
//! ```text
//! s² = Σ(D_s − D̄)²/(n − 1)
//! MSw = n/(W − 1) Σ_w (d̄_·w − d̄)²
//! MSe = Σ_sw (d_sw − d̄_s· − d̄_·w + d̄)²/((n − 1)(W − 1))
//! V_w = Σ_i π_i² max(0, MSw_i − MSe_i)/(n·W_i)
//! h(a) = √(t²_{1−a/2, n−1} s²/n + z²_{1−a/2} V_w)
//! p = 2·P(t_{n−1} > |D̄|/√(s²/n + V_w))
//! ```
//!
//! s is of one arm alone: the arms' differences spread unequally, tenfold and more, and a pooled s
//! calls noisy arms different that are not.

use crate::distribution::{normal_quantile, student_p, student_quantile};

/// Differences that spread by no more than this share of the losses spread by rounding alone.
const ROUNDING: f64 = 1e-12;

/// The mean and the standard deviation over n − 1; the latter is `None` of fewer than two values.
pub(crate) fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    Some((mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())))
}

/// Half-width of the t-interval of a mean over seeds that misses with chance `a`.
pub(crate) fn mean_half_width(values: &[f64], a: f64) -> Option<f64> {
    let (_, deviation) = mean_and_deviation(values)?;
    let t = student_quantile(a, values.len() - 1);
    Some(t * deviation? / (values.len() as f64).sqrt())
}

/// One domain's part of V_w but for π²: max(0, MSw − MSe)/(n·W), where `differences` hold, for each
/// seed, the arm's loss less the baseline's in each window. `None` of fewer than two seeds or
/// windows, of which it cannot be known, and where the windows are not as many for every seed.
pub fn window_variance(differences: &[Vec<f64>]) -> Option<f64> {
    let seeds = differences.len();
    let windows = differences.first()?.len();
    if seeds < 2 || windows < 2 || differences.iter().any(|seed| seed.len() != windows) {
        return None;
    }
    let (n, w) = (seeds as f64, windows as f64);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let by_seed: Vec<f64> = differences.iter().map(|seed| mean(seed)).collect();
    let by_window: Vec<f64> = (0..windows)
        .map(|window| differences.iter().map(|seed| seed[window]).sum::<f64>() / n)
        .collect();
    let all = mean(&by_seed);
    let between: f64 = by_window.iter().map(|m| (m - all) * (m - all)).sum();
    let mut rest = 0.0;
    for (seed, of_seed) in differences.iter().zip(&by_seed) {
        for (difference, of_window) in seed.iter().zip(&by_window) {
            rest += (difference - of_seed - of_window + all).powi(2);
        }
    }
    let windows_square = n / (w - 1.0) * between;
    let rest_square = rest / ((n - 1.0) * (w - 1.0));
    Some((windows_square - rest_square).max(0.0) / (n * w))
}

/// The paired differences of one arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    n: usize,
    mean: Option<f64>,
    deviation: Option<f64>,
    window_variance: Option<f64>,
    noiseless: bool,
    zero: bool,
    rounding: f64,
}

impl Paired {
    /// Of finite `differences`, one a seed, and V_w where it is known. `scale` is the size of the
    /// losses that were subtracted: what is far below it is rounding.
    pub fn new(differences: &[f64], window_variance: Option<f64>, scale: f64) -> Self {
        let found = mean_and_deviation(differences);
        let deviation = found.and_then(|(_, deviation)| deviation);
        let rounding = ROUNDING * scale.abs();
        Self {
            n: differences.len(),
            mean: found.map(|(mean, _)| mean),
            deviation,
            window_variance: window_variance.filter(|_| deviation.is_some()),
            noiseless: deviation.is_some_and(|s| s <= rounding),
            zero: !differences.is_empty() && differences.iter().all(|d| *d == 0.0),
            rounding,
        }
    }

    /// n, the number of pairs.
    pub fn seeds(&self) -> usize {
        self.n
    }

    /// D̄; `None` without pairs.
    pub fn mean(&self) -> Option<f64> {
        self.mean
    }

    /// s; `None` of fewer than two pairs.
    pub fn deviation(&self) -> Option<f64> {
        self.deviation
    }

    /// √V_w; `None` where windows cannot tell.
    pub fn window_error(&self) -> Option<f64> {
        self.window_variance.map(f64::sqrt)
    }

    /// Whether every difference is exactly 0.
    pub fn is_zero(&self) -> bool {
        self.zero
    }

    /// Whether all seeds agree to rounding: they then measure no noise, and nothing can be tested.
    pub fn is_noiseless(&self) -> bool {
        self.noiseless
    }

    /// Whether no difference is more than rounding.
    pub fn is_rounding(&self) -> bool {
        self.noiseless && self.mean.is_some_and(|mean| mean.abs() <= self.rounding)
    }

    /// s²/n and V_w, where the noise was measured.
    fn variances(&self) -> Option<(f64, f64)> {
        let s = self.deviation.filter(|_| !self.noiseless)?;
        Some((s * s / self.n as f64, self.window_variance.unwrap_or(0.0)))
    }

    /// h(a), the half-width of the interval that misses with chance `a`; `None` where no noise was
    /// measured, which is not certainty.
    pub fn half_width(&self, a: f64) -> Option<f64> {
        let (seeds, windows) = self.variances()?;
        let t = student_quantile(a, self.n - 1);
        let z = normal_quantile(a);
        Some((t * t * seeds + z * z * windows).sqrt())
    }

    /// The two-sided p of "no difference": 1 where all are 0, `None` where no noise was measured.
    pub fn p_value(&self) -> Option<f64> {
        if self.zero && self.n > 1 {
            return Some(1.0);
        }
        let (seeds, windows) = self.variances()?;
        Some(student_p(self.mean? / (seeds + windows).sqrt(), self.n - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap_or(f64::NAN);
        assert!((found - expected).abs() <= 1e-10 * expected.abs().max(1.0), "{found}, {expected}");
    }

    /// By hand. d = [[1, 2, 3], [2, 4, 6]]: means by seed 2 and 4, by window 1.5, 3, 4.5, of all 3.
    /// MSw = 2/2·(2.25 + 0 + 2.25) = 4.5. The rest: ∓(0.5, 0, −0.5), squares 4·0.25 = 1, over
    /// 1·2 is MSe = 0.5. V = (4.5 − 0.5)/(2·3) = 2/3.
    #[test]
    fn the_window_part_is_what_windows_differ_beyond_the_rest() {
        close(window_variance(&[vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0]]), 2.0 / 3.0);
        // Seeds and windows that add up leave no rest.
        close(window_variance(&[vec![1.0, 2.0], vec![5.0, 6.0]]), 0.25);
        // The rest outweighs the windows: 0, never less.
        close(window_variance(&[vec![1.0, -1.0], vec![-1.0, 1.0]]), 0.0);
        for too_few in [vec![], vec![vec![1.0, 2.0]], vec![vec![1.0], vec![2.0]]] {
            assert_eq!(window_variance(&too_few), None);
        }
        assert_eq!(window_variance(&[vec![1.0, 2.0], vec![1.0]]), None);
    }

    /// By hand. D = 1, 2, 3: mean 2, s = 1; t(2) = 4.302652729749464. With V_w = 0.5 the standard
    /// error is √(1/3 + 1/2), and the p of t = 2/0.912870929 with 2 degrees of freedom is
    /// 1 − t/√(2 + t²).
    #[test]
    fn both_parts_of_the_noise_count() {
        let seeds_alone = Paired::new(&[1.0, 2.0, 3.0], None, 3.0);
        close(seeds_alone.half_width(0.05), 4.302652729749464 / 3f64.sqrt());
        let both = Paired::new(&[1.0, 2.0, 3.0], Some(0.5), 3.0);
        let (t, z) = (4.302652729749464f64, 1.959963984540054f64);
        close(both.half_width(0.05), (t * t / 3.0 + z * z * 0.5).sqrt());
        let t = 2.0 / (1.0f64 / 3.0 + 0.5).sqrt();
        close(both.p_value(), 1.0 - t / (2.0 + t * t).sqrt());
        close(both.window_error(), 0.5f64.sqrt());
    }

    #[test]
    fn without_noise_there_is_no_interval_and_no_test() {
        // One seed; seeds that agree; seeds that agree but for rounding.
        for d in [&[0.5][..], &[0.5, 0.5, 0.5], &[0.1 + 0.2, 0.3, 0.3]] {
            let paired = Paired::new(d, Some(1e-6), 3.0);
            assert_eq!((paired.half_width(0.05), paired.p_value()), (None, None), "{d:?}");
        }
        let identical = Paired::new(&[0.0, 0.0], None, 3.0);
        assert!(identical.is_zero() && identical.is_noiseless());
        assert_eq!((identical.p_value(), identical.half_width(0.05)), (Some(1.0), None));
        let none = Paired::new(&[], None, 0.0);
        assert_eq!((none.mean(), none.p_value(), none.is_zero()), (None, None, false));
    }
}
