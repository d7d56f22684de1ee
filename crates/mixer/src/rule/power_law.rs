//! Fits L(n) = e^E + e^A n^{−a}, the loss after n sequences, robustly and without randomness.
//!
//! In: points (ln n, ln L). Out: (E, A, a) that minimise Σ Huber(ln L(n) − ln L) within bounds, as in
//! ADO (arXiv:2410.11820) with a Huber threshold of 10⁻³. Its release starts L-BFGS from every point
//! of a grid, and keeps its parameters in bounds by penalties. **Derived** here: the bounds are kept
//! exactly, and damped Gauss-Newton steps with the Huber weights (Levenberg-Marquardt on reweighted
//! squares) descend from the best few points of the same grid. Cost: 200 to 500 evaluations of all
//! points for the grid, and a few hundred for the descents.

use serde::{Deserialize, Serialize};

/// L(n) = e^E + e^A n^{−a}.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerLaw {
    /// E: logarithm of the loss that stays.
    pub log_irreducible: f64,
    /// A: logarithm of the scale of what goes.
    pub log_scale: f64,
    /// a: how fast it goes.
    pub exponent: f64,
}

impl PowerLaw {
    /// e^A n^{−a}: what is left to learn after n sequences.
    pub fn reducible(&self, sequences: f64) -> f64 {
        (self.log_scale - self.exponent * sequences.ln()).exp()
    }

    /// The loss after n sequences.
    pub fn loss(&self, sequences: f64) -> f64 {
        self.log_irreducible.exp() + self.reducible(sequences)
    }

    /// Whether all three are finite.
    pub fn is_finite(&self) -> bool {
        self.parameters().iter().all(|parameter| parameter.is_finite())
    }

    fn parameters(&self) -> [f64; 3] {
        [self.log_irreducible, self.log_scale, self.exponent]
    }

    fn of([log_irreducible, log_scale, exponent]: [f64; 3]) -> Self {
        Self { log_irreducible, log_scale, exponent }
    }
}

/// Bounds on the parameters of a [`PowerLaw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerLawBounds {
    /// Least E.
    pub min_log_irreducible: f64,
    /// Largest A.
    pub max_log_scale: f64,
    /// Largest a; the least is 0.
    pub max_exponent: f64,
}

impl Default for PowerLawBounds {
    /// Those that ADO's penalties stand for.
    fn default() -> Self {
        Self { min_log_irreducible: 0.5, max_log_scale: 6.5, max_exponent: 0.8 }
    }
}

/// Residuals of ln L below it count by their square, those above by their size.
const HUBER: f64 = 1e-3;
/// Fewest points that three parameters are fitted to.
const FEWEST: usize = 5;
/// Points of the grid that are descended from.
const DESCENTS: usize = 6;
/// Most steps of a descent.
const STEPS: usize = 200;
/// Least E and A, far below any loss, so that no descent wanders off.
const LEAST: f64 = -30.0;
/// Largest E: a loss of e³⁰ nats.
const LARGEST: f64 = 30.0;

/// The power law nearest to the points (ln n, ln L); `last`, the law of an earlier fit, is one more
/// place to start from. `None` for fewer than five points, or what is not finite.
pub fn fit_power_law(
    points: &[(f64, f64)],
    bounds: PowerLawBounds,
    last: Option<PowerLaw>,
) -> Option<PowerLaw> {
    let usable = points.iter().all(|(n, loss)| n.is_finite() && loss.is_finite());
    if points.len() < FEWEST || !usable {
        return None;
    }
    let fit = Fit {
        points,
        low: [bounds.min_log_irreducible, LEAST, 0.0],
        high: [LARGEST.max(bounds.min_log_irreducible), bounds.max_log_scale, bounds.max_exponent],
    };
    let mut starts: Vec<(f64, [f64; 3])> = Vec::new();
    for scale in -2..6 {
        for irreducible in -4..4 {
            for exponent in 0..8 {
                let irreducible = f64::from(irreducible) / 2.0;
                if irreducible < bounds.min_log_irreducible {
                    continue;
                }
                let at = [irreducible, f64::from(scale), f64::from(exponent) / 10.0];
                starts.push((fit.cost(&at), at));
            }
        }
    }
    // By cost, and by their place in the grid where that is equal: the sort is stable.
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lowest = [bounds.min_log_irreducible, 0.0, 0.5];
    let more = last.filter(PowerLaw::is_finite).map(|law| law.parameters());
    let starts = starts.iter().take(DESCENTS).map(|(_, at)| *at).chain([lowest]).chain(more);
    let found = starts.map(|start| fit.descend(fit.within(start)));
    let (cost, best) = found.min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(PowerLaw::of(best)).filter(|law| cost.is_finite() && law.is_finite())
}

struct Fit<'a> {
    points: &'a [(f64, f64)],
    low: [f64; 3],
    high: [f64; 3],
}

/// Gradient and weighted normal matrix of the cost.
struct Slope {
    gradient: [f64; 3],
    matrix: [[f64; 3]; 3],
}

