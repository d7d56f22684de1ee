//! Causal attention: many queries at once, there and back, and one at a time.

use candle_core::{D, Tensor, Var};
use cuvee_kernels::{
    AttentionWorkspace, Element, Heads, KvCache, Matrix, Rotations, attention, attention_backward,
    attention_step, bf16, rotate,
};

use crate::tools::{
    EXP, Kind, U32, flat, frequencies, gradients, matches_differences, random, random_matrix, rows,
    rows_close, rows_close_of, tensor, typical, variable, wide,
};

/// Tokens and heads: below, at and beyond a tile (12), a block (120), two blocks; shared keys;
/// heads that fill no panel.
const SHAPES: [(usize, Heads); 7] = [
    (1, Heads { query: 4, kv: 2, dim: 6 }),
    (7, Heads { query: 3, kv: 1, dim: 2 }),
    (12, Heads { query: 1, kv: 1, dim: 64 }),
    (13, Heads { query: 2, kv: 2, dim: 34 }),
    (121, Heads { query: 4, kv: 2, dim: 6 }),
    (130, Heads { query: 3, kv: 1, dim: 34 }),
    (241, Heads { query: 2, kv: 1, dim: 2 }),
];

/// Where the document of each of `t` rows begins, for documents as long as `lengths` say in turn.
fn documents(t: usize, lengths: &[usize]) -> Vec<u32> {
    let mut first = Vec::new();
    for length in lengths.iter().cycle() {
        let begin = first.len() as u32;
        first.extend(std::iter::repeat_n(begin, *length));
        if first.len() >= t {
            first.truncate(t);
            return first;
        }
    }
    first
}

/// Lengths of documents: one token each; tiles and units cut anywhere; whole blocks and the rest.
const LENGTHS: [&[usize]; 4] = [&[1], &[3, 1, 8, 2, 5], &[13, 120, 1, 30], &[500]];

/// One sequence's attention in f64: `[t, H e]` of `[t, (H + 2G) e]`.
fn oracle(qkv: &Var, t: usize, heads: Heads, documents: Option<&[u32]>) -> Tensor {
    let Heads { query, kv, dim } = heads;
    let part = |first: usize, count: usize| {
        let columns =
            qkv.narrow(1, first * dim, count * dim).unwrap().reshape((t, count, dim)).unwrap();
        columns.transpose(0, 1).unwrap()
    };
    // Heads of keys and values, each as often as query heads share it.
    let shared = |first: usize| {
        let all = part(first, kv).unsqueeze(1).unwrap();
        all.broadcast_as((kv, query / kv, t, dim))
            .unwrap()
            .contiguous()
            .unwrap()
            .reshape((query, t, dim))
            .unwrap()
    };
    let (q, k, v) = (part(0, query).contiguous().unwrap(), shared(query), shared(query + kv));
    let first = |query: usize| documents.map_or(0, |documents| documents[query] as usize);
    let seen = |query: usize, key: usize| key <= query && key >= first(query);
    let mask: Vec<f64> =
        (0..t * t).map(|i| if seen(i / t, i % t) { 0.0 } else { f64::NEG_INFINITY }).collect();
    let scores = (q.matmul(&k.t().unwrap()).unwrap() / (dim as f64).sqrt()).unwrap();
    let scores = scores.broadcast_add(&tensor(&mask, &[t, t])).unwrap();
    let exp = scores
        .broadcast_sub(&scores.detach().max_keepdim(D::Minus1).unwrap())
        .unwrap()
        .exp()
        .unwrap();
    let softmax = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap();
    softmax
        .matmul(&v)
        .unwrap()
        .transpose(0, 1)
        .unwrap()
        .contiguous()
        .unwrap()
        .reshape((t, query * dim))
        .unwrap()
}

/// A bound of the relative error of a probability: a score's (e products and sums, and the scaling)
/// counts twice, as that of the largest does too; then the exponential's.
fn probability_error<E: Kind>(qkv: &Matrix<E>, heads: Heads) -> f64 {
    let norm = |row: usize, head: usize| {
        let values = wide(&qkv.row(row)[head * heads.dim..][..heads.dim]);
        values.iter().map(|x| x * x).sum::<f64>().sqrt()
    };
    let largest = |heads: std::ops::Range<usize>| {
        (0..qkv.rows())
            .flat_map(|row| heads.clone().map(move |head| (row, head)))
            .map(|(r, h)| norm(r, h))
            .fold(0.0, f64::max)
    };
    // Σ |q k| is at most ‖q‖ ‖k‖.
    let score = largest(0..heads.query) * largest(heads.query..heads.query + heads.kv)
        / (heads.dim as f64).sqrt();
    2.0 * ((heads.dim as f64 + 4.0) * U32 * score + EXP)
}

