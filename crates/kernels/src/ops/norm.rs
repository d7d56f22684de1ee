//! RMSNorm: y = x / √(mean x² + ε) · gain, row by row (Zhang & Sennrich, 2019).

use crate::buffer::Matrix;
use crate::dot::dot;
use crate::element::Element;
use crate::isa::multiversion;
use crate::lanes::{LANES, total};

multiversion! {
    /// y ← x · s · gain with s = 1 / √(mean x² + ε): `x` is `[n, d]`, `gain` `[d]`, and `y`, `[n, d]`,
    /// is rounded. `scale`, `[n]`, gets s, which backward needs.
    ///
    /// Takes the whole rows of `x`, as many as `scale` is long.
    ///
    /// # Panics
    /// If `gain` is empty, or `y` has fewer rows or columns than that.
    pub fn rms_norm<E: Element>(x: &[f32], gain: &[f32], eps: f32, y: &mut Matrix<E>, scale: &mut [f32]) {
        let d = gain.len();
        for (row, (x, scale)) in x.chunks_exact(d).zip(scale).enumerate() {
            let s = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            *scale = s;
            for ((y, &x), &gain) in y.row_mut(row).iter_mut().zip(x).zip(gain) {
                *y = E::narrow(x * s * gain);
            }
        }
    }
}

/// The gradient of [`rms_norm`] in the first `rows` rows, which are sequences of `context` rows: with
/// `dy`, `[n, d]`, the gradient of y,
///
/// ```text
/// dx            ← dx + s · (dy · gain − x · s² · mean(x · dy · gain))
/// gain_gradient ← Σ dy · x · s over the rows of a sequence
/// ```
///
/// `dx` is `[n, d]`; with `overwrite`, what it held before counts as zero. `rounded`, `[n, d]`, gets
/// the new dx rounded. `gain_gradients`, `[n / context, d]`, gets one gradient a sequence. `scale` is
/// as [`rms_norm`] left it.
///
/// # Panics
/// If `gain` is empty, or a slice or `rounded` is too small.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward<E: Element>(
    rows: usize,
    context: usize,
    x: &[f32],
    gain: &[f32],
    scale: &[f32],
    dy: &[f32],
    overwrite: bool,
    dx: &mut [f32],
    rounded: &mut Matrix<E>,
    gain_gradients: &mut [f32],
) {
    let (d, stride) = (gain.len(), rounded.stride());
    if overwrite {
        dx[..rows * d].fill(0.0);
    }
    let sequences = gain_gradients.chunks_exact_mut(d).enumerate().take(rows / context);
    for (sequence, gain_gradient) in sequences {
        let from = sequence * context;
        let floats = from * d..(from + context) * d;
        gain_gradient.fill(0.0);
        one_sequence_backward(
            &x[floats.clone()],
            gain,
            &scale[from..][..context],
            &dy[floats.clone()],
            &mut dx[floats],
            &mut rounded.data_mut()[from * stride..],
            stride,
            gain_gradient,
        );
    }
}

multiversion! {
    /// [`rms_norm_backward`] of one sequence: adds to `dx` and to `gain_gradient`. `rounded` is in
    /// rows `stride` apart.
    fn one_sequence_backward<E: Element>(
        x: &[f32], gain: &[f32], scale: &[f32], dy: &[f32], dx: &mut [f32], rounded: &mut [E], stride: usize,
        gain_gradient: &mut [f32],
    ) {
        let d = gain.len();
        let rows = x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(rounded.chunks_mut(stride)).zip(scale);
        for ((((x, dy), dx), rounded), &s) in rows {
            let mut sums = [0f32; LANES];
            let ((xs, x_rest), (dys, dy_rest), (gains, gain_rest)) =
                (x.as_chunks::<LANES>(), dy.as_chunks::<LANES>(), gain.as_chunks::<LANES>());
            for ((x, dy), gain) in xs.iter().zip(dys).zip(gains) {
                for i in 0..LANES {
                    sums[i] = (x[i] * dy[i]).mul_add(gain[i], sums[i]);
                }
            }
            for (sum, ((x, dy), gain)) in sums.iter_mut().zip(x_rest.iter().zip(dy_rest).zip(gain_rest)) {
                *sum = (x * dy).mul_add(*gain, *sum);
            }
            let c = total(sums) * s * s * s / d as f32;
            let (x, dy, dx, rounded, gain, gain_gradient) = (&x[..d], &dy[..d], &mut dx[..d], &mut rounded[..d], &gain[..d], &mut gain_gradient[..d]);
            for i in 0..d {
                let new = dx[i] + ((dy[i] * gain[i]) * s - x[i] * c);
                dx[i] = new;
                rounded[i] = E::narrow(new);
                gain_gradient[i] = (dy[i] * x[i]).mul_add(s, gain_gradient[i]);
            }
        }
    }
}
