//! Work in order on many threads: one reads, several work, and what they made arrives in the order
//! it was read.
//!
//! In: a reader that pushes tasks, what to do with each, and who takes the results. Out: the taker
//! has seen the results of all tasks before the first that failed, in order, whatever the number of
//! threads. Memory: what is on its way, which is bounded in bytes; a task larger than the bound
//! travels alone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use crate::error::{DataError, Result};

/// Bytes on their way: this much for the reader, and this much more for each worker.
const BYTES_ON_THE_WAY: usize = 3 << 20;
/// Tasks on their way at most, so that many small ones stay in bounds too.
const MOST_TASKS: usize = 256;

/// Something to work on, and its size in bytes.
pub(crate) struct Task<T> {
    pub(crate) content: T,
    pub(crate) bytes: usize,
}

/// What the reader pushes tasks into.
pub(crate) struct Push<'a, T> {
    budget: &'a Budget,
    tasks: Sender<(u64, Task<T>)>,
    number: u64,
}

impl<T> Push<'_, T> {
    /// Hands on a task as soon as there is room. Whether more are wanted.
    pub(crate) fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        let wanted = self.budget.acquire(task.bytes);
        if wanted.is_continue() {
            // The receiver outlives the reader.
            let _ = self.tasks.send((self.number, task));
            self.number += 1;
        }
        wanted
    }

    /// Waits until everything so far has been taken. Whether more are wanted.
    pub(crate) fn settle(&mut self) -> ControlFlow<()> {
        self.budget.settle()
    }
}

