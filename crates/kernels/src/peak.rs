//! The processor's highest rate of multiplications: the ceiling that a training step is measured
//! against.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::element::Element;
use crate::gemm::microkernel::{LeftOperand, Tile, TileOutput, microkernel, tile_rows};
use crate::isa::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Isa, isa};

/// Units of the summed dimension: both operands stay in the first-level cache.
const UNITS: usize = 64;
/// How long each thread measures.
const DURATION: Duration = Duration::from_millis(300);
/// Tiles between two readings of the clock, some tens of microseconds.
const AT_ONCE: usize = 64;

/// The most floating-point operations a second that `threads` threads reach with all operands of a
/// product of `E` at hand. A multiplication and its addition count as two.
///
/// On AVX2 this is a loop of fused multiply-adds in registers alone, so that it does not depend on
/// the product's own code. On other instruction sets it is the microkernel with operands in the
/// first-level cache.
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
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx2 {
        return fastest(|| {
            // SAFETY: `isa` found AVX2 and FMA on this processor.
            unsafe { x86::multiply_adds() }
        });
    }
    in_microkernel::<E>()
}

/// The highest rate at which `some` does operations, whose number it returns.
#[inline(always)]
fn fastest(mut some: impl FnMut() -> usize) -> f64 {
    let (start, mut best) = (Instant::now(), 0f64);
    while start.elapsed() < DURATION {
        let begun = Instant::now();
        let operations = some();
        best = best.max(operations as f64 / begun.elapsed().as_secs_f64());
    }
    best
}

multiversion! {
    /// The rate of one thread in the microkernel.
    fn in_microkernel<E: Element; NR>() -> f64 {
        let (left, right) = (Buffer::<u32>::zeros(UNITS * NR), Buffer::<u32>::zeros(UNITS * NR));
        let microkernel = microkernel::<E, NR>();
        let rows = tile_rows::<NR>();
        let mut tile = Tile::<NR>::ZERO;
        fastest(|| {
            for _ in 0..AT_ONCE {
                let left = LeftOperand {
                    start: black_box(left.as_ptr()).cast(),
                    row_stride: 4,
                    unit_stride: 4 * NR,
                };
                // SAFETY: both operands are UNITS units of NR lanes, and a tile holds any tile.
                unsafe {
                    microkernel(rows, UNITS, left, right.as_ptr(), TileOutput::tile(&mut tile))
                };
            }
            black_box(&mut tile);
            2 * rows * NR * UNITS * E::PER_UNIT * AT_ONCE
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent sums: more than the multiply-adds that a core has under way at once.
    const SUMS: usize = 12;
    /// Steps between two readings of the clock, some tens of microseconds.
    const STEPS: usize = 1 << 14;

    /// Fused multiply-adds in registers; their floating-point operations.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn multiply_adds() -> usize {
        let (factor, term) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(factor, *sum, term);
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_ps(), |all, sum| _mm256_add_ps(all, sum));
        black_box(_mm256_cvtss_f32(all));
        2 * 8 * SUMS * STEPS
    }
}
