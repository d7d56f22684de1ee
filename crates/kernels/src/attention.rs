//! Causal attention of one sequence, a dozen queries at a time: no matrix of all queries by all keys is ever held (after
//! FlashAttention; Dao et al., 2022). Several query heads may share a head of keys and values (Ainslie et al., GQA, 2023).

use crate::buffer::{Buffer, Matrix};
use crate::element::Element;
use crate::gemm::span;
use crate::isa::multiversion;
use crate::math::{LANES, dot, exp, largest, total};
use crate::micro::{Kind, Left, MR, NR, Out, Product, Tile, product};
use crate::pack::{Panels, pack_strip, strip_len, strip_panel};

/// Queries whose probabilities are held at once on the way back, a multiple of MR and of a unit.
const BLOCK: usize = 10 * MR;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub query: usize,
    /// Key and value heads, G, a divisor of H.
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

/// Room for one sequence's attention, reused from call to call.
pub struct AttentionRoom<E> {
    context: usize,
    /// Keys and values as products over a head's width read them, `[e, t]`.
    keys_et: Panels<E>,
    values_et: Panels<E>,
    /// And as products over positions do, `[t, e]`.
    keys_te: Panels<E>,
    values_te: Panels<E>,
    /// Scores and their gradients of MR queries.
    scores: Matrix<f32>,
    score_gradients: Matrix<f32>,
    /// Softmax and its gradient of BLOCK queries.
    probabilities: Matrix<E>,
    gradients: Matrix<E>,
    /// Both, packed for products over queries.
    strip: Buffer<u32>,
    /// A block's queries and its output's gradient, `[BLOCK, e]`.
    queries: Panels<E>,
    output_gradients: Panels<E>,
    key_gradient: Buffer<f32>,
    value_gradient: Buffer<f32>,
}

impl<E: Element> AttentionRoom<E> {
    /// For sequences of up to `context` tokens; with `backward`, for the way back too.
    pub fn new(context: usize, heads: Heads, backward: bool) -> Self {
        let e = heads.dim;
        let (back, block, e_back) = if backward { (context, BLOCK, e) } else { (0, MR, 0) };
        let keys = context.next_multiple_of(NR);
        Self {
            context,
            keys_et: Panels::zeros(context, e),
            values_te: Panels::zeros(e, context),
            values_et: Panels::zeros(back, e_back),
            keys_te: Panels::zeros(e_back, back),
            scores: Matrix::zeros(MR, keys),
            score_gradients: Matrix::zeros(if backward { MR } else { 0 }, keys),
            probabilities: Matrix::zeros(block, keys),
            gradients: Matrix::zeros(if backward { BLOCK } else { 0 }, keys),
            strip: Buffer::zeros(if backward { strip_len(BLOCK.div_ceil(E::PER_UNIT), context) } else { 0 }),
            queries: Panels::zeros(e_back, BLOCK),
            output_gradients: Panels::zeros(e_back, BLOCK),
            key_gradient: Buffer::zeros(back * e),
            value_gradient: Buffer::zeros(back * e),
        }
    }
}

/// out = softmax(mask(q kᵀ / √e)) v of one sequence of `context` = t tokens, head by head.
///
/// `qkv` is `[t, (H + 2G) e]`, queries, keys, values, in rows `stride` apart; `out` `[t, H e]` in rows `out_stride` apart; `log_sums`,
/// `[H, t]`, keeps the logarithm of each softmax's denominator for the way back.
///
/// # Panics
/// If a slice or the room is too small.
#[allow(clippy::too_many_arguments)]
pub fn attention<E: Element>(
    qkv: &[E],
    stride: usize,
    context: usize,
    heads: Heads,
    out: &mut [E],
    out_stride: usize,
    log_sums: &mut [f32],
    room: &mut AttentionRoom<E>,
) {
    assert!(context <= room.context, "room for {} tokens, not {context}", room.context);
    let e = heads.dim;
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        room.keys_et.pack_rows(&qkv[(heads.query + g) * e..], stride, context, e);
        room.values_te.pack_columns(&qkv[(heads.query + heads.kv + g) * e..], stride, context, e);
        for head in g * repeats..(g + 1) * repeats {
            let log_sums = &mut log_sums[head * context..][..context];
            let (queries, out) = (&qkv[head * e..], &mut out[head * e..]);
            forward(queries, stride, context, e, out, out_stride, log_sums, room, product::<E>());
        }
    }
}

