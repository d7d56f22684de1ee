//! The backend on the processor.
//!
//! A kernel runs on the thread that calls it: the caller splits a batch among workers. Five methods
//! use the backend's own thread pool instead, over all parameters at once: `pack`, `reduce`,
//! `adamw`, `sgd` and `move_average`. Their results do not depend on the number of threads.

use std::marker::PhantomData;
use std::ops::Range;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::backend::Backend;
use crate::buffer::{Buffer, Matrix};
use crate::collective::{Collective, CollectiveError};
use crate::device::DeviceError;
use crate::element::{Element, ElementType, RoundTo};
use crate::gradient::Gradient;
use crate::ops::{
    self, AdamWStep, AttentionWorkspace, HeadNorm, HeadWorkspace, Heads, KvCache, LinearWorkspace,
    MuonStep, MuonWorkspace, PackedMatrix, Rotations, SgdStep, ZLoss,
};

/// Tokens of a micro-batch where nobody says how many: enough rows for a product to be worth
/// reading its parameters, few enough for the activations of a layer to stay in the cache.
const MICRO_TOKENS: usize = 512;

/// The backend on the processor, with activations of `E`.
pub struct Cpu<E> {
    pool: ThreadPool,
    of: PhantomData<E>,
}

impl<E> Cpu<E> {
    /// A backend with a pool of `threads` threads.
    ///
    /// # Errors
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self { pool: ThreadPoolBuilder::new().num_threads(threads).build()?, of: PhantomData })
    }
}

/// One worker's memory for what kernels need in between.
pub struct CpuWorkspace<E> {
    attention: AttentionWorkspace<E>,
    linear: LinearWorkspace<E>,
    head: HeadWorkspace<E>,
}

