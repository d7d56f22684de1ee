//! Losses as tokens: how many times fewer an arm needs for the same loss.
//!
//! For each seed, the loss that both runs reach is the higher of their last ones: the baseline's,
//! where the arm is better. The tokens at which each run's curve first is that low are compared,
//! the baseline's over the arm's; logarithms of these ratios over seeds give a mean and a
//! t-interval. Exchanging the arms inverts the ratio.
//!
//! Curves are isotonic (`isotonic`), straight in the logarithm of tokens between evaluations. They
//! mean something only where the rate was constant: under a schedule that falls to the end, as
//! cosine, a run that had stopped earlier would have been scheduled otherwise and be lower there.

use crate::isotonic::falling;
use crate::paired::{mean_and_deviation, mean_half_width};

/// How the learning rate goes, as far as it bears on curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Constant, after a warm-up or none.
    Constant,
    /// Constant until a decay (WSD).
    Decay {
        /// Tokens trained on when it begins.
        from_tokens: u64,
    },
    /// Falling over the whole run, by a cosine or otherwise.
    Cosine,
    /// Not alike in all arms.
    Mixed,
}

impl Schedule {
    /// The last number of tokens at which a curve means something.
    fn last_tokens(self) -> Result<u64, NoSpeedup> {
        match self {
            Self::Constant => Ok(u64::MAX),
            Self::Decay { from_tokens } => Ok(from_tokens),
            Self::Cosine => Err(NoSpeedup::Schedule),
            Self::Mixed => Err(NoSpeedup::Mixed),
        }
    }
}

/// Why there is no ratio of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSpeedup {
    /// The rate falls over the whole run.
    #[error(
        "the learning rate falls over the whole run, so that a shorter run would have ended lower \
         than this one was at that point; use a constant rate or `wsd`"
    )]
    Schedule,
    /// The arms' rates go differently.
    #[error(
        "the arms' learning rates do not follow one shape, so that their curves cannot be compared"
    )]
    Mixed,
    /// No seed has both curves.
    #[error("no seed has both runs")]
    NoPair,
    /// A curve has fewer than two evaluations where the rate is constant.
    #[error("a run has fewer than two evaluations at a constant rate after its first step")]
    TooFewEvaluations,
    /// A run is below the other one's last loss at its first evaluation already.
    #[error("a run was below the loss before its first evaluation; evaluate more often")]
    BeforeFirstEvaluation,
}

/// A ratio of tokens: 2 where the baseline takes twice as many as the arm for the same loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speedup {
    /// The mean over seeds, of logarithms.
    pub ratio: f64,
    /// Its 95 % interval; `None` of a single seed, or where all seeds agree exactly.
    pub ci95: Option<[f64; 2]>,
}

/// Tokens and mean loss at each evaluation.
pub type Curve = [(u64, f64)];

/// The baseline's tokens over the arm's at equal loss, over pairs of curves (baseline, arm).
///
/// # Errors
/// Why it cannot be known.
pub fn speedup(pairs: &[(&Curve, &Curve)], schedule: Schedule) -> Result<Speedup, NoSpeedup> {
    let last = schedule.last_tokens()?;
    if pairs.is_empty() {
        return Err(NoSpeedup::NoPair);
    }
    let ratio = |(baseline, arm): &(&Curve, &Curve)| {
        log_ratio(&Falling::new(baseline, last)?, &Falling::new(arm, last)?)
    };
    let logs = pairs.iter().map(ratio).collect::<Result<Vec<f64>, NoSpeedup>>()?;
    let (mean, deviation) = mean_and_deviation(&logs).ok_or(NoSpeedup::NoPair)?;
    let half = mean_half_width(&logs, 0.05).filter(|_| deviation.is_some_and(|s| s > 1e-12));
    let ci95 = half.map(|half| [(mean - half).exp(), (mean + half).exp()]);
    Ok(Speedup { ratio: mean.exp(), ci95 })
}