multiversion! {
    /// One head.
    fn forward<E: Element>(
        queries: &[E], stride: usize, context: usize, e: usize, out: &mut [E], out_stride: usize,
        log_sums: &mut [f32], room: &mut AttentionRoom<E>, product: Product,
    ) {
        let AttentionRoom { keys_et, values_te, scores, probabilities, .. } = room;
        let mut tile = Tile::ZERO;
        let scale = 1.0 / (e as f32).sqrt();
        let value_units = context.div_ceil(E::PER_UNIT);
        for start in (0..context).step_by(MR) {
            let height = MR.min(context - start);
            let keys = start + height;
            products_with_keys(queries, stride, start, height, keys, e, keys_et, scores, product);
            let mut inverse = [0f32; MR];
            for r in 0..height {
                let seen = start + r + 1;
                let scores = &scores.row(r)[..seen];
                let probabilities = probabilities.row_mut(r);
                let max = largest(scores) * scale;
                let mut sums = [0f32; LANES];
                let ((chunks, rest), (places, _)) = (scores.as_chunks::<LANES>(), probabilities.as_chunks_mut::<LANES>());
                for (score, place) in chunks.iter().zip(places) {
                    for i in 0..LANES {
                        let p = exp(score[i].mul_add(scale, -max));
                        place[i] = E::narrow(p);
                        sums[i] += p;
                    }
                }
                for ((score, place), sum) in rest.iter().zip(&mut probabilities[seen - rest.len()..]).zip(&mut sums) {
                    let p = exp(score.mul_add(scale, -max));
                    *place = E::narrow(p);
                    *sum += p;
                }
                // Keys that this query does not see but another of the dozen does, and the rest of a unit.
                probabilities[seen..keys.next_multiple_of(2)].fill(E::default());
                let sum = total(sums);
                inverse[r] = 1.0 / sum;
                log_sums[start + r] = max + sum.ln();
            }
            let units = keys.div_ceil(E::PER_UNIT);
            for column in (0..e).step_by(NR) {
                let panel = &values_te.units()[column * value_units..][..units * NR];
                let left = left_rows(probabilities.data(), probabilities.stride(), 0, height, units);
                // SAFETY: `left_rows` checked the rows; the panel has as many units.
                unsafe { product(height, units, left, panel.as_ptr(), Out::tile(&mut tile)) };
                for r in 0..height {
                    let width = NR.min(e - column);
                    let out = &mut out[(start + r) * out_stride + column..][..width];
                    for (out, sum) in out.iter_mut().zip(&tile.0[r]) {
                        *out = E::narrow(sum * inverse[r]);
                    }
                }
            }
        }
    }
}

/// Rows `start..start + height` of `rows` as the left operand of a product over `units`.
#[inline(always)]
fn left_rows<E: Element>(rows: &[E], stride: usize, start: usize, height: usize, units: usize) -> Left {
    let from = &rows[start * stride..];
    assert!(from.len() >= span(height, stride, units * E::PER_UNIT));
    Left { start: from.as_ptr().cast(), row: stride * size_of::<E>(), unit: 4 }
}

/// `out`, `[height, keys]` or a little wider ← rows `start..start + height` of `rows` times what `right` holds, `[e, t]`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn products_with_keys<E: Element>(
    rows: &[E],
    stride: usize,
    start: usize,
    height: usize,
    keys: usize,
    e: usize,
    right: &Panels<E>,
    out: &mut Matrix<f32>,
    product: Product,
) {
    let units = e.div_ceil(E::PER_UNIT);
    let left = left_rows(rows, stride, start, height, units);
    assert!(height <= out.rows() && keys.next_multiple_of(NR) <= out.columns());
    let out_stride = out.stride() * size_of::<f32>();
    for column in (0..keys).step_by(NR) {
        let panel = &right.units()[column * units..][..units * NR];
        let place = out.data_mut()[column..].as_mut_ptr().cast();
        let out = Out { start: place, stride: out_stride, kind: Kind::Store };
        // SAFETY: `left_rows` checked the rows; the panel has as many units; `out` has as many rows and, as asserted, columns.
        unsafe { product(height, units, left, panel.as_ptr(), out) };
    }
}

