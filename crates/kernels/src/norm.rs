//! RMSNorm: y = x / √(mean x² + ε) · gain (Zhang & Sennrich, 2019).

use crate::buffer::Matrix;
use crate::element::Element;
use crate::isa::multiversion;
use crate::math::{LANES, dot, total};

multiversion! {
    /// y = x · s · gain with s = 1 / √(mean x² + ε), row by row: `x` is `[n, d]`, `gain` `[d]`, `y`
    /// `[n, d]` rounded; `scale`, `[n]`, keeps s for the way back. Takes the whole rows of `x`, as
    /// many as `scale` has room for.
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

multiversion! {
    /// What `rms_norm` does to gradients, for rows that are one sequence: with dy `[n, d]` the
    /// gradient of its result,
    ///
    /// ```text
    /// dx   += s · (dy · gain − x · s² · mean(x · dy · gain))
    /// gain gradient += Σ over rows  dy · x · s
    /// ```
    ///
    /// `dx` is `[n, d]` and comes out rounded in `rounded` too, in rows `stride` apart; `scale` is
    /// `[n]`, `gain_gradient` `[d]`.
    ///
    /// # Panics
    /// If `gain` is empty, or a row of `rounded` or `gain_gradient` shorter.
    pub fn rms_norm_backward<E: Element>(
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
