//! The kernel set on the processor.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::adamw::{AdamWStep, accumulate, adamw, sum_of_squares};
use crate::attention::{AttentionWorkspace, Heads, attention, attention_backward};
use crate::backend::Backend;
use crate::buffer::{Buffer, Matrix};
use crate::cache::{Cache, attention_step};
use crate::element::Element;
use crate::gemm::{
    Onto, Rounded, Summed, multiply, multiply_packed, multiply_part, multiply_transposed,
};
use crate::isa::multiversion;
use crate::loss::{Kept, LIMIT, Largest, Softmax};
use crate::math::{LANES, total};
use crate::micro::NR;
use crate::norm::{rms_norm, rms_norm_backward};
use crate::pack::{Panels, To};
use crate::rope::{Rotations, rotate};
use crate::swiglu::{swiglu, swiglu_backward};

/// Logits that are held at once, a thread.
const LOGITS: usize = 1 << 23;
/// Outputs of the head whose logits go through the gradient of its input at once, a multiple of NR:
/// few enough for those of all rows to stay in the cache.
const OUTPUTS: usize = 512;
/// Parameters that are added up or updated at once.
const CHUNK: usize = 1 << 14;

/// The kernel set on the processor, with activations of `E`.
pub struct Cpu<E> {
    pool: ThreadPool,
    of: PhantomData<E>,
}

impl<E> Cpu<E> {
    /// On `threads` threads.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self { pool: ThreadPoolBuilder::new().num_threads(threads).build()?, of: PhantomData })
    }
}

/// A parameter `[o, i]`.
pub struct PackedMatrix<E> {
    /// `[i, o]`: depth i.
    forward: Panels<E>,
    /// `[o, i]`: depth o.
    backward: Panels<E>,
}

/// What one thread needs in between.
pub struct CpuWorkspace<E> {
    attention: AttentionWorkspace<E>,
    /// A strip of a transposed left operand.
    strip: Vec<u32>,
    /// The right operand of a parameter's gradient.
    inputs: Panels<E>,
    head: HeadRoom<E>,
}

/// What the head needs for the rows that it takes at once.
struct HeadRoom<E> {
    /// Exponentials of some outputs' logits, in rows.
    exponentials: Matrix<E>,
    /// And of all, packed for the product over rows.
    units: Buffer<u32>,
    /// The inputs, each row times its factor.
    scaled: Matrix<E>,
    /// Logits of the targets, what is subtracted from each row's logits, its sum of exponentials,
    /// what becomes of that.
    at_target: Vec<f32>,
    shifts: Vec<f32>,
    sums: Vec<[f32; LANES]>,
    factors: Vec<f32>,
}

