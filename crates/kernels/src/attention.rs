//! Causal attention of one sequence, 32 queries at a time: no matrix of all queries by all keys is
//! ever held (after FlashAttention; Dao et al., 2022). Several query heads may share a head of keys
//! and values (Ainslie et al., GQA, 2023).
//!
//! Scores are made transposed, a row a key and a lane a query: a softmax's largest score, its sum
//! and what its gradient needs of a query are then whole registers, and nothing is added across
//! lanes. Two keys' probabilities side by side are a unit, so that what is written lane by lane is
//! packed for the products over keys as it stands.

use crate::buffer::{Buffer, Matrix};
use crate::element::Element;
use crate::gemm::{put_rounded, span, tiles};
use crate::isa::multiversion;
use crate::math::{LANES, dot, ln};
use crate::micro::{Kind, Left, MR, NR, Out, Product, Tile, product};
use crate::pack::Panels;

/// Keys whose score gradients are held at once on the way back, a multiple of MR and of a unit.
const BLOCK: usize = 20 * MR;

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

/// Workspace for one sequence's attention, reused from call to call.
pub struct AttentionWorkspace<E> {
    context: usize,
    /// One head's queries as products over its width read them, `[e, t]`; its keys and values are
    /// read where they lie.
    queries_et: Panels<E>,
    values_te: Panels<E>,
    /// Scores of all keys with 32 queries, `[t, 32]`, and their softmax in units of the keys, `[t /
    /// unit, 32]`.
    scores: Buffer<f32>,
    units: Buffer<u32>,
    back: Option<Back<E>>,
}

/// What only the way back needs.
struct Back<E> {
    /// The output's gradient as products over a head's width read it, `[e, t]`.
    d_out_et: Panels<E>,
    /// And what products over positions read, `[t, e]`.
    d_out_te: Panels<E>,
    queries_te: Panels<E>,
    keys_te: Panels<E>,
    /// Softmax and gradient of the scores of MR keys, `[MR, t]`.
    probabilities: Matrix<E>,
    gradients: Matrix<E>,
    /// The latter of BLOCK keys, packed for products over them: for each 32 queries `[BLOCK / unit,
    /// 32]`.
    units: Buffer<u32>,
    /// What a query's softmax is divided by, its logarithm, and its output times the output's
    /// gradient: one a query.
    log_sums: Buffer<f32>,
    along: Buffer<f32>,
    /// In f32, `[t, e]`.
    query_gradient: Buffer<f32>,
    key_gradient: Buffer<f32>,
    value_gradient: Buffer<f32>,
}

impl<E: Element> AttentionWorkspace<E> {
    /// For sequences of up to `context` tokens; with `backward`, for the way back too.
    pub fn new(context: usize, heads: Heads, backward: bool) -> Self {
        let (e, queries) = (heads.dim, context.next_multiple_of(NR));
        let back = || Back {
            d_out_et: Panels::zeros(context, e),
            d_out_te: Panels::zeros(e, context),
            queries_te: Panels::zeros(e, context),
            keys_te: Panels::zeros(e, context),
            probabilities: Matrix::zeros(MR, queries),
            gradients: Matrix::zeros(MR, queries),
            units: Buffer::zeros(queries * BLOCK.min(context.next_multiple_of(MR)) / E::PER_UNIT),
            log_sums: Buffer::zeros(queries),
            along: Buffer::zeros(queries),
            query_gradient: Buffer::zeros(context * e),
            key_gradient: Buffer::zeros(context * e),
            value_gradient: Buffer::zeros(context * e),
        };
        Self {
            context,
            queries_et: Panels::zeros(context, e),
            values_te: Panels::zeros(e, context),
            scores: Buffer::zeros(queries * NR),
            units: Buffer::zeros(queries / E::PER_UNIT * NR),
            back: backward.then(back),
        }
    }
}

