//! RMSNorm of each head's queries and keys, before they are rotated (QK-norm; Henry et al., 2020;
//! as Qwen3 has it): y = x / √(mean x² + ε) · gain, one gain for all query heads and one for all
//! key heads.

use crate::dot::dot;
use crate::element::Element;
use crate::isa::multiversion;
use crate::lanes::{LANES, total};
use crate::ops::attention::Heads;

/// Where the queries and keys of some rows lie, and the two gains.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    /// The heads; those of values are left alone.
    pub heads: Heads,
    /// The queries' gain, then the keys', `[2e]`.
    pub gains: &'a [f32],
    /// ε.
    pub eps: f32,
}

impl HeadNorm<'_> {
    /// Heads that have a norm, in a row.
    fn normed(&self) -> usize {
        self.heads.query + self.heads.kv
    }

    /// Where the gain of a row's head begins.
    fn gain(&self, head: usize) -> usize {
        if head < self.heads.query { 0 } else { self.heads.dim }
    }
}

multiversion! {
    /// Replaces each query and key of `rows` by itself times s · gain with s = 1 / √(mean x² + ε).
    ///
    /// Rows of `rows` are `[(H + 2G) e]`, `stride` apart. What they were goes to `kept`, rows of
    /// `[(H + G) e]`, `kept_stride` apart, and s to `scale`, `[n, H + G]`: backward needs both.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn head_norm<E: Element>(
        norm: HeadNorm<'_>,
        rows: &mut [E],
        stride: usize,
        kept: &mut [E],
        kept_stride: usize,
        scale: &mut [f32],
    ) {
        let (e, normed) = (norm.heads.dim, norm.normed());
        let rows = rows.chunks_mut(stride).zip(kept.chunks_mut(kept_stride));
        for ((row, kept), scale) in rows.zip(scale.chunks_exact_mut(normed)) {
            kept[..normed * e].copy_from_slice(&row[..normed * e]);
            let heads = row[..normed * e].chunks_exact_mut(e).zip(kept.chunks_exact(e));
            for (head, ((y, x), scale)) in heads.zip(scale).enumerate() {
                let s = 1.0 / (dot(x, x) / e as f32 + norm.eps).sqrt();
                *scale = s;
                let gain = &norm.gains[norm.gain(head)..][..e];
                for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                    *y = E::narrow(x.widen() * s * gain);
                }
            }
        }
    }
}

/// The gradient of [`head_norm`] in rows that are sequences of `context` rows: replaces the
/// queries' and keys' gradient dy in `d_rows` by dx, and `gain_gradients`, `[n / context, 2e]`,
/// gets one gradient of both gains a sequence:
///
/// ```text
/// dx            = s · (dy · gain − x · s² · mean(x · dy · gain))
/// gain_gradient = Σ dy · x · s over the heads and the rows of a sequence
/// ```
///
/// `kept` and `scale` are as [`head_norm`] left them; rows are laid out as there.
///
/// # Panics
/// If a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn head_norm_backward<E: Element>(
    norm: HeadNorm<'_>,
    context: usize,
    kept: &[E],
    kept_stride: usize,
    scale: &[f32],
    d_rows: &mut [E],
    stride: usize,
    gain_gradients: &mut [f32],
) {
    let sequences = d_rows
        .chunks_mut(context * stride)
        .zip(kept.chunks(context * kept_stride))
        .zip(scale.chunks(context * norm.normed()))
        .zip(gain_gradients.chunks_exact_mut(2 * norm.heads.dim));
    for (((d_rows, kept), scale), gain_gradient) in sequences {
        gain_gradient.fill(0.0);
        one_sequence_backward(norm, kept, kept_stride, scale, d_rows, stride, gain_gradient);
    }
}

multiversion! {
    /// [`head_norm_backward`] of one sequence: adds to `gain_gradient`.
    fn one_sequence_backward<E: Element>(
        norm: HeadNorm<'_>,
        kept: &[E],
        kept_stride: usize,
        scale: &[f32],
        d_rows: &mut [E],
        stride: usize,
        gain_gradient: &mut [f32],
    ) {
        let (e, normed) = (norm.heads.dim, norm.normed());
        let rows = d_rows.chunks_mut(stride).zip(kept.chunks(kept_stride));
        for ((d_row, kept), scale) in rows.zip(scale.chunks_exact(normed)) {
            let heads = d_row[..normed * e].chunks_exact_mut(e).zip(kept.chunks_exact(e));
            for (head, ((dy, x), &s)) in heads.zip(scale).enumerate() {
                let at = norm.gain(head);
                let (gain, gradient) = (&norm.gains[at..][..e], &mut gain_gradient[at..][..e]);
                let mut sums = [0f32; LANES];
                let ((xs, x_rest), (dys, dy_rest), (gains, gain_rest)) =
                    (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>(), gain.as_chunks::<LANES>());
                for ((x, dy), gain) in xs.iter().zip(dys).zip(gains) {
                    for i in 0..LANES {
                        sums[i] = (x[i].widen() * dy[i].widen()).mul_add(gain[i], sums[i]);
                    }
                }
                let rest = x_rest.iter().zip(dy_rest).zip(gain_rest);
                for (sum, ((x, dy), gain)) in sums.iter_mut().zip(rest) {
                    *sum = (x.widen() * dy.widen()).mul_add(*gain, *sum);
                }
                let c = total(sums) * s * s * s / e as f32;
                for (((dy, x), gain), gradient) in dy.iter_mut().zip(x).zip(gain).zip(gradient) {
                    let (x, d) = (x.widen(), dy.widen());
                    *dy = E::narrow((d * gain) * s - x * c);
                    *gradient = (d * x).mul_add(s, *gradient);
                }
            }
        }
    }
}
