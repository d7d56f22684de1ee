//! The calls of the MPI library: its errors returned, no two at a time, and no buffer given up that
//! it may still write to.
//!
//! The safe interface of the crate `mpi` looks at no return code, and ends the process where an
//! operation on borrowed memory is given up. A rank that waits for one that is gone must do so.

use std::mem::{self, ManuallyDrop};
use std::os::raw::{c_char, c_int};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cuvee_kernels::CollectiveError;
use mpi::environment::{Universe, initialize_with_threading, library_version};
use mpi::topology::SimpleCommunicator;
use mpi::traits::Communicator;
use mpi::{Threading, ffi};

/// The library, from its beginning to its end. It is called by one thread at a time.
pub(crate) struct Library {
    state: Mutex<State>,
    rank: usize,
    size: usize,
}

enum State {
    Open(ManuallyDrop<Universe>),
    /// An operation failed or was given up. Nothing may be called but the abortion: the others'
    /// calls no longer match ours.
    Failed,
    Ended,
}

/// What one piece is sent from, and what it is received in: memory of its own, since an operation
/// that was given up can never be told to leave the caller's alone.
#[derive(Default)]
pub(crate) struct Buffers<T> {
    pub from: Vec<T>,
    pub to: Vec<T>,
}

/// What is done with the values of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `to` of every rank ← the sum of `from`.
    AllReduce,
    /// `to` of one rank ← the sum of `from`.
    Reduce(usize),
    /// `from` of every rank ← that of one rank.
    Broadcast(usize),
}

impl Library {
    /// Initialises MPI, once in a process.
    ///
    /// # Errors
    /// It was initialised before, or bears calls by the first thread only.
    pub fn start() -> Result<Self, CollectiveError> {
        let (universe, threading) =
            initialize_with_threading(Threading::Serialized).ok_or_else(|| CollectiveError {
                message: "MPI was initialised before in this process".to_owned(),
                hint: "connect once, and keep what that returns".to_owned(),
            })?;
        if threading < Threading::Serialized {
            return Err(CollectiveError {
                message: format!(
                    "expected MPI_THREAD_SERIALIZED of the MPI library, found {threading:?}: {}",
                    version()
                ),
                hint: "use an MPI that was built with threads".to_owned(),
            });
        }
        let world = universe.world();
        let number = |rank| usize::try_from(rank).unwrap_or_default();
        let (rank, size) = (number(world.rank()), number(world.size()));
        let state = Mutex::new(State::Open(ManuallyDrop::new(universe)));
        let library = Self { state, rank, size };
        library.call("MPI_Comm_set_errhandler", || {
            // SAFETY: MPI is initialised, and both are handles that it predefines.
            unsafe { ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN) }
        })?;
        Ok(library)
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Begins an operation on values, whose buffers are of one length.
    pub fn begin(
        &self,
        operation: Operation,
        buffers: Buffers<f32>,
    ) -> Result<Pending<'_, Buffers<f32>>, CollectiveError> {
        let count = int(buffers.from.len().min(buffers.to.len()))?;
        match operation {
            Operation::AllReduce => {
                self.start_with("MPI_Iallreduce", buffers, |buffers, request| {
                    // SAFETY: both buffers hold `count` floats, and are neither moved in memory nor
                    // freed before the request is done.
                    unsafe {
                        ffi::MPI_Iallreduce(
                            buffers.from.as_ptr().cast(),
                            buffers.to.as_mut_ptr().cast(),
                            count,
                            ffi::RSMPI_FLOAT,
                            ffi::RSMPI_SUM,
                            ffi::RSMPI_COMM_WORLD,
                            request,
                        )
                    }
                })
            }
            Operation::Reduce(root) => {
                let root = int(root)?;
                self.start_with("MPI_Ireduce", buffers, |buffers, request| {
                    // SAFETY: as above.
                    unsafe {
                        ffi::MPI_Ireduce(
                            buffers.from.as_ptr().cast(),
                            buffers.to.as_mut_ptr().cast(),
                            count,
                            ffi::RSMPI_FLOAT,
                            ffi::RSMPI_SUM,
                            root,
                            ffi::RSMPI_COMM_WORLD,
                            request,
                        )
                    }
                })
            }
            Operation::Broadcast(root) => {
                let root = int(root)?;
                self.start_with("MPI_Ibcast", buffers, |buffers, request| {
                    // SAFETY: as above.
                    unsafe {
                        ffi::MPI_Ibcast(
                            buffers.from.as_mut_ptr().cast(),
                            count,
                            ffi::RSMPI_FLOAT,
                            root,
                            ffi::RSMPI_COMM_WORLD,
                            request,
                        )
                    }
                })
            }
        }
    }

    /// Begins to gather as many bytes of every rank.
    pub fn gather(&self, from: Vec<u8>) -> Result<Pending<'_, Buffers<u8>>, CollectiveError> {
        let count = int(from.len())?;
        let to = vec![0; from.len() * self.size];
        self.start_with("MPI_Iallgather", Buffers { from, to }, |buffers, request| {
            // SAFETY: the first buffer holds `count` bytes and the second as many of every rank;
            // they are neither moved in memory nor freed before the request is done.
            unsafe {
                ffi::MPI_Iallgather(
                    buffers.from.as_ptr().cast(),
                    count,
                    ffi::RSMPI_UINT8_T,
                    buffers.to.as_mut_ptr().cast(),
                    count,
                    ffi::RSMPI_UINT8_T,
                    ffi::RSMPI_COMM_WORLD,
                    request,
                )
            }
        })
    }

    /// Begins to wait for every rank.
    pub fn barrier(&self) -> Result<Pending<'_, ()>, CollectiveError> {
        self.start_with("MPI_Ibarrier", (), |(), request| {
            // SAFETY: the communicator is the library's own, and there is no buffer.
            unsafe { ffi::MPI_Ibarrier(ffi::RSMPI_COMM_WORLD, request) }
        })
    }

    /// Ends MPI on this rank. Nothing is pending on any.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        if let State::Open(universe) = mem::replace(&mut *state, State::Ended) {
            drop(ManuallyDrop::into_inner(universe));
        }
    }

    /// Ends this process and, through the launcher, every other rank.
    pub fn abort(&self, code: i32) -> ! {
        match *lock(&self.state) {
            State::Ended => std::process::exit(code),
            State::Open(_) | State::Failed => SimpleCommunicator::world().abort(code),
        }
    }

    /// One call, while no other is made.
    fn call(&self, name: &str, call: impl FnOnce() -> c_int) -> Result<(), CollectiveError> {
        let mut state = lock(&self.state);
        match *state {
            State::Open(_) => {}
            State::Failed => return Err(unmatched("after one that failed")),
            State::Ended => return Err(unmatched("after the ranks have parted")),
        }
        let code = call();
        if code == SUCCESS {
            return Ok(());
        }
        *state = State::Failed;
        Err(CollectiveError {
            message: format!("{name} failed: {}", text(code)),
            hint: "the library says more above, where it can".to_owned(),
        })
    }

    fn start_with<B>(
        &self,
        name: &str,
        buffers: B,
        start: impl FnOnce(&mut B, *mut ffi::MPI_Request) -> c_int,
    ) -> Result<Pending<'_, B>, CollectiveError> {
        // SAFETY: a constant of the library.
        let request = unsafe { ffi::RSMPI_REQUEST_NULL };
        let mut pending = Pending { library: self, request, buffers: Some(buffers) };
        if let Some(buffers) = &mut pending.buffers {
            self.call(name, || start(buffers, &mut pending.request))?;
        }
        Ok(pending)
    }
}

