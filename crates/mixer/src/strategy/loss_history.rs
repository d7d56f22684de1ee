//! The training losses of a whole run in bounded space: means over blocks of steps that double in
//! length when there get to be too many.
//!
//! In: the losses of each step. Out: points (ln n, ln L) of a domain. State: at most 128 blocks of
//! two numbers a domain, so that the history of 8 domains is 2,000 numbers, whatever the run's
//! length. What is lost: after 128·2ᵏ steps, what happened within 2ᵏ⁺¹ successive steps.

use crate::observation::LossStatistics;
use serde::{Deserialize, Serialize};

/// Most blocks, an even number.
const MOST: usize = 128;

/// Means of training losses over blocks of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LossHistory {
    /// Steps in a block.
    width: u64,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    /// Its first step.
    first: u64,
    /// Steps in it so far.
    steps: u64,
    /// Σ over its steps of ln n, the sequences of the run so far.
    log_sequences: f64,
    /// Σ over its steps of each domain's loss.
    losses: Vec<f64>,
    /// Steps that had the domain.
    seen: Vec<u64>,
}

impl LossHistory {
    pub(super) fn new() -> Self {
        Self { width: 1, blocks: Vec::new() }
    }

    /// Takes in the losses of `step`, after which the run had `sequences` sequences, at least 1.
    pub(super) fn add(&mut self, step: u64, sequences: u64, seen: &[Option<LossStatistics>]) {
        let full = self.blocks.last().is_none_or(|block| block.steps >= self.width);
        if full && self.blocks.len() >= MOST {
            let pairs = self.blocks.chunks(2).map(|pair| {
                let mut whole = pair[0].clone();
                pair[1..].iter().for_each(|block| whole.join(block));
                whole
            });
            self.blocks = pairs.collect();
            self.width *= 2;
        }
        let block = Block {
            first: step,
            steps: 1,
            log_sequences: (sequences as f64).ln(),
            losses: seen.iter().map(|seen| usable(seen).unwrap_or(0.0)).collect(),
            seen: seen.iter().map(|seen| u64::from(usable(seen).is_some())).collect(),
        };
        match self.blocks.last_mut() {
            Some(last) if last.steps < self.width => last.join(&block),
            _ => self.blocks.push(block),
        }
    }

    /// The points (ln n, ln L) of a domain, of blocks that begin at `from` or later and saw it.
    pub(super) fn points(&self, domain: usize, from: u64) -> Vec<(f64, f64)> {
        let blocks = self.blocks.iter().filter(|block| block.first >= from);
        let point = |block: &Block| {
            let seen = *block.seen.get(domain)?;
            let mean = block.losses[domain] / seen as f64;
            let log_n = block.log_sequences / block.steps as f64;
            (seen > 0 && mean > 0.0).then(|| (log_n, mean.ln()))
        };
        blocks.filter_map(point).collect()
    }

    /// Whether it is a history of `domains` domains.
    pub(super) fn is_valid(&self, domains: usize) -> bool {
        let block = |block: &Block| {
            (1..=self.width).contains(&block.steps)
                && block.losses.len() == domains
                && block.seen.len() == domains
                && block.log_sequences.is_finite()
                && block.losses.iter().all(|sum| sum.is_finite())
                && block.seen.iter().all(|seen| *seen <= block.steps)
        };
        let width = self.width.is_power_of_two() && self.width < u64::MAX / 4;
        width && self.blocks.len() <= MOST && self.blocks.iter().all(block)
    }
}

impl Block {
    fn join(&mut self, later: &Self) {
        self.steps += later.steps;
        self.log_sequences += later.log_sequences;
        let sums = self.losses.iter_mut().zip(&mut self.seen);
        for ((sum, seen), (more, times)) in sums.zip(later.losses.iter().zip(&later.seen)) {
            if (*sum + more).is_finite() {
                *sum += more;
                *seen += times;
            }
        }
    }
}

/// A loss that has a logarithm.
fn usable(seen: &Option<LossStatistics>) -> Option<f64> {
    seen.filter(|seen| seen.mean.is_finite() && seen.mean > 0.0 && seen.count > 0)
        .map(|seen| seen.mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(steps: u64, loss: impl Fn(u64) -> Option<f64>) -> LossHistory {
        let mut history = LossHistory::new();
        for step in 0..steps {
            let of = |mean: f64| LossStatistics { mean, variance: 0.0, count: 1 };
            history.add(step, 8 * (step + 1), &[loss(step).map(of), None]);
        }
        history
    }

    #[test]
    fn a_short_run_is_kept_whole_and_a_long_one_in_bounded_space() {
        let short = history(128, |step| Some(9.0 - step as f64 / 100.0));
        assert_eq!(short.points(0, 0).len(), 128);
        assert_eq!(short.points(0, 100).len(), 28);
        assert!(short.points(1, 0).is_empty() && short.is_valid(2) && !short.is_valid(1));
        let long = history(100_000, |step| Some(9.0 - step as f64 / 1e5));
        let points = long.points(0, 0);
        assert!((64..=128).contains(&points.len()), "{}", points.len());
        // The mean loss of a block lies at the middle of its steps, where the line has it; ln n is
        // the mean of the logarithms.
        let (log_n, log_loss) = points[points.len() / 2];
        let at = log_n.exp() / 8.0;
        assert!((log_loss.exp() - (9.0 - at / 1e5)).abs() < 1e-3, "{at} {}", log_loss.exp());
    }

    #[test]
    fn steps_without_the_domain_and_losses_without_a_logarithm_do_not_count() {
        let some = history(1_000, |step| match step % 4 {
            0 => Some(2.0),
            1 => Some(f64::NAN),
            2 => Some(-1.0),
            _ => None,
        });
        assert!(some.is_valid(2));
        let points = some.points(0, 0);
        assert!(
            points.iter().all(|(_, loss)| (loss - 2.0f64.ln()).abs() < 1e-12) && points.len() > 9
        );
    }
}
