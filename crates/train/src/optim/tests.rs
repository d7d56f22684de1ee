//! The promises of the rules, in both storages.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::{DType, Device, Tensor};
use cuvee_kernels::{Backend, Buffer, Cpu, Gradient};
use cuvee_mixer::seed::CounterRng;

use super::*;
use crate::spec::{OptimizerSpec, WeightDecay};

fn spec(name: OptimizerKind) -> OptimizerSpec {
    name.into()
}

fn muon<S: Storage>(nesterov: bool) -> Muon<S> {
    let spec = OptimizerSpec { nesterov: Some(nesterov), ..spec(OptimizerKind::Muon) };
    Muon::new(&spec, &ModelConfig::small())
}

fn sgd(momentum: f64, nesterov: bool) -> Sgd {
    let (momentum, nesterov) = (Some(momentum), Some(nesterov));
    Sgd::new(&OptimizerSpec { momentum, nesterov, ..spec(OptimizerKind::Sgd) })
}

fn update(count: u64, lr: f64, decay: f64, cautious: bool) -> Update {
    Update { count, lr, scale: 1.0, keep: 1.0 - lr * decay, cautious }
}

/// Independent standard normal numbers.
fn gaussian(len: usize, seed: u64) -> Vec<f64> {
    let rng = CounterRng::new(seed);
    (0..len as u64).map(|i| rng.normal(i)).collect()
}

/// Updates a matrix by one gradient after the other, in Candle's f64.
fn in_candle(
    rule: &dyn Optimizer<Candle>,
    [rows, columns]: [usize; 2],
    start: &[f64],
    gradients: &[Vec<f64>],
    pace: impl Fn(u64) -> Update,
) -> Vec<f64> {
    let tensor =
        |values: &[f64]| Tensor::from_slice(values, (rows, columns), &Device::Cpu).unwrap();
    let mut values = tensor(start);
    let mut state = vec![tensor(&vec![0.0; start.len()]); rule.state_names().len()];
    for (gradient, count) in gradients.iter().zip(1..) {
        let slot = Slot {
            values: &mut values,
            gradient: &tensor(gradient),
            state: &mut state,
            matrices: &[[rows, columns]],
        };
        rule.update(&Candle, slot, &pace(count)).unwrap();
    }
    values.flatten_all().unwrap().to_vec1().unwrap()
}

/// The same with the kernels, in f32.
fn in_kernels(
    rule: &dyn Optimizer<Cpu<f32>>,
    [rows, columns]: [usize; 2],
    start: &[f64],
    gradients: &[Vec<f64>],
    pace: impl Fn(u64) -> Update,
) -> Vec<f64> {
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let kernels = Cpu::<f32>::new(1).unwrap();
    let mut values = kernels.floats(start.len());
    kernels.write(&mut values, 0, &narrow(start));
    let mut state: Vec<Buffer<f32>> =
        rule.state_names().iter().map(|_| kernels.floats(start.len())).collect();
    for (gradient, count) in gradients.iter().zip(1..) {
        let filled = Gradient::zeros(rows, columns);
        let numbers = narrow(gradient);
        filled.in_turn(0, |rows, block, _| {
            block.copy_from_slice(&numbers[rows.start * columns..rows.end * columns]);
        });
        let slot = Slot {
            values: &mut values,
            gradient: &filled,
            state: &mut state,
            matrices: &[[rows, columns]],
        };
        rule.update(&kernels, slot, &pace(count)).unwrap();
    }
    values.iter().map(|&x| f64::from(x)).collect()
}

#[track_caller]
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let off = (found - expected).abs();
        assert!(off <= tolerance, "{what}: {found} against {expected}, off by {off:e}");
    }
}

