//! AdamW, SGD and Muon, the sums that go before them, and averages of parameters.

use cuvee_kernels::{
    AdamWStep, Backend, Buffer, Cpu, MuonStep, MuonWorkspace, SgdStep, accumulate, adamw,
    move_average, orthogonalize, sgd, sgd_with_momentum, sum_of_squares,
};

use crate::tools::{U32, close, filled, random, wide};

#[test]
fn adamw_matches_the_formula_in_f64_over_several_steps() {
    let n = 53;
    let (lr, beta1, beta2, decay, scale) = (1e-2, 0.9, 0.95, 0.1, 0.7);
    for (keep, eps) in [(1.0 - lr * decay, 1e-8), (1.0, 1e-8), (1.0, 0.05)] {
        let mut parameters = random(n, 1);
        let (mut first, mut second) = (vec![0f32; n], vec![0f32; n]);
        let (mut p, mut m, mut v) = (wide(&parameters), vec![0f64; n], vec![0f64; n]);
        for t in 1..=6 {
            // The last elements keep a gradient of zero: 0 / (√0 + ε) is 0.
            let gradient: Vec<f32> = random(n, 10 + t as u64)
                .iter()
                .enumerate()
                .map(|(i, g)| if i >= 50 { 0.0 } else { *g })
                .collect();
            let (c1, c2) = (1.0 / (1.0 - f64::powi(beta1, t)), 1.0 / (1.0 - f64::powi(beta2, t)));
            let step = AdamWStep {
                gradient_scale: scale as f32,
                lr: lr as f32,
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                eps: eps as f32,
                first_correction: c1 as f32,
                second_correction: c2 as f32,
                decay_factor: keep as f32,
                cautious: false,
            };
            adamw(&mut parameters, &gradient, &mut first, &mut second, &step);
            for i in 0..n {
                let g = scale * f64::from(gradient[i]);
                m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                p[i] = keep * p[i] - lr * (m[i] * c1) / ((v[i] * c2).sqrt() + eps);
            }
            // A step's constants and operations round a dozen times; 1 − β in f32 has β's rounding,
            // 2⁻²⁴ of 1, which is 2⁻²⁴ / 0.05 of itself. So moments are off by 32 roundings of
            // their terms a step (at most 1 each), parameters by those of themselves and of a
            // change of at most lr · c₁ · 1/√(c₂ (1 − β₂)) < 5 lr: m is at most √(v / (1 − β₂)).
            let steps = f64::from(t) * 32.0 * U32;
            close("first moment", &wide(&first), &m, |_| steps);
            close("second moment", &wide(&second), &v, |_| steps);
            close("parameter", &wide(&parameters), &p, |_| {
                f64::from(t) * 4.0 * U32 + 5.0 * lr * steps * 4.0
            });
        }
        let kept: Vec<f64> =
            random(n, 1)[50..].iter().map(|&x| f64::from(x) * f64::powi(keep, 6)).collect();
        close("without a gradient only decay moves it", &wide(&parameters)[50..], &kept, |_| {
            12.0 * U32
        });
        assert!(first[50..] == [0.0; 3] && second[50..] == [0.0; 3]);
    }
}

#[test]
fn sums_of_squares_are_exact_to_f64_and_hide_nothing() {
    for n in [0, 1, 7, 8, 1003] {
        // Their squares are beyond f32.
        let values: Vec<f32> = random(n, 2).iter().map(|x| x * 1e20).collect();
        let expected: f64 = wide(&values).iter().map(|x| x * x).sum();
        // Squares of f32 are exact in f64; n additions.
        close("Σ x²", &[sum_of_squares(&values)], &[expected], |_| {
            n as f64 * f64::EPSILON * expected
        });
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 8, 18] {
            let mut values = random(19, 3);
            values[place] = bad;
            assert!(!sum_of_squares(&values).is_finite(), "{bad} at {place}");
        }
    }
}

