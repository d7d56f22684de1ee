//! The Muon update of a matrix.

use cuvee_kernels::{Backend, ElementType, MuonStep};

use crate::tools::{Case, Found, U32, floats, found, ids, random, wide};

/// Polynomials as Jordan et al. (2024) published them.
const QUINTICS: [[f64; 3]; 3] = [[3.4445, -4.775, 2.0315]; 3];

struct Muon {
    /// Rows before the matrix in its parameter, and its own shape.
    above: usize,
    shape: [usize; 2],
    nesterov: bool,
    cautious: bool,
    /// What gradients, between −1 and 1, and momenta are multiplied by.
    size: f32,
}

impl Case<2> for Muon {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
        let Self { above, shape: [rows, columns], nesterov, cautious, size } = *self;
        let (at, all) = (above * columns, (above + rows + 1) * columns);
        let sized = |seed| random(all, seed).iter().map(|x| x * size).collect::<Vec<_>>();
        let gradient = {
            // As wide as the matrix.
            let (values, sum) = (floats(k, &sized(1)), k.gradient(above + rows + 1, columns));
            let ids = ids(k, &(0..(above + rows + 1) as u32).collect::<Vec<_>>());
            k.begin_gradient(&sum, 1);
            k.embed_backward(columns, &ids, &values, &sum, 0);
            sum
        };
        let (mut values, mut momentum) = (floats(k, &random(all, 2)), floats(k, &sized(3)));
        let step = MuonStep {
            gradient_scale: 0.5,
            momentum: 0.75,
            nesterov,
            lr: 0.125,
            decay_factor: 0.875,
            cautious,
            polynomials: &QUINTICS,
        };
        // Too small a one: it grows.
        let mut workspace = k.muon_workspace(&[[2, 1]]);
        let shape = [rows, columns];
        k.muon(&mut values, &gradient, &mut momentum, at, shape, &step, &mut workspace);
        [k.read(&values, 0..all), k.read(&momentum, 0..all)]
    }
}

/// What the polynomials make of a matrix, in f64.
fn orthogonal(matrix: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let product = |a: &[f64], b: &[f64], n: usize, k: usize, m: usize| -> Vec<f64> {
        (0..n * m).map(|at| (0..k).map(|l| a[at / m * k + l] * b[l * m + at % m]).sum()).collect()
    };
    let norm = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>().sqrt();
    let size = norm(matrix);
    let mut x: Vec<f64> = matrix.iter().map(|x| x / size).collect();
    for (index, [a, b, c]) in QUINTICS.iter().enumerate() {
        let transposed: Vec<f64> =
            (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect();
        let gram = product(&transposed, &x, columns, rows, columns);
        let square = product(&gram, &gram, columns, columns, columns);
        let s = if index == 0 { norm(&square).powf(0.25) } else { 1.0 };
        let mut polynomial: Vec<f64> =
            gram.iter().zip(&square).map(|(g, q)| b / s.powi(3) * g + c / s.powi(5) * q).collect();
        (0..columns).for_each(|i| polynomial[i * columns + i] += a / s);
        x = product(&x, &polynomial, rows, columns, columns);
    }
    x
}

#[test]
fn muon_is_that_of_the_processor() {
    // Tall, wide, square, of one row and one column; that begin on 16 bytes and that do not.
    for (above, shape) in [
        (0, [1, 1]),
        (3, [1, 9]),
        (2, [9, 1]),
        (5, [7, 3]),
        (4, [4, 6]),
        (1, [33, 20]),
        (0, [5, 70]),
    ] {
        for (nesterov, cautious, size) in
            [(true, false, 1.0), (false, true, 1.0), (true, false, 1e-30)]
        {
            let case = Muon { above, shape, nesterov, cautious, size };
            let [values, momentum] = found(&case, ElementType::F32);
            let [rows, columns] = shape;
            let (at, len, all) = (above * columns, rows * columns, (above + rows + 1) * columns);
            let start = wide(&random(all, 2));
            let [gradient, old] = [1, 3].map(|seed| {
                wide(&random(all, seed).iter().map(|x| x * size).collect::<Vec<f32>>())
            });
            let (mut b, mut direction) = (old.clone(), vec![0.0; len]);
            for i in 0..len {
                let g = 0.25 * 0.5 * gradient[at + i];
                b[at + i] = 0.75 * old[at + i] + g;
                direction[i] = if nesterov { g + 0.75 * b[at + i] } else { b[at + i] };
            }
            let what = |part: &str| {
                format!(
                    "{part} of {shape:?} behind {above} rows, of size {size}, cautious {cautious}"
                )
            };
            momentum.close(&what("momentum"), &b, |i| {
                if (at..at + len).contains(&i) { 4.0 * U32 * f64::from(size) } else { 0.0 }
            });
            let change = orthogonal(&direction, shape);
            // Each product rounds a sum of k terms k times at most, as each of the three
            // polynomials takes three, and each polynomial multiplies an error by 3.4445 at most.
            // Rounding errors differ in sign: the root of their number is a bound still.
            let terms = (3.0 * rows.max(columns) as f64).sqrt();
            let tolerance = 4.0 * terms * U32 * 3.4445f64.powi(3);
            let mut expected = start.clone();
            for i in 0..len {
                let apart = cautious && start[at + i] * change[i] < 0.0;
                let factor = if apart { 1.0 } else { 0.875 };
                expected[at + i] = start[at + i] * factor - 0.125 * change[i];
            }
            values.close(&what("parameters"), &expected, |i| {
                if !(at..at + len).contains(&i) {
                    return 0.0;
                }
                // Where the sign decides, and it is within the error of the change, either is
                // right.
                let near = cautious && change[i - at].abs() < tolerance;
                let of_sign = if near { 0.125 * start[i].abs() } else { 0.0 };
                0.125 * tolerance + 4.0 * U32 + of_sign
            });
        }
    }
}

#[test]
fn a_gradient_of_zeros_leaves_the_decay_and_what_is_not_finite_shows() {
    for shape in [[3, 4], [4, 3]] {
        let case = |size| Muon { above: 1, shape, nesterov: true, cautious: false, size };
        let [values, _] = found(&case(0.0), ElementType::F32);
        let columns = shape[1];
        let mut expected = wide(&random(5 * 4, 2));
        expected.truncate((shape[0] + 2) * columns);
        expected[columns..][..12].iter_mut().for_each(|x| *x *= 0.875);
        values.close("parameters", &expected, |_| U32);
        let [Found { device, .. }, _] = found(&case(f32::INFINITY), ElementType::F32);
        assert!(device[columns..][..12].iter().any(|x| x.is_nan()), "{device:?}");
    }
}