/// out = softmax(mask(q kᵀ / √e)) v of one sequence of `context` = t tokens, head by head.
///
/// `qkv` is `[t, (H + 2G) e]`, queries, keys, values, in rows `stride` apart; `out` `[t, H e]` in
/// rows `out_stride` apart; `log_sums`, `[H, t]`, keeps the logarithm of each softmax's denominator
/// for the way back.
///
/// # Panics
/// If a slice or the workspace is too small.
#[allow(clippy::too_many_arguments)]
pub fn attention<E: Element>(
    qkv: &[E],
    stride: usize,
    context: usize,
    heads: Heads,
    out: &mut [E],
    out_stride: usize,
    log_sums: &mut [f32],
    workspace: &mut AttentionWorkspace<E>,
) {
    assert!(context <= workspace.context, "room for {} tokens, not {context}", workspace.context);
    let e = heads.dim;
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        workspace.values_te.pack_columns(
            &qkv[(heads.query + heads.kv + g) * e..],
            stride,
            context,
            e,
        );
        for head in g * repeats..(g + 1) * repeats {
            workspace.queries_et.pack_rows(&qkv[head * e..], stride, context, e);
            let keys = &qkv[(heads.query + g) * e..];
            let (log_sums, out) =
                (&mut log_sums[head * context..][..context], &mut out[head * e..]);
            forward(keys, stride, context, e, out, out_stride, log_sums, workspace, product::<E>());
        }
    }
}

multiversion! {
    /// One head.
    fn forward<E: Element>(
        keys: &[E], stride: usize, context: usize, e: usize, out: &mut [E], out_stride: usize, log_sums: &mut [f32],
        workspace: &mut AttentionWorkspace<E>, product: Product,
    ) {
        let AttentionWorkspace { queries_et, values_te, scores, units, .. } = workspace;
        let mut tile = Tile::ZERO;
        let scale = 1.0 / (e as f32).sqrt();
        let (width, depth) = (e.div_ceil(E::PER_UNIT), context.div_ceil(E::PER_UNIT));
        for first in (0..context).step_by(NR) {
            let count = NR.min(context - first);
            let seen = first + count;
            let queries = &queries_et.units()[first * width..][..width * NR];
            for key in (0..seen).step_by(MR) {
                let height = MR.min(seen - key);
                let left = left_rows(keys, stride, key, height, width);
                let place = &mut scores[key * NR..][..height * NR];
                let out = Out { start: place.as_mut_ptr().cast(), stride: size_of::<[f32; NR]>(), kind: Kind::Store };
                // SAFETY: `left_rows` checked the rows; the panel has as many units; `out` was
                // checked.
                unsafe { product(height, width, left, queries.as_ptr(), out) };
            }
            for key in first + 1..seen {
                scores[key * NR..][..key - first].fill(f32::NEG_INFINITY);
            }
            let (max, sums) = softmax::<E>(&scores[..seen * NR], scale, units);
            let (mut inverse, mut logs) = ([0f32; NR], [0f32; NR]);
            for lane in 0..NR {
                inverse[lane] = 1.0 / sums[lane];
                logs[lane] = max[lane] + ln(sums[lane]);
            }
            log_sums[first..][..count].copy_from_slice(&logs[..count]);
            for lanes in tiles(count) {
                let seen = (first + lanes.end).div_ceil(E::PER_UNIT);
                let left = left_lanes(&units[..seen * NR], lanes.start);
                for column in (0..e).step_by(NR) {
                    let panel = &values_te.units()[column * depth..][..seen * NR];
                    // SAFETY: both sides have `seen` units, the left one as many lanes; a tile is
                    // as large as can be.
                    unsafe { product(lanes.len(), seen, left, panel.as_ptr(), Out::tile(&mut tile)) };
                    for (sums, lane) in tile.0.iter().zip(lanes.clone()) {
                        let out = &mut out[(first + lane) * out_stride + column..][..NR.min(e - column)];
                        put_rounded(out, sums, inverse[lane]);
                    }
                }
            }
        }
    }
}

/// Of NR queries: e^(scale · score − the largest) of each key into `units`, and each one's largest
/// and sum.
#[inline(always)]
fn softmax<E: Element>(scores: &[f32], scale: f32, units: &mut [u32]) -> ([f32; NR], [f32; NR]) {
    let (rows, _) = scores.as_chunks::<NR>();
    let mut max = [[f32::NEG_INFINITY; LANES]; 2];
    for row in rows {
        for (max, half) in max.iter_mut().zip([0, LANES]) {
            let score = lanes(row, half);
            for lane in 0..LANES {
                max[lane] = if score[lane] > max[lane] { score[lane] } else { max[lane] };
            }
        }
    }
    for max in max.as_flattened_mut() {
        *max *= scale;
    }
    let mut sums = [[0f32; LANES]; 2];
    let (units, _) = units.as_chunks_mut::<NR>();
    for (q, unit) in rows.chunks(E::PER_UNIT).zip(units) {
        let mut pair = [[0f32; NR]; 2];
        for (row, p) in q.iter().zip(&mut pair) {
            for (i, half) in [0, LANES].into_iter().enumerate() {
                exponentials::<E>(row, half, scale, &max[i], &mut sums[i], p);
            }
        }
        pack::<E>(&pair[0], &pair[1], unit);
    }
    (
        std::array::from_fn(|lane| max.as_flattened()[lane]),
        std::array::from_fn(|lane| sums.as_flattened()[lane]),
    )
}