/// Nats that one per cent more tokens is worth near the end: the slope of the isotonic curves
/// against the logarithm of tokens, by least squares over the second half of the tokens, mean over
/// `curves`. `None` where the schedule says nothing or a curve has too few evaluations.
pub fn nats_per_percent(curves: &[&Curve], schedule: Schedule) -> Option<f64> {
    let last = schedule.last_tokens().ok()?;
    let slopes: Option<Vec<f64>> =
        curves.iter().map(|curve| Falling::new(curve, last).ok()?.end_slope()).collect();
    let (slope, _) = mean_and_deviation(&slopes?)?;
    // Written so that a flat curve gives 0 and not −0.
    Some(0.0 - slope * 0.01f64.ln_1p())
}

/// An isotonic curve over the logarithm of tokens.
struct Falling {
    log_tokens: Vec<f64>,
    losses: Vec<f64>,
}

impl Falling {
    fn new(curve: &Curve, last: u64) -> Result<Self, NoSpeedup> {
        let used: Vec<(u64, f64)> =
            curve.iter().copied().filter(|(tokens, _)| *tokens > 0 && *tokens <= last).collect();
        let rises = used.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let losses = falling(&used.iter().map(|(_, loss)| *loss).collect::<Vec<f64>>());
        if used.len() < 2 || !rises || losses.iter().any(|loss| !loss.is_finite()) {
            return Err(NoSpeedup::TooFewEvaluations);
        }
        let log_tokens = used.iter().map(|(tokens, _)| (*tokens as f64).ln()).collect();
        Ok(Self { log_tokens, losses })
    }

    fn end(&self) -> (f64, f64) {
        let last = self.losses.len() - 1;
        (self.log_tokens[last], self.losses[last])
    }

    /// The logarithm of the tokens at which the curve first is at most `target`, which it reaches.
    fn reached(&self, target: f64) -> Result<f64, NoSpeedup> {
        let index = self.losses.partition_point(|loss| *loss > target);
        if index == 0 && self.losses[0] < target {
            return Err(NoSpeedup::BeforeFirstEvaluation);
        }
        if index == 0 || index == self.losses.len() {
            return Ok(self.log_tokens[index.min(self.losses.len() - 1)]);
        }
        let (before, after) = (self.losses[index - 1], self.losses[index]);
        let share = (before - target) / (before - after);
        let (from, to) = (self.log_tokens[index - 1], self.log_tokens[index]);
        Ok(from + share * (to - from))
    }

    fn end_slope(&self) -> Option<f64> {
        let (end, _) = self.end();
        let half = end - std::f64::consts::LN_2 - 1e-9;
        // Never fewer than the last two.
        let from = self.log_tokens.partition_point(|t| *t < half).min(self.losses.len() - 2);
        let (x, y) = (&self.log_tokens[from..], &self.losses[from..]);
        let (x_mean, _) = mean_and_deviation(x)?;
        let (y_mean, _) = mean_and_deviation(y)?;
        let squares: f64 = x.iter().map(|x| (x - x_mean) * (x - x_mean)).sum();
        let products: f64 = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
        Some(products / squares)
    }
}

