//! The decoder's forward and backward pass over some sequences, written out over the kernels.
//!
//! Shapes are suffixes: n rows (positions of one sequence after the other), b sequences, d residual
//! width, q columns of queries, keys and values side by side, a of the heads' outputs, f
//! feed-forward width. Buffers hold as many rows as the largest micro-batch has and are reused.

use std::ops::Range;

use cuvee_kernels::{Backend, Heads};

use super::clock::{Clock, KernelKind};
use super::gradients::Turns;
use super::layout::ParameterLayout;
use super::parameters::Parameter;
use super::streams::Streams;
use crate::engine::Scored;
use crate::model::{FusedGroup, ModelConfig, ParameterInfo};

/// A decoder's parameters and constants, shared by all threads.
pub(super) struct Decoder<'a, K: Backend> {
    pub(super) kernels: &'a K,
    pub(super) model: &'a ModelConfig,
    pub(super) list: &'a [ParameterInfo],
    pub(super) layout: &'a ParameterLayout,
    pub(super) parameters: &'a [Parameter<K>],
    pub(super) rotations: &'a K::Rotations,
    /// z of the z-loss, which gradients have and losses have not; 0 for none.
    pub(super) z_loss: f64,
}

/// The tokens of a micro-batch, `[b·T]` each, one sequence after the other.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) inputs: &'a [u32],
    pub(super) targets: &'a [u32],
    /// Where the document of each input begins in its sequence, where attention keeps within them.
    pub(super) documents: Option<&'a [u32]>,
}

impl<'a> Tokens<'a> {
    /// Those of some rows.
    pub(super) fn of(self, rows: Range<usize>) -> Self {
        Self {
            inputs: &self.inputs[rows.clone()],
            targets: &self.targets[rows.clone()],
            documents: self.documents.map(|documents| &documents[rows]),
        }
    }
}

// By hand: derived, they would ask that K is Copy, of which there are only references here.
impl<K: Backend> Clone for Decoder<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Backend> Copy for Decoder<'_, K> {}

/// What the forward pass leaves for the backward pass in one layer.
struct Activations<K: Backend> {
    attention_norm_nd: K::Activations,
    attention_scale_n: K::Floats,
    /// Queries, keys and values; queries and keys are normalised, where the model does that, and
    /// rotated to their positions.
    qkv_nq: K::Activations,
    /// What queries and keys were before they were normalised, and their scales.
    head_norm: Option<(K::Activations, K::Floats)>,
    log_sums: K::Floats,
    attended_na: K::Activations,
    ffn_norm_nd: K::Activations,
    ffn_scale_n: K::Floats,
    /// The backward pass overwrites it with its gradient.
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
    /// Each layer's gains of queries and keys likewise, `[b, 2e]`; none where it has none.
    head_gains_b2e: Vec<K::Floats>,
}

/// Where a forward pass puts keys and values, and with that, what its ids are.
pub(super) enum Keep<'a, 't, C> {
    /// Nowhere: whole sequences.
    Nothing,
    /// Into empty caches, one a layer: all tokens of one sequence.
    All(&'a mut [C]),
    /// Each into the caches of its own text, one a layer: the tokens that come next in them.
    Next(&'a mut [&'t mut Vec<C>]),
}

/// One thread's buffers.
pub(super) struct Work<K: Backend> {
    /// Rows and sequence length they were made for.
    rows: usize,
    context: usize,
    /// The residual stream before each half layer and at the end.
    streams_nd: Streams<K::Floats>,
    /// One a layer; forward alone reuses one.
    layers: Vec<Activations<K>>,
    norm_nd: K::Activations,
    scale_n: K::Floats,
    gradients: Option<Gradients<K>>,
    /// What goes in and out at both ends, each row's.
    ids_n: K::Ids,
    targets_n: K::Ids,
    documents_n: K::Ids,
    loss_scales_n: K::Floats,
    losses_n: K::Floats,
    /// L² of each row, where there is a z-loss.
    squares_n: Option<K::Floats>,
    workspace: K::Workspace,
    pub(super) clock: Clock<K>,
}

fn heads(model: &ModelConfig) -> Heads {
    Heads { query: model.heads, kv: model.kv_heads, dim: model.head_dim }
}

