//! How fast this processor multiplies at best: the ceiling that a training step is measured
//! against.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::element::Element;
use crate::micro::{Left, MR, NR, Out, Tile, product};

/// Units of the operands: both stay in the first-level cache.
const UNITS: usize = 64;
/// How long the fastest moment is looked for.
const WATCHED: Duration = Duration::from_millis(300);
/// Products between two looks at the clock, some tens of microseconds.
const AT_ONCE: usize = 64;

/// Most floating-point operations a second (a product and a sum are two) that `threads` threads, or
/// as many as there are cores if that is less, reach in the innermost loop of a matrix product of
/// `E`, its operands in the first-level cache: the sum of each one's best moment in 300 ms.
pub fn peak_flops<E: Element>(threads: usize) -> f64 {
    thread::scope(|scope| {
        let cores =
            thread::available_parallelism().map_or(threads, |cores| threads.min(cores.get()));
        // A thread the system refuses adds nothing.
        let start = |_| thread::Builder::new().spawn_scoped(scope, best::<E>).ok();
        let running: Vec<_> = (0..cores).filter_map(start).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

/// One thread's.
fn best<E: Element>() -> f64 {
    let (left, right) = (Buffer::<u32>::zeros(UNITS * NR), Buffer::<u32>::zeros(UNITS * NR));
    let product = product::<E>();
    let mut tile = Tile::ZERO;
    let operations = (2 * MR * NR * UNITS * E::PER_UNIT * AT_ONCE) as f64;
    let (start, mut best) = (Instant::now(), 0f64);
    while start.elapsed() < WATCHED {
        let begun = Instant::now();
        for _ in 0..AT_ONCE {
            let left = Left { start: black_box(left.as_ptr()).cast(), row: 4, unit: 4 * NR };
            // SAFETY: both operands have UNITS units.
            unsafe { product(MR, UNITS, left, right.as_ptr(), Out::tile(&mut tile)) };
        }
        black_box(&mut tile);
        best = best.max(operations / begun.elapsed().as_secs_f64());
    }
    best
}
