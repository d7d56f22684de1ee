//! The distributions that tests and intervals need: normal, Student's t, chi-squared, and the power
//! of a t test (non-central t).
//!
//! Tails and quantiles are two-sided, as everything here is: p is the chance of a value at least as
//! far from 0. Tails come from `statrs`, whose incomplete beta and gamma functions keep their
//! relative precision for small p; quantiles invert them, to rounding.

use statrs::function::beta::beta_reg;
use statrs::function::erf::erfc;
use statrs::function::gamma::{gamma_lr, ln_gamma};

use crate::numeric::{Quadrature, rising_root, upper_bound};

/// From so many degrees of freedom on, t is normal but for an expansion in 1/ν whose next term is
/// below 10⁻⁸.
const MANY: usize = 10_000;

/// P(|Z| > z) of a standard normal.
pub fn normal_p(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// P(Z ≤ z) of a standard normal.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// The z with P(|Z| > z) = p: 1.96 at 0.05. 0 from p = 1 on, infinite at p = 0.
pub fn normal_quantile(p: f64) -> f64 {
    quantile(p, normal_p)
}

/// P(|T| > t) of Student's t with `degrees` of freedom.
pub fn student_p(t: f64, degrees: usize) -> f64 {
    let nu = degrees as f64;
    let squared = t * t;
    if t.is_nan() || degrees == 0 {
        return f64::NAN;
    }
    if squared.is_infinite() {
        return 0.0;
    }
    if degrees > MANY {
        // Hill, Algorithm 395 (1970): the normal deviate of the same tail.
        let a = nu - 0.5;
        let b = 48.0 * a * a;
        let z = (a * (squared / nu).ln_1p()).sqrt();
        let cubic = (z * z + 3.0) * z / b;
        return normal_p(z + cubic);
    }
    beta_reg(0.5 * nu, 0.5, nu / (nu + squared))
}

/// The t with P(|T| > t) = p: 2.776 at 0.05 with 4 degrees of freedom.
pub fn student_quantile(p: f64, degrees: usize) -> f64 {
    quantile(p, |t| student_p(t, degrees))
}

/// The x with P(X ≤ x) = p of chi-squared with `degrees` of freedom.
pub fn chi_squared_quantile(p: f64, degrees: usize) -> f64 {
    let half = 0.5 * degrees as f64;
    let below = |x: f64| if x > 0.0 { gamma_lr(half, 0.5 * x) } else { 0.0 };
    if p.is_nan() || p <= 0.0 || degrees == 0 {
        return 0.0;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    rising_root(0.0, upper_bound(2.0 * half, p, below), p, below)
}

/// The x ≥ 0 at which a falling tail is p.
fn quantile(p: f64, tail: impl Fn(f64) -> f64) -> f64 {
    if p.is_nan() {
        return f64::NAN;
    }
    if p >= 1.0 {
        return 0.0;
    }
    if p <= 0.0 {
        return f64::INFINITY;
    }
    let rising = |x: f64| -tail(x);
    rising_root(0.0, upper_bound(1.0, -p, rising), -p, rising)
}

/// Sums over the distribution of √(χ²_ν/ν), the ratio of a measured standard deviation to the true
/// one.
pub(crate) struct Deviation {
    quadrature: Quadrature,
    nu: f64,
    log_scale: f64,
}

impl Deviation {
    pub(crate) fn new(degrees: usize) -> Self {
        let nu = degrees as f64;
        let log_scale = std::f64::consts::LN_2 + 0.5 * nu * (0.5 * nu).ln() - ln_gamma(0.5 * nu);
        Self { quadrature: Quadrature::new(), nu, log_scale }
    }

    fn density(&self, ratio: f64) -> f64 {
        let log = self.log_scale + (self.nu - 1.0) * ratio.ln() - 0.5 * self.nu * ratio * ratio;
        log.exp()
    }

    /// The mean of f, whose bends lie at `bends`: it is smooth between them.
    pub(crate) fn mean(&self, bends: &[f64], f: impl Fn(f64) -> f64) -> f64 {
        // Nine times the standard deviation or more on either side: what is cut off is below 1e-16.
        let spread = 9.0 / self.nu.sqrt();
        let (low, high) = ((1.0 - spread).max(0.0), 1.0 + spread);
        let mut ends = vec![low, high];
        ends.extend(bends.iter().copied().filter(|bend| *bend > low && *bend < high));
        ends.sort_by(f64::total_cmp);
        let part = |pair: &[f64]| {
            self.quadrature.integrate(pair[0], pair[1], 3, |y| self.density(y) * f(y))
        };
        ends.windows(2).map(part).sum()
    }
}

/// The power of a two-sided t test: P(|T| > critical) of the non-central t with `degrees` of
/// freedom, where `shift` is the true mean over its standard error.
pub fn power(shift: f64, critical: f64, degrees: usize) -> f64 {
    let ratio = shift / critical;
    let width = 8.0 / critical;
    let rejected = |y: f64| normal_cdf(shift - critical * y) + normal_cdf(-shift - critical * y);
    let bends = [width, ratio - width, ratio, ratio + width];
    Deviation::new(degrees).mean(&bends, rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        assert!(
            (found - expected).abs() <= relative * expected.abs(),
            "{found:e} and {expected:e}"
        );
    }

    // Expected values: SciPy 1.17.1, `2*stats.norm.sf`, `2*stats.t.sf`, `stats.chi2.ppf`,
    // `stats.nct.sf(t, nu, d) + stats.nct.cdf(-t, nu, d)`.

    #[test]
    fn tails_are_right_down_to_the_smallest() {
        for (z, expected) in [
            (0.5, 0.6170750774519738),
            (1.959963984540054, 0.05),
            (5.0, 5.733031437583866e-7),
            (10.0, 1.523970604832094e-23),
            (37.0, 1.1451142445047853e-299),
        ] {
            // `statrs` approximates erfc to 10⁻¹⁰.
            close(normal_p(z), expected, 1e-10);
        }
        for (t, degrees, expected) in [
            (0.1, 1, 0.936548965138893),
            (12.7062, 1, 0.0500000185607104),
            (1e6, 1, 6.366197723673691e-7),
            (2.7764, 4, 0.05000230771740174),
            (50.0, 5, 6.047757626601225e-8),
            (1e4, 3, 2.20531550229581e-12),
            (2.5, 29, 0.018325344338426086),
            (6.0, 399, 4.430859494705276e-9),
            (3.0, 9_999, 0.0027064488557123467),
            (3.0, 10_001, 0.0027064475244162017),
            (5.0, 1_000_000, 5.733997870890745e-7),
        ] {
            close(student_p(t, degrees), expected, 1e-9);
            assert_eq!(student_p(-t, degrees), student_p(t, degrees));
        }
        assert_eq!(student_p(f64::INFINITY, 4), 0.0);
        assert_eq!(student_p(0.0, 4), 1.0);
        assert!(student_p(f64::NAN, 4).is_nan() && student_p(1.0, 0).is_nan());
    }

    #[test]
    fn quantiles_invert_the_tails() {
        close(normal_quantile(0.05), 1.959963984540054, 1e-10);
        for (p, degrees, expected) in [
            (0.05, 1, 12.706204736174705),
            (0.05, 2, 4.302652729749464),
            (0.05, 5, 2.5705818356363155),
            (0.0125, 5, 3.81000469984464),
            (1e-8, 4, 156.4978087019787),
            (0.1, 11, 1.795884818704044),
            (0.05, 400, 1.965912343229463),
            (0.9, 3, 0.1365981993536989),
            (0.05, 20_000, 1.9600826051581353),
        ] {
            close(student_quantile(p, degrees), expected, 1e-9);
        }
        for (p, degrees, expected) in [
            (0.2, 1, 0.0641847546673016),
            (0.2, 5, 2.342534305841121),
            (0.025, 11, 3.8157482522360993),
            (0.975, 3, 9.348403604496148),
            (0.2, 1_000, 962.1803091986926),
        ] {
            close(chi_squared_quantile(p, degrees), expected, 1e-9);
        }
        for p in [0.0, -1.0] {
            assert_eq!(student_quantile(p, 3), f64::INFINITY);
            assert_eq!(chi_squared_quantile(p, 3), 0.0);
        }
        assert_eq!((student_quantile(1.0, 3), normal_quantile(2.0)), (0.0, 0.0));
        assert_eq!(chi_squared_quantile(1.0, 3), f64::INFINITY);
        assert!(student_quantile(f64::NAN, 3).is_nan());
    }

    #[test]
    fn the_power_is_that_of_the_non_central_t() {
        for (shift, alpha, degrees, expected) in [
            (2.0, 0.05, 5, 0.3681575141383967),
            (5.0, 0.05, 2, 0.7191805363914981),
            (3.5, 0.0125, 5, 0.4782130994881497),
            (0.0, 0.05, 4, 0.05),
            (2.8, 0.05, 200, 0.7957597219490011),
            (1.0, 0.2, 3, 0.3529354892752235),
        ] {
            let found = power(shift, student_quantile(alpha, degrees), degrees);
            close(found, expected, 1e-9);
        }
    }
}
