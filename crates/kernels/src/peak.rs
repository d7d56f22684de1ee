//! The processor's highest rate of multiplications: the ceiling that a training step is measured
//! against.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::element::Element;
use crate::gemm::microkernel::{LeftOperand, MR, NR, Tile, TileOutput, microkernel};

/// Units of the summed dimension: both operands stay in the first-level cache.
const UNITS: usize = 64;
/// How long each thread measures.
const DURATION: Duration = Duration::from_millis(300);
/// Tiles between two readings of the clock, some tens of microseconds.
const AT_ONCE: usize = 64;

/// The most floating-point operations a second that `threads` threads reach in the microkernel of
/// `E`, with operands in the first-level cache. A multiplication and its addition count as two.
///
/// Runs as many threads as there are cores, if that is less. The result is the sum of each thread's
/// best moment within 300 ms.
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

/// The rate of one thread.
fn best<E: Element>() -> f64 {
    let (left, right) = (Buffer::<u32>::zeros(UNITS * NR), Buffer::<u32>::zeros(UNITS * NR));
    let microkernel = microkernel::<E>();
    let mut tile = Tile::ZERO;
    let operations = (2 * MR * NR * UNITS * E::PER_UNIT * AT_ONCE) as f64;
    let (start, mut best) = (Instant::now(), 0f64);
    while start.elapsed() < DURATION {
        let begun = Instant::now();
        for _ in 0..AT_ONCE {
            let left = LeftOperand {
                start: black_box(left.as_ptr()).cast(),
                row_stride: 4,
                unit_stride: 4 * NR,
            };
            // SAFETY: both operands are UNITS units of NR lanes, and a tile holds any tile.
            unsafe { microkernel(MR, UNITS, left, right.as_ptr(), TileOutput::tile(&mut tile)) };
        }
        black_box(&mut tile);
        best = best.max(operations / begun.elapsed().as_secs_f64());
    }
    best
}
