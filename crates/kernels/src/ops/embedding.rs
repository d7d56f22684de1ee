//! Token embedding: rows of a table by token id.

use crate::gradient::Gradient;
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

/// Rows `ids` of `gradient`, `[v, d]`, += the rows of `dx`, `[n, d]`, in order. In turn 0 the rows
/// are 0 before.
pub(crate) fn embed_backward(d: usize, ids: &[u32], dx: &[f32], gradient: &Gradient, turn: usize) {
    gradient.in_turn(turn, |rows, gradient, add| {
        if !add {
            gradient.fill(0.0);
        }
        for (dx, &id) in dx.chunks_exact(d).zip(ids) {
            if rows.contains(&(id as usize)) {
                accumulate(&mut gradient[(id as usize - rows.start) * d..][..d], dx);
            }
        }
    });
}

/// The gradient of a gain, `[d]`, += each of the first `sequences` rows of `gains`, `[b, d]`, in
/// order. In turn 0 it is 0 before.
pub(crate) fn gain_gradient(sequences: usize, gains: &[f32], gradient: &Gradient, turn: usize) {
    gradient.in_turn(turn, |_, sum, add| {
        if !add {
            sum.fill(0.0);
        }
        for gain in gains.chunks_exact(sum.len()).take(sequences) {
            accumulate(sum, gain);
        }
    });
}
