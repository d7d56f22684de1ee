//! A law that is judged by fitting it again without each mixture.

use super::folds::leave_one_out;
use super::sample::Sample;
use super::{Fitted, Law, LawOptions, Observations};
use crate::error::Result;

/// Fits a law to mixtures.
pub(crate) type FitSample = fn(&Sample, &LawOptions) -> Result<Box<dyn Fitted>>;

/// A law of the domains' shares.
pub(crate) struct Refitted {
    pub name: &'static str,
    /// Different mixtures that it needs.
    pub least: fn(usize) -> usize,
    pub fit: FitSample,
    pub options: LawOptions,
}

impl Refitted {
    fn sample(&self, observed: &Observations) -> Result<Sample> {
        let domains = observed.points.first().map_or(0, |point| point.sampling.len());
        Sample::of(observed, self.name, (self.least)(domains))
    }
}

impl Law for Refitted {
    fn fit(&self, observed: &Observations) -> Result<Box<dyn Fitted>> {
        (self.fit)(&self.sample(observed)?, &self.options)
    }

    fn leave_one_out(&self, observed: &Observations) -> Result<Vec<f64>> {
        // The whole must be a sample too, else a fold's error would speak of a number of runs that
        // nobody made.
        self.sample(observed)?;
        // One fewer than a fit needs is no reason to refuse here.
        leave_one_out(observed, |rest| (self.fit)(&Sample::of(rest, self.name, 1)?, &self.options))
    }
}
