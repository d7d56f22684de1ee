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
//! the median 1: ln(−c) ~ N(ln .7, 1²), b ~ N(.5, 2²), ln α ~ N(ln .3, .5²), ln τ₀ ~ N(−2.5, 1.5²)
//! and ln τ_j ~ N(−1, 1.5²). The noise σ is estimated, and outliers count less. A domain that no
//! run drew from has τ_j = 0.
//!
//! The law is the mean of three fits, with ln a ~ N(ln ã, .1²) for ã = .5, .7 and 1, each weighing
//! σ^(−n/16): a likelihood's weight, flattened. A few runs do not tell these apart, and what is
//! best for small models need not be for large ones. What the mean leaves over is a Gaussian
//! process on √(τ_j r_j^a) of the fit that weighs most: mixtures are as far apart as what they
//! teach.
//!
//! Source: Cuvee. Its parts: powers of tokens, Kaplan et al. 2001.08361; effective data,
//! Hernandez et al. 2102.01293; exponentials in the shares, Ye et al. 2403.16952.

use super::least_squares::{Curve, Noise, Prior, solve};
use super::power_ridge::{SMALLEST_SHARE, power, power_slope};
use super::refitted::Refitted;
use super::residual::{LeftOver, Residual};
use super::sample::Sample;
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "power-log-linear",
    summary: "L = c + exp(b − α ln(τ₀ + Σ τ_j r_j^a)), and a Gaussian process for what is left over",
    source: "Cuvee",
    tells_knobs_apart: false,
    least,
    make,
};

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(PowerLogLinear::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

// Where the coefficients stand; from TRANSFER on those of the domains.
const GAP: usize = 0;
const LEVEL: usize = 1;
const STEEPNESS: usize = 2;
const COMMON: usize = 3;
const EXPONENT: usize = 4;
const TRANSFER: usize = 5;

/// Mean and standard deviation of each prior; the last is every domain's. The means of `GAP` and
/// `STEEPNESS` are ln .7 and ln .3; that of `EXPONENT` is a member's own.
const PRIORS: [(f64, f64); TRANSFER + 1] =
    [(-0.357, 1.0), (0.5, 2.0), (-1.204, 0.5), (-2.5, 1.5), (0.0, 0.1), (-1.0, 1.5)];

/// ã of each member.
const EXPONENTS: [f64; 3] = [0.5, 0.7, 1.0];
/// Members that weigh less are left out.
const SMALLEST_WEIGHT: f64 = 1e-3;

/// The law with its coefficients.
struct PowerLogLinear {
    /// One for each ã.
    members: Vec<Member>,
    residual: Residual,
}

/// The coefficients for one ã.
struct Member {
    /// Its part in the mean; all sum to 1.
    weight: f64,
    /// c, and b in nats.
    floor: f64,
    level: f64,
    /// α, τ₀, a, and τ.
    steepness: f64,
    common: f64,
    exponent: f64,
    transfer: Vec<f64>,
    noise: f64,
}

/// How losses are counted, and what all members share.
struct Units<'a> {
    sample: &'a Sample,
    lowest: f64,
    unit: f64,
    losses: DVector<f64>,
    weights: DVector<f64>,
    /// The domains that some run drew from.
    drawn: Vec<usize>,
}

impl PowerLogLinear {
    fn fit(sample: &Sample) -> Self {
        let units = Units::of(sample);
        let fits: Vec<_> =
            EXPONENTS.iter().map(|exponent| Member::fit(&units, *exponent)).collect();
        let least = fits.iter().map(|(member, _)| member.noise).fold(f64::INFINITY, f64::min);
        let flattened = -sample.weights.iter().sum::<f64>() / 16.0;
        let weigh = |member: &Member| (member.noise / least).powf(flattened);
        let kept = fits.into_iter().filter(|(member, _)| weigh(member) > SMALLEST_WEIGHT);
        let (mut members, outliers): (Vec<Member>, Vec<Vec<f64>>) = kept.unzip();
        let total: f64 = members.iter().map(weigh).sum();
        for member in &mut members {
            member.weight = weigh(member) / total;
        }
        // A noise that is no number leaves no member; nothing that can be checked here does that.
        let heaviest =
            (0..members.len()).max_by(|a, b| members[*a].weight.total_cmp(&members[*b].weight));
        let (metric, exponent, weights) = match heaviest {
            Some(index) => {
                let Member { transfer, exponent, .. } = &members[index];
                let mean = transfer.iter().sum::<f64>() / units.drawn.len().max(1) as f64;
                let metric = transfer.iter().map(|own| (own / mean).sqrt()).collect();
                (metric, *exponent, outliers[index].clone())
            }
            None => (vec![0.0; sample.domains()], 1.0, sample.weights.clone()),
        };
        let errors = sample.shares.row_iter().zip(&sample.losses).map(|(row, loss)| {
            let shares: Vec<f64> = row.iter().copied().collect();
            loss - members.iter().map(|member| member.weighed(&shares)).sum::<f64>()
        });
        let left = LeftOver { errors: errors.collect(), weights };
        Self { residual: Residual::fit(sample, &left, metric, exponent / 2.0), members }
    }
}