/// Runs it all: `read` in a thread of its own, what `worker` makes in `workers` threads, `take` in
/// this one.
///
/// `take` may end everything early with `Break`.
///
/// # Errors
/// The first error of `take` or, at its place in the order, of a worker or the reader; the system
/// makes no thread.
pub(crate) fn run<T: Send, R: Send, W: FnMut(T) -> Result<R>>(
    workers: usize,
    read: impl FnOnce(&mut Push<'_, T>) -> Result<()> + Send,
    worker: impl Fn() -> W + Sync,
    mut take: impl FnMut(R) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let budget = Budget::new(BYTES_ON_THE_WAY * (workers + 1));
    let (send_task, tasks) = channel::<(u64, Task<T>)>();
    let tasks = Mutex::new(tasks);
    let (send_result, results) = channel::<(u64, usize, Result<R>)>();
    let (budget, tasks, worker) = (&budget, &tasks, &worker);
    std::thread::scope(|scope| {
        let _stop = StopOnPanic(budget);
        let refused = |source| {
            budget.stop();
            DataError::Threads { source }
        };
        let reader = move || {
            let _stop = StopOnPanic(budget);
            read(&mut Push { budget, tasks: send_task, number: 0 })
        };
        let reader = Builder::new().spawn_scoped(scope, reader).map_err(refused)?;
        let mut working = 0;
        for _ in 0..workers {
            let send_result = send_result.clone();
            let work = move || {
                let _stop = StopOnPanic(budget);
                let mut work = worker();
                while let Some((number, Task { content, bytes })) = next(tasks) {
                    // After the end, tasks are only taken off the reader's hands.
                    if !budget.stopped()
                        && send_result.send((number, bytes, work(content))).is_err()
                    {
                        budget.stop();
                    }
                }
            };
            match Builder::new().spawn_scoped(scope, work) {
                Ok(_) => working += 1,
                // Fewer do the same work.
                Err(_) if working > 0 => break,
                Err(error) => return Err(refused(error)),
            }
        }
        drop(send_result);
        let taken = take_in_order(&results, budget, &mut take);
        budget.stop();
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match taken? {
            ControlFlow::Break(()) => Ok(()),
            ControlFlow::Continue(()) => read,
        }
    })
}

fn next<T>(tasks: &Mutex<Receiver<(u64, Task<T>)>>) -> Option<(u64, Task<T>)> {
    lock(tasks).recv().ok()
}

fn take_in_order<R>(
    results: &Receiver<(u64, usize, Result<R>)>,
    budget: &Budget,
    take: &mut impl FnMut(R) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut early = BTreeMap::new();
    let mut wanted = 0;
    for (number, bytes, result) in results {
        early.insert(number, (bytes, result));
        while let Some((bytes, result)) = early.remove(&wanted) {
            wanted += 1;
            if take(result?)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            budget.release(bytes);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// What may be on its way at once.
struct Budget {
    bound: usize,
    state: Mutex<OnTheWay>,
    changed: Condvar,
}

#[derive(Default)]
struct OnTheWay {
    bytes: usize,
    tasks: usize,
    stopped: bool,
}

impl Budget {
    fn new(bound: usize) -> Budget {
        Budget { bound, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for room; `Break` once it is over.
    fn acquire(&self, bytes: usize) -> ControlFlow<()> {
        let mut state = lock(&self.state);
        while !state.stopped
            && state.tasks > 0
            && (state.bytes + bytes > self.bound || state.tasks >= MOST_TASKS)
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return ControlFlow::Break(());
        }
        state.bytes += bytes;
        state.tasks += 1;
        ControlFlow::Continue(())
    }

    /// Waits until nothing is on its way; `Break` once it is over.
    fn settle(&self) -> ControlFlow<()> {
        let mut state = lock(&self.state);
        while !state.stopped && state.tasks > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn release(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.bytes -= bytes;
        state.tasks -= 1;
        self.changed.notify_one();
    }

    fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        lock(&self.state).stopped
    }
}

/// A thread that panics ends the others, so that the panic comes out and nobody waits for ever.
struct StopOnPanic<'a>(&'a Budget);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Whoever panicked has left a whole number behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Reads 0, 1, 2, … below `count`, each of a size, and fails then if `fails`.
    fn read(
        count: u64,
        size: usize,
        fails: bool,
    ) -> impl FnOnce(&mut Push<'_, u64>) -> Result<()> + Send {
        move |push| {
            for job in 0..count {
                if push.push(Task { content: job, bytes: size }).is_break() {
                    return Ok(());
                }
            }
            if fails { Err(DataError::Interrupted) } else { Ok(()) }
        }
    }

    proptest! {
        #[test]
        fn results_arrive_in_order_whoever_made_them(workers in 1usize..6, count in 0u64..300, size in prop::sample::select(vec![0usize, 10, 1 << 20, 64 << 20])) {
            let mut seen = Vec::new();
            run(workers, read(count, size, false), || |job: u64| Ok(job * 2), |result| {
                seen.push(result);
                Ok(ControlFlow::Continue(()))
            }).unwrap();
            prop_assert_eq!(seen, (0..count).map(|job| job * 2).collect::<Vec<_>>());
        }

        #[test]
        fn everything_before_an_error_is_taken_and_nothing_after(workers in 1usize..6, bad in 0u64..200) {
            let mut seen = 0;
            let work = |job: u64| if job >= bad { Err(DataError::DuplicateDomain { domain: job.to_string() }) } else { Ok(job) };
            let error = run(workers, read(300, 10, false), || work, |job| {
                assert_eq!(job, seen);
                seen += 1;
                Ok(ControlFlow::Continue(()))
            }).unwrap_err();
            prop_assert_eq!(seen, bad);
            prop_assert!(error.to_string().contains(&format!("`{bad}`")), "{}", error);
        }
    }

    #[test]
    fn a_reader_that_fails_does_so_after_what_it_read() {
        let mut seen = 0;
        let error = run(
            2,
            read(50, 10, true),
            || Ok,
            |_| {
                seen += 1;
                Ok(ControlFlow::Continue(()))
            },
        );
        assert!(matches!(error, Err(DataError::Interrupted)));
        assert_eq!(seen, 50);
    }

    #[test]
    fn the_taker_can_end_it() {
        let worked = AtomicUsize::new(0);
        let work = |job: u64| {
            worked.fetch_add(1, Ordering::Relaxed);
            Ok(job)
        };
        let stop_at_ten =
            |job| Ok(if job == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        // What would come later, an error too, never comes.
        run(3, read(1_000_000, 1 << 20, true), || work, stop_at_ten).unwrap();
        assert!(worked.into_inner() < 100);
    }

    #[test]
    fn a_reader_that_settles_hears_of_the_end_before_it_goes_on() {
        let read_so_far = AtomicUsize::new(0);
        let read = |push: &mut Push<'_, u64>| {
            for job in 0..100 {
                if push.settle().is_break() {
                    break;
                }
                read_so_far.fetch_add(1, Ordering::Relaxed);
                let _ = push.push(Task { content: job, bytes: 1 });
            }
            Ok(())
        };
        let stop_at_ten =
            |job| Ok(if job == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        run(2, read, || Ok, stop_at_ten).unwrap();
        assert_eq!(read_so_far.into_inner(), 11);
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let (read_so_far, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counted = |push: &mut Push<'_, u64>| {
            for job in 0..200 {
                read_so_far.fetch_add(1, Ordering::SeqCst);
                if push.push(Task { content: job, bytes: 1 << 20 }).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let mut taken = 0;
        run(
            2,
            counted,
            || Ok,
            |_| {
                most.fetch_max(read_so_far.load(Ordering::SeqCst) - taken, Ordering::SeqCst);
                taken += 1;
                Ok(ControlFlow::Continue(()))
            },
        )
        .unwrap();
        // 3 MiB for the reader and each of two workers, and the job that the reader waits with.
        assert!(most.into_inner() <= 3 * 3 + 1);
    }
}
