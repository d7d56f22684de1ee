//! Attention backward: the gradients of queries, keys and values.
//!
//! The probabilities p are computed again from the scores (FlashAttention, algorithm 4):
//!
//! ```text
//! delta = Σ out · d_out  of each query        dp = d_out vᵀ        d_score = p · (dp − delta) / √e
//! dv = pᵀ d_out                               dk = d_scoreᵀ q      dq = d_score k
//! ```

use crate::buffer::{Matrix, span};
use crate::dot::dot;
use crate::element::Element;
use crate::gemm::microkernel::{
    LeftOperand, Microkernel, StoreMode, Tile, TileOutput, microkernel, tile_rows,
};
use crate::gemm::pack::{pack_row, store_row};
use crate::gemm::{Panels, tiles};
use crate::isa::multiversion;
use crate::lanes::{LANES, lanes};
use crate::ops::attention::documents::Documents;
use crate::ops::attention::workspace::{AttentionWorkspace, BLOCK, BackwardWorkspace, Heads};

/// The gradient of [`attention`] by queries, keys and values, for sequences of `context` = t
/// tokens.
///
/// `d_qkv`, `[n, (H + 2G) e]` as `qkv`, gets the gradient, given `d_out`, the gradient of `out`,
/// both `[n, H e]`. `documents` is what [`attention`] was given, and `log_sums` as it left it.
///
/// # Panics
/// If a matrix, `documents` or `log_sums` is too small.
///
/// [`attention`]: crate::attention
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<E: Element>(
    rows: usize,
    context: usize,
    heads: Heads,
    documents: Option<&[u32]>,
    qkv: &Matrix<E>,
    out: &Matrix<E>,
    d_out: &Matrix<E>,
    log_sums: &[f32],
    d_qkv: &mut Matrix<E>,
    workspace: &mut AttentionWorkspace<E>,
) {
    let (stride, out_stride) = (qkv.stride(), out.stride());
    for from in (0..rows / context).map(|sequence| sequence * context) {
        one_sequence(
            &qkv.data()[from * stride..],
            stride,
            context,
            heads,
            Documents::of_sequence(documents, from, context),
            &out.data()[from * out_stride..],
            &d_out.data()[from * out_stride..],
            out_stride,
            &log_sums[from * heads.query..][..context * heads.query],
            &mut d_qkv.data_mut()[from * stride..],
            workspace,
        );
    }
}

/// `qkv` and `d_qkv` in rows `stride` apart, `out` and `d_out` in rows `out_stride` apart.
#[allow(clippy::too_many_arguments)]
fn one_sequence<E: Element>(
    qkv: &[E],
    stride: usize,
    context: usize,
    heads: Heads,
    documents: Documents<'_>,
    out: &[E],
    d_out: &[E],
    out_stride: usize,
    log_sums: &[f32],
    d_qkv: &mut [E],
    workspace: &mut AttentionWorkspace<E>,
) {
    let e = heads.dim;
    let (queries_et, backward) = workspace.for_backward(context, e);
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        let (key, value) = ((heads.query + g) * e, (heads.query + heads.kv + g) * e);
        backward.keys_te.pack_columns(&qkv[key..], stride, context, e);
        for head in g * repeats..(g + 1) * repeats {
            let (queries, out, d_out) = (&qkv[head * e..], &out[head * e..], &d_out[head * e..]);
            queries_et.pack_rows(queries, stride, context, e);
            backward.queries_te.pack_columns(queries, stride, context, e);
            backward.d_out_et.pack_rows(d_out, out_stride, context, e);
            backward.d_out_te.pack_columns(d_out, out_stride, context, e);
            // Lanes beyond the last query are multiplied by zeros: they must be finite, and not
            // what a longer sequence left.
            backward.log_sums[context..].fill(0.0);
            backward.delta[context..].fill(0.0);
            backward.log_sums[..context].copy_from_slice(&log_sums[head * context..][..context]);
            fill_delta(out, d_out, out_stride, e, &mut backward.delta[..context]);
            let add = head > g * repeats;
            let (keys, values) = (&qkv[key..], &qkv[value..]);
            one_head(keys, values, stride, context, e, documents, add, queries_et, backward);
            round_rows(&backward.query_gradient, e, &mut d_qkv[head * e..], stride, context);
        }
        round_rows(&backward.key_gradient, e, &mut d_qkv[key..], stride, context);
        round_rows(&backward.value_gradient, e, &mut d_qkv[value..], stride, context);
    }
}

multiversion! {
    /// delta ← Σ out · d_out of each row, e wide, in rows `stride` apart.
    fn fill_delta<E: Element>(out: &[E], d_out: &[E], stride: usize, e: usize, delta: &mut [f32]) {
        for (row, delta) in delta.iter_mut().enumerate() {
            *delta = dot(&out[row * stride..][..e], &d_out[row * stride..][..e]);
        }
    }
}

