//! Generation: attention of one new token over the cached keys and values of those before it, and
//! the cache of tokens that were read at once.

use crate::dot::dot;
use crate::element::Element;
use crate::isa::multiversion;
use crate::math::exp;
use crate::ops::attention::Heads;
use crate::ops::rope::{Rotations, rotate};

/// One layer's keys, rotated to their positions, and values of the t tokens so far, `[t, G e]`
/// each.
#[derive(Debug, Clone, Default)]
pub struct KvCache<E> {
    keys: Vec<E>,
    values: Vec<E>,
}

impl<E: Element> KvCache<E> {
    /// Appends the keys and values of the first `rows` rows of `qkv`, each `[(H + 2G) e]`, `stride`
    /// apart. The keys are rotated to their positions already.
    ///
    /// # Panics
    /// If a row is too short.
    pub fn append(&mut self, rows: usize, qkv: &[E], stride: usize, heads: Heads) {
        let (first, width) = (heads.query * heads.dim, heads.kv * heads.dim);
        for row in qkv.chunks(stride).take(rows) {
            let (keys, values) = row[first..][..2 * width].split_at(width);
            self.keys.extend_from_slice(keys);
            self.values.extend_from_slice(values);
        }
    }
}

/// Attention of the token that follows those in `cache`.
///
/// Rotates the queries and keys of `qkv`, `[(H + 2G) e]`, to the token's position, where the layer
/// has `rotations`, appends its keys and values to the cache, and attends to all that it holds:
/// `out` is `[H e]`. Agrees with [`crate::attention`] up to rounding.
///
/// # Panics
/// If `rotations` end before that position, or a slice is too short.
pub fn attention_step<E: Element>(
    qkv: &mut [E],
    heads: Heads,
    rotations: Option<&Rotations>,
    cache: &mut KvCache<E>,
    out: &mut [E],
) {
    let (e, width) = (heads.dim, heads.kv * heads.dim);
    let position = cache.keys.len() / width;
    let columns = heads.columns();
    if let Some(rotations) = rotations {
        let rotated = heads.query + heads.kv;
        rotate(&mut qkv[..columns], columns, position, 1, rotated, rotations, false);
    }
    let (queries, rest) = qkv[..columns].split_at(heads.query * e);
    let (keys, values) = rest.split_at(width);
    cache.keys.extend_from_slice(keys);
    cache.values.extend_from_slice(values);
    attend(queries, heads, cache, out);
}

multiversion! {
    /// out = softmax(q kᵀ / √e) v over all that the cache holds, head by head.
    fn attend<E: Element>(queries: &[E], heads: Heads, cache: &KvCache<E>, out: &mut [E]) {
        let (e, width) = (heads.dim, heads.kv * heads.dim);
        let scale = 1.0 / (e as f32).sqrt();
        let mut scores = Vec::with_capacity(cache.keys.len() / width);
        let mut sums = vec![0f32; e];
        for (head, (query, out)) in queries.chunks_exact(e).zip(out.chunks_exact_mut(e)).enumerate()
        {
            let at = head / (heads.query / heads.kv) * e;
            scores.clear();
            scores.extend(
                cache.keys.chunks_exact(width).map(|key| dot(query, &key[at..][..e]) * scale),
            );
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            sums.fill(0.0);
            for (score, value) in scores.iter().zip(cache.values.chunks_exact(width)) {
                let p = exp(score - max);
                total += p;
                for (sum, v) in sums.iter_mut().zip(&value[at..][..e]) {
                    *sum = p.mul_add(v.widen(), *sum);
                }
            }
            for (out, sum) in out.iter_mut().zip(&sums) {
                *out = E::narrow(sum / total);
            }
        }
    }
}
