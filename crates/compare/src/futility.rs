//! Stopping an arm before its end: only because it can no longer become better.
//!
//! Where even the favourable end of the interim 95 % interval is worse than the baseline by more
//! than the margin, the rest of the run would cost and change nothing. Nothing is ever called better
//! or worse early: an arm that learns its weights may still turn, which is why it is asked later.

use crate::paired::Paired;

/// Seeds from which an arm may be asked.
pub const LEAST_SEEDS: usize = 3;

/// The first step of a run of `steps` at which an arm may be asked: after 2/3 of it, or after 4/5
/// where the arm `learns` its weights while it trains.
pub fn earliest_futility_step(steps: u64, learns: bool) -> u64 {
    let (part, whole) = if learns { (4, 5) } else { (2, 3) };
    // Whole parts first, so that no number of steps overflows.
    steps / whole * part + (steps % whole * part).div_ceil(whole)
}

/// Whether an arm may stop: `differences` to the baseline are those of the seeds so far, all at the
/// same step. Not with fewer than three seeds, nor where one has no number or all agree exactly,
/// which measures no noise.
pub fn is_futile(differences: &[f64], margin: f64) -> bool {
    if differences.len() < LEAST_SEEDS || !differences.iter().all(|d| d.is_finite()) {
        return false;
    }
    let largest = differences.iter().fold(0.0f64, |most, d| most.max(d.abs()));
    let paired = Paired::new(differences, None, largest);
    let Some((mean, half)) = paired.mean().zip(paired.half_width(0.05)) else { return false };
    mean - half > margin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_that_learn_are_asked_later() {
        for (steps, fixed, learning) in
            [(300, 200, 240), (1000, 667, 800), (1, 1, 1), (0, 0, 0), (7, 5, 6)]
        {
            assert_eq!(earliest_futility_step(steps, false), fixed, "{steps}");
            assert_eq!(earliest_futility_step(steps, true), learning, "{steps}");
        }
        assert!(earliest_futility_step(u64::MAX, true) < u64::MAX);
    }

    #[test]
    fn only_what_is_surely_worse_by_more_than_the_margin_stops() {
        // Mean 0.1, s = 0.01, half-width 4.3027·0.01/√3 = 0.0248: the favourable end is 0.0752.
        let worse = [0.09, 0.10, 0.11];
        assert!(is_futile(&worse, 0.0751) && !is_futile(&worse, 0.0752));
        assert!(is_futile(&worse, 0.01));
        // Better arms never stop, however sure.
        assert!(!is_futile(&worse.map(|d| -d), 0.01));
        // Too few seeds, no noise measured, a run that diverged.
        assert!(!is_futile(&worse[..2], 0.01) && !is_futile(&[], 0.01));
        assert!(!is_futile(&[0.5; 4], 0.01));
        assert!(!is_futile(&[0.5, f64::NAN, 0.6, 0.7], 0.01));
        assert!(!is_futile(&[0.5, f64::INFINITY, 0.6, 0.7], 0.01));
    }
}