impl<K: Backend> Work<K> {
    /// Buffers for `rows` rows in sequences of `context` tokens; with `backward`, for the backward
    /// pass too.
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
            head_norm: model.qk_norm.then(|| {
                let normed = heads.query + heads.kv;
                (kernels.activations(rows, normed * heads.dim), kernels.floats(rows * normed))
            }),
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
            head_gains_b2e: (0..if model.qk_norm { model.layers } else { 0 })
                .map(|_| kernels.floats(rows / context * 2 * heads.dim))
                .collect(),
        };
        let (layers, streams) =
            if backward { (model.layers, 2 * model.layers + 1) } else { (1, 2) };
        Self {
            rows,
            context,
            streams_nd: Streams::new((0..streams).map(|_| kernels.floats(rows * d)).collect()),
            layers: (0..layers).map(layer).collect(),
            norm_nd: kernels.activations(rows, d),
            scale_n: kernels.floats(rows),
            gradients: backward.then(gradients),
            ids_n: K::Ids::default(),
            targets_n: K::Ids::default(),
            documents_n: K::Ids::default(),
            loss_scales_n: kernels.floats(if backward { rows } else { 0 }),
            losses_n: kernels.floats(rows),
            squares_n: None,
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

    /// The same buffers for sequences of `context` tokens.
    pub(super) fn set_context(&mut self, context: usize) {
        self.context = context;
    }

    /// The gradients of the norms' gains of one sequence, `[d]` or `[2e]` each, after a backward
    /// pass.
    pub(super) fn gains(&self, kernels: &K, model: &ModelConfig, sequence: usize) -> Vec<Vec<f32>> {
        let Some(gradients) = &self.gradients else { return Vec::new() };
        let read = |gains: &K::Floats, width: usize| {
            kernels.read(gains, sequence * width..(sequence + 1) * width)
        };
        let streams = gradients.gains_bd.iter().map(|gains| read(gains, model.dim));
        let heads = gradients.head_gains_b2e.iter().map(|gains| read(gains, 2 * model.head_dim));
        streams.chain(heads).collect()
    }

    /// The loss of each of the first `rows` rows, after a pass.
    pub(super) fn token_losses(&self, kernels: &K, rows: usize) -> Vec<f32> {
        kernels.read(&self.losses_n, 0..rows)
    }

    /// Each sequence's mean L², `[b]`, of the first `rows` rows, after a backward pass with a
    /// z-loss; else nothing.
    pub(super) fn sequence_squares(&self, kernels: &K, rows: usize) -> Vec<f64> {
        let squares = self.squares_n.as_ref().map(|squares_n| kernels.read(squares_n, 0..rows));
        self.means(&squares.unwrap_or_default())
    }

    /// The mean of each sequence, `[b]`, of some rows.
    pub(super) fn means(&self, rows: &[f32]) -> Vec<f64> {
        let sum = |rows: &[f32]| rows.iter().map(|&value| f64::from(value)).sum::<f64>();
        rows.chunks_exact(self.context).map(|rows| sum(rows) / rows.len() as f64).collect()
    }
}

fn matrix<K: Backend>(parameter: &Parameter<K>) -> &K::Matrix {
    // Every parameter that a product reads has two dimensions, and so a matrix.
    match &parameter.matrix {
        Some(matrix) => matrix,
        None => unreachable!("a norm's gain or a bias in a product"),
    }
}

