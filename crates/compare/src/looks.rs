//! Interim looks: at which p an arm is decided before all seeds are done.
//!
//! Testing at 4, 6 and 8 seeds at p ≤ 0.05 each would call more than one in ten equal arms
//! different. Each look therefore spends a share of α: at the look after n of N seeds, α·(n/N)² in
//! all. What p that allows follows from the joint law of the t statistics of the looks, which is
//! exact where differences are normal.
//!
//! The law. With S and Q the sum and the sum of squares of n differences, u = S/√(n·Q) is the
//! sine of an angle, t a function of it, and of equal arms its density is ∝ (1 − u²)^((n−3)/2). The
//! values of u at successive n are a Markov chain: the length √Q of a normal vector says nothing
//! of its direction. Going backward, the last difference over √Q of n + 1 is
//! q = u'/√(n+1) + v·√(1−u'²)·√(n/(n+1)), v having the density of u with n, and then
//! u = (√(n+1)·u' − q)/√(n(1 − q²)). So the chance that no earlier look called an arm different, as
//! a function of the present u, passes from n to n + 1 by one integral over v. It is tabulated on a
//! grid of angles. Cost: 0.1 s or less for ten seeds.

use std::f64::consts::FRAC_PI_2;

use statrs::function::gamma::ln_gamma;

use crate::distribution::student_p;
use crate::numeric::{Quadrature, rising_root};

/// Angles at which a chance is tabulated; between them it is interpolated by parabolas.
const GRID: usize = 400;

/// The two-sided p at or below which one arm is decided at each of `looks`, numbers of seeds in
/// rising order from 2 on, the last of them that of all seeds. Spends `alpha` in all.
pub fn nominal_p(looks: &[usize], alpha: f64) -> Vec<f64> {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Vec::new();
    };
    let mut chain = Chain::new((*first).max(2));
    let mut nominal = Vec::with_capacity(looks.len());
    for look in looks {
        chain.advance_to(*look);
        let spent = alpha * (*look as f64 / *last as f64).powi(2);
        let bound = chain.bound(spent);
        nominal.push(chain.p_of(bound));
        chain.bound = Some(bound);
    }
    nominal
}

/// The chain at n seeds.
struct Chain {
    quadrature: Quadrature,
    seeds: usize,
    /// By angle of u, equally spaced from −π/2 to π/2: the chance that no earlier look called the
    /// arm different.
    undecided: Vec<f64>,
    /// |u| from which this look calls it different.
    bound: Option<f64>,
}

impl Chain {
    fn new(seeds: usize) -> Self {
        Self { quadrature: Quadrature::new(), seeds, undecided: vec![1.0; GRID + 1], bound: None }
    }

    /// 1/∫ cosⁿ⁻² over half a turn: what makes a density of it.
    fn scale(&self) -> f64 {
        let n = self.seeds as f64;
        let log = ln_gamma(0.5 * n) - ln_gamma(0.5 * (n - 1.0));
        log.exp() / std::f64::consts::PI.sqrt()
    }

    fn density(&self, angle: f64) -> f64 {
        angle.cos().powi(self.seeds as i32 - 2)
    }

    /// The tabulated chance at `angle`.
    fn at(&self, angle: f64) -> f64 {
        let place = (angle / FRAC_PI_2 + 1.0) * 0.5 * GRID as f64;
        let middle = (place.round() as usize).clamp(1, GRID - 1);
        let x = place - middle as f64;
        let [before, here, after] =
            [self.undecided[middle - 1], self.undecided[middle], self.undecided[middle + 1]];
        here + 0.5 * x * (after - before) + 0.5 * x * x * (after - 2.0 * here + before)
    }

    fn advance_to(&mut self, seeds: usize) {
        while self.seeds < seeds {
            let next = (0..=GRID).map(|index| {
                let angle = (2.0 * index as f64 / GRID as f64 - 1.0) * FRAC_PI_2;
                self.passed_on(angle)
            });
            self.undecided = next.collect();
            self.seeds += 1;
            self.bound = None;
        }
    }

    /// The chance at n + 1 seeds and `angle`: the mean over what u may have been at n.
    fn passed_on(&self, angle: f64) -> f64 {
        let n = self.seeds as f64;
        let u = angle.sin();
        let (centre, reach) = (u / (n + 1.0).sqrt(), angle.cos() * (n / (n + 1.0)).sqrt());
        let sum = (n + 1.0).sqrt() * u;
        let before = |v: f64| {
            let q = centre + reach * v;
            ((sum - q) / (n * (1.0 - q * q)).max(f64::MIN_POSITIVE).sqrt()).clamp(-1.0, 1.0)
        };
        // Where |u| at n is just the bound: (sum − q)² = n·bound²·(1 − q²).
        let mut ends = vec![-FRAC_PI_2, FRAC_PI_2];
        if let Some(bound) = self.bound.filter(|_| reach > 1e-9) {
            let (a, c) = (1.0 + n * bound * bound, sum * sum - n * bound * bound);
            let discriminant = sum * sum - a * c;
            if discriminant > 0.0 {
                let roots = [-1.0, 1.0].map(|sign| (sum + sign * discriminant.sqrt()) / a);
                let angles = roots.map(|q| (q - centre) / reach).into_iter();
                ends.extend(angles.filter(|v| v.abs() < 1.0).map(f64::asin));
            }
        }
        ends.sort_by(f64::total_cmp);
        let part = |pair: &[f64]| {
            let middle = before((0.5 * (pair[0] + pair[1])).sin());
            if self.bound.is_some_and(|bound| middle.abs() > bound) {
                return 0.0;
            }
            self.quadrature.integrate(pair[0], pair[1], 2, |angle| {
                self.density(angle) * self.at(before(angle.sin()).asin())
            })
        };
        self.scale() * ends.windows(2).map(part).sum::<f64>()
    }

    /// The bound at which this look and those before it call `spent` of equal arms different.
    fn bound(&self, spent: f64) -> f64 {
        let panel = 32;
        let kept = |angle: f64| {
            let inner = |x: f64| self.density(x) * self.at(x);
            self.scale() * self.quadrature.integrate(-angle, angle, panel, inner)
        };
        rising_root(0.0, FRAC_PI_2, 1.0 - spent, kept).sin()
    }

    /// The two-sided p of u: t² = u²(n − 1)/(1 − u²).
    fn p_of(&self, u: f64) -> f64 {
        let degrees = self.seeds - 1;
        student_p(u * (degrees as f64 / (1.0 - u * u)).sqrt(), degrees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f64], expected: &[f64], within: f64) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < within, "{found:?} and {expected:?}");
        }
    }

    /// Expected values: the same integrals in Python, on 801 angles with cubic splines and 48 nodes
    /// a part.
    #[test]
    fn looks_spend_alpha_by_the_square_of_the_share_of_seeds() {
        for (alpha, expected) in [
            (0.05, [0.01250, 0.01914, 0.03195]),
            (0.025, [0.00625, 0.00917, 0.01501]),
            (0.05 / 3.0, [0.00417, 0.00599, 0.00969]),
            (0.0125, [0.00313, 0.00443, 0.00712]),
        ] {
            assert_close(&nominal_p(&[4, 6, 8], alpha), &expected, 1.1e-5);
        }
    }

    #[test]
    fn a_single_look_spends_everything_at_once() {
        for seeds in [2, 3, 6, 20] {
            assert_close(&nominal_p(&[seeds], 0.05), &[0.05], 1e-9);
        }
        assert!(nominal_p(&[], 0.05).is_empty());
    }
}
