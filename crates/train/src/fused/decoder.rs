//! The decoder's forward and backward pass over some sequences, written out over the kernel set.
//!
//! Shapes are suffixes: n rows (positions of one sequence after the other), b sequences, d residual
//! width, q columns of queries, keys and values side by side, a of the heads' outputs, f
//! feed-forward width. Buffers hold as many rows as the largest micro-batch has and are reused.

use cuvee_kernels::{Backend, Heads, Rotations};

use super::clock::{Clock, Part};
use super::parameters::{Layer, Parameter, Places};
use crate::model::ModelConfig;

/// A decoder's parameters and constants, shared by all threads.
pub(super) struct Decoder<'a, K: Backend> {
    pub(super) kernels: &'a K,
    pub(super) model: &'a ModelConfig,
    pub(super) parameters: &'a [Parameter<K>],
    pub(super) rotations: &'a Rotations,
}

// Shared, not owned: a copy costs nothing, whatever K is.
impl<K: Backend> Clone for Decoder<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Backend> Copy for Decoder<'_, K> {}

/// What forward leaves for backward in one layer.
struct Activations<K: Backend> {
    attention_norm_nd: K::Activations,
    attention_scale_n: K::Floats,
    /// Queries and keys turned to their positions; after backward, their gradient's place.
    qkv_nq: K::Activations,
    log_sums: K::Floats,
    attended_na: K::Activations,
    ffn_norm_nd: K::Activations,
    ffn_scale_n: K::Floats,
    /// Backward turns it into its gradient.
    gate_up_n2f: K::Activations,
    gated_nf: K::Activations,
}

/// What only backward needs.
struct Gradients<K: Backend> {
    /// Of the residual stream, and the same rounded.
    stream_nd: K::Floats,
    rounded_nd: K::Activations,
    /// Of a norm's output.
    normed_nd: K::Floats,
    gated_nf: K::Activations,
    attended_na: K::Activations,
    qkv_nq: K::Activations,
    /// Each norm's gain, sequence by sequence, `[b, d]`.
    gains_bd: Vec<K::Floats>,
}

/// One thread's buffers.
pub(super) struct Work<K: Backend> {
    /// Rows and sequence length they were made for.
    rows: usize,
    context: usize,
    /// The residual stream before each half layer and at the end; forward alone needs two, in turn.
    streams_nd: Vec<K::Floats>,
    /// One a layer; forward alone reuses one.
    layers: Vec<Activations<K>>,
    norm_nd: K::Activations,
    scale_n: K::Floats,
    gradients: Option<Gradients<K>>,
    losses_n: Vec<f32>,
    workspace: K::Workspace,
    pub(super) clock: Clock,
}

fn heads(model: &ModelConfig) -> Heads {
    Heads { query: model.heads, kv: model.kv_heads, dim: model.head_dim }
}

impl<K: Backend> Work<K> {
    /// Buffers for `rows` rows in sequences of `context` tokens; with `backward`, for the way back
    /// too.
    pub(super) fn new(
        kernels: &K,
        model: &ModelConfig,
        rows: usize,
        context: usize,
        backward: bool,
    ) -> Self {
        let (d, f, heads) = (model.dim, model.ffn, heads(model));
        let (q, a) = (heads.columns(), heads.query * heads.dim);
        let layer = |_| Activations {
            attention_norm_nd: kernels.activations(rows, d),
            attention_scale_n: kernels.floats(rows),
            qkv_nq: kernels.activations(rows, q),
            log_sums: kernels.floats(rows * heads.query),
            attended_na: kernels.activations(rows, a),
            ffn_norm_nd: kernels.activations(rows, d),
            ffn_scale_n: kernels.floats(rows),
            gate_up_n2f: kernels.activations(rows, 2 * f),
            gated_nf: kernels.activations(rows, f),
        };
        let gradients = || Gradients {
            stream_nd: kernels.floats(rows * d),
            rounded_nd: kernels.activations(rows, d),
            normed_nd: kernels.floats(rows * d),
            gated_nf: kernels.activations(rows, f),
            attended_na: kernels.activations(rows, a),
            qkv_nq: kernels.activations(rows, q),
            gains_bd: (0..2 * model.layers + 1)
                .map(|_| kernels.floats(rows / context * d))
                .collect(),
        };
        let (layers, streams) =
            if backward { (model.layers, 2 * model.layers + 1) } else { (1, 2) };
        Self {
            rows,
            context,
            streams_nd: (0..streams).map(|_| kernels.floats(rows * d)).collect(),
            layers: (0..layers).map(layer).collect(),
            norm_nd: kernels.activations(rows, d),
            scale_n: kernels.floats(rows),
            gradients: backward.then(gradients),
            losses_n: vec![0.0; rows],
            workspace: kernels.workspace(
                rows,
                context,
                heads,
                model.vocab_size,
                d.max(f).max(a),
                backward,
            ),
            clock: Clock::default(),
        }
    }

