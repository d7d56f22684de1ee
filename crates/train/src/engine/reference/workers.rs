//! Micro-batches side by side, one a thread.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use candle_core::utils::barrier_pool;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Result, TrainError};

/// Pools of one thread, on each of which a micro-batch runs; none where they run one after the
/// other. A pool of its own keeps a micro-batch's matrix products, which Candle hands to the
/// calling pool, on that one thread too.
pub(super) struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// No workers: one micro-batch after the other.
    pub(super) fn none() -> Self {
        Self { pools: Vec::new() }
    }

    /// `count` workers if Candle keeps to the thread it is called on, else none.
    ///
    /// # Errors
    /// [`TrainError::Tensor`] if the system does not start the threads.
    pub(super) fn start(count: usize) -> Result<Self> {
        if barrier_pool().n_workers() > 0 {
            return Ok(Self::none());
        }
        Self::always(count)
    }

    /// `count` workers.
    ///
    /// # Errors
    /// As [`Workers::start`].
    pub(super) fn always(count: usize) -> Result<Self> {
        let start = |_| {
            let pool = ThreadPoolBuilder::new().num_threads(1).build();
            pool.map_err(|error| TrainError::Tensor(candle_core::Error::wrap(error)))
        };
        Ok(Self { pools: (0..count).map(start).collect::<Result<_>>()? })
    }

    /// Items that are worked on at once.
    pub(super) fn at_once(&self) -> usize {
        self.pools.len().max(1)
    }

    /// `work` on each of `items`, at most [`Workers::at_once`] of them; the results in the items'
    /// order.
    ///
    /// # Errors
    /// The first of `work`'s.
    pub(super) fn parallel<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        if self.pools.is_empty() {
            return items.iter().map(work).collect();
        }
        let work = &work;
        thread::scope(|scope| {
            let start = |(item, pool)| -> std::result::Result<ScopedJoinHandle<_>, Box<Result<R>>> {
                let pool: &ThreadPool = pool;
                let install = move || pool.install(|| work(item));
                // Where there are no more threads, this one waits.
                thread::Builder::new().spawn_scoped(scope, install).map_err(|_| Box::new(install()))
            };
            let running: Vec<_> = items.iter().zip(&self.pools).map(start).collect();
            let wait = |running: std::result::Result<ScopedJoinHandle<_>, Box<_>>| match running {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(done) => *done,
            };
            running.into_iter().map(wait).collect()
        })
    }
}
