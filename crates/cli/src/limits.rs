//! Where the system gives no more memory, threads or room in a file: an error that says so, and no
//! signal or panic that does not.
//!
//! Whatever ends a run, what it wrote is whole or can be gone on with, so it may end anywhere.

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;

use anyhow::Context;
use mimalloc::MiMalloc;

/// Mimalloc; where it has no more memory, the process ends with an error. The standard library
/// would abort it, which leaves a core dump and no word of what to do.
pub struct Allocator;

// SAFETY: every call goes to mimalloc as it is, and what it gives back comes from there; only the
// null that stands for "no memory" does not come back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc asks for.
        there(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        there(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the pointer came from mimalloc.
        there(unsafe { MiMalloc.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from mimalloc.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

#[inline]
fn there(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        out_of_memory(size);
    }
    pointer
}

/// Says so and ends. Nothing here allocates.
#[cold]
fn out_of_memory(size: usize) -> ! {
    let mut out = std::io::stderr();
    let _ = writeln!(
        out,
        "error: no memory left: {size} bytes more were asked for\nhint: use a smaller model, batch or \
         number of threads (RAYON_NUM_THREADS), or allow more memory (`ulimit -v`, or the container's \
         limit); `prepare` goes on where it stopped, `train` with --resume"
    );
    std::process::exit(1)
}

/// Makes a write beyond the largest file that is allowed an error as any other, and no signal that
/// ends the process.
#[cfg(unix)]
pub fn report_files_that_are_too_large() {
    use std::ffi::c_int;
    /// The same number on Linux (but for MIPS, which Rust does not build the program for), macOS
    /// and the BSDs.
    const SIGXFSZ: c_int = 25;
    const SIG_IGN: usize = 1;
    unsafe extern "C" {
        fn signal(signal: c_int, handler: usize) -> usize;
    }
    // SAFETY: the system's own function by its own signature; to ignore a signal runs no code.
    unsafe { signal(SIGXFSZ, SIG_IGN) };
}

/// Starts the threads that everything is computed on. What needs them calls it first: where the
/// system makes none, whoever only wants to read something gets it all the same.
///
/// # Errors
/// The system makes no more.
pub fn start_threads(threads: Option<usize>) -> anyhow::Result<()> {
    let threads = threads.filter(|_| std::env::var_os("RAYON_NUM_THREADS").is_none());
    // Of 0 the pool takes its own number, one a core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    pool.build_global().context(
        "cannot start threads\nhint: allow more (`ulimit -u`, or the container's limit of processes), \
         or use fewer: RAYON_NUM_THREADS=1",
    )
}
