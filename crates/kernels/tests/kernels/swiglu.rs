//! SwiGLU.

use cuvee_kernels::{Matrix, bf16, swiglu, swiglu_backward};

use crate::tools::{
    EXP, Kind, U32, close, flat, gradients, matches_differences, random, random_matrix, rows,
    variable,
};

fn matches_autograd<E: Kind>() {
    // Widths around the 16 lanes; gates up to ±12, where silu is all but linear or zero.
    for (n, f) in [(1, 1), (3, 15), (2, 16), (5, 17), (2, 67)] {
        for scale in [1.0, 12.0] {
            let mut gate_up = random_matrix::<E>(n + 1, 2 * f, scale, 1);
            let mut h = Matrix::<E>::zeros(n + 1, f);
            swiglu(&gate_up, &mut h, n);

            let all = variable(&rows(&gate_up)[..n * 2 * f], &[n, 2 * f]);
            let (gate, up) = (all.narrow(1, 0, f).unwrap(), all.narrow(1, f, f).unwrap());
            let sigmoid = ((gate.neg().unwrap().exp().unwrap() + 1.0).unwrap()).recip().unwrap();
            let expected = ((&gate * &sigmoid).unwrap() * up).unwrap();
            let what = |part: &str| format!("{part} of {n}×{f} in {}, gates to {scale}", E::NAME);
            // The exponential, and four operations.
            let relative = EXP + 4.0 * U32;
            let expected_h = flat(&expected);
            close(&what("h"), &rows(&h)[..n * f], &expected_h, |i| {
                (relative + E::UNIT) * 1.01 * expected_h[i].abs()
            });
            assert!(h.row(n).iter().all(|h| h.widen() == 0.0), "a row beyond the last was written");

            let dh = random_matrix::<E>(n + 1, f, 1.0, 2);
            let [expected] = gradients(&expected, &rows(&dh)[..n * f], [&all]);
            let before = rows(&gate_up);
            swiglu_backward(&mut gate_up, &dh, n);
            // d gate is a sum of σ and of silu (1 − σ), where 1 − σ has σ's absolute error: each
            // term to a few times the exponential's error of its size.
            let bound = |i: usize| {
                let (row, column) = (i / (2 * f), i % (2 * f));
                let (gate, up) =
                    (before[row * 2 * f + column % f], before[row * 2 * f + f + column % f]);
                let dh = f64::from(dh.row(row)[column % f].widen());
                let s = 1.0 / (1.0 + (-gate).exp());
                let size = if column < f {
                    (dh * up).abs() * (s + (gate * s).abs())
                } else {
                    (dh * gate * s).abs()
                };
                3.0 * relative * size + E::UNIT * 1.01 * expected[i].abs()
            };
            close(&what("gradient"), &rows(&gate_up)[..n * 2 * f], &expected, bound);
            assert_eq!(
                rows(&gate_up)[n * 2 * f..],
                before[n * 2 * f..],
                "a row beyond the last was written"
            );
        }
    }
}

#[test]
fn swiglu_matches_autograd_both_ways() {
    matches_autograd::<f32>();
    matches_autograd::<bf16>();
}

fn matrix(values: &[f32], columns: usize) -> Matrix<f32> {
    let mut matrix = Matrix::zeros(values.len() / columns, columns);
    values
        .chunks(columns)
        .enumerate()
        .for_each(|(row, values)| matrix.row_mut(row).copy_from_slice(values));
    matrix
}

#[test]
fn swiglu_matches_central_differences() {
    let (n, f) = (2, 19);
    let (at, weights) = (random(n * 2 * f, 3), random(n * f, 4));
    let loss = |at: &[f32]| {
        let mut h = Matrix::zeros(n, f);
        swiglu(&matrix(at, 2 * f), &mut h, n);
        rows(&h).iter().zip(&weights).map(|(h, &w)| h * f64::from(w)).sum()
    };
    let mut gradient = matrix(&at, 2 * f);
    swiglu_backward(&mut gradient, &matrix(&weights, f), n);
    matches_differences("SwiGLU", &at, &rows(&gradient), loss);
}

#[test]
fn the_ends_of_the_range_have_their_limits() {
    let gates = [f32::NEG_INFINITY, -1e30, -90.0, 90.0, 1e30, f32::INFINITY, f32::NAN];
    let mut gate_up = vec![1f32; 14];
    gate_up[..7].copy_from_slice(&gates);
    let mut h = Matrix::zeros(1, 7);
    swiglu(&matrix(&gate_up, 14), &mut h, 1);
    let h = h.row(0);
    // e⁹⁰ is beyond the kernels' range of exponentials, which ends near e⁸⁸: what should be −90
    // e⁻⁹⁰ is a little more, and far below anything that counts. At −1e30 the same factor leaves
    // −1e30 · 5e-39.
    assert!(h[2] <= 0.0 && h[2] > -1e-35 && h[1] <= 0.0 && h[1] > -1e-7, "{h:?}");
    assert!(h[3] == 90.0 && h[4] == 1e30 && h[5] == f32::INFINITY && h[6].is_nan(), "{h:?}");
    assert!(!h[0].is_finite(), "{h:?}: −∞ is not hidden");
}
