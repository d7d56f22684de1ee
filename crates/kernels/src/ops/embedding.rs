//! Token embedding: rows of a table by token id.

use crate::ops::reduce::accumulate;

/// x ← rows `ids` of `table`: `table` is `[v, d]`, `x` `[n, d]` with n at least the number of ids.
///
/// # Panics
/// If an id is not below v.
pub(crate) fn embed(table: &[f32], d: usize, ids: &[u32], x: &mut [f32]) {
    for (x, &id) in x.chunks_exact_mut(d).zip(ids) {
        x.copy_from_slice(&table[id as usize * d..][..d]);
    }
}

/// Rows `ids` of `gradient`, `[v, d]`, += the rows of `dx`, `[n, d]`, in order.
///
/// # Panics
/// As [`embed`].
pub(crate) fn embed_backward(d: usize, ids: &[u32], dx: &[f32], gradient: &mut [f32]) {
    for (dx, &id) in dx.chunks_exact(d).zip(ids) {
        accumulate(&mut gradient[id as usize * d..][..d], dx);
    }
}
