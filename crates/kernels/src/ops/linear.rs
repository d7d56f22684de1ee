//! Linear layers y = x Wᵀ: forward, and the gradients of the input and of the parameter.
//!
//! Shapes: n rows, o outputs and i inputs of the layer; W is `[o, i]`. Functions take the first
//! `rows` rows of n. Results in f32 are `[rows, o]` or `[rows, i]` without gaps between their rows.

use crate::buffer::Matrix;
use crate::element::{Element, RoundTo};
use crate::gemm::{
    AddBias, AddResidual, Epilogue, Panels, StoreF32, StoreRounded, multiply, multiply_transposed,
};
use crate::gradient::Gradient;
use crate::isa::multiversion;

/// A parameter W, `[o, i]`, packed as the right operand of both products that read it.
pub struct PackedMatrix<E> {
    /// Wᵀ, `[i, o]`: y = x Wᵀ sums over i.
    pub(crate) forward: Panels<E>,
    /// W, `[o, i]`: dx = dy W sums over o.
    pub(crate) backward: Panels<E>,
}

impl<E: Element> PackedMatrix<E> {
    /// `[o, i]` of zeros.
    pub(crate) fn zeros(o: usize, i: usize) -> Self {
        Self { forward: Panels::zeros(o, i), backward: Panels::zeros(i, o) }
    }

    /// Packs `values`, `[o, i]`, both ways at once, in rayon's current thread pool.
    pub(crate) fn pack(&mut self, values: &[f32])
    where
        f32: RoundTo<E>,
    {
        let Self { forward, backward } = self;
        let (o, i) = (forward.lanes(), forward.depth());
        rayon::join(
            || forward.pack_rows::<f32>(values, i, o, i),
            || backward.pack_columns::<f32>(values, i, o, i),
        );
    }
}

/// What the gradient of a parameter needs, reused from call to call.
pub(crate) struct LinearWorkspace<E> {
    /// The layer's inputs, packed for the sum over rows.
    pub(crate) inputs: Panels<E>,
    /// Packed columns of the output's gradient.
    strip: Vec<u32>,
}

impl<E: Element> LinearWorkspace<E> {
    /// For up to `rows` rows of up to `widest` inputs.
    pub(crate) fn new(rows: usize, widest: usize) -> Self {
        Self { inputs: Panels::zeros(widest, rows), strip: Vec::new() }
    }
}

/// y ← x Wᵀ, rounded.
pub(crate) fn linear<E: Element>(
    rows: usize,
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    y: &mut Matrix<E>,
) {
    let stride = y.stride();
    product(rows, x, &w.forward, StoreRounded { out: y.data_mut(), stride });
}

/// y ← x Wᵀ + bias, rounded once.
pub(crate) fn linear_biased<E: Element>(
    rows: usize,
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    bias: &[f32],
    y: &mut Matrix<E>,
) {
    let stride = y.stride();
    product(rows, x, &w.forward, AddBias { bias, out: y.data_mut(), stride });
}

/// y ← residual + x Wᵀ in f32.
pub(crate) fn linear_residual<E: Element>(
    rows: usize,
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    residual: &[f32],
    y: &mut [f32],
) {
    product(rows, x, &w.forward, AddResidual { residual, out: y, stride: w.forward.lanes() });
}

/// y ← x Wᵀ in f32.
pub(crate) fn linear_f32<E: Element>(
    rows: usize,
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    y: &mut [f32],
) {
    product(rows, x, &w.forward, StoreF32 { out: y, stride: w.forward.lanes(), add: false });
}

/// dx ← dy W, rounded.
pub(crate) fn linear_backward<E: Element>(
    rows: usize,
    dy: &Matrix<E>,
    w: &PackedMatrix<E>,
    dx: &mut Matrix<E>,
) {
    let stride = dx.stride();
    product(rows, dy, &w.backward, StoreRounded { out: dx.data_mut(), stride });
}

/// dx ← dy W in f32.
pub(crate) fn linear_backward_f32<E: Element>(
    rows: usize,
    dy: &Matrix<E>,
    w: &PackedMatrix<E>,
    dx: &mut [f32],
) {
    product(rows, dy, &w.backward, StoreF32 { out: dx, stride: w.backward.lanes(), add: false });
}

/// dW += dyᵀ x in f32, in turn `turn`.
pub(crate) fn linear_gradient<E: Element>(
    rows: usize,
    dy: &Matrix<E>,
    x: &Matrix<E>,
    dw: &Gradient,
    turn: usize,
    workspace: &mut LinearWorkspace<E>,
) {
    let LinearWorkspace { inputs, strip } = workspace;
    let i = x.columns();
    inputs.pack_columns(x.data(), x.stride(), rows, i);
    dw.in_turn(turn, |outputs, dw, add| {
        let dy_part = dy.data().get(outputs.start..).unwrap_or_default();
        let epilogue = StoreF32 { out: dw, stride: i, add };
        multiply_transposed(dy_part, dy.stride(), outputs.len(), inputs, epilogue, strip);
    });
}

/// The gradient of a bias, `[o]`, += the first `rows` rows of `dy`, in order, in turn `turn`.
pub(crate) fn bias_gradient<E: Element>(
    rows: usize,
    dy: &Matrix<E>,
    gradient: &Gradient,
    turn: usize,
) {
    gradient.in_turn(turn, |_, sum, add| {
        if !add {
            sum.fill(0.0);
        }
        let stride = dy.stride();
        add_rows(&dy.data()[..rows * stride], stride, sum);
    });
}

multiversion! {
    /// `sum` += each of `rows`, which are `stride` apart.
    fn add_rows<E: Element>(rows: &[E], stride: usize, sum: &mut [f32]) {
        for row in rows.chunks(stride) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x.widen();
            }
        }
    }
}

/// The first `rows` rows of `left` times a packed parameter.
fn product<E: Element, S: Epilogue<E>>(
    rows: usize,
    left: &Matrix<E>,
    right: &Panels<E>,
    epilogue: S,
) {
    multiply(left.data(), left.stride(), rows, right, epilogue);
}
