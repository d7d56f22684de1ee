//! Matrix products against a naive one in f64.

use cuvee_kernels::{
    AddBias, AddResidual, Backend, Cpu, Element, Epilogue, Panels, RoundTo, StoreF32, StoreRounded,
    bf16, multiply, multiply_transposed,
};
use proptest::prelude::*;

use crate::tools::{
    Kind, U32, close, narrow, number, random, random_matrix, rows as own_rows, wide,
};

/// What lies in a result before and between its rows.
const UNTOUCHED: f32 = 77.0;

/// m, n, k: one of everything; a tile and a panel and a bit; several passes over k; more columns of
/// a transposed left operand than are packed at once.
const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (1, 33, 2),
    (13, 31, 7),
    (12, 32, 64),
    (25, 97, 33),
    (7, 65, 515),
    (30, 40, 1031),
    (101, 35, 130),
];

/// Operands of one product, their rows further apart than they are wide.
struct Operands<E> {
    /// `[m, k]` in rows `stride_k` apart, the rest of a unit zero.
    left: Vec<E>,
    /// `[k, m]` in rows `stride_m` apart.
    left_transposed: Vec<E>,
    right: Panels<E>,
    stride_k: usize,
    stride_m: usize,
    /// `[m, n]`: Σ a b and Σ |a b|.
    products: Vec<f64>,
    sizes: Vec<f64>,
}

fn operands<E: Element>(
    m: usize,
    n: usize,
    k: usize,
    value: impl Fn(u64, usize) -> f32,
) -> Operands<E> {
    let (stride_k, stride_m, stride_n) = (k + k % 2 + 2, m + 5, n + 3);
    let (mut left, mut left_transposed) =
        (vec![E::default(); m * stride_k], vec![E::default(); k * stride_m]);
    let mut right = vec![E::default(); k * stride_n];
    for i in 0..m {
        for q in 0..k {
            left[i * stride_k + q] = E::narrow(value(1, i * k + q));
            left_transposed[q * stride_m + i] = left[i * stride_k + q];
        }
    }
    for q in 0..k {
        for j in 0..n {
            right[q * stride_n + j] = E::narrow(value(2, q * n + j));
        }
    }
    let (mut products, mut sizes) = (vec![0.0; m * n], vec![0.0; m * n]);
    for i in 0..m {
        for q in 0..k {
            let a = f64::from(left[i * stride_k + q].widen());
            for j in 0..n {
                let product = a * f64::from(right[q * stride_n + j].widen());
                products[i * n + j] += product;
                sizes[i * n + j] += product.abs();
            }
        }
    }
    let mut panels = Panels::zeros(n, k);
    panels.pack_columns(&right, stride_n, k, n);
    Operands { left, left_transposed, right: panels, stride_k, stride_m, products, sizes }
}

/// Both ways to the same product.
const WAYS: [&str; 2] = ["multiply", "multiply_transposed"];

fn by<E: Element>(way: &str, operands: &Operands<E>, m: usize, epilogue: impl Epilogue<E>) {
    let Operands { left, left_transposed, right, stride_k, stride_m, .. } = operands;
    if way == "multiply" {
        multiply(left, *stride_k, m, right, epilogue);
    } else {
        multiply_transposed(left_transposed, *stride_m, m, right, epilogue, &mut Vec::new());
    }
}

/// Columns 0 to n of rows `stride` apart; everything between them is as it was.
fn inside<T: Element>(out: &[T], stride: usize, n: usize) -> Vec<f64> {
    let rows = || out.chunks(stride);
    assert!(
        rows().flat_map(|row| &row[n..]).all(|x| x.widen() == UNTOUCHED),
        "a product wrote beside its rows"
    );
    rows().flat_map(|row| wide(&row[..n])).collect()
}