/// What `attention` and `attention_backward` make of one sequence.
struct Found<E> {
    out: Matrix<E>,
    gradient: Matrix<E>,
}

fn both_ways<E: Element>(
    qkv: &Matrix<E>,
    d_out: &Matrix<E>,
    heads: Heads,
    workspace: &mut AttentionWorkspace<E>,
) -> Found<E> {
    within(None, qkv, d_out, heads, workspace)
}

/// The same within documents.
fn within<E: Element>(
    documents: Option<&[u32]>,
    qkv: &Matrix<E>,
    d_out: &Matrix<E>,
    heads: Heads,
    workspace: &mut AttentionWorkspace<E>,
) -> Found<E> {
    let t = qkv.rows();
    let (mut out, mut gradient) =
        (Matrix::zeros(t, heads.query * heads.dim), Matrix::zeros(t, heads.columns()));
    let mut log_sums = vec![0.0; t * heads.query];
    attention(t, t, heads, documents, qkv, &mut out, &mut log_sums, workspace);
    attention_backward(
        t,
        t,
        heads,
        documents,
        qkv,
        &out,
        d_out,
        &log_sums,
        &mut gradient,
        workspace,
    );
    Found { out, gradient }
}

fn matches_autograd<E: Kind>(lengths: Option<&[usize]>) {
    for (t, heads) in SHAPES {
        let documents = lengths.map(|lengths| documents(t, lengths));
        let documents = documents.as_deref();
        let (columns, width) = (heads.columns(), heads.query * heads.dim);
        let qkv = random_matrix::<E>(t, columns, 2.0, 1);
        let d_out = random_matrix::<E>(t, width, 1.0, 2);
        // A workspace for longer sequences, in which another one has left its numbers.
        let mut workspace = AttentionWorkspace::<E>::new(t + 5, heads, true);
        let (longer, d_longer) =
            (random_matrix::<E>(t + 5, columns, 9.0, 3), random_matrix::<E>(t + 5, width, 9.0, 4));
        both_ways(&longer, &d_longer, heads, &mut workspace);
        let Found { out, gradient } = within(documents, &qkv, &d_out, heads, &mut workspace);

        let variable = variable(&rows(&qkv), &[t, columns]);
        let expected = oracle(&variable, t, heads, documents);
        let [expected_gradient] = gradients(&expected, &rows(&d_out), [&variable]);
        let what =
            |part: &str| format!("{part} of {t} tokens, {heads:?}, {lengths:?} in {}", E::NAME);
        // Forward: the probabilities' error and a sum of t products. In bf16 each probability is
        // rounded, and the result: two roundings of independent sign, of which the root mean square
        // over a row is at most 2⁻⁸ each.
        let error = probability_error(&qkv, heads) + (t as f64 + 16.0) * U32;
        rows_close(&what("out"), &rows(&out), &flat(&expected), width, error + 2.0 * E::UNIT);
        // Backward: the same twice over, in p and in dP − Σ out · d out, whose terms cancel where a
        // query sees little but one key: against the size of a head's dS · k (or q) before that,
        // and for dV of p · d out. In bf16 `out`, p, dS and the result are rounded.
        let error = 2.0 * error + 4.0 * E::UNIT;
        let e = heads.dim;
        let split = |rows: &[f64], from: usize, to: usize| -> Vec<f64> {
            rows.chunks(columns).flat_map(|row| row[from * e..to * e].to_vec()).collect()
        };
        let of_head = |from: usize, to: usize| typical(&split(&rows(&qkv), from, to), e);
        let (keys, values, end) = (heads.query, heads.query + heads.kv, heads.query + 2 * heads.kv);
        // A probability is that of one of t keys, or of one of a document's, which may be few.
        let keys_seen = if documents.is_some() { 1.0 } else { t as f64 };
        let d_head = typical(&rows(&d_out), e) / keys_seen.sqrt();
        let d_score = d_head * of_head(values, end) / (e as f64).sqrt();
        for (name, from, to, size) in [
            ("dQ", 0, keys, d_score * of_head(keys, values)),
            ("dK", keys, values, d_score * of_head(0, keys)),
            ("dV", values, end, d_head),
        ] {
            let (found, expected) =
                (split(&rows(&gradient), from, to), split(&expected_gradient, from, to));
            rows_close_of(&what(name), &found, &expected, e, error, size);
        }
    }
}

#[test]
fn attention_matches_autograd_both_ways() {
    matches_autograd::<f32>(None);
    matches_autograd::<bf16>(None);
}

