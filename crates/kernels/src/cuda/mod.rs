//! The backend on a device of CUDA's model.
//!
//! [`Cuda`] is written over the trait [`Device`]: memory, kernels and matrix products, of a GPU or,
//! for tests, of the processor in its place. A file here launches the kernels of the source of its
//! name.
//!
//! A device does everything in the order of the calls, so there is one worker, and turns come in
//! their order by themselves. What a call's kernels need in between lies in one piece of memory,
//! which the next call uses again.
//!
//! **Same bits on every run**: nothing is added atomically, and every sum is cut into parts by the
//! sizes alone.

mod attention;
mod bias;
mod embedding;
mod gpu;
mod head;
mod head_norm;
mod kv_cache;
mod launch;
mod linear;
mod memory;
mod muon;
mod norm;
mod optimizer;
mod reduce;
mod rotate;
mod sources;
mod swiglu;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use gpu::{Gpu, GpuInfo, gpu_peak_flops};

use crate::backend::Backend;
use crate::collective::{Collective, CollectiveError};
use crate::device::{Device, DeviceError};
use crate::element::ElementType;
use crate::ops::{self, AdamWStep, Heads, MuonStep, SgdStep};
use kv_cache::KvCache;
use memory::{Activations, Floats, Gradient, Ids, Rotations, Scratch};
use muon::MuonWorkspace;

/// Tokens of a micro-batch where nobody says how many: enough for every product to fill a device.
const MICRO_TOKENS: usize = 1 << 16;

/// The backend on a device, with activations of one element type.
pub struct Cuda<D: Device> {
    device: D,
    element: ElementType,
    logits: usize,
    scratch: Mutex<Scratch<D>>,
}

impl<D: Device> Cuda<D> {
    /// A backend on `device`, with activations and packed parameters of `element`.
    pub fn new(device: D, element: ElementType) -> Self {
        Self { device, element, logits: head::LOGITS, scratch: Mutex::new(Scratch::new()) }
    }

    /// The same, whose head holds at most so many logits at a time, or those of one row.
    pub fn with_logits(self, logits: usize) -> Self {
        Self { logits, ..self }
    }

    /// Memory for what is gone when a call's kernels have run.
    fn scratch(&self) -> MutexGuard<'_, Scratch<D>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What kernels need in between, from call to call.
pub struct CudaWorkspace<D: Device> {
    head: head::Workspace<D>,
    /// Of each query its output times the output's gradient.
    delta: Floats<D>,
}

impl<D: Device> Backend for Cuda<D> {
    type Floats = Floats<D>;
    type Ids = Ids<D>;
    type Activations = Activations<D>;
    /// Both products read the one copy.
    type Matrix = Activations<D>;
    type Gradient = Gradient<D>;
    type Workspace = CudaWorkspace<D>;
    type MuonWorkspace = MuonWorkspace<D>;
    type KvCache = KvCache<D>;
    type Rotations = Rotations<D>;
    type Mark = D::Mark;

    fn status(&self) -> Result<(), DeviceError> {
        self.device.status()
    }

    fn mark(&self) -> D::Mark {
        self.device.mark()
    }

    fn seconds(&self, from: &D::Mark, to: &D::Mark) -> f64 {
        self.device.seconds(from, to)
    }

    fn micro_tokens(&self) -> usize {
        MICRO_TOKENS
    }

    fn element_type(&self) -> ElementType {
        self.element
    }

    fn floats(&self, len: usize) -> Floats<D> {
        Floats::zeros(&self.device, len)
    }

    fn activations(&self, rows: usize, columns: usize) -> Activations<D> {
        Activations::zeros(&self.device, self.element, rows, columns)
    }

    fn matrix(&self, o: usize, i: usize) -> Activations<D> {
        self.activations(o, i)
    }

    fn gradient(&self, o: usize, i: usize) -> Gradient<D> {
        Gradient::zeros(&self.device, o, i)
    }

    fn begin_gradient(&self, gradient: &Gradient<D>, turns: usize) {
        gradient.begin(turns);
        if turns == 0 {
            self.device.zero(&gradient.floats.memory, 0, 4 * gradient.len());
        }
    }

