//! L = c + exp(b + Σ_j t_j r_j), by Huber's loss (δ = .02 nats) and a ridge of 1e-4 on t, from
//! several starts.
//!
//! Minimises mean Huber(L − prediction) + 10⁻⁴ Σ t_j², with c below the lowest loss.
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
    least,
    make,
};

const FOLDS: usize = 32;
/// Starts: how far c lies below the lowest loss, in units of the median's distance to it.
const GAPS: [f64; 4] = [0.1, 0.5, 2.0, 8.0];
const OUTLIER: f64 = 0.02;
const RIDGE: f64 = 1e-4;

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(LogLinear::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, folds: FOLDS, options: options.clone() })
}

// Where the coefficients stand; from SLOPES on the domains'.
const GAP: usize = 0;
const LEVEL: usize = 1;
const SLOPES: usize = 2;

struct LogLinear {
    floor: f64,
    line: Line,
}

impl LogLinear {
    fn fit(sample: &Sample) -> Self {
        let (lowest, median) = sample.lowest_and_median();
        let spread = if median > lowest { median - lowest } else { lowest.abs().max(1.0) * 1e-6 };
        let losses = DVector::from_column_slice(&sample.losses);
        let weights = DVector::from_column_slice(&sample.weights);
        let curve = Exponential { shares: &sample.shares, lowest };
        let ridge = Ridge::new(&sample.shares, &sample.weights);
        let size = SLOPES + sample.domains();
        let mut prior = Prior {
            mean: DVector::zeros(size),
            // Twice the sum of the objective over runs: a ridge is a prior of variance 1/(2nλ).
            deviation: DVector::from_element(size, (2.0 * weights.sum() * RIDGE).sqrt().recip()),
        };
        // c and b are free but for a rein: e^±10 of the spread.
        prior.mean[GAP] = spread.ln();
        prior.deviation[GAP] = 1e3;
        prior.deviation[LEVEL] = 1e3;
        let solutions = GAPS.iter().map(|gap| {
            let gap = gap * spread;
            let logs: Vec<f64> =
                sample.losses.iter().map(|loss| (loss - lowest + gap).ln()).collect();
            let line = ridge.line(&ridge.response(&logs), 1e-2);
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