/// e^(scale · score − max) of LANES lanes from `half` on, added to `sums`.
#[inline(always)]
fn exponentials<E: Element>(
    row: &[f32; NR],
    half: usize,
    scale: f32,
    max: &[f32; LANES],
    sums: &mut [f32; LANES],
    p: &mut [f32; NR],
) {
    let (score, mut e) = (lanes(row, half), [0f32; LANES]);
    for lane in 0..LANES {
        e[lane] = E::exp(score[lane].mul_add(scale, -max[lane]));
        sums[lane] += e[lane];
    }
    p[half..][..LANES].copy_from_slice(&e);
}

/// A row of units.
#[inline(always)]
pub(crate) fn pack<E: Element>(upper: &[f32; NR], lower: &[f32; NR], units: &mut [u32; NR]) {
    for half in [0, LANES] {
        let (upper, lower, mut packed) = (lanes(upper, half), lanes(lower, half), [0u32; LANES]);
        for lane in 0..LANES {
            packed[lane] = E::near_unit(upper[lane], lower[lane]);
        }
        units[half..][..LANES].copy_from_slice(&packed);
    }
}

/// A row of elements, the first NR of `row`.
///
/// # Panics
/// If it is shorter.
#[inline(always)]
pub(crate) fn put<E: Element>(values: &[f32; NR], row: &mut [E]) {
    let row = &mut row[..NR];
    for half in [0, LANES] {
        let (values, mut near) = (lanes(values, half), [E::default(); LANES]);
        for lane in 0..LANES {
            near[lane] = E::near(values[lane]);
        }
        row[half..][..LANES].copy_from_slice(&near);
    }
}

/// LANES of a row's, from `half` on.
#[inline(always)]
pub(crate) fn lanes(row: &[f32; NR], half: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(&row[half..][..LANES]);
    lanes
}

/// Rows `start..start + height` of `rows` as the left operand of a product over `units`.
#[inline(always)]
fn left_rows<E: Element>(
    rows: &[E],
    stride: usize,
    start: usize,
    height: usize,
    units: usize,
) -> Left {
    let from = &rows[start * stride..];
    assert!(from.len() >= span(height, stride, units * E::PER_UNIT));
    Left { start: from.as_ptr().cast(), row: stride * size_of::<E>(), unit: 4 }
}

/// Lanes of packed units, from `lane` on, as the left operand.
#[inline(always)]
fn left_lanes(units: &[u32], lane: usize) -> Left {
    Left { start: units[lane..].as_ptr().cast(), row: 4, unit: 4 * NR }
}

/// The gradient of `attention` by queries, keys and values, into `qkv_gradient`, laid out as `qkv`,
/// given the gradient of `out`, laid out as `out`. The probabilities are computed anew from
/// `log_sums`.
///
/// # Panics
/// If a slice or the workspace is too small, or was made without `backward`.
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
    workspace: &mut AttentionWorkspace<E>,
) {
    assert!(context <= workspace.context, "room for {} tokens, not {context}", workspace.context);
    let AttentionWorkspace { queries_et, back: Some(back), .. } = workspace else {
        panic!("the workspace was made for the forward alone");
    };
    let e = heads.dim;
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        let (key, value) = ((heads.query + g) * e, (heads.query + heads.kv + g) * e);
        back.keys_te.pack_columns(&qkv[key..], stride, context, e);
        for head in g * repeats..(g + 1) * repeats {
            let (queries, out, d_out) =
                (&qkv[head * e..], &out[head * e..], &out_gradient[head * e..]);
            queries_et.pack_rows(queries, stride, context, e);
            back.queries_te.pack_columns(queries, stride, context, e);
            back.d_out_et.pack_rows(d_out, out_stride, context, e);
            back.d_out_te.pack_columns(d_out, out_stride, context, e);
            // Lanes beyond the last query multiply zeros, and must not be what a longer sequence
            // left.
            back.log_sums[context..].fill(0.0);
            back.along[context..].fill(0.0);
            back.log_sums[..context].copy_from_slice(&log_sums[head * context..][..context]);
            along(out, d_out, out_stride, e, &mut back.along[..context]);
            let add = head > g * repeats;
            backward(
                &qkv[key..],
                &qkv[value..],
                stride,
                context,
                e,
                add,
                queries_et,
                back,
                product::<E>(),
            );
            round_rows(&back.query_gradient, e, &mut qkv_gradient[head * e..], stride, context);
        }
        round_rows(&back.key_gradient, e, &mut qkv_gradient[key..], stride, context);
        round_rows(&back.value_gradient, e, &mut qkv_gradient[value..], stride, context);
    }
}

