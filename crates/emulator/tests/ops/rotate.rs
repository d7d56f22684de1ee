//! Rotary positions.

use cuvee_kernels::{Backend, Heads, Rotations};

use crate::tools::{Case, ELEMENTS, U32, activations, all_rounded, found, random, read, unit};

struct Rotate {
    sequences: usize,
    context: usize,
    heads: Heads,
}

impl Rotate {
    /// For more positions than there are.
    fn rotations(&self) -> Rotations {
        let e = self.heads.dim;
        let frequencies: Vec<f64> =
            (0..e / 2).map(|i| 100f64.powf(-2.0 * i as f64 / e as f64)).collect();
        Rotations::new(self.context + 3, &frequencies, 1.25)
    }
}

impl Case<2> for Rotate {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 2] {
        let (n, c) = (self.sequences * self.context, self.heads.columns());
        let rotations = k.rotations(&self.rotations());
        [false, true].map(|backward| {
            let mut qkv = activations(k, n + 1, c, &random((n + 1) * c, 1), 0);
            k.rotate(n, self.context, self.heads, &rotations, backward, &mut qkv);
            read(k, &qkv, n + 1, c)
        })
    }
}

#[test]
fn heads_are_turned_as_by_the_processor_both_ways() {
    // Pairs that lie on 16 bytes and that do not; more than one block's.
    for (sequences, context, query, kv, dim) in
        [(1, 1, 1, 1, 2), (2, 5, 3, 1, 6), (2, 3, 2, 1, 16), (1, 2, 20, 3, 26), (1, 2, 1, 1, 80)]
    {
        let case = Rotate { sequences, context, heads: Heads { query, kv, dim } };
        let Rotations { cos, sin, .. } = case.rotations();
        for element in ELEMENTS {
            let results = found(&case, element);
            let (n, c, half) = (sequences * context, case.heads.columns(), dim / 2);
            let x = all_rounded(element, &random((n + 1) * c, 1));
            for (turned, sign) in results.iter().zip([1.0, -1.0]) {
                let (mut expected, mut bounds) = (x.clone(), vec![0.0; x.len()]);
                for row in 0..n {
                    for head in 0..query + kv {
                        for i in 0..half {
                            let (a, b) =
                                (row * c + head * dim + i, row * c + head * dim + i + half);
                            let at = row % context * half + i;
                            let (cos, sin) = (f64::from(cos[at]), sign * f64::from(sin[at]));
                            expected[a] = x[a] * cos - x[b] * sin;
                            expected[b] = x[b] * cos + x[a] * sin;
                            // Two products, their sum, and the rounding.
                            let size = (x[a].abs() + x[b].abs()) * 1.25;
                            for at in [a, b] {
                                bounds[at] =
                                    3.0 * U32 * size + unit(element) * 1.01 * expected[at].abs();
                            }
                        }
                    }
                }
                let what = format!("{sequences}·{context} rows, {:?} in {element:?}", case.heads);
                turned.close(&what, &expected, |i| bounds[i]);
            }
        }
    }
}
