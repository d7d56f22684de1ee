//! Launches of `optimizer.cu`.

use super::launch::{Typed, count, flag, launch, launch_by_fours, spread};
use super::memory::{Activations, Floats, Gradient};
use crate::device::{Argument, Device, Kernel};
use crate::element::ElementType;
use crate::ops::{AdamWStep, SgdStep};

const ADAMW: Kernel = Kernel { file: "optimizer", name: "adamw" };
const SGD: Kernel = Kernel { file: "optimizer", name: "sgd" };
const AVERAGE: Kernel = Kernel { file: "optimizer", name: "move_average" };
const PACK: Typed = Typed::new("optimizer", "pack_f32", "pack_bf16");

/// One AdamW update.
pub(super) fn adamw<D: Device>(
    device: &D,
    values: &Floats<D>,
    gradient: &Gradient<D>,
    first: &Floats<D>,
    second: &Floats<D>,
    step: &AdamWStep,
) {
    let n = gradient.len();
    let arguments = [
        values.of(n),
        gradient.floats.of(n),
        first.of(n),
        second.of(n),
        Argument::U64(n as u64),
        Argument::F32(step.gradient_scale),
        Argument::F32(step.lr * step.first_correction),
        Argument::F32(step.beta1),
        Argument::F32(1.0 - step.beta1),
        Argument::F32(step.beta2),
        Argument::F32(1.0 - step.beta2),
        Argument::F32(step.eps),
        Argument::F32(step.second_correction),
        Argument::F32(step.decay_factor),
        flag(step.cautious),
    ];
    launch_by_fours(device, ADAMW, n, &arguments);
}

/// One update of gradient descent, with a momentum or without.
pub(super) fn sgd<D: Device>(
    device: &D,
    values: &Floats<D>,
    gradient: &Gradient<D>,
    momentum: Option<&Floats<D>>,
    step: &SgdStep,
) {
    let n = gradient.len();
    let arguments = [
        values.of(n),
        gradient.floats.of(n),
        momentum.map_or(Argument::Null, |momentum| momentum.of(n)),
        Argument::U64(n as u64),
        Argument::F32(step.gradient_scale),
        Argument::F32(step.lr),
        Argument::F32(step.momentum),
        flag(step.nesterov),
        Argument::F32(step.decay_factor),
        flag(step.cautious),
    ];
    launch_by_fours(device, SGD, n, &arguments);
}

/// average ← average + share (values − average), as far as both reach.
pub(super) fn move_average<D: Device>(
    device: &D,
    average: &Floats<D>,
    values: &Floats<D>,
    share: f32,
) {
    let n = average.len.min(values.len);
    let arguments = [average.of(n), values.of(n), Argument::U64(n as u64), Argument::F32(share)];
    launch_by_fours(device, AVERAGE, n, &arguments);
}

/// `matrix` ← `values`, rounded.
pub(super) fn pack<D: Device>(
    device: &D,
    element: ElementType,
    values: &Floats<D>,
    matrix: &Activations<D>,
) {
    let (o, i) = (matrix.rows, matrix.columns);
    let (blocks, threads) = spread(i.div_ceil(8), 256);
    let arguments = [values.of(o * i), matrix.of(o, i), count(i), count(matrix.stride)];
    launch(device, PACK.of(element), [o, blocks], threads, 0, &arguments);
}