multiversion! {
    /// Each row's product with its gradient, of width `e`.
    fn along<E: Element>(out: &[E], d_out: &[E], stride: usize, e: usize, along: &mut [f32]) {
        for (row, along) in along.iter_mut().enumerate() {
            *along = dot(&out[row * stride..][..e], &d_out[row * stride..][..e]);
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
    /// One head: BLOCK keys at a time, of these MR. Keys' and values' gradients are added to with
    /// `add`.
    fn backward<E: Element>(
        keys: &[E], values: &[E], stride: usize, context: usize, e: usize, add: bool, queries_et: &Panels<E>,
        back: &mut Back<E>, product: Product,
    ) {
        let Back {
            d_out_et, d_out_te, queries_te, keys_te, probabilities, gradients, units, log_sums, along, query_gradient,
            key_gradient, value_gradient,
        } = back;
        let (mut scores, mut d_probabilities) = (Tile::ZERO, Tile::ZERO);
        let scale = 1.0 / (e as f32).sqrt();
        let (width, depth) = (e.div_ceil(E::PER_UNIT), context.div_ceil(E::PER_UNIT));
        let rows_stride = probabilities.stride();
        for block in (0..context).step_by(BLOCK) {
            let end = context.min(block + BLOCK);
            let block_units = (end - block).div_ceil(E::PER_UNIT);
            for key in (block..end).step_by(MR) {
                let height = MR.min(end - key);
                let (keys, values) = (left_rows(keys, stride, key, height, width), left_rows(values, stride, key, height, width));
                for first in (key / NR * NR..context).step_by(NR) {
                    let panel = first * width..(first + NR) * width;
                    let (queries, d_out) = (&queries_et.units()[panel.clone()], &d_out_et.units()[panel]);
                    // SAFETY: `left_rows` checked the rows; the panels have as many units; a tile
                    // is as large as can be.
                    unsafe {
                        product(height, width, keys, queries.as_ptr(), Out::tile(&mut scores));
                        product(height, width, values, d_out.as_ptr(), Out::tile(&mut d_probabilities));
                    }
                    for (row, key) in scores.0.iter_mut().zip(key..key + height).filter(|(_, key)| *key > first) {
                        row[..NR.min(key - first)].fill(f32::NEG_INFINITY);
                    }
                    let units = &mut units[first * block_units..][(key - block) / E::PER_UNIT * NR..];
                    let query = (row_of(log_sums, first), row_of(along, first));
                    for (q, unit) in units.as_chunks_mut::<NR>().0.iter_mut().enumerate().take(height.div_ceil(E::PER_UNIT)) {
                        // The gradients of one key, or of two; of none those of the other.
                        let mut pair = [[0f32; NR]; 2];
                        for (r, d_scores) in (q * E::PER_UNIT..height).take(E::PER_UNIT).zip(&mut pair) {
                            let mut p = [0f32; NR];
                            for half in [0, LANES] {
                                gradient::<E>(&scores.0[r], &d_probabilities.0[r], half, &query, scale, &mut p, d_scores);
                            }
                            put(&p, &mut probabilities.data_mut()[r * rows_stride + first..]);
                            put(d_scores, &mut gradients.data_mut()[r * rows_stride + first..]);
                        }
                        pack::<E>(&pair[0], &pair[1], unit);
                    }
                }
                // Queries before the first of these keys do not see them.
                let skipped = key / E::PER_UNIT;
                let kind = if add { Kind::Add } else { Kind::Store };
                for (rows, right, out) in [(&*probabilities, &*d_out_te, &mut *value_gradient), (gradients, queries_te, key_gradient)] {
                    let left = left_rows(&rows.data()[key..], rows.stride(), 0, height, depth - skipped);
                    for column in (0..e).step_by(NR) {
                        let panel = &right.units()[column * depth..][skipped * NR..depth * NR];
                        // SAFETY: `left_rows` checked the rows.
                        unsafe { tile_of(product, depth - skipped, left, panel, out, key, height, column, e, kind) };
                    }
                }
            }
            let kind = if block == 0 { Kind::Store } else { Kind::Add };
            for first in (block / NR * NR..context).step_by(NR) {
                for lanes in tiles(NR.min(context - first)).filter(|lanes| first + lanes.end > block) {
                    let seen = (end.min(first + lanes.end) - block).div_ceil(E::PER_UNIT);
                    let left = left_lanes(&units[first * block_units..][..seen * NR], lanes.start);
                    for column in (0..e).step_by(NR) {
                        let panel = &keys_te.units()[column * depth..][block / E::PER_UNIT * NR..][..seen * NR];
                        let (row, height) = (first + lanes.start, lanes.len());
                        // SAFETY: `left_lanes` got `seen` units, each of NR lanes.
                        unsafe { tile_of(product, seen, left, panel, query_gradient, row, height, column, e, kind) };
                    }
                }
            }
        }
    }
}

/// Softmax and gradient of the score, of LANES queries from `half` on and one key, given the
/// logarithms of the queries' sums and what lies along their outputs.
#[inline(always)]
fn gradient<E: Element>(
    scores: &[f32; NR],
    d_probabilities: &[f32; NR],
    half: usize,
    (log_sums, along): &([f32; NR], [f32; NR]),
    scale: f32,
    p: &mut [f32; NR],
    d_scores: &mut [f32; NR],
) {
    let (score, d_probability) = (lanes(scores, half), lanes(d_probabilities, half));
    let (log_sum, along) = (lanes(log_sums, half), lanes(along, half));
    let (mut probability, mut d_score) = ([0f32; LANES], [0f32; LANES]);
    for lane in 0..LANES {
        probability[lane] = E::exp(score[lane].mul_add(scale, -log_sum[lane]));
        d_score[lane] = probability[lane] * (d_probability[lane] - along[lane]) * scale;
    }
    p[half..][..LANES].copy_from_slice(&probability);
    d_scores[half..][..LANES].copy_from_slice(&d_score);
}

/// The NR numbers from `at` on.
#[inline(always)]
fn row_of(numbers: &[f32], at: usize) -> [f32; NR] {
    let mut row = [0.0; NR];
    row.copy_from_slice(&numbers[at..][..NR]);
    row
}

/// A tile of `height` rows from `row` and NR columns from `column` on into `out`, `[rows, e]`, as
/// far as it is wide.
///
/// # Panics
/// If `right` or `out` is too short.
///
/// # Safety
/// `left` has `height` rows, at most MR, of `units` units.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile_of(
    product: Product,
    units: usize,
    left: Left,
    right: &[u32],
    out: &mut [f32],
    row: usize,
    height: usize,
    column: usize,
    e: usize,
    kind: Kind,
) {
    assert!(right.len() >= units * NR);
    let out = &mut out[row * e + column..];
    if e - column >= NR {
        assert!(out.len() >= span(height, e, NR));
        let out = Out { start: out.as_mut_ptr().cast(), stride: e * size_of::<f32>(), kind };
        // SAFETY: the caller's promise; `right` and `out` were checked.
        return unsafe { product(height, units, left, right.as_ptr(), out) };
    }
    let mut tile = Tile::ZERO;
    // SAFETY: as above; a tile is as large as can be.
    unsafe { product(height, units, left, right.as_ptr(), Out::tile(&mut tile)) };
    for (out, sums) in out.chunks_mut(e).zip(&tile.0[..height]) {
        for (out, sum) in out[..e - column].iter_mut().zip(sums) {
            *out = if kind == Kind::Add { *out + sum } else { *sum };
        }
    }
}
