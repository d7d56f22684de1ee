//! AdamW, gradient descent, averages, and parameters rounded for products.

use cuvee_kernels::{AdamWStep, Backend, ElementType, SgdStep};

use crate::tools::{
    Case, ELEMENTS, U32, activations, all_rounded, floats, found, gradient, matrix, random, wide,
};

const STEPS: usize = 3;

struct AdamW {
    n: usize,
    step: AdamWStep,
}

impl Case<3> for AdamW {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 3] {
        let n = self.n;
        let mut values = floats(k, &random(n, 1));
        let (mut first, mut second) = (k.floats(n), k.floats(n));
        for t in 0..STEPS {
            let gradient = gradient(k, 1, n, &random(n, 10 + t as u64));
            k.adamw(&mut values, &gradient, &mut first, &mut second, &self.step);
        }
        [values, first, second].map(|floats| k.read(&floats, 0..n))
    }
}

#[test]
fn adamw_is_that_of_the_processor() {
    for (n, cautious) in [(1, false), (53, false), (1030, true), (64, true)] {
        let (lr, beta1, beta2, eps, keep, scale) =
            (1e-2f32, 0.9f32, 0.95f32, 1e-8f32, 0.97f32, 0.75f32);
        let step = AdamWStep {
            gradient_scale: scale,
            lr,
            beta1,
            beta2,
            eps,
            first_correction: 1.5,
            second_correction: 1.25,
            decay_factor: keep,
            cautious,
        };
        let [values, first, second] = found(&AdamW { n, step }, ElementType::F32);
        let wide64 = |x: f32| f64::from(x);
        let (mut p, mut m, mut v) = (wide(&random(n, 1)), vec![0f64; n], vec![0f64; n]);
        // Where a sign decides and the number is within its error of 0, either is right.
        let mut near = vec![false; n];
        for t in 0..STEPS {
            for (i, g) in wide(&random(n, 10 + t as u64)).into_iter().enumerate() {
                let g = wide64(scale) * g;
                m[i] = wide64(beta1) * m[i] + (1.0 - wide64(beta1)) * g;
                v[i] = wide64(beta2) * v[i] + (1.0 - wide64(beta2)) * g * g;
                near[i] |= m[i].abs() < 1e-5 || p[i].abs() < 1e-5;
                let apart = cautious && m[i] * p[i] < 0.0;
                let kept = p[i] * if apart { 1.0 } else { wide64(keep) };
                p[i] = kept - wide64(lr) * (m[i] * 1.5) / ((v[i] * 1.25).sqrt() + wide64(eps));
            }
        }
        // A step rounds a dozen times; 1 − β in f32 is exact to 2⁻²⁴ of 1, which is 2⁻²⁴ / 0.05 of
        // itself: 32 roundings a step of moments of at most 1. Of parameters of at most 2, those
        // and the change's: m is at most √(v / (1 − β₂)).
        let moments = STEPS as f64 * 32.0 * U32;
        let what = |part: &str| format!("{part} of {n}, cautious {cautious}");
        first.close(&what("first moment"), &m, |_| moments);
        second.close(&what("second moment"), &v, |_| moments);
        values.close(&what("parameter"), &p, |i| {
            let of_sign = if cautious && near[i] { 1e-4 } else { 0.0 };
            STEPS as f64 * 8.0 * U32 + 5.0 * f64::from(lr) * moments * 4.0 + of_sign
        });
    }
}

struct Sgd {
    n: usize,
    step: SgdStep,
}

impl Case<2> for Sgd {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
        let n = self.n;
        let (mut values, mut momentum) = (floats(k, &random(n, 1)), k.floats(n));
        for t in 0..STEPS {
            let gradient = gradient(k, 1, n, &random(n, 10 + t as u64));
            let momentum = (self.step.momentum > 0.0).then_some(&mut momentum);
            k.sgd(&mut values, &gradient, momentum, &self.step);
        }
        [values, momentum].map(|floats| k.read(&floats, 0..n))
    }
}

#[test]
fn gradient_descent_is_that_of_the_processor() {
    for (n, momentum, nesterov, cautious) in [
        (53, 0.0, false, false),
        (53, 0.875, false, false),
        (1030, 0.875, true, false),
        (64, 0.0, false, true),
        (65, 0.875, true, true),
    ] {
        let step = SgdStep {
            gradient_scale: 0.75,
            lr: 0.125,
            momentum,
            nesterov,
            decay_factor: 0.96875,
            cautious,
        };
        let [values, moments] = found(&Sgd { n, step }, ElementType::F32);
        let (mut p, mut b) = (wide(&random(n, 1)), vec![0f64; n]);
        let mu = f64::from(momentum);
        let mut near = vec![false; n];
        for t in 0..STEPS {
            for (i, g) in wide(&random(n, 10 + t as u64)).into_iter().enumerate() {
                let g = 0.75 * g;
                let mut change = g;
                if mu > 0.0 {
                    b[i] = mu * b[i] + g;
                    change = if nesterov { g + mu * b[i] } else { b[i] };
                }
                near[i] |= change.abs() < 1e-5 || p[i].abs() < 1e-5;
                let apart = cautious && change * p[i] < 0.0;
                p[i] = p[i] * if apart { 1.0 } else { 0.96875 } - 0.125 * change;
            }
        }
        // A step rounds a dozen numbers of at most 7, the momentum of gradients below 1.
        let bound = STEPS as f64 * 12.0 * 7.0 * U32;
        let what = |part: &str| format!("{part} of {n}, {step:?}");
        moments.close(&what("momentum"), &b, |_| bound);
        values.close(&what("parameter"), &p, |i| {
            bound + if cautious && near[i] { 1e-4 } else { 0.0 }
        });
    }
}

struct Average(usize);

impl Case<1> for Average {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 1] {
        let n = self.0;
        let (mut average, values) = (floats(k, &random(n, 1)), floats(k, &random(n, 2)));
        k.move_average(&mut average, &values, 0.375);
        [k.read(&average, 0..n)]
    }
}

#[test]
fn an_average_moves_as_on_the_processor() {
    for n in [1, 7, 64, 1031] {
        let [average] = found(&Average(n), ElementType::F32);
        let (from, to) = (wide(&random(n, 1)), wide(&random(n, 2)));
        let expected: Vec<f64> = from.iter().zip(&to).map(|(a, b)| a + 0.375 * (b - a)).collect();
        // A difference of at most 2, its share, and the sum.
        average.close(&format!("the average of {n}"), &expected, |_| 6.0 * U32);
    }
}

struct Pack {
    o: usize,
    i: usize,
}

impl Case<1> for Pack {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 1] {
        let Self { o, i } = *self;
        let w = matrix(k, o, i, &random(o * i, 1));
        let mut one = vec![0.0; o * o];
        (0..o).for_each(|row| one[row * o + row] = 1.0);
        let mut rows = k.floats(o * i);
        k.linear_backward_floats(o, &activations(k, o, o, &one, 0), &w, &mut rows);
        [k.read(&rows, 0..o * i)]
    }
}

#[test]
fn parameters_are_rounded_for_products() {
    for (o, i) in [(1, 1), (3, 7), (5, 8), (4, 12), (2, 2052)] {
        for element in ELEMENTS {
            let [rows] = found(&Pack { o, i }, element);
            let expected = all_rounded(element, &random(o * i, 1));
            rows.exactly(&format!("{o}×{i} in {element:?}"), &expected);
        }
    }
}
