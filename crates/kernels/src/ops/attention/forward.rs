//! Attention forward: scores, softmax, and the sum over values.

use crate::buffer::Matrix;
use crate::element::Element;
use crate::gemm::epilogue::store_rounded;
use crate::gemm::microkernel::{LeftOperand, StoreMode, Tile, TileOutput, microkernel, tile_rows};
use crate::gemm::pack::pack_row;
use crate::gemm::tiles;
use crate::isa::{MOST_COLUMNS, multiversion};
use crate::lanes::{LANES, lanes};
use crate::math::ln;
use crate::ops::attention::documents::Documents;
use crate::ops::attention::workspace::{AttentionWorkspace, Heads};

/// out = softmax(mask(q kᵀ / √e)) v, head by head, for sequences of `context` = t tokens.
///
/// `qkv` is `[n, (H + 2G) e]`: queries, keys, values. `out` is `[n, H e]`. Their first `rows` rows
/// are whole sequences, one after the other. `log_sums`, for each sequence `[H, t]`, gets the
/// logarithm of each softmax's denominator, which backward needs.
///
/// With `documents`, `[n]`, a query sees only the keys of its own document: for each row the row of
/// its sequence at which its document begins, at most its own and never less than the row before
/// has.
///
/// # Panics
/// If a matrix, `documents` or `log_sums` is too small.
#[allow(clippy::too_many_arguments)]
pub fn attention<E: Element>(
    rows: usize,
    context: usize,
    heads: Heads,
    documents: Option<&[u32]>,
    qkv: &Matrix<E>,
    out: &mut Matrix<E>,
    log_sums: &mut [f32],
    workspace: &mut AttentionWorkspace<E>,
) {
    let (stride, out_stride) = (qkv.stride(), out.stride());
    for from in (0..rows / context).map(|sequence| sequence * context) {
        let qkv = &qkv.data()[from * stride..];
        let out = &mut out.data_mut()[from * out_stride..];
        let log_sums = &mut log_sums[from * heads.query..][..context * heads.query];
        let documents = Documents::of_sequence(documents, from, context);
        one_sequence(qkv, stride, context, heads, documents, out, out_stride, log_sums, workspace);
    }
}

/// `qkv` in rows `stride` apart, `out` in rows `out_stride` apart.
#[allow(clippy::too_many_arguments)]
fn one_sequence<E: Element>(
    qkv: &[E],
    stride: usize,
    context: usize,
    heads: Heads,
    documents: Documents<'_>,
    out: &mut [E],
    out_stride: usize,
    log_sums: &mut [f32],
    workspace: &mut AttentionWorkspace<E>,
) {
    let e = heads.dim;
    workspace.fit(context, e);
    let repeats = heads.query / heads.kv;
    for g in 0..heads.kv {
        let (keys, values) = (&qkv[(heads.query + g) * e..], (heads.query + heads.kv + g) * e);
        workspace.values_te.pack_columns(&qkv[values..], stride, context, e);
        for head in g * repeats..(g + 1) * repeats {
            workspace.queries_et.pack_rows(&qkv[head * e..], stride, context, e);
            let log_sums = &mut log_sums[head * context..][..context];
            let out = &mut out[head * e..];
            one_head(keys, stride, context, e, documents, out, out_stride, log_sums, workspace);
        }
    }
}

