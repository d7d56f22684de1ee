//! The output head and its cross-entropy.

use cuvee_kernels::{Backend, ElementType};

use crate::tools::{
    Case, ELEMENTS, EXP, Found, U32, activations, all_rounded, floats, found, found_on, gradient,
    ids, matrix, random, unit, wide, workspace,
};

struct Head {
    n: usize,
    v: usize,
    d: usize,
    /// What the inputs, between −1 and 1, are multiplied by: the logits' size.
    size: f32,
    z_loss: Option<f32>,
}

impl Head {
    /// Tokens that repeat, with the first and last of the vocabulary among them.
    fn targets(&self) -> Vec<u32> {
        let v = self.v;
        (0..self.n).map(|i| [0, v as u32 - 1, (i * i * 31 % v) as u32][i % 3]).collect()
    }

    /// Every fourth row has no share.
    fn shares(&self) -> Vec<f32> {
        let share = |(i, s): (usize, &f32)| if i % 4 == 3 { 0.0 } else { *s };
        random(self.n, 3).iter().enumerate().map(share).collect()
    }

    fn inputs(&self) -> Vec<f32> {
        random(self.n * self.d, 2).iter().map(|x| x * self.size).collect()
    }
}

impl Case<6> for Head {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 6] {
        let Self { n, v, d, .. } = *self;
        let values = random(v * d, 1);
        let (w, x) = (matrix(k, v, d, &values), activations(k, n, d, &self.inputs(), 1));
        let (targets, mut workspace) = (ids(k, &self.targets()), workspace(k, n, v, d));
        let (mut alone, mut losses) = (k.floats(n + 1), k.floats(n + 1));
        k.head(&x, &w, &targets, &mut alone, &mut workspace);
        let (scales, mut squares) = (floats(k, &self.shares()), k.floats(n));
        let (mut dx, dw) = (k.floats(n * d), gradient(k, v, d, &random(v * d, 4)));
        k.head_backward(
            &x,
            &w,
            &floats(k, &values),
            &targets,
            &scales,
            &mut losses,
            self.z_loss.map(|z| (z, &mut squares)),
            &mut dx,
            &dw,
            |part| 1 + part,
            &mut workspace,
        );
        let replaced = k.gradient(v, d);
        k.begin_gradient(&replaced, 1);
        k.head_backward(
            &x,
            &w,
            &floats(k, &values),
            &targets,
            &scales,
            &mut losses,
            None,
            &mut k.floats(n * d),
            &replaced,
            |part| part,
            &mut workspace,
        );
        [
            k.read(&alone, 0..n + 1),
            k.read(&losses, 0..n + 1),
            k.read(&squares, 0..n),
            k.read(&dx, 0..n * d),
            k.read_gradient(&dw, 0..v * d),
            k.read_gradient(&replaced, 0..v * d),
        ]
    }
}

/// What of a row of logits: its losses' error, its softmax, and the gradient by each.
struct Row {
    loss: f64,
    square: f64,
    gradient: Vec<f64>,
    /// The gradient's largest error.
    error: Vec<f64>,
}

/// Of the logits `z`, each with an error of up to `off`.
fn row(z: &[f64], off: f64, target: usize, scale: f64, z_loss: f64, unit: f64) -> Row {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = z.iter().map(|z| (z - max).exp()).sum::<f64>().ln() + max;
    let factor = 1.0 + 2.0 * z_loss * log_sum;
    // A softmax's relative error: the logits', the exponential's of what is rounded as the largest
    // logit is, and the sum's.
    let sum = EXP + (z.len() as f64 + 8.0) * U32 + 4.0 * U32 * max.abs();
    let relative = 2.0 * off + 2.0 * sum;
    let of_factor = 2.0 * z_loss * (off + sum * (1.0 + log_sum.abs()));
    // What is below the normal numbers of f32 may be 0.
    let least = 2.0 * f64::from(f32::MIN_POSITIVE) * (scale * factor).abs();
    let (mut gradient, mut error) = (Vec::new(), Vec::new());
    for (index, z) in z.iter().enumerate() {
        let softmax = scale * (z - log_sum).exp() * factor;
        let all = if index == target { softmax - scale } else { softmax };
        gradient.push(all);
        // What the processor rounds are the exponentials.
        error.push(
            least
                + softmax.abs() * (relative + unit)
                + (scale * of_factor).abs() * (z - log_sum).exp()
                + all.abs() * (unit + 4.0 * U32)
                + scale.abs() * (unit + 4.0 * U32) * f64::from(u8::from(index == target)),
        );
    }
    Row { loss: log_sum - z[target], square: log_sum * log_sum, gradient, error }
}

