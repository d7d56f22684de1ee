//! The output head with its softmax cross-entropy, some rows at a time, so that no `[n, v]` of
//! logits is ever held.
//!
//! Shapes: n rows, d inputs, v outputs; W is `[v, d]`. For a row x with logits z = W x and target t
//! the loss is log Σ e^z − z_t. The steps for each chunk of rows, which any backend can take:
//!
//! 1. **Shift**: c = z_t, the target's logit ([`target_logits`]). Subtracting it from the logits
//!    makes a pass over them for the largest one unnecessary.
//! 2. **Exponentials** ([`exponentials`]): of each row e = e^(z − c) and S = Σ e, as the logits
//!    come out of the product. For the gradient the exponentials are saved, and dx ← e W.
//! 3. **Rows out of range**: where S is at least [`LARGEST_SUM`] (a loss of 66 nats) or NaN, c
//!    becomes the row's largest logit ([`raise_shifts`]), and step 2 is repeated for the chunk.
//! 4. **Loss**: log S + (c − z_t).
//! 5. **Gradient** ([`chunk_gradient`]) of Σ loss_scale · loss. The softmax is e / S, so with
//!    f = loss_scale / S it is
//!
//! ```text
//! dx   ← f · dx − loss_scale · W_t
//! dW   ← (dW +) Σ over rows  e (f · x)        dW_t ← dW_t − loss_scale · x
//! ```
//!
//! A z-loss ([`ZLoss`]) adds z · L² to the loss of a row, where L = log Σ e^z = log S + c. Its
//! gradient by the logits is 2 z L · softmax, so that f becomes loss_scale (1 + 2 z L) / S and
//! nothing else changes.

mod softmax;

use crate::buffer::{Buffer, Matrix};
use crate::element::Element;
use crate::gemm::{Panels, StoreF32, multiply_packed, multiply_part};
use crate::gradient::Gradient;
use crate::isa::{MOST_COLUMNS, multiversion};
use crate::lanes::{LANES, total};
use crate::ops::linear::PackedMatrix;
use softmax::{RowMaxEpilogue, SavedExponentials, SoftmaxEpilogue};

/// Logits of a chunk of rows, at most, unless its rows are 16 or fewer.
const CHUNK_LOGITS: usize = 1 << 23;
/// Outputs of the head whose exponentials go through the gradient of the input at once: few enough
/// for those of a chunk to stay in the cache. A multiple of every NR.
const OUTPUTS: usize = 512;
/// From this sum of exponentials on a row's shift is replaced. Far enough below f32's largest
/// number for products with the exponentials.
const LARGEST_SUM: f32 = (1u128 << 95) as f32;

/// What one thread's head needs for a chunk of rows, reused from call to call. It grows where a
/// call needs more: none is too small.
pub(crate) struct HeadWorkspace<E> {
    /// Exponentials of OUTPUTS outputs, `[rows, OUTPUTS]`.
    exponentials: Matrix<E>,
    /// Those of all outputs, packed for the sum over rows.
    exponential_units: Buffer<u32>,
    /// The inputs times their row's factor f.
    scaled_inputs: Matrix<E>,
    /// Of each row z_t, c, S in lanes, and f.
    target_logits: Vec<f32>,
    shifts: Vec<f32>,
    sums: Vec<[f32; LANES]>,
    factors: Vec<f32>,
}

impl<E: Element> HeadWorkspace<E> {
    /// For up to `rows` rows, `vocab_size` outputs and, with `backward`, the gradient by up to
    /// `widest` inputs.
    pub(crate) fn new(rows: usize, vocab_size: usize, widest: usize, backward: bool) -> Self {
        let chunk = most_rows(vocab_size).min(rows).max(1);
        let outputs = vocab_size.next_multiple_of(MOST_COLUMNS);
        let (saved, widest) = if backward { (chunk, widest) } else { (0, 0) };
        Self {
            exponentials: Matrix::zeros(saved, OUTPUTS.min(outputs)),
            exponential_units: Buffer::zeros(outputs * saved.div_ceil(E::PER_UNIT)),
            scaled_inputs: Matrix::zeros(saved, widest),
            target_logits: vec![0.0; chunk],
            shifts: vec![0.0; chunk],
            sums: vec![[0.0; LANES]; chunk],
            factors: vec![0.0; chunk],
        }
    }

