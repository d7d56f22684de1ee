//! SGD under one arm: a model and its data in, the path through training out. What all studies do
//! alike.

use cuvee_mixer::GradientStatistics;

use crate::schedule::{Path, Progress, Schedule};
use crate::weighting::{HeldOut, Weighting};

/// A model with its domains' data, trained by one SGD step at a time.
pub(crate) trait Learner {
    /// The study's error.
    fn error(&self) -> f64;

    /// Variance of g at the current parameters after `step` steps: measured on batches drawn for
    /// the purpose, and by Σ π²w²/b v².
    fn probe(&self, weighting: &Weighting, step: u64) -> (f64, f64);

    /// Step number `step` on `counts` samples a domain, each domain's gradient times its
    /// `multiplier`. Where `observed`, gives the batch's gradient statistics, one a domain, `None`
    /// where it had fewer than two samples.
    fn step(
        &mut self,
        step: u64,
        counts: &[usize],
        multiplier: &[f64],
        observed: bool,
    ) -> Vec<Option<GradientStatistics>>;

    /// What the held-out splits say, one a domain.
    fn held_out(&self) -> Vec<HeldOut>;
}

/// How a run goes, the same for all its seeds and arms.
pub(crate) struct Plan<'a> {
    /// What is measured when, and the number of steps.
    pub(crate) schedule: Schedule,
    /// Samples a step, B.
    pub(crate) batch_size: usize,
    /// Steps between two updates of the loss weights.
    pub(crate) every: u64,
    /// Steps between two calls of `progress`.
    pub(crate) report: u64,
    pub(crate) progress: Progress<'a>,
}

impl Plan<'_> {
    /// Trains `learner` under `weighting`, which is left as the last step leaves it; `None` where
    /// `progress` stopped it.
    pub(crate) fn run(
        &self,
        learner: &mut impl Learner,
        weighting: &mut Weighting,
    ) -> Option<Path> {
        let (needs_gradient, needs_held_out) =
            (weighting.needs_gradient(), weighting.needs_held_out());
        let steps = self.schedule.steps;
        let mut path = Path::default();
        for step in 0..=steps {
            if self.schedule.measures(step) {
                path.error.push(learner.error());
            }
            if self.schedule.records(step) {
                path.loss_weight.push(weighting.loss_weight().to_vec());
                path.sampling_weight.push(weighting.sampling_weight().to_vec());
            }
            if self.schedule.probes(step) {
                let (measured, formula) = learner.probe(weighting, step);
                path.variance_measured.push(measured);
                path.variance_formula.push(formula);
            }
            if step == steps {
                break;
            }
            if step % self.report == self.report - 1 && (self.progress)(self.report).is_break() {
                return None;
            }
            let counts = weighting.next_counts(self.batch_size);
            let gradient = learner.step(step, &counts, &weighting.multiplier(), needs_gradient);
            if needs_gradient {
                weighting.observe_gradient(&gradient);
            }
            if needs_held_out && (step + 1).is_multiple_of(self.every) {
                weighting.observe_held_out(&learner.held_out());
            }
        }
        let rest = steps % self.report;
        if rest > 0 && (self.progress)(rest).is_break() {
            return None;
        }
        Some(path)
    }
}
