//! Integrals and roots of smooth functions.
//!
//! Integrals are sums over Gauss–Legendre nodes on equal panels: exact for polynomials of degree 39
//! on each, so that a smooth density is integrated to rounding. Roots stay between two points of
//! which one is too low and one too high. Nothing is random.

/// Nodes of a panel.
const NODES: usize = 20;

/// Gauss–Legendre nodes and weights on [−1, 1].
pub(crate) struct Quadrature {
    nodes: [(f64, f64); NODES],
}

impl Quadrature {
    /// Finds the nodes: the roots of the Legendre polynomial, by Newton's method.
    pub(crate) fn new() -> Self {
        let n = NODES as f64;
        let nodes = std::array::from_fn(|index| {
            let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (n + 0.5)).cos();
            let mut slope = 1.0;
            for _ in 0..50 {
                let (mut before, mut value) = (1.0, x);
                for degree in 2..=NODES {
                    let k = degree as f64;
                    (before, value) =
                        (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
                }
                slope = n * (x * value - before) / (x * x - 1.0);
                let step = value / slope;
                x -= step;
                if step.abs() < 1e-16 {
                    break;
                }
            }
            (x, 2.0 / ((1.0 - x * x) * slope * slope))
        });
        Self { nodes }
    }

    /// ∫ f from `from` to `to`, on `panels` equal panels; 0 where `to` is not above `from`.
    pub(crate) fn integrate(
        &self,
        from: f64,
        to: f64,
        panels: usize,
        mut f: impl FnMut(f64) -> f64,
    ) -> f64 {
        if to <= from {
            return 0.0;
        }
        let half = (to - from) / (2.0 * panels as f64);
        let mut sum = 0.0;
        for panel in 0..panels {
            let centre = from + half * (2 * panel + 1) as f64;
            sum += self.nodes.iter().map(|(x, w)| w * f(centre + half * x)).sum::<f64>();
        }
        half * sum
    }
}

/// Where a rising function reaches `target`, between `low` and `high`: to rounding. Chandrupatla's
/// method (1997): inverse quadratic steps where they are safe, else the interval is halved.
pub(crate) fn rising_root(low: f64, high: f64, target: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    let mut above = |x: f64| f(x) - target;
    // The newest point, the end on the other side of the root, and the point before.
    let (mut a, mut b) = ((high, above(high)), (low, above(low)));
    let mut share = 0.5;
    for _ in 0..200 {
        let x = a.0 + share * (b.0 - a.0);
        let new = (x, above(x));
        let before;
        if (new.1 < 0.0) == (a.1 < 0.0) {
            before = a;
        } else {
            before = b;
            b = a;
        }
        a = new;
        let best = if a.1.abs() < b.1.abs() { a } else { b };
        let least = 2.0 * f64::EPSILON * best.0.abs() / (b.0 - a.0).abs();
        if best.1 == 0.0 || least.is_nan() || least > 0.5 {
            return best.0;
        }
        let position = (a.0 - b.0) / (before.0 - b.0);
        let height = (a.1 - b.1) / (before.1 - b.1);
        let safe = height * height < position && (1.0 - height).powi(2) < 1.0 - position;
        share = if safe {
            a.1 / (b.1 - a.1) * before.1 / (b.1 - before.1)
                + (before.0 - a.0) / (b.0 - a.0) * a.1 / (before.1 - a.1) * b.1 / (before.1 - b.1)
        } else {
            0.5
        };
        share = share.clamp(least, 1.0 - least);
    }
    a.0
}

/// A bound above the root of a rising function: `start` doubled until the function reaches
/// `target`.
pub(crate) fn upper_bound(start: f64, target: f64, mut f: impl FnMut(f64) -> f64) -> f64 {
    let mut high = start;
    while high < 1e300 && f(high) < target {
        high *= 2.0;
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_and_smooth_functions_are_integrated_to_rounding() {
        let q = Quadrature::new();
        // ∫ x³⁸ over [0, 2] = 2³⁹/39.
        let power = q.integrate(0.0, 2.0, 1, |x| x.powi(38));
        assert!((power / (2f64.powi(39) / 39.0) - 1.0).abs() < 1e-13, "{power}");
        let sine = q.integrate(0.0, std::f64::consts::PI, 2, f64::sin);
        assert!((sine - 2.0).abs() < 1e-14, "{sine}");
        assert_eq!(q.integrate(1.0, 1.0, 4, |x| x), 0.0);
    }

    #[test]
    fn roots_are_found_to_rounding() {
        let mut calls = 0;
        let high = upper_bound(0.1, 2.0, |x| x * x);
        let root = rising_root(0.0, high, 2.0, |x| {
            calls += 1;
            x * x
        });
        assert!((root - std::f64::consts::SQRT_2).abs() < 1e-15 && calls < 20, "{root}, {calls}");
        // A root at an end; a function that is flat but for a step.
        assert_eq!(rising_root(0.0, 1.0, 0.0, |x| x), 0.0);
        let step = rising_root(0.0, 1.0, 0.5, |x| f64::from(x >= 0.3));
        assert!((step - 0.3).abs() < 1e-15, "{step}");
    }
}