fn every_epilogue<E: Kind>() {
    for (m, n, k) in SHAPES {
        let operands = operands::<E>(m, n, k, number);
        let Operands { products, sizes, .. } = &operands;
        // k fused multiply-adds, and another addition each time a pass over the sum or what was
        // there before is added: each rounds by 2⁻²⁴ of at most the sum of sizes (and, to first
        // order, nothing else: k 2⁻²⁴ < 1e-4).
        let rounding = (k + 8) as f64 * U32 * 1.001;
        let stride = n + 4;
        let base: Vec<f32> = random(m * stride, 3);
        let at = |i: usize| f64::from(base[i / n * stride + i % n]);
        for way in WAYS {
            let what = |epilogue: &str| format!("{way} {m}×{n}×{k} in {}, {epilogue}", E::NAME);
            let mut sums = vec![UNTOUCHED; m * stride];
            by(way, &operands, m, StoreF32 { out: &mut sums, stride, add: false });
            close(&what("summed"), &inside(&sums, stride, n), products, |i| rounding * sizes[i]);
            by(way, &operands, m, StoreF32 { out: &mut sums, stride, add: true });
            let twice: Vec<f64> = products.iter().map(|x| 2.0 * x).collect();
            close(&what("added"), &inside(&sums, stride, n), &twice, |i| 2.0 * rounding * sizes[i]);

            let mut sums = vec![UNTOUCHED; m * stride];
            by(way, &operands, m, AddResidual { residual: &base, out: &mut sums, stride });
            let expected: Vec<f64> = products.iter().enumerate().map(|(i, x)| x + at(i)).collect();
            let bound = |i: usize| rounding * (sizes[i] + at(i).abs());
            close(&what("onto"), &inside(&sums, stride, n), &expected, bound);
        }
        // In one pass over the sum: only where the left operand lies in rows.
        let mut rounded = vec![E::narrow(UNTOUCHED); m * stride];
        multiply(
            &operands.left,
            operands.stride_k,
            m,
            &operands.right,
            StoreRounded { out: &mut rounded, stride },
        );
        let what = format!("multiply {m}×{n}×{k} in {}, rounded", E::NAME);
        let bound = |i: usize| E::UNIT * products[i].abs() + 1.01 * rounding * sizes[i];
        close(&what, &inside(&rounded, stride, n), products, bound);
        let bias = &base[..n];
        let mut rounded = vec![E::narrow(UNTOUCHED); m * stride];
        let biased = AddBias { bias, out: &mut rounded, stride };
        multiply(&operands.left, operands.stride_k, m, &operands.right, biased);
        let with_bias = |(i, x): (usize, &f64)| x + f64::from(bias[i % n]);
        let expected: Vec<f64> = products.iter().enumerate().map(with_bias).collect();
        let bound = |i: usize| {
            let size = sizes[i] + f64::from(bias[i % n]).abs();
            E::UNIT * expected[i].abs() + 1.01 * rounding * size
        };
        let what = format!("multiply {m}×{n}×{k} in {}, with a bias", E::NAME);
        close(&what, &inside(&rounded, stride, n), &expected, bound);
    }
}

#[test]
fn products_match_a_naive_one_in_f64_wherever_they_go() {
    every_epilogue::<f32>();
    every_epilogue::<bf16>();
}

fn sums_of_rows<E: Kind>()
where
    f32: RoundTo<E>,
{
    let kernels = Cpu::<E>::new(1).unwrap();
    for (rows, columns) in [(1, 1), (7, 33), (130, 48)] {
        let matrices = [1, 2].map(|seed| random_matrix::<E>(rows + 1, columns, 1.0, seed));
        let gradient = kernels.gradient(1, columns);
        for (turn, dy) in matrices.iter().enumerate() {
            kernels.bias_gradient(rows, dy, &gradient, turn);
        }
        let all: Vec<f64> =
            matrices.iter().flat_map(|dy| own_rows(dy)[..rows * columns].to_vec()).collect();
        let terms = |i: usize| all.iter().skip(i).step_by(columns);
        let expected: Vec<f64> = (0..columns).map(|i| terms(i).sum()).collect();
        let what = format!("a bias of {columns} in {}", E::NAME);
        close(&what, &wide(&gradient.read(0..columns)), &expected, |i| {
            2.0 * rows as f64 * U32 * terms(i).map(|x| x.abs()).sum::<f64>()
        });
    }
}

#[test]
fn the_gradient_of_a_bias_is_the_sum_of_the_rows_of_every_turn() {
    sums_of_rows::<f32>();
    sums_of_rows::<bf16>();
}

fn packed_the_other_way<E: Kind>()
where
    f32: RoundTo<E>,
{
    for (m, n, k) in SHAPES {
        // The weights of a linear layer, `[n, k]` in f32, as forward (their rows) and backward
        // (their columns) pack them.
        let weights = random(n * k, 5);
        let left = narrow::<E>(&random(m * (k + 1), 6));
        let rounded = wide(&narrow::<E>(&weights));
        let mut forward = Panels::<E>::zeros(n, k);
        forward.pack_rows::<f32>(&weights, k, n, k);
        assert_eq!((forward.lanes(), forward.depth()), (n, k));
        let transposed: Vec<f32> = (0..k * n).map(|i| weights[i % n * k + i / n]).collect();
        let mut same = Panels::<E>::zeros(n, k);
        same.pack_columns::<f32>(&transposed, n, k, n);
        let product = |right: &Panels<E>| {
            let mut out = vec![0f32; m * n];
            // One column of the row to come counts as the rest of a unit: its factor in the panel
            // is zero.
            let mut left = left.clone();
            left.resize(m * (k + 1) + 1, E::default());
            multiply(&left, k + 1, m, right, StoreF32 { out: &mut out, stride: n, add: false });
            out
        };
        assert_eq!(product(&forward), product(&same), "{m}×{n}×{k} in {}", E::NAME);
        let expected = |i: usize| -> (f64, f64) {
            let terms = || {
                (0..k)
                    .map(|q| f64::from(left[i / n * (k + 1) + q].widen()) * rounded[i % n * k + q])
            };
            (terms().sum(), terms().map(f64::abs).sum())
        };
        let (products, sizes): (Vec<f64>, Vec<f64>) = (0..m * n).map(expected).unzip();
        let bound = |i: usize| (k + 8) as f64 * U32 * 1.001 * sizes[i];
        close("a linear layer", &wide(&product(&forward)), &products, bound);
    }
}

