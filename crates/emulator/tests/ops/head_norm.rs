//! RMSNorm of each head's queries and keys.

use cuvee_kernels::{Backend, ElementType, Heads};

use crate::tools::{
    Case, ELEMENTS, U32, activations, all_rounded, floats, found, random, read, unit, wide,
};

const EPS: f32 = 1e-5;

struct HeadNorm {
    sequences: usize,
    context: usize,
    heads: Heads,
}

impl Case<5> for HeadNorm {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 5] {
        let Self { sequences, context, heads } = *self;
        let (n, c, normed) = (sequences * context, heads.columns(), heads.query + heads.kv);
        let gains = floats(k, &random(2 * heads.dim, 1));
        let mut qkv = activations(k, n, c, &random(n * c, 2), 1);
        let mut kept = k.activations(n + 1, normed * heads.dim);
        let mut scale = k.floats((n + 1) * normed);
        k.head_norm(n, heads, &gains, EPS, &mut qkv, &mut kept, &mut scale);
        let mut d_qkv = activations(k, n, c, &random(n * c, 3), 1);
        let mut each = k.floats(sequences * 2 * heads.dim);
        k.head_norm_backward(n, context, heads, &gains, &kept, &scale, &mut d_qkv, &mut each);
        [
            read(k, &qkv, n + 1, c),
            read(k, &kept, n + 1, normed * heads.dim),
            k.read(&scale, 0..n * normed),
            read(k, &d_qkv, n + 1, c),
            k.read(&each, 0..sequences * 2 * heads.dim),
        ]
    }
}

fn head_norm_is_that_of_f64(case: &HeadNorm, element: ElementType) {
    let HeadNorm { sequences, context, heads } = *case;
    let [qkv, kept, scale, d_qkv, each] = found(case, element);
    let (n, c, e) = (sequences * context, heads.columns(), heads.dim);
    let normed = heads.query + heads.kv;
    let what =
        |part: &str| format!("{part} of {sequences}·{context} rows, {heads:?} in {element:?}");
    let gains = wide(&random(2 * e, 1));
    let [x, dy] = [2, 3].map(|seed| all_rounded(element, &random(n * c, seed)));

    // A sum of e squares rounds e times at most; then a handful of operations.
    let relative = (e as f64 + 8.0) * U32;
    let head = |row: usize, head: usize| row * c + head * e..row * c + (head + 1) * e;
    let gain = |place: usize, i: usize| gains[if place < heads.query { i } else { e + i }];
    let mut s = Vec::new();
    let mut expected = [x.clone(), dy.clone()];
    let mut bounds = [vec![0.0; n * c], vec![0.0; n * c]];
    let (mut sums, mut sizes) = (vec![0.0; sequences * 2 * e], vec![0.0; sequences * 2 * e]);
    for row in 0..n {
        for place in 0..normed {
            let at = head(row, place);
            let squares: f64 = x[at.clone()].iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / e as f64 + f64::from(EPS)).sqrt();
            s.push(scale);
            let term = |i: usize| x[at.start + i] * dy[at.start + i] * gain(place, i);
            let (sum, size) =
                ((0..e).map(term).sum::<f64>(), (0..e).map(|i| term(i).abs()).sum::<f64>());
            for (i, at) in at.clone().enumerate() {
                let y = x[at] * scale * gain(place, i);
                expected[0][at] = y;
                bounds[0][at] = (relative + unit(element)) * 1.01 * y.abs();
                let first = dy[at] * gain(place, i) * scale;
                let second = |sum: f64| x[at] * sum * scale.powi(3) / e as f64;
                let dx = first - second(sum);
                expected[1][at] = dx;
                // As RMSNorm's, and rounded.
                bounds[1][at] =
                    (2.0 * e as f64 + 16.0) * U32 * (first.abs() + second(size).abs()) * 1.01
                        + unit(element) * dx.abs();
                let to = row / context * 2 * e + if place < heads.query { i } else { e + i };
                sums[to] += dy[at] * x[at] * scale;
                sizes[to] += (dy[at] * x[at] * scale).abs();
            }
        }
    }
    // A row more than there are stays as it was.
    let with_row = |mut values: Vec<f64>, columns: usize| {
        values.resize((n + 1) * columns, 0.0);
        values
    };
    let [y, dx] = expected.map(|values| with_row(values, c));
    let [of_y, of_dx] = bounds.map(|values| with_row(values, c));
    qkv.close(&what("y"), &y, |i| of_y[i]);
    d_qkv.close(&what("dx"), &dx, |i| of_dx[i]);
    scale.close(&what("s"), &s, |i| relative * s[i]);
    let before = (0..n).flat_map(|row| x[row * c..][..normed * e].to_vec()).collect();
    kept.exactly(&what("what they were"), &with_row(before, normed * e));
    let terms = (context * normed) as f64;
    each.close(&what("a sequence's gains"), &sums, |i| (relative + terms * U32) * sizes[i]);
}

#[test]
fn heads_are_normed_as_by_the_processor_both_ways() {
    // Narrower and wider than a warp takes at once, no multiple of it; shared keys; sequences of
    // several parts.
    for (sequences, context, query, kv, dim) in [
        (1, 1, 1, 1, 2),
        (2, 3, 3, 1, 10),
        (1, 35, 2, 2, 6),
        (2, 17, 4, 2, 32),
        (1, 2, 2, 1, 66),
        (3, 1, 1, 1, 128),
    ] {
        let heads = Heads { query, kv, dim };
        for element in ELEMENTS {
            head_norm_is_that_of_f64(&HeadNorm { sequences, context, heads }, element);
        }
    }
}