/// The gradient of `attention` by queries, keys and values, into `qkv_gradient`, laid out as `qkv`, given the gradient of
/// `out`, laid out as `out`. The probabilities are computed anew from `log_sums`.
///
/// # Panics
/// If a slice or the room is too small, or the room was made without `backward`.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<E: Element>(
    qkv: &[E],
    stride: usize,
    context: usize,
    heads: Heads,
    out: &[E],
    out_gradient: &[E],
    out_stride: usize,
    log_sums: &[f32],
    qkv_gradient: &mut [E],
    room: &mut AttentionRoom<E>,
) {
    assert!(context <= room.context, "room for {} tokens, not {context}", room.context);
    let e = heads.dim;
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        let (key, value) = ((heads.query + g) * e, (heads.query + heads.kv + g) * e);
        room.keys_et.pack_rows(&qkv[key..], stride, context, e);
        room.keys_te.pack_columns(&qkv[key..], stride, context, e);
        room.values_et.pack_rows(&qkv[value..], stride, context, e);
        room.key_gradient[..context * e].fill(0.0);
        room.value_gradient[..context * e].fill(0.0);
        for head in g * repeats..(g + 1) * repeats {
            for start in (0..context).step_by(BLOCK) {
                let count = BLOCK.min(context - start);
                let at = start * out_stride + head * e;
                room.output_gradients.pack_columns(&out_gradient[at..], out_stride, count, e);
                room.queries.pack_columns(&qkv[start * stride + head * e..], stride, count, e);
                let log_sums = &log_sums[head * context..][..context];
                let (queries, gradient) = (&qkv[head * e..], &mut qkv_gradient[head * e..]);
                let (out, out_gradient) = (&out[head * e..], &out_gradient[head * e..]);
                backward(
                    queries,
                    stride,
                    context,
                    start,
                    count,
                    e,
                    out,
                    out_gradient,
                    out_stride,
                    log_sums,
                    gradient,
                    room,
                    product::<E>(),
                );
            }
        }
        for (column, gradient) in [(key, &room.key_gradient), (value, &room.value_gradient)] {
            round_rows(gradient, e, &mut qkv_gradient[column..], stride, context);
        }
    }
}

multiversion! {
    /// `rows` rows of `source`, `[rows, e]`, rounded into rows `stride` apart.
    fn round_rows<E: Element>(source: &[f32], e: usize, out: &mut [E], stride: usize, rows: usize) {
        for (source, out) in source.chunks_exact(e).zip(out.chunks_mut(stride)).take(rows) {
            for (out, &x) in out.iter_mut().zip(source) {
                *out = E::narrow(x);
            }
        }
    }
}

