//! Sums and exponentials over slices, in loops of fixed width that the compiler vectorises and that add up in the same order
//! on every processor.

use crate::element::Element;

/// Sums that run side by side.
pub(crate) const LANES: usize = 16;

/// eˣ to a relative error of 2⁻²² for x from −87 to 88, beyond which it stays at the range's end: 2ⁿ times a polynomial of
/// degree 6 in x − n ln 2 (coefficients of Cephes' `expf`, S. Moshier).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: a sum with it has no room for a fraction, and a whole number n in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_66);
    let p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // Times 2ⁿ: n is added to the exponent; the bits of ROUND itself are shifted out. A NaN stays one.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of a lane of sums.
#[inline(always)]
pub(crate) fn total(sums: [f32; LANES]) -> f32 {
    let mut sums = sums;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Σ f(aᵢ, bᵢ), LANES at a time. `f` is given what it adds to.
#[inline(always)]
pub(crate) fn fold<A: Copy, B: Copy>(a: &[A], b: &[B], f: impl Fn(A, B, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] = f(a[i], b[i], sums[i]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum = f(a, b, *sum);
    }
    total(sums)
}

/// Σ aᵢ bᵢ.
#[inline(always)]
pub(crate) fn dot<A: Element, B: Element>(a: &[A], b: &[B]) -> f32 {
    fold(a, b, |a, b, sum| a.widen().mul_add(b.widen(), sum))
}

/// The largest element; −∞ for none. A NaN may be passed over: who needs to know looks at the sum of exponentials.
#[inline(always)]
pub(crate) fn largest<E: Element>(values: &[E]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let value = chunk[i].widen();
            largest[i] = if value > largest[i] { value } else { largest[i] };
        }
    }
    for (largest, value) in largest.iter_mut().zip(rest) {
        *largest = largest.max(value.widen());
    }
    largest.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
