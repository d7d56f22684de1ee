//! Runs grouped by arm, and curves over their steps.
//!
//! In: the records of runs. Out: for each arm the mean over its runs at each of the steps that are
//! drawn, with an interval. Long runs are thinned: of their steps every n-th is kept, and the last.

use std::collections::{BTreeMap, BTreeSet};

use crate::interval::interval;
use crate::record::{EvalRecord, PerDomain, Record, StepRecord};

use super::input::RunRecord;

/// Values that the curves of a page hold at most, about 3 MB.
const VALUES: usize = 150_000;
/// Points of a curve, at least and at most.
const POINTS: (usize, usize) = (4, 400);
/// Curves that a domain takes for each arm: a loss with a band, another, w, p, m, α, its mean, v̂,
/// and epochs.
const CURVES: usize = 11;

/// The split that is reported.
pub(crate) const SPLIT: &str = "valid";

/// A run's records, by step.
pub(crate) struct History<'a> {
    pub(crate) run: &'a RunRecord,
    pub(crate) steps: BTreeMap<u64, &'a StepRecord>,
    pub(crate) evals: BTreeMap<u64, &'a EvalRecord>,
}

impl<'a> History<'a> {
    fn of(run: &'a RunRecord) -> Self {
        let (mut steps, mut evals) = (BTreeMap::new(), BTreeMap::new());
        for record in &run.records {
            match record {
                Record::Step(step) => drop(steps.insert(step.step, step)),
                Record::Eval(eval) if eval.split == SPLIT => drop(evals.insert(eval.step, eval)),
                Record::Eval(_) => {}
            }
        }
        History { run, steps, evals }
    }

    /// The last evaluation.
    pub(crate) fn last(&self) -> Option<&'a EvalRecord> {
        self.evals.last_key_value().map(|(_, eval)| *eval)
    }

    /// The importances π that its mean loss is weighted by, as far as its steps say.
    fn importances(&self) -> Option<Vec<(&'a str, u64)>> {
        let (_, step) = self.steps.last_key_value()?;
        let domains = step.domains.0.iter();
        // Compared to eight digits: rounding is no difference.
        let rounded = |importance: f64| (importance * 1e8).round() as u64;
        Some(domains.map(|(name, domain)| (name.as_str(), rounded(domain.importance))).collect())
    }

    /// How many windows of each domain its last evaluation is of.
    fn windows(&self) -> Option<Vec<(&'a str, u64)>> {
        let domains = self.last()?.domains.0.iter();
        Some(domains.map(|(name, domain)| (name.as_str(), domain.windows)).collect())
    }

    /// The median speed, which a pause does not change.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let speeds = self.steps.values().map(|step| step.tokens_per_second);
        let mut speeds: Vec<f64> = speeds.filter(|speed| speed.is_finite()).collect();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied()
    }
}

/// The runs of one arm.
pub(crate) struct Arm<'a> {
    pub(crate) name: &'a str,
    pub(crate) runs: Vec<History<'a>>,
}

impl Arm<'_> {
    /// The steps of its runs' last evaluations: the first and the last of them.
    pub(crate) fn evaluated_at(&self) -> Option<(u64, u64)> {
        let steps = || self.runs.iter().filter_map(|run| Some(run.last()?.step));
        Some((steps().min()?, steps().max()?))
    }
}

/// All runs, arms in the order in which they came.
pub(crate) struct Runs<'a> {
    pub(crate) arms: Vec<Arm<'a>>,
    pub(crate) domains: Vec<&'a str>,
    /// Domains that are drawn one by one: all, unless there are too many for a page.
    pub(crate) shown: Vec<&'a str>,
    /// Points of a curve.
    points: usize,
}

