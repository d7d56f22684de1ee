//! Launches of `reduce.cu`: sums whose order the sizes fix.

use super::launch::{WARP, count, flag, launch, launch_by_fours, spread};
use super::memory::{Floats, Gradient, Scratch};
use crate::device::{Argument, Device, Kernel};

const SUM_ROWS: Kernel = Kernel { file: "reduce", name: "sum_rows" };
const ADD: Kernel = Kernel { file: "reduce", name: "add_floats" };
const SQUARES: Kernel = Kernel { file: "reduce", name: "sum_of_squares" };
const TOTAL: Kernel = Kernel { file: "reduce", name: "add_partial" };

/// Elements whose squares one block adds up: PART of the source.
const PART: usize = 1 << 16;

/// Bytes of an f64.
pub(super) const F64: usize = 8;

/// Each of `groups` rows of `out`, `width` wide, ← (it +) `each` rows of `rows`, in order.
pub(super) fn sum_rows<D: Device>(
    device: &D,
    rows: Argument<'_, D::Memory>,
    out: Argument<'_, D::Memory>,
    [groups, each, width]: [usize; 3],
    add: bool,
) {
    let (blocks, threads) = spread(width, 128);
    let arguments = [rows, out, count(width), count(each), flag(add)];
    launch(device, SUM_ROWS, [groups, blocks], threads, 0, &arguments);
}

/// Sums of `groups` groups in `parts` parts each: `work` leaves those of the parts, `[groups ·
/// parts, width]`, at the address that it gets; each row of `out` ← (it +) its group's.
pub(super) fn in_parts<D: Device>(
    device: &D,
    [groups, parts, width]: [usize; 3],
    out: &Floats<D>,
    add: bool,
    scratch: &mut Scratch<D>,
    work: impl FnOnce(Argument<'_, D::Memory>),
) {
    let of_groups = out.of(groups * width);
    if parts == 1 && !add {
        return work(of_groups);
    }
    let memory = scratch.fit(device, 4 * groups * parts * width);
    work(Argument::Memory(memory, 0));
    sum_rows(device, Argument::Memory(memory, 0), of_groups, [groups, parts, width], add);
}

/// How many partial sums the squares of `n` numbers have.
pub(super) fn parts(n: usize) -> usize {
    n.div_ceil(PART)
}

/// The partial sums of the squares of `n` numbers, in f64, to `to`.
pub(super) fn squares<D: Device>(
    device: &D,
    values: Argument<'_, D::Memory>,
    n: usize,
    to: Argument<'_, D::Memory>,
) {
    // Threads are fewer for few numbers, but how they share these is fixed all the same.
    let threads = n.div_ceil(4).next_multiple_of(WARP).min(256);
    launch(device, SQUARES, [parts(n), 1], threads, 0, &[values, Argument::U64(n as u64), to]);
}

/// The sum of `n` partial sums at `partial` to `to`.
pub(super) fn total<D: Device>(
    device: &D,
    partial: Argument<'_, D::Memory>,
    n: usize,
    to: Argument<'_, D::Memory>,
) {
    launch(device, TOTAL, [1, 1], 256, 0, &[partial, count(n), to]);
}

/// The gradients of each parameter added up in the first of them, in their order, and Σ g² of the
/// sums: the only thing that is waited for.
pub(super) fn gradients<D: Device>(
    device: &D,
    parameters: &mut [Vec<&mut Gradient<D>>],
    scratch: &mut Scratch<D>,
) -> f64 {
    let all: usize = parameters.iter().filter_map(|of| of.first()).map(|g| parts(g.len())).sum();
    // The total, then the partial sums of one parameter after the other.
    let memory = scratch.fit(device, F64 * (1 + all));
    let mut part = 1;
    for gradients in parameters {
        let Some((sum, others)) = gradients.split_first() else { continue };
        let n = sum.len();
        for other in others {
            let arguments = [sum.floats.of(n), other.floats.of(n), Argument::U64(n as u64)];
            launch_by_fours(device, ADD, n, &arguments);
        }
        squares(device, sum.floats.of(n), n, Argument::Memory(memory, F64 * part));
        part += parts(n);
    }
    total(device, Argument::Memory(memory, F64), all, Argument::Memory(memory, 0));
    let mut bytes = [0; F64];
    device.read(memory, 0, &mut bytes);
    f64::from_ne_bytes(bytes)
}
