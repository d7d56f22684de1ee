//! The ranks that a batch is divided among.
//!
//! Each rank computes a slice of whole sequences, in the ranks' order. A thread beside the workers
//! sums the gradients over the ranks, parameter by parameter in the order in which backward is done
//! with them, so that most of it takes no time of its own. Losses and statistics then go from every
//! rank to every other. So the bits of a result depend on the number of ranks and of threads, and
//! every rank has the same.
//!
//! Where the ranks share out the optimizer's state (ZeRO stage 1; Rajbhandari et al., 2020), each
//! parameter has an owner: its gradient is summed there alone, which holds the state, makes the
//! update, and hands the new values on.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuvee_kernels::{Alone, Backend, Collective};

use crate::engine::SummingTime;
use crate::error::Result;

/// The ranks, as one of them sees them.
pub(super) struct Ranks {
    collective: Arc<dyn Collective>,
    /// Of each parameter the rank that keeps its optimizer's state, where they share it out.
    owners: Option<Vec<usize>>,
    time: SummingTime,
}

impl Ranks {
    /// A process of its own.
    pub(super) fn alone() -> Self {
        Self { collective: Arc::new(Alone), owners: None, time: SummingTime::default() }
    }

    /// These ranks; with `lengths`, the parameters' elements, sharing out their optimizer's state
    /// as evenly as whole parameters allow.
    pub(super) fn of(collective: Arc<dyn Collective>, lengths: Option<Vec<usize>>) -> Self {
        let owners = lengths.map(|lengths| share_out(&lengths, collective.size()));
        Self { collective, owners, time: SummingTime::default() }
    }

    /// Whether there are several.
    pub(super) fn several(&self) -> bool {
        self.collective.size() > 1
    }

    /// The part of `sequences` that this rank computes.
    pub(super) fn slice(&self, sequences: &Range<usize>) -> Range<usize> {
        part(sequences, self.collective.rank(), self.collective.size())
    }

    /// The owner of the parameter at `index`, where parameters have one.
    pub(super) fn owner(&self, index: usize) -> Option<usize> {
        self.owners.as_ref().map(|owners| owners[index])
    }

    /// Whether this rank updates the parameter at `index`.
    pub(super) fn updates(&self, index: usize) -> bool {
        self.owner(index).is_none_or(|owner| owner == self.collective.rank())
    }

    /// The numbers of every rank, in the ranks' order.
    ///
    /// # Errors
    /// [`TrainError::Ranks`](crate::TrainError::Ranks), as of all of these.
    pub(super) fn gather(&self, own: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        if !self.several() {
            return Ok(vec![own]);
        }
        let numbers = |bytes: Vec<u8>| {
            bytes.as_chunks().0.iter().map(|number| f64::from_ne_bytes(*number)).collect()
        };
        let all = self.collective.all_gather(bytemuck::cast_slice(&own))?;
        Ok(all.into_iter().map(numbers).collect())
    }

    /// Runs `compute` and beside it, where there are several ranks, the sums over them of
    /// `gradients`: a parameter's index and its gradients on this rank. The sum goes to the
    /// parameter's owner, or to all ranks if it has none or if `whole`.
    pub(super) fn sum_beside<'a, K: Backend<Gradient: 'a>>(
        &mut self,
        kernels: &K,
        gradients: impl Iterator<Item = (usize, Vec<&'a K::Gradient>)> + Send,
        whole: bool,
        compute: impl FnOnce(),
    ) -> Result<()> {
        if !self.several() {
            compute();
            return Ok(());
        }
        let ranks = &*self;
        let summing = || {
            let mut time = Duration::ZERO;
            for (index, gradients) in gradients {
                let owner = ranks.owner(index).filter(|_| !whole);
                time += kernels.sum_over_ranks(&gradients, owner, &*ranks.collective)?;
            }
            Ok(time)
        };
        let (summed, waited) = std::thread::scope(|scope| {
            let summing = scope.spawn(summing);
            compute();
            let computed = Instant::now();
            let summed = summing.join();
            (summed, computed.elapsed())
        });
        let summed: Result<Duration> =
            summed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let SummingTime { all, alone } = &mut self.time;
        *all += summed?.as_secs_f64();
        *alone += waited.as_secs_f64();
        Ok(())
    }

    /// The sum of what the ranks have of a square that each has a part of, if they do.
    pub(super) fn total(&self, own: f64) -> Result<f64> {
        match self.owners {
            Some(_) => Ok(self.gather(vec![own])?.iter().flatten().sum()),
            None => Ok(own),
        }
    }

    /// Hands the values that this rank has updated on to the others, and takes theirs.
    pub(super) fn exchange<'a, K: Backend>(
        &self,
        kernels: &K,
        values: impl Iterator<Item = &'a mut K::Floats>,
    ) -> Result<()> {
        for (index, values) in values.enumerate() {
            if let Some(owner) = self.owner(index) {
                kernels.broadcast(values, owner, &*self.collective)?;
            }
        }
        Ok(())
    }

    /// `data` of the parameter at `index` as its owner has it.
    pub(super) fn as_owner_has(&self, index: usize, mut data: Vec<f32>) -> Result<Vec<f32>> {
        if let Some(owner) = self.owner(index) {
            self.collective.broadcast(owner, &mut data)?;
        }
        Ok(data)
    }

    /// How long the sums over the ranks have taken.
    pub(super) fn time(&self) -> Option<SummingTime> {
        self.several().then_some(self.time)
    }
}

/// The part at `index` when `sequences` are cut into `count`, as evenly as can be, in order.
pub(super) fn part(sequences: &Range<usize>, index: usize, count: usize) -> Range<usize> {
    let cut = |index: usize| sequences.start + index * sequences.len() / count;
    cut(index)..cut(index + 1)
}

/// An owner for each parameter of these lengths: the longest first, each to the rank with the least
/// so far.
fn share_out(lengths: &[usize], ranks: usize) -> Vec<usize> {
    let mut longest: Vec<usize> = (0..lengths.len()).collect();
    longest.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let (mut held, mut owners) = (vec![0; ranks], vec![0; lengths.len()]);
    for index in longest {
        let least = (0..ranks).min_by_key(|&rank| held[rank]).unwrap_or(0);
        owners[index] = least;
        held[least] += lengths[index];
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_shared_out_evenly_and_each_once() {
        let lengths = [1, 700, 300, 300, 2, 300, 300, 1];
        let owners = share_out(&lengths, 3);
        let held = |rank| -> usize {
            let own = lengths.iter().zip(&owners).filter(|(_, owner)| **owner == rank);
            own.map(|(length, _)| length).sum()
        };
        assert_eq!(
            [held(0), held(1), held(2)].iter().sum::<usize>(),
            lengths.iter().sum::<usize>()
        );
        assert!((0..3).all(|rank| (600..=704).contains(&held(rank))), "{owners:?}");
        assert_eq!(share_out(&lengths, 1), [0; 8]);
    }
}
