//! Causal attention on a device of CUDA's model, against the processor's and against f64: forward
//! and backward, on tensor cores and without them, within documents and not. The emulator runs each
//! case with its threads in order and in orders drawn from seeds, which must give the same bits.

#![allow(clippy::unwrap_used)]

#[path = "ops/tools.rs"]
#[allow(dead_code)]
mod tools;

use cuvee_emulator::Emulator;
use cuvee_kernels::{Backend, Cuda, ElementType, Heads};

use tools::{
    Case, ELEMENTS, EXP, Found, U32, activations, all_rounded, found, ids, random, read, unit,
};

/// Some sequences, with the lengths of their documents, which come by turns.
struct Attention {
    sequences: usize,
    context: usize,
    heads: Heads,
    lengths: Option<&'static [usize]>,
}

impl Attention {
    fn rows(&self) -> usize {
        self.sequences * self.context
    }

    fn qkv(&self) -> Vec<f32> {
        random(self.rows() * self.heads.columns(), 1).iter().map(|x| 2.0 * x).collect()
    }

    fn d_out(&self) -> Vec<f32> {
        random(self.rows() * self.heads.query * self.heads.dim, 2)
    }

    /// Where the document of each row begins; each sequence begins one length further on.
    fn documents(&self) -> Option<Vec<u32>> {
        let lengths = self.lengths?;
        let one = |sequence: usize| {
            let mut begins = Vec::new();
            for length in lengths.iter().cycle().skip(sequence) {
                if begins.len() >= self.context {
                    break;
                }
                let begin = begins.len() as u32;
                begins.extend(std::iter::repeat_n(begin, *length));
            }
            begins.truncate(self.context);
            begins
        };
        Some((0..self.sequences).flat_map(one).collect())
    }
}

impl Case<3> for Attention {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 3] {
        let Self { context, heads, .. } = *self;
        let (n, c, width) = (self.rows(), heads.columns(), heads.query * heads.dim);
        let documents = self.documents().map(|documents| ids(k, &documents));
        let documents = documents.as_ref();
        let qkv = activations(k, n, c, &self.qkv(), 0);
        let d_out = activations(k, n, width, &self.d_out(), 0);
        // Room for a row more, which stays as it is.
        let (mut out, mut d_qkv) = (k.activations(n + 1, width), k.activations(n + 1, c));
        let mut log_sums = k.floats(n * heads.query);
        let mut workspace = k.workspace(n, context, heads, 1, 1, true);
        k.attention(n, context, heads, documents, &qkv, &mut out, &mut log_sums, &mut workspace);
        k.attention_backward(
            n,
            context,
            heads,
            documents,
            &qkv,
            &out,
            &d_out,
            &log_sums,
            &mut d_qkv,
            &mut workspace,
        );
        [
            read(k, &out, n + 1, width),
            k.read(&log_sums, 0..n * heads.query),
            read(k, &d_qkv, n + 1, c),
        ]
    }
}

/// What attention is, in f64.
struct Oracle {
    out: Vec<f64>,
    log_sums: Vec<f64>,
    d_qkv: Vec<f64>,
}

