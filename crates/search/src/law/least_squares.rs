//! Damped least squares with a Gaussian prior on each coefficient: the most probable coefficients
//! of a curved law.
//!
//! Minimises Σ w_i (y_i − m_i(p))²/σ² + Σ ((p_j − μ_j)/s_j)² (Levenberg 1944, Marquardt 1963).
//! Where δ is given, outliers count less, w_i = min(1, δ/|y_i − m_i|) (Huber 1964). Where σ is not
//! known, both are the data's: σ is 1.4826 times the median error, which half of the runs may not
//! spoil (Hampel 1974), over the root of the part of the runs that is not used up by the
//! coefficients that they determine (MacKay, *Neural Computation* 4, 1992); and w_i = min(1,
//! (3σ/|y_i − m_i|)²), so that a run far from all others loses its say. It begins without one: the
//! first weights are by the distance from the median response.

use nalgebra::{DMatrix, DVector};

/// A curved law over a sample.
pub(crate) trait Curve {
    /// m(p), and where `slopes` is given, ∂m/∂p. `[n]`, `[n, d]`
    fn values(&self, p: &DVector<f64>, slopes: Option<&mut DMatrix<f64>>) -> DVector<f64>;
}

/// What coefficients are likely before any run was seen.
pub(crate) struct Prior {
    pub mean: DVector<f64>,
    pub deviation: DVector<f64>,
}

/// What is known of the noise.
#[derive(Clone, Copy)]
pub(crate) enum Noise {
    /// Nothing: it is estimated.
    Unknown,
    /// σ, and the error δ from which on an outlier counts less.
    Known { deviation: f64, outlier: f64 },
}

/// The most probable coefficients.
pub(crate) struct Solution {
    pub p: DVector<f64>,
    /// The standard deviation of a response of weight 1.
    pub noise: f64,
    /// How much each response counted in the end. `[n]`
    pub weights: Vec<f64>,
    /// What was minimised, with the last weights.
    pub cost: f64,
}

/// Rounds of σ and weights, and steps within each.
const ROUNDS: usize = 8;
const STEPS: usize = 30;
/// Errors in units of σ from which on an outlier counts less; responses in units of their spread.
const OUTLIER: f64 = 3.0;
const FAR: f64 = 1.5;
/// σ over the median absolute deviation of normal errors.
const NORMAL: f64 = 1.4826;
/// The longest step of a coefficient, all of which are logarithms.
const LONGEST: f64 = 2.0;

/// Solves for `y` with the sample's `weights`, going down from `start`.
pub(crate) fn solve(
    curve: &impl Curve,
    y: &DVector<f64>,
    weights: &DVector<f64>,
    prior: &Prior,
    start: DVector<f64>,
    noise: Noise,
) -> Solution {
    let middle = median(y.iter().copied());
    let spread = spread(y, weights, middle);
    let first = match noise {
        Noise::Known { .. } => weights.clone(),
        Noise::Unknown => weights.zip_map(y, |weight, value| {
            weight * (FAR * spread / (value - middle).abs()).powi(2).min(1.0)
        }),
    };
    let mut problem = Problem {
        curve,
        y,
        weights: first,
        prior,
        precision: prior.deviation.map(|deviation| deviation.powi(-2)),
        noise: match noise {
            Noise::Unknown => 0.1 * spread,
            Noise::Known { deviation, .. } => deviation,
        },
    };
    let mut p = start;
    let mut cost = f64::INFINITY;
    for round in 0..ROUNDS {
        let descent = problem.descend(&mut p);
        problem.weights = match noise {
            Noise::Known { outlier, .. } => weights.zip_map(&descent.errors, |weight, error| {
                weight * (outlier / error.abs()).min(1.0)
            }),
            Noise::Unknown => {
                let free = (weights.sum() - problem.determined(&descent.curvature)).max(2.0);
                let scaled = descent.errors.zip_map(weights, |error, w| error.abs() * w.sqrt());
                let typical = NORMAL * median(scaled.iter().copied());
                let noise = typical * (weights.sum() / free).sqrt();
                problem.noise = noise.clamp(1e-3 * spread, spread);
                let outlier = OUTLIER * problem.noise;
                weights.zip_map(&descent.errors, |weight, error| {
                    weight * (outlier / error.abs()).powi(2).min(1.0)
                })
            }
        };
        let before = std::mem::replace(&mut cost, problem.cost(&descent.errors, &p));
        if round > 1 && (before / cost - 1.0).abs() < 1e-3 {
            break;
        }
    }
    let weights = problem.weights.iter().copied().collect();
    Solution { p, noise: problem.noise, weights, cost }
}