#[test]
fn sgd_matches_torch_with_decay_beside_the_momentum() {
    // Python, torch 2.15, for mu and nesterov as below:
    // import torch
    // x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    // o = torch.optim.SGD([x], lr=0.01, momentum=mu, nesterov=nesterov)
    // for g in ([0.1, -0.2, 0.3], [-0.4, 0.0, 0.2], [1e-9, 5.0, -3.0]):
    //     with torch.no_grad(): x.mul_(1 - 0.01 * 0.1)
    //     x.grad = torch.tensor(g, dtype=torch.float64); o.step()
    // print(x.tolist())
    let gradients = [vec![0.1, -0.2, 0.3], vec![-0.4, 0.0, 0.2], vec![1e-9, 5.0, -3.0]];
    for (momentum, nesterov, golden) in [
        (0.0, false, [1.00000099799, -2.042009996, 0.5235094965]),
        (0.9, false, [1.00189189799, -2.038591796, 0.5165821965]),
        (0.9, true, [1.0044010070809999, -2.0821372142, 0.5397821238]),
    ] {
        let (rule, start) = (sgd(momentum, nesterov), [1.0, -2.0, 0.5]);
        let pace = |count| update(count, 0.01, 0.1, false);
        // A dozen f64 operations on numbers up to 10, three times over.
        let found = in_candle(&rule, [1, 3], &start, &gradients, pace);
        close("Candle", &found, &golden, 36.0 * 10.0 * f64::EPSILON);
        let found = in_kernels(&rule, [1, 3], &start, &gradients, pace);
        close("kernels", &found, &golden, 36.0 * 10.0 * f64::from(f32::EPSILON));
    }
}

#[test]
fn sgd_without_momentum_keeps_no_state() {
    assert_eq!(Optimizer::<Candle>::state_names(&sgd(0.0, false)), [""; 0]);
    assert_eq!(Optimizer::<Candle>::state_names(&sgd(0.9, false)), ["momentum_buffer"]);
    let default = Sgd::new(&spec(OptimizerKind::Sgd));
    assert_eq!(default, sgd(0.9, false), "momentum 0.9 and no looking ahead, unless told");
}

#[test]
fn muon_matches_twenty_lines_of_numpy() {
    // Python, numpy, with P the polynomials and the gradients below:
    // def orth(d):
    //     x = (d if d.shape[0] >= d.shape[1] else d.T) / np.linalg.norm(d)
    //     for k, (a, b, c) in enumerate(P):
    //         g = x.T @ x; q = g @ g; s = np.linalg.norm(q) ** 0.25 if k == 0 else 1.0
    //         x = a / s * x + x @ (b / s**3 * g + c / s**5 * q)
    //     return x if d.shape[0] >= d.shape[1] else x.T
    // w = np.array([1.0, -2.0, 0.5, 0.25, -0.75, 1.5]).reshape(shape); b = np.zeros(shape)
    // for g in gradients:
    //     g = np.array(g).reshape(shape); b = 0.95 * b + 0.05 * g
    //     d = 0.05 * g + 0.95 * b if nesterov else b
    //     w = w * (1 - 0.02 * 0.1) - 0.02 * max(1, shape[0] / shape[1]) ** 0.5 * orth(d)
    // print(w.ravel().tolist())
    let start = [1.0, -2.0, 0.5, 0.25, -0.75, 1.5];
    let gradients = [
        vec![0.1, -0.2, 0.3, 0.5, 0.2, -0.1],
        vec![-0.4, 0.0, 0.2, 0.1, -0.3, 0.2],
        vec![1e-3, 0.5, -0.3, 0.2, 0.1, 0.4],
    ];
    #[rustfmt::skip]
    let golden = [
        ([2, 3], true, [1.0007098158352112, -1.9889224087091582, 0.46807815337604525,
                        0.2006280617275105, -0.7438182904206931, 1.468385078873233]),
        ([2, 3], false, [1.0049525384059452, -1.9843144648115942, 0.45210921035596563,
                         0.19303417401415135, -0.7493829699239326, 1.4754286926599274]),
        ([3, 2], true, [1.0128661616230592, -1.9909925630427345, 0.4827774481591683,
                        0.2016556209202891, -0.7613379040753848, 1.4657426149851045]),
        ([3, 2], false, [1.0147617158538456, -1.9853635410415698, 0.4661672614620443,
                         0.1979298338265419, -0.7477190347187578, 1.4757184660111524]),
    ];
    for (shape, nesterov, golden) in golden {
        let pace = |count| update(count, 0.02, 0.1, false);
        let (candle, kernels) = (muon::<Candle>(nesterov), muon::<Cpu<f32>>(nesterov));
        // The singular values of these matrices lie within a factor of 10. An update is 0.02 times
        // numbers below 1 that a few hundred roundings are part of, each of which the slope of the
        // polynomials there, 20 at most, multiplies.
        let tolerance = |epsilon: f64| 3.0 * 0.02 * 20.0 * 200.0 * epsilon;
        let found = in_candle(&candle, shape, &start, &gradients, pace);
        close("Candle", &found, &golden, tolerance(f64::EPSILON));
        let found = in_kernels(&kernels, shape, &start, &gradients, pace);
        close("kernels", &found, &golden, tolerance(f64::from(f32::EPSILON)));
    }
}

