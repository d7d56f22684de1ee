//! What a study finds: every seed's path through training in, means with 95 % intervals out.
//!
//! All arms of a seed see the same data and, per domain, the same order of samples, so that
//! differences between arms are taken seed by seed. Costs O(seeds × arms × recorded steps), and a
//! few hundred times that for the bootstrap of the steps to uniform's final error.

use std::ops::ControlFlow;

use rayon::prelude::*;
use serde::Serialize;

use crate::linalg::dot;
use crate::random::stream;
use crate::variance::Allocation;
use crate::weighting::Arm;

/// Resamples of the bootstrap: the 2.5 % quantile is then the 51st smallest value, and drawing anew
/// moves it by about a twentieth of σ.
const RESAMPLES: u64 = 2_000;

/// Called with the steps done since the last call, from any thread; `Break` stops the study.
pub type Progress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// A study's findings, as written to `results.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// `linear`, `logistic` or `mnist`.
    pub study: &'static str,
    /// What an arm's error is, in words, with its unit.
    pub metric: &'static str,
    /// All settings, defaults included.
    pub settings: serde_json::Value,
    /// One an arm: uniform first, both rules last.
    pub arms: Vec<ArmResult>,
    /// Mean error of the reference that knows what the arms have to learn; see `oracle`.
    pub oracle_error: f64,
    /// Half-width of its 95 % interval.
    pub oracle_ci95: f64,
    /// What the oracle is.
    pub oracle: &'static str,
    /// Minimisers of weighted objectives, found without SGD (linear only).
    pub estimators: Vec<Estimator>,
    /// Measured variance of g under VA and under uniform sampling, on random instances (linear
    /// only, unless left out).
    pub allocation: Option<Allocation>,
}

/// An arm's findings.
#[derive(Clone, Debug, Serialize)]
pub struct ArmResult {
    /// Its name.
    pub name: &'static str,
    /// Mean error after the last step.
    pub final_error: f64,
    /// Half-width of its 95 % interval over seeds.
    pub ci95: f64,
    /// First measured step (linear, logistic: of all; mnist: of those recorded) at which the arm's
    /// mean error is at most uniform's after the last step.
    pub steps_to_uniform: Option<u64>,
    /// 95 % interval of `steps_to_uniform` by bootstrap over seeds; `null` is never.
    pub steps_interval: [Option<u64>; 2],
    /// 95 % bootstrap interval of `steps_to_uniform` less that of the last arm, on the same
    /// resamples; `null` where an end is never reached.
    pub steps_less_both: [Option<i64>; 2],
    /// Final error less uniform's, seed by seed.
    pub difference_from_uniform: Interval,
    /// Final error less that of the last arm (both rules), seed by seed.
    pub difference_from_both: Interval,
    /// Mean w after the last step, one a domain.
    pub loss_weight: Vec<f64>,
    /// Mean p after the last step, one a domain.
    pub sampling_weight: Vec<f64>,
    /// Mean over seeds and probes of the measured variance of g, over that of Σ π²w²/b v².
    pub variance_measured_over_formula: f64,
    /// The arm over training.
    pub curve: Curve,
}

/// A mean with the half-width of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Half-width, by Student's t.
    pub ci95: f64,
}

/// A minimiser's error against its closed form.
#[derive(Clone, Debug, Serialize)]
pub struct Estimator {
    /// Its name.
    pub name: String,
    /// Mean ‖θ − θ_gt‖².
    pub error: f64,
    /// Half-width of its 95 % interval.
    pub ci95: f64,
    /// Mean over seeds of the trace of its covariance given X; `null` where the loss weights depend
    /// on the data.
    pub closed_form: Option<f64>,
    /// `error` over the oracle's, by the ratio of means.
    pub over_oracle: f64,
}

/// Means over seeds at recorded steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curve {
    /// Recorded steps.
    pub steps: Vec<u64>,
    /// Mean error at each.
    pub error: Vec<f64>,
    /// Half-widths of its 95 % intervals.
    pub error_ci95: Vec<f64>,
    /// Mean w at each, by domain.
    pub loss_weight: Vec<Vec<f64>>,
    /// Mean p at each, by domain.
    pub sampling_weight: Vec<Vec<f64>>,
    /// Steps at which the variance of g was measured.
    pub probe_steps: Vec<u64>,
    /// Mean of E‖g − ∇L̂‖², measured on batches drawn for the purpose.
    pub variance_measured: Vec<f64>,
    /// Mean of Σ π²w²/b v².
    pub variance_formula: Vec<f64>,
}

/// One seed's way through training under one arm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// At measured steps.
    pub(crate) error: Vec<f64>,
    /// At recorded steps, one a domain.
    pub(crate) loss_weight: Vec<Vec<f64>>,
    /// At recorded steps, one a domain.
    pub(crate) sampling_weight: Vec<Vec<f64>>,
    /// At probes.
    pub(crate) variance_measured: Vec<f64>,
    /// At probes.
    pub(crate) variance_formula: Vec<f64>,
}

