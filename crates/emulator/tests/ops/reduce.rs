//! Sums of gradients, and of their squares.

use cuvee_kernels::{Backend, ElementType};

use crate::tools::{Case, Found, U32, found, gradient, random, wide};

struct Reduce<'a> {
    /// Of each parameter its elements, and how many gradients of it there are.
    parameters: &'a [(usize, usize)],
    /// What one of the numbers is instead.
    bad: Option<(usize, f32)>,
}

impl Reduce<'_> {
    fn values(&self, parameter: usize, of: usize) -> Vec<f32> {
        let mut values = random(self.parameters[parameter].0, (10 * parameter + of) as u64);
        if let Some((at, bad)) = self.bad.filter(|_| parameter == 0 && of == 0) {
            values[at] = bad;
        }
        values
    }
}

impl Case<3> for Reduce<'_> {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 3] {
        let of_parameter = |(parameter, &(n, count)): (usize, &(usize, usize))| {
            (0..count).map(|of| gradient(k, 1, n, &self.values(parameter, of))).collect()
        };
        let mut all: Vec<Vec<K::Gradient>> =
            self.parameters.iter().enumerate().map(of_parameter).collect();
        let mut borrowed: Vec<Vec<&mut K::Gradient>> =
            all.iter_mut().map(|of| of.iter_mut().collect()).collect();
        let sum = k.reduce(&mut borrowed);
        // Nothing that an earlier sum left in memory counts.
        let mut last: Vec<Vec<&mut K::Gradient>> =
            all.iter_mut().rev().take(1).map(|of| of.iter_mut().take(1).collect()).collect();
        let alone = k.reduce(&mut last);
        // An f64 in two f32.
        let split = |x: f64| [x as f32, (x - f64::from(x as f32)) as f32];
        let summed = all.iter().zip(self.parameters).flat_map(|(of, &(n, _))| {
            of.first().map_or(Vec::new(), |sum| k.read_gradient(sum, 0..n))
        });
        [summed.collect(), split(sum).to_vec(), split(alone).to_vec()]
    }
}

#[test]
fn gradients_are_added_up_and_their_squares() {
    // More elements than one block adds up; few; several gradients of one parameter.
    let cases: [&[(usize, usize)]; 4] =
        [&[(1, 1)], &[(66_003, 1), (7, 1)], &[(130, 3), (1, 1), (65, 2)], &[(5, 1); 9]];
    for parameters in cases {
        let case = Reduce { parameters, bad: None };
        let [summed, squares, alone] = found(&case, ElementType::F32);
        let mut expected = Vec::new();
        for (parameter, &(n, count)) in parameters.iter().enumerate() {
            let of: Vec<Vec<f64>> =
                (0..count).map(|of| wide(&case.values(parameter, of))).collect();
            expected.extend((0..n).map(|i| of.iter().map(|of| of[i]).sum::<f64>()));
        }
        summed.close("sums", &expected, |_| 6.0 * U32);
        // Of what the sums are in f32, in f64: both backends have the same.
        assert_eq!(summed.device, summed.cpu);
        let last = parameters[parameters.len() - 1].0;
        for (what, found, of) in [
            ("Σ g²", &squares, &summed.device[..]),
            ("Σ g² alone", &alone, &summed.device[summed.device.len() - last..]),
        ] {
            let exact: f64 = of.iter().map(|x| x * x).sum();
            // As many additions in f64, and what two f32 hold of the sum.
            let rounds = of.len() as f64 * f64::EPSILON + 2f64.powi(-46);
            for found in [&found.device, &found.cpu] {
                let (sum, off) = (found[0] + found[1], exact * rounds);
                assert!((sum - exact).abs() <= off, "{what}: {sum} against {exact}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_sum_of_squares() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 37, 129] {
            let case = Reduce { parameters: &[(130, 1), (4, 1)], bad: Some((at, bad)) };
            let [_, Found { device, .. }, _] = found(&case, ElementType::F32);
            assert!(!device[0].is_finite(), "{bad} at {at}");
        }
    }
}
