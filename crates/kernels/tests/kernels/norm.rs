//! RMSNorm.

use cuvee_kernels::{
    Backend, Buffer, Cpu, Element, Matrix, RoundTo, bf16, rms_norm, rms_norm_backward,
};

use crate::tools::{
    Kind, U32, close, flat, gradients, matches_differences, random, rows, variable, wide,
};

const EPS: f32 = 1e-5;

fn floats(values: &[f32]) -> Buffer<f32> {
    let mut buffer = Buffer::zeros(values.len());
    buffer.copy_from_slice(values);
    buffer
}

fn matches_autograd<E: Kind>()
where
    f32: RoundTo<E>,
{
    let kernels = Cpu::<E>::new(1).unwrap();
    // Sequences of `context` rows, `d` wide: around the 16 sums that run side by side.
    for (sequences, context, d) in [(1, 1, 1), (1, 3, 5), (2, 2, 16), (3, 5, 33), (2, 1, 130)] {
        let n = sequences * context;
        let (x, gain) = (random(n * d, 1), random(d, 2));
        let (dy, before) = (random(n * d, 3), random(n * d, 4));
        // Memory for more rows than there are.
        let (mut y, mut scale) = (Matrix::<E>::zeros(n + 2, d), vec![9.0; n + 2]);
        rms_norm(&x, &gain, EPS, &mut y, &mut scale);

        let (vx, vg) = (variable(&wide(&x), &[n, d]), variable(&wide(&gain), &[d]));
        let mean = (vx.sqr().unwrap().sum_keepdim(1).unwrap() / d as f64).unwrap();
        let s = (mean + f64::from(EPS)).unwrap().sqrt().unwrap().recip().unwrap();
        let expected = vx.broadcast_mul(&s).unwrap().broadcast_mul(&vg).unwrap();
        let what = |part: &str| format!("{part} of {sequences}·{context}×{d} in {}", E::NAME);

        // A sum of d squares has a relative error of d roundings at most; its root, halved; then a
        // handful of operations.
        let relative = (d as f64 + 8.0) * U32;
        let (expected_y, s) = (flat(&expected), flat(&s));
        close(&what("y"), &rows(&y)[..n * d], &expected_y, |i| {
            (relative + E::UNIT) * 1.01 * expected_y[i].abs()
        });
        close(&what("s"), &wide(&scale[..n]), &s, |i| relative * s[i]);
        assert!(
            y.row(n).iter().all(|y| y.widen() == 0.0) && scale[n..] == [9.0; 2],
            "rows beyond the last were written"
        );

        let [dx, dgain] = gradients(&expected, &wide(&dy), [&vx, &vg]);
        let (mut rounded, mut gains) = (Matrix::<E>::zeros(n, d), Buffer::zeros(sequences * d));
        let (x, gain, scale, dy) = (floats(&x), floats(&gain), floats(&scale), floats(&dy));
        // Each term of the sum that dx is has a relative error of at most 2d + 16 roundings: two
        // sums, s³, products.
        let term = |i: usize| {
            let (row, column) = (i / d, i % d);
            let sum: f64 =
                (0..d).map(|c| f64::from(x[row * d + c] * dy[row * d + c] * gain[c]).abs()).sum();
            let (x, dy) = (f64::from(x[i]).abs(), f64::from(dy[i]).abs());
            dy * f64::from(gain[column]).abs() * s[row] + x * sum * s[row].powi(3) / d as f64
        };
        let bound = |i: usize, old: f64| (2.0 * d as f64 + 16.0) * U32 * (term(i) + old.abs());
        for overwrite in [true, false] {
            let mut sum = floats(&before);
            kernels.norm_backward(
                n,
                context,
                &x,
                &gain,
                &scale,
                &dy,
                overwrite,
                &mut sum,
                &mut rounded,
                &mut gains,
            );
            let old = |i: usize| if overwrite { 0.0 } else { f64::from(before[i]) };
            let expected: Vec<f64> = dx.iter().enumerate().map(|(i, dx)| dx + old(i)).collect();
            close(&what("dx"), &wide(&sum), &expected, |i| bound(i, old(i)));
            let narrowed: Vec<f64> = sum.iter().map(|&x| f64::from(E::narrow(x).widen())).collect();
            assert_eq!(rows(&rounded), narrowed, "{}", what("rounded dx"));
        }
        // The gain's gradients come sequence by sequence; autograd gives their sum.
        for (b, gains) in gains.chunks(d).enumerate() {
            let own = |i: usize| (b * context..(b + 1) * context).map(move |row| row * d + i);
            let one = |i: usize| f64::from(dy[i]) * f64::from(x[i]) * s[i / d];
            let expected: Vec<f64> = (0..d).map(|i| own(i).map(one).sum()).collect();
            let size = |i: usize| own(i).map(|i| one(i).abs()).sum::<f64>();
            close(&what("a sequence's gain"), &wide(gains), &expected, |i| {
                (relative + context as f64 * U32) * size(i)
            });
        }
        let sums: Vec<f64> =
            (0..d).map(|i| gains.chunks(d).map(|gains| f64::from(gains[i])).sum()).collect();
        let size = |i: usize| {
            (0..n)
                .map(|row| f64::from(dy[row * d + i] * x[row * d + i]).abs() * s[row])
                .sum::<f64>()
        };
        close(&what("gain"), &sums, &dgain, |i| (relative + context as f64 * U32) * size(i));
    }
}

#[test]
fn rms_norm_matches_autograd_both_ways() {
    matches_autograd::<f32>();
    matches_autograd::<bf16>();
}

#[test]
fn rms_norm_matches_central_differences() {
    let (n, d) = (3, 21);
    let weights = wide(&random(n * d, 5));
    // One vector: x, then the gain.
    let at: Vec<f32> = random((n + 1) * d, 6);
    let loss = |at: &[f32]| {
        let (x, gain) = at.split_at(n * d);
        let mut y = Matrix::<f32>::zeros(n, d);
        rms_norm(x, gain, EPS, &mut y, &mut vec![0.0; n]);
        rows(&y).iter().zip(&weights).map(|(y, w)| y * w).sum()
    };
    let (x, gain) = at.split_at(n * d);
    let (mut y, mut scale) = (Matrix::<f32>::zeros(n, d), vec![0.0; n]);
    rms_norm(x, gain, EPS, &mut y, &mut scale);
    let dy: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
    let (mut dx, mut rounded, mut gains) =
        (vec![0.0; n * d], Matrix::<f32>::zeros(n, d), vec![0.0; d]);
    rms_norm_backward(n, n, x, gain, &scale, &dy, false, &mut dx, &mut rounded, &mut gains);
    dx.extend(gains);
    matches_differences("RMSNorm", &at, &wide(&dx), loss);
}

#[test]
fn a_nan_stays_in_its_row() {
    let mut x = random(3 * 20, 1);
    x[25] = f32::NAN;
    let (mut y, mut scale) = (Matrix::<bf16>::zeros(3, 20), vec![0.0; 3]);
    rms_norm(&x, &[1.0; 20], EPS, &mut y, &mut scale);
    for row in 0..3 {
        assert!(y.row(row).iter().all(|y| y.widen().is_nan() == (row == 1)), "row {row}");
    }
}
