//! Inputs, oracles and comparisons that the tests share.

use candle_core::{Device, Tensor, Var};
use cuvee_kernels::{Element, Gradient, Matrix, bf16};
pub use cuvee_testkit::{EXP, U32, close, number, random};

/// An element type and how far it rounds.
pub trait Kind: Element {
    /// Largest relative error of rounding an f32 to it.
    const UNIT: f64;
}

impl Kind for f32 {
    const UNIT: f64 = 0.0;
}

impl Kind for bf16 {
    const UNIT: f64 = 1.0 / 256.0;
}

/// How fast each pair of a head of width `e` turns, of base `theta`.
pub fn frequencies(e: usize, theta: f64) -> Vec<f64> {
    (0..e / 2).map(|i| theta.powf(-2.0 * i as f64 / e as f64)).collect()
}

/// A gradient that holds `values`, `[rows, columns]`, after its first turn.
pub fn filled(rows: usize, columns: usize, values: &[f32]) -> Gradient {
    let gradient = Gradient::zeros(rows, columns);
    gradient.in_turn(0, |rows, block, _| {
        block.copy_from_slice(&values[rows.start * columns..rows.end * columns]);
    });
    gradient
}

/// The numbers rounded to `E`.
pub fn narrow<E: Element>(values: &[f32]) -> Vec<E> {
    values.iter().map(|&x| E::narrow(x)).collect()
}

/// The numbers in f64, exactly.
pub fn wide<E: Element>(values: &[E]) -> Vec<f64> {
    values.iter().map(|x| f64::from(x.widen())).collect()
}

/// Random numbers times `scale`, rounded to `E`, as a matrix.
pub fn random_matrix<E: Element>(rows: usize, columns: usize, scale: f32, seed: u64) -> Matrix<E> {
    let values = random(rows * columns, seed);
    let mut matrix = Matrix::zeros(rows, columns);
    for (row, values) in values.chunks(columns).enumerate() {
        for (place, value) in matrix.row_mut(row).iter_mut().zip(values) {
            *place = E::narrow(value * scale);
        }
    }
    matrix
}

/// `[rows, columns]` of a matrix in f64, without what lies between its rows.
pub fn rows<E: Element>(matrix: &Matrix<E>) -> Vec<f64> {
    (0..matrix.rows()).flat_map(|row| wide(matrix.row(row))).collect()
}

/// A variable of Candle's, in f64.
pub fn variable(values: &[f64], shape: &[usize]) -> Var {
    Var::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// A constant.
pub fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Its numbers.
pub fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The gradients of Σ `result` · `weights` by the variables.
pub fn gradients<const N: usize>(
    result: &Tensor,
    weights: &[f64],
    variables: [&Var; N],
) -> [Vec<f64>; N] {
    let weights = tensor(weights, result.dims());
    let store = (result * weights).unwrap().sum_all().unwrap().backward().unwrap();
    variables.map(|variable| flat(store.get(variable).unwrap()))
}

/// Every row's error at most `tolerance` of the row's norm and of what a row's norm is on average
/// (root mean square): a row may be small because large terms cancel in it.
#[track_caller]
pub fn rows_close(what: &str, found: &[f64], expected: &[f64], width: usize, tolerance: f64) {
    rows_close_of(what, found, expected, width, tolerance, typical(expected, width));
}

/// The same where a row's terms are of norm `size` before they cancel.
#[track_caller]
pub fn rows_close_of(
    what: &str,
    found: &[f64],
    expected: &[f64],
    width: usize,
    tolerance: f64,
    size: f64,
) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
        let off = norm(&found.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
        let size = norm(expected) + size;
        assert!(
            off <= tolerance * size,
            "{what}, row {row}: off by {off:e} of {size:e}, tolerance {tolerance:e}"
        );
    }
}

/// Root mean square of the norms of rows.
pub fn typical(values: &[f64], width: usize) -> f64 {
    norm(values) / ((values.len() / width) as f64).sqrt()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Checks a gradient along a random direction against the central difference of `loss`, which sums
/// a kernel's f32 results in f64. The step is 2⁻⁶: with inputs and third derivatives of the order
/// of 1, the truncation h²/6 is 4e-5 of the change; a result's rounding of at most 2⁻¹⁸ of its size
/// (`exp`, and a sum or two), of random sign over the N results, is 2⁻¹⁸ / 2h = 1.2e-4 of √N such
/// results, which the change is as well. A relative 1e-3 holds both several times over; `size` is
/// √(Σ (gradient · direction)²), what a change of N terms of random sign is of.
#[track_caller]
pub fn matches_differences(
    what: &str,
    at: &[f32],
    gradient: &[f64],
    mut loss: impl FnMut(&[f32]) -> f64,
) {
    const STEP: f32 = 1.0 / 64.0;
    for seed in 100..103 {
        let direction = random(at.len(), seed);
        let mut moved = |step: f32| {
            loss(&at.iter().zip(&direction).map(|(x, d)| d.mul_add(step, *x)).collect::<Vec<f32>>())
        };
        let found = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
        let terms = || gradient.iter().zip(&direction).map(|(g, &d)| g * f64::from(d));
        let (expected, size) = (terms().sum::<f64>(), terms().map(|x| x * x).sum::<f64>().sqrt());
        let off = (found - expected).abs();
        assert!(
            off <= 1e-3 * size,
            "{what}: {found} against {expected}, off by {off:e} of {size:e}"
        );
    }
}
