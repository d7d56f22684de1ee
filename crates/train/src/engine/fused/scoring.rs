//! Sequences of any length on their way to the workers: groups of about one length, so that little
//! is padded, which workers take one after another. Which worker takes which is a matter of time;
//! no bit of a result depends on it, or on what else is in a group.

use std::sync::atomic::{AtomicUsize, Ordering};

use cuvee_kernels::Backend;

use super::decoder::{Decoder, Work};
use super::worker::WorkerSlice;
use crate::engine::{Scored, by_length};

/// The sequences of a call, and the groups that are left of them.
pub(super) struct Groups<'a> {
    sequences: &'a [Scored<'a>],
    /// Places of sequences, the longest first.
    groups: Vec<Vec<usize>>,
    next: AtomicUsize,
    /// Rows of the largest group.
    rows: usize,
}

impl<'a> Groups<'a> {
    /// Groups of at most `most` rows, or of one sequence.
    pub(super) fn of(sequences: &'a [Scored<'a>], most: usize) -> Self {
        let groups = by_length(sequences, most);
        let rows = |group: &Vec<usize>| group.len() * sequences[group[0]].inputs().max(1);
        let rows = groups.iter().map(rows).max().unwrap_or(0);
        Self { sequences, groups, next: AtomicUsize::new(0), rows }
    }
}

impl<K: Backend> WorkerSlice<K> {
    /// Scores groups as long as there are any; the place of each sequence with its
    /// log-probabilities.
    pub(super) fn score(
        &mut self,
        decoder: Decoder<'_, K>,
        groups: &Groups<'_>,
    ) -> Vec<(usize, Vec<f32>)> {
        let mut scores = Vec::new();
        while let Some(group) = groups.groups.get(groups.next.fetch_add(1, Ordering::Relaxed)) {
            let fits = |work: &Work<K>| work.rows() >= groups.rows;
            let work = self.scoring.take().filter(fits).unwrap_or_else(|| {
                Work::new(decoder.kernels, decoder.model, groups.rows, groups.rows, false)
            });
            let work = self.scoring.insert(work);
            let sequences: Vec<Scored<'_>> =
                group.iter().map(|&place| groups.sequences[place]).collect();
            let all = decoder.log_probabilities(&sequences, work);
            let mut left = &all[..];
            for (&place, sequence) in group.iter().zip(&sequences) {
                let (own, rest) = left.split_at(sequence.scored);
                scores.push((place, own.to_vec()));
                left = rest;
            }
        }
        scores
    }
}
