//! L = b + Σ_j t_j r_j: a ridge, its penalty chosen by leave-one-out.
//!
//! Source: Liu et al., *RegMix*, arXiv:2407.01492 (its linear regression); Hoerl & Kennard (1970).

use super::refitted::Refitted;
use super::ridge::{Line, PENALTIES, Ridge};
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "linear",
    summary: "L = b + Σ t_j r_j",
    source: "Liu et al. 2407.01492",
    tells_knobs_apart: false,
    least,
    make,
};

fn least(domains: usize) -> usize {
    domains + 1
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

fn fit(sample: &Sample, _: &LawOptions) -> Result<Box<dyn Fitted>> {
    let ridge = Ridge::new(&sample.shares, &sample.weights);
    let response = ridge.response(&sample.losses);
    let squares = |penalty: &f64| {
        let leverages = ridge.leverages(*penalty);
        sample.squares(ridge.held_out_errors(&response, *penalty, &leverages))
    };
    let penalties = PENALTIES.iter().map(|penalty| (squares(penalty), *penalty));
    let (_, penalty) = penalties.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 1.0));
    Ok(Box::new(Linear { line: ridge.line(&response, penalty), penalty }))
}

struct Linear {
    line: Line,
    penalty: f64,
}

impl Fitted for Linear {
    fn predict(&self, point: &Point) -> f64 {
        self.line.at((0..self.line.slopes.len()).map(|domain| share(point, domain)))
    }

    fn gradient(&self, _: &Point) -> Option<Gradient> {
        Some(Gradient { sampling: self.line.slopes.clone(), ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        let Line { intercept, slopes } = &self.line;
        json!({ "form": ENTRY.name, "b": intercept, "t": slopes, "ridge": self.penalty })
    }
}
