//! L = A (r_j + ε)^(−α): the loss by the share of the one domain that it depends on most.
//!
//! BiMix has L = (A / r^α)(B / s^β + C) in a target's own share r and the steps s. Here steps are
//! the same throughout, so that B, β and C are part of A. The domain, and ε ∈ {10⁻⁴ … 10⁻¹}, which
//! gives a share of 0 a loss, are chosen by leave-one-out errors in nats; the rest is a line
//! through logarithms.
//!
//! Source: Ge et al., *BiMix*, arXiv:2405.14908.

use super::refitted::Refitted;
use super::ridge::Ridge;
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use nalgebra::DMatrix;
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "bimix",
    summary: "L = A (r_j + ε)^(−α) in the share of one domain",
    source: "Ge et al. 2405.14908",
    tells_knobs_apart: false,
    least,
    make,
};

const OFFSETS: [f64; 4] = [1e-4, 1e-3, 1e-2, 0.1];

fn least(_: usize) -> usize {
    4
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(Bimix::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

#[derive(Clone, Copy)]
struct Bimix {
    domain: usize,
    offset: f64,
    level: f64,
    exponent: f64,
    /// Added to losses before their logarithm: 0 unless some loss is not above 0.
    lift: f64,
}

impl Bimix {
    fn fit(sample: &Sample) -> Self {
        let (lowest, _) = sample.lowest_and_spread();
        let lift = if lowest > 0.0 { 0.0 } else { 1.0 - lowest };
        let logs: Vec<f64> = sample.losses.iter().map(|loss| (loss + lift).ln()).collect();
        let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut best =
            (f64::INFINITY, Self { domain: 0, offset: 1.0, level: 0.0, exponent: 0.0, lift });
        for domain in 0..sample.domains() {
            for offset in OFFSETS {
                let column = DMatrix::from_fn(sample.len(), 1, |row, _| {
                    (sample.shares[(row, domain)] + offset).ln()
                });
                let ridge = Ridge::new(&column, &sample.weights);
                let response = ridge.response(&logs);
                // None to speak of: it keeps a line over one share apart from a division by 0.
                let penalty = 1e-9;
                let errors = ridge.held_out_errors(&response, penalty, &ridge.leverages(penalty));
                let squares = sample.squares(
                    logs.iter()
                        .zip(errors)
                        .map(|(log, error)| (log - error).min(highest + 2.0).exp() - log.exp()),
                );
                if squares < best.0 {
                    let line = ridge.line(&response, penalty);
                    let exponent = -line.slopes[0];
                    best =
                        (squares, Self { domain, offset, level: line.intercept, exponent, lift });
                }
            }
        }
        best.1
    }

    fn lifted(&self, share: f64) -> f64 {
        (self.level - self.exponent * (share + self.offset).ln()).exp()
    }
}

impl Fitted for Bimix {
    fn predict(&self, point: &Point) -> f64 {
        self.lifted(share(point, self.domain)) - self.lift
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let mut sampling = vec![0.0; point.sampling.len()];
        let own = share(point, self.domain);
        if let Some(slope) = sampling.get_mut(self.domain) {
            *slope = -self.exponent * self.lifted(own) / (own + self.offset);
        }
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        json!({
            "form": ENTRY.name, "domain": self.domain, "epsilon": self.offset,
            "A": self.level.exp(), "alpha": self.exponent, "lift": self.lift,
        })
    }
}
