//! RMSNorm of each head's queries and keys.

use cuvee_kernels::{
    Backend, Buffer, Cpu, Element, HeadNorm, Heads, Matrix, RoundTo, bf16, head_norm,
    head_norm_backward,
};

use crate::tools::{
    Kind, U32, close, flat, gradients, matches_differences, random, random_matrix, rows, variable,
    wide,
};

const EPS: f32 = 1e-5;

/// Sequences, rows of each, heads: around the 16 sums that run side by side.
const SHAPES: [(usize, usize, Heads); 5] = [
    (1, 1, Heads { query: 1, kv: 1, dim: 2 }),
    (2, 3, Heads { query: 4, kv: 2, dim: 6 }),
    (3, 2, Heads { query: 2, kv: 1, dim: 16 }),
    (1, 5, Heads { query: 3, kv: 3, dim: 34 }),
    (2, 9, Heads { query: 1, kv: 1, dim: 64 }),
];

fn matches_autograd<E: Kind>()
where
    f32: RoundTo<E>,
{
    let kernels = Cpu::<E>::new(1).unwrap();
    for (sequences, context, heads) in SHAPES {
        let (n, e, normed) = (sequences * context, heads.dim, heads.query + heads.kv);
        let width = normed * e;
        let what =
            |part: &str| format!("{part} of {sequences}·{context}, {heads:?} in {}", E::NAME);
        // Memory for more rows than there are.
        let start = random_matrix::<E>(n + 1, heads.columns(), 1.0, 1);
        let values = random(2 * e, 2);
        let mut gains = kernels.floats(2 * e);
        kernels.write(&mut gains, 0, &values);
        let (mut qkv, mut kept) =
            (kernels.activations(n + 1, heads.columns()), kernels.activations(n + 1, width));
        for row in 0..n + 1 {
            qkv.row_mut(row).copy_from_slice(start.row(row));
        }
        let mut scale = kernels.floats((n + 1) * normed);
        kernels.head_norm(n, heads, &gains, EPS, &mut qkv, &mut kept, &mut scale);

        let part = |matrix: &Matrix<E>| -> Vec<f64> {
            (0..n).flat_map(|row| wide(&matrix.row(row)[..width])).collect()
        };
        let x0 = part(&start);
        assert_eq!(part(&kept), x0, "{}", what("what it was"));
        let x = variable(&x0, &[n, normed, e]);
        let (q, k) = (variable(&wide(&values[..e]), &[e]), variable(&wide(&values[e..]), &[e]));
        let mean = (x.sqr().unwrap().sum_keepdim(2).unwrap() / e as f64).unwrap();
        let s = (mean + f64::from(EPS)).unwrap().sqrt().unwrap().recip().unwrap();
        let unit = x.broadcast_mul(&s).unwrap();
        let own = |from: usize, count: usize, gain| {
            unit.narrow(1, from, count).unwrap().broadcast_mul(gain).unwrap()
        };
        let expected = [own(0, heads.query, &q), own(heads.query, heads.kv, &k)];
        let expected = candle_core::Tensor::cat(&expected, 1).unwrap();

        // As of RMSNorm: a sum of e squares, its root, and a handful of operations.
        let relative = (e as f64 + 8.0) * U32;
        let (y, s) = (flat(&expected), flat(&s));
        close(&what("y"), &part(&qkv), &y, |i| (relative + E::UNIT) * 1.01 * y[i].abs());
        close(&what("s"), &wide(&scale[..n * normed]), &s, |i| relative * s[i]);
        let values_and_beyond = |matrix: &Matrix<E>| -> Vec<f64> {
            let values = (0..n).flat_map(|row| wide(&matrix.row(row)[width..]));
            values.chain(wide(matrix.row(n))).collect()
        };
        assert_eq!(
            values_and_beyond(&qkv),
            values_and_beyond(&start),
            "{}",
            what("values, or rows beyond the last, were changed")
        );

        let mut d_qkv = random_matrix::<E>(n + 1, heads.columns(), 1.0, 3);
        let before = values_and_beyond(&d_qkv);
        let dy = part(&d_qkv);
        let [dx, dq, dk] = gradients(&expected, &dy, [&x, &q, &k]);
        let mut sums = kernels.floats(sequences * 2 * e);
        kernels.head_norm_backward(n, context, heads, &gains, &kept, &scale, &mut d_qkv, &mut sums);
        assert_eq!(values_and_beyond(&d_qkv), before, "{}", what("gradients of values"));
        // As of RMSNorm, of terms with up to 2e + 16 roundings; then the result's own.
        let gain = |i: usize| {
            let head = i / e % normed;
            f64::from(values[if head < heads.query { i % e } else { e + i % e }]).abs()
        };
        let bound = |i: usize| {
            let (first, s) = (i / e * e, s[i / e]);
            let sum: f64 = (first..first + e).map(|c| (x0[c] * dy[c]).abs() * gain(c)).sum();
            let terms = dy[i].abs() * gain(i) * s + x0[i].abs() * sum * s.powi(3) / e as f64;
            (2.0 * e as f64 + 16.0) * U32 * terms + E::UNIT * dx[i].abs()
        };
        close(&what("dx"), &part(&d_qkv), &dx, bound);

        // The gains' gradients come sequence by sequence; autograd gives their sum.
        let each: Vec<f64> = wide(&sums[..]);
        let found: Vec<f64> =
            (0..2 * e).map(|i| each.iter().skip(i).step_by(2 * e).sum()).collect();
        let size = |i: usize| -> f64 {
            let own = |at: usize| {
                let head = at / e % normed;
                at % e == i % e && (head < heads.query) == (i < e)
            };
            let terms = (0..n * width).filter(|&at| own(at));
            terms.map(|at| (dy[at] * x0[at]).abs() * s[at / e]).sum()
        };
        let terms = (context * heads.query.max(heads.kv)) as f64;
        close(&what("gains"), &found, &[dq, dk].concat(), |i| (relative + terms * U32) * size(i));
        // A sequence's are those of its rows alone.
        for (sequence, found) in sums.chunks(2 * e).enumerate() {
            let (stride, kept_stride) = (start.stride(), kept.stride());
            let rows = sequence * context..(sequence + 1) * context;
            let mut d = random_matrix::<E>(n + 1, heads.columns(), 1.0, 3);
            let mut alone = vec![9.0; 2 * e];
            head_norm_backward(
                HeadNorm { heads, gains: &values, eps: EPS },
                context,
                &kept.data()[rows.start * kept_stride..],
                kept_stride,
                &scale[rows.start * normed..],
                &mut d.data_mut()[rows.start * stride..rows.end * stride],
                stride,
                &mut alone,
            );
            assert_eq!(found, alone, "{}", what("a sequence's gains"));
        }
    }
}

