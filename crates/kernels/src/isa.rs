//! Instruction sets: which one this processor has, and functions compiled once for each.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) enum Isa {
    /// What every processor of the compilation target has.
    Baseline,
    /// AVX2 and FMA: 8 floats at once.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 floats at once.
    Avx512,
    /// AVX-512 and its bf16 dot product.
    Avx512Bf16,
}

/// Whether this processor has the fused multiply-adds on vectors that the kernels are written for.
/// Without them the kernels work, slowly.
pub fn fast() -> bool {
    cfg!(target_arch = "aarch64") || isa() > Isa::Baseline
}

/// Whether this processor multiplies bf16 faster than f32. Elsewhere bf16 is widened to f32 before
/// each multiplication, which makes it slower than f32.
pub fn fast_bf16() -> bool {
    isa() == Isa::Avx512Bf16
}

/// The best instruction set this processor has.
pub(crate) fn isa() -> Isa {
    #[cfg(test)]
    if let Some(isa) = tests::forced() {
        return isa;
    }
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
        (true, true, true) => Isa::Avx512Bf16,
        (true, true, false) => Isa::Avx512,
        (true, false, _) => Isa::Avx2,
        _ => Isa::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Baseline
}

/// Defines a function that is compiled once for each instruction set and picks the best one when it
/// is called. Functions that it calls must be `#[inline(always)]`: only then are they compiled for
/// the same set.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),+>)? ($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body $(::<$($generic),+>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body $(::<$($generic),+>)? ($($arg),*)
                }
                match $crate::isa::isa() {
                    // SAFETY: `isa` found all features of the function on this processor.
                    $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 => unsafe { return avx512 $(::<$($generic),+>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => unsafe { return avx2 $(::<$($generic),+>)? ($($arg),*) },
                    $crate::isa::Isa::Baseline => {}
                }
            }
            body $(::<$($generic),+>)? ($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
pub(crate) mod tests;