/// One update of a matrix of zeros at rate 1 is the negative of what the momentum was made, times
/// the factor of its shape.
fn made_orthogonal(matrix: &[f64], shape: [usize; 2]) -> [Vec<f64>; 2] {
    let (start, gradients) = (vec![0.0; matrix.len()], [matrix.to_vec()]);
    let factor = (shape[0] as f64 / shape[1] as f64).max(1.0).sqrt();
    let pace = |count| update(count, -1.0 / factor, 0.0, false);
    [
        in_candle(&muon::<Candle>(true), shape, &start, &gradients, pace),
        in_kernels(&muon::<Cpu<f32>>(true), shape, &start, &gradients, pace),
    ]
}

/// Singular values, by turning pairs of columns until all are orthogonal (Hestenes, 1958).
fn singular_values(matrix: &[f64], [rows, columns]: [usize; 2]) -> Vec<f64> {
    let (n, m) = (rows.max(columns), rows.min(columns));
    let at = |i: usize, j: usize| if rows >= columns { i * columns + j } else { j * columns + i };
    let mut turned: Vec<Vec<f64>> =
        (0..m).map(|j| (0..n).map(|i| matrix[at(i, j)]).collect()).collect();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..60 {
        let mut largest = 0f64;
        for p in 0..m {
            for q in p + 1..m {
                let (a, b, c) = (
                    dot(&turned[p], &turned[p]),
                    dot(&turned[q], &turned[q]),
                    dot(&turned[p], &turned[q]),
                );
                if c == 0.0 {
                    continue;
                }
                largest = largest.max(c.abs() / (a * b).sqrt());
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cos = 1.0 / (1.0 + t * t).sqrt();
                let (before, from_q) = turned.split_at_mut(q);
                for (x, y) in before[p].iter_mut().zip(&mut from_q[0]) {
                    (*x, *y) = (cos * (*x - t * *y), cos * (*y + t * *x));
                }
            }
        }
        if largest < 1e-13 {
            break;
        }
    }
    turned.iter().map(|column| dot(column, column).sqrt()).collect()
}

fn ends(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), &x| (low.min(x), x.max(high)))
}

#[test]
fn singular_values_of_an_update_of_a_gaussian_matrix_are_within_0_7_and_1_2() {
    let shapes = [
        [1, 1],
        [1, 7],
        [7, 1],
        [2, 2],
        [3, 5],
        [5, 3],
        [32, 32],
        [64, 64],
        [96, 96],
        [33, 70],
        [128, 48],
        [40, 130],
        [20, 600],
    ];
    for (shape, seed) in shapes.into_iter().zip(1..) {
        let matrix = gaussian(shape[0] * shape[1], seed);
        for (found, how) in made_orthogonal(&matrix, shape).iter().zip(["Candle", "kernels"]) {
            let (low, high) = ends(&singular_values(found, shape));
            assert!(0.7 <= low && high <= 1.2, "{how}, {shape:?}: {low} to {high}");
        }
    }
}