impl<E: Element> Backend for Cpu<E>
where
    f32: To<E>,
{
    type Floats = Buffer<f32>;
    type Activations = Matrix<E>;
    type Matrix = PackedMatrix<E>;
    type Workspace = CpuWorkspace<E>;
    type Cache = Cache<E>;

    fn precision(&self) -> &'static str {
        E::NAME
    }

    fn floats(&self, len: usize) -> Buffer<f32> {
        Buffer::zeros(len)
    }

    fn activations(&self, rows: usize, columns: usize) -> Matrix<E> {
        Matrix::zeros(rows, columns)
    }

    fn workspace(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        vocab_size: usize,
        widest: usize,
        backward: bool,
    ) -> CpuWorkspace<E> {
        let at_once = (LOGITS / vocab_size).clamp(16, rows.max(16)).min(rows).max(1);
        CpuWorkspace {
            attention: AttentionWorkspace::new(context, heads, backward),
            strip: Vec::new(),
            inputs: if backward { Panels::zeros(widest, rows) } else { Panels::zeros(0, 0) },
            head: HeadRoom {
                exponentials: Matrix::zeros(
                    if backward { at_once } else { 0 },
                    OUTPUTS.min(vocab_size.next_multiple_of(NR)),
                ),
                units: Buffer::zeros(if backward {
                    vocab_size.next_multiple_of(NR) * at_once.div_ceil(E::PER_UNIT)
                } else {
                    0
                }),
                scaled: Matrix::zeros(
                    if backward { at_once } else { 0 },
                    if backward { widest } else { 0 },
                ),
                at_target: vec![0.0; at_once],
                shifts: vec![0.0; at_once],
                sums: vec![[0.0; LANES]; at_once],
                factors: vec![0.0; at_once],
            },
        }
    }

    fn write(&self, floats: &mut Buffer<f32>, at: usize, values: &[f32]) {
        floats[at..][..values.len()].copy_from_slice(values);
    }

    fn read(&self, floats: &Buffer<f32>, range: Range<usize>) -> Vec<f32> {
        floats[range].to_vec()
    }

    fn clear(&self, floats: &mut Buffer<f32>) {
        floats.fill(0.0);
    }

    fn matrix(&self, o: usize, i: usize) -> PackedMatrix<E> {
        PackedMatrix { forward: Panels::zeros(o, i), backward: Panels::zeros(i, o) }
    }

    fn lay_out(&self, values: &Buffer<f32>, matrix: &mut PackedMatrix<E>) {
        let (o, i) = (matrix.forward.lanes(), matrix.forward.depth());
        let PackedMatrix { forward, backward } = matrix;
        self.pool.join(
            || forward.pack_rows::<f32>(values, i, o, i),
            || backward.pack_columns::<f32>(values, i, o, i),
        );
    }

    fn embed(&self, table: &Buffer<f32>, d: usize, ids: &[u32], x_nd: &mut Buffer<f32>) {
        for (x, &id) in x_nd.chunks_exact_mut(d).zip(ids) {
            x.copy_from_slice(&table[id as usize * d..][..d]);
        }
    }

    fn embed_backward(
        &self,
        d: usize,
        ids: &[u32],
        dx_nd: &Buffer<f32>,
        gradient: &mut Buffer<f32>,
    ) {
        for (dx, &id) in dx_nd.chunks_exact(d).zip(ids) {
            accumulate(&mut gradient[id as usize * d..][..d], dx);
        }
    }

    fn norm(
        &self,
        rows: usize,
        x_nd: &Buffer<f32>,
        gain_d: &Buffer<f32>,
        eps: f32,
        y_nd: &mut Matrix<E>,
        scale_n: &mut Buffer<f32>,
    ) {
        rms_norm(&x_nd[..rows * gain_d.len()], gain_d, eps, y_nd, scale_n);
    }

    fn norm_backward(
        &self,
        rows: usize,
        context: usize,
        x_nd: &Buffer<f32>,
        gain_d: &Buffer<f32>,
        scale_n: &Buffer<f32>,
        dy_nd: &Buffer<f32>,
        fresh: bool,
        dx_nd: &mut Buffer<f32>,
        rounded_nd: &mut Matrix<E>,
        gains_bd: &mut Buffer<f32>,
    ) {
        let (d, stride) = (gain_d.len(), rounded_nd.stride());
        if fresh {
            dx_nd[..rows * d].fill(0.0);
        }
        for (b, gain_gradient) in gains_bd.chunks_exact_mut(d).enumerate().take(rows / context) {
            let (from, floats) = (b * context, b * context * d..(b + 1) * context * d);
            gain_gradient.fill(0.0);
            rms_norm_backward(
                &x_nd[floats.clone()],
                gain_d,
                &scale_n[from..][..context],
                &dy_nd[floats.clone()],
                &mut dx_nd[floats],
                &mut rounded_nd.data_mut()[from * stride..],
                stride,
                gain_gradient,
            );
        }
    }

    fn linear(&self, rows: usize, x_ni: &Matrix<E>, w: &PackedMatrix<E>, y_no: &mut Matrix<E>) {
        let stride = y_no.stride();
        multiply(
            x_ni.data(),
            x_ni.stride(),
            rows,
            &w.forward,
            Rounded { out: y_no.data_mut(), stride },
        );
    }

    fn linear_onto(
        &self,
        rows: usize,
        x_ni: &Matrix<E>,
        w: &PackedMatrix<E>,
        base_no: &Buffer<f32>,
        y_no: &mut Buffer<f32>,
    ) {
        let stride = w.forward.lanes();
        multiply(
            x_ni.data(),
            x_ni.stride(),
            rows,
            &w.forward,
            Onto { base: base_no, out: y_no, stride },
        );
    }

    fn linear_floats(
        &self,
        rows: usize,
        x_ni: &Matrix<E>,
        w: &PackedMatrix<E>,
        y_no: &mut Buffer<f32>,
    ) {
        let stride = w.forward.lanes();
        multiply(
            x_ni.data(),
            x_ni.stride(),
            rows,
            &w.forward,
            Summed { out: y_no, stride, add: false },
        );
    }

    fn linear_backward(
        &self,
        rows: usize,
        dy_no: &Matrix<E>,
        w: &PackedMatrix<E>,
        dx_ni: &mut Matrix<E>,
    ) {
        let stride = dx_ni.stride();
        multiply(
            dy_no.data(),
            dy_no.stride(),
            rows,
            &w.backward,
            Rounded { out: dx_ni.data_mut(), stride },
        );
    }

    fn linear_backward_floats(
        &self,
        rows: usize,
        dy_no: &Matrix<E>,
        w: &PackedMatrix<E>,
        dx_ni: &mut Buffer<f32>,
    ) {
        let stride = w.backward.lanes();
        multiply(
            dy_no.data(),
            dy_no.stride(),
            rows,
            &w.backward,
            Summed { out: dx_ni, stride, add: false },
        );
    }

    fn linear_gradient(
        &self,
        rows: usize,
        dy_no: &Matrix<E>,
        x_ni: &Matrix<E>,
        add: bool,
        dw_oi: &mut Buffer<f32>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let CpuWorkspace { inputs, strip, .. } = workspace;
        let i = x_ni.columns();
        inputs.pack_columns(x_ni.data(), x_ni.stride(), rows, i);
        multiply_transposed(
            dy_no.data(),
            dy_no.stride(),
            dy_no.columns(),
            inputs,
            Summed { out: dw_oi, stride: i, add },
            strip,
        );
    }

    fn rotate(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        rotations: &Rotations,
        backward: bool,
        qkv: &mut Matrix<E>,
    ) {
        let stride = qkv.stride();
        rotate(
            &mut qkv.data_mut()[..rows * stride],
            stride,
            0,
            context,
            heads.query + heads.kv,
            rotations,
            backward,
        );
    }

    fn attention(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        qkv: &Matrix<E>,
        out: &mut Matrix<E>,
        log_sums: &mut Buffer<f32>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let (stride, out_stride) = (qkv.stride(), out.stride());
        for b in 0..rows / context {
            let from = b * context;
            let log_sums = &mut log_sums[from * heads.query..][..context * heads.query];
            attention(
                &qkv.data()[from * stride..],
                stride,
                context,
                heads,
                &mut out.data_mut()[from * out_stride..],
                out_stride,
                log_sums,
                &mut workspace.attention,
            );
        }
    }

    fn attention_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        qkv: &Matrix<E>,
        out: &Matrix<E>,
        d_out: &Matrix<E>,
        log_sums: &Buffer<f32>,
        d_qkv: &mut Matrix<E>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let (stride, out_stride) = (qkv.stride(), out.stride());
        for b in 0..rows / context {
            let from = b * context;
            attention_backward(
                &qkv.data()[from * stride..],
                stride,
                context,
                heads,
                &out.data()[from * out_stride..],
                &d_out.data()[from * out_stride..],
                out_stride,
                &log_sums[from * heads.query..][..context * heads.query],
                &mut d_qkv.data_mut()[from * stride..],
                &mut workspace.attention,
            );
        }
    }

    fn attention_step(
        &self,
        heads: Heads,
        rotations: &Rotations,
        qkv: &mut Matrix<E>,
        cache: &mut Cache<E>,
        out: &mut Matrix<E>,
    ) {
        attention_step(qkv.row_mut(0), heads, rotations, cache, out.row_mut(0));
    }

    fn swiglu(&self, rows: usize, gate_up: &Matrix<E>, h_nf: &mut Matrix<E>) {
        swiglu(gate_up, h_nf, rows);
    }

    fn swiglu_backward(&self, rows: usize, dh_nf: &Matrix<E>, gate_up: &mut Matrix<E>) {
        swiglu_backward(gate_up, dh_nf, rows);
    }

    fn head(
        &self,
        x_nd: &Matrix<E>,
        w: &PackedMatrix<E>,
        targets: &[u32],
        losses: &mut [f32],
        workspace: &mut CpuWorkspace<E>,
    ) {
        let at_once = workspace.head.shifts.len();
        for (chunk, (targets, losses)) in
            targets.chunks(at_once).zip(losses.chunks_mut(at_once)).enumerate()
        {
            let x = &x_nd.data()[chunk * at_once * x_nd.stride()..];
            cross_entropy(x, x_nd.stride(), w, targets, losses, &mut workspace.head, None);
        }
    }

    fn head_backward(
        &self,
        x_nd: &Matrix<E>,
        w: &PackedMatrix<E>,
        values: &Buffer<f32>,
        targets: &[u32],
        shares: &[f32],
        losses: &mut [f32],
        dx_nd: &mut Buffer<f32>,
        add: bool,
        dw_vd: &mut Buffer<f32>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let CpuWorkspace { inputs, head, .. } = workspace;
        let (at_once, d, stride) = (head.shifts.len(), x_nd.columns(), x_nd.stride());
        let chunks = targets
            .chunks(at_once)
            .zip(losses.chunks_mut(at_once))
            .zip(shares.chunks(at_once))
            .zip(dx_nd.chunks_mut(at_once * d));
        for (chunk, (((targets, losses), shares), dx)) in chunks.enumerate() {
            let (first, rows) = (chunk * at_once, targets.len());
            let x = &x_nd.data()[first * stride..];
            cross_entropy(x, stride, w, targets, losses, head, Some(dx));
            // The softmax is an exponential over its row's sum: that, and the row's share, go where
            // they cost least, to dx and x.
            let HeadRoom { units, scaled, sums, factors, .. } = &mut *head;
            for ((factor, sums), share) in factors.iter_mut().zip(sums).zip(shares) {
                *factor = share / total(*sums);
            }
            scale_rows(x, stride, d, factors, rows, scaled);
            inputs.pack_columns(scaled.data(), scaled.stride(), rows, d);
            let epilogue = Summed { out: &mut *dw_vd, stride: d, add: add || chunk > 0 };
            multiply_packed(units, w.forward.lanes(), inputs, epilogue);
            for (row, (dx, factor)) in dx.chunks_exact_mut(d).zip(factors).enumerate().take(rows) {
                let (at, share) = (targets[row] as usize * d, shares[row]);
                let (values, dw) = (&values[at..][..d], &mut dw_vd[at..][..d]);
                subtract_target(x_nd.row(first + row), values, *factor, share, dx, dw);
            }
        }
    }

    fn shards(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn side_by_side<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send) {
        self.pool.install(|| items.par_iter_mut().with_max_len(1).for_each(work));
    }

    fn reduce(&self, gradients: &mut [&mut Buffer<f32>]) -> f64 {
        let Some((sum, others)) = gradients.split_first_mut() else { return 0.0 };
        let others: Vec<&[f32]> = others.iter().map(|other| &***other).collect();
        // One partial sum a chunk, added in their order: the result does not depend on the threads.
        let partial = |(chunk, sum): (usize, &mut [f32])| {
            for other in &others {
                accumulate(sum, &other[chunk * CHUNK..][..sum.len()]);
            }
            sum_of_squares(sum)
        };
        let sums: Vec<f64> =
            self.pool.install(|| sum.par_chunks_mut(CHUNK).enumerate().map(partial).collect());
        sums.iter().sum()
    }

    fn update(
        &self,
        values: &mut Buffer<f32>,
        gradient: &Buffer<f32>,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
        step: &AdamWStep,
    ) {
        self.pool.install(|| {
            let chunks = values
                .par_chunks_mut(CHUNK)
                .zip(gradient.par_chunks(CHUNK))
                .zip(first.par_chunks_mut(CHUNK))
                .zip(second.par_chunks_mut(CHUNK));
            chunks.for_each(|(((values, gradient), first), second)| {
                adamw(values, gradient, first, second, step)
            });
        });
    }
}

