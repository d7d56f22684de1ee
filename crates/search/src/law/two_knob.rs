//! Two knobs: what is drawn and what counts are told apart.
//!
//! L(α, p) = c + exp(b + Σ_j t_j z_j) − β ln B_eff,   z_j ∝ α_j^(1−τ) p_j^τ,
//! ln B_eff = ln B − ln Σ_j α_j²/p_j  (equal gradient variances; ln B is part of c).
//!
//! τ = 0: the objective alone decides, sampling only scatters the gradient. τ = 1: what is drawn
//! decides, the law of every trainer without loss weights. A few runs with p ≠ α tell it; where p =
//! α throughout, τ is `null` and B_eff, which is B in every run, has no effect.
//!
//! For each τ the rest is least squares by Levenberg and Marquardt, with a ridge on t whose weight
//! is the noise over the size of t (empirical Bayes). τ itself minimises the profile.

use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

use super::folds::leave_one_out;
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Observations, Point};
use crate::error::Result;
use crate::shares::total_variation;

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "two-knob",
    summary: "log-linear in shares between objective and sampling, and a price of small batches",
    source: "Cuvee; log-linear form of arXiv:2403.16952",
    tells_knobs_apart: true,
    least: |domains| domains + 2,
    make: |_: &LawOptions| Box::new(TwoKnob),
};

/// Sampling and objective nearer than this in total variation count as one knob.
const ONE_KNOB: f64 = 1e-6;

/// Smallest share that is divided by.
const SMALLEST: f64 = 1e-9;

/// Values of τ that are tried before the best one's neighbourhood.
const GRID: usize = 11;

/// Steps of the golden section: narrows 0.2 to 10⁻⁴.
const SECTIONS: usize = 16;

/// Steps of Levenberg and Marquardt, and of those after which the ridge is found anew.
const STEPS: usize = 100;
const FIRST_STEPS: usize = 25;

/// A relative change of the cost below this ends them.
const CONVERGED: f64 = 1e-10;

/// F of one and many degrees of freedom that is exceeded once in 20 times.
const F_LIMIT: f64 = 4.0;

struct TwoKnob;

impl Law for TwoKnob {
    fn fit(&self, observed: &Observations) -> Result<Box<dyn Fitted>> {
        check_runs(observed)?;
        Ok(solve(observed))
    }

    fn leave_one_out(&self, observed: &Observations) -> Result<Vec<f64>> {
        check_runs(observed)?;
        leave_one_out(observed, |rest| Ok(solve(rest)))
    }
}

fn check_runs(observed: &Observations) -> Result<()> {
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    observed.check(ENTRY.name, (ENTRY.least)(domains))
}

fn solve(observed: &Observations) -> Box<dyn Fitted> {
    let differs = |p: &Point| total_variation(&p.sampling, &p.objective) > ONE_KNOB;
    if observed.points.iter().any(differs) {
        return Box::new(profile(observed));
    }
    let best = Problem::new(observed, 1.0).solve(None);
    Box::new(Fit::new(best.values, None, [0.0, 1.0]))
}

/// The best τ: on a grid, then by golden section between the neighbours of the best.
fn profile(observed: &Observations) -> Fit {
    let at = |tau: f64, start: Option<&Solution>| Problem::new(observed, tau).solve(start);
    let mut grid: Vec<(f64, Solution)> = Vec::new();
    for step in 0..GRID {
        let tau = step as f64 / (GRID - 1) as f64;
        let solution = at(tau, grid.last().map(|(_, solution)| solution));
        grid.push((tau, solution));
    }
    let best = (0..GRID).min_by(|a, b| grid[*a].1.cost.total_cmp(&grid[*b].1.cost)).unwrap_or(0);
    let golden = 0.5 * (5f64.sqrt() - 1.0);
    let (mut low, mut high) = (grid[best.saturating_sub(1)].0, grid[(best + 1).min(GRID - 1)].0);
    let start = grid[best].1.clone();
    let inside = |low: f64, high: f64, part: f64| {
        let tau = low + part * (high - low);
        (tau, at(tau, Some(&start)))
    };
    let (mut left, mut right) = (inside(low, high, 1.0 - golden), inside(low, high, golden));
    for _ in 0..SECTIONS {
        if left.1.cost < right.1.cost {
            (high, right) = (right.0, left);
            left = inside(low, high, 1.0 - golden);
        } else {
            (low, left) = (left.0, right);
            right = inside(low, high, golden);
        }
    }
    let sharp = if left.1.cost < right.1.cost { left } else { right };
    let (tau, solution) = if sharp.1.cost < grid[best].1.cost { sharp } else { grid[best].clone() };
    // Every τ whose cost is within the F limit of the best one's.
    let spare = observed.points.len().saturating_sub(solution.values.len() + 1).max(1) as f64;
    let limit = solution.cost * (1.0 + F_LIMIT / spare);
    let likely = grid.iter().filter(|(_, solution)| solution.cost <= limit).map(|(tau, _)| *tau);
    let interval = likely.fold([tau, tau], |[low, high], tau| [low.min(tau), high.max(tau)]);
    Fit::new(solution.values, Some(tau), interval)
}