impl<'a> Runs<'a> {
    pub(crate) fn of(runs: &'a [RunRecord]) -> Self {
        let mut arms: Vec<Arm> = Vec::new();
        for run in runs {
            let history = History::of(run);
            match arms.iter_mut().find(|arm| arm.name == run.arm) {
                Some(arm) => arm.runs.push(history),
                None => arms.push(Arm { name: &run.arm, runs: vec![history] }),
            }
        }
        let mut domains: Vec<&str> = Vec::new();
        let mut seen = BTreeSet::new();
        for record in runs.iter().flat_map(|run| run.records.iter().take(2)) {
            let names: Vec<&str> = match record {
                Record::Step(step) => names(&step.domains).collect(),
                Record::Eval(eval) => names(&eval.domains).collect(),
            };
            domains.extend(names.into_iter().filter(|name| seen.insert(*name)));
        }
        let curves = CURVES * arms.len().max(1);
        let most = (VALUES / curves / POINTS.0).max(1);
        let shown: Vec<&str> = domains.iter().take(most).copied().collect();
        let points = (VALUES / curves / (shown.len() + 1)).clamp(POINTS.0, POINTS.1);
        Runs { arms, domains, shown, points }
    }

    /// Steps that are drawn, and how many there are.
    pub(crate) fn steps(&self) -> (Vec<u64>, usize) {
        self.thinned(|history| history.steps.keys().copied().collect())
    }

    /// Evaluations that are drawn, and how many there are.
    pub(crate) fn evaluations(&self) -> (Vec<u64>, usize) {
        self.thinned(|history| history.evals.keys().copied().collect())
    }

    fn thinned(&self, of: impl Fn(&History) -> Vec<u64>) -> (Vec<u64>, usize) {
        let all: BTreeSet<u64> = self.arms.iter().flat_map(|arm| &arm.runs).flat_map(of).collect();
        let all: Vec<u64> = all.into_iter().collect();
        (thin(&all, self.points), all.len())
    }

    /// In what the last evaluations differ besides the models, a sentence each.
    pub(crate) fn unlike(&self) -> Vec<&'static str> {
        let all = || self.arms.iter().flat_map(|arm| &arm.runs).filter(|run| run.last().is_some());
        let steps = all().filter_map(|run| Some(run.last()?.step));
        let text = all().filter_map(|run| run.run.evaluated.as_ref());
        [
            (differ(steps), "The evaluations are of different steps."),
            (
                differ(all().filter_map(History::importances)),
                "The means are weighted by different importances.",
            ),
            (
                differ(all().filter_map(History::windows)) || differ(text),
                "The evaluations are of different text.",
            ),
        ]
        .into_iter()
        .filter_map(|(differ, sentence)| differ.then_some(sentence))
        .collect()
    }

    /// Whether no arm has a second run.
    pub(crate) fn single(&self) -> bool {
        self.arms.iter().all(|arm| arm.runs.len() == 1)
    }
}

/// Whether there are two that differ.
fn differ<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
    let first = values.next();
    values.any(|value| Some(value) != first)
}

/// The names of an object's entries.
fn names<T>(domains: &PerDomain<T>) -> impl Iterator<Item = &str> {
    domains.0.iter().map(|(name, _)| name.as_str())
}

/// Every n-th of `steps`, n the least that leaves at most `most`, and the last.
pub(crate) fn thin(steps: &[u64], most: usize) -> Vec<u64> {
    let n = steps.len().saturating_sub(1).div_ceil(most.saturating_sub(1).max(1)).max(1);
    let mut kept: Vec<u64> = steps.iter().step_by(n).copied().collect();
    if let Some(last) = steps.last().filter(|last| kept.last() != Some(last)) {
        kept.push(*last);
    }
    kept
}

/// How a curve was thinned, in a sentence; nothing where it was not.
pub(crate) fn thinning(kept: &[u64], all: usize, noun: &str) -> String {
    if kept.len() >= all {
        return String::new();
    }
    let n = (all - 1).div_ceil(kept.len().saturating_sub(1).max(1));
    let nth = match (n % 10, n % 100) {
        (1, r) if r != 11 => "st",
        (2, r) if r != 12 => "nd",
        (3, r) if r != 13 => "rd",
        _ => "th",
    };
    format!("Of {all} {noun} every {n}{nth} is drawn, and the last.")
}