multiversion! {
    /// `out`, in rows `stride` apart, ← the first `rows` rows of `source`, `[t, e]`, rounded.
    fn round_rows<E: Element>(source: &[f32], e: usize, out: &mut [E], stride: usize, rows: usize) {
        for (source, out) in source.chunks_exact(e).zip(out.chunks_mut(stride)).take(rows) {
            for (out, &x) in out.iter_mut().zip(source) {
                *out = E::narrow(x);
            }
        }
    }
}

multiversion! {
    /// One head: BLOCK keys at a time, and of these MR at a time with all queries that see them.
    ///
    /// With `add`, the gradients of keys and values are added to what is there: heads that share
    /// them add up.
    fn one_head<E: Element; NR>(
        keys: &[E],
        values: &[E],
        stride: usize,
        context: usize,
        e: usize,
        documents: Documents<'_>,
        add: bool,
        queries_et: &Panels<E>,
        backward: &mut BackwardWorkspace<E>,
    ) {
        let microkernel = microkernel::<E, NR>();
        let BackwardWorkspace {
            d_out_et,
            d_out_te,
            queries_te,
            keys_te,
            probabilities,
            d_scores,
            d_score_units,
            log_sums,
            delta,
            query_gradient,
            key_gradient,
            value_gradient,
        } = backward;
        let (mut scores, mut d_probabilities) = (Tile::<NR>::ZERO, Tile::<NR>::ZERO);
        let scale = 1.0 / (e as f32).sqrt();
        let (width, depth) = (e.div_ceil(E::PER_UNIT), context.div_ceil(E::PER_UNIT));
        let rows_stride = probabilities.stride();
        for block in (0..context).step_by(BLOCK) {
            let end = context.min(block + BLOCK);
            let block_units = (end - block).div_ceil(E::PER_UNIT);
            for key in (block..end).step_by(tile_rows::<NR>()) {
                let height = tile_rows::<NR>().min(end - key);
                let (keys, values) = (
                    LeftOperand::rows(keys, stride, key, height, width),
                    LeftOperand::rows(values, stride, key, height, width),
                );
                // Behind these, queries are of later documents than all of these keys.
                let last = documents.last_query(key + height - 1, context);
                for first in (key / NR * NR..last).step_by(NR) {
                    let panel = first * width..(first + NR) * width;
                    let (queries, d_out) =
                        (&queries_et.units::<NR>()[panel.clone()], &d_out_et.units::<NR>()[panel]);
                    // SAFETY: `height` is from 1 to MR. `LeftOperand::rows` checked the rows. Both
                    // panels are slices of `width` units of NR lanes. A tile holds any tile.
                    unsafe {
                        microkernel(
                            height,
                            width,
                            keys,
                            queries.as_ptr(),
                            TileOutput::tile(&mut scores),
                        );
                        microkernel(
                            height,
                            width,
                            values,
                            d_out.as_ptr(),
                            TileOutput::tile(&mut d_probabilities),
                        );
                    }
                    for (row, key) in
                        scores.0.iter_mut().zip(key..key + height).filter(|(_, key)| *key > first)
                    {
                        row[..NR.min(key - first)].fill(f32::NEG_INFINITY);
                    }
                    documents.mask::<NR>(&mut scores.0[..height], key, first);
                    let units = &mut d_score_units[first * block_units..]
                        [(key - block) / E::PER_UNIT * NR..];
                    let query = (row_of::<NR>(log_sums, first), row_of::<NR>(delta, first));
                    for (q, unit) in units
                        .as_chunks_mut::<NR>()
                        .0
                        .iter_mut()
                        .enumerate()
                        .take(height.div_ceil(E::PER_UNIT))
                    {
                        // A unit is one key, or two, of which the second is zero if there is none.
                        let mut pair = [[0f32; NR]; 2];
                        for (r, d_score) in
                            (q * E::PER_UNIT..height).take(E::PER_UNIT).zip(&mut pair)
                        {
                            let mut p = [0f32; NR];
                            for half in (0..NR).step_by(LANES) {
                                score_gradient::<E, NR>(
                                    &scores.0[r],
                                    &d_probabilities.0[r],
                                    half,
                                    &query,
                                    scale,
                                    &mut p,
                                    d_score,
                                );
                            }
                            store_row(&p, &mut probabilities.data_mut()[r * rows_stride + first..]);
                            store_row(d_score, &mut d_scores.data_mut()[r * rows_stride + first..]);
                        }
                        pack_row::<E, NR>(&pair[0], &pair[1], unit);
                    }
                }
                // The sums over queries leave out those before the first of these keys, which do
                // not see them.
                let skipped = key / E::PER_UNIT;
                let depth_seen = last.div_ceil(E::PER_UNIT);
                let mode = if add { StoreMode::Add } else { StoreMode::Store };
                for (rows, right, out) in [
                    (&*probabilities, &*d_out_te, &mut *value_gradient),
                    (d_scores, queries_te, key_gradient),
                ] {
                    let left = LeftOperand::rows(
                        &rows.data()[key..],
                        rows.stride(),
                        0,
                        height,
                        depth_seen - skipped,
                    );
                    for column in (0..e).step_by(NR) {
                        let panel =
                            &right.units::<NR>()[column * depth..][skipped * NR..depth_seen * NR];
                        // SAFETY: `height` is from 1 to MR. `LeftOperand::rows` checked the rows.
                        unsafe {
                            store_tile::<NR>(
                                microkernel,
                                depth_seen - skipped,
                                left,
                                panel,
                                out,
                                key,
                                height,
                                column,
                                e,
                                mode,
                            )
                        };
                    }
                }
            }
            for first in (block / NR * NR..documents.last_query(end - 1, context)).step_by(NR) {
                for lanes in
                    tiles::<NR>(NR.min(context - first)).filter(|lanes| first + lanes.end > block)
                {
                    // The first of their keys; those of this block from there on were all met
                    // above, and the first block that has any stores.
                    let key = documents.first_key(first + lanes.start);
                    if key >= end {
                        continue;
                    }
                    let mode = if key >= block { StoreMode::Store } else { StoreMode::Add };
                    let begin = key.saturating_sub(block) / E::PER_UNIT;
                    let seen = (end.min(first + lanes.end) - block).div_ceil(E::PER_UNIT);
                    let units = begin * NR..seen * NR;
                    let left = LeftOperand::lanes::<NR>(
                        &d_score_units[first * block_units..][units.clone()],
                        lanes.start,
                    );
                    for column in (0..e).step_by(NR) {
                        let panel = &keys_te.units::<NR>()[column * depth..]
                            [block / E::PER_UNIT * NR..][units.clone()];
                        let (row, height) = (first + lanes.start, lanes.len());
                        // SAFETY: `lanes` are 1 to MR lanes of one panel, and `left` was made from
                        // a slice of `seen - begin` units of NR lanes.
                        unsafe {
                            store_tile::<NR>(
                                microkernel,
                                seen - begin,
                                left,
                                panel,
                                query_gradient,
                                row,
                                height,
                                column,
                                e,
                                mode,
                            )
                        };
                    }
                }
            }
        }
    }
}

