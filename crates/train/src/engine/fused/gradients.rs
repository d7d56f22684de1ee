//! The gradients that the workers add to, and whose turn it is.
//!
//! A full gradient is as large as the model, and there may be dozens of threads: so at most
//! [`MOST`] are held. Where there are more workers, neighbours share one, in turn: micro-batch by
//! micro-batch, and within a round in the workers' order. The order of every sum so depends on the
//! number of threads and not on their timing. The shared ones are added up in their order.

use std::ops::Range;

use cuvee_kernels::Backend;

use super::layout::ParameterLayout;
use crate::model::{FusedGroup, ParameterInfo};

/// Full gradients that are held, at most.
const MOST: usize = 4;

/// Which gradient the worker at `index` of `workers` adds to.
pub(super) fn gradient_of(index: usize, workers: usize) -> usize {
    index * MOST.min(workers) / workers.max(1)
}

/// The gradients of a model, one for each parameter of `layout`; all zeros.
pub(super) fn zeros<K: Backend>(
    kernels: &K,
    list: &[ParameterInfo],
    layout: &ParameterLayout,
) -> Vec<K::Gradient> {
    let of_group = |group: &Vec<usize>| match list[group[0]].shape[..] {
        [_, columns] => {
            let rows = group.iter().map(|&place| list[place].shape[0]).sum();
            kernels.gradient(rows, columns)
        }
        _ => {
            let len = group.iter().flat_map(|&place| &list[place].shape).sum();
            kernels.gradient(1, len)
        }
    };
    layout.groups.iter().map(of_group).collect()
}

/// Begins the sums of `gradients`, one for each parameter of `layout`, in `turns`.
pub(super) fn begin<K: Backend>(
    kernels: &K,
    layout: &ParameterLayout,
    gradients: &[K::Gradient],
    turns: AllTurns,
) {
    let head = layout.once(FusedGroup::Head);
    for (index, gradient) in gradients.iter().enumerate() {
        kernels.begin_gradient(gradient, if index == head { turns.head } else { turns.once });
    }
}

/// How many turns there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AllTurns {
    /// Of a parameter which one product adds to.
    once: usize,
    /// Of the head; a tied one is the embedding too.
    head: usize,
}

/// The workers that share a gradient.
#[derive(Debug, Clone, Default)]
pub(super) struct Sharing {
    /// Sequences of each of them that has any, in the workers' order.
    sequences: Vec<usize>,
    /// Which of them this one is.
    own: usize,
}

impl Sharing {
    /// Of each of the workers with these slices of a batch.
    pub(super) fn of(slices: &[Range<usize>]) -> Vec<Self> {
        let gradient = |index: usize| gradient_of(index, slices.len());
        let busy = |index: &usize| !slices[*index].is_empty();
        let sharing = |index: usize| {
            let mates =
                || (0..slices.len()).filter(busy).filter(|&i| gradient(i) == gradient(index));
            Self {
                sequences: mates().map(|mate| slices[mate].len()).collect(),
                own: mates().filter(|&mate| mate < index).count(),
            }
        };
        (0..slices.len()).map(sharing).collect()
    }

    /// The turns of its micro-batches of up to `micro` sequences, one after the other;
    /// `head_turns` says how many the head takes for so many sequences.
    pub(super) fn turns(
        &self,
        micro: usize,
        tied: bool,
        head_turns: impl Fn(usize) -> usize,
    ) -> impl Iterator<Item = Turns> {
        let (mut once, mut head) = (0, 0);
        (0..).map(move |round| {
            // Sequences of each one's micro-batch in this round.
            let of_round = self.sequences.iter().map(|&all| {
                let micro = micro.min(all);
                all.saturating_sub(round * micro).min(micro)
            });
            let heads: Vec<usize> =
                of_round.map(|count| if count == 0 { 0 } else { head_turns(count) }).collect();
            let busy = |heads: &[usize]| heads.iter().filter(|&&turns| turns > 0).count();
            let (all, before) = (busy(&heads), busy(&heads[..self.own]));
            let of_heads: usize = heads.iter().sum();
            let embedding = if tied { head + of_heads + before } else { once + before };
            let turns =
                Turns { once: once + before, head_from: head, embedding, heads, own: self.own };
            once += all;
            head += of_heads + if tied { all } else { 0 };
            turns
        })
    }

    /// How many there are of them.
    pub(super) fn all_turns(
        &self,
        micro: usize,
        tied: bool,
        head_turns: impl Fn(usize) -> usize,
    ) -> AllTurns {
        // Of a round that nobody has, the first turn is that behind all others.
        let nobodys = |turns: &Turns| turns.heads.iter().all(|&turns| turns == 0);
        match self.turns(micro, tied, head_turns).find(nobodys) {
            Some(Turns { once, head_from, .. }) => AllTurns { once, head: head_from },
            None => unreachable!("rounds without end"),
        }
    }
}