/// When a path is measured, recorded and probed.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Steps of the run.
    pub(crate) steps: u64,
    measure: u64,
    record: u64,
    probe: u64,
}

impl Schedule {
    /// About `records` records and `probes` probes, the first and the last step always among the
    /// records, and the error measured where it is recorded.
    pub(crate) fn new(steps: u64, records: u64, probes: u64) -> Self {
        let record = (steps / records).max(1);
        Self { steps, measure: record, record, probe: (steps / probes).max(1) }
    }

    /// The same with the error measured after every step, for steps to be counted by, and written
    /// at the records alone.
    pub(crate) fn measured_at_every_step(self) -> Self {
        Self { measure: 1, ..self }
    }

    /// Is the error measured after `step` steps? It is wherever the state is recorded.
    pub(crate) fn measures(&self, step: u64) -> bool {
        step.is_multiple_of(self.measure) || step == self.steps
    }

    /// Is the state after `step` steps recorded?
    pub(crate) fn records(&self, step: u64) -> bool {
        step.is_multiple_of(self.record) || step == self.steps
    }

    /// Is the variance of g measured after `step` steps?
    pub(crate) fn probes(&self, step: u64) -> bool {
        step.is_multiple_of(self.probe)
    }
}

/// Runs every (seed, arm) in parallel; `[arm][seed]`, or `None` where `run` was stopped.
pub(crate) fn run_all<T: Send>(
    seeds: u64,
    arms: &[Arm],
    run: impl Fn(u64, &Arm) -> Option<T> + Sync,
) -> Option<Vec<Vec<T>>> {
    let tasks: Vec<(usize, u64)> =
        (0..seeds).flat_map(|seed| (0..arms.len()).map(move |a| (a, seed))).collect();
    let done: Option<Vec<T>> =
        tasks.par_iter().map(|(arm, seed)| run(*seed, &arms[*arm])).collect();
    let mut by_arm: Vec<Vec<T>> = arms.iter().map(|_| Vec::new()).collect();
    for ((arm, _), path) in tasks.iter().zip(done?) {
        by_arm[*arm].push(path);
    }
    Some(by_arm)
}

