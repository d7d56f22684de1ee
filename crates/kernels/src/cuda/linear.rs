//! Linear layers y = x Wᵀ: the device's products.

use super::memory::{Activations, Floats, Gradient, Scratch};
use super::{bias, memory};
use crate::device::{Argument, Device, Operand, Product};
use crate::element::ElementType;

/// Sums in f32 that wait for their bias at once, at most.
const MOST_SUMS: usize = 1 << 26;

/// A matrix taken transposed.
pub(super) fn transposed<M>(operand: Operand<'_, M>) -> Operand<'_, M> {
    Operand { transposed: !operand.transposed, ..operand }
}

/// out ← (add +) left · right, which is `[rows, depth]` · `[depth, columns]`; nothing, where there
/// is nothing to compute.
pub(super) fn multiply<D: Device>(
    device: &D,
    left: Operand<'_, D::Memory>,
    right: Operand<'_, D::Memory>,
    [rows, columns, depth]: [usize; 3],
    out: Operand<'_, D::Memory>,
    add: Option<(&D::Memory, usize)>,
) {
    if rows * columns > 0 {
        device.product(&Product { left, right, rows, columns, depth, out, add });
    }
}

/// y ← x Wᵀ, rounded.
pub(super) fn forward<D: Device>(
    device: &D,
    rows: usize,
    x: &Activations<D>,
    w: &Activations<D>,
    y: &Activations<D>,
) {
    let (left, right) = (x.operand(0, rows, w.columns), transposed(w.whole()));
    multiply(device, left, right, [rows, w.rows, w.columns], y.operand(0, rows, w.rows), None);
}

/// y ← x Wᵀ + bias, rounded once: sums that are not f32 already wait in f32, some rows at a time.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_biased<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    x: &Activations<D>,
    w: &Activations<D>,
    bias: &Floats<D>,
    y: &Activations<D>,
    scratch: &mut Scratch<D>,
) {
    if element == ElementType::F32 {
        forward(device, rows, x, w, y);
        return bias::add(device, element, [0, rows], y.of(rows, y.columns), bias, y);
    }
    let most = (MOST_SUMS / y.stride).max(1);
    let sums = scratch.fit(device, 4 * most.min(rows) * y.stride);
    for row in (0..rows).step_by(most) {
        let rows = most.min(rows - row);
        let (left, right) = (x.operand(row, rows, w.columns), transposed(w.whole()));
        let out = memory::floats_operand(sums, 0, y.stride);
        multiply(device, left, right, [rows, w.rows, w.columns], out, None);
        bias::add(device, element, [row, rows], Argument::Memory(sums, 0), bias, y);
    }
}

/// y ← (residual +) x Wᵀ in f32.
pub(super) fn forward_floats<D: Device>(
    device: &D,
    rows: usize,
    x: &Activations<D>,
    w: &Activations<D>,
    residual: Option<&Floats<D>>,
    y: &Floats<D>,
) {
    let (left, right) = (x.operand(0, rows, w.columns), transposed(w.whole()));
    let out = y.operand(0, rows, w.rows);
    let add = residual.map(|residual| {
        let Operand { memory, at, .. } = residual.operand(0, rows, w.rows);
        (memory, at)
    });
    multiply(device, left, right, [rows, w.rows, w.columns], out, add);
}

/// dx ← dy W, rounded.
pub(super) fn backward<D: Device>(
    device: &D,
    rows: usize,
    dy: &Activations<D>,
    w: &Activations<D>,
    dx: &Activations<D>,
) {
    let (left, right) = (dy.operand(0, rows, w.rows), w.whole());
    multiply(device, left, right, [rows, w.columns, w.rows], dx.operand(0, rows, w.columns), None);
}

/// dx ← dy W in f32.
pub(super) fn backward_floats<D: Device>(
    device: &D,
    rows: usize,
    dy: &Activations<D>,
    w: &Activations<D>,
    dx: &Floats<D>,
) {
    let (left, right) = (dy.operand(0, rows, w.rows), w.whole());
    let out = dx.operand(0, rows, w.columns);
    multiply(device, left, right, [rows, w.columns, w.rows], out, None);
}

/// dW ← (dW +) dyᵀ x, of which there are `rows` rows.
pub(super) fn gradient<D: Device>(
    device: &D,
    rows: usize,
    dy: Operand<'_, D::Memory>,
    x: Operand<'_, D::Memory>,
    dw: &Gradient<D>,
    add: bool,
) {
    let add = add.then_some((&dw.floats.memory, 0));
    let sizes = [dw.rows, dw.columns, rows];
    multiply(device, transposed(dy), x, sizes, dw.operand(), add);
}
