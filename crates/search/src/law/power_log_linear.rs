//! L = c + exp(b − α ln(τ₀ + Σ_j τ_j r_j^a)) + what is left over: a power law in the data that
//! count, to which each domain adds a power of its share.
//!
//! A domain's r_j^a is what its tokens teach, with diminishing returns; τ_j is how much of that
//! serves this target; the sum is the effective data, of which τ₀ is there in every mixture; and
//! the loss falls as a power −α of the sum, as losses do in tokens. Where α and τ₀ grow together,
//! this is L = c + exp(b + Σ_j t_j r_j^a), the log-linear law in powers.
//!
//! The coefficients but b are positive and fitted as logarithms, by damped least squares with a
//! prior each, which has the same form for every domain. In units where the lowest loss is 0 and
//! the median 1: ln(−c) ~ N(ln .7, 1²), b ~ N(.5, 2²), ln α ~ N(ln .3, .5²), ln τ₀ ~ N(−2.5, 1.5²),
//! ln a ~ N(ln .5, .15²) and ln τ_j ~ N(−1, 1.5²). The noise is estimated, and outliers count less.
//! A domain that no run drew from has τ_j = 0. What the law leaves over is a Gaussian process on
//! √(τ_j r_j^a): mixtures are as far apart as what they teach.
//!
//! Source: Cuvee. Its parts: powers of tokens, Kaplan et al. 2001.08361; effective data,
//! Hernandez et al. 2102.01293; exponentials in the shares, Ye et al. 2403.16952.

use super::least_squares::{Curve, Noise, Prior, solve};
use super::power_ridge::{SMALLEST_SHARE, power, power_slope};
use super::refitted::Refitted;
use super::residual::{LeftOver, Residual};
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "power-log-linear",
    summary: "L = c + exp(b − α ln(τ₀ + Σ τ_j r_j^a)), and a Gaussian process for what is left over",
    source: "Cuvee",
    least,
    make,
};

/// Fits that leaving out costs at most.
const FOLDS: usize = 64;

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(PowerLogLinear::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, folds: FOLDS, options: options.clone() })
}

// Where the coefficients stand; from TRANSFER on those of the domains.
const GAP: usize = 0;
const LEVEL: usize = 1;
const STEEPNESS: usize = 2;
const COMMON: usize = 3;
const EXPONENT: usize = 4;
const TRANSFER: usize = 5;

/// Mean and standard deviation of each prior; the last is every domain's. The means of `GAP`,
/// `STEEPNESS` and `EXPONENT` are ln .7, ln .3 and ln .5.
const PRIORS: [(f64, f64); TRANSFER + 1] =
    [(-0.357, 1.0), (0.5, 2.0), (-1.204, 0.5), (-2.5, 1.5), (-0.693, 0.15), (-1.0, 1.5)];

/// The law with its coefficients.
struct PowerLogLinear {
    /// c, α, τ₀, a, and τ.
    floor: f64,
    /// b, in nats.
    level: f64,
    steepness: f64,
    common: f64,
    exponent: f64,
    transfer: Vec<f64>,
    noise: f64,
    residual: Residual,
}

impl PowerLogLinear {
    fn fit(sample: &Sample) -> Self {
        let (lowest, median) = sample.lowest_and_median();
        let unit = if median > lowest { median - lowest } else { lowest.abs().max(1.0) * 1e-6 };
        let losses = DVector::from_iterator(
            sample.len(),
            sample.losses.iter().map(|loss| (loss - lowest) / unit),
        );
        let weights = DVector::from_column_slice(&sample.weights);
        let drawn = sample.drawn();
        let logs =
            sample.shares.map(|share| if share > 0.0 { share.ln() } else { f64::NEG_INFINITY });
        let domains: Vec<usize> = (0..drawn.len()).filter(|domain| drawn[*domain]).collect();
        let curve = Effective { logs: logs.select_columns(&domains) };
        let prior = |index: usize| PRIORS[index.min(TRANSFER)];
        let size = TRANSFER + domains.len();
        let prior = Prior {
            mean: DVector::from_fn(size, |index, _| prior(index).0),
            deviation: DVector::from_fn(size, |index, _| prior(index).1),
        };
        let start = prior.mean.clone();
        let solution = solve(&curve, &losses, &weights, &prior, start, Noise::Unknown);
        let p = &solution.p;
        let mut transfer = vec![0.0; drawn.len()];
        for (index, domain) in domains.iter().enumerate() {
            transfer[*domain] = p[TRANSFER + index].exp();
        }
        let fitted = curve.values(p, None);
        let errors = (losses - fitted).iter().map(|error| error * unit).collect();
        let left = LeftOver { errors, weights: solution.weights };
        let mean = transfer.iter().sum::<f64>() / domains.len().max(1) as f64;
        let metric = transfer.iter().map(|own| (own / mean).sqrt()).collect();
        let exponent = p[EXPONENT].exp();
        Self {
            floor: lowest - unit * p[GAP].exp(),
            level: p[LEVEL] + unit.ln(),
            steepness: p[STEEPNESS].exp(),
            common: p[COMMON].exp(),
            exponent,
            transfer,
            noise: solution.noise * unit,
            residual: Residual::fit(sample, &left, metric, exponent / 2.0),
        }
    }