/// z_j ∝ α_j^(1−τ) p_j^τ.
fn between_knobs(point: &Point, tau: f64) -> Vec<f64> {
    let pairs = point.objective.iter().zip(&point.sampling);
    let raw: Vec<f64> =
        pairs.map(|(alpha, p)| alpha.max(0.0).powf(1.0 - tau) * p.max(0.0).powf(tau)).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|value| value / sum.max(f64::MIN_POSITIVE)).collect()
}

/// Σ α²/p, the factor by which the batch is smaller than it looks.
fn batch_loss(point: &Point) -> f64 {
    let pairs = point.objective.iter().zip(&point.sampling);
    pairs.map(|(alpha, p)| alpha * alpha / p.max(SMALLEST)).sum::<f64>().max(SMALLEST)
}

/// Least squares at one τ. Unknowns: c, b, β, t.
struct Problem<'a> {
    shares: Vec<Vec<f64>>,
    log_batch_loss: Vec<f64>,
    losses: &'a [f64],
}

/// Unknowns before t.
const FIXED: usize = 3;

/// Values of the unknowns, the ridge on t they were found with, and their Σ of squares, ridge
/// included.
#[derive(Clone)]
struct Solution {
    values: Vec<f64>,
    ridge: f64,
    cost: f64,
}

impl<'a> Problem<'a> {
    fn new(observed: &'a Observations, tau: f64) -> Self {
        Self {
            shares: observed.points.iter().map(|point| between_knobs(point, tau)).collect(),
            log_batch_loss: observed.points.iter().map(|point| batch_loss(point).ln()).collect(),
            losses: &observed.losses,
        }
    }

    /// From `start`'s values at its ridge, or from a start of its own, with the ridge found in two
    /// rounds.
    fn solve(&self, start: Option<&Solution>) -> Solution {
        if let Some(start) = start {
            return self.descend(start.values.clone(), start.ridge, STEPS);
        }
        let domains = self.shares.first().map_or(0, Vec::len);
        let mut ridge = 1e-6 * self.variance().max(1e-12) * self.losses.len() as f64;
        let mut best = self.descend(self.start(), ridge, FIRST_STEPS);
        for steps in [FIRST_STEPS, STEPS] {
            let spare = self.losses.len().saturating_sub(domains + 2).max(1) as f64;
            let noise = self.errors(&best.values).norm_squared() / spare;
            let size = best.values[FIXED..].iter().map(|t| t * t).sum::<f64>() / domains as f64;
            ridge = (noise / size.max(1e-3)).max(1e-12);
            best = self.descend(best.values, ridge, steps);
        }
        best
    }

    fn variance(&self) -> f64 {
        let mean = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        let squares = self.losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>();
        squares / self.losses.len() as f64
    }

