//! Launches of `bias.cu`.

use super::launch::{Typed, count, launch, spread};
use super::memory::{Activations, Floats, Gradient, Scratch};
use super::reduce;
use crate::device::{Argument, Device};
use crate::element::ElementType;

const FORWARD: Typed = Typed::new("bias", "add_bias_f32", "add_bias_bf16");
const BACKWARD: Typed = Typed::new("bias", "bias_gradient_f32", "bias_gradient_bf16");

/// Rows that one block adds up, at most.
const PART: usize = 512;
/// Columns and threads of a block: WIDTH and SHARES of the source.
const COLUMNS: usize = 256;
const THREADS: usize = 256;

/// `rows` rows of y from row `row` on ← those at `sums`, in f32 and as far apart as y's, + bias.
pub(super) fn add<D: Device>(
    device: &D,
    element: ElementType,
    [row, rows]: [usize; 2],
    sums: Argument<'_, D::Memory>,
    bias: &Floats<D>,
    y: &Activations<D>,
) {
    let o = y.columns;
    let (blocks, threads) = spread(o.div_ceil(4), 256);
    let arguments = [sums, bias.of(o), y.from(row, rows, o), count(o), count(y.stride)];
    launch(device, FORWARD.of(element), [rows, blocks], threads, 0, &arguments);
}

/// The gradient of a bias ← (it +) the rows of dy.
pub(super) fn gradient<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    dy: &Activations<D>,
    gradient: &Gradient<D>,
    add: bool,
    scratch: &mut Scratch<D>,
) {
    let o = gradient.len();
    let parts = rows.div_ceil(PART);
    let kernel = BACKWARD.of(element);
    reduce::in_parts(device, [1, parts, o], &gradient.floats, add, scratch, |partial| {
        let arguments =
            [dy.of(rows, o), partial, count(rows), count(o), count(dy.stride), count(PART)];
        launch(device, kernel, [parts, o.div_ceil(COLUMNS)], THREADS, 0, &arguments);
    });
}