#[test]
fn accumulate_adds_element_by_element() {
    let (mut sum, other) = (random(37, 4), random(37, 5));
    let expected: Vec<f32> = sum.iter().zip(&other).map(|(a, b)| a + b).collect();
    accumulate(&mut sum, &other);
    assert_eq!(sum, expected);
}

#[test]
fn an_average_is_the_mean_of_what_it_was_moved_to() {
    let n = (1 << 15) + 77;
    let values: Vec<Vec<f32>> = (0..5).map(|seed| random(n, 30 + seed)).collect();
    // Equal shares, and those that forget by 0.9 from the first value on.
    let equal = |count: usize| 1.0 / (count as f64 + 1.0);
    let forgetting = |count: usize| 0.1 / (1.0 - 0.9f64.powi(count as i32 + 1));
    for (share, weight) in [
        (&equal as &dyn Fn(usize) -> f64, &(|_| 1.0) as &dyn Fn(usize) -> f64),
        (&forgetting, &|count| 0.9f64.powi(4 - count as i32)),
    ] {
        let kernels = Cpu::<f32>::new(2).unwrap();
        let (mut average, mut current) = (kernels.floats(n), kernels.floats(n));
        let mut alone = vec![0.0; n];
        for (count, values) in values.iter().enumerate() {
            current.copy_from_slice(values);
            kernels.move_average(&mut average, &current, share(count) as f32);
            move_average(&mut alone, values, share(count) as f32);
        }
        assert_eq!(average.to_vec(), alone, "in chunks as at once");
        let sum: f64 = (0..5).map(weight).sum();
        let mean = |i: usize| -> f64 {
            (0..5).map(|count| weight(count) * f64::from(values[count][i])).sum::<f64>() / sum
        };
        let expected: Vec<f64> = (0..n).map(mean).collect();
        // Five times three roundings, of numbers of at most 2.
        close("the average", &wide(&average), &expected, |_| 30.0 * U32);
    }
}

/// Three workers' gradients, long enough for several chunks of an update and part of one.
fn gradients(n: usize) -> Vec<Buffer<f32>> {
    let gradient = |seed| {
        let mut gradient = Buffer::zeros(n);
        gradient.copy_from_slice(&random(n, seed));
        gradient
    };
    (6..9).map(gradient).collect()
}

#[test]
fn gradients_add_up_in_order_whatever_the_threads() {
    let n = (1 << 15) + 77;
    let each = gradients(n);
    let expected: Vec<f32> = (0..n).map(|i| (each[0][i] + each[1][i]) + each[2][i]).collect();
    let squares: f64 = wide(&expected).iter().map(|x| x * x).sum();
    let reduce = |threads: usize, columns: usize| {
        let of = |values: &Buffer<f32>| filled(n / columns, columns, values);
        let mut each: Vec<_> = gradients(n).iter().map(of).collect();
        let kernels = Cpu::<f32>::new(threads).unwrap();
        let sum = kernels.reduce(&mut [each.iter_mut().collect()]);
        (sum, each[0].read(0..n))
    };
    let (sum, first) = reduce(1, n);
    assert_eq!(first, expected);
    close("Σ g²", &[sum], &[squares], |_| n as f64 * f64::EPSILON * squares);
    assert_eq!(reduce(3, n), (sum, first.clone()));
    // Whatever the blocks that it is held in.
    assert_eq!(reduce(2, 1), (sum, first));
    assert_eq!(Cpu::<f32>::new(1).unwrap().reduce(&mut []), 0.0);
}

