//! From every seed's path through training to means with 95 % intervals.
//!
//! All arms of a seed see the same data and, per domain, the same order of samples, so that
//! differences between arms are taken seed by seed. Cost: O(seeds × arms × recorded steps), and the
//! bootstrap of `bootstrap.rs`.

use rayon::prelude::*;

use crate::bootstrap::steps_to_uniform;
use crate::schedule::{Path, Schedule};
use crate::study::{ArmResult, Curve};
use crate::weighting::Arm;
use cuvee_report::{Interval, interval};

/// Runs every (seed, arm) in parallel: `run` is given the numbers of both. `[arm][seed]`, or `None`
/// where `run` was stopped.
pub(crate) fn run_all<T: Send>(
    seeds: u64,
    arms: usize,
    run: impl Fn(u64, usize) -> Option<T> + Sync,
) -> Option<Vec<Vec<T>>> {
    let tasks: Vec<(usize, u64)> =
        (0..seeds).flat_map(|seed| (0..arms).map(move |arm| (arm, seed))).collect();
    let done: Option<Vec<T>> = tasks.par_iter().map(|(arm, seed)| run(*seed, *arm)).collect();
    let mut by_arm: Vec<Vec<T>> = (0..arms).map(|_| Vec::new()).collect();
    for ((arm, _), path) in tasks.iter().zip(done?) {
        by_arm[*arm].push(path);
    }
    Some(by_arm)
}

/// The error at the end of each path.
fn final_errors(paths: &[Path]) -> Vec<f64> {
    paths.iter().map(|path| path.error.last().copied().unwrap_or(f64::NAN)).collect()
}

/// Mean final error of the arm that is trained on undamaged labels, if there is one.
pub(crate) fn oracle(arms: &[Arm], paths: &[Vec<Path>]) -> Option<Interval> {
    let trained = arms.iter().zip(paths).find(|(arm, _)| arm.clean);
    trained.map(|(_, paths)| interval(&final_errors(paths)))
}

/// Means, intervals and comparisons of all arms but the oracle. Every path must follow `schedule`;
/// `rates` are the arms' learning rates.
pub(crate) fn summarise(
    seed: u64,
    arms: &[Arm],
    rates: &[f64],
    schedule: &Schedule,
    paths: &[Vec<Path>],
) -> Vec<ArmResult> {
    let learning: Vec<usize> = (0..arms.len()).filter(|arm| !arms[*arm].clean).collect();
    let paths: Vec<&Vec<Path>> = learning.iter().map(|arm| &paths[*arm]).collect();
    let measured: Vec<u64> = (0..=schedule.steps).filter(|step| schedule.measures(*step)).collect();
    let recorded: Vec<usize> =
        (0..measured.len()).filter(|at| schedule.records(measured[*at])).collect();
    let probe_steps: Vec<u64> =
        (0..=schedule.steps).filter(|step| schedule.probes(*step)).collect();
    let finals: Vec<Vec<f64>> = paths.iter().map(|seeds| final_errors(seeds)).collect();
    let intervals = steps_to_uniform(seed, &measured, &paths);
    let mut results = Vec::new();
    for ((arm, paths), reached) in learning.iter().zip(paths).zip(intervals) {
        let column = |at: usize, of: fn(&Path) -> &Vec<f64>| {
            interval(
                &paths.iter().filter_map(|path| of(path).get(at).copied()).collect::<Vec<f64>>(),
            )
        };
        let errors: Vec<Interval> =
            recorded.iter().map(|at| column(*at, |path| &path.error)).collect();
        let curve = Curve {
            error: errors.iter().map(|e| e.mean).collect(),
            error_ci95: errors.iter().map(|e| e.ci95).collect(),
            loss_weight: mean_by_domain(paths, |path| &path.loss_weight),
            sampling_weight: mean_by_domain(paths, |path| &path.sampling_weight),
            variance_measured: (0..probe_steps.len())
                .map(|at| column(at, |p| &p.variance_measured).mean)
                .collect(),
            variance_formula: (0..probe_steps.len())
                .map(|at| column(at, |p| &p.variance_formula).mean)
                .collect(),
            steps: recorded.iter().map(|at| measured[*at]).collect(),
            probe_steps: probe_steps.clone(),
        };
        let own: &[f64] = &finals[results.len()];
        let against = |other: Option<&Vec<f64>>| {
            let pairs = own.iter().zip(other.into_iter().flatten());
            interval(&pairs.map(|(a, b)| a - b).collect::<Vec<f64>>())
        };
        let end =
            |by_domain: &[Vec<f64>]| by_domain.iter().filter_map(|d| d.last().copied()).collect();
        let Interval { mean: final_error, ci95 } = interval(own);
        results.push(ArmResult {
            name: arms[*arm].name,
            lr: rates[*arm],
            final_error,
            ci95,
            steps_to_uniform: reached.steps,
            steps_interval: reached.interval,
            steps_less_both: reached.less_last,
            difference_from_uniform: against(finals.first()),
            difference_from_both: against(finals.last()),
            loss_weight: end(&curve.loss_weight),
            sampling_weight: end(&curve.sampling_weight),
            variance_measured_over_formula: mean_ratio(
                &curve.variance_measured,
                &curve.variance_formula,
            ),
            curve,
        });
    }
    results
}

