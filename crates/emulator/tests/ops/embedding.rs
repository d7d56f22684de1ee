//! Rows of a table by token, and their gradient.

use cuvee_kernels::{Backend, ElementType};

use crate::tools::{Case, U32, floats, found, gradient, ids, random, wide};

struct Embedding<'a> {
    v: usize,
    d: usize,
    ids: &'a [u32],
}

impl Case<3> for Embedding<'_> {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 3] {
        let (v, d, n) = (self.v, self.d, self.ids.len());
        let ids = ids(k, self.ids);
        let mut x = k.floats((n + 1) * d); // room for a row more
        k.embed(&floats(k, &random(v * d, 1)), d, &ids, &mut x);
        let (dx, sum) = (floats(k, &random(n * d, 2)), gradient(k, v, d, &random(v * d, 3)));
        k.embed_backward(d, &ids, &dx, &sum, 1);
        let added = k.read_gradient(&sum, 0..v * d);
        k.begin_gradient(&sum, 1);
        k.embed_backward(d, &ids, &dx, &sum, 0);
        [k.read(&x, 0..(n + 1) * d), added, k.read_gradient(&sum, 0..v * d)]
    }
}

#[test]
fn embeddings_are_those_of_the_processor_both_ways() {
    // A token that comes more often than one block adds up, twice; whole pieces, and one row more.
    let often: Vec<u32> =
        (0..140).map(|_| 3).chain([0, 4]).chain([1; 64]).chain([3, 2]).chain([2; 64]).collect();
    let cases: [(usize, usize, &[u32]); 6] = [
        (97, 33, &[0, 96, 5, 5, 41, 5, 0]),
        (1, 1, &[0]),
        (3, 16, &[2; 9]),
        (5, 12, &often),
        (5, 7, &often),
        (2, 1028, &[1, 0, 1]), // wider than one block
    ];
    for (v, d, ids) in cases {
        let [x, added, replaced] = found(&Embedding { v, d, ids }, ElementType::F32);
        let n = ids.len();
        let what = |part: &str| format!("{part} of {n} rows of {v}×{d}");
        let (table, dx, before) =
            (wide(&random(v * d, 1)), wide(&random(n * d, 2)), wide(&random(v * d, 3)));
        let mut expected: Vec<f64> =
            ids.iter().flat_map(|&id| &table[id as usize * d..][..d]).copied().collect();
        expected.resize((n + 1) * d, 0.0);
        x.exactly(&what("x"), &expected);
        let mut sum = vec![0.0; v * d];
        for (row, &id) in ids.iter().enumerate() {
            (0..d).for_each(|i| sum[id as usize * d + i] += dx[row * d + i]);
        }
        // At most n additions of numbers of at most 1.
        let bound = (n * (n + 1)) as f64 * U32;
        replaced.close(&what("dE"), &sum, |_| bound);
        sum.iter_mut().zip(&before).for_each(|(sum, before)| *sum += before);
        added.close(&what("dE added"), &sum, |_| bound);
    }
}