    fn effective(&self, point: &Point) -> f64 {
        let domains = self.transfer.iter().enumerate();
        domains.fold(self.common, |sum, (domain, own)| {
            sum + own * power(share(point, domain), self.exponent)
        })
    }

    fn above_floor(&self, effective: f64) -> f64 {
        (self.level - self.steepness * effective.ln()).exp()
    }
}

impl Fitted for PowerLogLinear {
    fn predict(&self, point: &Point) -> f64 {
        self.floor + self.above_floor(self.effective(point)) + self.residual.at(point)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let effective = self.effective(point);
        let outer = -self.steepness * self.above_floor(effective) / effective;
        let inner =
            self.transfer.iter().enumerate().map(|(domain, own)| {
                outer * own * power_slope(share(point, domain), self.exponent)
            });
        let mut sampling: Vec<f64> = inner.collect();
        self.residual.add_slope(point, &mut sampling);
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        json!({
            "form": ENTRY.name, "c": self.floor, "b": self.level, "alpha": self.steepness,
            "tau_0": self.common, "a": self.exponent, "tau": self.transfer, "noise": self.noise,
            "left_over": self.residual.ratio, "smallest_share": SMALLEST_SHARE,
            "residual": self.residual.describe(),
        })
    }
}

/// exp(b − α ln(τ₀ + Σ τ_j r_j^a)) − gap, in units of the losses' spread.
struct Effective {
    /// ln r_j of each mixture; −∞ at 0. `[n, K]`
    logs: DMatrix<f64>,
}

impl Curve for Effective {
    fn values(&self, p: &DVector<f64>, mut slopes: Option<&mut DMatrix<f64>>) -> DVector<f64> {
        let [gap, steepness, common, exponent] =
            [GAP, STEEPNESS, COMMON, EXPONENT].map(|index| p[index].exp());
        let transfer: Vec<f64> = p.iter().skip(TRANSFER).map(|log| log.exp()).collect();
        let mut taught = vec![0.0; transfer.len()];
        DVector::from_fn(self.logs.nrows(), |row, _| {
            let logs = self.logs.row(row);
            let mut effective = common;
            // Σ τ_j r_j^a ln r_j, the slope in a.
            let mut in_exponent = 0.0;
            for (domain, log) in logs.iter().enumerate() {
                let amount = transfer[domain] * (exponent * log).exp();
                taught[domain] = amount;
                effective += amount;
                if amount > 0.0 {
                    in_exponent += amount * log;
                }
            }
            let above = (p[LEVEL] - steepness * effective.ln()).exp();
            if let Some(slopes) = slopes.as_deref_mut() {
                let inner = -above * steepness / effective;
                slopes[(row, GAP)] = -gap;
                slopes[(row, LEVEL)] = above;
                slopes[(row, STEEPNESS)] = -above * steepness * effective.ln();
                slopes[(row, COMMON)] = inner * common;
                slopes[(row, EXPONENT)] = inner * exponent * in_exponent;
                for (domain, amount) in taught.iter().enumerate() {
                    slopes[(row, TRANSFER + domain)] = inner * amount;
                }
            }
            above - gap
        })
    }
}
