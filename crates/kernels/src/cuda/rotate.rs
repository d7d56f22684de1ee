//! Launches of `rotate.cu`.

use super::launch::{Typed, count, launch, spread};
use super::memory::{Activations, Rotations};
use crate::device::{Argument, Device};
use crate::element::ElementType;
use crate::ops::Heads;

const ROTATE: Typed = Typed::new("rotate", "rotate_f32", "rotate_bf16");

/// Turns the queries and keys of `qkv`, whose rows are sequences of `context`; with `backward` the
/// other way.
#[allow(clippy::too_many_arguments)]
pub(super) fn rotate<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    context: usize,
    heads: Heads,
    rotations: &Rotations<D>,
    backward: bool,
    qkv: &Activations<D>,
) {
    let (rotated, half) = (heads.query + heads.kv, rotations.head_dim / 2);
    let positions = context.min(rows);
    let arguments = [
        qkv.of(rows, rotated * rotations.head_dim),
        rotations.cos.of(positions * half),
        rotations.sin.of(positions * half),
        count(qkv.stride),
        count(context),
        count(rotated),
        count(half),
        Argument::F32(if backward { -1.0 } else { 1.0 }),
    ];
    // A thread takes eight pairs where they lie together on 16 bytes, else one.
    let pairs = rotated * half;
    let (blocks, threads) = spread(if half.is_multiple_of(8) { pairs / 8 } else { pairs }, 256);
    launch(device, ROTATE.of(element), [rows, blocks], threads, 0, &arguments);
}