#[test]
fn head_norms_match_autograd_both_ways_sequence_by_sequence() {
    matches_autograd::<f32>();
    matches_autograd::<bf16>();
}

#[test]
fn head_norms_match_central_differences() {
    const HEADS: Heads = Heads { query: 2, kv: 1, dim: 10 };
    fn norm(gains: &[f32]) -> HeadNorm<'_> {
        HeadNorm { heads: HEADS, gains, eps: EPS }
    }
    let n = 3;
    let (width, columns) = (30, HEADS.columns());
    let weights = random_matrix::<f32>(n, columns, 1.0, 5);
    // One vector: queries, keys and values, then the gains.
    let at: Vec<f32> = random(n * columns + 20, 6);
    let run = |at: &[f32]| {
        let (x, gains) = at.split_at(n * columns);
        let (mut rows, mut kept, mut scale) = (x.to_vec(), vec![0.0; n * width], vec![0.0; n * 3]);
        head_norm(norm(gains), &mut rows, columns, &mut kept, width, &mut scale);
        (rows, kept, scale)
    };
    let weights = rows(&weights);
    let loss = |at: &[f32]| run(at).0.iter().zip(&weights).map(|(&y, w)| f64::from(y) * w).sum();
    let (_, kept, scale) = run(&at);
    let mut d: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
    let mut gains = vec![0.0; 20];
    head_norm_backward(
        norm(&at[n * columns..]),
        n,
        &kept,
        width,
        &scale,
        &mut d,
        columns,
        &mut gains,
    );
    d.extend(gains);
    matches_differences("QK-norm", &at, &wide(&d), loss);
}

#[test]
fn a_nan_stays_in_its_head() {
    let heads = Heads { query: 2, kv: 1, dim: 6 };
    let mut row: Vec<bf16> = random(heads.columns(), 1).iter().map(|&x| bf16::narrow(x)).collect();
    row[7] = bf16::NAN;
    let columns = heads.columns();
    let gains = Buffer::zeros(12);
    let norm = HeadNorm { heads, gains: &gains, eps: EPS };
    head_norm(norm, &mut row, columns, &mut [bf16::ZERO; 18], 18, &mut [0.0; 3]);
    for (i, x) in row.iter().enumerate() {
        assert_eq!(x.is_nan(), (6..12).contains(&i), "element {i}");
    }
}