    fn fail_gradient(&self, gradient: &Gradient<D>) {
        gradient.fail();
    }

    fn read_gradient(&self, gradient: &Gradient<D>, range: Range<usize>) -> Vec<f32> {
        gradient.floats.read(&self.device, range)
    }

    fn workspace(
        &self,
        rows: usize,
        _context: usize,
        heads: Heads,
        _vocab_size: usize,
        _widest: usize,
        backward: bool,
    ) -> CudaWorkspace<D> {
        // The head's memory is made by the first call that needs it.
        let queries = if backward { rows * heads.query } else { 0 };
        CudaWorkspace { head: head::Workspace::new(self.logits), delta: self.floats(queries) }
    }

    fn write(&self, floats: &mut Floats<D>, at: usize, values: &[f32]) {
        floats.write(&self.device, at, values);
    }

    fn read(&self, floats: &Floats<D>, range: Range<usize>) -> Vec<f32> {
        floats.read(&self.device, range)
    }

    fn write_ids(&self, values: &[u32], ids: &mut Ids<D>) {
        ids.write(&self.device, values);
    }

    fn rotations(&self, rotations: &ops::Rotations) -> Rotations<D> {
        Rotations::new(&self.device, rotations)
    }

    fn pack(&self, values: &Floats<D>, matrix: &mut Activations<D>) {
        optimizer::pack(&self.device, self.element, values, matrix);
    }

    fn embed(&self, table: &Floats<D>, d: usize, ids: &Ids<D>, x: &mut Floats<D>) {
        embedding::forward(&self.device, table, d, ids, x);
    }

    fn embed_backward(
        &self,
        d: usize,
        ids: &Ids<D>,
        dx: &Floats<D>,
        gradient: &Gradient<D>,
        turn: usize,
    ) {
        let scratch = &mut self.scratch();
        embedding::backward(&self.device, d, ids, dx, gradient, turn > 0, scratch);
        gradient.turn();
    }

    fn norm(
        &self,
        rows: usize,
        x: &Floats<D>,
        gain: &Floats<D>,
        eps: f32,
        y: &mut Activations<D>,
        scale: &mut Floats<D>,
    ) {
        norm::forward(&self.device, self.element, rows, x, gain, eps, y, scale);
    }

    fn gain_gradient(
        &self,
        sequences: usize,
        gains: &Floats<D>,
        gradient: &Gradient<D>,
        turn: usize,
    ) {
        let d = gradient.len();
        let (from, to) = (gains.of(sequences * d), gradient.floats.of(d));
        reduce::sum_rows(&self.device, from, to, [1, sequences, d], turn > 0);
        gradient.turn();
    }

    fn norm_backward(
        &self,
        rows: usize,
        context: usize,
        x: &Floats<D>,
        gain: &Floats<D>,
        scale: &Floats<D>,
        dy: &Floats<D>,
        overwrite: bool,
        dx: &mut Floats<D>,
        rounded: &mut Activations<D>,
        gains: &mut Floats<D>,
    ) {
        norm::backward(
            &self.device,
            self.element,
            rows,
            context,
            x,
            gain,
            scale,
            dy,
            overwrite,
            dx,
            rounded,
            gains,
            &mut self.scratch(),
        );
    }

    fn linear(&self, rows: usize, x: &Activations<D>, w: &Activations<D>, y: &mut Activations<D>) {
        linear::forward(&self.device, rows, x, w, y);
    }

    fn linear_biased(
        &self,
        rows: usize,
        x: &Activations<D>,
        w: &Activations<D>,
        bias: &Floats<D>,
        y: &mut Activations<D>,
    ) {
        let scratch = &mut self.scratch();
        linear::forward_biased(&self.device, self.element, rows, x, w, bias, y, scratch);
    }

    fn bias_gradient(&self, rows: usize, dy: &Activations<D>, gradient: &Gradient<D>, turn: usize) {
        let scratch = &mut self.scratch();
        bias::gradient(&self.device, self.element, rows, dy, gradient, turn > 0, scratch);
        gradient.turn();
    }