#[test]
fn rows_and_columns_pack_into_the_same_panels() {
    packed_the_other_way::<f32>();
    packed_the_other_way::<bf16>();
}

#[test]
fn panels_that_held_more_keep_nothing_of_it() {
    let mut panels = Panels::<bf16>::zeros(70, 50);
    panels.pack_columns::<f32>(&vec![f32::NAN; 70 * 50], 70, 50, 70);
    panels.pack_columns::<f32>(&[1.0, 2.0, 3.0], 1, 3, 1);
    let mut out = [0.0];
    let left = narrow::<bf16>(&[1.0, 10.0, 100.0, 0.0]);
    multiply(&left, 4, 1, &panels, StoreF32 { out: &mut out, stride: 1, add: false });
    assert_eq!(out, [321.0]);
    panels.pack_rows::<f32>(&[1.0, 2.0, 3.0], 3, 1, 3);
    multiply(&left, 4, 1, &panels, StoreF32 { out: &mut out, stride: 1, add: false });
    assert_eq!(out, [321.0]);
}

#[test]
fn panels_that_have_no_room_get_more() {
    let source: Vec<f32> = random(70 * 50, 1);
    let (mut little, mut enough) = (Panels::<bf16>::zeros(1, 1), Panels::<bf16>::zeros(70, 50));
    little.pack_columns::<f32>(&source, 70, 50, 70);
    enough.pack_columns::<f32>(&source, 70, 50, 70);
    let left = narrow::<bf16>(&random(50, 2));
    let product = |right: &Panels<bf16>| {
        let mut out = [0.0; 70];
        multiply(&left, 50, 1, right, StoreF32 { out: &mut out, stride: 70, add: false });
        out
    };
    assert_eq!(product(&little), product(&enough));
}

#[test]
fn a_depth_of_nothing_sums_to_zero() {
    let panels = Panels::<bf16>::zeros(33, 0);
    for way in WAYS {
        let (mut out, mut workspace) = ([UNTOUCHED; 2 * 33], Vec::new());
        let sums = StoreF32 { out: &mut out, stride: 33, add: false };
        match way {
            "multiply" => multiply(&[], 0, 2, &panels, sums),
            _ => multiply_transposed(&[], 2, 2, &panels, sums, &mut workspace),
        }
        assert_eq!(out, [0.0; 2 * 33], "{way}");
    }
}

#[test]
fn a_nan_in_an_operand_comes_out() {
    for (row, column) in [(0, 0), (13, 6)] {
        let mut left = vec![1f32; 14 * 7];
        left[row * 7 + column] = f32::NAN;
        let mut right = Panels::<f32>::zeros(3, 7);
        right.pack_columns::<f32>(&[1.0; 21], 3, 7, 3);
        let mut out = [0.0; 42];
        multiply(&left, 7, 14, &right, StoreF32 { out: &mut out, stride: 3, add: false });
        for (i, sum) in out.iter().enumerate() {
            assert_eq!(sum.is_nan(), i / 3 == row, "element {i}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Small whole numbers and their sums are exact in bf16 and f32: so is the product, whatever
    /// its shape.
    #[test]
    fn products_of_small_whole_numbers_are_exact(m in 1usize..40, n in 1usize..100, k in 1usize..600) {
        fn check<E: Element>(m: usize, n: usize, k: usize) -> Result<(), TestCaseError> {
            let operands = operands::<E>(m, n, k, |seed, i| ((i * i + 7 * i + seed as usize) % 17) as f32 - 8.0);
            for way in WAYS {
                let mut sums = vec![UNTOUCHED; m * n];
                by(way, &operands, m, StoreF32 { out: &mut sums, stride: n, add: false });
                prop_assert_eq!(wide(&sums), operands.products.clone(), "{} {}×{}×{} in {}", way, m, n, k, E::NAME);
            }
            Ok(())
        }
        check::<f32>(m, n, k)?;
        check::<bf16>(m, n, k)?;
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_before_anything_is_written() {
    // Strides whose products wrap around, and epilogues a row too short.
    let (left, mut panels) = (vec![1f32; 64], Panels::<f32>::zeros(32, 4));
    panels.pack_columns(&[1f32; 128], 32, 4, 32);
    let refused = |run: &dyn Fn()| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        std::panic::set_hook(hook);
        assert!(result.is_err());
    };
    refused(&|| {
        multiply(
            &left,
            usize::MAX,
            2,
            &panels,
            StoreF32 { out: &mut [0.0; 64], stride: 32, add: false },
        )
    });
    for stride in [usize::MAX, usize::MAX - 31, 32] {
        refused(&|| multiply(&left, 4, 2, &panels, StoreRounded { out: &mut [0f32; 63], stride }));
        refused(&|| {
            multiply(&left, 4, 2, &panels, StoreF32 { out: &mut [0.0; 63], stride, add: false })
        });
    }
}
