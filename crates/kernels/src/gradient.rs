//! The gradient of one parameter, which several workers add to, each in its turn.
//!
//! It is held in blocks of rows. A worker that fills one block leaves the others to those before
//! and behind it, so that workers that come at the same time wait for a block and not for each
//! other's whole products. The turns are numbered by the caller, so that the sum is taken in the
//! same order however the threads run.
//!
//! Whoever wants the whole sum while others still compute waits block by block until all turns are
//! over ([`Gradient::finished`]).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::buffer::Buffer;

/// A block's rows are a multiple of this: whole strips of a product, and whole parts of a head.
pub(crate) const BLOCK_ROWS: usize = 512;

/// Elements that are added up and updated at a time. A block is a multiple of it, so that where
/// the blocks end changes no sum of squares.
pub(crate) const CHUNK: usize = 1 << 14;

/// How long a worker waits before it looks whether another one has failed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The gradient of a parameter `[rows, columns]`.
pub struct Gradient {
    blocks: Vec<Block>,
    rows: usize,
    columns: usize,
    block_rows: usize,
    /// Turns of the sum.
    turns: AtomicUsize,
    /// Set once a worker has panicked: nobody waits for its turn any more.
    failed: AtomicBool,
}

struct Block {
    turned: Mutex<Turned>,
    next: Condvar,
}

struct Turned {
    /// Turns that are over.
    turns: usize,
    values: Buffer<f32>,
}

impl Gradient {
    /// `[rows, columns]` of zeros that nobody has added to.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let block_rows = block_rows(columns).min(rows.max(1));
        let block = |first: usize| {
            let len = (rows - first).min(block_rows) * columns;
            let turned = Turned { turns: 0, values: Buffer::zeros(len) };
            Block { turned: Mutex::new(turned), next: Condvar::new() }
        };
        let blocks = (0..rows).step_by(block_rows).map(block).collect();
        let (turns, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { blocks, rows, columns, block_rows, turns, failed }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a sum of `turns` turns: the next one is 0, which replaces what is there. That of none
    /// is zero.
    pub fn begin(&self, turns: usize) {
        self.turns.store(turns, Ordering::Relaxed);
        self.failed.store(false, Ordering::Relaxed);
        for block in &self.blocks {
            let mut turned = held(&block.turned);
            turned.turns = 0;
            if turns == 0 {
                turned.values.fill(0.0);
            }
        }
    }

    /// Says that a worker with turns to come has failed: nobody waits for it any more.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Hands every block to `work` in turn `turn`: its rows, its values `[rows, columns]`, and
    /// whether they are to be added to. Waits for the turns before.
    pub fn in_turn(&self, turn: usize, mut work: impl FnMut(Range<usize>, &mut [f32], bool)) {
        let _guard = FailureGuard(&self.failed);
        for (index, block) in self.blocks.iter().enumerate() {
            let mut turned = self.wait(block, turn);
            let first = index * self.block_rows;
            let rows = first..self.rows.min(first + self.block_rows);
            work(rows, &mut turned.values, turn > 0);
            turned.turns = turn + 1;
            drop(turned);
            block.next.notify_all();
        }
    }

    /// Blocks of rows that it is held in.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Waits until all turns at block `index` are over, and hands out its values. `None` once a
    /// worker has failed.
    pub(crate) fn finished<T>(
        &self,
        index: usize,
        work: impl FnOnce(&mut [f32]) -> T,
    ) -> Option<T> {
        let turns = self.turns.load(Ordering::Relaxed);
        let mut turned = self.wait(&self.blocks[index], turns);
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        Some(work(&mut turned.values))
    }

    /// A block, once `turns` turns at it are over or a worker has failed.
    fn wait<'a>(&self, block: &'a Block, turns: usize) -> MutexGuard<'a, Turned> {
        let mut turned = held(&block.turned);
        while turned.turns < turns && !self.failed.load(Ordering::Relaxed) {
            let waited = block.next.wait_timeout(turned, LOOK_EVERY);
            turned = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        turned
    }

    /// Elements of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The elements of `range`, row by row.
    pub fn read(&self, range: Range<usize>) -> Vec<f32> {
        let mut values = Vec::with_capacity(range.len());
        self.with_range(range, |_, piece| values.extend_from_slice(piece));
        values
    }

    /// The elements of `range` to read, piece by piece, each with its place in the range. Of a
    /// range of whole rows each piece is whole rows.
    pub(crate) fn with_range(&self, range: Range<usize>, mut work: impl FnMut(usize, &[f32])) {
        let length = self.block_rows * self.columns;
        for (index, block) in self.blocks.iter().enumerate() {
            let turned = held(&block.turned);
            let (start, end) = (index * length, index * length + turned.values.len());
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                work(from - range.start, &turned.values[from - start..to - start]);
            }
        }
    }

    /// Its blocks, one after the other; nobody adds to them meanwhile.
    pub(crate) fn blocks_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.blocks.iter_mut().map(|block| {
            let turned = block.turned.get_mut().unwrap_or_else(PoisonError::into_inner);
            &mut *turned.values
        })
    }

    /// Its blocks to read, one after the other.
    pub(crate) fn with_blocks(&self, mut work: impl FnMut(&[f32])) {
        self.blocks.iter().for_each(|block| work(&held(&block.turned).values));
    }
}

