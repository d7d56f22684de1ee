//! Exposure: what a domain gives saturates with its epochs, and many epochs harm.
//!
//! With E_i = r_i · T/N_i epochs of domain i,
//!
//! L = β₀ − Σ_i α_i (1 − e^(−(ρ E_i)^p)) + Σ_i γ_i softplus(ln(1 + E_i) − τ)²,   α, γ ≥ 0.
//!
//! α and γ are a non-negative least-squares fit with ridge λ on centred columns that keep their
//! scale, so that what no run exposed is hardly credited. ρ, p, τ and λ come from a grid, by three
//! folds of mixtures. It needs epochs: it is what sees repetition.

use rayon::prelude::*;
use serde_json::{Value, json};

use super::folds::{folds, leave_one_out};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Observations, Point};
use crate::error::{Result, SearchError};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "exposure",
    summary: "what a domain gives saturates with its epochs, and many epochs harm",
    source: "the winning form of Marin's comparison of 18 laws (2026)",
    tells_knobs_apart: false,
    least: |domains| (domains + 2).max(FOLDS),
    make: |options| Box::new(Exposure { options: options.clone() }),
};

const RATES: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0];
const POWERS: [f64; 4] = [0.3, 0.5, 0.7, 1.0];
const ONSETS: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const RIDGES: [f64; 5] = [0.0, 1e-3, 0.01, 0.1, 1.0];
const FOLDS: usize = 3;

/// Above this many domains the grid is walked one axis after another: rates and powers at the
/// middle onset first, then the onsets.
const WHOLE_GRID: usize = 40;

/// Epochs below this count as this for slopes, which are infinite at 0.
const FEW_EPOCHS: f64 = 1e-6;

struct Exposure {
    options: LawOptions,
}

/// ρ, p, τ.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    rate: f64,
    power: f64,
    onset: f64,
}

impl Shape {
    /// 1 − e^(−(ρE)^p)
    fn benefit(&self, epochs: f64) -> f64 {
        -(-(self.rate * epochs.max(0.0)).powf(self.power)).exp_m1()
    }

    fn benefit_slope(&self, epochs: f64) -> f64 {
        let epochs = epochs.max(FEW_EPOCHS);
        let inner = (self.rate * epochs).powf(self.power);
        self.power * inner / epochs * (-inner).exp()
    }

    /// softplus(ln(1 + E) − τ)²
    fn harm(&self, epochs: f64) -> f64 {
        softplus(epochs.max(0.0).ln_1p() - self.onset).powi(2)
    }

    fn harm_slope(&self, epochs: f64) -> f64 {
        let x = epochs.max(0.0).ln_1p() - self.onset;
        2.0 * softplus(x) / (1.0 + (-x).exp()) / (1.0 + epochs.max(0.0))
    }