    /// Rows it has room for.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether it has room for this.
    pub(super) fn fits(&self, rows: usize, context: usize, backward: bool) -> bool {
        self.rows >= rows && self.context == context && (self.gradients.is_some() || !backward)
    }

    /// The norms' gains' gradients, sequence by sequence, `[b, d]` each, after a backward.
    pub(super) fn gains_bd(&self) -> &[K::Floats] {
        self.gradients.as_ref().map_or(&[], |gradients| &gradients.gains_bd)
    }

    /// Each sequence's mean loss, `[b]`, of the first `rows` rows.
    fn sequence_losses(&self, rows: usize) -> impl Iterator<Item = f64> {
        let mean = |losses: &[f32]| {
            losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64
        };
        self.losses_n[..rows].chunks_exact(self.context).map(mean)
    }
}

/// Two neighbours of the streams, the second to be written; where there are two in all, they take
/// turns.
fn step<T>(streams: &mut [T], at: usize) -> (&T, &mut T) {
    if streams.len() == 2 {
        let (first, second) = streams.split_at_mut(1);
        return if at.is_multiple_of(2) {
            (&first[0], &mut second[0])
        } else {
            (&second[0], &mut first[0])
        };
    }
    let (before, after) = streams.split_at_mut(at + 1);
    (&before[at], &mut after[0])
}

/// The stream at `at`.
fn stream<T>(streams: &[T], at: usize) -> &T {
    &streams[if streams.len() == 2 { at % 2 } else { at }]
}

fn matrix<K: Backend>(parameter: &Parameter<K>) -> &K::Matrix {
    // Every parameter that a product reads has two dimensions, and so a matrix.
    match &parameter.matrix {
        Some(matrix) => matrix,
        None => unreachable!("a norm's gain in a product"),
    }
}

