//! Launches of `norm.cu`.

use super::launch::{Typed, WARP, count, flag, launch};
use super::memory::{Activations, Floats, Scratch};
use super::reduce;
use crate::device::{Argument, Device};
use crate::element::ElementType;

const FORWARD: Typed = Typed::new("norm", "rms_norm_f32", "rms_norm_bf16");
const BACKWARD: Typed = Typed::new("norm", "rms_norm_backward_f32", "rms_norm_backward_bf16");

/// Rows of a sequence whose gradients of a gain one block adds up, at most.
pub(super) const PART: usize = 16;

/// y ← x · s · gain; `scale` ← s.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    x: &Floats<D>,
    gain: &Floats<D>,
    eps: f32,
    y: &Activations<D>,
    scale: &Floats<D>,
) {
    let d = gain.len;
    let arguments = [
        x.of(rows * d),
        gain.of(d),
        Argument::F32(eps),
        y.of(rows, d),
        scale.of(rows),
        count(d),
        count(y.stride),
    ];
    launch(device, FORWARD.of(element), [rows, 1], threads(d), 0, &arguments);
}

/// dx ← (dx +) the gradient, also `rounded`; `gains` ← each sequence's gradient of the gain.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    context: usize,
    x: &Floats<D>,
    gain: &Floats<D>,
    scale: &Floats<D>,
    dy: &Floats<D>,
    overwrite: bool,
    dx: &Floats<D>,
    rounded: &Activations<D>,
    gains: &Floats<D>,
    scratch: &mut Scratch<D>,
) {
    let d = gain.len;
    let (sequences, parts) = (rows / context, context.div_ceil(PART));
    let rows = sequences * context;
    let shared = 4 * d.next_multiple_of(4);
    let kernel = BACKWARD.of(element);
    reduce::in_parts(device, [sequences, parts, d], gains, false, scratch, |partial| {
        let arguments = [
            x.of(rows * d),
            gain.of(d),
            scale.of(rows),
            dy.of(rows * d),
            dx.of(rows * d),
            rounded.of(rows, d),
            partial,
            count(d),
            count(rounded.stride),
            count(context),
            count(PART),
            count(parts),
            flag(overwrite),
        ];
        launch(device, kernel, [sequences * parts, 1], threads(d), shared, &arguments);
    });
}

/// Threads for a row of `d` numbers: each takes four, of long rows more.
fn threads(d: usize) -> usize {
    d.div_ceil(4).next_multiple_of(WARP).min(1024)
}