    /// c a little below the smallest loss, and a flat exponential.
    fn start(&self) -> Vec<f64> {
        let mut sorted = self.losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, median) = (sorted[0], sorted[sorted.len() / 2]);
        let below = 0.5 * (median - least) + 0.02;
        let domains = self.shares.first().map_or(0, Vec::len);
        let mut values = vec![0.0; FIXED + domains];
        values[0] = least - below;
        values[1] = (median - least + below).ln();
        values
    }

    /// exp(b + Σ t z) of each run.
    fn exponentials(&self, values: &[f64]) -> Vec<f64> {
        let exponential = |z: &Vec<f64>| {
            let t: f64 = z.iter().zip(&values[FIXED..]).map(|(z, t)| z * t).sum();
            (values[1] + t).exp()
        };
        self.shares.iter().map(exponential).collect()
    }

    fn errors(&self, values: &[f64]) -> DVector<f64> {
        let exponentials = self.exponentials(values);
        DVector::from_fn(self.losses.len(), |run, _| {
            values[0] + exponentials[run] + values[2] * self.log_batch_loss[run] - self.losses[run]
        })
    }

    fn cost(&self, values: &[f64], ridge: f64) -> f64 {
        self.errors(values).norm_squared()
            + ridge * values[FIXED..].iter().map(|t| t * t).sum::<f64>()
    }

    /// Levenberg and Marquardt; β stays at 0 or above.
    fn descend(&self, mut values: Vec<f64>, ridge: f64, steps: usize) -> Solution {
        let width = values.len();
        let mut cost = self.cost(&values, ridge);
        let mut damping = 1e-3;
        for _ in 0..steps {
            let errors = self.errors(&values);
            let exponentials = self.exponentials(&values);
            let jacobian = DMatrix::from_fn(self.losses.len(), width, |run, j| match j {
                0 => 1.0,
                1 => exponentials[run],
                2 => self.log_batch_loss[run],
                _ => exponentials[run] * self.shares[run][j - FIXED],
            });
            let mut normal = jacobian.tr_mul(&jacobian);
            let mut right = -jacobian.tr_mul(&errors);
            for j in FIXED..width {
                normal[(j, j)] += ridge;
                right[j] -= ridge * values[j];
            }
            let before = cost;
            while damping < 1e12 {
                let mut damped = normal.clone();
                for j in 0..width {
                    damped[(j, j)] += damping * normal[(j, j)].max(1e-12);
                }
                let step = damped.cholesky().map(|factor| factor.solve(&right));
                let moved = step.map(|step| {
                    let mut moved: Vec<f64> =
                        values.iter().zip(&step).map(|(v, s)| v + s).collect();
                    moved[2] = moved[2].max(0.0);
                    moved
                });
                let lower = moved.filter(|moved| self.cost(moved, ridge) < cost);
                if let Some(moved) = lower {
                    cost = self.cost(&moved, ridge);
                    values = moved;
                    damping = (damping * 0.3).max(1e-12);
                    break;
                }
                damping *= 4.0;
            }
            if before - cost <= CONVERGED * before {
                break;
            }
        }
        Solution { values, ridge, cost }
    }
}

/// The law with its coefficients.
struct Fit {
    floor: f64,
    level: f64,
    batch: f64,
    slopes: Vec<f64>,
    tau: Option<f64>,
    tau_interval: [f64; 2],
}

impl Fit {
    fn new(values: Vec<f64>, tau: Option<f64>, tau_interval: [f64; 2]) -> Self {
        let slopes = values[FIXED..].to_vec();
        // p = α throughout: the batch's column is 0, and so is what it says.
        let batch = if tau.is_some() { values[2] } else { 0.0 };
        Self { floor: values[0], level: values[1], batch, slopes, tau, tau_interval }
    }

    /// τ, or the law of every other trainer where it is not known.
    fn tau(&self) -> f64 {
        self.tau.unwrap_or(1.0)
    }

    /// z, Σ t z and exp(b + Σ t z).
    fn parts(&self, point: &Point) -> (Vec<f64>, f64, f64) {
        let shares = between_knobs(point, self.tau());
        let t: f64 = shares.iter().zip(&self.slopes).map(|(z, t)| z * t).sum();
        (shares, t, (self.level + t).exp())
    }
}

