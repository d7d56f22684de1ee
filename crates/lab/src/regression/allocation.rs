//! Does VA's allocation cut the variance of g by as much as the closed form says?
//!
//! On random instances (two to five domains with random π, w, C_i, σ_i and a random θ near the
//! truth) the variance of g is measured with equal sampling weights and with p_i ∝ π_i w_i v_i, and
//! their ratio is held against K Σ a_i² / (Σ a_i)², a_i = π_i w_i v_i. Cost: instances · 2 ·
//! batches · B · d.

use cuvee_mixer::rule;
use rayon::prelude::*;

use super::data::Data;
use super::family::Family;
use super::settings::RegressionSettings;
use super::spread::{Draw, Spread, spread};
use crate::random::stream;
use crate::study::{Allocation, Instance};

/// Samples in a batch: so many that rounding b_i to whole numbers does not show.
const BATCH_SIZE: usize = 240;

/// Measures `instances` random instances with `batches` batches for either sampling.
pub(crate) fn allocation(seed: u64, instances: u64, batches: u64) -> Allocation {
    let instances: Vec<Instance> =
        (0..instances).into_par_iter().map(|index| instance(seed, index, batches)).collect();
    let error = |i: &Instance| (i.measured / i.formula - 1.0).abs();
    let largest_relative_error = instances.iter().map(error).fold(0.0, f64::max);
    Allocation { instances, largest_relative_error }
}

fn instance(seed: u64, index: u64, batches: u64) -> Instance {
    let rng = stream(seed, index, "instance");
    let domains = 2 + rng.below(0, 4) as usize;
    // Log-uniform between `low` and `high`, one a domain.
    let spreadable = |name: u64, low: f64, high: f64| -> Vec<f64> {
        (0..domains as u64).map(|i| low * (high / low).powf(rng.nested(name).unit(i))).collect()
    };
    let total = |values: &[f64]| values.iter().sum::<f64>();
    let raw = spreadable(1, 1.0, 5.0);
    let importance: Vec<f64> = raw.iter().map(|v| v / total(&raw)).collect();
    let raw = spreadable(2, 1.0, 5.0);
    let mean: f64 = importance.iter().zip(&raw).map(|(pi, w)| pi * w).sum();
    let loss_weight: Vec<f64> = raw.iter().map(|w| w / mean).collect();
    let settings = RegressionSettings {
        seed: seed.wrapping_add(index),
        c: spreadable(3, 1.0, 30.0),
        sigma: spreadable(4, 0.5, 5.0),
        features: 10,
        samples: 100,
        held_out: 2,
        ..RegressionSettings::linear()
    };
    let data = Data::draw(&settings, Family::Linear, index, false);
    let away = rng.nested(5);
    let theta: Vec<f64> =
        data.truth.iter().zip(0..).map(|(t, i)| t + 0.02 * away.normal(i)).collect();
    let spread: Vec<Spread> =
        data.train.iter().map(|d| spread(Family::Linear, d, &theta)).collect();
    let deviation: Vec<f64> = spread.iter().map(|s| s.variance.sqrt()).collect();
    let measure = |sampling: &[f64], name: u64| {
        let objective = importance.iter().zip(&loss_weight).map(|(pi, w)| pi * w);
        let multiplier: Vec<f64> = objective.zip(sampling).map(|(alpha, p)| alpha / p).collect();
        let draw = Draw {
            data: &data,
            family: Family::Linear,
            batch_size: BATCH_SIZE,
            multiplier: &multiplier,
            sampling,
        };
        draw.variance(&theta, &spread, batches, &rng.nested(name))
    };
    let uniform = measure(&vec![1.0 / domains as f64; domains], 6);
    let aware = measure(&rule::va(&importance, &loss_weight, &deviation, 0.0), 7);
    let formula = rule::variance_ratio(&importance, &loss_weight, &deviation);
    Instance { domains, measured: uniform / aware, formula }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_ratio_matches_the_closed_form() {
        // Each variance is a mean of R = 1,500 squared norms in ten directions, one of them at
        // worst: relative σ at most √(2/R) = 3.7 %, with ten equal ones 1.2 %. The ratio of two has
        // √2 times that. 5 % is asked of 20 instances at R = 20,000 (the study's own run); here 8 %
        // of four.
        let found = allocation(1, 4, 1_500);
        assert!(found.largest_relative_error < 0.08, "{found:?}");
        assert!(
            found.instances.iter().any(|i| i.formula > 1.1),
            "instances where nothing is to be gained: {found:?}"
        );
        assert!(found.instances.iter().all(|i| i.formula >= 1.0));
    }
}
