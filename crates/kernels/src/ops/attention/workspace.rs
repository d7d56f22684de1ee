//! The memory that attention works in, and the shape of an attention layer.

use crate::buffer::{Buffer, Matrix};
use crate::element::Element;
use crate::gemm::Panels;
use crate::isa::{MOST_COLUMNS, MOST_ROWS};

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

/// Keys whose score gradients are held at once in backward: a multiple of every MR and of a unit.
pub(super) const BLOCK: usize = 20 * MOST_ROWS;

/// One thread's workspace for attention, reused from call to call. It grows where a call needs
/// more: none is too small.
///
/// Suffixes are shapes: t tokens of the longest sequence, e width of a head. `[e, t]` is packed for
/// sums over a head's width, `[t, e]` for sums over tokens. What is laid out by tiles, of NR
/// columns and MR rows, has room for those of any instruction set.
pub struct AttentionWorkspace<E> {
    /// Length of the longest sequence, and width of a head.
    context: usize,
    dim: usize,
    /// One head's queries and values. Its keys are read where they lie.
    pub(super) queries_et: Panels<E>,
    pub(super) values_te: Panels<E>,
    /// Scores of all keys with NR queries, `[t, NR]`.
    pub(super) scores: Buffer<f32>,
    /// Their softmax up to a factor, in units along the keys, `[t / unit, NR]`.
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
    /// The gradient of BLOCK keys' scores, packed for the sum over keys: for each NR queries
    /// `[BLOCK / unit, NR]`.
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
        Self::with(context, heads.dim, backward)
    }

    /// For sequences of up to `context` tokens and heads of up to `e`.
    fn with(context: usize, e: usize, backward: bool) -> Self {
        let queries = context.next_multiple_of(MOST_COLUMNS);
        Self {
            context,
            dim: e,
            queries_et: Panels::zeros(context, e),
            values_te: Panels::zeros(e, context),
            scores: Buffer::zeros(queries * MOST_COLUMNS),
            probabilities: Buffer::zeros(queries / E::PER_UNIT * MOST_COLUMNS),
            backward: backward.then(|| BackwardWorkspace::with(context, e)),
        }
    }

    /// Makes room for sequences of `context` tokens with heads `dim` wide.
    pub(super) fn fit(&mut self, context: usize, dim: usize) {
        if context > self.context || dim > self.dim {
            let (context, dim) = (context.max(self.context), dim.max(self.dim));
            *self = Self::with(context, dim, self.backward.is_some());
        }
    }

    /// The same for backward: what the queries are packed in, and what backward alone needs.
    pub(super) fn for_backward(
        &mut self,
        context: usize,
        dim: usize,
    ) -> (&mut Panels<E>, &mut BackwardWorkspace<E>) {
        self.fit(context, dim);
        let (context, dim) = (self.context, self.dim);
        let backward = self.backward.get_or_insert_with(|| BackwardWorkspace::with(context, dim));
        (&mut self.queries_et, backward)
    }
}

impl<E: Element> BackwardWorkspace<E> {
    /// For sequences of up to `context` tokens and heads of up to `e`.
    fn with(context: usize, e: usize) -> Self {
        let queries = context.next_multiple_of(MOST_COLUMNS);
        let keys = BLOCK.min(context.next_multiple_of(MOST_ROWS));
        Self {
            d_out_et: Panels::zeros(context, e),
            d_out_te: Panels::zeros(e, context),
            queries_te: Panels::zeros(e, context),
            keys_te: Panels::zeros(e, context),
            probabilities: Matrix::zeros(MOST_ROWS, queries),
            d_scores: Matrix::zeros(MOST_ROWS, queries),
            d_score_units: Buffer::zeros(queries * keys / E::PER_UNIT),
            log_sums: Buffer::zeros(queries),
            delta: Buffer::zeros(queries),
            query_gradient: Buffer::zeros(context * e),
            key_gradient: Buffer::zeros(context * e),
            value_gradient: Buffer::zeros(context * e),
        }
    }
}
