//! Shares that are known for every step in advance: piecewise constant or piecewise linear in the
//! step.
//!
//! In: stages (first step, shares). Out: the shares at any step, their exact sum over any range of
//! steps, and the first step at which such a sum reaches a target — all in closed form, so that
//! planning a run costs O(stages), whatever its length.

use crate::simplex::Simplex;
use serde::{Deserialize, Serialize};

/// How shares move between two stages of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolate {
    /// Each stage's shares hold until the next stage starts.
    #[default]
    Hold,
    /// Shares move in a straight line from each stage's first step to the next one's.
    Linear,
}

/// Shares as a function of the step, from step 0 on; the last stage's hold for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareSchedule {
    /// Stages by ascending first step, the first at 0. Never empty.
    stages: Vec<(u64, Simplex)>,
    interpolate: Interpolate,
}

impl ShareSchedule {
    /// The same shares at every step.
    pub fn constant(shares: Simplex) -> Self {
        Self { stages: vec![(0, shares)], interpolate: Interpolate::Hold }
    }

    /// The given stages, `None` unless they start at step 0, ascend strictly, and have equally many
    /// shares.
    pub fn piecewise(stages: Vec<(u64, Simplex)>, interpolate: Interpolate) -> Option<Self> {
        let (from_step, shares) = stages.first()?;
        let domains = shares.values().len();
        let starts_at_zero = *from_step == 0;
        let ascends = stages.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let same_length = stages.iter().all(|(_, shares)| shares.values().len() == domains);
        (starts_at_zero && ascends && same_length).then_some(Self { stages, interpolate })
    }

    /// The shares at `step`, one a domain.
    pub fn at(&self, step: u64) -> Vec<f64> {
        let pieces = self.pieces();
        let (index, piece) = match pieces.iter().rposition(|piece| piece.from <= step) {
            Some(index) => (index, &pieces[index]),
            None => return Vec::new(),
        };
        (0..self.stages[index].1.values().len())
            .map(|domain| piece.share(domain, step - piece.from))
            .collect()
    }

    /// Σ of `domain`'s share over the steps `from..to`.
    pub fn total(&self, domain: usize, from: u64, to: u64) -> f64 {
        let within = |piece: &Piece| {
            let (start, end) = (from.max(piece.from), to.min(piece.until));
            match start < end {
                true => piece.sum(domain, start - piece.from, end - piece.from),
                false => 0.0,
            }
        };
        self.pieces().iter().map(within).sum()
    }

    /// The first step t ≥ `from` with [`total`](Self::total)`(domain, from, t + 1)` ≥ `target`;
    /// `u64::MAX` if there is none.
    pub fn first_step_reaching(&self, domain: usize, from: u64, target: f64) -> u64 {
        let mut missing = target;
        for piece in self.pieces() {
            let start = from.max(piece.from);
            if start >= piece.until {
                continue;
            }
            let offset = start - piece.from;
            let steps = piece.until - start;
            let sum = piece.sum(domain, offset, offset.saturating_add(steps));
            if sum >= missing {
                let needed = piece.steps_reaching(domain, offset, steps, missing);
                return start.saturating_add(needed - 1);
            }
            missing -= sum;
        }
        u64::MAX
    }

    /// Steps at which the set of domains with a share of 0 can change: each stage's first step and
    /// the one after it.
    pub fn breakpoints(&self) -> impl Iterator<Item = u64> {
        self.stages.iter().flat_map(|(from_step, _)| [*from_step, from_step.saturating_add(1)])
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        let piece = |index: usize| {
            let (from, shares) = &self.stages[index];
            let next = self.stages.get(index + 1);
            Piece {
                from: *from,
                until: next.map_or(u64::MAX, |(from, _)| *from),
                start: shares.values(),
                end: match self.interpolate {
                    Interpolate::Hold => None,
                    Interpolate::Linear => next.map(|(_, shares)| shares.values()),
                },
            }
        };
        (0..self.stages.len()).map(piece).collect()
    }
}

/// The steps `from..until`, over which shares go from `start` towards `end`, or stay where that is
/// `None`.
struct Piece<'a> {
    from: u64,
    until: u64,
    start: &'a [f64],
    end: Option<&'a [f64]>,
}