/// ln of the baseline's tokens over the arm's, at the higher of the last losses.
fn log_ratio(baseline: &Falling, arm: &Falling) -> Result<f64, NoSpeedup> {
    let target = baseline.end().1.max(arm.end().1);
    Ok(baseline.reached(target)? - arm.reached(target)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L = 5 − ln(tokens·speed)/2, at 1,000, 2,000, …
    fn curve(speed: f64, evaluations: u64) -> Vec<(u64, f64)> {
        let loss = |tokens: u64| 5.0 - 0.5 * (tokens as f64 * speed).ln();
        (0..=evaluations).map(|n| (1_000 * n, if n == 0 { 9.0 } else { loss(1_000 * n) })).collect()
    }

    #[test]
    fn an_arm_twice_as_fast_has_a_ratio_of_two_and_the_inverse_one_half() {
        let (slow, fast) = (curve(1.0, 40), curve(2.0, 40));
        let pairs = [(&slow[..], &fast[..])];
        let found = speedup(&pairs, Schedule::Constant).map(|s| (s.ratio, s.ci95));
        // Straight in ln tokens, as the curves are.
        assert!(found.is_ok_and(|(ratio, ci95)| (ratio - 2.0).abs() < 1e-9 && ci95.is_none()));
        let inverse = speedup(&[(&fast[..], &slow[..])], Schedule::Constant).map(|s| s.ratio);
        assert!(inverse.is_ok_and(|ratio| (ratio - 0.5).abs() < 1e-9));
        let same = speedup(&[(&slow[..], &slow[..])], Schedule::Constant).map(|s| s.ratio);
        assert_eq!(same, Ok(1.0));
    }

    /// By hand: logarithms 0, ln 2 and ln 4; mean ln 2, s = ln 2, half-width 4.302653·ln 2/√3.
    #[test]
    fn the_interval_is_over_logarithms() {
        let curves = [1.0, 2.0, 4.0].map(|speed| curve(speed, 40));
        let pairs: Vec<(&Curve, &Curve)> =
            curves.iter().map(|arm| (&curves[0][..], &arm[..])).collect();
        let Ok(found) = speedup(&pairs, Schedule::Constant) else { panic!("no ratio") };
        let half = 4.302652729749464 * std::f64::consts::LN_2 / 3f64.sqrt();
        let expected = [2.0 * (-half).exp(), 2.0 * half.exp()];
        assert!((found.ratio - 2.0).abs() < 1e-9);
        for (found, expected) in found.ci95.unwrap_or_default().iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-9, "{found}, {expected}");
        }
    }

    #[test]
    fn a_schedule_that_falls_to_the_end_is_refused_with_the_reason() {
        let (slow, fast) = (curve(1.0, 40), curve(2.0, 40));
        let found = speedup(&[(&slow[..], &fast[..])], Schedule::Cosine);
        assert_eq!(found, Err(NoSpeedup::Schedule));
        assert!(NoSpeedup::Schedule.to_string().contains("would have ended lower"));
        assert_eq!(nats_per_percent(&[&slow[..]], Schedule::Cosine), None);
    }

    #[test]
    fn what_lies_in_the_decay_does_not_count() {
        let (mut slow, fast) = (curve(1.0, 40), curve(2.0, 40));
        for point in &mut slow[31..] {
            point.1 -= 2.0;
        }
        let schedule = Schedule::Decay { from_tokens: 30_000 };
        let found = speedup(&[(&slow[..], &fast[..])], schedule).map(|s| s.ratio);
        assert!(found.is_ok_and(|ratio| (ratio - 2.0).abs() < 1e-9));
        let early = Schedule::Decay { from_tokens: 1_500 };
        let found = speedup(&[(&slow[..], &fast[..])], early);
        assert_eq!(found, Err(NoSpeedup::TooFewEvaluations));
    }

    #[test]
    fn a_loss_below_the_first_evaluation_is_no_number() {
        let (slow, fast) = (curve(1.0, 3), curve(100.0, 3));
        let found = speedup(&[(&slow[..], &fast[..])], Schedule::Constant);
        assert_eq!(found, Err(NoSpeedup::BeforeFirstEvaluation));
        for broken in
            [vec![], vec![(0, 1.0)], vec![(5, 1.0), (5, 0.5)], vec![(1, 1.0), (2, f64::NAN)]]
        {
            let found = speedup(&[(&slow[..], &broken[..])], Schedule::Constant);
            assert_eq!(found, Err(NoSpeedup::TooFewEvaluations), "{broken:?}");
        }
        assert_eq!(speedup(&[], Schedule::Constant), Err(NoSpeedup::NoPair));
    }

    /// dL/d ln tokens = −1/2, so one per cent is worth ln(1.01)/2.
    #[test]
    fn one_per_cent_more_tokens_is_worth_the_slope_at_the_end() {
        let curves = [curve(1.0, 40), curve(3.0, 40)];
        let curves: Vec<&Curve> = curves.iter().map(|curve| &curve[..]).collect();
        let found = nats_per_percent(&curves, Schedule::Constant).unwrap_or(f64::NAN);
        assert!((found - 0.5 * 1.01f64.ln()).abs() < 1e-12, "{found}");
        let flat: Vec<(u64, f64)> = (1..9).map(|n| (n, 1.0)).collect();
        assert_eq!(nats_per_percent(&[&flat[..]], Schedule::Constant), Some(0.0));
        assert_eq!(nats_per_percent(&[], Schedule::Constant), None);
    }
}