impl Fit<'_> {
    fn within(&self, at: [f64; 3]) -> [f64; 3] {
        // Not `clamp`, which panics where bounds cross.
        std::array::from_fn(|i| at[i].max(self.low[i]).min(self.high[i]))
    }

    fn cost(&self, at: &[f64; 3]) -> f64 {
        let huber = |residual: f64| match residual.abs() {
            size if size > HUBER => HUBER * (size - HUBER / 2.0),
            size => size * size / 2.0,
        };
        self.points.iter().map(|(n, loss)| huber(predict(at, *n).0 - loss)).sum()
    }

    fn slope(&self, at: &[f64; 3]) -> Slope {
        let mut slope = Slope { gradient: [0.0; 3], matrix: [[0.0; 3]; 3] };
        for (n, loss) in self.points {
            let (predicted, part) = predict(at, *n);
            let residual = predicted - loss;
            let weight = if residual.abs() > HUBER { HUBER / residual.abs() } else { 1.0 };
            let row = [1.0 - part, part, -n * part];
            for i in 0..3 {
                slope.gradient[i] += weight * residual * row[i];
                for j in 0..3 {
                    slope.matrix[i][j] += weight * row[i] * row[j];
                }
            }
        }
        slope
    }

    /// The cost that is reached from `at`, and where.
    fn descend(&self, mut at: [f64; 3]) -> (f64, [f64; 3]) {
        let mut cost = self.cost(&at);
        let mut damping = 1e-3;
        for _ in 0..STEPS {
            let Slope { gradient, matrix } = self.slope(&at);
            // What a bound holds stays there, and the others move on.
            let free: [bool; 3] = std::array::from_fn(|i| {
                !(at[i] <= self.low[i] && gradient[i] > 0.0
                    || at[i] >= self.high[i] && gradient[i] < 0.0)
            });
            let mut accepted = false;
            while damping < 1e12 {
                let trial = match damped_step(&matrix, &gradient, free, damping) {
                    Some(step) => self.within(std::array::from_fn(|i| at[i] + step[i])),
                    None => break,
                };
                let next = self.cost(&trial);
                if next < cost {
                    accepted = cost - next > 1e-12 * cost;
                    (cost, at) = (next, trial);
                    damping = (damping / 10.0).max(1e-12);
                    break;
                }
                damping *= 10.0;
            }
            if !accepted {
                break;
            }
        }
        (cost, at)
    }
}

/// ln(e^E + e^{A − a ln n}), and the part of the loss that is the second term.
fn predict(&[irreducible, scale, exponent]: &[f64; 3], log_n: f64) -> (f64, f64) {
    let reducible = scale - exponent * log_n;
    let largest = irreducible.max(reducible);
    let (stays, goes) = ((irreducible - largest).exp(), (reducible - largest).exp());
    (largest + (stays + goes).ln(), goes / (stays + goes))
}