fn the_head_is_that_of_f64(case: &Head, element: ElementType, results: [Found; 6]) {
    let Head { n, v, d, .. } = *case;
    let [alone, losses, squares, dx, dw, replaced] = results;
    let what = |part: &str| {
        format!("{part} of {n}×{v}×{d} of size {} in {element:?}, z {:?}", case.size, case.z_loss)
    };
    let (w, x) = (all_rounded(element, &random(v * d, 1)), all_rounded(element, &case.inputs()));
    let (targets, shares, before) = (case.targets(), wide(&case.shares()), wide(&random(v * d, 4)));
    let rows_of = |z_loss: f64| -> (Vec<f64>, Vec<Row>) {
        (0..n)
            .map(|at| {
                let (mut z, mut largest) = (vec![0.0; v], 0.0f64);
                for (output, z) in z.iter_mut().enumerate() {
                    let term = |i: usize| x[at * d + i] * w[output * d + i];
                    *z = (0..d).map(term).sum();
                    largest = largest.max((0..d).map(|i| term(i).abs()).sum());
                }
                let off = (d as f64 + 2.0) * U32 * largest;
                (off, row(&z, off, targets[at] as usize, shares[at], z_loss, unit(element)))
            })
            .unzip()
    };
    let (off, rows) = rows_of(f64::from(case.z_loss.unwrap_or(0.0)));
    // A loss has a logit's error twice, and those of the sum and of a logarithm of its size.
    let bound = |at: usize| {
        2.0 * off[at] + EXP + (v as f64 + 16.0) * U32 + 8.0 * U32 * (rows[at].loss + 88.0)
    };
    let mut expected: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    expected.push(0.0);
    for found in [&alone, &losses] {
        found.close(&what("losses"), &expected, |at| if at < n { bound(at) } else { 0.0 });
    }
    if case.z_loss.is_some() {
        let expected: Vec<f64> = rows.iter().map(|row| row.square).collect();
        squares.close(&what("L²"), &expected, |at| {
            let root = expected[at].sqrt() + bound(at);
            2.0 * root * (bound(at) + 4.0 * U32 * root)
        });
    } else {
        squares.exactly(&what("L²"), &vec![0.0; n]);
    }
    let sums = |of: &dyn Fn(usize, usize) -> [f64; 3], len: usize, terms: usize| {
        // Σ of a gradient times what it meets; its error, and that of so many additions.
        (0..len)
            .map(|at| {
                (0..terms).map(|term| of(at, term)).fold((0.0, 0.0), |(sum, bound), term| {
                    let [gradient, error, other] = term;
                    let rounds = (terms as f64 + 2.0) * U32 * gradient.abs();
                    (sum + gradient * other, bound + (error + rounds) * other.abs())
                })
            })
            .unzip::<f64, f64, Vec<f64>, Vec<f64>>()
    };
    let of_dx = |at: usize, output: usize| {
        let row = &rows[at / d];
        [row.gradient[output], row.error[output], w[output * d + at % d]]
    };
    let (expected, bounds) = sums(&of_dx, n * d, v);
    dx.close(&what("dx"), &expected, |at| bounds[at]);
    let of_dw = |rows: &[Row], at: usize, row: usize| {
        // The processor rounds an input times its factor.
        let Row { gradient, error, .. } = &rows[row];
        let (gradient, error) = (gradient[at / d], error[at / d]);
        [gradient, error, x[row * d + at % d]]
    };
    let (expected, bounds) = sums(&|at, row| of_dw(&rows, at, row), v * d, n);
    let added: Vec<f64> = expected.iter().zip(&before).map(|(a, b)| a + b).collect();
    dw.close(&what("dW added"), &added, |at| bounds[at] + (n as f64 + 1.0) * U32);
    let (_, rows) = rows_of(0.0);
    let (expected, bounds) = sums(&|at, row| of_dw(&rows, at, row), v * d, n);
    replaced.close(&what("dW"), &expected, |at| bounds[at]);
}

#[test]
fn the_head_is_that_of_the_processor_both_ways() {
    // Single ones; vocabularies that are no whole vectors, and wider than a block; logits far from
    // zero; a z-loss.
    for (n, v, d, size, z_loss) in [
        (1, 7, 2, 1.0, None),
        (13, 97, 33, 2.0, Some(0.125)),
        (6, 23, 9, 200.0, None),
        (5, 130, 12, 1.0, Some(1e-3)),
        (2, 4103, 5, 2.0, None),
        (3, 1, 4, 1.0, None),
    ] {
        for element in ELEMENTS {
            let case = Head { n, v, d, size, z_loss };
            the_head_is_that_of_f64(&case, element, found(&case, element));
        }
    }
}

#[test]
fn rows_are_taken_as_few_at_a_time_as_there_is_room_for() {
    for logits in [1, 60, 100] {
        for element in ELEMENTS {
            let case = Head { n: 7, v: 19, d: 6, size: 1.0, z_loss: Some(0.0625) };
            let results = found_on(&case, element, |device| device.with_logits(logits));
            the_head_is_that_of_f64(&case, element, results);
        }
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    struct Nan;
    impl Case<2> for Nan {
        fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
            let (n, v, d) = (3, 11, 4);
            let mut x = random(n * d, 2);
            x[d + 1] = f32::NAN;
            let (w, x) = (matrix(k, v, d, &random(v * d, 1)), activations(k, n, d, &x, 0));
            let (targets, mut workspace) = (ids(k, &[0, 10, 5]), workspace(k, n, v, d));
            let (mut losses, mut dx) = (k.floats(n), k.floats(n * d));
            let dw = k.gradient(v, d);
            k.begin_gradient(&dw, 1);
            k.head_backward(
                &x,
                &w,
                &floats(k, &random(v * d, 1)),
                &targets,
                &floats(k, &[1.0; 3]),
                &mut losses,
                None,
                &mut dx,
                &dw,
                |part| part,
                &mut workspace,
            );
            [k.read(&losses, 0..n), k.read(&dx, 0..n * d)]
        }
    }
    for element in ELEMENTS {
        let [losses, dx] = found(&Nan, element);
        for (row, loss) in losses.device.iter().enumerate() {
            assert_eq!(loss.is_nan(), row == 1, "the loss of row {row} is {loss}");
            let dx = &dx.device[row * 4..][..4];
            assert!(dx.iter().all(|dx| dx.is_nan() == (row == 1)), "dx of row {row}: {dx:?}");
        }
    }
}
