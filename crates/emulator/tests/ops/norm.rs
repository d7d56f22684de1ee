//! RMSNorm.

use cuvee_kernels::{Backend, ElementType};

use crate::tools::{
    Case, ELEMENTS, Found, U32, floats, found, gradient, random, read, rounded, unit, wide,
};

const EPS: f32 = 1e-5;

struct Norm {
    sequences: usize,
    context: usize,
    d: usize,
    /// Whether activations are read too, which takes a product of d columns.
    rounded: bool,
}

impl Case<8> for Norm {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 8] {
        let Self { sequences, context, d, .. } = *self;
        let n = sequences * context;
        let activations = |x: &K::Activations, rows: usize| {
            if self.rounded { read(k, x, rows, d) } else { Vec::new() }
        };
        let (x, gain) = (floats(k, &random(n * d, 1)), floats(k, &random(d, 2)));
        // Memory for more rows than there are.
        let (mut y, mut scale) = (k.activations(n + 2, d), k.floats(n + 2));
        k.norm(n, &x, &gain, EPS, &mut y, &mut scale);
        let dy = floats(k, &random(n * d, 3));
        let back = |overwrite: bool| {
            let mut dx = floats(k, &random((n + 1) * d, 4));
            let (mut rounded, mut gains) = (k.activations(n + 1, d), k.floats(sequences * d));
            k.norm_backward(
                n,
                context,
                &x,
                &gain,
                &scale,
                &dy,
                overwrite,
                &mut dx,
                &mut rounded,
                &mut gains,
            );
            (k.read(&dx, 0..(n + 1) * d), activations(&rounded, n), gains)
        };
        let ((dx, rounded, gains), (replaced, rounded_too, _)) = (back(false), back(true));
        // In turn 1, to which turn 0 has left something; every sequence but the last.
        let sum = gradient(k, 1, d, &random(d, 5));
        k.gain_gradient(sequences - 1, &gains, &sum, 1);
        [
            activations(&y, n + 2),
            k.read(&scale, 0..n + 2),
            dx,
            rounded,
            k.read(&gains, 0..sequences * d),
            replaced,
            rounded_too,
            k.read_gradient(&sum, 0..d),
        ]
    }
}

fn rms_norm_is_that_of_f64(case: &Norm, element: ElementType) {
    let Norm { sequences, context, d, .. } = *case;
    let [y, scale, dx, rounded_dx, gains, replaced, rounded_replaced, gain] = found(case, element);
    let what = |part: &str| format!("{part} of {sequences}·{context}×{d} in {element:?}");
    let n = sequences * context;
    let [x, weights, dy, before, first] =
        [(n * d, 1), (d, 2), (n * d, 3), ((n + 1) * d, 4), (d, 5)]
            .map(|(len, seed)| wide(&random(len, seed)));

    // A sum of d squares has a relative error of d roundings at most; its root, halved; then a
    // handful of operations.
    let relative = (d as f64 + 8.0) * U32;
    let mean = |row: usize| x[row * d..][..d].iter().map(|x| x * x).sum::<f64>() / d as f64;
    let s: Vec<f64> = (0..n).map(|row| 1.0 / (mean(row) + f64::from(EPS)).sqrt()).collect();
    let padded = |values: &[f64], len: usize| -> Vec<f64> {
        values.iter().copied().chain(std::iter::repeat(0.0)).take(len).collect()
    };
    scale.close(&what("s"), &padded(&s, n + 2), |i| if i < n { relative * s[i] } else { 0.0 });
    let expected: Vec<f64> = (0..n * d).map(|i| x[i] * s[i / d] * weights[i % d]).collect();
    if case.rounded {
        let expected = padded(&expected, (n + 2) * d);
        y.close(&what("y"), &expected, |i| (relative + unit(element)) * 1.01 * expected[i].abs());
    }

    // Each term of the sum that dx is has a relative error of at most 2d + 16 roundings: two sums,
    // s³, products.
    let factors = |row: usize| (0..d).map(move |i| (row * d + i, i));
    let sum = |row: usize| factors(row).map(|(at, i)| x[at] * dy[at] * weights[i]).sum::<f64>();
    let size =
        |row: usize| factors(row).map(|(at, i)| (x[at] * dy[at] * weights[i]).abs()).sum::<f64>();
    let (sums, sizes): (Vec<f64>, Vec<f64>) = (0..n).map(|row| (sum(row), size(row))).unzip();
    let of = |i: usize, sums: &[f64]| {
        let (row, s) = (i / d, s[i / d]);
        (dy[i] * weights[i % d] * s, x[i] * sums[row] * s.powi(3) / d as f64)
    };
    for (found, rounded_too, overwrite) in
        [(&dx, &rounded_dx, false), (&replaced, &rounded_replaced, true)]
    {
        let old = |i: usize| if overwrite && i < n * d { 0.0 } else { before[i] };
        let new = |i: usize| {
            let (first, second) = if i < n * d { of(i, &sums) } else { (0.0, 0.0) };
            old(i) + first - second
        };
        let expected: Vec<f64> = (0..(n + 1) * d).map(new).collect();
        found.close(&what("dx"), &expected, |i| {
            if i >= n * d {
                return 0.0;
            }
            let (first, second) = of(i, &sizes);
            (2.0 * d as f64 + 16.0) * U32 * (first.abs() + second.abs() + old(i).abs())
        });
        if case.rounded {
            let narrowed = |values: &[f64]| -> Vec<f64> {
                values[..n * d].iter().map(|&x| rounded(element, x as f32)).collect()
            };
            let Found { cpu, device } = rounded_too;
            assert!(*device == narrowed(&found.device), "{}", what("rounded dx"));
            assert!(*cpu == narrowed(&found.cpu), "{}", what("rounded dx on the processor"));
        }
    }
    let own = |b: usize, i: usize| (b * context..(b + 1) * context).map(move |row| row * d + i);
    let term = |at: usize| dy[at] * x[at] * s[at / d];
    let expected: Vec<f64> =
        (0..sequences * d).map(|i| own(i / d, i % d).map(term).sum()).collect();
    let size = |i: usize| own(i / d, i % d).map(|at| term(at).abs()).sum::<f64>();
    let bound = |i: usize| (relative + context as f64 * U32) * size(i);
    gains.close(&what("a sequence's gain"), &expected, bound);
    let others = |i: usize| (0..sequences - 1).map(move |b| b * d + i);
    let added: Vec<f64> =
        (0..d).map(|i| first[i] + others(i).map(|at| expected[at]).sum::<f64>()).collect();
    gain.close(&what("gain"), &added, |i| {
        let sizes = first[i].abs() + others(i).map(size).sum::<f64>();
        others(i).map(bound).sum::<f64>() + sequences as f64 * U32 * sizes
    });
}

#[test]
fn rms_norm_is_that_of_the_processor_both_ways() {
    // Sequences of one part of a block's rows, of several, of one that is not whole; rows that lie
    // on 16 bytes and that do not.
    for (sequences, context, d) in
        [(1, 1, 1), (1, 3, 5), (2, 16, 8), (2, 35, 12), (1, 33, 33), (3, 2, 130), (2, 17, 64)]
    {
        for element in ELEMENTS {
            rms_norm_is_that_of_f64(&Norm { sequences, context, d, rounded: true }, element);
        }
    }
}

#[test]
fn rows_that_are_wider_than_a_block_are_normed_too() {
    for d in [4100, 4106] {
        let case = Norm { sequences: 2, context: 1, d, rounded: false };
        rms_norm_is_that_of_f64(&case, ElementType::Bf16);
    }
}
