//! Handles of NVIDIA's libraries, and locks on them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the mutex holds, also after a thread that had it has panicked.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle that a library gave, given back to it when it is dropped.
pub(super) struct Owned<T: Copy, E> {
    handle: T,
    give_back: unsafe fn(T) -> Result<(), E>,
}

impl<T: Copy, E> Owned<T, E> {
    /// # Safety
    /// `handle` is of the library that `give_back` belongs to, and nobody else gives it back.
    pub(super) unsafe fn new(handle: T, give_back: unsafe fn(T) -> Result<(), E>) -> Self {
        Self { handle, give_back }
    }

    pub(super) fn get(&self) -> T {
        self.handle
    }
}

impl<T: Copy, E> Drop for Owned<T, E> {
    fn drop(&mut self) {
        // SAFETY: see `new`. What fails here has failed before, and is known.
        let _ = unsafe { (self.give_back)(self.handle) };
    }
}

// SAFETY: the libraries take calls from any thread, and those that may not come from two threads at
// once are made under a lock.
unsafe impl<T: Copy, E> Send for Owned<T, E> {}
// SAFETY: as above; `get` gives a copy.
unsafe impl<T: Copy, E> Sync for Owned<T, E> {}