/// Means, intervals and comparisons of all arms. Every path must follow `schedule`.
pub(crate) fn summarise(
    seed: u64,
    arms: &[Arm],
    schedule: &Schedule,
    paths: &[Vec<Path>],
) -> Vec<ArmResult> {
    let measured: Vec<u64> = (0..=schedule.steps).filter(|step| schedule.measures(*step)).collect();
    let recorded: Vec<usize> =
        (0..measured.len()).filter(|at| schedule.records(measured[*at])).collect();
    let probe_steps: Vec<u64> =
        (0..=schedule.steps).filter(|step| schedule.probes(*step)).collect();
    let last = |path: &Path| path.error.last().copied().unwrap_or(f64::NAN);
    let finals: Vec<Vec<f64>> =
        paths.iter().map(|seeds| seeds.iter().map(last).collect()).collect();
    let intervals = steps_to_uniform(seed, &measured, paths);
    let mut results = Vec::new();
    for ((arm, paths), reached) in arms.iter().zip(paths).zip(intervals) {
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
            name: arm.name,
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

/// Mean and half-width of its 95 % interval by Student's t; no width from a single value.
pub(crate) fn interval(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return Interval { mean, ci95: 0.0 };
    }
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    Interval { mean, ci95: student(values.len() - 1) * (variance / n).sqrt() }
}

/// The 97.5 % quantile of Student's t: exact values to ten degrees of freedom, from there the
/// expansion of Fisher and Cornish (1960) to the third order in 1/ν, which is then right to 10⁻³.
fn student(degrees: usize) -> f64 {
    const EXACT: [f64; 10] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if let Some(exact) = EXACT.get(degrees.wrapping_sub(1)) {
        return *exact;
    }
    let (z, nu) = (1.959_964_f64, degrees as f64);
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    let first = (z3 + z) / 4.0;
    let second = (5.0 * z5 + 16.0 * z3 + 3.0 * z) / 96.0;
    let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / 384.0;
    z + first / nu + second / (nu * nu) + third / (nu * nu * nu)
}

/// When an arm's mean error first is at most the first arm's last one.
struct Reached {
    steps: Option<u64>,
    interval: [Option<u64>; 2],
    less_last: [Option<i64>; 2],
}

/// For each arm its [`Reached`], with bootstrap intervals over seeds in which uniform's final error
/// is drawn anew each time.
fn steps_to_uniform(seed: u64, steps: &[u64], paths: &[Vec<Path>]) -> Vec<Reached> {
    let seeds = paths.first().map_or(0, Vec::len);
    // `[arm][step][seed]`: a resample is then one dot product a step, with how often it has each
    // seed.
    let by_step = |arm: &Vec<Path>| -> Vec<Vec<f64>> {
        (0..steps.len()).map(|at| arm.iter().map(|path| path.error[at]).collect()).collect()
    };
    let errors: Vec<Vec<Vec<f64>>> = paths.iter().map(by_step).collect();
    let reach = |times: &[f64]| -> Vec<Option<u64>> {
        let last = errors.first().and_then(|uniform| uniform.last());
        let target = last.map_or(f64::NAN, |error| dot(error, times));
        let first = |arm: &Vec<Vec<f64>>| arm.iter().position(|error| dot(error, times) <= target);
        errors.iter().map(|arm| first(arm).map(|at| steps[at])).collect()
    };
    let found = reach(&vec![1.0; seeds]);
    let rng = stream(seed, 0, "bootstrap");
    let resamples: Vec<Vec<Option<u64>>> = (0..RESAMPLES)
        .into_par_iter()
        .map(|r| {
            let draw = rng.nested(r);
            let mut times = vec![0.0; seeds];
            (0..seeds as u64).for_each(|i| times[draw.below(i, seeds as u64) as usize] += 1.0);
            reach(&times)
        })
        .collect();
    let of_arm = |(arm, steps): (usize, Option<u64>)| {
        let less_last =
            |r: &Vec<Option<u64>>| Some(r[arm]? as i64 - r.last().copied().flatten()? as i64);
        Reached {
            steps,
            interval: quantiles(resamples.iter().map(|r| r[arm]).collect()),
            less_last: quantiles(resamples.iter().map(less_last).collect()),
        }
    };
    found.into_iter().enumerate().map(of_arm).collect()
}

/// The 2.5 % and 97.5 % quantiles, where `None` (never) comes after every number.
fn quantiles<T: Ord + Copy>(mut values: Vec<Option<T>>) -> [Option<T>; 2] {
    values.sort_unstable_by_key(|value| (value.is_none(), *value));
    let last = values.len().saturating_sub(1) as f64;
    [0.025, 0.975].map(|quantile| values.get((quantile * last).round() as usize).copied().flatten())
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
    fn quantiles_of_student() {
        // From the tables: 97.5 % at 1, 4, 11, 30 and 399 degrees of freedom.
        for (degrees, expected) in [(1, 12.706), (4, 2.776), (11, 2.201), (30, 2.042), (399, 1.966)]
        {
            assert!(
                (student(degrees) - expected).abs() < 1.5e-3,
                "{degrees}: {}",
                student(degrees)
            );
        }
    }

    #[test]
    fn intervals() {
        // Of 1, 2, 3: mean 2, s = 1, t(2) = 4.3027, half-width 4.3027/√3.
        let found = interval(&[1.0, 2.0, 3.0]);
        assert!(
            (found.mean - 2.0).abs() < 1e-12 && (found.ci95 - 4.3027 / 3f64.sqrt()).abs() < 1e-9
        );
        assert_eq!(interval(&[4.0]), Interval { mean: 4.0, ci95: 0.0 });
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
        let results = summarise(0, &arms, &schedule, &paths);
        assert_eq!(
            results.iter().map(|r| r.steps_to_uniform).collect::<Vec<_>>(),
            [Some(2), Some(1), None, Some(0)]
        );
        assert_eq!(results[1].difference_from_uniform, Interval { mean: -1.0, ci95: 0.0 });
        assert_eq!(results[2].difference_from_both.mean, 7.0);
        assert_eq!(results[2].steps_interval, [None, None]);
        // A resample's target is 2, 3 or 4. Uniform is there after two steps, the loss arm one step
        // after both arms together, and those at once, or after one step where the target is 2 (a
        // quarter of the resamples).
        assert_eq!(
            (results[0].steps_interval, results[0].steps_less_both),
            ([Some(2); 2], [Some(1), Some(2)])
        );
        assert_eq!(results[1].steps_less_both, [Some(1); 2]);
        assert_eq!(results[0].curve.steps, [0, 1, 2]);
        assert_eq!(results[3].curve.loss_weight, vec![vec![1.0; 3]; 2]);
    }

    #[test]
    fn a_stopped_run_gives_nothing() {
        let arms = four_arms("loss", "both", LossRule::Fgls { beta: 0.1 });
        assert!(run_all(3, &arms, |seed, _| (seed < 2).then_some(())).is_none());
        let all = run_all(3, &arms, |seed, arm| Some((seed, arm.name))).unwrap();
        assert_eq!(all[2], [(0, "va"), (1, "va"), (2, "va")]);
    }
}
