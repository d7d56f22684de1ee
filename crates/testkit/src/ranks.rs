//! Ranks that are threads of the test.

use std::sync::{Arc, Barrier, Mutex, PoisonError};

use cuvee_kernels::{Collective, CollectiveError};

/// What `work` gives on each of `size` ranks, which are threads here, in the ranks' order.
///
/// # Panics
/// If a rank panics; the others then wait for ever where they want something of it, so that a test
/// which fails may have to be stopped.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let shared =
        Arc::new(Shared { barrier: Barrier::new(size), said: Mutex::new(vec![Vec::new(); size]) });
    let work = &work;
    std::thread::scope(|scope| {
        let run = |rank| {
            let rank = Thread { rank, shared: shared.clone() };
            scope.spawn(move || work(Arc::new(rank)))
        };
        let threads: Vec<_> = (0..size).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

struct Shared {
    barrier: Barrier,
    /// What each rank has said last.
    said: Mutex<Vec<Vec<u8>>>,
}

struct Thread {
    rank: usize,
    shared: Arc<Shared>,
}

impl Thread {
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let said = || self.shared.said.lock().unwrap_or_else(PoisonError::into_inner);
        said()[self.rank] = bytes.to_vec();
        self.shared.barrier.wait();
        let all = said().clone();
        self.shared.barrier.wait();
        all
    }

    fn floats(&self, values: &[f32]) -> Vec<Vec<f32>> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let number = |bytes: &[u8; 4]| f32::from_ne_bytes(*bytes);
        let numbers = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(number).collect();
        self.gather(&bytes).into_iter().map(numbers).collect()
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let all = self.floats(values);
        for (at, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|own| own[at]).sum();
        }
        Ok(())
    }

    fn reduce(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        match self.rank == root {
            true => self.all_reduce(values),
            // What the others have afterwards is nothing that may be relied on.
            false => self.all_reduce(&mut values.to_vec()).map(|()| values.fill(f32::NAN)),
        }
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        values.copy_from_slice(&self.floats(values)[root]);
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(self.gather(bytes))
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.shared.barrier.wait();
        Ok(())
    }
}
