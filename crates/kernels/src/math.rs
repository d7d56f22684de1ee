//! Exponential, logarithm and sigmoid as straight-line arithmetic.
//!
//! A loop over them has no call and no branch, so the compiler vectorises it, and the result has
//! the same bits on every processor.

/// 1.5 · 2²³ + 127. Adding it to x rounds x to a whole number n, since a f32 of this size has no
/// fraction bits, and leaves n + 127, the exponent bits of 2ⁿ, in the lowest bits of the sum.
const ROUND: f32 = 12_583_039.0;

/// eˣ with a relative error of at most 2⁻²² for x from −87 to 88. Beyond that range the result is
/// that of the range's nearer end.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp_from(x, -87.3)
}

/// As [`exp`], but 0 below the range: for a softmax, where a masked score is −∞.
#[inline(always)]
pub(crate) fn exp_or_zero(x: f32) -> f32 {
    exp_from(x, BELOW)
}

/// Here n = −127, and the exponent bits of 2ⁿ are all zero: the product is 0.
const BELOW: f32 = -88.0;

/// eˣ = 2ⁿ · p(x − n ln 2) with n = round(x log₂ e) and a polynomial p of degree 6 (coefficients of
/// `expf` in Cephes, S. Moshier). Below `least` the result is that of `least`.
#[inline(always)]
fn exp_from(x: f32, least: f32) -> f32 {
    let x = x.clamp(least, 88.3);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts (Cody & Waite): the first has few bits, so that n times it is exact.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_66);
    let p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // The shift moves n + 127 into the exponent and the other bits of ROUND out. Where x is NaN, p
    // is NaN and so is the product.
    p * f32::from_bits(shifted.to_bits() << 23)
}

/// [`exp_or_zero`] with a relative error of at most 2⁻¹⁷, in half the multiplications.
///
/// That error is a 512th of the largest that rounding to bf16 adds, 2⁻⁸. Computed as 2ⁿ · p(f) with
/// n = round(x log₂ e), f = x log₂ e − n and a polynomial p of degree 4 (Remez, least relative
/// error).
#[inline(always)]
pub(crate) fn short_exp(x: f32) -> f32 {
    let y = x.clamp(BELOW, 88.3) * std::f32::consts::LOG2_E;
    let shifted = y + ROUND;
    let f = y - (shifted - ROUND);
    let p = 9.570_102e-3f32;
    let p = p.mul_add(f, 5.591_786e-2);
    let p = p.mul_add(f, 0.240_247_45);
    let p = p.mul_add(f, 0.693_121_8);
    let p = p.mul_add(f, 0.999_999_3);
    p * f32::from_bits(shifted.to_bits() << 23)
}

/// ln x with an error of at most 2⁻²² · max(1, |ln x|), for positive normal x.
///
/// With x = 2ᵏ m and m between √½ and √2, ln x = k ln 2 + 2 artanh((m − 1) / (m + 1)), artanh by
/// its power series. The result is NaN for x that is infinite, NaN, zero or negative.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    // k: the exponent of x / √½, rounded down.
    let above = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32 >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((above << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let p = (1.0f32 / 9.0).mul_add(z, 1.0 / 7.0);
    let p = p.mul_add(z, 1.0 / 5.0);
    let p = p.mul_add(z, 1.0 / 3.0);
    let ln = (2.0 * s).mul_add(p * z, 2.0 * s);
    let ln = (above as f32).mul_add(std::f32::consts::LN_2, ln);
    if x > 0.0 && x < f32::INFINITY { ln } else { f32::NAN }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Every 97th number of the range, which is all exponents and a spread of fractions.
    fn numbers(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..).map(move |i| from + i as f32 * 97e-5).take_while(move |&x| x <= to)
    }

    #[test]
    fn exp_is_within_its_bound_over_its_range() {
        for x in numbers(-87.0, 88.0).chain([-87.0, -1e-3, -1e-30, 1e-30, 0.5, 88.0]) {
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2f64.powi(-22), "e^{x}: {found} against {exact}");
        }
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
    }

    #[test]
    fn exp_stays_at_the_ends_of_its_range() {
        for x in [-88.0, -1e4, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), exp(-87.3), "{x}");
        }
        for x in [89.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!(exp(x), exp(88.3), "{x}");
        }
        assert!(
            exp(-87.3) > 0.0 && exp(-87.3) < 1.3e-38 && exp(88.3) > 2e38 && exp(88.3).is_finite()
        );
    }

    #[test]
    fn short_exp_is_within_its_bound_and_zero_below() {
        for x in numbers(-87.0, 88.0).chain([-1e-3, -1e-30, 0.0, 1e-30, 0.5]) {
            let (found, exact) = (f64::from(short_exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2f64.powi(-17), "e^{x}: {found} against {exact}");
            assert_eq!(exp_or_zero(x), exp(x));
        }
        for x in [-88.0, -1e4, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!((short_exp(x), exp_or_zero(x)), (0.0, 0.0), "{x}");
        }
        assert!(short_exp(f32::NAN).is_nan() && short_exp(f32::INFINITY) > 2e38);
    }

    #[test]
    fn ln_is_within_its_bound() {
        let powers = (-126..128).map(|n| 2f32.powi(n));
        for x in powers.flat_map(|p| (0..97).map(move |i| p * (1.0 + i as f32 / 97.0))) {
            let (found, exact) = (f64::from(ln(x)), f64::from(x).ln());
            assert!(
                (found - exact).abs() < 2f64.powi(-22) * exact.abs().max(1.0),
                "ln {x}: {found} against {exact}"
            );
        }
        assert_eq!(ln(1.0), 0.0);
        assert!([f32::NAN, f32::INFINITY, -1.0, 0.0].iter().all(|&x| !ln(x).is_finite()));
    }

    #[test]
    fn exp_and_sigmoid_of_nan_are_nan() {
        // The processor's own; widened from bf16; with any other bits, as a damaged file may have.
        let widened = [0x7f81, 0x7fc0, 0x7fff, 0xffc1].map(|bits| bf16::from_bits(bits).to_f32());
        let damaged = (0..23)
            .flat_map(|bit| [0x7f80_0000 | 1 << bit, 0xffff_ffff ^ 1 << bit])
            .map(f32::from_bits);
        for x in damaged.chain(widened).chain([f32::NAN, -f32::NAN]) {
            assert!(x.is_nan() && exp(x).is_nan() && sigmoid(x).is_nan(), "{:#x}", x.to_bits());
        }
    }

    #[test]
    fn sigmoid_is_within_its_bound() {
        for x in numbers(-87.0, 88.0) {
            let (found, exact) = (f64::from(sigmoid(x)), 1.0 / (1.0 + (-f64::from(x)).exp()));
            // The exponential's, a sum's and a quotient's error; where the result is below the
            // normal numbers, half of the smallest of all.
            let bound = (2f64.powi(-22) + 2f64.powi(-23)) * exact + 2f64.powi(-150);
            assert!((found - exact).abs() < bound, "σ({x}): {found} against {exact}");
        }
        assert_eq!((sigmoid(0.0), sigmoid(f32::INFINITY)), (0.5, 1.0));
        assert!((0.0..1e-37).contains(&sigmoid(f32::NEG_INFINITY)));
    }
}
