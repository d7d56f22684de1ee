//! SwiGLU.

use cuvee_kernels::Backend;

use crate::tools::{Case, ELEMENTS, EXP, U32, activations, all_rounded, found, random, read, unit};

struct SwiGlu {
    n: usize,
    f: usize,
}

impl SwiGlu {
    /// Gates and ups: of some size, so that the sigmoid bends.
    fn gate_up(&self) -> Vec<f32> {
        random(self.n * 2 * self.f, 1).iter().map(|x| 6.0 * x).collect()
    }
}

impl Case<2> for SwiGlu {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
        let Self { n, f } = *self;
        let mut gate_up = activations(k, n, 2 * f, &self.gate_up(), 1);
        let mut h = k.activations(n + 1, f);
        k.swiglu(n, &gate_up, &mut h);
        let dh = activations(k, n, f, &random(n * f, 2), 1);
        k.swiglu_backward(n, &dh, &mut gate_up);
        [read(k, &h, n + 1, f), read(k, &gate_up, n + 1, 2 * f)]
    }
}

#[test]
fn swiglu_is_that_of_the_processor_both_ways() {
    // Gates and ups that both lie on 16 bytes and that do not; more than one block's.
    for (n, f) in [(1, 1), (3, 7), (2, 8), (5, 24), (1, 257), (2, 44)] {
        let case = SwiGlu { n, f };
        for element in ELEMENTS {
            let [h, gradient] = found(&case, element);
            let x = all_rounded(element, &case.gate_up());
            let d = all_rounded(element, &random(n * f, 2));
            let (mut expected, mut of_h) = (vec![0.0; (n + 1) * f], vec![0.0; (n + 1) * f]);
            let (mut dx, mut of_dx) = (vec![0.0; (n + 1) * 2 * f], vec![0.0; (n + 1) * 2 * f]);
            for (row, i) in (0..n).flat_map(|row| (0..f).map(move |i| (row, i))) {
                let (at, gate_at) = (row * f + i, row * 2 * f + i);
                let (gate, up, d) = (x[gate_at], x[gate_at + f], d[at]);
                let s = 1.0 / (1.0 + (-gate).exp());
                expected[at] = gate * s * up;
                // The exponential's error, and a handful of operations.
                let relative = 2.0 * EXP + 8.0 * U32;
                of_h[at] = (relative + unit(element)) * 1.01 * expected[at].abs();
                dx[gate_at] = d * up * (s + gate * s * (1.0 - s));
                dx[gate_at + f] = d * gate * s;
                // 1 − σ has the error of σ.
                let size = (d * up).abs() * (s + (gate * s).abs());
                of_dx[gate_at] = 3.0 * relative * size + unit(element) * 1.01 * dx[gate_at].abs();
                of_dx[gate_at + f] = (relative + unit(element)) * 1.01 * dx[gate_at + f].abs();
            }
            let what = |part: &str| format!("{part} of {n}×{f} in {element:?}");
            h.close(&what("h"), &expected, |i| of_h[i]);
            gradient.close(&what("gradient"), &dx, |i| of_dx[i]);
        }
    }
}