multiversion! {
    /// Queries `first..first + count` of one head.
    fn backward<E: Element>(
        queries: &[E], stride: usize, context: usize, first: usize, count: usize, e: usize, out: &[E],
        out_gradient: &[E], out_stride: usize, log_sums: &[f32], query_gradient: &mut [E],
        room: &mut AttentionRoom<E>, product: Product,
    ) {
        let AttentionRoom {
            keys_et, values_et, keys_te, scores, score_gradients, probabilities, gradients, strip, queries: block_queries,
            output_gradients, key_gradient, value_gradient, ..
        } = room;
        let mut tile = Tile::ZERO;
        let scale = 1.0 / (e as f32).sqrt();
        let key_units = context.div_ceil(E::PER_UNIT);
        let all_keys = first + count;
        for start in (first..first + count).step_by(MR) {
            let height = MR.min(first + count - start);
            let keys = start + height;
            products_with_keys(queries, stride, start, height, keys, e, keys_et, scores, product);
            products_with_keys(out_gradient, out_stride, start, height, keys, e, values_et, score_gradients, product);
            for r in 0..height {
                let (row, seen) = (start + r, start + r + 1);
                let log_sum = log_sums[row];
                let at = row * out_stride;
                let along = dot(&out[at..][..e], &out_gradient[at..][..e]);
                let scores = &scores.row(r)[..seen];
                let score_gradients = &score_gradients.row(r)[..seen];
                let probabilities = probabilities.row_mut(start - first + r);
                let gradients = gradients.row_mut(start - first + r);
                let places = probabilities[..seen].iter_mut().zip(&mut gradients[..seen]);
                for ((&s, &g), (p, d)) in scores.iter().zip(score_gradients).zip(places) {
                    let probability = exp(s.mul_add(scale, -log_sum));
                    *p = E::narrow(probability);
                    *d = E::narrow(probability * (g - along) * scale);
                }
                let end = all_keys.next_multiple_of(2);
                probabilities[seen..end].fill(E::default());
                gradients[seen..end].fill(E::default());
            }
            let units = keys.div_ceil(E::PER_UNIT);
            for column in (0..e).step_by(NR) {
                let panel = &keys_te.units()[column * key_units..][..units * NR];
                let left = left_rows(gradients.data(), gradients.stride(), start - first, height, units);
                if e - column >= NR {
                    let out = &mut query_gradient[start * stride + column..][..span(height, stride, NR)];
                    let out = Out { start: out.as_mut_ptr().cast(), stride: stride * size_of::<E>(), kind: Kind::Round };
                    // SAFETY: `left_rows` checked the rows; the panel has as many units; `out` was checked.
                    unsafe { product(height, units, left, panel.as_ptr(), out) };
                    continue;
                }
                // SAFETY: as above; a tile is as large as can be.
                unsafe { product(height, units, left, panel.as_ptr(), Out::tile(&mut tile)) };
                for r in 0..height {
                    let width = NR.min(e - column);
                    let out = &mut query_gradient[(start + r) * stride + column..][..width];
                    for (out, &sum) in out.iter_mut().zip(&tile.0[r]) {
                        *out = E::narrow(sum);
                    }
                }
            }
        }
        let sides = [(probabilities, output_gradients, value_gradient), (gradients, block_queries, key_gradient)];
        let units = count.div_ceil(E::PER_UNIT);
        for (left, right, out) in sides {
            pack_strip::<E>(strip, left.data(), left.stride(), count, all_keys);
            for key in (0..all_keys).step_by(MR) {
                let height = MR.min(all_keys - key);
                // Queries before the first of these keys do not see them.
                let skipped = key.saturating_sub(first) / E::PER_UNIT;
                let rows = &strip[key / MR * strip_panel(units)..][skipped * MR..units * MR];
                let left = Left { start: rows.as_ptr().cast(), row: 4, unit: 4 * MR };
                for column in (0..e).step_by(NR) {
                    let panel = &right.units()[column * units..][skipped * NR..units * NR];
                    let width = NR.min(e - column);
                    if width == NR {
                        let out = &mut out[key * e + column..][..(height - 1) * e + NR];
                        let out = Out { start: out.as_mut_ptr().cast(), stride: e * size_of::<f32>(), kind: Kind::Add };
                        // SAFETY: the strip's panel and the right one's have `units - skipped` units left; `out` was checked.
                        unsafe { product(height, units - skipped, left, panel.as_ptr(), out) };
                        continue;
                    }
                    // SAFETY: as above; a tile is as large as can be.
                    unsafe { product(height, units - skipped, left, panel.as_ptr(), Out::tile(&mut tile)) };
                    for r in 0..height {
                        let out = &mut out[(key + r) * e + column..][..width];
                        for (out, sum) in out.iter_mut().zip(&tile.0[r]) {
                            *out += sum;
                        }
                    }
                }
            }
        }
    }
}