/// `[domain][recorded step]` from every path's `[recorded step][domain]`.
fn mean_by_domain(paths: &[Path], of: fn(&Path) -> &Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let Some(first) = paths.first() else { return Vec::new() };
    let domains = of(first).first().map_or(0, Vec::len);
    let mean = |at: usize, domain: usize| {
        paths.iter().filter_map(|path| of(path).get(at)?.get(domain)).sum::<f64>()
            / paths.len() as f64
    };
    (0..domains).map(|domain| (0..of(first).len()).map(|at| mean(at, domain)).collect()).collect()
}

/// Mean of the ratios of two curves.
fn mean_ratio(above: &[f64], below: &[f64]) -> f64 {
    above.iter().zip(below).map(|(a, b)| a / b).sum::<f64>() / above.len() as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::study::Lag;
    use crate::weighting::{LossRule, four_arms};

    fn path(error: [f64; 3]) -> Path {
        let weights = vec![vec![1.0, 1.0]; 3];
        let probes = vec![1.0; 3];
        Path {
            error: error.to_vec(),
            loss_weight: weights.clone(),
            sampling_weight: weights,
            variance_measured: probes.clone(),
            variance_formula: probes,
        }
    }

    #[test]
    fn an_arm_is_compared_with_uniform_and_with_both() {
        let arms = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        let schedule = Schedule::new(2, 2, 2);
        // Uniform ends at 2 and 4 (mean 3); the loss arm is there after a step; va never; both at
        // once.
        let paths = [
            vec![path([9.0, 5.0, 2.0]), path([9.0, 5.0, 4.0])],
            vec![path([9.0, 3.0, 1.0]), path([9.0, 3.0, 3.0])],
            vec![path([9.0, 8.0, 7.0]), path([9.0, 8.0, 9.0])],
            vec![path([3.0, 1.0, 1.0]), path([3.0, 1.0, 1.0])],
        ];
        let results = summarise(0, &arms, &[0.5, 0.25, 0.5, 1.0], &schedule, &paths);
        assert_eq!(results.iter().map(|r| r.lr).collect::<Vec<_>>(), [0.5, 0.25, 0.5, 1.0]);
        assert_eq!(
            results.iter().map(|r| r.steps_to_uniform).collect::<Vec<_>>(),
            [Some(2), Some(1), None, Some(0)]
        );
        assert_eq!(results[1].difference_from_uniform, Interval { mean: -1.0, ci95: Some(0.0) });
        assert_eq!(results[2].difference_from_both.mean, 7.0);
        assert_eq!(results[2].steps_interval, Some([None, None]));
        // A resample's target is 2, 3 or 4. Uniform is there after two steps, the loss arm one step
        // after both arms together, and those at once, or after one step where the target is 2 (a
        // quarter of the resamples).
        assert_eq!(
            (results[0].steps_interval, results[0].steps_less_both),
            (Some([Some(2); 2]), Some([Lag::Steps(1), Lag::Steps(2)]))
        );
        assert_eq!(results[1].steps_less_both, Some([Lag::Steps(1); 2]));
        assert_eq!(results[2].steps_less_both, Some([Lag::Never; 2]));
        assert_eq!(results[0].curve.steps, [0, 1, 2]);
        assert_eq!(results[3].curve.loss_weight, vec![vec![1.0; 3]; 2]);
    }

    #[test]
    fn one_seed_has_no_interval() {
        let arms = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        let paths = [5.0, 4.0, 3.0, 2.0].map(|last| vec![path([9.0, 6.0, last])]);
        for arm in summarise(0, &arms, &[1.0; 4], &Schedule::new(2, 2, 2), &paths) {
            let json = serde_json::json!(arm);
            for key in ["ci95", "steps_interval", "steps_less_both"] {
                assert!(json[key].is_null(), "{key} of {json}");
            }
            for key in ["difference_from_uniform", "difference_from_both"] {
                assert!(json[key]["ci95"].is_null() && json[key]["mean"].is_number(), "{json}");
            }
            assert!(json["curve"]["error_ci95"].as_array().unwrap().iter().all(|c| c.is_null()));
            // The value itself is known.
            assert!(json["final_error"].is_number() && json["steps_to_uniform"].is_number());
        }
    }

    #[test]
    fn the_oracle_is_no_arm_of_the_summary() {
        let four = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        let arms: Vec<Arm> = four.into_iter().chain([crate::weighting::ORACLE]).collect();
        let paths = [5.0, 4.0, 3.0, 2.0, 1.0].map(|last| vec![path([9.0, 6.0, last]); 2]);
        let results = summarise(0, &arms, &[1.0; 5], &Schedule::new(2, 2, 2), &paths);
        assert_eq!(results.len(), 4);
        assert_eq!(results[0].difference_from_both.mean, 3.0);
        assert_eq!(oracle(&arms, &paths), Some(Interval { mean: 1.0, ci95: Some(0.0) }));
        assert_eq!(oracle(&four, &paths[..4]), None);
    }

    #[test]
    fn a_stopped_run_gives_nothing() {
        let arms = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        assert!(run_all(3, arms.len(), |seed, _| (seed < 2).then_some(())).is_none());
        let all = run_all(3, arms.len(), |seed, arm| Some((seed, arms[arm].name))).unwrap();
        assert_eq!(all[2], [(0, "va"), (1, "va"), (2, "va")]);
    }
}