impl Piece<'_> {
    /// A domain's share at the first step and, where it moves, the one it moves towards.
    fn ends(&self, domain: usize) -> (f64, Option<f64>) {
        let start = self.start.get(domain).copied().unwrap_or(0.0);
        let end = self.end.and_then(|end| end.get(domain)).copied();
        (start, end.filter(|end| *end != start))
    }

    /// Share at `offset` steps into the piece.
    fn share(&self, domain: usize, offset: u64) -> f64 {
        let (start, Some(end)) = self.ends(domain) else {
            return self.ends(domain).0;
        };
        let done = offset as f64 / (self.until - self.from) as f64;
        // Written as two products, not start + slope: it is never negative, and exact at the ends.
        start * (1.0 - done) + end * done
    }

    /// Sum over the offsets `from..to`: the mean of the first and last share times their number.
    fn sum(&self, domain: usize, from: u64, to: u64) -> f64 {
        if to <= from {
            return 0.0;
        }
        let mean = 0.5 * (self.share(domain, from) + self.share(domain, to - 1));
        mean * (to - from) as f64
    }

    /// The fewest steps, in 1..=`steps`, whose sum from `offset` on reaches `target`; it is known
    /// that `steps` do.
    fn steps_reaching(&self, domain: usize, offset: u64, steps: u64, target: f64) -> u64 {
        if let (share, None) = self.ends(domain) {
            return ((target / share).ceil() as u64).clamp(1, steps.max(1));
        }
        let (mut low, mut high) = (1, steps.max(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.sum(domain, offset, offset + middle) >= target {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn simplex(raw: &[f64]) -> Simplex {
        Simplex::normalise("shares", &["a", "b", "c"], raw).unwrap()
    }

    fn schedules() -> impl Strategy<Value = ShareSchedule> {
        let shares = prop::collection::vec(prop_oneof![Just(0.0), 1e-3f64..1.0], 3)
            .prop_filter("some share", |raw| raw.iter().any(|v| *v > 0.0));
        let stages = prop::collection::vec((1u64..40, shares), 1..5);
        (stages, prop::bool::ANY).prop_map(|(stages, linear)| {
            let mut next = 0;
            let stages = stages
                .into_iter()
                .map(|(length, raw)| {
                    let from = next;
                    next += length;
                    (from, simplex(&raw))
                })
                .collect();
            let interpolate = if linear { Interpolate::Linear } else { Interpolate::Hold };
            ShareSchedule::piecewise(stages, interpolate).unwrap()
        })
    }

    #[test]
    fn linear_shares_move_in_a_straight_line() {
        let stages = vec![(0, simplex(&[1.0, 0.0, 0.0])), (4, simplex(&[0.0, 1.0, 0.0]))];
        let linear = ShareSchedule::piecewise(stages.clone(), Interpolate::Linear).unwrap();
        assert_eq!(linear.at(0), [1.0, 0.0, 0.0]);
        assert_eq!(linear.at(1), [0.75, 0.25, 0.0]);
        assert_eq!(linear.at(4), [0.0, 1.0, 0.0]);
        assert_eq!(linear.at(u64::MAX), [0.0, 1.0, 0.0]);
        let hold = ShareSchedule::piecewise(stages, Interpolate::Hold).unwrap();
        assert_eq!(hold.at(3), [1.0, 0.0, 0.0]);
        assert_eq!(hold.at(4), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn stages_must_start_at_zero_and_ascend() {
        let shares = simplex(&[1.0, 1.0, 1.0]);
        for steps in [vec![], vec![1], vec![0, 5, 5], vec![0, 7, 3]] {
            let stages = steps.iter().map(|step| (*step, shares.clone())).collect();
            assert_eq!(ShareSchedule::piecewise(stages, Interpolate::Hold), None, "{steps:?}");
        }
    }

    #[test]
    fn a_share_that_stays_zero_never_reaches_anything() {
        let schedule = ShareSchedule::constant(simplex(&[1.0, 0.0, 0.0]));
        assert_eq!(schedule.first_step_reaching(1, 0, 1e-9), u64::MAX);
        assert_eq!(schedule.first_step_reaching(0, 5, 1.0), 5);
        assert_eq!(schedule.first_step_reaching(0, 5, 1.5), 6);
        assert_eq!(schedule.first_step_reaching(7, 0, 1.0), u64::MAX);
    }

    proptest! {
        #[test]
        fn totals_are_the_sums_of_the_steps(schedule in schedules(), from in 0u64..100, length in 0u64..100) {
            for domain in 0..3 {
                let summed: f64 = (from..from + length).map(|step| schedule.at(step)[domain]).sum();
                let closed = schedule.total(domain, from, from + length);
                // At most 100 additions of numbers up to 100, each rounded to half a unit of 2⁻⁴⁶.
                prop_assert!((summed - closed).abs() < 1e-11, "{summed} {closed}");
            }
        }

        #[test]
        fn the_step_reaching_a_target_is_the_first(schedule in schedules(), from in 0u64..100, target in 1e-3f64..60.0) {
            for domain in 0..3 {
                let step = schedule.first_step_reaching(domain, from, target);
                if step == u64::MAX {
                    prop_assert!(schedule.total(domain, from, from + 200_000) < target);
                    continue;
                }
                prop_assert!(schedule.total(domain, from, step + 1) >= target - 1e-11);
                prop_assert!(schedule.total(domain, from, step) < target + 1e-11);
            }
        }
    }
}
