//! Kernels give the same bits on every instruction set, those of the bf16 dot product aside.

use std::cell::Cell;

use half::bf16;

use super::*;
use crate::*;

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// The set that this thread was told to use.
pub(crate) fn forced() -> Option<Isa> {
    FORCED.get()
}

/// The sets this processor has.
pub(crate) fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|&isa| isa <= detect())
}

/// `work` with the instructions of `isa`, which this processor must have; on this thread alone.
pub(crate) fn on<T>(isa: Isa, work: impl FnOnce() -> T) -> T {
    assert!(isa <= detect());
    FORCED.set(Some(isa));
    let result = work();
    FORCED.set(None);
    result
}

#[test]
fn no_tile_is_larger_than_the_most() {
    for isa in Isa::ALL {
        assert!(isa.columns() <= MOST_COLUMNS && isa.columns().is_multiple_of(lanes::LANES));
        assert!((1..=MOST_ROWS).contains(&Isa::rows(isa.columns())), "{isa:?}");
        assert_eq!(isa.row().rows, Isa::rows(isa.columns()), "{isa:?}");
    }
    // One function is compiled for both.
    assert_eq!(Isa::Avx512.columns(), Isa::Avx512Bf16.columns());
}

#[test]
fn only_a_set_that_the_processor_has_can_be_chosen() {
    for isa in Isa::ALL.into_iter().filter(|isa| *isa > Isa::best()) {
        assert_eq!(isa.choose(), Err(Isa::best()), "{isa:?}");
    }
    // What kernels use already can be chosen, and nothing else any more.
    assert_eq!(Isa::best().choose(), Ok(()));
    assert_eq!(isa(), Isa::best());
    if Isa::best() > Isa::Baseline {
        assert_eq!(Isa::Baseline.choose(), Err(Isa::best()));
    }
}

/// A `[rows, columns]` matrix of numbers between −2 and 2.
fn matrix<E: Element>(rows: usize, columns: usize, seed: usize) -> Matrix<E> {
    let mut matrix = Matrix::zeros(rows, columns);
    for row in 0..rows {
        for (column, place) in matrix.row_mut(row).iter_mut().enumerate() {
            let i = (row * columns + column) * 7919 + seed * 104_729;
            *place = E::narrow((i % 4001) as f32 / 1000.0 - 2.0);
        }
    }
    matrix
}

fn flat<E: Element>(matrix: &Matrix<E>) -> Vec<f32> {
    (0..matrix.rows()).flat_map(|row| matrix.row(row).iter().map(|x| x.widen())).collect()
}