    /// The columns of a run: what it gains of each domain, negated, then what harms it. `[2K]`
    fn columns(&self, epochs: &[f64]) -> Vec<f64> {
        let benefits = epochs.iter().map(|e| -self.benefit(*e));
        benefits.chain(epochs.iter().map(|e| self.harm(*e))).collect()
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Law for Exposure {
    fn fit(&self, observed: &Observations) -> Result<Box<dyn Fitted>> {
        check_epochs(observed)?;
        Ok(self.solve(observed))
    }

    fn leave_one_out(&self, observed: &Observations) -> Result<Vec<f64>> {
        check_epochs(observed)?;
        leave_one_out(observed, |rest| Ok(self.solve(rest)))
    }
}

/// Refuses too few runs, and runs whose epochs are unknown.
fn check_epochs(observed: &Observations) -> Result<()> {
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    observed.check(ENTRY.name, (ENTRY.least)(domains))?;
    match observed.points.iter().position(|point| point.epochs.len() != domains) {
        None => Ok(()),
        Some(run) => Err(SearchError::BadValue {
            expected: format!("the epochs of {domains} domains, by which this law goes"),
            found: "domains whose size is unknown".to_owned(),
            place: format!("run {}", run + 1),
            hint: "give the tokens that each domain has, or take a law in shares, as \
                   power-log-linear",
        }),
    }
}

impl Exposure {
    fn solve(&self, observed: &Observations) -> Box<dyn Fitted> {
        let domains = observed.points.first().map_or(0, |point| point.sampling.len());
        let folds = folds(observed, FOLDS, self.options.seed);
        let (shape, ridge) = choose(observed, &folds, domains);
        let system = System::new(observed, shape, |_| true);
        let weights = system.solve(ridge);
        let base = system.base(&weights);
        let (benefit, harm) = weights.split_at(domains);
        Box::new(Fit { base, benefit: benefit.into(), harm: harm.into(), shape, ridge })
    }
}

/// Shape and ridge with the least error over the folds.
fn choose(observed: &Observations, folds: &[usize], domains: usize) -> (Shape, f64) {
    let rates = RATES.iter().flat_map(|rate| POWERS.iter().map(move |power| (*rate, *power)));
    let shape = |onset: f64| move |(rate, power)| Shape { rate, power, onset };
    let best = |shapes: Vec<Shape>| -> (Shape, f64) {
        let scored: Vec<[f64; RIDGES.len()]> =
            shapes.par_iter().map(|shape| held_out_errors(observed, folds, *shape)).collect();
        let all = shapes.iter().zip(&scored).flat_map(|(shape, errors)| {
            RIDGES.iter().zip(errors).map(move |(ridge, error)| (*shape, *ridge, *error))
        });
        // The first of equals, so that the choice does not depend on the order of threads.
        let least = all.reduce(|best, next| if next.2 < best.2 { next } else { best });
        least.map_or((Shape { rate: 1.0, power: 1.0, onset: 6.0 }, 1.0), |(s, r, _)| (s, r))
    };
    if domains <= WHOLE_GRID {
        return best(ONSETS.iter().flat_map(|onset| rates.clone().map(shape(*onset))).collect());
    }
    let (first, _) = best(rates.map(shape(ONSETS[ONSETS.len() / 2])).collect());
    best(ONSETS.iter().map(|onset| Shape { onset: *onset, ..first }).collect())
}

/// Σ of squared errors over the folds, for each ridge.
fn held_out_errors(observed: &Observations, folds: &[usize], shape: Shape) -> [f64; RIDGES.len()] {
    let mut errors = [0.0; RIDGES.len()];
    for fold in 0..FOLDS {
        let system = System::new(observed, shape, |run| folds[run] != fold);
        for (error, ridge) in errors.iter_mut().zip(RIDGES) {
            if ridge == 0.0 && system.is_underdetermined() {
                *error = f64::INFINITY;
                continue;
            }
            let weights = system.solve(ridge);
            let base = system.base(&weights);
            for run in (0..folds.len()).filter(|run| folds[*run] == fold) {
                let columns = shape.columns(&observed.points[run].epochs);
                let predicted = base + dot(&columns, &weights);
                *error += (predicted - observed.losses[run]).powi(2);
            }
        }
    }
    errors
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Least squares on centred columns: G = XᵀX/n and h = Xᵀy/n.
struct System {
    gram: Vec<Vec<f64>>,
    right: Vec<f64>,
    column_means: Vec<f64>,
    loss_mean: f64,
    runs: usize,
}

/// Sweeps of the coordinate descent, and the largest change of a weight, relative to the largest
/// weight, below which it stops.
const SWEEPS: usize = 500;
const CONVERGED: f64 = 1e-7;

impl System {
    fn new(observed: &Observations, shape: Shape, used: impl Fn(usize) -> bool) -> Self {
        let runs: Vec<usize> = (0..observed.points.len()).filter(|run| used(*run)).collect();
        let count = runs.len() as f64;
        let mut rows: Vec<Vec<f64>> =
            runs.iter().map(|run| shape.columns(&observed.points[*run].epochs)).collect();
        let width = rows.first().map_or(0, Vec::len);
        let column_means: Vec<f64> =
            (0..width).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / count).collect();
        for row in &mut rows {
            row.iter_mut().zip(&column_means).for_each(|(value, mean)| *value -= mean);
        }
        let loss_mean = runs.iter().map(|run| observed.losses[*run]).sum::<f64>() / count;
        let mut gram = vec![vec![0.0; width]; width];
        let mut right = vec![0.0; width];
        for (row, run) in rows.iter().zip(&runs) {
            let loss = observed.losses[*run] - loss_mean;
            for i in 0..width {
                right[i] += row[i] * loss / count;
                let scaled = row[i] / count;
                gram[i][..=i].iter_mut().zip(row).for_each(|(g, value)| *g += scaled * value);
            }
        }
        for i in 1..width {
            let (above, below) = gram.split_at_mut(i);
            above.iter_mut().zip(&below[0]).for_each(|(row, value)| row[i] = *value);
        }
        Self { gram, right, column_means, loss_mean, runs: runs.len() }
    }

    /// Whether there are more columns than runs: without a ridge many weights fit alike.
    fn is_underdetermined(&self) -> bool {
        self.right.len() >= self.runs
    }

    /// The x ≥ 0 with the least ½ xᵀGx − hᵀx + ½ λ x², by coordinate descent, each coordinate in
    /// turn to its best.
    fn solve(&self, ridge: f64) -> Vec<f64> {
        let width = self.right.len();
        let mut weights = vec![0.0; width];
        // h − G x, kept up to date.
        let mut slope = self.right.clone();
        for _ in 0..SWEEPS {
            let (mut changed, mut largest) = (0.0f64, 0.0f64);
            for i in 0..width {
                let curvature = self.gram[i][i] + ridge;
                if self.gram[i][i] < 1e-14 {
                    continue; // a column without variation says nothing
                }
                let old = weights[i];
                let new = (old + (slope[i] - ridge * old) / curvature).max(0.0);
                if new != old {
                    let by = new - old;
                    slope.iter_mut().zip(&self.gram[i]).for_each(|(s, g)| *s -= by * g);
                    weights[i] = new;
                    changed = changed.max(by.abs());
                }
                largest = largest.max(new);
            }
            if changed <= CONVERGED * largest {
                break;
            }
        }
        weights
    }

    fn base(&self, weights: &[f64]) -> f64 {
        self.loss_mean - dot(&self.column_means, weights)
    }
}

/// The law with its coefficients.
struct Fit {
    base: f64,
    benefit: Vec<f64>,
    harm: Vec<f64>,
    shape: Shape,
    ridge: f64,
}

impl Fitted for Fit {
    /// No number where the epochs are unknown.
    fn predict(&self, point: &Point) -> f64 {
        if point.epochs.len() != self.benefit.len() {
            return f64::NAN;
        }
        let terms = point.epochs.iter().zip(self.benefit.iter().zip(&self.harm));
        let change = terms.map(|(epochs, (benefit, harm))| {
            harm * self.shape.harm(*epochs) - benefit * self.shape.benefit(*epochs)
        });
        self.base + change.sum::<f64>()
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let terms = point.epochs.iter().zip(self.benefit.iter().zip(&self.harm));
        let slope = terms.map(|(epochs, (benefit, harm))| {
            harm * self.shape.harm_slope(*epochs) - benefit * self.shape.benefit_slope(*epochs)
        });
        Some(Gradient { epochs: slope.collect(), ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        json!({
            "form": ENTRY.name,
            "base": self.base,
            "benefit": self.benefit,
            "harm": self.harm,
            "rate": self.shape.rate,
            "power": self.shape.power,
            "onset": self.shape.onset,
            "ridge": self.ridge,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuvee_mixer::seed::CounterRng;

    const TRUE: Shape = Shape { rate: 1.0, power: 0.7, onset: 2.0 };

    fn observed(runs: u64, noise: f64) -> Observations {
        let rng = CounterRng::new(5);
        let points: Vec<Point> = (0..runs)
            .map(|run| {
                let r = crate::shares::dirichlet(rng.nested(run), &[1.0, 1.0, 1.0]);
                let epochs = r.iter().zip([1.0, 30.0, 6.0]).map(|(r, size)| r * size).collect();
                Point { epochs, ..Point::both(r) }
            })
            .collect();
        let truth = Fit {
            base: 3.0,
            benefit: vec![0.4, 0.3, 0.0],
            harm: vec![0.0, 0.1, 0.0],
            shape: TRUE,
            ridge: 0.0,
        };
        let draws = rng.nested(u64::MAX);
        let loss = |(i, p)| truth.predict(p) + noise * draws.normal(i as u64);
        let losses = points.iter().enumerate().map(loss).collect();
        Observations { groups: (0..points.len()).collect(), points, losses }
    }

    #[test]
    fn its_own_truth_is_found_again() {
        let law = (ENTRY.make)(&LawOptions::default());
        let seen = observed(40, 0.0);
        let fitted = law.fit(&seen).unwrap();
        let error = |(p, y): (&Point, &f64)| (fitted.predict(p) - y).abs();
        let worst = seen.points.iter().zip(&seen.losses).map(error).fold(0.0, f64::max);
        assert!(worst < 2e-3, "{worst} {}", fitted.describe());
        let held_out = law.leave_one_out(&seen).unwrap();
        let worst = held_out.iter().zip(&seen.losses).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f64::max) < 0.02);
    }

    #[test]
    fn unknown_sizes_are_refused_in_words() {
        let mut seen = observed(20, 0.01);
        seen.points[3].epochs.clear();
        let error = (ENTRY.make)(&LawOptions::default()).fit(&seen).err().unwrap().to_string();
        assert!(error.contains("epochs") && error.contains("run 4"), "{error}");
        assert!(error.contains("\nhint: "), "{error}");
    }

    #[test]
    fn slopes_are_those_of_the_predictions() {
        let fitted = (ENTRY.make)(&LawOptions::default()).fit(&observed(30, 0.01)).unwrap();
        let at = |epochs: [f64; 3]| {
            fitted.predict(&Point { epochs: epochs.into(), ..Point::both(vec![1.0 / 3.0; 3]) })
        };
        let epochs = [0.4, 12.0, 2.0];
        let point = Point { epochs: epochs.into(), ..Point::both(vec![1.0 / 3.0; 3]) };
        let gradient = fitted.gradient(&point).unwrap();
        for i in [0, 1, 2] {
            let step = 1e-5 * epochs[i];
            let (mut up, mut down) = (epochs, epochs);
            (up[i], down[i]) = (epochs[i] + step, epochs[i] - step);
            let slope = (at(up) - at(down)) / (2.0 * step);
            assert!((slope - gradient.epochs[i]).abs() < 1e-6 + 1e-4 * slope.abs(), "{i}");
        }
    }

    #[test]
    fn a_domain_that_nobody_drew_is_not_credited() {
        let mut seen = observed(30, 0.0);
        for point in &mut seen.points {
            (point.sampling[2], point.objective[2], point.epochs[2]) = (0.0, 0.0, 0.0);
        }
        let fitted = (ENTRY.make)(&LawOptions::default()).fit(&seen).unwrap();
        let law = fitted.describe();
        assert_eq!((&law["benefit"][2], &law["harm"][2]), (&json!(0.0), &json!(0.0)));
    }
}
