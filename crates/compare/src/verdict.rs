//! Which verdict an arm gets.
//!
//! In order: a stopped arm is `futile`; fewer than two pairs say nothing (`none`); differences that
//! are all exactly 0 are `identical`; what is significant after correction is `better` or `worse`,
//! also where it lies inside the margin, since it was found; what is not, and surely lies inside
//! the margin, is `equivalent`; all else is `undecided`. Seeds that agree to rounding measure no
//! noise and decide nothing, unless their difference is itself no more than rounding: `equivalent`.
//!
//! A run that diverged is missing for a reason that has to do with its arm, so that what is left
//! flatters the arm. No arm with such a run is called better, none is called worse where the
//! baseline has one, and neither is called equivalent.

use crate::document::Verdict;
use crate::holm::{holm, step_down};
use crate::looks::nominal_p;
use crate::paired::Paired;
use crate::runs::Pairing;

/// What of an arm bears on its verdict besides its differences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// α.
    pub(crate) alpha: f64,
    /// δ.
    pub(crate) margin: f64,
    /// Whether a run of the arm diverged.
    pub(crate) arm_diverged: bool,
    /// Whether a run of the baseline diverged.
    pub(crate) baseline_diverged: bool,
}

/// The verdict of one test: `corrected` is its p after correction, `last` whether it is the last
/// one, at which equivalence may be found.
pub(crate) fn judge(
    paired: &Paired,
    corrected: Option<f64>,
    last: bool,
    given: Circumstances,
) -> Verdict {
    let Some(mean) = paired.mean().filter(|_| paired.seeds() >= 2) else { return Verdict::None };
    let significant = corrected.is_some_and(|p| p <= given.alpha) && !paired.is_noiseless();
    let found = if paired.is_zero() {
        Verdict::Identical
    } else if significant {
        if mean < 0.0 { Verdict::Better } else { Verdict::Worse }
    } else if last && within(paired, given.alpha).is_some_and(|within| within < given.margin) {
        Verdict::Equivalent
    } else {
        Verdict::Undecided
    };
    let flattered = match found {
        Verdict::Better => given.arm_diverged,
        Verdict::Worse => given.baseline_diverged,
        _ => given.arm_diverged || given.baseline_diverged,
    };
    if flattered { Verdict::Undecided } else { found }
}

/// The smallest margin that holds the 1 − 2α interval.
pub(crate) fn within(paired: &Paired, alpha: f64) -> Option<f64> {
    if paired.is_rounding() {
        return paired.mean().map(f64::abs);
    }
    Some(paired.mean()?.abs() + paired.half_width(2.0 * alpha)?)
}

/// The test of one arm in the family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Test {
    /// What it was decided on: the pairs of the look, or all.
    pub(crate) paired: Paired,
    /// p after correction for arms and looks.
    pub(crate) corrected: Option<f64>,
    /// Whether no further test is to come.
    pub(crate) last: bool,
    /// The look, by index, that was last reached or decided.
    pub(crate) look: Option<usize>,
    /// Whether an interim look decided it.
    pub(crate) early: bool,
}

/// Tests a family of arms once, with the pairs there are. Arms that were stopped, `None`, count in
/// the family and have no p.
pub(crate) fn test_once(arms: &[Option<&Pairing<'_>>]) -> Vec<Option<Test>> {
    let paired: Vec<Option<Paired>> =
        arms.iter().map(|arm| arm.map(|pairing| pairing.paired(pairing.seeds.len()))).collect();
    let p: Vec<Option<f64>> = paired.iter().map(|paired| paired.as_ref()?.p_value()).collect();
    let corrected = holm(&p, arms.len());
    let tests = paired.into_iter().zip(corrected).map(|(paired, corrected)| {
        Some(Test { paired: paired?, corrected, last: true, look: None, early: false })
    });
    tests.collect()
}

/// Tests a family of arms at declared looks: each arm at α over the number of arms at the interim
/// ones, and those that are left by Holm's steps at the last.
pub(crate) fn test_at_looks(
    arms: &[Option<&Pairing<'_>>],
    looks: &[usize],
    alpha: f64,
) -> Vec<Option<Test>> {
    let family = arms.len().max(1);
    let strict = nominal_p(looks, alpha / family as f64);
    let interim = |arm: &Option<&Pairing<'_>>| -> Option<Test> {
        let pairing = (*arm)?;
        let mut test = Test {
            paired: pairing.paired(pairing.seeds.len()),
            corrected: None,
            last: false,
            look: None,
            early: false,
        };
        for (index, (look, nominal)) in looks.iter().zip(&strict).enumerate() {
            // A pair that a diverged run lacks never comes: the last look does without.
            let last = index + 1 == looks.len();
            if pairing.seeds.len() < *look && !(last && pairing.is_complete()) {
                continue;
            }
            test.paired = pairing.paired(*look);
            test.look = Some(index);
            test.last = last;
            test.corrected = test.paired.p_value().map(|p| (alpha * p / nominal).min(1.0));
            if !test.last && test.corrected.is_some_and(|p| p <= alpha) {
                test.early = true;
                break;
            }
        }
        Some(test)
    };
    let mut tests: Vec<Option<Test>> = arms.iter().map(interim).collect();
    // An arm that was decided stands before all others in Holm's order.
    let p = |test: &Option<Test>| match test.as_ref()? {
        test if test.early => Some(0.0),
        test if test.last => test.paired.p_value(),
        _ => None,
    };
    let p: Vec<Option<f64>> = tests.iter().map(p).collect();
    let last = |remaining: usize| nominal_p(looks, alpha / remaining as f64).last().copied();
    let corrected = step_down(&p, family, |p, remaining| {
        if p == 0.0 { 0.0 } else { last(remaining).map_or(1.0, |nominal| alpha * p / nominal) }
    });
    for (test, corrected) in tests.iter_mut().zip(corrected) {
        if let Some(test) = test.as_mut().filter(|test| test.last && !test.early) {
            test.corrected = corrected;
        }
    }
    tests
}