multiversion! {
    /// One head: NR queries at a time, all keys before them that are of their documents.
    fn one_head<E: Element; NR>(
        keys: &[E],
        stride: usize,
        context: usize,
        e: usize,
        documents: Documents<'_>,
        out: &mut [E],
        out_stride: usize,
        log_sums: &mut [f32],
        workspace: &mut AttentionWorkspace<E>,
    ) {
        let microkernel = microkernel::<E, NR>();
        let AttentionWorkspace { queries_et, values_te, scores, probabilities, .. } = workspace;
        let mut tile = Tile::<NR>::ZERO;
        let scale = 1.0 / (e as f32).sqrt();
        let (width, depth) = (e.div_ceil(E::PER_UNIT), context.div_ceil(E::PER_UNIT));
        for first in (0..context).step_by(NR) {
            let count = NR.min(context - first);
            let seen = first + count;
            // From a whole unit on.
            let begin = documents.first_key(first) / E::PER_UNIT * E::PER_UNIT;
            let queries = &queries_et.units::<NR>()[first * width..][..width * NR];
            for key in (begin..seen).step_by(tile_rows::<NR>()) {
                let height = tile_rows::<NR>().min(seen - key);
                let left = LeftOperand::rows(keys, stride, key, height, width);
                let place = &mut scores[key * NR..][..height * NR];
                let out = TileOutput {
                    start: place.as_mut_ptr().cast(),
                    stride: size_of::<[f32; NR]>(),
                    mode: StoreMode::Store,
                };
                // SAFETY: `height` is from 1 to MR. `LeftOperand::rows` checked the rows. `queries`
                // is a slice of `width` units of NR lanes, `place` one of `height` rows.
                unsafe { microkernel(height, width, left, queries.as_ptr(), out) };
            }
            for key in first + 1..seen {
                scores[key * NR..][..key - first].fill(f32::NEG_INFINITY);
            }
            documents.mask::<NR>(scores[begin * NR..seen * NR].as_chunks_mut().0, begin, first);
            let (max, sums) = softmax::<E, NR>(
                &scores[begin * NR..seen * NR],
                scale,
                &mut probabilities[begin / E::PER_UNIT * NR..],
            );
            let (mut inverse, mut logs) = ([0f32; NR], [0f32; NR]);
            for lane in 0..NR {
                inverse[lane] = 1.0 / sums[lane];
                logs[lane] = max[lane] + ln(sums[lane]);
            }
            log_sums[first..][..count].copy_from_slice(&logs[..count]);
            for lanes in tiles::<NR>(count) {
                let seen = (first + lanes.end).div_ceil(E::PER_UNIT);
                let begin = documents.first_key(first + lanes.start) / E::PER_UNIT;
                let units = begin * NR..seen * NR;
                let left = LeftOperand::lanes::<NR>(&probabilities[units.clone()], lanes.start);
                for column in (0..e).step_by(NR) {
                    let panel = &values_te.units::<NR>()[column * depth..][units.clone()];
                    // SAFETY: `lanes` are 1 to MR lanes of one panel. Both operands are slices of
                    // `seen - begin` units of NR lanes. `tile` holds any tile.
                    unsafe {
                        microkernel(
                            lanes.len(),
                            seen - begin,
                            left,
                            panel.as_ptr(),
                            TileOutput::tile(&mut tile),
                        )
                    };
                    for (sums, lane) in tile.0.iter().zip(lanes.clone()) {
                        let out =
                            &mut out[(first + lane) * out_stride + column..][..NR.min(e - column)];
                        store_rounded(out, sums, inverse[lane]);
                    }
                }
            }
        }
    }
}

/// The softmax of NR queries up to its denominator: `units` ← e^(scale · score − max) for each key,
/// where max is the query's largest scale · score. Returns each query's max and sum of
/// exponentials.
#[inline(always)]
fn softmax<E: Element, const NR: usize>(
    scores: &[f32],
    scale: f32,
    units: &mut [u32],
) -> ([f32; NR], [f32; NR]) {
    let (rows, _) = scores.as_chunks::<NR>();
    let mut max = [[f32::NEG_INFINITY; LANES]; MOST_COLUMNS / LANES];
    for row in rows {
        for (max, half) in max.iter_mut().zip((0..NR).step_by(LANES)) {
            let score = lanes(row, half);
            for lane in 0..LANES {
                max[lane] = if score[lane] > max[lane] { score[lane] } else { max[lane] };
            }
        }
    }
    for max in max.as_flattened_mut() {
        *max *= scale;
    }
    let mut sums = [[0f32; LANES]; MOST_COLUMNS / LANES];
    let (units, _) = units.as_chunks_mut::<NR>();
    for (q, unit) in rows.chunks(E::PER_UNIT).zip(units) {
        let mut pair = [[0f32; NR]; 2];
        for (row, p) in q.iter().zip(&mut pair) {
            for (i, half) in (0..NR).step_by(LANES).enumerate() {
                exponentials::<E, NR>(row, half, scale, &max[i], &mut sums[i], p);
            }
        }
        pack_row::<E, NR>(&pair[0], &pair[1], unit);
    }
    (
        std::array::from_fn(|lane| max.as_flattened()[lane]),
        std::array::from_fn(|lane| sums.as_flattened()[lane]),
    )
}

/// e^(scale · score − max) of LANES queries from `half` on, into `p` and added to `sums`.
#[inline(always)]
fn exponentials<E: Element, const NR: usize>(
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
