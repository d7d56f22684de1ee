//! The trait that an engine is written over: the kernels of a decoder's training step, whatever
//! device they run on.

use std::ops::Range;
use std::time::Duration;

use crate::collective::{Collective, CollectiveError};
use crate::device::DeviceError;
use crate::element::ElementType;
use crate::ops::{AdamWStep, Heads, MuonStep, Rotations, SgdStep};

/// The kernels that a decoder is trained with, on one device.
///
/// **Shapes** are suffixes of the parameters' names. n is rows: the positions of one sequence after
/// the other. d is the width of the residual stream, o and i are the outputs and inputs of a linear
/// layer, f is the feed-forward width, v the vocabulary, b the sequences. `qkv` holds queries, keys
/// and values side by side, `[n, (H + 2G) e]` (see [`Heads`]), `gate_up` gates and ups, `[n, 2f]`.
///
/// **Buffers** are *floats*, which are f32; *activations*, which are of the backend's element type
/// and which products read; and *matrices*, which are parameters packed for products and must be
/// packed again when their f32 values change; and *gradients* of parameters, which several workers
/// add to: the one whose turn is 0 replaces what is there, each other waits for the turns before
/// it, so that a sum has one order. *Ids* are whole numbers from 0. Methods take `rows` rows (or as
/// many as there are ids or targets) of buffers that may be longer. What is a gradient is named d_
/// or d after what it is of.
///
/// **Threads**: methods are called from several workers at once, each with its own workspace.
///
/// **Waiting**: a device may be behind the calls. Those that give numbers to the caller wait for
/// it: [`Backend::read`], [`Backend::read_gradient`], [`Backend::reduce`] and
/// [`Backend::seconds`].
///
/// **Errors** of a device are kept: methods then do nothing, and [`Backend::status`] says it.
///
/// # Panics
/// Every method, if a buffer is smaller than its shape.
pub trait Backend: Send + Sync + 'static {
    /// f32 numbers.
    type Floats: Send + Sync;
    /// Whole numbers from 0, as many as were written last: tokens, or rows.
    type Ids: Default + Send + Sync;
    /// `[rows, columns]` of the backend's element type.
    type Activations: Send + Sync;
    /// A parameter `[o, i]`, packed for the products of forward and backward.
    type Matrix: Send + Sync;
    /// The gradient of a parameter.
    type Gradient: Send + Sync;
    /// One worker's memory for what kernels need in between.
    type Workspace: Send;
    /// What [`Backend::muon`] needs in between, for one matrix at a time.
    type MuonWorkspace: Send;
    /// One layer's keys and values of the tokens so far.
    type KvCache: Default + Send;
    /// The angles of rotary positions.
    type Rotations: Send + Sync;
    /// A moment in the order of the work.
    type Mark: Send + Sync;

    /// What went wrong first on the device.
    ///
    /// # Errors
    /// It is out of memory, or has failed.
    fn status(&self) -> Result<(), DeviceError>;

    /// This moment.
    fn mark(&self) -> Self::Mark;

    /// Seconds from one moment to a later one.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> f64;

    /// Tokens of a micro-batch where nobody says how many: as many rows as the device is at its
    /// best with.
    fn micro_tokens(&self) -> usize;

    /// Number type of activations and packed parameters.
    fn element_type(&self) -> ElementType;

    /// `len` zeros.
    fn floats(&self, len: usize) -> Self::Floats;

    /// `[rows, columns]` of zeros.
    fn activations(&self, rows: usize, columns: usize) -> Self::Activations;

    /// `[o, i]` of zeros, to be filled by [`Backend::pack`].
    fn matrix(&self, o: usize, i: usize) -> Self::Matrix;

    /// The gradient of a parameter `[o, i]`, or with `o` of 1 of a gain `[i]`: zeros.
    fn gradient(&self, o: usize, i: usize) -> Self::Gradient;

    /// Begins the sum of a gradient in so many turns: the next one is 0.
    fn begin_gradient(&self, gradient: &Self::Gradient, turns: usize);

    /// Says that a worker with turns of this gradient to come has failed: nobody waits for it.
    fn fail_gradient(&self, gradient: &Self::Gradient);

    /// `gradient[range]`.
    fn read_gradient(&self, gradient: &Self::Gradient, range: Range<usize>) -> Vec<f32>;

    /// A workspace for up to `rows` rows in sequences of up to `context`, of a model with these
    /// heads, `vocab_size` logits and no layer with more than `widest` inputs; with `backward`, for
    /// the methods of backward too.
    fn workspace(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        vocab_size: usize,
        widest: usize,
        backward: bool,
    ) -> Self::Workspace;

    /// `floats[at..]` ← `values`, as many as these are.
    fn write(&self, floats: &mut Self::Floats, at: usize, values: &[f32]);

    /// `floats[range]`.
    fn read(&self, floats: &Self::Floats, range: Range<usize>) -> Vec<f32>;

    /// `ids` ← `values`.
    fn write_ids(&self, values: &[u32], ids: &mut Self::Ids);

    /// The same rotations where the device reads them.
    fn rotations(&self, rotations: &Rotations) -> Self::Rotations;

    /// Rounds `values`, `[o, i]`, and packs them into `matrix`.
    fn pack(&self, values: &Self::Floats, matrix: &mut Self::Matrix);

    /// x ← rows `ids` of `table_vd`.
    fn embed(&self, table_vd: &Self::Floats, d: usize, ids: &Self::Ids, x_nd: &mut Self::Floats);

    /// Rows `ids` of `gradient_vd` += the rows of dx; in turn 0 all other rows ← 0.
    fn embed_backward(
        &self,
        d: usize,
        ids: &Self::Ids,
        dx_nd: &Self::Floats,
        gradient_vd: &Self::Gradient,
        turn: usize,
    );

    /// [`crate::rms_norm`]: y ← x · s · gain, `scale` ← s = 1 / √(mean x² + eps).
    #[allow(clippy::too_many_arguments)]
    fn norm(
        &self,
        rows: usize,
        x_nd: &Self::Floats,
        gain_d: &Self::Floats,
        eps: f32,
        y_nd: &mut Self::Activations,
        scale_n: &mut Self::Floats,
    );

    /// The gradient of a gain: += each of the first `sequences` rows of `gains_bd`, in order.
    fn gain_gradient(
        &self,
        sequences: usize,
        gains_bd: &Self::Floats,
        gradient_d: &Self::Gradient,
        turn: usize,
    );

    /// [`crate::rms_norm_backward`]: adds to dx, or with `overwrite` replaces it, and gives it
    /// rounded too. `gains_bd` ← each sequence's gradient of the gain.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &self,
        rows: usize,
        context: usize,
        x_nd: &Self::Floats,
        gain_d: &Self::Floats,
        scale_n: &Self::Floats,
        dy_nd: &Self::Floats,
        overwrite: bool,
        dx_nd: &mut Self::Floats,
        rounded_nd: &mut Self::Activations,
        gains_bd: &mut Self::Floats,
    );

    /// y ← x Wᵀ.
    fn linear(
        &self,
        rows: usize,
        x_ni: &Self::Activations,
        w: &Self::Matrix,
        y_no: &mut Self::Activations,
    );

    /// y ← x Wᵀ + bias.
    fn linear_biased(
        &self,
        rows: usize,
        x_ni: &Self::Activations,
        w: &Self::Matrix,
        bias_o: &Self::Floats,
        y_no: &mut Self::Activations,
    );

    /// The gradient of a bias += the rows of dy.
    fn bias_gradient(
        &self,
        rows: usize,
        dy_no: &Self::Activations,
        gradient_o: &Self::Gradient,
        turn: usize,
    );

    /// y ← residual + x Wᵀ.
    fn linear_residual(
        &self,
        rows: usize,
        x_ni: &Self::Activations,
        w: &Self::Matrix,
        residual_no: &Self::Floats,
        y_no: &mut Self::Floats,
    );

    /// y ← x Wᵀ in f32.
    fn linear_floats(
        &self,
        rows: usize,
        x_ni: &Self::Activations,
        w: &Self::Matrix,
        y_no: &mut Self::Floats,
    );

    /// dx ← dy W.
    fn linear_backward(
        &self,
        rows: usize,
        dy_no: &Self::Activations,
        w: &Self::Matrix,
        dx_ni: &mut Self::Activations,
    );

    /// dx ← dy W in f32.
    fn linear_backward_floats(
        &self,
        rows: usize,
        dy_no: &Self::Activations,
        w: &Self::Matrix,
        dx_ni: &mut Self::Floats,
    );

    /// dW += dyᵀ x.
    fn linear_gradient(
        &self,
        rows: usize,
        dy_no: &Self::Activations,
        x_ni: &Self::Activations,
        dw_oi: &Self::Gradient,
        turn: usize,
        workspace: &mut Self::Workspace,
    );

    /// [`crate::head_norm`]: each query and key of `qkv` ← its RMSNorm. `kept`, `[n, (H + G) e]`, ←
    /// what they were, `scale`, `[n, H + G]`, ← what they were divided by, inverted. `gains` are
    /// the queries' and the keys', `[2e]`.
    #[allow(clippy::too_many_arguments)]
    fn head_norm(
        &self,
        rows: usize,
        heads: Heads,
        gains: &Self::Floats,
        eps: f32,
        qkv: &mut Self::Activations,
        kept: &mut Self::Activations,
        scale: &mut Self::Floats,
    );

    /// [`crate::head_norm_backward`]: `d_qkv` ← the gradient before the norm, given that behind it.
    /// `gains_b2e` ← each sequence's gradient of the gains.
    #[allow(clippy::too_many_arguments)]
    fn head_norm_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        gains: &Self::Floats,
        kept: &Self::Activations,
        scale: &Self::Floats,
        d_qkv: &mut Self::Activations,
        gains_b2e: &mut Self::Floats,
    );

    /// [`crate::rotate`] on the queries and keys of `qkv`, whose rows are positions 0, 1 and so on
    /// of sequences of `context`; with `backward`, the same for their gradient.
    fn rotate(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        rotations: &Self::Rotations,
        backward: bool,
        qkv: &mut Self::Activations,
    );

    /// [`crate::attention`]: out ← softmax(mask(q kᵀ / √e)) v in sequences of `context`; within
    /// documents, where `documents` says of each row at which row of its sequence its own begins.
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Self::Ids>,
        qkv: &Self::Activations,
        out: &mut Self::Activations,
        log_sums: &mut Self::Floats,
        workspace: &mut Self::Workspace,
    );

    /// [`crate::attention_backward`]: `d_qkv` ← the gradient, given that of `out`.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        documents: Option<&Self::Ids>,
        qkv: &Self::Activations,
        out: &Self::Activations,
        d_out: &Self::Activations,
        log_sums: &Self::Floats,
        d_qkv: &mut Self::Activations,
        workspace: &mut Self::Workspace,
    );

    /// Adds the keys and values of the first rows of `qkv` to a cache; the keys are rotated to
    /// their positions already.
    fn cache(&self, rows: usize, heads: Heads, qkv: &Self::Activations, cache: &mut Self::KvCache);

    /// [`crate::attention_step`]: the attention of one new token, in row `row` of `qkv` and `out`;
    /// without `rotations` in a layer that has no rotary positions.
    fn attention_step(
        &self,
        row: usize,
        heads: Heads,
        rotations: Option<&Self::Rotations>,
        qkv: &mut Self::Activations,
        cache: &mut Self::KvCache,
        out: &mut Self::Activations,
    );

    /// [`crate::swiglu`]: h ← silu(gate) · up.
    fn swiglu(&self, rows: usize, gate_up: &Self::Activations, h_nf: &mut Self::Activations);

    /// [`crate::swiglu_backward`]: `gate_up` ← its gradient, given that of h.
    fn swiglu_backward(
        &self,
        rows: usize,
        dh_nf: &Self::Activations,
        gate_up: &mut Self::Activations,
    );

    /// The head's loss, some rows at a time, so that no `[n, v]` is held: with logits z = x Wᵀ,
    /// `losses_n` ← log Σ e^z − z_target of each row, in nats.
    fn head(
        &self,
        x_nd: &Self::Activations,
        w: &Self::Matrix,
        targets: &Self::Ids,
        losses_n: &mut Self::Floats,
        workspace: &mut Self::Workspace,
    );

    /// [`Backend::head`], and the gradient of Σ loss_scale · loss: dx ← loss_scale (softmax z −
    /// 1_target) W, and dW += the product of that bracket with x. `values_vd` is W in f32. As many
    /// turns as [`Backend::head_turns`] says, which `turns` numbers. With a z-loss, z and where the
    /// L² of each row goes, the gradient is that of Σ loss_scale (loss + z L²).
    #[allow(clippy::too_many_arguments)]
    fn head_backward(
        &self,
        x_nd: &Self::Activations,
        w: &Self::Matrix,
        values_vd: &Self::Floats,
        targets: &Self::Ids,
        loss_scales_n: &Self::Floats,
        losses_n: &mut Self::Floats,
        z_loss: Option<(f32, &mut Self::Floats)>,
        dx_nd: &mut Self::Floats,
        dw_vd: &Self::Gradient,
        turns: impl Fn(usize) -> usize,
        workspace: &mut Self::Workspace,
    );

    /// Turns that [`Backend::head_backward`] takes for `rows` rows.
    fn head_turns(&self, rows: usize, vocab_size: usize) -> usize;

    /// Number of workers: parts of a batch that [`Backend::parallel`] runs at the same time.
    fn workers(&self) -> usize;

    /// Calls `work` on each of `items`, in parallel: at the same time, where there are no more of
    /// them than workers, so that they may wait for each other's turns.
    fn parallel<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send);

    /// Adds up the workers' gradients of each parameter in the first of them, in the order given,
    /// and returns Σ g² of the sums in f64.
    fn reduce(&self, parameters: &mut [Vec<&mut Self::Gradient>]) -> f64;

    /// Adds up the workers' gradients of one parameter in the first of them, in the order given,
    /// and their sums over the ranks: at rank `root` alone, if there is one, and else at all of
    /// them. Called beside the workers, it waits until these have added what they add, and begins
    /// with what is finished first. What [`Backend::reduce`] then has is the first alone. How long
    /// the ranks took over it.
    ///
    /// # Errors
    /// Those of [`Collective`].
    fn sum_over_ranks(
        &self,
        gradients: &[&Self::Gradient],
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<Duration, CollectiveError>;

    /// `floats` ← those of rank `root`.
    ///
    /// # Errors
    /// Those of [`Collective`].
    fn broadcast(
        &self,
        floats: &mut Self::Floats,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError>;

    /// [`crate::adamw`]: one AdamW update of `values` and the two moments. Packed matrices of them
    /// stay as they are.
    fn adamw(
        &self,
        values: &mut Self::Floats,
        gradient: &Self::Gradient,
        first: &mut Self::Floats,
        second: &mut Self::Floats,
        step: &AdamWStep,
    );

    /// [`crate::sgd`], or with a momentum [`crate::sgd_with_momentum`]: one update of `values`.
    /// Packed matrices of them stay as they are.
    fn sgd(
        &self,
        values: &mut Self::Floats,
        gradient: &Self::Gradient,
        momentum: Option<&mut Self::Floats>,
        step: &SgdStep,
    );

    /// A workspace for matrices of these shapes, `[rows, columns]` each.
    fn muon_workspace(&self, matrices: &[[usize; 2]]) -> Self::MuonWorkspace;

    /// One Muon update of the matrix of `shape`, `[rows, columns]`, that begins at element `at` of
    /// `values`, and of its momentum: b ← μ b + (1 − μ) g, and the parameters move along
    /// [`crate::orthogonalize`] of it. The gradient is as wide as the matrix. Packed matrices stay
    /// as they are.
    #[allow(clippy::too_many_arguments)]
    fn muon(
        &self,
        values: &mut Self::Floats,
        gradient: &Self::Gradient,
        momentum: &mut Self::Floats,
        at: usize,
        shape: [usize; 2],
        step: &MuonStep<'_>,
        workspace: &mut Self::MuonWorkspace,
    );

    /// [`crate::move_average`]: average ← average + share (values − average).
    fn move_average(&self, average: &mut Self::Floats, values: &Self::Floats, share: f32);
}
