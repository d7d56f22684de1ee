//! The dot product of two slices, as a sum in lanes.

use crate::element::Element;
use crate::lanes::{LANES, total};

/// Σ aᵢ bᵢ in f32, as far as both slices reach.
#[inline(always)]
pub(crate) fn dot<A: Element, B: Element>(a: &[A], b: &[B]) -> f32 {
    fold(a, b, |a, b, sum| a.widen().mul_add(b.widen(), sum))
}

/// The total of LANES sums, each sum ← f(aᵢ, bᵢ, sum) for the i of its lane.
#[inline(always)]
fn fold<A: Copy, B: Copy>(a: &[A], b: &[B], f: impl Fn(A, B, f32) -> f32) -> f32 {
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

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn sums_take_every_element_once() {
        for len in [0, 1, 15, 16, 17, 40] {
            // Sums of small whole numbers are exact.
            let a: Vec<f32> = (0..len).map(|i| (i % 13 + 1) as f32).collect();
            let b: Vec<bf16> = (0..len).map(|i| bf16::from_f32((i % 7 * 3) as f32 - 8.0)).collect();
            let expected: f32 = a.iter().zip(&b).map(|(a, b)| a * b.to_f32()).sum();
            assert_eq!(dot(&a, &b), expected, "{len}");
        }
    }
}