#[test]
fn attention_within_documents_matches_autograd_both_ways() {
    for lengths in LENGTHS {
        matches_autograd::<f32>(Some(lengths));
        matches_autograd::<bf16>(Some(lengths));
    }
}

/// The sharp test of a mask: whatever stands before a document, it is attended to as if it stood
/// alone.
#[test]
fn a_document_among_others_is_what_it_is_alone() {
    let (t, heads) = (260, Heads { query: 3, kv: 1, dim: 10 });
    let qkv = random_matrix::<f32>(t, heads.columns(), 2.0, 1);
    let d_out = random_matrix::<f32>(t, 30, 1.0, 2);
    let mut workspace = AttentionWorkspace::new(t, heads, true);
    for lengths in LENGTHS {
        let first = documents(t, lengths);
        let found = within(Some(&first), &qkv, &d_out, heads, &mut workspace);
        let mut begin = 0;
        while begin < t {
            let end = first.partition_point(|&of| of as usize <= begin);
            let part = |whole: &Matrix<f32>| {
                let mut part = Matrix::zeros(end - begin, whole.columns());
                (begin..end).for_each(|row| {
                    part.row_mut(row - begin).copy_from_slice(whole.row(row));
                });
                part
            };
            let alone = both_ways(&part(&qkv), &part(&d_out), heads, &mut workspace);
            assert_eq!(rows(&part(&found.out)), rows(&alone.out), "{begin}..{end}");
            // dQ adds up block by block, and blocks begin elsewhere.
            let what = format!("the gradient of {begin}..{end}");
            let (found, expected) = (rows(&part(&found.gradient)), rows(&alone.gradient));
            rows_close(&what, &found, &expected, heads.columns(), 16.0 * U32);
            begin = end;
        }
    }
}

#[test]
fn one_document_is_no_mask_to_the_bit() {
    for (t, heads) in SHAPES {
        let qkv = random_matrix::<bf16>(t, heads.columns(), 2.0, 1);
        let d_out = random_matrix::<bf16>(t, heads.query * heads.dim, 1.0, 2);
        let mut workspace = AttentionWorkspace::new(t, heads, true);
        let plain = both_ways(&qkv, &d_out, heads, &mut workspace);
        let first = documents(t, &[t]);
        let masked = within(Some(&first), &qkv, &d_out, heads, &mut workspace);
        assert_eq!(rows(&masked.out), rows(&plain.out), "{t} tokens, {heads:?}");
        assert_eq!(rows(&masked.gradient), rows(&plain.gradient), "{t} tokens, {heads:?}");
    }
}

#[test]
fn sequences_have_documents_of_their_own() {
    let (t, heads) = (9, Heads { query: 2, kv: 1, dim: 4 });
    let qkv = random_matrix::<f32>(2 * t, heads.columns(), 2.0, 1);
    let first = [documents(t, &[4, 3]), documents(t, &[2])].concat();
    let mut workspace = AttentionWorkspace::new(t, heads, true);
    let mut out = Matrix::zeros(2 * t, 8);
    let mut log_sums = vec![0.0; 2 * t * heads.query];
    attention(2 * t, t, heads, Some(&first), &qkv, &mut out, &mut log_sums, &mut workspace);
    for sequence in 0..2 {
        let mut own = Matrix::zeros(t, heads.columns());
        (0..t).for_each(|row| own.row_mut(row).copy_from_slice(qkv.row(sequence * t + row)));
        let of_own = Some(&first[sequence * t..][..t]);
        let found = within(of_own, &own, &Matrix::zeros(t, 8), heads, &mut workspace);
        assert_eq!(rows(&out)[sequence * t * 8..][..t * 8], rows(&found.out));
    }
}

#[test]
fn attention_matches_central_differences() {
    let (t, heads) = (14, Heads { query: 2, kv: 1, dim: 4 });
    let columns = heads.columns();
    let mut workspace = AttentionWorkspace::<f32>::new(t, heads, true);
    let d_out = random_matrix::<f32>(t, 8, 1.0, 1);
    let weights = rows(&d_out);
    let at = random(t * columns, 2);
    let matrix = |values: &[f32]| {
        let mut matrix = Matrix::zeros(t, columns);
        values
            .chunks(columns)
            .enumerate()
            .for_each(|(row, values)| matrix.row_mut(row).copy_from_slice(values));
        matrix
    };
    let gradient = rows(&both_ways(&matrix(&at), &d_out, heads, &mut workspace).gradient);
    let loss = |at: &[f32]| {
        let Found { out, .. } = both_ways(&matrix(at), &d_out, heads, &mut workspace);
        rows(&out).iter().zip(&weights).map(|(out, w)| out * w).sum()
    };
    matches_differences("attention", &at, &gradient, loss);
}

