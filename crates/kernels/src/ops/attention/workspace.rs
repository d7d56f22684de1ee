//! The memory that attention works in, and the shape of an attention layer.

use crate::buffer::{Buffer, Matrix};
use crate::element::Element;
use crate::gemm::Panels;
use crate::gemm::microkernel::{MR, NR};

/// The shape of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub query: usize,
    /// Key and value heads, G, a divisor of H: H / G query heads share one.
    pub kv: usize,
    /// Width of a head, e, even.
    pub dim: usize,
}

impl Heads {
    /// Columns of queries, keys and values side by side: (H + 2G) e.
    pub fn columns(&self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }
}

/// Keys whose score gradients are held at once in backward: a multiple of MR and of a unit.
pub(super) const BLOCK: usize = 20 * MR;

/// One thread's workspace for attention, reused from call to call.
///
/// Suffixes are shapes: t tokens of the longest sequence, e width of a head. `[e, t]` is packed for
/// sums over a head's width, `[t, e]` for sums over tokens.
pub struct AttentionWorkspace<E> {
    /// Length of the longest sequence.
    pub(super) context: usize,
    /// One head's queries and values. Its keys are read where they lie.
    pub(super) queries_et: Panels<E>,
    pub(super) values_te: Panels<E>,
    /// Scores of all keys with 32 queries, `[t, 32]`.
    pub(super) scores: Buffer<f32>,
    /// Their softmax up to a factor, in units along the keys, `[t / unit, 32]`.
    pub(super) probabilities: Buffer<u32>,
    pub(super) backward: Option<BackwardWorkspace<E>>,
}

/// What only backward needs.
pub(super) struct BackwardWorkspace<E> {
    /// One head's output gradient, queries and keys.
    pub(super) d_out_et: Panels<E>,
    pub(super) d_out_te: Panels<E>,
    pub(super) queries_te: Panels<E>,
    pub(super) keys_te: Panels<E>,
    /// Softmax of the scores of MR keys with all queries, and the scores' gradient, `[MR, t]`.
    pub(super) probabilities: Matrix<E>,
    pub(super) d_scores: Matrix<E>,
    /// The gradient of BLOCK keys' scores, packed for the sum over keys: for each 32 queries
    /// `[BLOCK / unit, 32]`.
    pub(super) d_score_units: Buffer<u32>,
    /// Of each query the logarithm of its softmax's denominator, and delta, its output times the
    /// output's gradient, `[t]`.
    pub(super) log_sums: Buffer<f32>,
    pub(super) delta: Buffer<f32>,
    /// One head's gradients in f32, `[t, e]`.
    pub(super) query_gradient: Buffer<f32>,
    pub(super) key_gradient: Buffer<f32>,
    pub(super) value_gradient: Buffer<f32>,
}

impl<E: Element> AttentionWorkspace<E> {
    /// For sequences of up to `context` tokens; with `backward`, for [`attention_backward`] too.
    ///
    /// [`attention_backward`]: crate::attention_backward
    pub fn new(context: usize, heads: Heads, backward: bool) -> Self {
        let (e, queries) = (heads.dim, context.next_multiple_of(NR));
        let new_backward = || BackwardWorkspace {
            d_out_et: Panels::zeros(context, e),
            d_out_te: Panels::zeros(e, context),
            queries_te: Panels::zeros(e, context),
            keys_te: Panels::zeros(e, context),
            probabilities: Matrix::zeros(MR, queries),
            d_scores: Matrix::zeros(MR, queries),
            d_score_units: Buffer::zeros(
                queries * BLOCK.min(context.next_multiple_of(MR)) / E::PER_UNIT,
            ),
            log_sums: Buffer::zeros(queries),
            delta: Buffer::zeros(queries),
            query_gradient: Buffer::zeros(context * e),
            key_gradient: Buffer::zeros(context * e),
            value_gradient: Buffer::zeros(context * e),
        };
        Self {
            context,
            queries_et: Panels::zeros(context, e),
            values_te: Panels::zeros(e, context),
            scores: Buffer::zeros(queries * NR),
            probabilities: Buffer::zeros(queries / E::PER_UNIT * NR),
            backward: backward.then(new_backward),
        }
    }
}