    /// Makes room for the gradient by `d` inputs of `v` outputs.
    fn fit(&mut self, v: usize, d: usize) {
        let outputs = v.next_multiple_of(MOST_COLUMNS);
        let units = outputs * self.chunk().div_ceil(E::PER_UNIT);
        if self.exponential_units.len() < units
            || self.exponentials.columns() < OUTPUTS.min(outputs)
            || self.scaled_inputs.columns() < d
        {
            *self = Self::new(self.chunk(), v, d.max(self.scaled_inputs.columns()), true);
        }
    }

    /// Rows of a chunk.
    fn chunk(&self) -> usize {
        self.shifts.len()
    }
}

/// A penalty of the logits' size, beside the cross-entropy: z · L² of each row, L being the
/// logarithm of the softmax's denominator (Chowdhery et al., PaLM, 2022). It holds L near 0.
#[derive(Debug)]
pub struct ZLoss<'a> {
    /// z.
    pub weight: f32,
    /// Where the L² of each row goes, `[n]`.
    pub squares: &'a mut [f32],
}

/// A chunk's rows of the head's input, `stride` apart, and their targets.
#[derive(Clone, Copy)]
struct Rows<'a, E> {
    x: &'a [E],
    stride: usize,
    targets: &'a [u32],
}

/// `losses` ← the loss of each row of `x`, `[n, d]`, in nats; `targets` and `losses` are `[n]`.
pub(crate) fn head_loss<E: Element>(
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    targets: &[u32],
    losses: &mut [f32],
    workspace: &mut HeadWorkspace<E>,
) {
    let (chunk, stride) = (workspace.chunk(), x.stride());
    let chunks = targets.chunks(chunk).zip(losses.chunks_mut(chunk));
    for (index, (targets, losses)) in chunks.enumerate() {
        let rows = Rows { x: &x.data()[index * chunk * stride..], stride, targets };
        cross_entropy(rows, w, losses, workspace, None);
    }
}

/// Rows of a chunk, at most.
fn most_rows(vocab_size: usize) -> usize {
    (CHUNK_LOGITS / vocab_size.max(1)).max(16)
}

/// The turns that [`head_backward`] takes for `rows` rows: one a chunk.
pub(crate) fn head_turns(rows: usize, vocab_size: usize) -> usize {
    rows.div_ceil(most_rows(vocab_size))
}

/// [`head_loss`], and the gradient of Σ loss_scale · loss: `dx`, `[n, d]`, and `dw`, `[v, d]`,
/// which is added to in the turns that `turns` gives the chunks. `values` is W in f32. `inputs` is
/// memory for packed inputs. With a `z_loss` the gradient is that of Σ loss_scale (loss + z L²);
/// the losses are the same.
#[allow(clippy::too_many_arguments)]
pub(crate) fn head_backward<E: Element>(
    x: &Matrix<E>,
    w: &PackedMatrix<E>,
    values: &[f32],
    targets: &[u32],
    loss_scales: &[f32],
    losses: &mut [f32],
    mut z_loss: Option<ZLoss<'_>>,
    dx: &mut [f32],
    dw: &Gradient,
    turns: impl Fn(usize) -> usize,
    inputs: &mut Panels<E>,
    workspace: &mut HeadWorkspace<E>,
) {
    workspace.fit(w.forward.lanes(), x.columns());
    let (chunk, d, stride) = (workspace.chunk(), x.columns(), x.stride());
    // The buffers may have room for more rows than there are targets.
    let chunks = targets
        .chunks(chunk)
        .zip(losses.chunks_mut(chunk))
        .zip(loss_scales.chunks(chunk))
        .zip(dx.chunks_mut(chunk * d));
    for (index, (((targets, losses), loss_scales), dx)) in chunks.enumerate() {
        let rows = Rows { x: &x.data()[index * chunk * stride..], stride, targets };
        cross_entropy(rows, w, losses, workspace, Some(dx));
        row_factors(loss_scales, workspace);
        if let Some(ZLoss { weight, squares }) = &mut z_loss {
            let squares = &mut squares[index * chunk..][..targets.len()];
            penalize(*weight, squares, workspace);
        }
        chunk_gradient(rows, w, values, loss_scales, dx, dw, turns(index), inputs, workspace);
    }
}

