//! Ranks that are threads of the test.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cuvee_kernels::{Collective, CollectiveError};

/// What `work` gives on each of `size` ranks, which are threads here, in the ranks' order.
///
/// # Panics
/// If a rank panics; what the others want of it then is an error.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let table = Table { said: vec![Vec::new(); size], arrived: 0, turn: 0, gone: false };
    let shared = Arc::new(Shared { table: Mutex::new(table), turned: Condvar::new() });
    let work = &work;
    std::thread::scope(|scope| {
        let run = |rank| {
            let shared = shared.clone();
            scope.spawn(move || {
                let _leaving = Leaving(&shared);
                work(Arc::new(Thread { rank, size, shared: shared.clone() }))
            })
        };
        let threads: Vec<_> = (0..size).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

struct Shared {
    table: Mutex<Table>,
    turned: Condvar,
}

struct Table {
    /// What each rank has said last.
    said: Vec<Vec<u8>>,
    /// Ranks that wait for the others.
    arrived: usize,
    /// How often all have come.
    turn: usize,
    /// Whether a rank has panicked.
    gone: bool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all have come here.
    fn meet(&self) -> Result<(), CollectiveError> {
        let mut table = self.table();
        let turn = table.turn;
        table.arrived += 1;
        if table.arrived == table.said.len() {
            (table.arrived, table.turn) = (0, turn + 1);
            self.turned.notify_all();
        }
        while table.turn == turn && !table.gone {
            table = self.turned.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        match table.turn == turn {
            true => {
                Err(CollectiveError { message: "a rank is gone".into(), hint: "see it".into() })
            }
            false => Ok(()),
        }
    }
}

/// Tells the others of a rank that panics.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.table().gone = true;
            self.0.turned.notify_all();
        }
    }
}

struct Thread {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

impl Thread {
    fn floats(&self, values: &[f32]) -> Result<Vec<Vec<f32>>, CollectiveError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let number = |bytes: &[u8; 4]| f32::from_ne_bytes(*bytes);
        let numbers = |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(number).collect();
        Ok(self.all_gather(&bytes)?.into_iter().map(numbers).collect())
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        let all = self.floats(values)?;
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
        values.copy_from_slice(&self.floats(values)?[root]);
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.shared.table().said[self.rank] = bytes.to_vec();
        self.shared.meet()?;
        let all = self.shared.table().said.clone();
        self.shared.meet()?;
        Ok(all)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.shared.meet()
    }
}