/// Marks a gradient whose worker panics, so that others do not wait for it for ever.
struct FailureGuard<'a>(&'a AtomicBool);

impl Drop for FailureGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A poisoned lock means that a worker has panicked, which ends the step anyway.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fewest rows, in [`BLOCK_ROWS`], whose elements fill whole [`CHUNK`]s.
fn block_rows(columns: usize) -> usize {
    // 2^s rows of `columns` = odd · 2^t elements fill whole chunks of 2^14 once s + t ≥ 14.
    let twos = columns.max(1).trailing_zeros().min(CHUNK.ilog2());
    BLOCK_ROWS.max(CHUNK >> twos)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_are_whole_chunks_and_cover_every_row_once() {
        for columns in [1, 3, 64, 96, 100, 768, 999, 1 << 15] {
            let rows = block_rows(columns);
            assert!(rows.is_multiple_of(BLOCK_ROWS), "{columns}");
            assert!((rows * columns).is_multiple_of(CHUNK), "{columns}");
        }
        let gradient = Gradient::zeros(1100, 64);
        let mut seen = Vec::new();
        gradient.in_turn(0, |rows, values, add| {
            assert!(!add && values.len() == rows.len() * 64);
            values.iter_mut().zip(rows.start * 64..).for_each(|(value, at)| *value = at as f32);
            seen.extend(rows);
        });
        assert!(seen.iter().copied().eq(0..1100));
        assert_eq!(gradient.read(64 * 511..64 * 513).len(), 128);
        assert!(gradient.read(0..1100 * 64).iter().zip(0..).all(|(x, at)| *x == at as f32));
    }

    #[test]
    fn the_order_of_the_sum_is_that_of_the_turns_and_not_of_the_threads() {
        // In f32 the order of these tells: (1e8 + 1) − 1e8 is 0, (1e8 − 1e8) + 1 is 1.
        let terms = [1e8f32, 1.0, -1e8, 1.0, 0.5, 3e7, 0.25, -3e7];
        let expected = terms.iter().fold(0.0, |sum, term| sum + term);
        for _ in 0..20 {
            let gradient = Gradient::zeros(2000, 48);
            std::thread::scope(|scope| {
                for (turn, term) in terms.iter().enumerate().rev() {
                    let gradient = &gradient;
                    scope.spawn(move || {
                        gradient.in_turn(turn, |_, values, add| {
                            values.iter_mut().for_each(|value| {
                                *value = if add { *value + term } else { *term };
                            });
                        });
                    });
                }
            });
            assert!(gradient.read(0..gradient.len()).iter().all(|value| *value == expected));
        }
    }

    #[test]
    fn a_failure_is_forgotten_when_the_next_sum_begins() {
        let gradient = Gradient::zeros(4, 4);
        gradient.fail();
        gradient.in_turn(3, |_, values, _| values.fill(7.0));
        gradient.begin(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gradient.in_turn(1, |_, values, add| {
                    assert!(add);
                    values.iter_mut().for_each(|value| *value += 1.0);
                });
            });
            gradient.in_turn(0, |_, values, _| values.fill(2.0));
        });
        assert_eq!(gradient.read(0..16), vec![3.0; 16]);
    }

    #[test]
    fn whoever_wants_the_sum_gets_it_after_the_last_turn_and_zeros_of_none() {
        let gradient = Gradient::zeros(2000, 48);
        gradient.begin(3);
        std::thread::scope(|scope| {
            let sums = scope.spawn(|| {
                let sum = |index| gradient.finished(index, |values| values.to_vec());
                (0..gradient.blocks()).filter_map(sum).flatten().collect::<Vec<_>>()
            });
            for turn in (0..3).rev() {
                let gradient = &gradient;
                scope.spawn(move || {
                    gradient.in_turn(turn, |_, values, add| {
                        values.iter_mut().for_each(|value| *value += f32::from(add));
                    });
                });
            }
            assert_eq!(sums.join().unwrap(), vec![2.0; 2000 * 48]);
        });
        gradient.begin(0);
        assert_eq!(gradient.finished(0, |values| values[0]), Some(0.0));
        gradient.begin(1);
        gradient.fail();
        assert_eq!(gradient.finished(0, |values| values[0]), None);
    }

    #[test]
    fn nobody_waits_for_a_worker_that_has_failed() {
        let gradient = Gradient::zeros(4, 4);
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| gradient.in_turn(0, |_, _, _| panic!("on purpose")));
            let waiting = scope.spawn(|| gradient.in_turn(1, |_, _, _| ()));
            assert!(failing.join().is_err());
            assert!(waiting.join().is_ok());
        });
    }
}