#[test]
fn an_update_in_chunks_is_the_update() {
    let n = (1 << 15) + 77;
    let [gradient, mut values, _] = <[Buffer<f32>; 3]>::try_from(gradients(n)).ok().unwrap();
    let step = AdamWStep {
        gradient_scale: 1.0,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        first_correction: 10.0,
        second_correction: 100.0,
        decay_factor: 0.99,
        cautious: false,
    };
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
    let mut expected = values.to_vec();
    adamw(&mut expected, &gradient, &mut first, &mut second, &step);
    let (mut m, mut v) = (Buffer::zeros(n), Buffer::zeros(n));
    let gradient = filled(n, 1, &gradient);
    Cpu::<f32>::new(2).unwrap().adamw(&mut values, &gradient, &mut m, &mut v, &step);
    assert_eq!((values.to_vec(), m.to_vec(), v.to_vec()), (expected, first, second));
}

/// Decays where θ and the update have one sign, or either is 0, and nowhere else.
#[test]
fn cautious_decay_leaves_alone_what_moves_away_from_zero() {
    let (theta, direction) =
        ([2f32, 2.0, -2.0, -2.0, 0.0, 2.0], [0.5f32, -0.5, 0.5, -0.5, 0.5, 0.0]);
    let keeps = [0.9f32, 1.0, 1.0, 0.9, 0.9, 0.9];
    let step = SgdStep {
        gradient_scale: 1.0,
        lr: 0.25,
        momentum: 0.0,
        nesterov: false,
        decay_factor: 0.9,
        cautious: true,
    };
    let expected: Vec<f32> = (0..6).map(|i| theta[i] * keeps[i] - 0.25 * direction[i]).collect();
    let (mut plain, mut with_momentum) = (theta, theta);
    sgd(&mut plain, &direction, &step);
    sgd_with_momentum(&mut with_momentum, &direction, &mut [0.0; 6], &step);
    assert_eq!((plain.to_vec(), with_momentum.to_vec()), (expected.clone(), expected));
    // AdamW's first update is the gradient's sign, nearly.
    let step = AdamWStep {
        gradient_scale: 1.0,
        lr: 0.25,
        beta1: 0.5,
        beta2: 0.5,
        eps: 1e-8,
        first_correction: 2.0,
        second_correction: 2.0,
        decay_factor: 0.9,
        cautious: true,
    };
    let mut adam = theta;
    adamw(&mut adam, &direction, &mut [0.0; 6], &mut [0.0; 6], &step);
    let sign = |x: f32| if x == 0.0 { 0.0 } else { f64::from(x.signum()) };
    let expected: Vec<f64> = (0..6)
        .map(|i| f64::from(theta[i]) * f64::from(keeps[i]) - 0.25 * sign(direction[i]))
        .collect();
    // A handful of roundings of numbers up to 2, and ε beside a root of 0.5.
    close("AdamW", &wide(&adam), &expected, |_| 8.0 * 2.0 * U32 + 1e-8);
}

#[test]
fn sgd_matches_the_formula_in_f64_over_several_steps() {
    let n = 53;
    for (mu, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let (lr, keep, scale) = (0.1, 0.97, 0.7);
        let step = SgdStep {
            gradient_scale: scale as f32,
            lr: lr as f32,
            momentum: mu as f32,
            nesterov,
            decay_factor: keep as f32,
            cautious: false,
        };
        let mut parameters = random(n, 1);
        let (mut p, mut b) = (wide(&parameters), vec![0f64; n]);
        let mut momentum = vec![0f32; n];
        for t in 1..=6u64 {
            let gradient = random(n, 10 + t);
            if mu == 0.0 {
                sgd(&mut parameters, &gradient, &step);
            } else {
                sgd_with_momentum(&mut parameters, &gradient, &mut momentum, &step);
            }
            for i in 0..n {
                let g = scale * f64::from(gradient[i]);
                b[i] = mu * b[i] + g;
                p[i] = keep * p[i] - lr * if nesterov { g + mu * b[i] } else { b[i] };
            }
            // A step rounds a dozen numbers of at most 7 (the momentum of gradients below 1).
            close("parameter", &wide(&parameters), &p, |_| t as f64 * 12.0 * 7.0 * U32);
        }
    }
}

