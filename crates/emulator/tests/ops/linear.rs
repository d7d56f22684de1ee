//! Linear layers: forward, with a bias and without, and the gradients.

use cuvee_kernels::{Backend, ElementType};

use crate::tools::{
    Case, ELEMENTS, U32, activations, all_rounded, floats, found, gradient, matrix, random, read,
    unit, wide, workspace,
};

struct Linear {
    n: usize,
    o: usize,
    i: usize,
}

impl Case<8> for Linear {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 8] {
        let Self { n, o, i } = *self;
        let (w, x) =
            (matrix(k, o, i, &random(o * i, 1)), activations(k, n, i, &random(n * i, 2), 1));
        let (bias, residual) = (floats(k, &random(o, 3)), floats(k, &random(n * o, 4)));
        let dy = activations(k, n, o, &random(n * o, 5), 1);
        let (mut y, mut biased) = (k.activations(n + 1, o), k.activations(n + 1, o));
        k.linear(n, &x, &w, &mut y);
        k.linear_biased(n, &x, &w, &bias, &mut biased);
        let (mut sum, mut alone) = (k.floats(n * o), k.floats(n * o));
        k.linear_residual(n, &x, &w, &residual, &mut sum);
        k.linear_floats(n, &x, &w, &mut alone);
        let (mut dx, mut dx_floats) = (k.activations(n + 1, i), k.floats(n * i));
        k.linear_backward(n, &dy, &w, &mut dx);
        k.linear_backward_floats(n, &dy, &w, &mut dx_floats);
        let (dw, mut workspace) = (k.gradient(o, i), workspace(k, n, o, i));
        k.begin_gradient(&dw, 1);
        k.linear_gradient(n, &dy, &x, &dw, 0, &mut workspace);
        // The first half of the rows once more.
        k.linear_gradient(n.div_ceil(2), &dy, &x, &dw, 1, &mut workspace);
        [
            read(k, &y, n + 1, o),
            read(k, &biased, n + 1, o),
            k.read(&sum, 0..n * o),
            k.read(&alone, 0..n * o),
            read(k, &dx, n + 1, i),
            k.read(&dx_floats, 0..n * i),
            k.read_gradient(&dw, 0..o * i),
            k.read_gradient(&dw, o * i - i..o * i),
        ]
    }
}

/// A product's sums, and those of its terms' sizes.
fn product(sizes: [usize; 3], term: impl Fn(usize, usize, usize) -> f64) -> [Vec<f64>; 2] {
    let [rows, columns, depth] = sizes;
    let sum = |of: &dyn Fn(f64) -> f64| {
        (0..rows * columns)
            .map(|at| (0..depth).map(|k| of(term(at / columns, at % columns, k))).sum())
            .collect()
    };
    [sum(&|x| x), sum(&f64::abs)]
}

