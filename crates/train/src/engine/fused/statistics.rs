//! Gradient variance within a domain, v² of docs/method.md, from gradients of single sequences.
//!
//! Sums in f64, domain by domain, added up in the batch's order. The formulas are those of the
//! reference engine (`reference/variance.rs`).

use std::collections::BTreeMap;

use cuvee_mixer::{Direction, DomainId, GradientStatistics};

/// Sums over the sequences of one domain.
#[derive(Debug, Clone, Default)]
struct Sums {
    sequences: usize,
    /// Σ_j ‖x_j‖².
    squares: f64,
    /// Σ_j x_j.
    sum: Vec<f64>,
}

/// Sums over the sequences seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct GradientSums {
    domains: BTreeMap<DomainId, Sums>,
}

impl GradientSums {
    /// Adds one sequence's gradient, in pieces, each number multiplied by `factor`.
    pub(super) fn add<'a>(
        &mut self,
        domain: DomainId,
        factor: f64,
        pieces: impl Iterator<Item = &'a [f32]>,
    ) {
        let sums = self.domains.entry(domain).or_default();
        sums.sequences += 1;
        let mut at = 0;
        for piece in pieces {
            sums.sum.resize(sums.sum.len().max(at + piece.len()), 0.0);
            let mut squares = 0.0;
            for (sum, &x) in sums.sum[at..].iter_mut().zip(piece) {
                let x = f64::from(x) * factor;
                squares += x * x;
                *sum += x;
            }
            sums.squares += squares;
            at += piece.len();
        }
    }

    /// The same as numbers, for another rank: of each domain its number, its sequences, Σ ‖x‖²,
    /// and behind the length of Σ x that itself.
    pub(super) fn to_numbers(&self) -> Vec<f64> {
        let of_domain = |(domain, sums): (&DomainId, &Sums)| {
            let Sums { sequences, squares, sum } = sums;
            let head = [domain.0 as f64, *sequences as f64, *squares, sum.len() as f64];
            head.into_iter().chain(sum.iter().copied()).collect::<Vec<_>>()
        };
        self.domains.iter().flat_map(of_domain).collect()
    }

    /// The sums of all ranks, from the numbers of each, added up in the ranks' order.
    pub(super) fn of_ranks(ranks: &[Vec<f64>]) -> Self {
        let mut all = Self::default();
        for mut left in ranks.iter().map(Vec::as_slice) {
            while let [domain, sequences, squares, len, rest @ ..] = left {
                let (sum, behind) = rest.split_at((*len as usize).min(rest.len()));
                let sums =
                    Sums { sequences: *sequences as usize, squares: *squares, sum: sum.to_vec() };
                all.merge(Self { domains: [(DomainId(*domain as usize), sums)].into() });
                left = behind;
            }
        }
        all
    }

    /// Adds the sums of another worker.
    pub(super) fn merge(&mut self, other: Self) {
        for (domain, new) in other.domains {
            let known = self.domains.entry(domain).or_default();
            known.sequences += new.sequences;
            known.squares += new.squares;
            known.sum.resize(new.sum.len(), 0.0);
            for (known, new) in known.sum.iter_mut().zip(&new.sum) {
                *known += new;
            }
        }
    }

    /// One entry for each of the domains 0 to the largest in `domains`; `None` with no sequence.
    pub(super) fn statistics(&self, domains: &[DomainId]) -> Vec<Option<GradientStatistics>> {
        let count = domains.iter().max().map_or(0, |largest| largest.0 + 1);
        let of_domain = |domain| self.domains.get(&DomainId(domain)).map(Sums::statistics);
        (0..count).map(of_domain).collect()
    }
}

impl Sums {
    fn statistics(&self) -> GradientStatistics {
        let sum_squared = self.sum.iter().map(|x| x * x).sum();
        // Of a single sequence the sum is its gradient.
        let direction = (self.sequences == 1).then(|| Direction::of(self.sum.iter().copied()));
        GradientStatistics::from_sums(self.sequences, self.squares, sum_squared)
            .with_direction(direction)
    }
}