/// A matrix `[rows, columns]` with these singular values, as many as its smaller side.
fn with_singular_values(values: &[f64], [rows, columns]: [usize; 2], seed: u64) -> Vec<f64> {
    let orthonormal = |n: usize, seed: u64| -> Vec<Vec<f64>> {
        let mut all: Vec<Vec<f64>> = Vec::new();
        for numbers in gaussian(n * values.len(), seed).chunks_exact(n) {
            let mut new = numbers.to_vec();
            // Twice, so that what rounding leaves of the others goes as well.
            for _ in 0..2 {
                for old in &all {
                    let along: f64 = old.iter().zip(&new).map(|(x, y)| x * y).sum();
                    new.iter_mut().zip(old).for_each(|(x, y)| *x -= along * y);
                }
            }
            let norm = new.iter().map(|x| x * x).sum::<f64>().sqrt();
            all.push(new.into_iter().map(|x| x / norm).collect());
        }
        all
    };
    let (left, right) = (orthonormal(rows, seed), orthonormal(columns, seed + 1));
    let element = |at: usize| {
        let terms = values.iter().zip(left.iter().zip(&right));
        terms.map(|(s, (u, v))| s * u[at / columns] * v[at % columns]).sum()
    };
    (0..rows * columns).map(element).collect()
}

#[test]
fn an_ill_conditioned_matrix_comes_out_orthogonal_and_beyond_reach_nothing_grows() {
    for shape in [[48, 48], [90, 40], [40, 90]] {
        let count = shape[0].min(shape[1]);
        let spread = |condition: f64| -> Vec<f64> {
            let share = |i: usize| i as f64 / (count - 1) as f64;
            (0..count).map(|i| condition.powf(-share(i))).collect()
        };
        for (condition, least) in [(1e2, 0.7), (1e4, 0.7), (2e4, 0.7), (1e6, 0.0), (1e9, 0.0)] {
            let matrix = with_singular_values(&spread(condition), shape, 3);
            for (found, how) in made_orthogonal(&matrix, shape).iter().zip(["Candle", "kernels"]) {
                let (low, high) = ends(&singular_values(found, shape));
                assert!(
                    least <= low && high <= 1.2,
                    "{how}, {shape:?} of condition {condition:e}: {low} to {high}"
                );
            }
        }
        // Of rank one: one singular value of 1, and of the others what rounding left.
        let mut alone = vec![0.0; count];
        alone[0] = 3.0;
        let matrix = with_singular_values(&alone, shape, 3);
        for found in made_orthogonal(&matrix, shape) {
            let mut values = singular_values(&found, shape);
            values.sort_by(f64::total_cmp);
            let (largest, others) = values.split_last().unwrap();
            // f32's rounding of the matrix, times the steepest slope there is.
            assert!(
                (0.7..=1.2).contains(largest) && others.iter().all(|x| *x < 0.05),
                "{values:?}"
            );
        }
    }
}

/// What the polynomials promise of a single number, also where each step is off by a thousandth.
#[test]
fn the_polynomials_bring_every_number_from_the_smallest_on_near_to_one() {
    let rng = CounterRng::new(1);
    for i in 0..200_000u64 {
        let start = muon::SMALLEST.powf(i as f64 / 200_000.0);
        let apply = |off: &dyn Fn(u64) -> f64| {
            muon::POLYNOMIALS.iter().zip(0..).fold(start, |x, (&[a, b, c], step)| {
                let x = x * (1.0 + off(step));
                x * (a + x * x * (b + x * x * c))
            })
        };
        let (exact, rounded) =
            (apply(&|_| 0.0), apply(&|step| 1e-3 * (2.0 * rng.nested(i).unit(step) - 1.0)));
        assert!((0.76..=1.16).contains(&exact), "{start}: {exact}");
        assert!((0.75..=1.17).contains(&rounded), "{start}: {rounded}");
        let below = start * 1e-4;
        let grown =
            muon::POLYNOMIALS.iter().fold(below, |x, &[a, b, c]| x * (a + x * x * (b + x * x * c)));
        assert!(grown > below && grown < 1.16);
    }
}

