//! Launches of `attention.cu` and `attention_backward.cu`, which use tensor cores, and of
//! `attention_plain.cu`, which does without; and of `attention_delta.cu`.

use super::launch::{Typed, WARP, count, launch};
use super::memory::{Activations, Floats, Ids};
use crate::device::{Argument, Device, Kernel};
use crate::element::ElementType;
use crate::ops::Heads;

/// Kernels on tensor cores, for heads up to so wide.
struct Wide {
    dim: usize,
    /// Each with how many keys, or queries, it goes through at a time.
    forward: (&'static str, usize),
    by_keys: (&'static str, usize),
    by_queries: (&'static str, usize),
}

/// Narrow ones first. (Each takes a compiler of the GPU's seconds: there are few.)
const WIDE: [Wide; 2] = [
    Wide {
        dim: 64,
        forward: ("attention_64_bf16", 64),
        by_keys: ("attention_by_keys_64_bf16", 64),
        by_queries: ("attention_by_queries_64_bf16", 64),
    },
    Wide {
        dim: 128,
        forward: ("attention_128_bf16", 32),
        by_keys: ("attention_by_keys_128_bf16", 32),
        by_queries: ("attention_by_queries_128_bf16", 64),
    },
];

/// Threads of a block on tensor cores.
const THREADS: usize = 128;
/// Queries of a block forward, and queries or keys of one backward.
const QUERIES: usize = 128;
const ROWS: usize = 64;

/// The kernels without tensor cores, for all else.
const PLAIN: Typed = Typed::new("attention_plain", "attention_plain_f32", "attention_plain_bf16");
const PLAIN_BY_KEYS: Typed =
    Typed::new("attention_plain", "attention_plain_by_keys_f32", "attention_plain_by_keys_bf16");
const PLAIN_BY_QUERIES: Typed = Typed::new(
    "attention_plain",
    "attention_plain_by_queries_f32",
    "attention_plain_by_queries_bf16",
);
const DELTA: Typed = Typed::new("attention_delta", "attention_delta_f32", "attention_delta_bf16");

/// Threads of a block of theirs.
const PLAIN_THREADS: usize = 256;
/// Rows of a tile, and columns of the result that a block has.
const SIDE: usize = 64;

/// Warps of a block that computes delta, one a head and row.
const WARPS: usize = 8;

/// out ← softmax(mask(q kᵀ / √e)) v; `log_sums` ← the logarithms of the denominators.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    context: usize,
    heads: Heads,
    documents: Option<&Ids<D>>,
    qkv: &Activations<D>,
    out: &Activations<D>,
    log_sums: &Floats<D>,
) {
    let sequences = rows / context;
    let rows = sequences * context;
    let arguments = [
        qkv.of(rows, heads.columns()),
        count(qkv.stride),
        out.of(rows, heads.query * heads.dim),
        count(out.stride),
        log_sums.of(rows * heads.query),
        of_documents(documents, rows),
        count(context),
        count(heads.query),
        count(heads.kv),
        count(heads.dim),
        Argument::F32(scale(heads)),
    ];
    let items = sequences * heads.query;
    match wide(element, heads) {
        Some(wide) => {
            let (name, step) = wide.forward;
            let kernel = Kernel { file: "attention", name };
            // Queries; keys and values by turns.
            let shared = (QUERIES + 4 * step) * wide.dim * size_of::<u16>();
            let blocks = items * context.div_ceil(QUERIES);
            launch(device, kernel, [blocks, 1], THREADS, shared, &arguments);
        }
        None => launch_plain(device, PLAIN.of(element), items, context, heads, &arguments),
    }
}

/// `d_qkv` ← the gradient, given that of `out`; `delta` is for what is needed in between.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Device>(
    device: &D,
    element: ElementType,
    rows: usize,
    context: usize,
    heads: Heads,
    documents: Option<&Ids<D>>,
    qkv: &Activations<D>,
    out: &Activations<D>,
    d_out: &Activations<D>,
    log_sums: &Floats<D>,
    d_qkv: &Activations<D>,
    delta: &Floats<D>,
) {
    let sequences = rows / context;
    let rows = sequences * context;
    let width = heads.query * heads.dim;
    let numbers = rows * heads.query;
    assert_eq!(qkv.stride, d_qkv.stride, "queries, keys and values, and their gradient");
    let fill_delta = [
        out.of(rows, width),
        count(out.stride),
        d_out.of(rows, width),
        count(d_out.stride),
        delta.of(numbers),
        count(rows),
        count(context),
        count(heads.query),
        count(heads.dim),
    ];
    launch(device, DELTA.of(element), [numbers.div_ceil(WARPS), 1], WARPS * WARP, 0, &fill_delta);
    let arguments = [
        qkv.of(rows, heads.columns()),
        d_qkv.of(rows, heads.columns()),
        count(qkv.stride),
        d_out.of(rows, width),
        count(d_out.stride),
        log_sums.of(numbers),
        delta.of(numbers),
        of_documents(documents, rows),
        count(context),
        count(heads.query),
        count(heads.kv),
        count(heads.dim),
        Argument::F32(scale(heads)),
    ];
    let (keys, queries) = (sequences * heads.kv, sequences * heads.query);
    match wide(element, heads) {
        Some(wide) => {
            // Of each query by turns its log-sum, its delta and its first key.
            let numbers = 2 * wide.by_keys.1 * 3 * size_of::<f32>();
            for ((name, step), items, numbers) in
                [(wide.by_keys, keys, numbers), (wide.by_queries, queries, 0)]
            {
                let kernel = Kernel { file: "attention_backward", name };
                // The block's own two tiles, and two by turns of what it goes through.
                let shared = (2 * ROWS + 4 * step) * wide.dim * size_of::<u16>() + numbers;
                let blocks = items * context.div_ceil(ROWS);
                launch(device, kernel, [blocks, 1], THREADS, shared, &arguments);
            }
        }
        None => {
            for (kernels, items) in [(PLAIN_BY_KEYS, keys), (PLAIN_BY_QUERIES, queries)] {
                launch_plain(device, kernels.of(element), items, context, heads, &arguments);
            }
        }
    }
}

/// The kernels on tensor cores that take such heads: rows of theirs begin on 16 bytes.
fn wide(element: ElementType, heads: Heads) -> Option<&'static Wide> {
    let fits = element == ElementType::Bf16 && heads.dim.is_multiple_of(8);
    WIDE.iter().find(|wide| fits && heads.dim <= wide.dim)
}

/// Runs a plain kernel: a block for each tile of each of `items` heads, and SIDE columns of it.
fn launch_plain<D: Device>(
    device: &D,
    kernel: Kernel,
    items: usize,
    context: usize,
    heads: Heads,
    arguments: &[Argument<'_, D::Memory>],
) {
    let grid = [items * context.div_ceil(SIDE), heads.dim.div_ceil(SIDE)];
    launch(device, kernel, grid, PLAIN_THREADS, 0, arguments);
}

/// Where the rows' documents begin, if attention keeps within them.
///
/// # Panics
/// If they are of fewer rows.
fn of_documents<D: Device>(documents: Option<&Ids<D>>, rows: usize) -> Argument<'_, D::Memory> {
    documents.map_or(Argument::Null, |documents| {
        assert!(documents.values().len() >= rows, "documents of at least {rows} rows");
        documents.argument()
    })
}

/// What scores are multiplied by, 1 / √e.
fn scale(heads: Heads) -> f32 {
    1.0 / (heads.dim as f32).sqrt()
}
