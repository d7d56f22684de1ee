//! A law that is judged by fitting it again without each mixture.

use super::folds::{ALONE, AT_ONCE};
use super::sample::Sample;
use super::{Fitted, Law, LawOptions, Observations};
use crate::error::Result;
use rayon::prelude::*;

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
        let mixtures = observed.mixtures();
        let n = mixtures.len();
        let folds = if n <= ALONE { n } else { AT_ONCE };
        let held_out = (0..folds).into_par_iter().map(|fold| {
            let out: Vec<usize> =
                mixtures.iter().skip(fold).step_by(folds).flatten().copied().collect();
            let mut kept = vec![true; observed.points.len()];
            out.iter().for_each(|run| kept[*run] = false);
            let kept: Vec<usize> = (0..kept.len()).filter(|run| kept[*run]).collect();
            // One fewer than a fit needs is no reason to refuse here.
            let sample = Sample::of(&observed.select(&kept), self.name, 1)?;
            let fitted = (self.fit)(&sample, &self.options)?;
            let predict = |run| (run, fitted.predict(&observed.points[run]));
            Ok(out.into_iter().map(predict).collect())
        });
        let held_out: Vec<Vec<(usize, f64)>> = held_out.collect::<Result<_>>()?;
        let mut predicted = vec![0.0; observed.points.len()];
        for (run, value) in held_out.into_iter().flatten() {
            predicted[run] = value;
        }
        Ok(predicted)
    }
}
