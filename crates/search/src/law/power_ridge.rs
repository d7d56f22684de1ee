//! L = c + exp(b + Σ_j t_j r_j^a): a ridge on log(L − c) over powers of the shares.
//!
//! a ∈ {.3, .5, .7, 1}, c = min − k (median − min), k ∈ {.1, .3, .5, 1, 2}, and the penalty are
//! chosen by leave-one-out errors in nats. With a = 1 it is the log-linear law in closed form. In
//! powers it needs a tenth of the runs: losses fall steeply where a domain's share leaves 0.
//!
//! Source: Cuvee; the form with a = 1 is Ye et al., *Data Mixing Laws*, arXiv:2403.16952.

use super::refitted::Refitted;
use super::ridge::{Line, PENALTIES, Ridge};
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use nalgebra::DMatrix;
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "power-ridge",
    summary: "L = c + exp(b + Σ t_j r_j^a), a ridge on log(L − c)",
    source: "Cuvee",
    tells_knobs_apart: false,
    least,
    make,
};

const EXPONENTS: [f64; 4] = [0.3, 0.5, 0.7, 1.0];
const GAPS: [f64; 5] = [0.1, 0.3, 0.5, 1.0, 2.0];

/// Shares below it are read as it where a slope is asked for: that of r^a is infinite at 0.
pub(super) const SMALLEST_SHARE: f64 = 1e-4;

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(PowerRidge::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

/// The law with its coefficients.
pub(super) struct PowerRidge {
    floor: f64,
    exponent: f64,
    penalty: f64,
    line: Line,
    /// Σ weight · error² of its closed-form leave-one-out, in nats.
    squares: f64,
}

impl PowerRidge {
    pub fn fit(sample: &Sample) -> Self {
        let (lowest, spread) = sample.lowest_and_spread();
        let highest = sample.losses.iter().copied().fold(lowest, f64::max);
        let mut best: Option<Self> = None;
        for exponent in EXPONENTS {
            let ridge = Ridge::new(&sample.shares.map(|r| power(r, exponent)), &sample.weights);
            let penalties = PENALTIES.map(|penalty| (penalty, ridge.leverages(penalty)));
            for gap in GAPS {
                let floor = lowest - (gap + 0.02) * spread;
                let logs: Vec<f64> = sample.losses.iter().map(|loss| (loss - floor).ln()).collect();
                // A loss far above all seen is no prediction: exp must not run away.
                let ceiling = (highest - floor).ln() + 2.0;
                let response = ridge.response(&logs);
                for (penalty, leverages) in &penalties {
                    let errors = ridge.held_out_errors(&response, *penalty, leverages);
                    let rows = sample.losses.iter().zip(&logs).zip(&errors);
                    let squares = sample.squares(rows.map(|((loss, log), error)| {
                        floor + (log - error).min(ceiling).exp() - loss
                    }));
                    if best.as_ref().is_none_or(|best| squares < best.squares) {
                        let line = ridge.line(&response, *penalty);
                        best = Some(Self { floor, exponent, penalty: *penalty, line, squares });
                    }
                }
            }
        }
        best.unwrap_or(Self {
            floor: 0.0,
            exponent: 1.0,
            penalty: 0.0,
            line: Line { intercept: f64::NAN, slopes: Vec::new() },
            squares: f64::INFINITY,
        })
    }

    /// The part of the loss above c.
    fn above_floor(&self, point: &Point) -> f64 {
        let shares = (0..self.line.slopes.len()).map(|domain| share(point, domain));
        self.line.at(shares.map(|share| power(share, self.exponent))).exp()
    }

    /// Predictions at the sample's own mixtures.
    pub fn predictions(&self, shares: &DMatrix<f64>) -> Vec<f64> {
        let rows = shares.row_iter();
        rows.map(|row| {
            self.floor + self.line.at(row.iter().map(|r| power(*r, self.exponent))).exp()
        })
        .collect()
    }
}

/// r^a, with 0 for what is not above 0.
pub(super) fn power(share: f64, exponent: f64) -> f64 {
    if share > 0.0 { share.powf(exponent) } else { 0.0 }
}

/// The slope of r^a.
pub(super) fn power_slope(share: f64, exponent: f64) -> f64 {
    exponent * share.max(SMALLEST_SHARE).powf(exponent - 1.0)
}

impl Fitted for PowerRidge {
    fn predict(&self, point: &Point) -> f64 {
        self.floor + self.above_floor(point)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let above = self.above_floor(point);
        let slopes = self.line.slopes.iter().enumerate();
        let sampling = slopes
            .map(|(domain, t)| above * t * power_slope(share(point, domain), self.exponent))
            .collect();
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        json!({
            "form": ENTRY.name, "c": self.floor, "a": self.exponent, "b": self.line.intercept,
            "t": self.line.slopes, "ridge": self.penalty,
        })
    }
}