/// Each kernel's name and all that it computes.
fn everything<E: Element>() -> Vec<(&'static str, Vec<f32>)>
where
    f32: RoundTo<E>,
{
    let (n, d) = (21, 37);
    let (x, gain) = (flat(&matrix::<f32>(n, d, 1)), flat(&matrix::<f32>(1, d, 2)));
    let mut all = Vec::new();

    let (mut y, mut scale) = (Matrix::<E>::zeros(n, d), vec![0.0; n]);
    rms_norm(&x, &gain, 1e-5, &mut y, &mut scale);
    let (mut dx, mut rounded, mut gains) = (x.clone(), Matrix::<E>::zeros(n, d), vec![0.0; d]);
    rms_norm_backward(n, n, &x, &gain, &scale, &x, false, &mut dx, &mut rounded, &mut gains);
    all.push(("RMSNorm", [flat(&y), scale.clone(), dx, flat(&rounded), gains].concat()));

    let mut rotated = matrix::<E>(n, 36, 3);
    let stride = rotated.stride();
    let frequencies: Vec<f64> = (0..6).map(|i| 100f64.powf(-f64::from(i) / 6.0)).collect();
    rotate(rotated.data_mut(), stride, 2, 7, 3, &Rotations::new(9, &frequencies, 1.25), false);
    all.push(("rotary positions", flat(&rotated)));

    // Heads of a whole 16 lanes and some more.
    let (heads, gains) = (Heads { query: 2, kv: 1, dim: 20 }, flat(&matrix::<f32>(1, 40, 14)));
    let norm = HeadNorm { heads, gains: &gains, eps: 1e-5 };
    let (mut normed, mut kept) = (matrix::<E>(n, 80, 15), Matrix::<E>::zeros(n, 60));
    let (mut scales, mut gradients) = (vec![0.0; 3 * n], vec![0.0; 3 * 40]);
    let (stride, kept_stride) = (normed.stride(), kept.stride());
    head_norm(norm, normed.data_mut(), stride, kept.data_mut(), kept_stride, &mut scales);
    let mut d_normed = matrix::<E>(n, 80, 16);
    let d_rows = d_normed.data_mut();
    head_norm_backward(norm, 7, kept.data(), kept_stride, &scales, d_rows, stride, &mut gradients);
    all.push(("QK-norm", [flat(&normed), scales, flat(&d_normed), gradients].concat()));

    let (mut gate_up, mut h) = (matrix::<E>(n, 2 * d, 4), Matrix::<E>::zeros(n, d));
    swiglu(&gate_up, &mut h, n);
    swiglu_backward(&mut gate_up, &matrix::<E>(n, d, 5), n);
    all.push(("SwiGLU", [flat(&h), flat(&gate_up)].concat()));

    let Ok(kernels) = Cpu::<E>::new(1) else { panic!("the system has no thread") };
    let (values, targets) = (flat(&matrix::<f32>(97, d, 6)), (0..n as u32).collect::<Vec<_>>());
    let (mut w, mut table) = (kernels.matrix(97, d), kernels.floats(97 * d));
    table.copy_from_slice(&values);
    // Not in the backend's threads: this one alone was told what to use.
    w.forward.pack_rows::<f32>(&values, d, 97, d);
    w.backward.pack_columns::<f32>(&values, d, 97, d);
    let mut workspace = kernels.workspace(n, n, Heads { query: 1, kv: 1, dim: 2 }, 97, d, true);
    let (mut losses, mut dx, dw) =
        (kernels.floats(n), kernels.floats(n * d), kernels.gradient(97, d));
    let (inputs, mut squares) = (matrix::<E>(n, d, 13), kernels.floats(n));
    let mut scales = kernels.floats(n);
    kernels.write(&mut scales, 0, &scale[..n]);
    kernels.head_backward(
        &inputs,
        &w,
        &table,
        &targets,
        &scales,
        &mut losses,
        Some((0.25, &mut squares)),
        &mut dx,
        &dw,
        |part| part,
        &mut workspace,
    );
    all.push((
        "head",
        [losses.to_vec(), squares.to_vec(), dx.to_vec(), dw.read(0..97 * d)].concat(),
    ));

    let (mut parameters, mut first, mut second) = (x.clone(), x.clone(), vec![1.0; x.len()]);
    let step = AdamWStep {
        gradient_scale: 0.5,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        first_correction: 2.0,
        second_correction: 3.0,
        decay_factor: 0.99,
        cautious: false,
    };
    adamw(&mut parameters, &flat(&matrix::<f32>(n, d, 7)), &mut first, &mut second, &step);
    accumulate(&mut parameters, &x);
    move_average(&mut parameters, &x, 0.3);
    let sum = sum_of_squares(&x) as f32;
    all.push(("AdamW and sums", [parameters, first, second, vec![sum]].concat()));

    let (mut parameters, mut momentum) = (x.clone(), x.clone());
    let step = SgdStep {
        gradient_scale: 0.5,
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        decay_factor: 0.99,
        cautious: true,
    };
    let gradient = flat(&matrix::<f32>(n, d, 14));
    sgd_with_momentum(&mut parameters, &gradient, &mut momentum, &step);
    sgd(&mut parameters, &gradient, &step);
    let (mut orthogonal, shape) = (flat(&matrix::<f32>(40, d, 15)), [d, 40]);
    orthogonalize(&mut orthogonal, shape, &[[3.0, -3.2, 1.2]; 3], &mut MuonWorkspace::new(&[]));
    all.push(("SGD and Muon", [parameters, momentum, orthogonal].concat()));

    let right = matrix::<E>(n, 45, 8);
    let mut panels = Panels::<E>::zeros(45, n);
    panels.pack_columns(right.data(), right.stride(), n, 45);
    let left = matrix::<E>(n, d, 9);
    let mut product = vec![0.0; d * 45];
    multiply_transposed(
        left.data(),
        left.stride(),
        d,
        &panels,
        StoreF32 { out: &mut product, stride: 45, add: false },
        &mut Vec::new(),
    );
    let rows = matrix::<E>(45, d, 10);
    panels = Panels::zeros(45, d);
    panels.pack_rows(rows.data(), rows.stride(), 45, d);
    let mut rounded = Matrix::<E>::zeros(n, 45);
    let stride = rounded.stride();
    multiply(
        left.data(),
        left.stride(),
        n,
        &panels,
        StoreRounded { out: rounded.data_mut(), stride },
    );
    let mut biased = Matrix::<E>::zeros(n, 45);
    let bias = flat(&matrix::<f32>(1, 45, 17));
    let epilogue = AddBias { bias: &bias, out: biased.data_mut(), stride };
    multiply(left.data(), left.stride(), n, &panels, epilogue);
    let sums = kernels.gradient(1, 45);
    kernels.bias_gradient(n, &biased, &sums, 0);
    let sums = sums.read(0..45);
    all.push(("products", [product, flat(&rounded), flat(&biased), sums].concat()));

    let heads = Heads { query: 2, kv: 1, dim: 6 };
    let (qkv, d_out) = (matrix::<E>(n, heads.columns(), 11), matrix::<E>(n, 12, 12));
    let (mut out, mut log_sums, mut gradient) =
        (Matrix::<E>::zeros(n, 12), vec![0.0; 2 * n], Matrix::<E>::zeros(n, heads.columns()));
    let mut workspace = AttentionWorkspace::<E>::new(n, heads, true);
    // One sequence of several documents, or of one.
    let several: Vec<u32> = (0..n as u32).map(|row| row / 5 * 5).collect();
    let mut found = Vec::new();
    for documents in [Some(&several[..]), None] {
        let (given, work) = ((&qkv, &d_out), &mut workspace);
        attention(n, n, heads, documents, given.0, &mut out, &mut log_sums, work);
        attention_backward(
            n,
            n,
            heads,
            documents,
            given.0,
            &out,
            given.1,
            &log_sums,
            &mut gradient,
            work,
        );
        found.extend([flat(&out), log_sums.clone(), flat(&gradient)].concat());
    }
    let (mut cache, mut one) = (KvCache::default(), vec![E::default(); 12]);
    let rotations = Rotations::new(3, &[1.0, 0.2, 0.04], 1.0);
    for row in 0..3 {
        let mut row = qkv.row(row).to_vec();
        attention_step(&mut row, heads, Some(&rotations), &mut cache, &mut one);
    }
    let one: Vec<f32> = one.iter().map(|x| x.widen()).collect();
    all.push(("attention", [found, one].concat()));
    all
}

fn same_bits<E: Element>(except: impl Fn(Isa, &str) -> bool)
where
    f32: RoundTo<E>,
{
    let expected = on(Isa::Baseline, everything::<E>);
    for isa in available() {
        for ((name, found), (_, expected)) in on(isa, everything::<E>).iter().zip(&expected) {
            if except(isa, name) {
                continue;
            }
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found), bits(expected), "{name} in {} on {isa:?}", E::NAME);
        }
    }
}

#[test]
fn every_set_of_instructions_gives_the_same_bits() {
    same_bits::<f32>(|_, _| false);
    // The dot product adds two terms in a rounding of its own; the tests of `microkernel` bound it.
    same_bits::<bf16>(|isa, name| {
        isa == Isa::Avx512Bf16 && ["products", "attention", "head"].contains(&name)
    });
}
