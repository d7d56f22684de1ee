//! The number types of activations and packed parameters: f32, and bf16 with f32 arithmetic.

use bytemuck::Pod;
use half::bf16;

use crate::math::{exp_or_zero, short_exp};

/// Closed to other crates' types: matrix products read and write elements as raw bits.
mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// Which of the number types an [`Element`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// Its upper half: 8 bits of exponent, 8 of precision.
    Bf16,
}

/// A number type of activations and packed parameters, f32 or bf16. Sums are f32 for both.
///
/// Matrix products read operands in *units* of 32 bits along the summed dimension: one f32, or two
/// bf16, of which the first is the lower half (the layout of the instruction `vdpbf16ps`).
pub trait Element: sealed::Sealed + Pod + Default + Send + Sync + 'static {
    /// Elements in a unit.
    const PER_UNIT: usize;
    /// Which type this is.
    const TYPE: ElementType;
    /// Its name in messages: `f32` or `bf16`.
    const NAME: &'static str;

    /// The nearest element, ties to even. Infinity stays infinity, and the NaNs that arithmetic
    /// makes stay NaN; one whose upper mantissa bits are all set becomes a zero in bf16.
    fn narrow(value: f32) -> Self;

    /// The same number in f32, exactly.
    fn widen(self) -> f32;

    /// As [`Element::narrow`], but ties go away from zero, which takes fewer instructions. For
    /// results that are hardly ever half way between two elements, such as exponentials.
    fn narrow_ties_away(value: f32) -> Self;

    /// The unit of two numbers, each rounded as by [`Element::narrow_ties_away`]; of the first
    /// alone for f32.
    fn unit_ties_away(first: f32, second: f32) -> u32;

    /// eˣ for a softmax whose result is rounded to this type, with an error well below that of the
    /// rounding; 0 for x below −88.
    fn exp(x: f32) -> f32;

    /// The unit of elements 2k and 2k + 1 of the summed dimension; of the first alone for f32.
    fn unit(first: Self, second: Self) -> u32;

    /// `sum` plus the products of two units' elements.
    fn multiply_add(a: u32, b: u32, sum: f32) -> f32;
}

impl Element for f32 {
    const PER_UNIT: usize = 1;
    const TYPE: ElementType = ElementType::F32;
    const NAME: &'static str = "f32";

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow_ties_away(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn unit_ties_away(first: f32, _: f32) -> u32 {
        first.to_bits()
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        exp_or_zero(x)
    }

    #[inline(always)]
    fn unit(first: Self, _: Self) -> u32 {
        first.to_bits()
    }

    #[inline(always)]
    fn multiply_add(a: u32, b: u32, sum: f32) -> f32 {
        f32::from_bits(a).mul_add(f32::from_bits(b), sum)
    }
}

impl Element for bf16 {
    const PER_UNIT: usize = 2;
    const TYPE: ElementType = ElementType::Bf16;
    const NAME: &'static str = "bf16";

    /// In integer arithmetic, so that the compiler vectorises loops over it: adds half a unit in
    /// the last kept place, less one where the kept part is even, and cuts off the rest.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow_ties_away(value: f32) -> Self {
        bf16::from_bits((value.to_bits().wrapping_add(0x8000) >> 16) as u16)
    }

    #[inline(always)]
    fn unit_ties_away(first: f32, second: f32) -> u32 {
        let (first, second) =
            (first.to_bits().wrapping_add(0x8000), second.to_bits().wrapping_add(0x8000));
        first >> 16 | second & 0xffff_0000
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        short_exp(x)
    }

    #[inline(always)]
    fn unit(first: Self, second: Self) -> u32 {
        u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16
    }

    #[inline(always)]
    fn multiply_add(a: u32, b: u32, sum: f32) -> f32 {
        let low = f32::from_bits(a << 16).mul_add(f32::from_bits(b << 16), sum);
        f32::from_bits(a & 0xffff_0000).mul_add(f32::from_bits(b & 0xffff_0000), low)
    }
}

/// A number that can be rounded to an `E`: f32 to either type, an `E` to itself.
pub trait RoundTo<E>: Copy {
    /// The nearest `E`, ties to even.
    fn round_to(self) -> E;
}

impl<E: Element> RoundTo<E> for E {
    #[inline(always)]
    fn round_to(self) -> E {
        self
    }
}

impl RoundTo<bf16> for f32 {
    #[inline(always)]
    fn round_to(self) -> bf16 {
        bf16::narrow(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn narrow_is_the_nearest_bf16(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(<bf16 as Element>::narrow(value).to_bits(), bf16::from_f32(value).to_bits(), "{:#x}", bits);
        }

        #[test]
        fn widen_is_exact(bits: u16) {
            let value = bf16::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(value.widen().to_bits(), value.to_f32().to_bits());
        }
    }

    #[test]
    fn ties_go_to_even_and_what_is_not_finite_stays() {
        let narrow = |bits: u32| <bf16 as Element>::narrow(f32::from_bits(bits)).to_bits();
        assert_eq!(narrow(0x3f80_8000), 0x3f80); // half way, even below
        assert_eq!(narrow(0x3f81_8000), 0x3f82); // half way, even above
        assert_eq!(narrow(0x3f80_8001), 0x3f81);
        assert_eq!(narrow(0x7f7f_ffff), 0x7f80); // the largest f32 is nearer to infinity
        assert_eq!((narrow(0x7f80_0000), narrow(0xff80_0000)), (0x7f80, 0xff80));
        assert_eq!((narrow(0x8000_0000), narrow(1)), (0x8000, 0));
        // The NaNs that arithmetic makes.
        for nan in [f32::NAN.to_bits(), 0xffc0_0000] {
            assert!(bf16::from_bits(narrow(nan)).is_nan());
        }
    }

    #[test]
    fn a_unit_gives_its_elements_back() {
        let unit = bf16::unit(bf16::from_f32(1.5), bf16::from_f32(-2.0));
        // Against (1, 0) and (0, 1): the first, the second.
        let one = bf16::from_f32(1.0);
        assert_eq!(bf16::multiply_add(unit, bf16::unit(one, bf16::ZERO), 10.0), 11.5);
        assert_eq!(bf16::multiply_add(unit, bf16::unit(bf16::ZERO, one), 10.0), 8.0);
        assert_eq!(f32::multiply_add(f32::unit(1.5, 9.0), f32::unit(-2.0, 9.0), 10.0), 7.0);
    }
}