impl<E: Element> Backend for Cpu<E>
where
    f32: RoundTo<E>,
{
    type Floats = Buffer<f32>;
    type Ids = Vec<u32>;
    type Activations = Matrix<E>;
    type Matrix = PackedMatrix<E>;
    type Gradient = Gradient;
    type Workspace = CpuWorkspace<E>;
    type MuonWorkspace = MuonWorkspace;
    type KvCache = KvCache<E>;
    type Rotations = Rotations;
    type Mark = Instant;

    fn status(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn mark(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> f64 {
        (*to - *from).as_secs_f64()
    }

    fn micro_tokens(&self) -> usize {
        MICRO_TOKENS
    }

    fn element_type(&self) -> ElementType {
        E::TYPE
    }

    fn floats(&self, len: usize) -> Buffer<f32> {
        Buffer::zeros(len)
    }

    fn activations(&self, rows: usize, columns: usize) -> Matrix<E> {
        Matrix::zeros(rows, columns)
    }

    fn matrix(&self, o: usize, i: usize) -> PackedMatrix<E> {
        PackedMatrix::zeros(o, i)
    }

    fn gradient(&self, o: usize, i: usize) -> Gradient {
        Gradient::zeros(o, i)
    }

    fn begin_gradient(&self, gradient: &Gradient, turns: usize) {
        gradient.begin(turns);
    }

    fn fail_gradient(&self, gradient: &Gradient) {
        gradient.fail();
    }

    fn read_gradient(&self, gradient: &Gradient, range: Range<usize>) -> Vec<f32> {
        gradient.read(range)
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
        CpuWorkspace {
            attention: AttentionWorkspace::new(context, heads, backward),
            linear: LinearWorkspace::new(if backward { rows } else { 0 }, widest),
            head: HeadWorkspace::new(rows, vocab_size, widest, backward),
        }
    }

    fn write(&self, floats: &mut Buffer<f32>, at: usize, values: &[f32]) {
        floats[at..][..values.len()].copy_from_slice(values);
    }

    fn read(&self, floats: &Buffer<f32>, range: Range<usize>) -> Vec<f32> {
        floats[range].to_vec()
    }

    fn write_ids(&self, values: &[u32], ids: &mut Vec<u32>) {
        ids.clear();
        ids.extend_from_slice(values);
    }

    fn rotations(&self, rotations: &Rotations) -> Rotations {
        rotations.clone()
    }

    fn pack(&self, values: &Buffer<f32>, matrix: &mut PackedMatrix<E>) {
        self.pool.install(|| matrix.pack(values));
    }

    fn embed(&self, table: &Buffer<f32>, d: usize, ids: &Vec<u32>, x: &mut Buffer<f32>) {
        ops::embed(table, d, ids, x);
    }

    fn embed_backward(
        &self,
        d: usize,
        ids: &Vec<u32>,
        dx: &Buffer<f32>,
        gradient: &Gradient,
        turn: usize,
    ) {
        ops::embed_backward(d, ids, dx, gradient, turn);
    }

    fn gain_gradient(
        &self,
        sequences: usize,
        gains: &Buffer<f32>,
        gradient: &Gradient,
        turn: usize,
    ) {
        ops::gain_gradient(sequences, gains, gradient, turn);
    }

    fn norm(
        &self,
        rows: usize,
        x: &Buffer<f32>,
        gain: &Buffer<f32>,
        eps: f32,
        y: &mut Matrix<E>,
        scale: &mut Buffer<f32>,
    ) {
        ops::rms_norm(&x[..rows * gain.len()], gain, eps, y, scale);
    }

    fn norm_backward(
        &self,
        rows: usize,
        context: usize,
        x: &Buffer<f32>,
        gain: &Buffer<f32>,
        scale: &Buffer<f32>,
        dy: &Buffer<f32>,
        overwrite: bool,
        dx: &mut Buffer<f32>,
        rounded: &mut Matrix<E>,
        gains: &mut Buffer<f32>,
    ) {
        ops::rms_norm_backward(rows, context, x, gain, scale, dy, overwrite, dx, rounded, gains);
    }

    fn linear(&self, rows: usize, x: &Matrix<E>, w: &PackedMatrix<E>, y: &mut Matrix<E>) {
        ops::linear(rows, x, w, y);
    }

    fn linear_biased(
        &self,
        rows: usize,
        x: &Matrix<E>,
        w: &PackedMatrix<E>,
        bias: &Buffer<f32>,
        y: &mut Matrix<E>,
    ) {
        ops::linear_biased(rows, x, w, bias, y);
    }

    fn bias_gradient(&self, rows: usize, dy: &Matrix<E>, gradient: &Gradient, turn: usize) {
        ops::bias_gradient(rows, dy, gradient, turn);
    }

    fn linear_residual(
        &self,
        rows: usize,
        x: &Matrix<E>,
        w: &PackedMatrix<E>,
        residual: &Buffer<f32>,
        y: &mut Buffer<f32>,
    ) {
        ops::linear_residual(rows, x, w, residual, y);
    }

    fn linear_floats(&self, rows: usize, x: &Matrix<E>, w: &PackedMatrix<E>, y: &mut Buffer<f32>) {
        ops::linear_f32(rows, x, w, y);
    }

    fn linear_backward(&self, n: usize, dy: &Matrix<E>, w: &PackedMatrix<E>, dx: &mut Matrix<E>) {
        ops::linear_backward(n, dy, w, dx);
    }

    fn linear_backward_floats(
        &self,
        rows: usize,
        dy: &Matrix<E>,
        w: &PackedMatrix<E>,
        dx: &mut Buffer<f32>,
    ) {
        ops::linear_backward_f32(rows, dy, w, dx);
    }

    fn linear_gradient(
        &self,
        rows: usize,
        dy: &Matrix<E>,
        x: &Matrix<E>,
        dw: &Gradient,
        turn: usize,
        workspace: &mut CpuWorkspace<E>,
    ) {
        ops::linear_gradient(rows, dy, x, dw, turn, &mut workspace.linear);
    }

    fn head_norm(
        &self,
        rows: usize,
        heads: Heads,
        gains: &Buffer<f32>,
        eps: f32,
        qkv: &mut Matrix<E>,
        kept: &mut Matrix<E>,
        scale: &mut Buffer<f32>,
    ) {
        let (stride, kept_stride) = (qkv.stride(), kept.stride());
        let rows = &mut qkv.data_mut()[..rows * stride];
        let norm = HeadNorm { heads, gains, eps };
        ops::head_norm(norm, rows, stride, kept.data_mut(), kept_stride, scale);
    }

    fn head_norm_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        gains: &Buffer<f32>,
        kept: &Matrix<E>,
        scale: &Buffer<f32>,
        d_qkv: &mut Matrix<E>,
        gain_gradients: &mut Buffer<f32>,
    ) {
        let (stride, kept_stride) = (d_qkv.stride(), kept.stride());
        let rows = &mut d_qkv.data_mut()[..rows * stride];
        // What ε did is in the scale.
        let norm = HeadNorm { heads, gains, eps: 0.0 };
        let kept = kept.data();
        ops::head_norm_backward(
            norm,
            context,
            kept,
            kept_stride,
            scale,
            rows,
            stride,
            gain_gradients,
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
        let (stride, rotated) = (qkv.stride(), heads.query + heads.kv);
        let rows = &mut qkv.data_mut()[..rows * stride];
        ops::rotate(rows, stride, 0, context, rotated, rotations, backward);
    }

    fn attention(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Vec<u32>>,
        qkv: &Matrix<E>,
        out: &mut Matrix<E>,
        log_sums: &mut Buffer<f32>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let (documents, workspace) = (documents.map(Vec::as_slice), &mut workspace.attention);
        ops::attention(rows, context, heads, documents, qkv, out, log_sums, workspace);
    }

    fn attention_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Vec<u32>>,
        qkv: &Matrix<E>,
        out: &Matrix<E>,
        d_out: &Matrix<E>,
        log_sums: &Buffer<f32>,
        d_qkv: &mut Matrix<E>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        ops::attention_backward(
            rows,
            context,
            heads,
            documents.map(Vec::as_slice),
            qkv,
            out,
            d_out,
            log_sums,
            d_qkv,
            &mut workspace.attention,
        );
    }

    fn cache(&self, rows: usize, heads: Heads, qkv: &Matrix<E>, cache: &mut KvCache<E>) {
        cache.append(rows, qkv.data(), qkv.stride(), heads);
    }

    fn attention_step(
        &self,
        row: usize,
        heads: Heads,
        rotations: Option<&Rotations>,
        qkv: &mut Matrix<E>,
        cache: &mut KvCache<E>,
        out: &mut Matrix<E>,
    ) {
        ops::attention_step(qkv.row_mut(row), heads, rotations, cache, out.row_mut(row));
    }

    fn swiglu(&self, rows: usize, gate_up: &Matrix<E>, h: &mut Matrix<E>) {
        ops::swiglu(gate_up, h, rows);
    }

    fn swiglu_backward(&self, rows: usize, dh: &Matrix<E>, gate_up: &mut Matrix<E>) {
        ops::swiglu_backward(gate_up, dh, rows);
    }

    fn head(
        &self,
        x: &Matrix<E>,
        w: &PackedMatrix<E>,
        targets: &Vec<u32>,
        losses: &mut Buffer<f32>,
        workspace: &mut CpuWorkspace<E>,
    ) {
        ops::head_loss(x, w, targets, losses, &mut workspace.head);
    }

    fn head_backward(
        &self,
        x: &Matrix<E>,
        w: &PackedMatrix<E>,
        values: &Buffer<f32>,
        targets: &Vec<u32>,
        scales: &Buffer<f32>,
        losses: &mut Buffer<f32>,
        z_loss: Option<(f32, &mut Buffer<f32>)>,
        dx: &mut Buffer<f32>,
        dw: &Gradient,
        turns: impl Fn(usize) -> usize,
        workspace: &mut CpuWorkspace<E>,
    ) {
        let (inputs, head) = (&mut workspace.linear.inputs, &mut workspace.head);
        let z_loss = z_loss.map(|(weight, squares)| ZLoss { weight, squares });
        ops::head_backward(
            x, w, values, targets, scales, losses, z_loss, dx, dw, turns, inputs, head,
        );
    }

    fn head_turns(&self, rows: usize, vocab_size: usize) -> usize {
        ops::head_turns(rows, vocab_size)
    }

    fn workers(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn parallel<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send) {
        self.pool.install(|| items.par_iter_mut().with_max_len(1).for_each(work));
    }

    fn reduce(&self, parameters: &mut [Vec<&mut Gradient>]) -> f64 {
        self.pool.install(|| parameters.iter_mut().map(|each| ops::reduce(each)).sum())
    }

    fn sum_over_ranks(
        &self,
        gradients: &[&Gradient],
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<Duration, CollectiveError> {
        ops::sum_over_ranks(gradients, root, ranks)
    }

    fn broadcast(
        &self,
        floats: &mut Buffer<f32>,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        ranks.broadcast(root, floats)
    }

    fn adamw(
        &self,
        values: &mut Buffer<f32>,
        gradient: &Gradient,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
        step: &AdamWStep,
    ) {
        self.pool.install(|| ops::adamw_parallel(values, gradient, first, second, step));
    }

    fn sgd(
        &self,
        values: &mut Buffer<f32>,
        gradient: &Gradient,
        momentum: Option<&mut Buffer<f32>>,
        step: &SgdStep,
    ) {
        let momentum = momentum.map(|momentum| &mut momentum[..]);
        self.pool.install(|| ops::sgd_parallel(values, gradient, momentum, step));
    }

    fn muon_workspace(&self, matrices: &[[usize; 2]]) -> MuonWorkspace {
        MuonWorkspace::new(matrices)
    }

    fn muon(
        &self,
        values: &mut Buffer<f32>,
        gradient: &Gradient,
        momentum: &mut Buffer<f32>,
        at: usize,
        shape: [usize; 2],
        step: &MuonStep<'_>,
        workspace: &mut MuonWorkspace,
    ) {
        ops::muon(values, gradient, momentum, at, shape, step, workspace);
    }

    fn move_average(&self, average: &mut Buffer<f32>, values: &Buffer<f32>, share: f32) {
        self.pool.install(|| ops::move_average_parallel(average, values, share));
    }
}