/// −(M + damping · diag M)⁻¹ g over the free parameters, by Cholesky; 0 for the others.
fn damped_step(
    matrix: &[[f64; 3]; 3],
    gradient: &[f64; 3],
    free: [bool; 3],
    damping: f64,
) -> Option<[f64; 3]> {
    let largest = (0..3).map(|i| matrix[i][i]).fold(0.0, f64::max);
    let mut m = [[0.0; 3]; 3];
    let mut step = [0.0; 3];
    for i in 0..3 {
        for j in 0..3 {
            m[i][j] = if free[i] && free[j] { matrix[i][j] } else { 0.0 };
        }
        // A parameter that nothing depends on keeps a row that can be divided by.
        m[i][i] = if free[i] { m[i][i] * (1.0 + damping) + 1e-12 * largest } else { 1.0 };
        step[i] = if free[i] { -gradient[i] } else { 0.0 };
    }
    let mut lower = [[0.0; 3]; 3];
    for i in 0..3 {
        for j in 0..=i {
            let rest = m[i][j] - (0..j).map(|k| lower[i][k] * lower[j][k]).sum::<f64>();
            lower[i][j] = match i == j {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / lower[j][j],
            };
        }
    }
    for i in 0..3 {
        step[i] = (step[i] - (0..i).map(|k| lower[i][k] * step[k]).sum::<f64>()) / lower[i][i];
    }
    for i in (0..3).rev() {
        let known: f64 = (i + 1..3).map(|k| lower[k][i] * step[k]).sum();
        step[i] = (step[i] - known) / lower[i][i];
    }
    step.iter().all(|step| step.is_finite()).then_some(step)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::seed::CounterRng;
    use proptest::prelude::*;

    fn law(log_irreducible: f64, log_scale: f64, exponent: f64) -> PowerLaw {
        PowerLaw { log_irreducible, log_scale, exponent }
    }

    /// The law at `count` even steps of 1,000 sequences, off by `noise` as a share of the loss.
    fn points(law: PowerLaw, count: u64, noise: impl Fn(u64) -> f64) -> Vec<(f64, f64)> {
        let at = |i: u64| 1_000.0 * (i + 1) as f64;
        (0..count).map(|i| (at(i).ln(), law.loss(at(i)).ln() + noise(i))).collect()
    }

    #[test]
    fn an_exact_law_is_recovered() {
        for truth in
            [law(0.6, 2.0, 0.3), law(1.0, 5.0, 0.5), law(0.55, 1.0, 0.15), law(1.2, 6.0, 0.7)]
        {
            let exact = points(truth, 60, |_| 0.0);
            let found = fit_power_law(&exact, PowerLawBounds::default(), None).unwrap();
            for (a, b) in found.parameters().iter().zip(truth.parameters()) {
                assert!((a - b).abs() < 1e-3, "{found:?} {truth:?}");
            }
            let slope = |law: &PowerLaw| law.exponent * law.reducible(60_000.0) / 60_000.0;
            assert!((slope(&found) / slope(&truth) - 1.0).abs() < 1e-4, "{found:?} {truth:?}");
        }
    }

    // What scipy finds for the same points, by minimising the same cost within the same bounds from
    // every point of the grid:
    //
    // import numpy as np
    // from itertools import product
    // from scipy.optimize import minimize
    // n = 1000.0 * np.arange(1, 61)
    // y = np.log(np.exp(0.7) + np.exp(3) * n**-0.35) + 0.01 * np.sin(1.7 * np.arange(60) ** 1.3)
    // y[::13] += 0.2
    // def cost(t):
    //     r = np.abs(np.logaddexp(t[0], t[1] - t[2] * np.log(n)) - y)
    //     return np.where(r > 1e-3, 1e-3 * (r - 5e-4), r * r / 2).sum()
    // best = min((minimize(cost, (E, A, a), method="Nelder-Mead",
    //                      bounds=[(0.5, 30), (-30, 6.5), (0, 0.8)],
    //                      options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 20000})
    //             for E, A, a in product((0.5, 1, 1.5), range(-2, 6), np.arange(0, 0.8, 0.2))),
    //            key=lambda r: r.fun)
    // print(best.x.tolist(), best.fun)
    #[test]
    fn a_noisy_law_with_outliers_is_fitted_as_well_as_by_scipy() {
        let wave = |i: u64| 0.01 * (1.7 * (i as f64).powf(1.3)).sin();
        let noisy = points(law(0.7, 3.0, 0.35), 60, |i| {
            wave(i) + if i.is_multiple_of(13) { 0.2 } else { 0.0 }
        });
        let found = fit_power_law(&noisy, PowerLawBounds::default(), None).unwrap();
        let fit = Fit { points: &noisy, low: [0.5, -30.0, 0.0], high: [30.0, 6.5, 0.8] };
        let cost = fit.cost(&found.parameters());
        assert!(cost < 0.0012527192637438454 * (1.0 + 1e-6), "{found:?} {cost}");
        let slope = |law: &PowerLaw| law.exponent * law.reducible(60_000.0);
        let by_scipy = slope(&law(0.7656037926758957, 3.6765034511034997, 0.4445761091225929));
        assert!((slope(&found) / by_scipy - 1.0).abs() < 1e-3, "{found:?}");
        // And that is within an eighth of the truth, outliers or not.
        let truth = slope(&law(0.7, 3.0, 0.35));
        assert!((slope(&found) / truth - 1.0).abs() < 0.125, "{}", slope(&found) / truth);
    }

    #[test]
    fn a_loss_that_does_not_fall_has_next_to_no_slope() {
        let rng = CounterRng::new(4);
        let flat: Vec<(f64, f64)> =
            (1..100).map(|i| ((i as f64).ln(), 1.1 + 0.005 * rng.normal(i))).collect();
        let found = fit_power_law(&flat, PowerLawBounds::default(), None).unwrap();
        assert!((found.loss(100.0).ln() - 1.1).abs() < 0.01, "{found:?}");
        assert!(found.exponent * found.reducible(100.0) < 0.05, "{found:?}");
    }

    #[test]
    fn too_little_and_unusable_points_have_no_law() {
        let exact = points(law(0.6, 2.0, 0.3), 60, |_| 0.0);
        let bounds = PowerLawBounds::default();
        assert_eq!(fit_power_law(&exact[..4], bounds, None), None);
        assert!(fit_power_law(&exact[..5], bounds, None).is_some());
        let mut bad = exact.clone();
        bad[3].1 = f64::NAN;
        assert_eq!(fit_power_law(&bad, bounds, None), None);
        // A last law that is not finite is no place to start from.
        let last = Some(law(f64::NAN, 1.0, 0.5));
        assert_eq!(fit_power_law(&exact, bounds, last), fit_power_law(&exact, bounds, None));
    }

    proptest! {
        #[test]
        fn any_points_give_a_law_within_the_bounds_or_none(
            raw in prop::collection::vec((0.0f64..30.0, -50.0f64..50.0), 0..12),
            least in -3.0f64..3.0,
        ) {
            let bounds = PowerLawBounds { min_log_irreducible: least, ..PowerLawBounds::default() };
            if let Some(law) = fit_power_law(&raw, bounds, None) {
                prop_assert!(law.is_finite() && raw.len() >= FEWEST);
                prop_assert!(law.log_irreducible >= least && law.log_scale <= 6.5);
                prop_assert!((0.0..=0.8).contains(&law.exponent));
            }
        }
    }
}