/// A mean over runs at each step.
#[derive(Default)]
pub(crate) struct Curve {
    pub(crate) mean: Vec<f64>,
    pub(crate) low: Vec<f64>,
    pub(crate) high: Vec<f64>,
    /// The most runs of which a mean was taken.
    pub(crate) runs: usize,
    /// The fewest of which there is an interval.
    pub(crate) fewest: usize,
}

/// The mean of `value` over `runs` at each of `steps`, with its 95 % t-interval where there are two
/// runs or more. A run without a finite value at a step does not count there.
pub(crate) fn curve(
    runs: &[History],
    steps: &[u64],
    value: impl Fn(&History, u64) -> Option<f64>,
) -> Curve {
    let mut curve = Curve { fewest: usize::MAX, ..Curve::default() };
    for step in steps {
        let values = runs.iter().filter_map(|run| value(run, *step));
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let (mut mean, mut half) = (f64::NAN, f64::NAN);
        if !values.is_empty() {
            let found = interval(&values);
            // A single run's value to the bit.
            mean = if values.len() == 1 { values[0] } else { found.mean };
            half = found.ci95.unwrap_or(f64::NAN);
            curve.runs = curve.runs.max(values.len());
            if found.ci95.is_some() {
                curve.fewest = curve.fewest.min(values.len());
            }
        }
        curve.mean.push(mean);
        curve.low.push(mean - half);
        curve.high.push(mean + half);
    }
    if curve.low.iter().all(|low| low.is_nan()) {
        (curve.low, curve.high) = (Vec::new(), Vec::new());
    }
    curve
}

/// What bands show, in words: `6 seeds, 95 % interval of the mean.` Of each arm come the fewest and
/// the most runs that a mean is taken of; where there is one there is no band.
pub(crate) fn band_words(arms: &[(usize, usize)]) -> String {
    let several = || arms.iter().filter(|(_, most)| *most > 1);
    let most = several().map(|(_, most)| *most).max().unwrap_or(0);
    let fewest = several().map(|(fewest, _)| (*fewest).max(2)).min().unwrap_or(most);
    let seeds = if fewest < most { format!("{fewest} to {most}") } else { most.to_string() };
    let single = match arms.iter().any(|(_, most)| *most == 1) {
        true => " Arms of one seed have no band.",
        false if several().any(|(fewest, _)| *fewest == 1) => " Where one seed is left is no band.",
        false => "",
    };
    format!("{seeds} seeds, 95 % interval of the mean.{single}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_every_nth_step_and_the_last() {
        let steps: Vec<u64> = (1..=2_000).collect();
        for most in [4, 7, 100, 399, 400] {
            let kept = thin(&steps, most);
            assert!(kept.len() <= most + 1, "{most}: {}", kept.len());
            assert_eq!((kept[0], kept[kept.len() - 1]), (1, 2_000));
            let n = kept[1] - kept[0];
            assert!(kept.windows(2).rev().skip(1).all(|pair| pair[1] - pair[0] == n));
            let said = thinning(&kept, 2_000, "steps");
            assert!(said.contains(&format!("every {n}")), "{most}: {n}, {said}");
        }
        assert_eq!(thin(&[3, 5, 9], 400), [3, 5, 9]);
        assert_eq!((thin(&[], 400), thin(&[7], 400)), (vec![], vec![7]));
        assert_eq!(thinning(&[3, 5, 9], 3, "steps"), "");
    }

    #[test]
    fn bands_say_how_many_seeds_and_which_interval() {
        assert_eq!(band_words(&[(6, 6), (6, 6)]), "6 seeds, 95 % interval of the mean.");
        assert_eq!(band_words(&[(6, 6), (4, 5)]), "4 to 6 seeds, 95 % interval of the mean.");
        let alone = "6 seeds, 95 % interval of the mean. Arms of one seed have no band.";
        assert_eq!(band_words(&[(6, 6), (1, 1)]), alone);
        let left = "2 to 6 seeds, 95 % interval of the mean. Where one seed is left is no band.";
        assert_eq!(band_words(&[(1, 6), (6, 6), (usize::MAX, 0)]), left);
    }
}
