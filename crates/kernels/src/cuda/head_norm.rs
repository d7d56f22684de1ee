//! Launches of `head_norm.cu`.

use super::launch::{Typed, WARP, count, launch};
use super::memory::{Activations, Floats, Scratch};
use super::norm::PART;
use super::reduce;
use crate::device::{Argument, Device};
use crate::element::ElementType;
use crate::ops::Heads;

const FORWARD: Typed = Typed::new("head_norm", "head_norm_f32", "head_norm_bf16");
const BACKWARD: Typed =
    Typed::new("head_norm", "head_norm_backward_f32", "head_norm_backward_bf16");

/// Warps of a block, at most.
const WARPS: usize = 8;
/// Bytes of shared memory that every device gives a block.
const SHARED: usize = 48 << 10;

/// Each query and key of `qkv` ← its norm; `kept` ← what they were, `scale` ← s of each.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    heads: Heads,
    gains: &Floats<D>,
    eps: f32,
    qkv: &Activations<D>,
    kept: &Activations<D>,
    scale: &Floats<D>,
) {
    let (normed, e) = (heads.query + heads.kv, heads.dim);
    let arguments = [
        qkv.of(rows, heads.columns()),
        kept.of(rows, normed * e),
        scale.of(rows * normed),
        gains.of(2 * e),
        Argument::F32(eps),
        count(rows),
        count(qkv.stride),
        count(kept.stride),
        count(heads.query),
        count(normed),
        count(e),
    ];
    let blocks = (rows * normed).div_ceil(WARPS);
    launch(device, FORWARD.of(element), [blocks, 1], WARPS * WARP, 0, &arguments);
}

/// `d_qkv` ← the gradient before the norm; `each` ← each sequence's gradient of the gains, `[2e]`.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    context: usize,
    heads: Heads,
    gains: &Floats<D>,
    kept: &Activations<D>,
    scale: &Floats<D>,
    d_qkv: &Activations<D>,
    each: &Floats<D>,
    scratch: &mut Scratch<D>,
) {
    let (normed, e) = (heads.query + heads.kv, heads.dim);
    let (sequences, parts) = (rows / context, context.div_ceil(PART));
    let rows = sequences * context;
    // Both gains' sums in f32, for each warp.
    let sums = 4 * 2 * e;
    let warps = (SHARED / sums).clamp(1, WARPS);
    let grid = [sequences * parts, 1];
    let kernel = BACKWARD.of(element);
    reduce::in_parts(device, [sequences, parts, 2 * e], each, false, scratch, |partial| {
        let arguments = [
            kept.of(rows, normed * e),
            scale.of(rows * normed),
            gains.of(2 * e),
            d_qkv.of(rows, heads.columns()),
            partial,
            count(d_qkv.stride),
            count(kept.stride),
            count(heads.query),
            count(normed),
            count(e),
            count(context),
            count(PART),
            count(parts),
        ];
        launch(device, kernel, grid, warps * WARP, warps * sums, &arguments);
    });
}
