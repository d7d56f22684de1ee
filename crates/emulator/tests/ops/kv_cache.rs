//! Attention of one new token over the keys and values before it.

use cuvee_kernels::{Backend, ElementType, Heads, Rotations};

use crate::tools::{Case, ELEMENTS, EXP, U32, activations, found, random, read, unit};

struct Text {
    heads: Heads,
    /// Tokens that are read at once, and one after another behind them.
    first: usize,
    next: usize,
    rotated: bool,
}

impl Case<1> for Text {
    fn run<K: Backend>(&self, k: &K) -> [Vec<f32>; 1] {
        let Self { heads, first, next, rotated } = *self;
        let (c, a) = (heads.columns(), heads.query * heads.dim);
        let frequencies: Vec<f64> = (0..heads.dim / 2).map(|i| 0.5f64.powi(i as i32)).collect();
        let rotations = k.rotations(&Rotations::new(first + next, &frequencies, 1.0));
        let mut cache = K::KvCache::default();
        if first > 0 {
            let qkv = activations(k, first, c, &random(first * c, 1), 1);
            k.cache(first, heads, &qkv, &mut cache);
        }
        // In the second row of three.
        let mut out = k.activations(3, a);
        let mut all = Vec::new();
        for token in 0..next {
            let mut qkv = activations(k, 3, c, &random(3 * c, 2 + token as u64), 0);
            let rotations = rotated.then_some(&rotations);
            k.attention_step(1, heads, rotations, &mut qkv, &mut cache, &mut out);
            all.extend(read(k, &out, 3, a));
        }
        [all]
    }
}

fn attention_is_that_of_the_processor(case: &Text, element: ElementType) {
    let [out] = found(case, element);
    let (e, t) = (case.heads.dim as f64, (case.first + case.next) as f64);
    // Of numbers of at most 1: a score is a sum of e products over √e; in bf16 a turned query or
    // key may be rounded to the other of two neighbours, as the last bit before falls.
    let score = e.sqrt() * ((e + 4.0) * U32 + 2.0 * unit(element) * 1.42);
    // A softmax's relative error, twice; sums of at most t products; and the rounding. Where
    // nothing is turned, no query or key is rounded.
    let score = if case.rotated { score } else { e.sqrt() * (e + 4.0) * U32 };
    let bound = 2.0 * (2.0 * score + 2.0 * EXP + (t + 8.0) * U32) + unit(element);
    let Text { heads, first, next, rotated } = case;
    let what = format!("{next} tokens behind {first}, {heads:?}, turned {rotated}, in {element:?}");
    out.agree(&what, |_| bound);
}

#[test]
fn a_token_attends_to_the_cache_as_on_the_processor() {
    // Caches that begin empty, that grow, and that are more than one tile of keys; heads whose
    // columns several threads share, and that are wider than a tile.
    for (query, kv, dim, first, next) in
        [(1, 1, 2, 0, 3), (4, 2, 6, 62, 4), (3, 1, 40, 5, 2), (2, 2, 10, 254, 4), (1, 1, 260, 1, 2)]
    {
        for rotated in [false, true] {
            for element in ELEMENTS {
                let heads = Heads { query, kv, dim };
                let case = Text { heads, first, next, rotated };
                attention_is_that_of_the_processor(&case, element);
            }
        }
    }
}