#[test]
fn a_later_token_changes_no_bit_of_earlier_rows() {
    let (t, heads) = (30, Heads { query: 2, kv: 1, dim: 6 });
    let mut workspace = AttentionWorkspace::<bf16>::new(t, heads, true);
    let d_out = Matrix::zeros(t, 12);
    let mut qkv = random_matrix::<bf16>(t, heads.columns(), 2.0, 1);
    let base = rows(&both_ways(&qkv, &d_out, heads, &mut workspace).out);
    for changed in [29, 13, 12, 1] {
        qkv.row_mut(changed).fill(bf16::narrow(3.0));
        let out = rows(&both_ways(&qkv, &d_out, heads, &mut workspace).out);
        assert_eq!(out[..changed * 12], base[..changed * 12], "token {changed}");
        assert_ne!(out[changed * 12..(changed + 1) * 12], base[changed * 12..(changed + 1) * 12]);
    }
}

fn one_at_a_time<E: Kind>(rotated: bool) {
    for (t, heads) in [
        (1, Heads { query: 1, kv: 1, dim: 2 }),
        (33, Heads { query: 4, kv: 2, dim: 6 }),
        (14, Heads { query: 3, kv: 1, dim: 34 }),
    ] {
        let (columns, width) = (heads.columns(), heads.query * heads.dim);
        let rotations = Rotations::new(t, &frequencies(heads.dim, 100.0), 1.0);
        let mut qkv = random_matrix::<E>(t, columns, 2.0, 1);
        let (mut cache, mut found) = (KvCache::default(), Vec::new());
        for row in 0..t {
            let (mut qkv, mut out) = (qkv.row(row).to_vec(), vec![E::default(); width]);
            attention_step(&mut qkv, heads, rotated.then_some(&rotations), &mut cache, &mut out);
            found.extend(wide(&out));
        }
        let stride = qkv.stride();
        if rotated {
            rotate(qkv.data_mut(), stride, 0, t, heads.query + heads.kv, &rotations, false);
        }
        let expected = flat(&oracle(&variable(&rows(&qkv), &[t, columns]), t, heads, None));
        // As many tokens at once; here the result alone is rounded.
        let error = probability_error(&qkv, heads) + (t as f64 + 16.0) * U32 + E::UNIT;
        rows_close(
            &format!("{t} tokens, {heads:?} in {}", E::NAME),
            &found,
            &expected,
            width,
            error,
        );
    }
}

#[test]
fn one_token_at_a_time_is_all_at_once() {
    for rotated in [true, false] {
        one_at_a_time::<f32>(rotated);
        one_at_a_time::<bf16>(rotated);
    }
}

#[test]
fn a_nan_reaches_every_row_that_sees_it() {
    let (t, heads) = (15, Heads { query: 1, kv: 1, dim: 4 });
    let mut workspace = AttentionWorkspace::<f32>::new(t, heads, true);
    let d_out = random_matrix::<f32>(t, 4, 1.0, 1);
    let mut qkv = random_matrix::<f32>(t, 12, 1.0, 2);
    qkv.row_mut(13)[5] = f32::NAN; // a key
    let Found { out, gradient } = both_ways(&qkv, &d_out, heads, &mut workspace);
    for row in 0..t {
        assert_eq!(out.row(row).iter().all(|x| x.is_nan()), row >= 13, "row {row}");
    }
    assert!(gradient.row(14)[..4].iter().any(|x| x.is_nan()), "dQ of a query that sees the key");
}

#[test]
fn a_workspace_that_is_too_small_grows() {
    let (t, heads) = (70, Heads { query: 2, kv: 1, dim: 18 });
    let qkv = random_matrix::<bf16>(t, heads.columns(), 2.0, 1);
    let d_out = random_matrix::<bf16>(t, heads.query * heads.dim, 1.0, 2);
    let mut enough = AttentionWorkspace::new(t, heads, true);
    let expected = both_ways(&qkv, &d_out, heads, &mut enough);
    let narrow = Heads { query: 1, kv: 1, dim: 2 };
    for (context, of, backward) in [(1, narrow, false), (t, narrow, true), (3, heads, false)] {
        let mut little = AttentionWorkspace::new(context, of, backward);
        let found = both_ways(&qkv, &d_out, heads, &mut little);
        assert_eq!(rows(&found.out), rows(&expected.out), "{context} tokens, {of:?}");
        assert_eq!(rows(&found.gradient), rows(&expected.gradient), "{context} tokens, {of:?}");
    }
}