/// Steps 1 to 4: `losses` of a chunk, and in the workspace each row's sum S. With `dx`, the
/// exponentials too, and e W.
fn cross_entropy<E: Element>(
    rows: Rows<'_, E>,
    w: &PackedMatrix<E>,
    losses: &mut [f32],
    workspace: &mut HeadWorkspace<E>,
    mut dx: Option<&mut [f32]>,
) {
    let Rows { x, stride, targets } = rows;
    let n = targets.len();
    target_logits(x, stride, &w.backward, targets, &mut workspace.target_logits[..n]);
    workspace.shifts[..n].copy_from_slice(&workspace.target_logits[..n]);
    exponentials(rows, w, workspace, dx.as_deref_mut());
    if workspace.sums[..n].iter().any(out_of_range) {
        raise_shifts(rows, w, workspace);
        exponentials(rows, w, workspace, dx);
    }
    let HeadWorkspace { target_logits, shifts, sums, .. } = workspace;
    let of_rows = sums[..n].iter().zip(shifts).zip(target_logits);
    for (loss, ((sums, shift), target)) in losses.iter_mut().zip(of_rows) {
        *loss = total(*sums).ln() + (*shift - *target);
    }
}

multiversion! {
    /// Step 1, the logit of each row's target. `w` is W packed for the sum over outputs, `[v, d]`.
    fn target_logits<E: Element; NR>(
        x: &[E],
        stride: usize,
        w: &Panels<E>,
        targets: &[u32],
        logits: &mut [f32],
    ) {
        let (d, depth) = (w.lanes(), w.depth().div_ceil(E::PER_UNIT));
        for (row, (logit, &target)) in logits.iter_mut().zip(targets).enumerate() {
            let (x, unit) = (&x[row * stride..][..d], target as usize / E::PER_UNIT);
            let second = !(target as usize).is_multiple_of(E::PER_UNIT);
            // As many sums for any width of panels: the result then has the same bits.
            let mut sums = [0f32; MOST_COLUMNS];
            for (panel, x) in x.chunks(NR).enumerate() {
                let units = &w.units::<NR>()[(panel * depth + unit) * NR..][..NR];
                let sums = &mut sums[panel * NR % MOST_COLUMNS..][..NR];
                for ((sum, &unit), &x) in sums.iter_mut().zip(units).zip(x) {
                    let x =
                        if second { E::unit(E::default(), x) } else { E::unit(x, E::default()) };
                    *sum = E::multiply_add(x, unit, *sum);
                }
            }
            let (halves, _) = sums.as_chunks::<LANES>();
            *logit = halves.iter().map(|half| total(*half)).sum();
        }
    }
}

/// Step 2: `sums` of a chunk; with `dx`, `[n, d]`, the exponentials too, and dx ← e W.
fn exponentials<E: Element>(
    rows: Rows<'_, E>,
    w: &PackedMatrix<E>,
    workspace: &mut HeadWorkspace<E>,
    mut dx: Option<&mut [f32]>,
) {
    let Rows { x, stride, targets } = rows;
    let n = targets.len();
    let (v, d) = (w.forward.lanes(), w.backward.lanes());
    let (width, depth) = (w.forward.depth().div_ceil(E::PER_UNIT), n.div_ceil(E::PER_UNIT));
    let HeadWorkspace { exponentials, exponential_units, shifts, sums, .. } = workspace;
    let (shifts, sums) = (&shifts[..n], &mut sums[..n]);
    let saved_stride = exponentials.stride();
    sums.fill([0.0; LANES]);
    for first in (0..v).step_by(OUTPUTS) {
        let outputs = first..v.min(first + OUTPUTS);
        let saved = dx.is_some().then(|| SavedExponentials {
            rows: exponentials.data_mut(),
            stride: saved_stride,
            units: &mut exponential_units[first * depth..],
            depth,
        });
        let epilogue = SoftmaxEpilogue { shifts, sums, saved };
        multiply_part(x, stride, n, &w.forward, outputs.clone(), 0..width, epilogue);
        if let Some(dx) = &mut dx {
            let units = first / E::PER_UNIT..outputs.end.div_ceil(E::PER_UNIT);
            let epilogue = StoreF32 { out: dx, stride: d, add: first > 0 };
            let e = exponentials.data();
            multiply_part(e, saved_stride, n, &w.backward, 0..d, units, epilogue);
        }
    }
}

/// Whether a row's exponentials are of no use with the shift that they have.
fn out_of_range(sums: &[f32; LANES]) -> bool {
    total(*sums).is_nan() || total(*sums) >= LARGEST_SUM
}

/// Step 3: the shift of each row that is out of range becomes its largest logit.
fn raise_shifts<E: Element>(
    rows: Rows<'_, E>,
    w: &PackedMatrix<E>,
    workspace: &mut HeadWorkspace<E>,
) {
    let Rows { x, stride, targets } = rows;
    let (v, width) = (w.forward.lanes(), w.forward.depth().div_ceil(E::PER_UNIT));
    let mut largest = vec![f32::NEG_INFINITY; targets.len()];
    let epilogue = RowMaxEpilogue { largest: &mut largest };
    multiply_part(x, stride, targets.len(), &w.forward, 0..v, 0..width, epilogue);
    let rows = workspace.shifts.iter_mut().zip(&workspace.sums).zip(largest);
    for ((shift, _), largest) in rows.filter(|((_, sums), _)| out_of_range(sums)) {
        *shift = largest;
    }
}

