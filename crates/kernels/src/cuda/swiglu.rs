//! Launches of `swiglu.cu`.

use super::launch::{Typed, count, launch, spread};
use super::memory::Activations;
use crate::device::Device;
use crate::element::ElementType;

const FORWARD: Typed = Typed::new("swiglu", "swiglu_f32", "swiglu_bf16");
const BACKWARD: Typed = Typed::new("swiglu", "swiglu_backward_f32", "swiglu_backward_bf16");

/// h ← silu(gate) · up.
pub(super) fn forward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    gate_up: &Activations<D>,
    h: &Activations<D>,
) {
    let f = h.columns;
    let arguments =
        [gate_up.of(rows, 2 * f), h.of(rows, f), count(f), count(gate_up.stride), count(h.stride)];
    let (blocks, threads) = by_eights(f);
    launch(device, FORWARD.of(element), [rows, blocks], threads, 0, &arguments);
}

/// `gate_up` ← its gradient.
pub(super) fn backward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    dh: &Activations<D>,
    gate_up: &Activations<D>,
) {
    let f = dh.columns;
    let arguments = [
        dh.of(rows, f),
        gate_up.of(rows, 2 * f),
        count(f),
        count(gate_up.stride),
        count(dh.stride),
    ];
    let (blocks, threads) = by_eights(f);
    launch(device, BACKWARD.of(element), [rows, blocks], threads, 0, &arguments);
}

/// Blocks and threads for a row: a thread takes eight elements where gates and ups both lie on 16
/// bytes, else one.
fn by_eights(f: usize) -> (usize, usize) {
    spread(if f.is_multiple_of(8) { f / 8 } else { f }, 256)
}
