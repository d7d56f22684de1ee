//! The model of a regression study: θ on one seed's data, its error, and its SGD steps.
//!
//! Cost: O(B · d) a step, and O(K n d) a probe.

use cuvee_mixer::GradientStatistics;
use cuvee_mixer::seed::CounterRng;

use super::data::{Data, Samples};
use super::family::Family;
use super::settings::RegressionSettings;
use super::spread::{Draw, Spread, gradient, spread};
use crate::linalg::{axpy, distance_square, dot};
use crate::random::stream;
use crate::sgd::Learner;
use crate::weighting::{HeldOut, Weighting};

/// Batches drawn to measure the variance of g at a probe.
const PROBE_BATCHES: u64 = 20;

/// θ on one seed's data.
pub(super) struct Regression<'a> {
    settings: &'a RegressionSettings,
    family: Family,
    data: &'a Data,
    theta: Vec<f64>,
    order: CounterRng,
    probes: CounterRng,
}

impl<'a> Regression<'a> {
    /// θ = 0 on the data of seed number `index`.
    pub(super) fn new(
        settings: &'a RegressionSettings,
        family: Family,
        data: &'a Data,
        index: u64,
    ) -> Self {
        Self {
            settings,
            family,
            data,
            theta: vec![0.0; settings.features],
            order: stream(settings.seed, index, "order"),
            probes: stream(settings.seed, index, "probes"),
        }
    }
}

impl Learner for Regression<'_> {
    fn error(&self) -> f64 {
        error(self.family, &self.theta, &self.data.truth)
    }

    fn probe(&self, weighting: &Weighting, step: u64) -> (f64, f64) {
        let spread: Vec<Spread> =
            self.data.train.iter().map(|domain| spread(self.family, domain, &self.theta)).collect();
        let v2: Vec<f64> = spread.iter().map(|s| s.variance).collect();
        let draw = Draw {
            data: self.data,
            family: self.family,
            batch_size: self.settings.batch_size,
            multiplier: &weighting.multiplier(),
            sampling: weighting.sampling_weight(),
        };
        let measured =
            draw.variance(&self.theta, &spread, PROBE_BATCHES, &self.probes.nested(step));
        (measured, weighting.variance(self.settings.batch_size, &v2))
    }

    fn step(
        &mut self,
        step: u64,
        counts: &[usize],
        multiplier: &[f64],
        _: bool,
    ) -> Vec<Option<GradientStatistics>> {
        let order = self.order.nested(step);
        let batch = gradient(self.family, self.data, &self.theta, counts, multiplier, &order);
        axpy(&mut self.theta, -self.settings.lr, &batch.gradient);
        batch.statistics
    }

    fn held_out(&self) -> Vec<HeldOut> {
        self.data.held_out.iter().map(|domain| tell(self.family, domain, &self.theta)).collect()
    }
}

/// Linear: ‖θ − θ_gt‖². Logistic: the share (%) of all x whose side of the boundary θ gets wrong.
/// For spherical x that is the angle between θ and θ_gt over π; half where θ = 0.
fn error(family: Family, theta: &[f64], truth: &[f64]) -> f64 {
    match family {
        Family::Linear => distance_square(theta, truth),
        Family::Logistic => {
            let lengths = (dot(theta, theta) * dot(truth, truth)).sqrt();
            if lengths == 0.0 {
                return 50.0;
            }
            100.0 * (dot(theta, truth) / lengths).clamp(-1.0, 1.0).acos() / std::f64::consts::PI
        }
    }
}

/// What the held-out split says about θ.
fn tell(family: Family, samples: &Samples, theta: &[f64]) -> HeldOut {
    let residual = |x: &[f64], y: f64| family.residual(dot(theta, x), y);
    let losses: Vec<f64> = samples.iter().map(|(x, y)| family.loss(dot(theta, x), y)).collect();
    let squares: Vec<f64> = samples.iter().map(|(x, y)| residual(x, y).powi(2)).collect();
    HeldOut::of(&losses, &squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logistic_error_is_the_angle() {
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}")
        };
        near(error(Family::Logistic, &[0.0, 0.0], &[1.0, 0.0]), 50.0);
        near(error(Family::Logistic, &[3.0, 0.0], &[1.0, 0.0]), 0.0);
        near(error(Family::Logistic, &[1.0, 1.0], &[1.0, 0.0]), 25.0);
        near(error(Family::Logistic, &[-2.0, 0.0], &[1.0, 0.0]), 100.0);
    }
}