    fn linear_residual(
        &self,
        rows: usize,
        x: &Activations<D>,
        w: &Activations<D>,
        residual: &Floats<D>,
        y: &mut Floats<D>,
    ) {
        linear::forward_floats(&self.device, rows, x, w, Some(residual), y);
    }

    fn linear_floats(
        &self,
        rows: usize,
        x: &Activations<D>,
        w: &Activations<D>,
        y: &mut Floats<D>,
    ) {
        linear::forward_floats(&self.device, rows, x, w, None, y);
    }

    fn linear_backward(
        &self,
        rows: usize,
        dy: &Activations<D>,
        w: &Activations<D>,
        dx: &mut Activations<D>,
    ) {
        linear::backward(&self.device, rows, dy, w, dx);
    }

    fn linear_backward_floats(
        &self,
        rows: usize,
        dy: &Activations<D>,
        w: &Activations<D>,
        dx: &mut Floats<D>,
    ) {
        linear::backward_floats(&self.device, rows, dy, w, dx);
    }

    fn linear_gradient(
        &self,
        rows: usize,
        dy: &Activations<D>,
        x: &Activations<D>,
        dw: &Gradient<D>,
        turn: usize,
        _: &mut CudaWorkspace<D>,
    ) {
        let (dy, x) = (dy.operand(0, rows, dw.rows), x.operand(0, rows, dw.columns));
        linear::gradient(&self.device, rows, dy, x, dw, turn > 0);
        dw.turn();
    }

    fn head_norm(
        &self,
        rows: usize,
        heads: Heads,
        gains: &Floats<D>,
        eps: f32,
        qkv: &mut Activations<D>,
        kept: &mut Activations<D>,
        scale: &mut Floats<D>,
    ) {
        let (device, element) = (&self.device, self.element);
        head_norm::forward(device, element, rows, heads, gains, eps, qkv, kept, scale);
    }

    fn head_norm_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        gains: &Floats<D>,
        kept: &Activations<D>,
        scale: &Floats<D>,
        d_qkv: &mut Activations<D>,
        each: &mut Floats<D>,
    ) {
        head_norm::backward(
            &self.device,
            self.element,
            rows,
            context,
            heads,
            gains,
            kept,
            scale,
            d_qkv,
            each,
            &mut self.scratch(),
        );
    }

    fn rotate(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        rotations: &Rotations<D>,
        backward: bool,
        qkv: &mut Activations<D>,
    ) {
        let (device, element) = (&self.device, self.element);
        rotate::rotate(device, element, rows, context, heads, rotations, backward, qkv);
    }

    fn attention(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Ids<D>>,
        qkv: &Activations<D>,
        out: &mut Activations<D>,
        log_sums: &mut Floats<D>,
        _: &mut CudaWorkspace<D>,
    ) {
        let (device, element) = (&self.device, self.element);
        attention::forward(device, element, rows, context, heads, documents, qkv, out, log_sums);
    }