impl<'a> Units<'a> {
    fn of(sample: &'a Sample) -> Self {
        let (lowest, unit) = sample.lowest_and_spread();
        let losses = sample.losses.iter().map(|loss| (loss - lowest) / unit);
        let drawn = sample.drawn();
        Self {
            lowest,
            unit,
            losses: DVector::from_iterator(sample.len(), losses),
            weights: DVector::from_column_slice(&sample.weights),
            drawn: (0..drawn.len()).filter(|domain| drawn[*domain]).collect(),
            sample,
        }
    }
}

impl Member {
    /// The member, and how much each mixture counted.
    fn fit(units: &Units, exponent: f64) -> (Self, Vec<f64>) {
        let shares = units.sample.shares.select_columns(&units.drawn);
        let logs = shares.map(|share| if share > 0.0 { share.ln() } else { f64::NEG_INFINITY });
        let curve = Effective { logs };
        let size = TRANSFER + units.drawn.len();
        let prior = |index: usize| PRIORS[index.min(TRANSFER)];
        let mut prior = Prior {
            mean: DVector::from_fn(size, |index, _| prior(index).0),
            deviation: DVector::from_fn(size, |index, _| prior(index).1),
        };
        prior.mean[EXPONENT] = exponent.ln();
        let start = prior.mean.clone();
        let solution = solve(&curve, &units.losses, &units.weights, &prior, start, Noise::Unknown);
        let p = &solution.p;
        let mut transfer = vec![0.0; units.sample.domains()];
        for (index, domain) in units.drawn.iter().enumerate() {
            transfer[*domain] = p[TRANSFER + index].exp();
        }
        let member = Self {
            weight: 1.0,
            floor: units.lowest - units.unit * p[GAP].exp(),
            level: p[LEVEL] + units.unit.ln(),
            steepness: p[STEEPNESS].exp(),
            common: p[COMMON].exp(),
            exponent: p[EXPONENT].exp(),
            transfer,
            noise: solution.noise * units.unit,
        };
        (member, solution.weights)
    }

    fn effective(&self, shares: &[f64]) -> f64 {
        let domains = self.transfer.iter().zip(shares);
        domains.fold(self.common, |sum, (own, share)| sum + own * power(*share, self.exponent))
    }

    fn above_floor(&self, effective: f64) -> f64 {
        (self.level - self.steepness * effective.ln()).exp()
    }

    /// Its part in the prediction.
    fn weighed(&self, shares: &[f64]) -> f64 {
        self.weight * (self.floor + self.above_floor(self.effective(shares)))
    }

    fn add_slope(&self, shares: &[f64], slopes: &mut [f64]) {
        let effective = self.effective(shares);
        let outer = -self.weight * self.steepness * self.above_floor(effective) / effective;
        for ((slope, own), share) in slopes.iter_mut().zip(&self.transfer).zip(shares) {
            *slope += outer * own * power_slope(*share, self.exponent);
        }
    }

    fn describe(&self) -> Value {
        json!({
            "weight": self.weight, "c": self.floor, "b": self.level, "alpha": self.steepness,
            "tau_0": self.common, "a": self.exponent, "tau": self.transfer, "noise": self.noise,
        })
    }
}

impl Fitted for PowerLogLinear {
    fn predict(&self, point: &Point) -> f64 {
        let law: f64 = self.members.iter().map(|member| member.weighed(&point.sampling)).sum();
        law + self.residual.at(point)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let mut sampling = vec![0.0; point.sampling.len()];
        self.members.iter().for_each(|member| member.add_slope(&point.sampling, &mut sampling));
        self.residual.add_slope(point, &mut sampling);
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        let members: Vec<Value> = self.members.iter().map(Member::describe).collect();
        json!({
            "form": ENTRY.name, "members": members, "left_over": self.residual.ratio,
            "smallest_share": SMALLEST_SHARE, "residual": self.residual.describe(),
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