fn oracle(case: &Attention, qkv: &[f64], d_out: &[f64]) -> Oracle {
    let Attention { sequences, context, heads, .. } = *case;
    let Heads { query, kv, dim: e } = heads;
    let (c, width, scale) = (heads.columns(), query * e, 1.0 / (e as f64).sqrt());
    let documents = case.documents();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let add = |to: &mut [f64], factor: f64, of: &[f64]| {
        to.iter_mut().zip(of).for_each(|(to, x)| *to += factor * x);
    };
    let mut found = Oracle {
        out: vec![0.0; case.rows() * width],
        log_sums: vec![0.0; case.rows() * query],
        d_qkv: vec![0.0; case.rows() * c],
    };
    for (sequence, head, at) in (0..sequences)
        .flat_map(|b| (0..query).map(move |head| (b, head)))
        .flat_map(|(b, head)| (0..context).map(move |at| (b, head, at)))
    {
        let row = sequence * context + at;
        let group = head / (query / kv);
        let of = |row: usize, head: usize| row * c + head * e..row * c + (head + 1) * e;
        let key = |key: usize| of(sequence * context + key, query + group);
        let value = |key: usize| of(sequence * context + key, query + kv + group);
        let first = documents.as_ref().map_or(0, |documents| documents[row] as usize);
        let q = of(row, head);
        let scores: Vec<f64> =
            (first..=at).map(|of| scale * dot(&qkv[q.clone()], &qkv[key(of)])).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        found.log_sums[(sequence * query + head) * context + at] = max + sum.ln();
        let place = row * width + head * e..row * width + (head + 1) * e;
        let p: Vec<f64> = scores.iter().map(|score| (score - max).exp() / sum).collect();
        for (of, &p) in (first..).zip(&p) {
            add(&mut found.out[place.clone()], p, &qkv[value(of)]);
        }
        let above = &d_out[place.clone()];
        let delta = dot(&found.out[place], above);
        for (of, &p) in (first..).zip(&p) {
            let d_score = p * (dot(above, &qkv[value(of)]) - delta) * scale;
            add(&mut found.d_qkv[value(of)], p, above);
            add(&mut found.d_qkv[key(of)], d_score, &qkv[q.clone()]);
            add(&mut found.d_qkv[q.clone()], d_score, &qkv[key(of)]);
        }
    }
    found
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Root mean square of the norms of rows.
fn typical(values: &[f64], width: usize) -> f64 {
    norm(values) / ((values.len() / width) as f64).sqrt()
}

/// Every row's error is at most `tolerance` of its norm and of `size`, what its terms are of before
/// they cancel.
#[track_caller]
fn rows_close(
    what: &str,
    found: &[f64],
    expected: &[f64],
    width: usize,
    tolerance: f64,
    size: f64,
) {
    for (row, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
        let off = norm(&found.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
        let size = norm(expected) + size;
        assert!(
            off <= tolerance * size,
            "{what}, row {row}: off by {off:e} of {size:e}, tolerance {tolerance:e}"
        );
    }
}

/// Columns `from` to `to`, in heads, of each row.
fn part(values: &[f64], heads: Heads, from: usize, to: usize) -> Vec<f64> {
    let e = heads.dim;
    values.chunks(heads.columns()).flat_map(|row| row[from * e..to * e].to_vec()).collect()
}

fn attention_is_that_of_f64(case: &Attention, element: ElementType) {
    let Attention { sequences, context, heads, lengths } = *case;
    let Heads { query, kv, dim: e } = heads;
    let (n, c, width) = (case.rows(), heads.columns(), query * e);
    let qkv = all_rounded(element, &case.qkv());
    let d_out = all_rounded(element, &case.d_out());
    let expected = oracle(case, &qkv, &d_out);
    let [out, log_sums, d_qkv] = found(case, element);
    let what = |part: &str| {
        format!("{part} of {sequences}·{context} rows, {heads:?}, {lengths:?} in {element:?}")
    };
    // A score's error (e products and sums, and the scaling) counts twice, as that of the largest
    // does too; then the exponential's. Σ |q k| is at most ‖q‖ ‖k‖.
    let largest = |from: usize, to: usize| {
        part(&qkv, heads, from, to).chunks(e).map(norm).fold(0.0, f64::max)
    };
    let score = largest(0, query) * largest(query, query + kv) / (e as f64).sqrt();
    let probability = 2.0 * ((e as f64 + 4.0) * U32 * score + EXP);
    // Forward: that and a sum of as many products as there are keys. In bf16 each probability is
    // rounded, and the result: two roundings of independent sign, of which the root mean square
    // over a row is at most 2⁻⁸ each.
    let forward = probability + (context as f64 + 16.0) * U32;
    // Backward: the same twice over, in p and in dp − delta, whose terms cancel where a query sees
    // little but one key: against the size of a head's ds · k (or q) before that, and for dv of
    // p · d_out. In bf16 `out`, p, ds and the result are rounded.
    let backward = 2.0 * forward + 4.0 * unit(element);
    let of_head = |from: usize, to: usize| typical(&part(&qkv, heads, from, to), e);
    // A probability is that of one of all keys, or of one of a document's, which may be few.
    let keys_seen = if lengths.is_some() { 1.0 } else { context as f64 };
    let d_head = typical(&d_out, e) / keys_seen.sqrt();
    let d_score = d_head * of_head(query + kv, query + 2 * kv) / (e as f64).sqrt();
    let both = |found: &Found| {
        [("the device", found.device.clone()), ("the processor", found.cpu.clone())]
    };
    for (place, found) in both(&out) {
        assert!(found[n * width..].iter().all(|&x| x == 0.0), "{}, a row more", what("out"));
        let (what, size) = (what(&format!("out on {place}")), typical(&expected.out, width));
        let error = forward + 2.0 * unit(element);
        rows_close(&what, &found[..n * width], &expected.out, width, error, size);
    }
    // A sum of exponentials is off by the errors of all of them, its logarithm by as much.
    log_sums.close(&what("log-sums"), &expected.log_sums, |at| {
        forward + 4.0 * U32 * expected.log_sums[at].abs()
    });
    for (place, found) in both(&d_qkv) {
        assert!(found[n * c..].iter().all(|&x| x == 0.0), "{}, a row more", what("d_qkv"));
        for (name, from, to, size) in [
            ("dq", 0, query, d_score * of_head(query, query + kv)),
            ("dk", query, query + kv, d_score * of_head(0, query)),
            ("dv", query + kv, query + 2 * kv, d_head),
        ] {
            let what = what(&format!("{name} on {place}"));
            let [found, expected] =
                [&found[..n * c], &expected.d_qkv[..]].map(|values| part(values, heads, from, to));
            rows_close(&what, &found, &expected, e, backward, size);
        }
    }
}

const fn heads(query: usize, kv: usize, dim: usize) -> Heads {
    Heads { query, kv, dim }
}

fn attention_matches(
    element: ElementType,
    lengths: Option<&'static [usize]>,
    cases: &[(usize, usize, Heads)],
) {
    for &(sequences, context, heads) in cases {
        attention_is_that_of_f64(&Attention { sequences, context, heads, lengths }, element);
    }
}

#[test]
fn attention_on_tensor_cores_is_that_of_the_processor_both_ways() {
    // Tokens: one, below, at and beyond a tile (64) and a block of queries (128). Shared keys.
    // Heads as wide as a tile's rows (64, 128) and narrower.
    let cases = [
        (1, 1, heads(1, 1, 8)),
        (3, 1, heads(2, 1, 64)),
        (2, 2, heads(2, 1, 128)),
        (1, 63, heads(1, 1, 32)),
        (2, 64, heads(4, 1, 48)),
        (1, 65, heads(2, 2, 64)),
        (2, 65, heads(4, 1, 80)),
        (1, 130, heads(2, 1, 64)),
        (1, 130, heads(1, 1, 128)),
        (1, 130, heads(4, 2, 8)),
        (1, 193, heads(1, 1, 64)),
    ];
    attention_matches(ElementType::Bf16, None, &cases);
}

#[test]
fn attention_in_f32_is_that_of_the_processor_both_ways() {
    let cases = [
        (1, 1, heads(1, 1, 64)),
        (1, 2, heads(1, 1, 80)),
        (1, 63, heads(1, 1, 48)),
        (2, 64, heads(2, 1, 10)),
        (1, 65, heads(2, 2, 8)),
        (1, 66, heads(1, 1, 128)),
        (1, 130, heads(4, 1, 32)),
    ];
    attention_matches(ElementType::F32, None, &cases);
}

#[test]
fn heads_that_tensor_cores_do_not_take_are_those_of_the_processor_both_ways() {
    // No multiple of 16 bytes; wider than 128.
    let cases = [(1, 66, heads(2, 1, 10)), (1, 66, heads(1, 1, 136))];
    attention_matches(ElementType::Bf16, None, &cases);
}

/// Lengths of documents: one token each; tiles cut anywhere; whole tiles and the rest; one.
const LENGTHS: [&[usize]; 4] = [&[1], &[3, 1, 8, 2, 5], &[13, 120, 1, 30], &[500]];

#[test]
fn attention_within_documents_is_that_of_the_processor_both_ways() {
    let cases = [
        (2, 65, heads(4, 1, 80)),
        (2, 130, heads(2, 1, 64)),
        (1, 130, heads(4, 2, 8)),
        (1, 193, heads(1, 1, 128)),
    ];
    for lengths in LENGTHS {
        attention_matches(ElementType::Bf16, Some(lengths), &cases);
    }
}

#[test]
fn attention_within_documents_in_f32_is_that_of_the_processor_both_ways() {
    for lengths in LENGTHS {
        attention_matches(ElementType::F32, Some(lengths), &[(2, 70, heads(2, 1, 10))]);
    }
}

/// Attention on the emulator alone.
fn on_device(case: &impl Case<3>, element: ElementType) -> [Vec<f32>; 3] {
    let kernels = Cuda::new(Emulator::new(), element);
    let results = case.run(&kernels);
    kernels.status().unwrap();
    results
}

fn bits(results: &[Vec<f32>; 3]) -> [Vec<u32>; 3] {
    results.each_ref().map(|result| result.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn one_document_is_no_mask_to_the_bit() {
    for dim in [64, 10] {
        let heads = Heads { query: 2, kv: 1, dim };
        let one: &'static [usize] = &[500];
        let [plain, masked] = [None, Some(one)].map(|lengths| {
            let case = Attention { sequences: 1, context: 130, heads, lengths };
            bits(&on_device(&case, ElementType::Bf16))
        });
        assert!(plain == masked, "heads of {dim}");
    }
}

/// One sequence of one head, in which one number of a row is another: of its query, key and value,
/// or behind these of d_out.
struct Changed(Option<(usize, usize, f32)>);

const TOKENS: usize = 200;
const ONE: Heads = Heads { query: 1, kv: 1, dim: 64 };
/// Columns of a key, of a value, and of d_out.
const KEY: usize = 64 + 5;
const VALUE: usize = 128 + 5;
const D_OUT: usize = 192 + 5;

impl Case<3> for Changed {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 3] {
        let (n, c, e) = (TOKENS, ONE.columns(), ONE.dim);
        let (mut qkv, mut d_out) = (random(n * c, 1), random(n * e, 2));
        match self.0 {
            Some((row, column, value)) if column < c => qkv[row * c + column] = value,
            Some((row, column, value)) => d_out[row * e + column - c] = value,
            None => {}
        }
        let (qkv, d_out) = (activations(k, n, c, &qkv, 0), activations(k, n, e, &d_out, 0));
        let (mut out, mut d_qkv) = (k.activations(n, e), k.activations(n, c));
        let mut log_sums = k.floats(n);
        let mut workspace = k.workspace(n, n, ONE, 1, 1, true);
        k.attention(n, n, ONE, None, &qkv, &mut out, &mut log_sums, &mut workspace);
        k.attention_backward(
            n,
            n,
            ONE,
            None,
            &qkv,
            &out,
            &d_out,
            &log_sums,
            &mut d_qkv,
            &mut workspace,
        );
        [read(k, &out, n, e), k.read(&log_sums, 0..n), read(k, &d_qkv, n, c)]
    }
}

#[test]
fn a_later_token_changes_no_bit_of_earlier_rows() {
    for element in ELEMENTS {
        let [base, base_sums, _] = bits(&on_device(&Changed(None), element));
        for (row, column) in [(199, KEY), (128, VALUE), (127, KEY), (70, VALUE)] {
            let changed = on_device(&Changed(Some((row, column, 3.0))), element);
            let [out, sums, _] = bits(&changed);
            let what = format!("token {row}, column {column} in {element:?}");
            assert!(out[..row * 64] == base[..row * 64], "{what}");
            assert!(sums[..row] == base_sums[..row], "{what}");
            assert!(out[row * 64..(row + 1) * 64] != base[row * 64..(row + 1) * 64], "{what}");
        }
    }
}

#[test]
fn a_nan_reaches_every_row_that_sees_it() {
    let any = |values: &[f32]| values.iter().any(|x| x.is_nan());
    for element in ELEMENTS {
        for (row, column) in [(0, KEY), (70, KEY), (199, KEY), (70, VALUE), (128, VALUE)] {
            let [out, sums, d_qkv] = on_device(&Changed(Some((row, column, f32::NAN))), element);
            // A value's weight is zero for the queries before it, but not zero times NaN: those of
            // its own tile of keys may get it too.
            let spared = if column == VALUE { row / 64 * 64 } else { row };
            for (query, out) in out.chunks(64).enumerate() {
                let what = format!("row {query}, of column {column} of {row} in {element:?}");
                assert!(any(out) || query < row, "{what}");
                assert!(!any(out) || query >= spared, "{what}");
                assert!(sums[query].is_nan() == (column == KEY && query >= row), "{what}");
                assert!(any(&d_qkv[query * 192..][..192]) || query < row, "{what}");
            }
        }
        let [out, _, d_qkv] = on_device(&Changed(Some((70, D_OUT, f32::NAN))), element);
        assert!(!any(&out));
        for (key, d_qkv) in d_qkv.chunks(192).enumerate().take(71) {
            assert!(any(d_qkv), "the gradient of a key that the query sees, {key} in {element:?}");
        }
    }
}
