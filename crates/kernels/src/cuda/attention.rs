//! Launches of `attention.cu` and `attention_backward.cu`, which use tensor cores, and of
//! `attention_plain.cu`, which does without; and of `attention_delta.cu`.

use super::launch::{Typed, WARP, count, launch};
use super::memory::{Activations, Floats, Ids};
use crate::device::{Argument, Device, Kernel};
use crate::element::ElementType;
use crate::ops::Heads;

/// A kernel, and the sizes of its blocks.
#[derive(Clone, Copy)]
struct Blocks {
    kernel: Kernel,
    threads: usize,
    /// What one has: rows of a head, queries or keys, and columns of the result.
    tile: [usize; 2],
    /// Bytes of shared memory that the launch gives.
    shared: usize,
}

impl Blocks {
    /// On tensor cores, for heads up to `dim` wide. A block has `own` tiles of `rows` rows, and by
    /// turns two tiles of each of two matrices that it goes through, `step` rows at a time, with
    /// some `numbers` a row.
    const fn on_tensor_cores(
        file: &'static str,
        (name, step): (&'static str, usize),
        dim: usize,
        [own, rows]: [usize; 2],
        numbers: usize,
    ) -> Self {
        let tiles = (own * rows + 4 * step) * dim * size_of::<u16>();
        let shared = tiles + 2 * step * numbers * size_of::<f32>();
        Self { kernel: Kernel { file, name }, threads: 128, tile: [rows, dim], shared }
    }

    /// Without tensor cores.
    const fn plain(kernel: Kernel) -> Self {
        Self { kernel, threads: 256, tile: [64, 64], shared: 0 }
    }

    /// Runs the kernel on `items` heads of `context` rows.
    fn launch<D: Device>(
        self,
        device: &D,
        items: usize,
        context: usize,
        heads: Heads,
        arguments: &[Argument<'_, D::Memory>],
    ) {
        let [rows, columns] = self.tile;
        let grid = [items * context.div_ceil(rows), heads.dim.div_ceil(columns)];
        launch(device, self.kernel, grid, self.threads, self.shared, arguments);
    }
}

/// Kernels on tensor cores, for heads up to so wide.
struct Wide {
    dim: usize,
    forward: Blocks,
    by_keys: Blocks,
    by_queries: Blocks,
}

impl Wide {
    /// Those of these names, each with how many keys, or queries, it goes through at a time.
    const fn new(
        dim: usize,
        forward: (&'static str, usize),
        by_keys: (&'static str, usize),
        by_queries: (&'static str, usize),
    ) -> Self {
        let file = "attention_backward";
        Self {
            dim,
            // Its own: queries.
            forward: Blocks::on_tensor_cores("attention", forward, dim, [1, 128], 0),
            // Keys and values. Of each query a log-sum, a delta and its first key.
            by_keys: Blocks::on_tensor_cores(file, by_keys, dim, [2, 64], 3),
            // Queries and the output's gradients.
            by_queries: Blocks::on_tensor_cores(file, by_queries, dim, [2, 64], 0),
        }
    }
}

/// Narrow ones first. (Each takes a compiler of the GPU's seconds: there are few.)
static WIDE: [Wide; 2] = [
    Wide::new(
        64,
        ("attention_64_bf16", 64),
        ("attention_by_keys_64_bf16", 64),
        ("attention_by_queries_64_bf16", 64),
    ),
    Wide::new(
        128,
        ("attention_128_bf16", 32),
        ("attention_by_keys_128_bf16", 32),
        ("attention_by_queries_128_bf16", 64),
    ),
];

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
    let blocks = match wide(element, heads) {
        Some(wide) => wide.forward,
        None => Blocks::plain(PLAIN.of(element)),
    };
    blocks.launch(device, sequences * heads.query, context, heads, &arguments);
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
    let [by_keys, by_queries] = match wide(element, heads) {
        Some(wide) => [wide.by_keys, wide.by_queries],
        None => [PLAIN_BY_KEYS, PLAIN_BY_QUERIES].map(|kernel| Blocks::plain(kernel.of(element))),
    };
    by_keys.launch(device, sequences * heads.kv, context, heads, &arguments);
    by_queries.launch(device, sequences * heads.query, context, heads, &arguments);
}

/// The kernels on tensor cores that take such heads: rows of theirs begin on 16 bytes.
fn wide(element: ElementType, heads: Heads) -> Option<&'static Wide> {
    let fits = element == ElementType::Bf16 && heads.dim.is_multiple_of(8);
    WIDE.iter().find(|wide| fits && heads.dim <= wide.dim)
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