    fn attention_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Ids<D>>,
        qkv: &Activations<D>,
        out: &Activations<D>,
        d_out: &Activations<D>,
        log_sums: &Floats<D>,
        d_qkv: &mut Activations<D>,
        workspace: &mut CudaWorkspace<D>,
    ) {
        if workspace.delta.len < rows * heads.query {
            workspace.delta = self.floats(rows * heads.query);
        }
        attention::backward(
            &self.device,
            self.element,
            rows,
            context,
            heads,
            documents,
            qkv,
            out,
            d_out,
            log_sums,
            d_qkv,
            &workspace.delta,
        );
    }

    fn cache(&self, rows: usize, heads: Heads, qkv: &Activations<D>, cache: &mut KvCache<D>) {
        cache.append(&self.device, self.element, rows, heads, qkv);
    }

    /// `qkv` stays as it is: the query and the key are turned on their way.
    fn attention_step(
        &self,
        row: usize,
        heads: Heads,
        rotations: Option<&Rotations<D>>,
        qkv: &mut Activations<D>,
        cache: &mut KvCache<D>,
        out: &mut Activations<D>,
    ) {
        cache.step(&self.device, self.element, row, heads, rotations, qkv, out);
    }

    fn swiglu(&self, rows: usize, gate_up: &Activations<D>, h: &mut Activations<D>) {
        swiglu::forward(&self.device, self.element, rows, gate_up, h);
    }

    fn swiglu_backward(&self, rows: usize, dh: &Activations<D>, gate_up: &mut Activations<D>) {
        swiglu::backward(&self.device, self.element, rows, dh, gate_up);
    }

    fn head(
        &self,
        x: &Activations<D>,
        w: &Activations<D>,
        targets: &Ids<D>,
        losses: &mut Floats<D>,
        workspace: &mut CudaWorkspace<D>,
    ) {
        workspace.head.forward(&self.device, &head::Input { x, w, targets }, losses);
    }

    fn head_backward(
        &self,
        x: &Activations<D>,
        w: &Activations<D>,
        _: &Floats<D>,
        targets: &Ids<D>,
        loss_scales: &Floats<D>,
        losses: &mut Floats<D>,
        z_loss: Option<(f32, &mut Floats<D>)>,
        dx: &mut Floats<D>,
        dw: &Gradient<D>,
        turns: impl Fn(usize) -> usize,
        workspace: &mut CudaWorkspace<D>,
    ) {
        let input = head::Input { x, w, targets };
        let z_loss = z_loss.map(|(z, squares)| (z, &*squares));
        let backward = head::Backward { loss_scales, z_loss, dx, dw };
        workspace.head.backward(&self.device, self.element, &input, losses, &backward, turns);
    }

    fn head_turns(&self, rows: usize, vocab_size: usize) -> usize {
        head::turns(rows, vocab_size, self.logits)
    }

    fn workers(&self) -> usize {
        1
    }

    fn parallel<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send) {
        items.iter_mut().for_each(work);
    }

    fn reduce(&self, parameters: &mut [Vec<&mut Gradient<D>>]) -> f64 {
        self.device.join_ranks();
        reduce::gradients(&self.device, parameters, &mut self.scratch())
    }

    fn sum_over_ranks(
        &self,
        gradients: &[&Gradient<D>],
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<Duration, CollectiveError> {
        // There is one worker, and so one gradient.
        let Some(gradient) = gradients.first() else { return Ok(Duration::ZERO) };
        gradient.wait();
        let begun = Instant::now();
        let Floats { memory, len } = &gradient.floats;
        self.device.sum_over_ranks(memory, 0, *len, root, ranks)?;
        Ok(begun.elapsed())
    }

    fn broadcast(
        &self,
        floats: &mut Floats<D>,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        self.device.broadcast(&floats.memory, 0, floats.len, root, ranks)?;
        self.device.join_ranks();
        Ok(())
    }

    fn adamw(
        &self,
        values: &mut Floats<D>,
        gradient: &Gradient<D>,
        first: &mut Floats<D>,
        second: &mut Floats<D>,
        step: &AdamWStep,
    ) {
        optimizer::adamw(&self.device, values, gradient, first, second, step);
    }

    fn sgd(
        &self,
        values: &mut Floats<D>,
        gradient: &Gradient<D>,
        momentum: Option<&mut Floats<D>>,
        step: &SgdStep,
    ) {
        optimizer::sgd(&self.device, values, gradient, momentum.as_deref(), step);
    }

    fn muon_workspace(&self, matrices: &[[usize; 2]]) -> MuonWorkspace<D> {
        MuonWorkspace::new(&self.device, matrices)
    }

    fn muon(
        &self,
        values: &mut Floats<D>,
        gradient: &Gradient<D>,
        momentum: &mut Floats<D>,
        at: usize,
        shape: [usize; 2],
        step: &MuonStep<'_>,
        workspace: &mut MuonWorkspace<D>,
    ) {
        workspace.update(&self.device, values, gradient, momentum, at, shape, step);
    }

    fn move_average(&self, average: &mut Floats<D>, values: &Floats<D>, share: f32) {
        optimizer::move_average(&self.device, average, values, share);
    }
}