/// Of one key's scores with LANES queries from `half` on: the softmax p = e^(scale · score −
/// log_sum) into `p`, and the score's gradient scale · p (dp − delta) into `d_scores`.
#[inline(always)]
fn score_gradient<E: Element, const NR: usize>(
    scores: &[f32; NR],
    d_probabilities: &[f32; NR],
    half: usize,
    (log_sums, delta): &([f32; NR], [f32; NR]),
    scale: f32,
    p: &mut [f32; NR],
    d_scores: &mut [f32; NR],
) {
    let (score, d_probability) = (lanes(scores, half), lanes(d_probabilities, half));
    let (log_sum, delta) = (lanes(log_sums, half), lanes(delta, half));
    let (mut probability, mut d_score) = ([0f32; LANES], [0f32; LANES]);
    for lane in 0..LANES {
        probability[lane] = E::exp(score[lane].mul_add(scale, -log_sum[lane]));
        d_score[lane] = probability[lane] * (d_probability[lane] - delta[lane]) * scale;
    }
    p[half..][..LANES].copy_from_slice(&probability);
    d_scores[half..][..LANES].copy_from_slice(&d_score);
}

/// Numbers `at..at + NR`, copied.
#[inline(always)]
fn row_of<const NR: usize>(numbers: &[f32], at: usize) -> [f32; NR] {
    let mut row = [0.0; NR];
    row.copy_from_slice(&numbers[at..][..NR]);
    row
}

/// Computes the tile of `height` rows from `row` on and NR columns from `column` on of `out`,
/// `[rows, e]`, and stores or adds it, as far as `out` is wide.
///
/// # Panics
/// If `right` or `out` is too short.
///
/// # Safety
/// `height` is from 1 to MR, and `left` has `height` rows of `units` units.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn store_tile<const NR: usize>(
    microkernel: Microkernel,
    units: usize,
    left: LeftOperand,
    right: &[u32],
    out: &mut [f32],
    row: usize,
    height: usize,
    column: usize,
    e: usize,
    mode: StoreMode,
) {
    assert!(right.len() >= units * NR);
    let out = &mut out[row * e + column..];
    if e - column >= NR {
        assert!(out.len() >= span(height, e, NR));
        let out = TileOutput { start: out.as_mut_ptr().cast(), stride: e * size_of::<f32>(), mode };
        // SAFETY: the caller's promise for `left`; `right` and `out` were checked above.
        return unsafe { microkernel(height, units, left, right.as_ptr(), out) };
    }
    let mut tile = Tile::<NR>::ZERO;
    // SAFETY: the caller's promise for `left`; `right` was checked above; a tile holds any tile.
    unsafe { microkernel(height, units, left, right.as_ptr(), TileOutput::tile(&mut tile)) };
    for (out, sums) in out.chunks_mut(e).zip(&tile.0[..height]) {
        for (out, sum) in out[..e - column].iter_mut().zip(sums) {
            *out = if mode == StoreMode::Add { *out + sum } else { *sum };
        }
    }
}