/// How far the responses lie from their median: by the median distance, or where most are the same
/// by the root mean square; 1 where all are.
fn spread(y: &DVector<f64>, weights: &DVector<f64>, middle: f64) -> f64 {
    let typical = NORMAL * median(y.iter().map(|value| (value - middle).abs()));
    if typical > 0.0 {
        return typical;
    }
    let squares = y.map(|value| (value - middle).powi(2)).dot(weights) / weights.sum();
    if squares > 0.0 { squares.sqrt() } else { 1.0 }
}

/// The middle value; 0 of none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => 0.5 * (sorted[middle - 1] + sorted[middle]),
    }
}

struct Problem<'a, C> {
    curve: &'a C,
    y: &'a DVector<f64>,
    weights: DVector<f64>,
    prior: &'a Prior,
    precision: DVector<f64>,
    noise: f64,
}

/// Where a descent ended.
struct Descent {
    errors: DVector<f64>,
    /// JᵀWJ/σ².
    curvature: DMatrix<f64>,
}

impl<C: Curve> Problem<'_, C> {
    fn cost(&self, errors: &DVector<f64>, p: &DVector<f64>) -> f64 {
        let data = self.weights.dot(&errors.component_mul(errors)) / self.noise.powi(2);
        let away = p - &self.prior.mean;
        data + self.precision.dot(&away.component_mul(&away))
    }

    fn descend(&self, p: &mut DVector<f64>) -> Descent {
        let mut slopes = DMatrix::zeros(self.y.len(), p.len());
        let mut damping = 1e-3;
        let mut errors = self.y - self.curve.values(p, Some(&mut slopes));
        let mut cost = self.cost(&errors, p);
        for _ in 0..STEPS {
            let curvature = self.curvature(&slopes);
            let pull = slopes.tr_mul(&errors.component_mul(&self.weights)) / self.noise.powi(2)
                - (&*p - &self.prior.mean).component_mul(&self.precision);
            let Some(better) = self.step(p, &curvature, &pull, cost, &mut damping) else { break };
            let gain = (cost - better.cost) / cost.abs().max(f64::MIN_POSITIVE);
            *p = better.p;
            cost = better.cost;
            errors = self.y - self.curve.values(p, Some(&mut slopes));
            if gain < 1e-5 {
                break;
            }
        }
        Descent { errors, curvature: self.curvature(&slopes) }
    }

    fn curvature(&self, slopes: &DMatrix<f64>) -> DMatrix<f64> {
        let mut scaled = slopes.clone();
        for (mut row, weight) in scaled.row_iter_mut().zip(&self.weights) {
            row *= weight / self.noise.powi(2);
        }
        slopes.transpose() * scaled
    }

    /// The first damped step that lowers the cost.
    fn step(
        &self,
        p: &DVector<f64>,
        curvature: &DMatrix<f64>,
        pull: &DVector<f64>,
        cost: f64,
        damping: &mut f64,
    ) -> Option<Better> {
        for _ in 0..12 {
            let mut damped = curvature.clone();
            for index in 0..p.len() {
                damped[(index, index)] =
                    (curvature[(index, index)] + self.precision[index]) * (1.0 + *damping);
            }
            if let Some(factor) = damped.cholesky() {
                let step = factor.solve(pull).map(|change| change.clamp(-LONGEST, LONGEST));
                let p = p + step;
                let cost_there = self.cost(&(self.y - self.curve.values(&p, None)), &p);
                if cost_there < cost {
                    *damping = (*damping / 5.0).max(1e-9);
                    return Some(Better { p, cost: cost_there });
                }
            }
            *damping *= 5.0;
        }
        None
    }

    /// How many coefficients the data determine, rather than the prior: tr((A + S)⁻¹ A).
    fn determined(&self, curvature: &DMatrix<f64>) -> f64 {
        let mut whole = curvature.clone();
        for index in 0..self.precision.len() {
            whole[(index, index)] += self.precision[index];
        }
        whole.cholesky().map_or(0.0, |factor| factor.solve(curvature).trace())
    }
}

struct Better {
    p: DVector<f64>,
    cost: f64,
}