#[test]
fn linear_layers_are_those_of_the_processor_both_ways() {
    for (n, o, i) in [(1, 1, 1), (5, 7, 3), (17, 24, 40), (3, 300, 12), (9, 8, 1)] {
        for element in ELEMENTS {
            let [y, biased, sum, alone, dx, dx_floats, dw, last] =
                found(&Linear { n, o, i }, element);
            let what = |part: &str| format!("{part} of {n}×{o}×{i} in {element:?}");
            let [w, x, dy] = [(o * i, 1), (n * i, 2), (n * o, 5)]
                .map(|(len, seed)| all_rounded(element, &random(len, seed)));
            let [bias, residual] = [(o, 3), (n * o, 4)].map(|(len, seed)| wide(&random(len, seed)));
            let [z, size] = product([n, o, i], |row, column, k| x[row * i + k] * w[column * i + k]);
            // A sum of i products, and one addition more, rounds i + 1 times at most.
            let rounds = |terms: usize| (terms as f64 + 1.0) * U32;
            let bound = |at: usize| rounds(i) * (size[at] + 1.0);
            let round = |found: f64| unit(element) * 1.01 * found.abs();
            // A row more than there are stays as it was.
            let with_row = |mut values: Vec<f64>, columns: usize| {
                values.resize((n + 1) * columns, 0.0);
                values
            };
            let rows = with_row(z.clone(), o);
            y.close(
                &what("y"),
                &rows,
                |at| {
                    if at < n * o { bound(at) + round(rows[at]) } else { 0.0 }
                },
            );
            let rows = with_row((0..n * o).map(|at| z[at] + bias[at % o]).collect(), o);
            biased.close(&what("y with a bias"), &rows, |at| {
                if at < n * o { bound(at) + round(rows[at]) } else { 0.0 }
            });
            let rows: Vec<f64> = z.iter().zip(&residual).map(|(z, r)| z + r).collect();
            sum.close(&what("y and what was before"), &rows, bound);
            alone.close(&what("y in f32"), &z, bound);

            let [z, size] =
                product([n, i, o], |row, column, k| dy[row * o + k] * w[k * i + column]);
            let rows = with_row(z.clone(), i);
            dx.close(&what("dx"), &rows, |at| {
                if at < n * i { rounds(o) * size[at] * 1.01 + round(rows[at]) } else { 0.0 }
            });
            dx_floats.close(&what("dx in f32"), &z, |at| rounds(o) * size[at]);

            let of_rows = |rows: usize| {
                product([o, i, rows], |row, column, k| dy[k * o + row] * x[k * i + column])
            };
            let ([first, first_size], [second, second_size]) = (of_rows(n), of_rows(n.div_ceil(2)));
            let both = |a: Vec<f64>, b: Vec<f64>| -> Vec<f64> {
                a.iter().zip(&b).map(|(a, b)| a + b).collect()
            };
            let (expected, size) = (both(first, second), both(first_size, second_size));
            dw.close(&what("dW"), &expected, |at| rounds(2 * n) * size[at]);
            let from = o * i - i;
            last.close(&what("dW's last row"), &expected[from..], |at| {
                rounds(2 * n) * size[from + at]
            });
        }
    }
}

struct Bias {
    n: usize,
    o: usize,
}

impl Case<2> for Bias {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
        let Self { n, o } = *self;
        let dy = activations(k, n, o, &random(n * o, 1), 1);
        let sum = gradient(k, 1, o, &random(o, 2));
        k.bias_gradient(n, &dy, &sum, 1);
        let added = k.read_gradient(&sum, 0..o);
        k.begin_gradient(&sum, 1);
        k.bias_gradient(n, &dy, &sum, 0);
        [added, k.read_gradient(&sum, 0..o)]
    }
}

#[test]
fn the_gradient_of_a_bias_is_that_of_the_processor() {
    // More rows than one block adds up, and more columns than it has.
    for (n, o) in [(1, 1), (7, 9), (530, 10), (3, 260)] {
        for element in ELEMENTS {
            let [added, replaced] = found(&Bias { n, o }, element);
            let dy = all_rounded(element, &random(n * o, 1));
            let before = wide(&random(o, 2));
            let sums: Vec<f64> = (0..o).map(|i| (0..n).map(|row| dy[row * o + i]).sum()).collect();
            let with: Vec<f64> = sums.iter().zip(&before).map(|(a, b)| a + b).collect();
            // At most n additions of numbers of at most n in all.
            let bound = (n * (n + 1)) as f64 * U32;
            let what = |part: &str| format!("{part} of {n}×{o} in {element:?}");
            replaced.close(&what("the gradient"), &sums, |_| bound);
            added.close(&what("the gradient added"), &with, |_| bound);
        }
    }
}

/// Rounded once, a sum and a bias that nearly cancel keep what is left of them.
#[test]
fn a_bias_is_added_before_sums_are_rounded() {
    struct Cancelling;
    impl Case<1> for Cancelling {
        fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 1] {
            // 1 + 3/128, whose square is between two bf16 that are 1/128 apart.
            let x = activations(k, 1, 1, &[1.0234375], 0);
            let w = matrix(k, 1, 1, &[1.0234375]);
            let mut y = k.activations(1, 1);
            k.linear_biased(1, &x, &w, &floats(k, &[-1.0]), &mut y);
            [read(k, &y, 1, 1)]
        }
    }
    let [y] = found(&Cancelling, ElementType::Bf16);
    let exact = 1.0234375f64 * 1.0234375 - 1.0;
    y.close("y", &[exact], |_| exact / 256.0);
}