#[test]
fn a_zero_gradient_leaves_only_decay_and_no_number_that_is_none() {
    for shape in [[1, 1], [1, 5], [5, 1], [3, 4], [4, 3]] {
        let size = shape[0] * shape[1];
        let start: Vec<f64> = (0..size).map(|i| 1.0 + i as f64).collect();
        for zero in [0.0, -0.0, 1e-300] {
            let gradients = [vec![zero; size], vec![zero; size]];
            let pace = |count| update(count, 0.5, 0.5, false);
            let expected: Vec<f64> = start.iter().map(|x| x * 0.75 * 0.75).collect();
            for nesterov in [true, false] {
                let candle = muon::<Candle>(nesterov);
                let kernels = muon::<Cpu<f32>>(nesterov);
                assert_eq!(in_candle(&candle, shape, &start, &gradients, pace), expected);
                assert_eq!(in_kernels(&kernels, shape, &start, &gradients, pace), expected);
            }
        }
        // What is not finite shows, and nothing hangs.
        let mut bad = gaussian(size, 1);
        bad[0] = f64::NAN;
        let pace = |count| update(count, 0.5, 0.0, false);
        for found in [
            in_candle(&muon::<Candle>(true), shape, &start, &[bad.clone()], pace),
            in_kernels(&muon::<Cpu<f32>>(true), shape, &start, &[bad], pace),
        ] {
            assert!(found.iter().any(|x| x.is_nan()), "{shape:?}");
        }
    }
}

/// θ ← θ − lr·(u + λ·1(u·θ ≥ 0)·θ) (Chen et al., 2025), whatever the rule that makes u.
#[test]
fn cautious_decay_is_decay_where_update_and_parameter_have_one_sign() {
    let shape = [5, 4];
    let (start, gradient) = (gaussian(20, 1), gaussian(20, 2));
    let train = TrainSpec::default();
    let candle: [Box<dyn Optimizer<Candle>>; 3] =
        [Box::new(AdamW::new(&train)), Box::new(muon::<Candle>(true)), Box::new(sgd(0.9, true))];
    let kernels: [Box<dyn Optimizer<Cpu<f32>>>; 3] =
        [Box::new(AdamW::new(&train)), Box::new(muon::<Cpu<f32>>(true)), Box::new(sgd(0.9, true))];
    for (candle, kernels) in candle.iter().zip(&kernels) {
        let gradients = [gradient.clone()];
        let moved = |decay, cautious| {
            let pace = |count| update(count, 0.125, decay, cautious);
            in_candle(candle.as_ref(), shape, &start, &gradients, pace)
        };
        let (plain, cautious) = (moved(0.0, false), moved(2.0, true));
        let mut spared = 0;
        for i in 0..20 {
            let change = start[i] - plain[i];
            let decays = change * start[i] >= 0.0;
            spared += usize::from(!decays);
            let expected = plain[i] - if decays { 0.25 * start[i] } else { 0.0 };
            assert!((cautious[i] - expected).abs() < 1e-14, "{i}");
        }
        assert!((3..18).contains(&spared), "some of each: {spared}");
        let pace = |count| update(count, 0.125, 2.0, true);
        let found = in_kernels(kernels.as_ref(), shape, &start, &gradients, pace);
        close("kernels", &found, &cautious, 1e-5);
    }
}

/// Which rule moves what, at which pace: a whole model's list.
#[test]
fn muon_moves_the_matrices_of_the_layers_and_adamw_the_rest() {
    let model = ModelConfig::small();
    let optimizers = |name| {
        let train = TrainSpec { optimizer: spec(name), ..TrainSpec::default() };
        Optimizers::<Candle>::of(&train, &model).unwrap()
    };
    let muon = optimizers(OptimizerKind::Muon);
    let adam = ["exp_avg", "exp_avg_sq"];
    for info in model.parameter_list() {
        let own = muon.state_names(info.optimizer);
        match info.name.contains("proj") {
            true => assert_eq!(own, ["momentum_buffer"], "{}", info.name),
            false => assert_eq!(own, adam, "{}", info.name),
        }
        assert_eq!(optimizers(OptimizerKind::Adamw).state_names(info.optimizer), adam);
        let sgd = optimizers(OptimizerKind::Sgd);
        assert_eq!(sgd.state_names(info.optimizer), ["momentum_buffer"]);
    }
}