/// An operation that has begun, with its buffers. Where it is given up the library may write to
/// them as long as the process lives: they are never freed, and nothing more is begun.
pub(crate) struct Pending<'l, B> {
    library: &'l Library,
    request: ffi::MPI_Request,
    buffers: Option<B>,
}

impl<B> Pending<'_, B> {
    /// The buffers if it is done, and otherwise itself.
    ///
    /// # Errors
    /// It failed.
    pub fn test(mut self) -> Result<Result<B, Self>, CollectiveError> {
        let mut done = 0;
        self.library.call("MPI_Test", || {
            // SAFETY: the request is one that the library returned and that is not yet done.
            unsafe { ffi::MPI_Test(&mut self.request, &mut done, ffi::RSMPI_STATUS_IGNORE) }
        })?;
        match self.buffers.take() {
            Some(buffers) if done != 0 => Ok(Ok(buffers)),
            buffers => {
                self.buffers = buffers;
                Ok(Err(self))
            }
        }
    }
}

impl<B> Drop for Pending<'_, B> {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            mem::forget(buffers);
            let mut state = lock(&self.library.state);
            if matches!(*state, State::Open(_)) {
                *state = State::Failed;
            }
        }
    }
}

/// What the standard calls `MPI_SUCCESS`.
const SUCCESS: c_int = 0;

/// Longer than any library's `MPI_MAX_ERROR_STRING`.
const LONGEST: usize = 8192;

/// What the library calls itself, in a line.
pub(crate) fn version() -> String {
    let version = library_version().unwrap_or_default();
    version.split(['\n', '\0', ',']).next().unwrap_or_default().trim().to_owned()
}

/// What the library says of an error.
fn text(code: c_int) -> String {
    let mut buffer = [0_u8; LONGEST];
    let mut length = 0;
    let start = buffer.as_mut_ptr().cast::<c_char>();
    // SAFETY: the buffer is longer than what is written to it.
    unsafe { ffi::MPI_Error_string(code, start, &mut length) };
    let length = usize::try_from(length).unwrap_or(0).min(LONGEST);
    format!("{} ({code})", String::from_utf8_lossy(&buffer[..length]))
}

fn unmatched(when: &str) -> CollectiveError {
    CollectiveError {
        message: format!("expected no call of MPI {when}"),
        hint: "the error before this one says why the ranks no longer go on together".to_owned(),
    }
}

/// A number as MPI takes it.
fn int(number: usize) -> Result<c_int, CollectiveError> {
    c_int::try_from(number).map_err(|_| CollectiveError {
        message: format!("expected at most {} at once, found {number}", c_int::MAX),
        hint: "send fewer bytes at once".to_owned(),
    })
}

/// A lock whose holder may have panicked: what it guards is whole between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