multiversion! {
    /// `scaled` ← the first `rows` rows of x, each times its factor.
    fn scale_rows<E: Element>(x: &[E], stride: usize, d: usize, factors: &[f32], rows: usize, scaled: &mut Matrix<E>) {
        for (row, (x, &factor)) in x.chunks(stride).zip(factors).enumerate().take(rows) {
            for (scaled, x) in scaled.row_mut(row)[..d].iter_mut().zip(x) {
                *scaled = E::narrow(x.widen() * factor);
            }
        }
    }
}

multiversion! {
    /// dx ← factor · dx, and the part −share · 1_target of the gradient of logits: dx −= share ·
    /// W_target, dW_target −= share · x.
    fn subtract_target<E: Element>(x: &[E], values: &[f32], factor: f32, share: f32, dx: &mut [f32], dw: &mut [f32]) {
        for (((x, value), dx), dw) in x.iter().zip(values).zip(dx).zip(dw) {
            *dx = *dx * factor - share * E::narrow(*value).widen();
            *dw -= share * x.widen();
        }
    }
}

/// Losses of rows `x`, `stride` apart, and each one's sum of exponentials in `workspace`; with `dx`,
/// `[n, d]`, its gradient but for a factor a row, and the exponentials packed in `workspace`.
fn cross_entropy<E: Element>(
    x: &[E],
    stride: usize,
    w: &PackedMatrix<E>,
    targets: &[u32],
    losses: &mut [f32],
    workspace: &mut HeadRoom<E>,
    mut dx: Option<&mut [f32]>,
) {
    let rows = targets.len();
    let (v, depth) = (w.forward.lanes(), 0..w.forward.depth().div_ceil(E::PER_UNIT));
    let HeadRoom { exponentials, units, at_target, shifts, sums, .. } = workspace;
    let (at_target, shifts, sums) =
        (&mut at_target[..rows], &mut shifts[..rows], &mut sums[..rows]);
    target_logits(x, stride, &w.backward, targets, at_target);
    shifts.copy_from_slice(at_target);
    for again in [false, true] {
        sums.fill([0.0; LANES]);
        for first in (0..v).step_by(OUTPUTS) {
            let outputs = first..v.min(first + OUTPUTS);
            let kept_stride = exponentials.stride();
            let kept = dx.is_some().then(|| Kept {
                rows: exponentials.data_mut(),
                stride: kept_stride,
                units: &mut units[first * rows.div_ceil(E::PER_UNIT)..],
                depth: rows.div_ceil(E::PER_UNIT),
            });
            let epilogue = Softmax { shifts, sums, kept };
            multiply_part(x, stride, rows, &w.forward, outputs.clone(), depth.clone(), epilogue);
            if let Some(dx) = &mut dx {
                let of_depth = first / E::PER_UNIT..outputs.end.div_ceil(E::PER_UNIT);
                let epilogue = Summed { out: dx, stride: w.backward.lanes(), add: first > 0 };
                multiply_part(
                    exponentials.data(),
                    kept_stride,
                    rows,
                    &w.backward,
                    0..w.backward.lanes(),
                    of_depth,
                    epilogue,
                );
            }
        }
        // Once more, for rows so far from their target that it does not do as a shift, with the
        // largest.
        let far = |sums: &[f32; LANES]| total(*sums).is_nan() || total(*sums) >= LIMIT;
        if again || !sums.iter().any(far) {
            break;
        }
        let mut largest = vec![f32::NEG_INFINITY; rows];
        multiply_part(
            x,
            stride,
            rows,
            &w.forward,
            0..v,
            depth.clone(),
            Largest { largest: &mut largest },
        );
        for ((shift, largest), _) in
            shifts.iter_mut().zip(largest).zip(&*sums).filter(|(_, sums)| far(sums))
        {
            *shift = largest;
        }
    }
    for (((loss, sums), shift), at_target) in losses.iter_mut().zip(sums).zip(shifts).zip(at_target)
    {
        *loss = total(*sums).ln() + (*shift - *at_target);
    }
}

multiversion! {
    /// The logit of each row's target: `w` is the head's parameter, `[v, d]`.
    fn target_logits<E: Element>(x: &[E], stride: usize, w: &Panels<E>, targets: &[u32], logits: &mut [f32]) {
        let (d, depth) = (w.lanes(), w.depth().div_ceil(E::PER_UNIT));
        for (row, (logit, &target)) in logits.iter_mut().zip(targets).enumerate() {
            let (x, unit) = (&x[row * stride..][..d], target as usize / E::PER_UNIT);
            let second = !(target as usize).is_multiple_of(E::PER_UNIT);
            let mut sums = [0f32; NR];
            for (panel, x) in x.chunks(NR).enumerate() {
                let units = &w.units()[(panel * depth + unit) * NR..][..NR];
                for ((sum, &unit), &x) in sums.iter_mut().zip(units).zip(x) {
                    let x = if second { E::unit(E::default(), x) } else { E::unit(x, E::default()) };
                    *sum = E::multiply_add(x, unit, *sum);
                }
            }
            let (halves, _) = sums.as_chunks::<LANES>();
            *logit = halves.iter().map(|half| total(*half)).sum();
        }
    }
}
