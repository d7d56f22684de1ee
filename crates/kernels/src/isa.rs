//! Instruction sets: which one this processor has, and functions compiled once for each.

use std::sync::OnceLock;

/// The instruction sets that kernels are compiled for, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub enum Isa {
    /// What every processor of the compilation target has.
    Baseline,
    /// AVX2 and FMA: 8 floats at once.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 floats at once.
    Avx512,
    /// AVX-512 and its bf16 dot product.
    Avx512Bf16,
}

/// What sets the instruction sets apart: a row each.
struct Row {
    name: &'static str,
    /// Columns of a tile, which is the width of the right operand's panels.
    columns: usize,
    /// Most rows of a tile.
    rows: usize,
}

impl Isa {
    /// Every instruction set, best last.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// A tile's sums take 12 × 2 of the 32 registers of AVX-512, and 6 × 2 of the 16 of AVX2, which
    /// leaves enough for the operands.
    const fn row(self) -> Row {
        match self {
            Self::Baseline => Row { name: "portable", columns: 32, rows: 12 },
            Self::Avx2 => Row { name: "avx2", columns: 16, rows: 6 },
            Self::Avx512 => Row { name: "avx512", columns: 32, rows: 12 },
            Self::Avx512Bf16 => Row { name: "avx512bf16", columns: 32, rows: 12 },
        }
    }

    /// Its name: `portable`, `avx2`, `avx512` or `avx512bf16`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Columns of a tile and of a panel.
    pub(crate) const fn columns(self) -> usize {
        self.row().columns
    }

    /// Most rows of a tile that is `columns` wide.
    pub(crate) const fn rows(columns: usize) -> usize {
        let (mut rows, mut i) = (0, 0);
        while i < Self::ALL.len() {
            let row = Self::ALL[i].row();
            if row.columns == columns {
                rows = row.rows;
            }
            i += 1;
        }
        rows
    }

    /// The best instruction set this processor has.
    pub fn best() -> Self {
        detect()
    }

    /// Makes all kernels of this process use this instruction set instead of the best.
    ///
    /// # Errors
    /// The set that they use, where this processor does not have this one, or kernels have run with
    /// another already: packed operands and results may depend on it.
    pub fn choose(self) -> Result<(), Self> {
        if self > Self::best() {
            return Err(Self::best());
        }
        match *CHOSEN.get_or_init(|| self) {
            chosen if chosen == self => Ok(()),
            chosen => Err(chosen),
        }
    }
}

/// What kernels use, from the first call on.
static CHOSEN: OnceLock<Isa> = OnceLock::new();

/// Whether the kernels use the fused multiply-adds on vectors that they are written for. Without
/// them they work, slowly.
pub fn fast() -> bool {
    cfg!(target_arch = "aarch64") || isa() > Isa::Baseline
}

/// Whether the kernels multiply bf16 faster than f32. Elsewhere bf16 is widened to f32 before each
/// multiplication, which makes it slower than f32.
pub fn fast_bf16() -> bool {
    isa() == Isa::Avx512Bf16
}

/// The instruction set that kernels use: the best this processor has, unless [`Isa::choose`] chose
/// another.
pub fn isa() -> Isa {
    #[cfg(test)]
    if let Some(isa) = tests::forced() {
        return isa;
    }
    *CHOSEN.get_or_init(detect)
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
/// the same set. A name after the generic parameters, as `NR` in `<E: Element; NR>`, is a constant:
/// the columns of a tile of the instruction set.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),+ $(; $columns:ident)?>)? ($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($generic: $bound),+ $(, const $columns: usize)?>)? ($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body $(::<$($generic),+ $(, { $crate::isa::columns!($columns, Avx512) })?>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    body $(::<$($generic),+ $(, { $crate::isa::columns!($columns, Avx2) })?>)? ($($arg),*)
                }
                match $crate::isa::isa() {
                    // SAFETY: `isa` found all features of the function on this processor.
                    $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 => unsafe { return avx512 $(::<$($generic),+>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => unsafe { return avx2 $(::<$($generic),+>)? ($($arg),*) },
                    $crate::isa::Isa::Baseline => {}
                }
            }
            body $(::<$($generic),+ $(, { $crate::isa::columns!($columns, Baseline) })?>)? ($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// The columns of a tile of an instruction set, for a constant of [`multiversion`].
macro_rules! columns {
    ($columns:ident, $isa:ident) => {
        $crate::isa::Isa::$isa.columns()
    };
}
pub(crate) use columns;

/// Columns of the widest tile.
pub(crate) const MOST_COLUMNS: usize = 32;
/// Rows of the highest tile.
pub(crate) const MOST_ROWS: usize = 12;

#[cfg(test)]
pub(crate) mod tests;