/// The momentum of a block is a whole tensor's, chunk by chunk.
#[test]
fn an_update_by_sgd_in_chunks_is_the_update() {
    let n = (1 << 15) + 77;
    let [gradient, mut values, _] = <[Buffer<f32>; 3]>::try_from(gradients(n)).ok().unwrap();
    let step = SgdStep {
        gradient_scale: 0.5,
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        decay_factor: 0.99,
        cautious: false,
    };
    let (mut expected, mut momentum) = (values.to_vec(), vec![0.0; n]);
    sgd_with_momentum(&mut expected, &gradient, &mut momentum, &step);
    let (cpu, mut b) = (Cpu::<f32>::new(2).unwrap(), Buffer::zeros(n));
    let filled = filled(n, 1, &gradient);
    cpu.sgd(&mut values, &filled, Some(&mut b), &step);
    assert_eq!((values.to_vec(), b.to_vec()), (expected.clone(), momentum));
    sgd(&mut expected, &gradient, &step);
    cpu.sgd(&mut values, &filled, None, &step);
    assert_eq!(values.to_vec(), expected);
}

/// Polynomials as Jordan et al. (2024) published them.
const QUINTICS: [[f64; 3]; 3] = [[3.4445, -4.775, 2.0315]; 3];

/// What [`orthogonalize`] promises, in f64.
fn orthogonal(matrix: &[f64], [rows, columns]: [usize; 2], polynomials: &[[f64; 3]]) -> Vec<f64> {
    let product = |a: &[f64], b: &[f64], n: usize, k: usize, m: usize| -> Vec<f64> {
        (0..n * m).map(|at| (0..k).map(|l| a[at / m * k + l] * b[l * m + at % m]).sum()).collect()
    };
    let transposed = |a: &[f64], n: usize, m: usize| -> Vec<f64> {
        (0..n * m).map(|at| a[at % n * m + at / n]).collect()
    };
    let norm = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>().sqrt();
    let wide = columns > rows;
    let (n, m) = (rows.max(columns), rows.min(columns));
    let mut x = if wide { transposed(matrix, rows, columns) } else { matrix.to_vec() };
    let size = norm(&x);
    x.iter_mut().for_each(|x| *x /= size);
    for (index, [a, b, c]) in polynomials.iter().enumerate() {
        let gram = product(&transposed(&x, n, m), &x, m, n, m);
        let square = product(&gram, &gram, m, m, m);
        let s = if index == 0 { norm(&square).powf(0.25) } else { 1.0 };
        let mut polynomial: Vec<f64> =
            gram.iter().zip(&square).map(|(g, q)| b / s.powi(3) * g + c / s.powi(5) * q).collect();
        (0..m).for_each(|i| polynomial[i * m + i] += a / s);
        x = product(&x, &polynomial, n, m, m);
    }
    if wide { transposed(&x, n, m) } else { x }
}

/// Panels, strips and passes that are whole and that are not; one row, one column, one number.
#[test]
fn an_orthogonalized_matrix_is_that_of_f64_whatever_its_shape() {
    let mut workspace = MuonWorkspace::new(&[[40, 24]]);
    let shapes =
        [[1, 1], [1, 9], [9, 1], [2, 2], [5, 3], [3, 5], [32, 32], [33, 70], [131, 70], [9, 530]];
    for shape in shapes {
        let given = random(shape[0] * shape[1], 3);
        let mut found = given.clone();
        orthogonalize(&mut found, shape, &QUINTICS, &mut workspace);
        let expected = orthogonal(&wide(&given), shape, &QUINTICS);
        // Each product rounds a sum of k terms k times at most, as each of the three polynomials
        // takes three, and each polynomial multiplies an error by 3.4445 at most: 3 · 530 · U32 ·
        // 3.4445³ is 4e-3. Rounding errors differ in sign: the root of it is a bound still.
        let terms = (3.0 * shape[0].max(shape[1]) as f64).sqrt();
        let tolerance = 4.0 * terms * U32 * 3.4445f64.powi(3);
        close(&format!("{shape:?}"), &wide(&found), &expected, |_| tolerance);
    }
}

