//! A Gaussian process on √r for what the log-linear law in powers leaves over; where it does not
//! lower leave-one-out errors it stays away.
//!
//! Source: Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, §2.7.

use super::power_ridge::PowerRidge;
use super::refitted::Refitted;
use super::residual::{LeftOver, Residual};
use super::sample::Sample;
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "gp",
    summary: "`power-ridge`, and a Gaussian process (Matérn 5/2 in √r) for what it leaves over",
    source: "Rasmussen & Williams 2006",
    tells_knobs_apart: false,
    least,
    make,
};

fn least(domains: usize) -> usize {
    domains + 2
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        let base = PowerRidge::fit(sample);
        let fitted = base.predictions(&sample.shares);
        let errors = sample.losses.iter().zip(fitted).map(|(loss, fit)| loss - fit).collect();
        let left = LeftOver { errors, weights: sample.weights.clone() };
        let metric = sample.drawn().into_iter().map(f64::from).collect();
        Ok(Box::new(Gp { residual: Residual::fit(sample, &left, metric, 0.5), base }))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

struct Gp {
    base: PowerRidge,
    residual: Residual,
}

impl Fitted for Gp {
    fn predict(&self, point: &Point) -> f64 {
        self.base.predict(point) + self.residual.at(point)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let mut gradient = self.base.gradient(point)?;
        self.residual.add_slope(point, &mut gradient.sampling);
        Some(gradient)
    }

    fn describe(&self) -> Value {
        let (base, left_over) = (self.base.describe(), self.residual.ratio);
        json!({ "form": ENTRY.name, "base": base, "left_over": left_over })
    }
}