/// The turns of one micro-batch.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// That of a parameter which one product adds to.
    once: usize,
    /// The first of the round's turns at the head.
    head_from: usize,
    /// The embedding's; behind the round's turns at the head where it is tied.
    embedding: usize,
    /// Turns at the head of each worker in this round.
    heads: Vec<usize>,
    own: usize,
}

impl Turns {
    /// The only micro-batch of a worker with a gradient to itself.
    pub(super) fn alone(tied: bool, head_turns: usize) -> Self {
        let embedding = if tied { head_turns } else { 0 };
        Self { once: 0, head_from: 0, embedding, heads: vec![head_turns], own: 0 }
    }

    /// How many there are.
    pub(super) fn all(&self) -> AllTurns {
        let heads: usize = self.heads.iter().sum();
        let embedding = usize::from(self.embedding > 0);
        AllTurns { once: 1, head: heads + embedding }
    }

    /// That of the parameters of `group`; the head has several.
    pub(super) fn of(&self, group: FusedGroup) -> usize {
        if group == FusedGroup::Embedding { self.embedding } else { self.once }
    }

    /// That of the head's part `part`: part by part, and of each part worker by worker, so that
    /// nobody waits for all of another's.
    pub(super) fn head(&self, part: usize) -> usize {
        let earlier: usize = self.heads.iter().map(|&turns| turns.min(part)).sum();
        let before = self.heads[..self.own].iter().filter(|&&turns| turns > part).count();
        self.head_from + earlier + before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every turn at the head and at the embedding of workers with these slices, micro-batch by
    /// micro-batch.
    fn all_turns(
        lengths: &[usize],
        micro: usize,
        tied: bool,
    ) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let (mut once, mut head, mut embedding) = (Vec::new(), Vec::new(), Vec::new());
        for own in 0..lengths.len() {
            let sharing = Sharing { sequences: lengths.to_vec(), own };
            let rounds = lengths[own].div_ceil(micro.min(lengths[own]));
            // Two sequences fit into one of the head's parts.
            let turns = sharing.turns(micro, tied, |count| count.div_ceil(2));
            for (round, turns) in turns.take(rounds).enumerate() {
                let count = (lengths[own] - round * micro.min(lengths[own])).min(micro);
                once.push(turns.of(FusedGroup::Qkv));
                head.extend((0..count.div_ceil(2)).map(|part| turns.head(part)));
                embedding.push(turns.of(FusedGroup::Embedding));
            }
        }
        once.sort_unstable();
        head.sort_unstable();
        embedding.sort_unstable();
        (once, head, embedding)
    }

    #[test]
    fn every_turn_is_somebodys_and_nobodys_twice() {
        for lengths in [&[7, 7, 6][..], &[1], &[5, 4, 4, 4, 3], &[3, 2]] {
            for (micro, tied) in [(1, true), (3, true), (4, false), (9, true), (2, false)] {
                let (once, mut head, embedding) = all_turns(lengths, micro, tied);
                let consecutive = |turns: &[usize]| turns.iter().copied().eq(0..turns.len());
                assert!(consecutive(&once), "{lengths:?} {micro}: {once:?}");
                if tied {
                    head.extend(&embedding);
                    head.sort_unstable();
                } else {
                    assert_eq!(embedding, once);
                }
                assert!(consecutive(&head), "{lengths:?} {micro} {tied}: {head:?}");
                let sharing = Sharing { sequences: lengths.to_vec(), own: 0 };
                let all = sharing.all_turns(micro, tied, |count| count.div_ceil(2));
                assert_eq!(all, AllTurns { once: once.len(), head: head.len() });
            }
        }
    }

    #[test]
    fn few_workers_share_nothing_and_many_share_four() {
        let gradients = |workers| -> Vec<usize> {
            (0..workers).map(|index| gradient_of(index, workers)).collect()
        };
        assert_eq!(gradients(1), [0]);
        assert_eq!(gradients(4), [0, 1, 2, 3]);
        assert_eq!(gradients(6), [0, 0, 1, 2, 2, 3]);
        assert_eq!(gradients(16).chunks(4).map(|four| four[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
        // Those without a sequence are not waited for.
        let sharing = Sharing::of(&[0..1, 1..1, 1..2, 2..4, 4..4, 4..5, 5..6, 6..7]);
        assert_eq!((sharing[0].sequences.as_slice(), sharing[0].own), (&[1][..], 0));
        assert_eq!((sharing[3].sequences.as_slice(), sharing[3].own), (&[1, 2][..], 1));
        assert_eq!((sharing[5].sequences.as_slice(), sharing[5].own), (&[1][..], 0));
    }
}
