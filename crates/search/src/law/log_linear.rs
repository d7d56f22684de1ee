//! L = c + exp(b + Σ_j t_j r_j), by Huber's loss (δ = .02 nats) and a ridge on t, from several
//! starts.
//!
//! Minimises mean Huber(L − prediction) + λ Σ t_j², with c below the lowest loss. Published fits
//! take λ = 10⁻⁴, which is far too much where runs differ by less than RegMix's do: t shrinks, and
//! the law becomes a line. So λ is the one with the least held-out errors, unless it is given.
//!
//! Source: Ye et al., *Data Mixing Laws*, arXiv:2403.16952; Chen et al., *Olmix*, arXiv:2602.12237.

use super::least_squares::{Curve, Noise, Prior, Solution, solve};
use super::refitted::Refitted;
use super::ridge::{Line, Ridge};
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "log-linear",
    summary: "L = c + exp(b + Σ t_j r_j), Huber's loss, many starts",
    source: "Ye et al. 2403.16952, Chen et al. 2602.12237",
    tells_knobs_apart: false,
    least,
    make,
};

/// Starts: how far c lies below the lowest loss, in units of the median's distance to it.
const GAPS: [f64; 4] = [0.1, 0.5, 2.0, 8.0];
const OUTLIER: f64 = 0.02;
/// Values of λ, the published one first.
const RIDGES: [f64; 4] = [1e-4, 1e-5, 1e-6, 1e-7];
/// Parts that are held out in turn to choose λ.
const HELD_OUT: usize = 5;

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, options: &LawOptions| -> Result<Box<dyn Fitted>> {
        let ridge = options.ridge.unwrap_or_else(|| chosen_ridge(sample, options.seed));
        Ok(Box::new(LogLinear::fit(sample, ridge, &GAPS)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

// Where the coefficients stand; from SLOPES on the domains'.
const GAP: usize = 0;
const LEVEL: usize = 1;
const SLOPES: usize = 2;

struct LogLinear {
    floor: f64,
    line: Line,
}

/// The λ whose fits err least on mixtures that were held out.
fn chosen_ridge(sample: &Sample, seed: u64) -> f64 {
    let parts: Vec<(Sample, Sample)> = (0..HELD_OUT)
        .map(|part| sample.part(part, HELD_OUT, seed))
        .filter(|(kept, _)| kept.len() > 0)
        .collect();
    let held_out_error = |ridge: f64| -> f64 {
        let of_part = |(kept, held_out): &(Sample, Sample)| -> f64 {
            // The best start seldom depends on λ, and the middle one is seldom worse.
            let fitted = LogLinear::fit(kept, ridge, &GAPS[1..2]);
            let errors = held_out.shares.row_iter().zip(&held_out.losses).map(|(shares, loss)| {
                huber(loss - fitted.floor - fitted.line.at(shares.iter().copied()).exp())
            });
            held_out.weights.iter().zip(errors).map(|(weight, error)| weight * error).sum()
        };
        parts.iter().map(of_part).sum()
    };
    let errors = RIDGES.map(|ridge| (ridge, held_out_error(ridge)));
    let least = errors.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    least.map_or(RIDGES[0], |(ridge, _)| ridge)
}

/// Huber's loss of an error.
fn huber(error: f64) -> f64 {
    let size = error.abs();
    if size <= OUTLIER { 0.5 * size * size } else { OUTLIER * (size - 0.5 * OUTLIER) }
}

impl LogLinear {
    /// From each of the starts `gaps`.
    fn fit(sample: &Sample, ridge: f64, gaps: &[f64]) -> Self {
        let (lowest, spread) = sample.lowest_and_spread();
        let losses = DVector::from_column_slice(&sample.losses);
        let weights = DVector::from_column_slice(&sample.weights);
        let curve = Exponential { shares: &sample.shares, lowest };
        let starts = Ridge::new(&sample.shares, &sample.weights);
        let size = SLOPES + sample.domains();
        let mut prior = Prior {
            mean: DVector::zeros(size),
            // Twice the sum of the objective over runs: a ridge is a prior of variance 1/(2nλ).
            deviation: DVector::from_element(size, (2.0 * weights.sum() * ridge).sqrt().recip()),
        };
        // c and b are free but for a rein: e^±10 of the spread.
        prior.mean[GAP] = spread.ln();
        prior.deviation[GAP] = 1e3;
        prior.deviation[LEVEL] = 1e3;
        let solutions = gaps.iter().map(|gap| {
            let gap = gap * spread;
            let logs: Vec<f64> =
                sample.losses.iter().map(|loss| (loss - lowest + gap).ln()).collect();
            let line = starts.line(&starts.response(&logs), 1e-2);
            let mut start = DVector::zeros(size);
            start[GAP] = gap.ln();
            start[LEVEL] = line.intercept;
            start.rows_mut(SLOPES, line.slopes.len()).copy_from_slice(&line.slopes);
            let noise = Noise::Known { deviation: 1.0, outlier: OUTLIER };
            solve(&curve, &losses, &weights, &prior, start, noise)
        });
        let best = solutions.min_by(|a: &Solution, b| a.cost.total_cmp(&b.cost));
        let p = best.map_or(prior.mean, |solution| solution.p);
        let slopes = p.iter().skip(SLOPES).copied().collect();
        Self { floor: lowest - p[GAP].exp(), line: Line { intercept: p[LEVEL], slopes } }
    }

    fn above_floor(&self, point: &Point) -> f64 {
        self.line.at((0..self.line.slopes.len()).map(|domain| share(point, domain))).exp()
    }
}

impl Fitted for LogLinear {
    fn predict(&self, point: &Point) -> f64 {
        self.floor + self.above_floor(point)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let above = self.above_floor(point);
        let sampling = self.line.slopes.iter().map(|t| above * t).collect();
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        let Line { intercept, slopes } = &self.line;
        json!({ "form": ENTRY.name, "c": self.floor, "b": intercept, "t": slopes })
    }
}

/// lowest − gap + exp(b + t·r).
struct Exponential<'a> {
    shares: &'a DMatrix<f64>,
    lowest: f64,
}

impl Curve for Exponential<'_> {
    fn values(&self, p: &DVector<f64>, slopes: Option<&mut DMatrix<f64>>) -> DVector<f64> {
        let gap = p[GAP].exp();
        let above = (self.shares * p.rows(SLOPES, p.len() - SLOPES)).map(|x| (p[LEVEL] + x).exp());
        if let Some(slopes) = slopes {
            slopes.column_mut(GAP).fill(-gap);
            slopes.set_column(LEVEL, &above);
            for (domain, shares) in self.shares.column_iter().enumerate() {
                slopes.set_column(SLOPES + domain, &shares.component_mul(&above));
            }
        }
        above.add_scalar(self.lowest - gap)
    }
}