impl<K: Backend> Decoder<'_, K> {
    fn eps(&self) -> f32 {
        self.model.norm_eps as f32
    }

    /// A parameter that the model has once.
    fn once(&self, group: FusedGroup) -> &Parameter<K> {
        &self.parameters[self.layout.once(group)]
    }

    /// A parameter of a layer.
    fn in_layer(&self, layer: usize, group: FusedGroup) -> &Parameter<K> {
        &self.parameters[self.layout.in_layer(layer, group)]
    }

    /// From tokens to the last norm's output, `work.norm_nd`. `documents` says where those of whole
    /// sequences begin.
    fn forward(
        &self,
        ids: &[u32],
        documents: Option<&[u32]>,
        mut keep: Keep<'_, '_, K::KvCache>,
        work: &mut Work<K>,
    ) {
        let (k, rows, heads) = (self.kernels, ids.len(), heads(self.model));
        let Work {
            context,
            streams_nd,
            layers,
            norm_nd,
            scale_n,
            ids_n,
            documents_n,
            workspace,
            clock,
            ..
        } = work;
        let context = *context;
        let embedding = self.once(FusedGroup::Embedding);
        k.write_ids(ids, ids_n);
        let documents = match documents {
            Some(documents) => {
                k.write_ids(documents, documents_n);
                Some(&*documents_n)
            }
            None => None,
        };
        k.embed(&embedding.values, self.model.dim, ids_n, streams_nd.first());
        clock.lap(k, KernelKind::Embedding);
        let slots = layers.len();
        for layer in 0..self.model.layers {
            let kept = &mut layers[layer % slots];
            let of = |group| self.in_layer(layer, group);

            let (x_nd, mid_nd) = streams_nd.step(2 * layer);
            k.norm(
                rows,
                x_nd,
                &of(FusedGroup::AttentionNorm).values,
                self.eps(),
                &mut kept.attention_norm_nd,
                &mut kept.attention_scale_n,
            );
            clock.lap(k, KernelKind::Norm);
            let (normed_nd, qkv_nq) = (&kept.attention_norm_nd, &mut kept.qkv_nq);
            if self.model.qkv_bias {
                let bias = &of(FusedGroup::QkvBias).values;
                k.linear_biased(rows, normed_nd, matrix(of(FusedGroup::Qkv)), bias, qkv_nq);
            } else {
                k.linear(rows, normed_nd, matrix(of(FusedGroup::Qkv)), qkv_nq);
            }
            clock.lap(k, KernelKind::Linear);
            if let Some((before, scale)) = &mut kept.head_norm {
                let gains = &of(FusedGroup::QkNorm).values;
                k.head_norm(rows, heads, gains, self.eps(), qkv_nq, before, scale);
                clock.lap(k, KernelKind::Norm);
            }
            let rotations = self.model.rotates(layer).then_some(self.rotations);
            if let Keep::Next(texts) = &mut keep {
                let (qkv_nq, attended_na) = (&mut kept.qkv_nq, &mut kept.attended_na);
                for (row, caches) in texts.iter_mut().enumerate() {
                    let cache = &mut caches[layer];
                    k.attention_step(row, heads, rotations, qkv_nq, cache, attended_na);
                }
                clock.lap(k, KernelKind::Attention);
            } else {
                if let Some(rotations) = rotations {
                    k.rotate(rows, context, heads, rotations, false, &mut kept.qkv_nq);
                    clock.lap(k, KernelKind::Rotate);
                }
                k.attention(
                    rows,
                    context,
                    heads,
                    documents,
                    &kept.qkv_nq,
                    &mut kept.attended_na,
                    &mut kept.log_sums,
                    workspace,
                );
                clock.lap(k, KernelKind::Attention);
                if let Keep::All(caches) = &mut keep {
                    k.cache(rows, heads, &kept.qkv_nq, &mut caches[layer]);
                }
            }
            k.linear_residual(
                rows,
                &kept.attended_na,
                matrix(of(FusedGroup::Output)),
                x_nd,
                mid_nd,
            );
            clock.lap(k, KernelKind::Linear);

            let (mid_nd, out_nd) = streams_nd.step(2 * layer + 1);
            k.norm(
                rows,
                mid_nd,
                &of(FusedGroup::FfnNorm).values,
                self.eps(),
                &mut kept.ffn_norm_nd,
                &mut kept.ffn_scale_n,
            );
            clock.lap(k, KernelKind::Norm);
            k.linear(
                rows,
                &kept.ffn_norm_nd,
                matrix(of(FusedGroup::GateUp)),
                &mut kept.gate_up_n2f,
            );
            clock.lap(k, KernelKind::Linear);
            k.swiglu(rows, &kept.gate_up_n2f, &mut kept.gated_nf);
            clock.lap(k, KernelKind::SwiGlu);
            k.linear_residual(rows, &kept.gated_nf, matrix(of(FusedGroup::Down)), mid_nd, out_nd);
            clock.lap(k, KernelKind::Linear);
        }
        let x_nd = streams_nd.at(2 * self.model.layers);
        k.norm(rows, x_nd, &self.once(FusedGroup::Norm).values, self.eps(), norm_nd, scale_n);
        clock.lap(k, KernelKind::Norm);
    }

    /// The loss of each row, in nats: no backward.
    pub(super) fn losses(&self, tokens: Tokens<'_>, work: &mut Work<K>) -> Vec<f32> {
        let Tokens { inputs: ids, targets, documents } = tokens;
        self.forward(ids, documents, Keep::Nothing, work);
        let (k, head) = (self.kernels, self.once(FusedGroup::Head));
        let Work { norm_nd, targets_n, losses_n, workspace, clock, .. } = work;
        k.write_ids(targets, targets_n);
        k.head(norm_nd, matrix(head), targets_n, losses_n, workspace);
        clock.lap(k, KernelKind::Head);
        k.read(losses_n, 0..ids.len())
    }

    /// The logits of every row, `[n, v]`.
    pub(super) fn logits(&self, ids: &[u32], work: &mut Work<K>) -> Vec<f32> {
        self.forward(ids, None, Keep::Nothing, work);
        self.head_logits(ids.len(), &work.norm_nd)
    }

    fn head_logits(&self, rows: usize, norm_nd: &K::Activations) -> Vec<f32> {
        let head = self.once(FusedGroup::Head);
        let mut logits_nv = self.kernels.floats(rows * self.model.vocab_size);
        self.kernels.linear_floats(rows, norm_nd, matrix(head), &mut logits_nv);
        self.kernels.read(&logits_nv, 0..rows * self.model.vocab_size)
    }

    /// The gradient of Σ_b s_b ℓ_b, s being `loss_scales` and a z-loss in ℓ: added to `gradients`,
    /// one for each parameter, in `turns`. The losses of the rows, without it, are then in `work`.
    pub(super) fn gradient(
        &self,
        tokens: Tokens<'_>,
        loss_scales: &[f64],
        turns: &Turns,
        gradients: &[K::Gradient],
        work: &mut Work<K>,
    ) {
        let Tokens { inputs: ids, targets, documents } = tokens;
        self.forward(ids, documents, Keep::Nothing, work);
        let (k, rows, heads) = (self.kernels, ids.len(), heads(self.model));
        let (d, last) = (self.model.dim, 2 * self.model.layers);
        let Work {
            rows: room,
            context,
            streams_nd,
            layers,
            norm_nd,
            scale_n,
            gradients: back,
            ids_n,
            targets_n,
            documents_n,
            loss_scales_n,
            losses_n,
            squares_n,
            workspace,
            clock,
            ..
        } = work;
        let (context, documents) = (*context, documents.map(|_| &*documents_n));
        let Some(Gradients {
            stream_nd,
            rounded_nd,
            normed_nd,
            gated_nf,
            attended_na,
            qkv_nq,
            gains_bd,
            head_gains_b2e,
        }) = back
        else {
            unreachable!("buffers made for the forward pass alone");
        };

        let of_rows: Vec<f32> =
            (0..rows).map(|row| (loss_scales[row / context] / context as f64) as f32).collect();
        k.write(loss_scales_n, 0, &of_rows);
        k.write_ids(targets, targets_n);
        let z_loss = (self.z_loss > 0.0).then(|| {
            let squares_n = squares_n.get_or_insert_with(|| k.floats(*room));
            (self.z_loss as f32, squares_n)
        });
        let head = self.once(FusedGroup::Head);
        let dw_vd = &gradients[self.layout.once(FusedGroup::Head)];
        k.head_backward(
            norm_nd,
            matrix(head),
            &head.values,
            targets_n,
            loss_scales_n,
            losses_n,
            z_loss,
            normed_nd,
            dw_vd,
            |part| turns.head(part),
            workspace,
        );
        clock.lap(k, KernelKind::Head);
        let gain = &self.once(FusedGroup::Norm).values;
        let x_nd = streams_nd.at(last);
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
        clock.lap(k, KernelKind::Norm);

        for layer in (0..self.model.layers).rev() {
            let kept = &mut layers[layer];
            let of = |group| self.in_layer(layer, group);
            let mut dw = |group: FusedGroup,
                          dy: &K::Activations,
                          x: &K::Activations,
                          clock: &mut Clock<K>| {
                let dw_oi = &gradients[self.layout.in_layer(layer, group)];
                k.linear_gradient(rows, dy, x, dw_oi, turns.of(group), workspace);
                clock.lap(k, KernelKind::LinearGradient);
            };

            k.linear_backward(rows, rounded_nd, matrix(of(FusedGroup::Down)), gated_nf);
            clock.lap(k, KernelKind::Linear);
            dw(FusedGroup::Down, rounded_nd, &kept.gated_nf, clock);
            k.swiglu_backward(rows, gated_nf, &mut kept.gate_up_n2f);
            clock.lap(k, KernelKind::SwiGlu);
            k.linear_backward_floats(
                rows,
                &kept.gate_up_n2f,
                matrix(of(FusedGroup::GateUp)),
                normed_nd,
            );
            clock.lap(k, KernelKind::Linear);
            dw(FusedGroup::GateUp, &kept.gate_up_n2f, &kept.ffn_norm_nd, clock);
            let (x_nd, gains) = (streams_nd.at(2 * layer + 1), &mut gains_bd[2 * layer + 1]);
            k.norm_backward(
                rows,
                context,
                x_nd,
                &of(FusedGroup::FfnNorm).values,
                &kept.ffn_scale_n,
                normed_nd,
                false,
                stream_nd,
                rounded_nd,
                gains,
            );
            clock.lap(k, KernelKind::Norm);

            k.linear_backward(rows, rounded_nd, matrix(of(FusedGroup::Output)), attended_na);
            clock.lap(k, KernelKind::Linear);
            dw(FusedGroup::Output, rounded_nd, &kept.attended_na, clock);
            k.attention_backward(
                rows,
                context,
                heads,
                documents,
                &kept.qkv_nq,
                &kept.attended_na,
                attended_na,
                &kept.log_sums,
                qkv_nq,
                workspace,
            );
            clock.lap(k, KernelKind::Attention);
            if self.model.rotates(layer) {
                k.rotate(rows, context, heads, self.rotations, true, qkv_nq);
                clock.lap(k, KernelKind::Rotate);
            }
            if let Some((before, scale)) = &kept.head_norm {
                let (gains, each) = (&of(FusedGroup::QkNorm).values, &mut head_gains_b2e[layer]);
                k.head_norm_backward(rows, context, heads, gains, before, scale, qkv_nq, each);
                clock.lap(k, KernelKind::Norm);
            }
            if self.model.qkv_bias {
                let gradient = &gradients[self.layout.in_layer(layer, FusedGroup::QkvBias)];
                k.bias_gradient(rows, qkv_nq, gradient, turns.of(FusedGroup::QkvBias));
                clock.lap(k, KernelKind::LinearGradient);
            }
            k.linear_backward_floats(rows, qkv_nq, matrix(of(FusedGroup::Qkv)), normed_nd);
            clock.lap(k, KernelKind::Linear);
            k.linear_gradient(
                rows,
                qkv_nq,
                &kept.attention_norm_nd,
                &gradients[self.layout.in_layer(layer, FusedGroup::Qkv)],
                turns.of(FusedGroup::Qkv),
                workspace,
            );
            clock.lap(k, KernelKind::LinearGradient);
            let (x_nd, gains) = (streams_nd.at(2 * layer), &mut gains_bd[2 * layer]);
            k.norm_backward(
                rows,
                context,
                x_nd,
                &of(FusedGroup::AttentionNorm).values,
                &kept.attention_scale_n,
                normed_nd,
                false,
                stream_nd,
                rounded_nd,
                gains,
            );
            clock.lap(k, KernelKind::Norm);
        }
        let embedding = &gradients[self.layout.once(FusedGroup::Embedding)];
        k.embed_backward(d, ids_n, stream_nd, embedding, turns.of(FusedGroup::Embedding));
        clock.lap(k, KernelKind::Embedding);

        let layers = (0..self.model.layers).flat_map(|layer| {
            [FusedGroup::AttentionNorm, FusedGroup::FfnNorm].map(|g| self.layout.in_layer(layer, g))
        });
        let norms = layers.chain([self.layout.once(FusedGroup::Norm)]).zip(&*gains_bd);
        let of_heads = |layer| self.layout.in_layer(layer, FusedGroup::QkNorm);
        let head_norms = head_gains_b2e.iter().enumerate();
        let head_norms = head_norms.map(|(layer, gains)| (of_heads(layer), gains));
        for (norm, gains) in norms.chain(head_norms) {
            let turn = turns.of(FusedGroup::Norm);
            k.gain_gradient(loss_scales.len(), gains, &gradients[norm], turn);
        }
    }

    /// The log-probabilities of the last `scored` tokens of each of `sequences`, of one after the
    /// other. They are padded behind to one length, which no position before sees, and the head
    /// sees the positions alone that are asked for. `work` has room for all, padded.
    pub(super) fn log_probabilities(
        &self,
        sequences: &[Scored<'_>],
        work: &mut Work<K>,
    ) -> Vec<f32> {
        let k = self.kernels;
        let length = sequences.iter().map(Scored::inputs).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(sequences.len() * length);
        for (index, sequence) in sequences.iter().enumerate() {
            ids.extend_from_slice(&sequence.tokens[..sequence.inputs()]);
            ids.resize((index + 1) * length, 0);
        }
        work.set_context(length);
        self.forward(&ids, None, Keep::Nothing, work);
        let Work { streams_nd, norm_nd, scale_n, ids_n, targets_n, losses_n, workspace, .. } = work;
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (index, Scored { tokens, scored }) in sequences.iter().enumerate() {
            let end = index * length + tokens.len() - 1;
            rows.extend((end - scored..end).map(|row| row as u32));
            targets.extend_from_slice(&tokens[tokens.len() - scored..]);
        }
        k.write_ids(&rows, ids_n);
        k.write_ids(&targets, targets_n);
        let (all_nd, scored_nd) = streams_nd.step(2 * self.model.layers);
        k.embed(all_nd, self.model.dim, ids_n, scored_nd);
        let gain = &self.once(FusedGroup::Norm).values;
        k.norm(rows.len(), scored_nd, gain, self.eps(), norm_nd, scale_n);
        let head = self.once(FusedGroup::Head);
        k.head(norm_nd, matrix(head), targets_n, losses_n, workspace);
        k.read(losses_n, 0..rows.len()).into_iter().map(|loss| -loss).collect()
    }

    /// Adds one of `ids` to each of some texts, whose caches, one a layer, hold what came before;
    /// gives the logits `[n, v]` of the tokens after them, where they are `wanted`.
    /// `work` has room for as many rows, in sequences of one.
    pub(super) fn next(
        &self,
        ids: &[u32],
        texts: &mut [&mut Vec<K::KvCache>],
        wanted: bool,
        work: &mut Work<K>,
    ) -> Vec<f32> {
        self.forward(ids, None, Keep::Next(texts), work);
        if wanted { self.head_logits(ids.len(), &work.norm_nd) } else { Vec::new() }
    }

    /// The logits `[v]` of the token after `ids`, which are put into empty caches, one a layer, in
    /// one pass; the head sees the last alone. `work` has room for one row.
    pub(super) fn begin(
        &self,
        ids: &[u32],
        caches: &mut [K::KvCache],
        work: &mut Work<K>,
    ) -> Vec<f32> {
        let (k, rows, d) = (self.kernels, ids.len(), self.model.dim);
        let mut all = Work::new(k, self.model, rows, rows, false);
        self.forward(ids, None, Keep::All(caches), &mut all);
        let last_d = k.read(all.streams_nd.at(2 * self.model.layers), (rows - 1) * d..rows * d);
        let Work { streams_nd, norm_nd, scale_n, .. } = work;
        k.write(streams_nd.first(), 0, &last_d);
        let gain = &self.once(FusedGroup::Norm).values;
        k.norm(1, streams_nd.at(0), gain, self.eps(), norm_nd, scale_n);
        self.head_logits(1, norm_nd)
    }
}