impl Fitted for Fit {
    fn predict(&self, point: &Point) -> f64 {
        let (_, _, exponential) = self.parts(point);
        self.floor + exponential + self.batch * batch_loss(point).ln()
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let (shares, t, exponential) = self.parts(point);
        let smaller = batch_loss(point);
        let slope = |i: usize, part: f64, share: f64| {
            exponential * part * shares[i] / share.max(SMALLEST) * (self.slopes[i] - t)
        };
        let domain = |i: usize| (point.objective[i], point.sampling[i].max(SMALLEST));
        let objective = (0..shares.len()).map(|i| {
            let (alpha, p) = domain(i);
            slope(i, 1.0 - self.tau(), alpha) + self.batch * 2.0 * alpha / (p * smaller)
        });
        let sampling = (0..shares.len()).map(|i| {
            let (alpha, p) = domain(i);
            slope(i, self.tau(), p) - self.batch * (alpha / p).powi(2) / smaller
        });
        Some(Gradient {
            sampling: sampling.collect(),
            objective: objective.collect(),
            epochs: Vec::new(),
        })
    }

    fn describe(&self) -> Value {
        json!({
            "form": ENTRY.name,
            "c": self.floor,
            "b": self.level,
            "t": self.slopes,
            "beta": self.batch,
            "tau": self.tau,
            "tau_interval": self.tau_interval,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::shares::dirichlet;
    use cuvee_mixer::seed::CounterRng;

    fn truth(tau: f64) -> Fit {
        let values = vec![2.0, 0.5, 0.04, -1.0, 0.3, -0.4, 0.8];
        Fit::new(values, Some(tau), [tau, tau])
    }

    /// `one` runs with p = α, and `two` with p ≠ α.
    fn observed(tau: f64, one: u64, two: u64, noise: f64) -> Observations {
        let rng = CounterRng::new(11);
        let draw = |i: u64| dirichlet(rng.nested(i), &[1.5; 4]);
        let single = (0..one).map(|i| Point::both(draw(i)));
        let pairs = (0..two).map(|i| {
            let (far, even) = (draw(1000 + i), [0.25; 4]);
            let mixed = crate::shares::between(&even, &far, 0.75);
            let (sampling, objective) =
                if i % 2 == 0 { (mixed, even.into()) } else { (even.into(), mixed) };
            Point { sampling, objective, epochs: Vec::new() }
        });
        let points: Vec<Point> = single.chain(pairs).collect();
        let truth = truth(tau);
        let losses = points.iter().enumerate();
        let losses = losses.map(|(i, p)| truth.predict(p) + noise * rng.normal(i as u64)).collect();
        Observations { groups: (0..points.len()).collect(), points, losses }
    }

    fn fit(seen: &Observations) -> Box<dyn Fitted> {
        (ENTRY.make)(&LawOptions::default()).fit(seen).unwrap()
    }

    #[test]
    fn tau_is_found_within_a_tenth() {
        for tau in [0.0, 0.3, 0.5, 0.8, 1.0] {
            for noise in [0.0, 0.002] {
                let law = fit(&observed(tau, 14, 6, noise)).describe();
                let found = law["tau"].as_f64().unwrap();
                assert!((found - tau).abs() < 0.1, "{found} for {tau} at {noise}: {law}");
            }
        }
    }

    #[test]
    fn one_knob_throughout_tells_nothing_of_tau_and_the_batch_has_no_effect() {
        let law = fit(&observed(0.5, 20, 0, 0.002));
        assert!(law.describe()["tau"].is_null() && law.describe()["beta"] == 0.0);
    }

    #[test]
    fn slopes_are_those_of_the_predictions() {
        let law = fit(&observed(0.4, 14, 6, 0.001));
        let point = Point {
            sampling: vec![0.1, 0.2, 0.3, 0.4],
            objective: vec![0.25, 0.35, 0.3, 0.1],
            epochs: Vec::new(),
        };
        let gradient = law.gradient(&point).unwrap();
        for i in 0..4 {
            let moved = |knob: fn(&mut Point) -> &mut Vec<f64>, by: f64| {
                let mut point = point.clone();
                knob(&mut point)[i] += by;
                law.predict(&point)
            };
            let slope = |knob: fn(&mut Point) -> &mut Vec<f64>| {
                (moved(knob, 1e-6) - moved(knob, -1e-6)) / 2e-6
            };
            let (p, alpha) = (slope(|p| &mut p.sampling), slope(|p| &mut p.objective));
            assert!((p - gradient.sampling[i]).abs() < 1e-6, "{i}: {p} {gradient:?}");
            assert!((alpha - gradient.objective[i]).abs() < 1e-6, "{i}: {alpha} {gradient:?}");
        }
    }
}