#[test]
fn the_cost_of_an_optimizer_by_hand() {
    // Of each of two layers, [out, in]: q 16 × 8, k and v 8 × 8, o 8 × 16, gate and up 12 × 8, down
    // 8 × 12: 128 + 2·64 + 128 + 3·96 = 672 numbers. Embedding and head 17·8 = 136 each, five gains
    // of 8.
    let model = ModelConfig::small();
    let (matrices, others) = (2 * 672, 2 * 136 + 5 * 8);
    assert_eq!(model.parameters(), matrices + others);
    let cost = |name, momentum| {
        let optimizer = OptimizerSpec { momentum, ..spec(name) };
        optimizer_cost(&TrainSpec { optimizer, ..TrainSpec::default() }, &model).unwrap()
    };
    let adamw = cost(OptimizerKind::Adamw, None);
    assert_eq!((adamw.bytes, adamw.flops), (8 * (matrices + others), 0.0));
    let muon = cost(OptimizerKind::Muon, None);
    assert_eq!(muon.bytes, 4 * matrices + 8 * others);
    // n m² + m³ + 2 n m² with m = 8 and n of 16, 8, 8, 16, 12, 12, 12: 64·(3·84 + 7·8).
    assert_eq!(muon.flops, 7.0 * 2.0 * 64.0 * (3.0 * 84.0 + 7.0 * 8.0));
    assert_eq!(cost(OptimizerKind::Sgd, None).bytes, 4 * (matrices + others));
    assert_eq!(cost(OptimizerKind::Sgd, Some(0.0)).bytes, 0);
    let tied = ModelConfig { tied: true, ..model };
    let decay = WeightDecay { head: Some(0.1), ..WeightDecay::default() };
    let train = TrainSpec { weight_decay: decay, ..TrainSpec::default() };
    assert!(optimizer_cost(&train, &tied).is_err());
}

/// Muon in Candle's f32 is what it is in f64, and so are its states.
#[test]
fn what_a_step_leaves_is_told_of_the_group_that_decays_most() {
    let decays = WeightDecay { rate: 0.5, embedding: Some(30.0), ..WeightDecay::default() };
    let train = TrainSpec { lr: 0.1.into(), weight_decay: decays, ..TrainSpec::default() };
    let untied = ModelConfig::small();
    assert_eq!(least_kept(&train, &untied).unwrap(), 1.0 - 0.1 * 30.0);
    let muon = OptimizerSpec { lr: Some(4.0), ..spec(OptimizerKind::Muon) };
    let train = TrainSpec { optimizer: muon, weight_decay: 0.5.into(), ..train };
    // A quotient and a product of rates.
    assert!((least_kept(&train, &untied).unwrap() + 1.0).abs() < 4.0 * f64::EPSILON);
    let none = TrainSpec { weight_decay: 0.0.into(), ..train };
    assert_eq!(least_kept(&none, &untied).unwrap(), 1.0);
}

#[test]
fn muon_in_f32_is_muon_in_f64_but_for_rounding() {
    let shape = [24, 40];
    let matrix = gaussian(24 * 40, 5);
    let orthogonal = |dtype: DType| -> Vec<f64> {
        let tensor = |values: &[f64]| {
            let tensor = Tensor::from_slice(values, (24, 40), &Device::Cpu).unwrap();
            tensor.to_dtype(dtype).unwrap()
        };
        let (mut values, mut state) = (tensor(&[0.0; 960]), [tensor(&[0.0; 960])]);
        let gradient = tensor(&matrix);
        let slot = Slot {
            values: &mut values,
            gradient: &gradient,
            state: &mut state,
            matrices: &[shape],
        };
        muon::<Candle>(true).update(&Candle, slot, &update(1, 1.0, 0.0, false)).unwrap();
        values.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    // The singular values lie within a factor of 10; see above.
    let tolerance = 20.0 * 200.0 * f64::from(f32::EPSILON);
    close("f32", &orthogonal(DType::F32), &orthogonal(DType::F64), tolerance);
}