#[test]
fn a_matrix_of_zeros_stays_so_and_what_is_not_finite_shows() {
    let mut workspace = MuonWorkspace::new(&[]);
    for shape in [[4, 3], [3, 4], [1, 1]] {
        for zero in [0.0, -0.0, 1e-42] {
            let mut matrix = vec![zero; shape[0] * shape[1]];
            orthogonalize(&mut matrix, shape, &QUINTICS, &mut workspace);
            assert!(matrix.iter().all(|&x| x == 0.0), "{zero} of {shape:?}: {matrix:?}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut matrix = random(shape[0] * shape[1], 5);
            matrix[0] = bad;
            orthogonalize(&mut matrix, shape, &QUINTICS, &mut workspace);
            assert!(matrix.iter().any(|x| x.is_nan()), "{bad} of {shape:?}: {matrix:?}");
        }
        // Sizes at the ends of f32 are as good as any.
        for size in [1e-37, 1e37] {
            let mut matrix: Vec<f32> = random(shape[0] * shape[1], 5);
            let mut other = matrix.clone();
            matrix.iter_mut().for_each(|x| *x *= size);
            orthogonalize(&mut matrix, shape, &QUINTICS, &mut workspace);
            orthogonalize(&mut other, shape, &QUINTICS, &mut workspace);
            close("size", &wide(&matrix), &wide(&other), |_| 1e-4);
        }
    }
    orthogonalize(&mut [], [0, 7], &QUINTICS, &mut workspace);
}

/// The second of two matrices that lie one below the other in one gradient, and in one block.
#[test]
fn muon_moves_one_matrix_of_a_block_and_leaves_the_others() {
    let (above, rows, columns) = (5, 7, 4);
    let (size, at) = (rows * columns, above * columns);
    let all = (above + rows) * columns;
    let (gradient, start) = (random(all, 1), random(all, 2));
    for (nesterov, cautious) in [(true, false), (false, true)] {
        let step = MuonStep {
            gradient_scale: 0.5,
            momentum: 0.75,
            nesterov,
            lr: 0.125,
            decay_factor: 0.875,
            cautious,
            polynomials: &QUINTICS,
        };
        let cpu = Cpu::<f32>::new(1).unwrap();
        let (mut values, mut momentum) = (cpu.floats(all), cpu.floats(all));
        values.copy_from_slice(&start);
        momentum[at..].copy_from_slice(&random(size, 3));
        let filled = filled(above + rows, columns, &gradient);
        let mut workspace = cpu.muon_workspace(&[[rows, columns]]);
        let shape = [rows, columns];
        cpu.muon(&mut values, &filled, &mut momentum, at, shape, &step, &mut workspace);
        assert_eq!((&values[..at], &momentum[..at]), (&start[..at], &vec![0.0; at][..]));
        let (mut b, mut direction) = (wide(&random(size, 3)), vec![0.0; size]);
        for i in 0..size {
            let g = 0.25 * 0.5 * f64::from(gradient[at + i]);
            b[i] = 0.75 * b[i] + g;
            direction[i] = if nesterov { g + 0.75 * b[i] } else { b[i] };
        }
        close("momentum", &wide(&momentum[at..]), &b, |_| 4.0 * U32);
        let change = orthogonal(&direction, shape, &QUINTICS);
        let expected: Vec<f64> = (0..size)
            .map(|i| {
                let theta = f64::from(start[at + i]);
                let apart = cautious && theta * change[i] < 0.0;
                theta * if apart { 1.0 } else { 0.875 } - 0.125 * change[i]
            })
            .collect();
        // As above, and times the rate.
        close("parameters", &wide(&values[at..]), &expected, |_| 1e-4);
    }
}
