//! AdamW, the sums that go before it, and averages of parameters.

use cuvee_kernels::{
    AdamWStep, Backend, Buffer, Cpu, accumulate, adamw, move_average, sum_of_squares,
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
        let sum =
            Cpu::<f32>::new(threads).unwrap().reduce(&mut each.iter_mut().collect::<Vec<_>>());
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
    };
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
    let mut expected = values.to_vec();
    adamw(&mut expected, &gradient, &mut first, &mut second, &step);
    let (mut m, mut v) = (Buffer::zeros(n), Buffer::zeros(n));
    let gradient = filled(n, 1, &gradient);
    Cpu::<f32>::new(2).unwrap().adamw(&mut values, &gradient, &mut m, &mut v, &step);
    assert_eq!((values.to_vec(), m.to_vec(), v.to_vec()), (expected, first, second));
}
