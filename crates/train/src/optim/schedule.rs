//! The learning rate as a pure function of the step.
//!
//! Of n steps (0 … n−1), the last step of the warmup has the peak rate and step n−1 the end rate:
//! the two ends a user asks for are both reached, for every length of run.

use crate::model::ModelConfig;
use crate::spec::{LearningRate, Schedule, TrainSpec};

/// The rate that fits published runs of small models under AdamW: 0.0047·(N/108M)^(−1/3), with N
/// the parameters a token is multiplied with, [`ModelConfig::multiplied_parameters`], as the ladder
/// counts them: all but the embedding.
///
/// Porian et al., Resolving Discrepancies in Compute-Optimal Scaling of Language Models, 2024, for
/// models of 5M to 108M parameters, about 20 tokens a parameter, and batches of 160·(N/108M)^(2/3)
/// sequences of 2,048 tokens. OLMo-core's ladder and DataDecide (2025) use it as it is.
pub fn published_learning_rate(model: &ModelConfig) -> f64 {
    rate_of_size(model.multiplied_parameters())
}

fn rate_of_size(parameters: u64) -> f64 {
    0.0047 * (parameters as f64 / 108e6).powf(-1.0 / 3.0)
}

/// The peak of the learning rate that `spec` gives a model.
pub fn peak_learning_rate(spec: &TrainSpec, model: &ModelConfig) -> f64 {
    match spec.lr {
        LearningRate::Rate(rate) => rate,
        LearningRate::Auto => published_learning_rate(model),
    }
}

/// Learning rate of `step`, counted from 0, in a run of `steps` of a model. Beyond the end it stays
/// at the end's value.
///
/// Warmup of w steps: lr·(step + 1)/w. Then with r = `min_lr_share`,
/// - `constant`: lr;
/// - `cosine`: lr·(r + (1 − r)·½(1 + cos πx)), x from 0 at the peak to 1 at the last step;
/// - `wsd`: lr, and over the last `decay_share` of the run lr·(1 − (1 − r)·x), x reaching 1 at the
///   last step.
pub fn learning_rate(spec: &TrainSpec, model: &ModelConfig, step: u64, steps: u64) -> f64 {
    let peak = peak_learning_rate(spec, model);
    let warmup = spec.warmup_steps(steps);
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let last = steps.saturating_sub(1);
    let step = step.min(last);
    let floor = spec.min_lr_share;
    let share = match spec.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let x = progress(step, warmup.saturating_sub(1), last);
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * x).cos())
        }
        Schedule::Wsd => {
            // The step before the first decayed one is the last at the peak.
            let decay = spec.decay_steps(steps);
            if decay == 0 {
                1.0
            } else {
                1.0 - (1.0 - floor) * progress(step, last.saturating_sub(decay), last)
            }
        }
    };
    peak * share
}

/// Share of the way from `start` to `end` that `step` has gone: 0 up to `start`, 1 from `end`.
fn progress(step: u64, start: u64, end: u64) -> f64 {
    if step <= start || end <= start {
        return 0.0;
    }
    ((step - start) as f64 / (end - start) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::spec::Warmup;
    use proptest::prelude::*;

    fn spec(schedule: Schedule) -> TrainSpec {
        TrainSpec {
            lr: 2.0.into(),
            schedule,
            warmup: Some(Warmup::Steps(4)),
            ..TrainSpec::default()
        }
    }

    fn rate(spec: &TrainSpec, step: u64, steps: u64) -> f64 {
        learning_rate(spec, &ModelConfig::small(), step, steps)
    }

    fn rates(spec: &TrainSpec, steps: u64) -> Vec<f64> {
        (0..steps).map(|step| rate(spec, step, steps)).collect()
    }

    /// Values of OLMo-core's ladder, in Python: 0.0047 * (n / 108_000_000) ** (-1 / 3).
    #[test]
    fn the_published_rate_is_pinned() {
        for (parameters, expected) in [
            (108_000_000, 0.0047),
            (1_328_000, 0.020362905763735333),
            (5_000_000, 0.013089280510788037),
            (190_354_176, 0.00389091407488406),
        ] {
            let found = rate_of_size(parameters);
            // A quotient, a power and a product: a few roundings, and the power's own.
            assert!((found / expected - 1.0).abs() < 1e-14, "{parameters}: {found}");
        }
    }

    #[test]
    fn an_automatic_rate_is_the_published_one_for_what_a_token_is_multiplied_with() {
        let auto = TrainSpec { lr: LearningRate::Auto, ..TrainSpec::default() };
        let untied = ModelConfig::small();
        let tied = ModelConfig { tied: true, ..ModelConfig::small() };
        // A tied head is multiplied with, an embedding of its own is not.
        assert_eq!(untied.multiplied_parameters(), tied.parameters());
        let expected = rate_of_size(tied.parameters());
        for model in [&tied, &untied] {
            assert_eq!(peak_learning_rate(&auto, model), expected);
            let constant = TrainSpec { schedule: Schedule::Constant, ..auto.clone() };
            assert_eq!(learning_rate(&constant, model, 99, 100), expected);
        }
    }

    #[test]
    fn cosine_is_pinned() {
        let rates = rates(&spec(Schedule::Cosine), 104);
        assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
        // Step 3 is the peak and 103 the end: step 53 is half way, share 0.1 + 0.9/2; the cosine of
        // π/2 is 6e-17.
        assert!((rates[53] - 2.0 * 0.55).abs() < 1e-15);
        // A quarter: 0.1 + 0.45·(1 + cos π/4).
        assert!((rates[28] - 2.0 * (0.1 + 0.45 * (1.0 + 0.5f64.sqrt()))).abs() < 1e-15);
        assert!((rates[103] - 0.2).abs() < 1e-15);
        assert_eq!(rate(&spec(Schedule::Cosine), 5000, 104), rates[103]);
    }

    #[test]
    fn warmup_stable_decay_is_pinned() {
        let rates = rates(&spec(Schedule::Wsd), 100);
        assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
        assert!(rates[4..80].iter().all(|&rate| rate == 2.0));
        // 20 decaying steps: the first, 80, has gone 1/20 of the way from 2 to 0.2.
        assert!((rates[80] - (2.0 - 1.8 / 20.0)).abs() < 1e-15);
        assert!((rates[99] - 0.2).abs() < 1e-15);
    }

    #[test]
    fn constant_stays_at_the_peak() {
        let rates = rates(&spec(Schedule::Constant), 10);
        assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    }

    proptest! {
        #[test]
        fn rates_stay_within_their_ends_and_fall_after_the_peak(steps in 1u64..400, warmup in 0u64..50, wsd: bool, share in 0.0..=1.0f64) {
            let schedule = if wsd { Schedule::Wsd } else { Schedule::Cosine };
            let spec = TrainSpec { warmup: Some(Warmup::Steps(warmup.min(steps))), min_lr_share: share, ..spec(schedule) };
            let rates = rates(&spec, steps);
            prop_assert!(rates.iter().all(|&rate| rate > -1e-15 && rate <= 2.0 + 1e-15));
            let peak = (warmup.min(steps) as usize).saturating_sub(1);
            prop_assert!((rates[peak] - 2.0).abs() < 1e-15);
            prop_assert!(rates[peak..].windows(2).all(|pair| pair[1] <= pair[0] + 1e-15));
            if steps > warmup + 1 && (!wsd || spec.decay_steps(steps) > 0) {
                prop_assert!((rates[steps as usize - 1] - 2.0 * share).abs() < 1e-14);
            }
        }
    }
}