impl<K: Backend> Decoder<'_, K> {
    fn eps(&self) -> f32 {
        self.model.norm_eps as f32
    }

    /// From tokens to the last norm's output, `work.norm_nd`: whole sequences, or, with a cache a
    /// layer, the one token after those that they hold.
    fn forward(&self, ids: &[u32], mut caches: Option<&mut [K::KvCache]>, work: &mut Work<K>) {
        let (k, rows, heads, places) =
            (self.kernels, ids.len(), heads(self.model), Places::of(self.model));
        let Work { context, streams_nd, layers, norm_nd, scale_n, workspace, clock, .. } = work;
        let context = *context;
        k.embed(
            &self.parameters[Places::EMBEDDING].values,
            self.model.dim,
            ids,
            &mut streams_nd[0],
        );
        clock.lap(Part::Embedding);
        let slots = layers.len();
        for layer in 0..self.model.layers {
            let kept = &mut layers[layer % slots];
            let Layer { attention_norm, qkv, o, ffn_norm, gate_up, down } =
                places.layer(self.parameters, layer);

            let (x_nd, mid_nd) = step(streams_nd, 2 * layer);
            k.norm(
                rows,
                x_nd,
                &attention_norm.values,
                self.eps(),
                &mut kept.attention_norm_nd,
                &mut kept.attention_scale_n,
            );
            clock.lap(Part::Norm);
            k.linear(rows, &kept.attention_norm_nd, matrix(qkv), &mut kept.qkv_nq);
            clock.lap(Part::Linear);
            if let Some(caches) = &mut caches {
                let (qkv_nq, attended_na) = (&mut kept.qkv_nq, &mut kept.attended_na);
                k.attention_step(heads, self.rotations, qkv_nq, &mut caches[layer], attended_na);
                clock.lap(Part::Attention);
            } else {
                k.rotate(rows, context, heads, self.rotations, false, &mut kept.qkv_nq);
                clock.lap(Part::Rotate);
                k.attention(
                    rows,
                    context,
                    heads,
                    &kept.qkv_nq,
                    &mut kept.attended_na,
                    &mut kept.log_sums,
                    workspace,
                );
                clock.lap(Part::Attention);
            }
            k.linear_residual(rows, &kept.attended_na, matrix(o), x_nd, mid_nd);
            clock.lap(Part::Linear);

            let (mid_nd, out_nd) = step(streams_nd, 2 * layer + 1);
            k.norm(
                rows,
                mid_nd,
                &ffn_norm.values,
                self.eps(),
                &mut kept.ffn_norm_nd,
                &mut kept.ffn_scale_n,
            );
            clock.lap(Part::Norm);
            k.linear(rows, &kept.ffn_norm_nd, matrix(gate_up), &mut kept.gate_up_n2f);
            clock.lap(Part::Linear);
            k.swiglu(rows, &kept.gate_up_n2f, &mut kept.gated_nf);
            clock.lap(Part::SwiGlu);
            k.linear_residual(rows, &kept.gated_nf, matrix(down), mid_nd, out_nd);
            clock.lap(Part::Linear);
        }
        let x_nd = stream(streams_nd, 2 * self.model.layers);
        k.norm(rows, x_nd, &self.parameters[places.norm()].values, self.eps(), norm_nd, scale_n);
        clock.lap(Part::Norm);
    }

    /// Each sequence's mean loss, `[b]`, in nats a token: no backward.
    pub(super) fn losses(&self, ids: &[u32], targets: &[u32], work: &mut Work<K>) -> Vec<f64> {
        self.forward(ids, None, work);
        let head = &self.parameters[Places::of(self.model).head()];
        self.kernels.head(
            &work.norm_nd,
            matrix(head),
            targets,
            &mut work.losses_n,
            &mut work.workspace,
        );
        work.clock.lap(Part::Head);
        work.sequence_losses(ids.len()).collect()
    }

    /// The logits of every row, `[n, v]`.
    pub(super) fn logits(&self, ids: &[u32], work: &mut Work<K>) -> Vec<f32> {
        self.forward(ids, None, work);
        self.head_logits(ids.len(), &work.norm_nd)
    }

    fn head_logits(&self, rows: usize, norm_nd: &K::Activations) -> Vec<f32> {
        let head = &self.parameters[Places::of(self.model).head()];
        let mut logits_nv = self.kernels.floats(rows * self.model.vocab_size);
        self.kernels.linear_floats(rows, norm_nd, matrix(head), &mut logits_nv);
        self.kernels.read(&logits_nv, 0..rows * self.model.vocab_size)
    }

    /// Adds the gradient of Σ_b share_b ℓ_b to `gradients`, one for each parameter, or, unless
    /// `add`, puts it there; returns each sequence's ℓ_b.
    pub(super) fn gradient(
        &self,
        ids: &[u32],
        targets: &[u32],
        shares: &[f64],
        add: bool,
        gradients: &mut [K::Floats],
        work: &mut Work<K>,
    ) -> Vec<f64> {
        self.forward(ids, None, work);
        let (k, rows, heads, places) =
            (self.kernels, ids.len(), heads(self.model), Places::of(self.model));
        let (d, last) = (self.model.dim, 2 * self.model.layers);
        let Work {
            context,
            streams_nd,
            layers,
            norm_nd,
            scale_n,
            gradients: back,
            losses_n,
            workspace,
            clock,
            ..
        } = work;
        let context = *context;
        let Some(Gradients {
            stream_nd,
            rounded_nd,
            normed_nd,
            gated_nf,
            attended_na,
            qkv_nq,
            gains_bd,
        }) = back
        else {
            unreachable!("buffers without a way back");
        };

        let shares_n: Vec<f32> =
            (0..rows).map(|row| (shares[row / context] / context as f64) as f32).collect();
        let head = &self.parameters[places.head()];
        let dw_vd = &mut gradients[places.head()];
        k.head_backward(
            norm_nd,
            matrix(head),
            &head.values,
            targets,
            &shares_n,
            losses_n,
            normed_nd,
            add,
            dw_vd,
            workspace,
        );
        clock.lap(Part::Head);
        let gain = &self.parameters[places.norm()].values;
        let x_nd = &streams_nd[last];
        k.norm_backward(
            rows,
            context,
            x_nd,
            gain,
            scale_n,
            normed_nd,
            true,
            stream_nd,
            rounded_nd,
            &mut gains_bd[last],
        );
        clock.lap(Part::Norm);

        for layer in (0..self.model.layers).rev() {
            let kept = &mut layers[layer];
            let Layer { attention_norm, qkv, o, ffn_norm, gate_up, down } =
                places.layer(self.parameters, layer);
            let mut dw =
                |part: usize, dy: &K::Activations, x: &K::Activations, clock: &mut Clock| {
                    k.linear_gradient(
                        rows,
                        dy,
                        x,
                        add,
                        &mut gradients[places.in_layer(layer, part)],
                        workspace,
                    );
                    clock.lap(Part::LinearGradient);
                };

            k.linear_backward(rows, rounded_nd, matrix(down), gated_nf);
            clock.lap(Part::Linear);
            dw(Places::DOWN, rounded_nd, &kept.gated_nf, clock);
            k.swiglu_backward(rows, gated_nf, &mut kept.gate_up_n2f);
            clock.lap(Part::SwiGlu);
            k.linear_backward_floats(rows, &kept.gate_up_n2f, matrix(gate_up), normed_nd);
            clock.lap(Part::Linear);
            dw(Places::GATE_UP, &kept.gate_up_n2f, &kept.ffn_norm_nd, clock);
            let (x_nd, gains) = (&streams_nd[2 * layer + 1], &mut gains_bd[2 * layer + 1]);
            k.norm_backward(
                rows,
                context,
                x_nd,
                &ffn_norm.values,
                &kept.ffn_scale_n,
                normed_nd,
                false,
                stream_nd,
                rounded_nd,
                gains,
            );
            clock.lap(Part::Norm);

            k.linear_backward(rows, rounded_nd, matrix(o), attended_na);
            clock.lap(Part::Linear);
            dw(Places::O, rounded_nd, &kept.attended_na, clock);
            k.attention_backward(
                rows,
                context,
                heads,
                &kept.qkv_nq,
                &kept.attended_na,
                attended_na,
                &kept.log_sums,
                qkv_nq,
                workspace,
            );
            clock.lap(Part::Attention);
            k.rotate(rows, context, heads, self.rotations, true, qkv_nq);
            clock.lap(Part::Rotate);
            k.linear_backward_floats(rows, qkv_nq, matrix(qkv), normed_nd);
            clock.lap(Part::Linear);
            k.linear_gradient(
                rows,
                qkv_nq,
                &kept.attention_norm_nd,
                add,
                &mut gradients[places.in_layer(layer, Places::QKV)],
                workspace,
            );
            clock.lap(Part::LinearGradient);
            let (x_nd, gains) = (&streams_nd[2 * layer], &mut gains_bd[2 * layer]);
            k.norm_backward(
                rows,
                context,
                x_nd,
                &attention_norm.values,
                &kept.attention_scale_n,
                normed_nd,
                false,
                stream_nd,
                rounded_nd,
                gains,
            );
            clock.lap(Part::Norm);
        }
        let embedding = &mut gradients[Places::EMBEDDING];
        if !self.model.tied && !add {
            k.clear(embedding);
        }
        k.embed_backward(d, ids, stream_nd, embedding);
        clock.lap(Part::Embedding);
        work.sequence_losses(rows).collect()
    }

    /// Logits `[v]` of the token after `id`, the caches, one a layer, holding all tokens before it.
    pub(super) fn next(&self, id: u32, caches: &mut [K::KvCache], work: &mut Work<K>) -> Vec<f32> {
        self.forward(&[id], Some(caches), work);
        self.head_logits(1, &work.norm_nd)
    }
}
