//! The kernel set: what a decoder's training step is made of, whatever it runs on.

use std::ops::Range;

use crate::adamw::AdamWStep;
use crate::attention::Heads;
use crate::rope::Rotations;

/// The kernels a decoder is trained with.
///
/// Shapes are suffixes: n rows (positions of one sequence after the other), d residual width, o and
/// i outputs and inputs of a linear layer. *Floats* are f32; *activations* are of the set's own
/// element type and take part in products; a *matrix* is a parameter laid out for products, and is
/// made anew from its f32 values after an update. Methods take as many rows as `rows` says from
/// buffers that may have room for more, and are called from several threads at once.
///
/// # Panics
/// Every method, where a buffer is smaller than its shape.
pub trait Backend: Send + Sync + 'static {
    /// f32 numbers.
    type Floats: Send + Sync;
    /// `[rows, columns]` of the set's element type.
    type Activations: Send + Sync;
    /// A parameter `[o, i]` as products read it, forward and backward.
    type Matrix: Send + Sync;
    /// What attention and products need in between, one for each thread.
    type Workspace: Send;
    /// One layer's keys and values of the tokens seen so far.
    type Cache: Default + Send;

    /// Element type of activations, such as `bf16`.
    fn precision(&self) -> &'static str;

    /// `len` zeros.
    fn floats(&self, len: usize) -> Self::Floats;

    /// `[rows, columns]` zeros.
    fn activations(&self, rows: usize, columns: usize) -> Self::Activations;

    /// Workspace for `rows` rows in sequences of up to `context`, of a model with these heads,
    /// `vocab_size` logits and no layer wider than `widest`; with `backward`, for the way back too.
    fn workspace(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        vocab_size: usize,
        widest: usize,
        backward: bool,
    ) -> Self::Workspace;

    /// `values` into `floats` from `at` on.
    fn write(&self, floats: &mut Self::Floats, at: usize, values: &[f32]);

    /// `floats[range]`.
    fn read(&self, floats: &Self::Floats, range: Range<usize>) -> Vec<f32>;

    /// Zeros where `floats` held anything.
    fn clear(&self, floats: &mut Self::Floats);

    /// `[o, i]` of zeros, to be filled by [`Backend::lay_out`].
    fn matrix(&self, o: usize, i: usize) -> Self::Matrix;

    /// Rounds and lays out the values, `[o, i]`, for products.
    fn lay_out(&self, values: &Self::Floats, matrix: &mut Self::Matrix);

    /// x ← rows `ids` of `table`, `[v, d]`.
    fn embed(&self, table: &Self::Floats, d: usize, ids: &[u32], x_nd: &mut Self::Floats);

    /// Rows `ids` of `gradient`, `[v, d]`, += those of dx.
    fn embed_backward(
        &self,
        d: usize,
        ids: &[u32],
        dx_nd: &Self::Floats,
        gradient: &mut Self::Floats,
    );

    /// [`crate::rms_norm`].
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

    /// [`crate::rms_norm_backward`], sequence by sequence of `context` rows: `gains` ← each
    /// sequence's gradient of the gain, `[n / context, d]`. With `fresh`, what dx held before
    /// counts as zero.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &self,
        rows: usize,
        context: usize,
        x_nd: &Self::Floats,
        gain_d: &Self::Floats,
        scale_n: &Self::Floats,
        dy_nd: &Self::Floats,
        fresh: bool,
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

    /// y ← base + x Wᵀ.
    fn linear_onto(
        &self,
        rows: usize,
        x_ni: &Self::Activations,
        w: &Self::Matrix,
        base_no: &Self::Floats,
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

    /// dW ← dyᵀ x, or += with `add`.
    fn linear_gradient(
        &self,
        rows: usize,
        dy_no: &Self::Activations,
        x_ni: &Self::Activations,
        add: bool,
        dw_oi: &mut Self::Floats,
        workspace: &mut Self::Workspace,
    );

    /// [`crate::rotate`] on the queries and keys of `qkv`, rows being positions 0, 1, … of
    /// sequences of `context`.
    fn rotate(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        rotations: &Rotations,
        backward: bool,
        qkv: &mut Self::Activations,
    );

    /// [`crate::attention`], sequence by sequence.
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        qkv: &Self::Activations,
        out: &mut Self::Activations,
        log_sums: &mut Self::Floats,
        workspace: &mut Self::Workspace,
    );

    /// [`crate::attention_backward`], sequence by sequence.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        rows: usize,
        context: usize,
        heads: Heads,
        qkv: &Self::Activations,
        out: &Self::Activations,
        d_out: &Self::Activations,
        log_sums: &Self::Floats,
        d_qkv: &mut Self::Activations,
        workspace: &mut Self::Workspace,
    );

    /// [`crate::attention_step`] on row 0 of `qkv` and `out`.
    fn attention_step(
        &self,
        heads: Heads,
        rotations: &Rotations,
        qkv: &mut Self::Activations,
        cache: &mut Self::Cache,
        out: &mut Self::Activations,
    );

    /// [`crate::swiglu`].
    fn swiglu(&self, rows: usize, gate_up: &Self::Activations, h_nf: &mut Self::Activations);

    /// [`crate::swiglu_backward`].
    fn swiglu_backward(
        &self,
        rows: usize,
        dh_nf: &Self::Activations,
        gate_up: &mut Self::Activations,
    );

    /// The head and its loss, some rows at a time, so that no `[n, v]` is held: logits z = x Wᵀ,
    /// `losses` ← log Σ e^z − z_target of each row, in nats.
    fn head(
        &self,
        x_nd: &Self::Activations,
        w: &Self::Matrix,
        targets: &[u32],
        losses: &mut [f32],
        workspace: &mut Self::Workspace,
    );

    /// The same, and the gradient of Σ share · loss: dx ← share (softmax z − 1_target) W, dW ← or,
    /// with `add`, += its product with x. `values` is W in f32.
    #[allow(clippy::too_many_arguments)]
    fn head_backward(
        &self,
        x_nd: &Self::Activations,
        w: &Self::Matrix,
        values: &Self::Floats,
        targets: &[u32],
        shares: &[f32],
        losses: &mut [f32],
        dx_nd: &mut Self::Floats,
        add: bool,
        dw_vd: &mut Self::Floats,
        workspace: &mut Self::Workspace,
    );

    /// Shards of a batch that run side by side: one a thread.
    fn shards(&self) -> usize;

    /// `work` on each of `items` at once.
    fn side_by_side<T: Send>(&self, items: &mut [T], work: impl Fn(&mut T) + Sync + Send);

    /// Adds up the shards' gradients in the first of them, in the order given, and returns Σ g² in
    /// f64.
    fn reduce(&self, gradients: &mut [&mut Self::Floats]) -> f64;

    /// [`crate::adamw`].
    fn update(
        &self,
        values: &mut Self::Floats,
        gradient: &Self::Floats,
        first: &mut Self::Floats,
        second: &mut Self::Floats,
        step: &AdamWStep,
    );
}