/// The factor f of each row of a chunk.
fn row_factors<E>(loss_scales: &[f32], workspace: &mut HeadWorkspace<E>) {
    let HeadWorkspace { sums, factors, .. } = workspace;
    for ((factor, sums), loss_scale) in factors.iter_mut().zip(sums).zip(loss_scales) {
        *factor = loss_scale / total(*sums);
    }
}

/// Of each row of a chunk L² into `squares`, and into its factor the gradient of `weight` · L².
fn penalize<E>(weight: f32, squares: &mut [f32], workspace: &mut HeadWorkspace<E>) {
    let HeadWorkspace { shifts, sums, factors, .. } = workspace;
    let rows = factors.iter_mut().zip(sums).zip(shifts);
    for (square, ((factor, sums), shift)) in squares.iter_mut().zip(rows) {
        let log_sum = total(*sums).ln() + *shift;
        *square = log_sum * log_sum;
        *factor *= 1.0 + 2.0 * weight * log_sum;
    }
}

/// Step 5: the chunk's gradient from the exponentials, sums and e W that steps 1 to 4 left, and
/// the factors f, which go where they cost least, to dx and x instead of the exponentials.
#[allow(clippy::too_many_arguments)]
fn chunk_gradient<E: Element>(
    rows: Rows<'_, E>,
    w: &PackedMatrix<E>,
    values: &[f32],
    loss_scales: &[f32],
    dx: &mut [f32],
    dw: &Gradient,
    turn: usize,
    inputs: &mut Panels<E>,
    workspace: &mut HeadWorkspace<E>,
) {
    let Rows { x, stride, targets } = rows;
    let n = targets.len();
    let d = w.backward.lanes();
    let HeadWorkspace { exponential_units, scaled_inputs, factors, .. } = workspace;
    scale_rows(x, stride, d, factors, n, scaled_inputs);
    inputs.pack_columns(scaled_inputs.data(), scaled_inputs.stride(), n, d);
    let depth = n.div_ceil(E::PER_UNIT);
    dw.in_turn(turn, |outputs, dw, add| {
        // A block begins with a panel of the packed exponentials.
        let units = &exponential_units[outputs.start * depth..];
        let epilogue = StoreF32 { out: &mut *dw, stride: d, add };
        multiply_packed(units, outputs.len(), inputs, epilogue);
        for (row, target) in targets.iter().map(|&target| target as usize).enumerate() {
            if outputs.contains(&target) {
                let dw = &mut dw[(target - outputs.start) * d..][..d];
                subtract_inputs(&x[row * stride..][..d], loss_scales[row], dw);
            }
        }
    });
    for (row, (dx, &factor)) in dx.chunks_exact_mut(d).zip(&*factors).enumerate().take(n) {
        let values = &values[targets[row] as usize * d..][..d];
        subtract_target::<E>(values, factor, loss_scales[row], dx);
    }
}

multiversion! {
    /// `scaled` ← the first `rows` rows of x, d wide, each times its factor.
    fn scale_rows<E: Element>(
        x: &[E],
        stride: usize,
        d: usize,
        factors: &[f32],
        rows: usize,
        scaled: &mut Matrix<E>,
    ) {
        for (row, (x, &factor)) in x.chunks(stride).zip(factors).enumerate().take(rows) {
            for (scaled, x) in scaled.row_mut(row)[..d].iter_mut().zip(x) {
                *scaled = E::narrow(x.widen() * factor);
            }
        }
    }
}

multiversion! {
    /// Of one row: dW_t ← dW_t − loss_scale · x.
    fn subtract_inputs<E: Element>(x: &[E], loss_scale: f32, dw: &mut [f32]) {
        for (x, dw) in x.iter().zip(dw) {
            *dw -= loss_scale * x.widen();
        }
    }
}

multiversion! {
    /// Of one row: dx ← factor · dx − loss_scale · W_t. `values` is W_t in f32, which is rounded as
    /// products read it.
    fn subtract_target<E: Element>(
        values: &[f32],
        factor: f32,
        loss_scale: f32,
        dx: &mut [f32],
    ) {
        for (value, dx) in values.iter().zip(dx) {
            *dx = *dx * factor - loss_scale * E::narrow(*value).widen();
        }
    }
}
