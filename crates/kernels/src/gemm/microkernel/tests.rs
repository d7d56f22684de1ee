//! Every microkernel of this processor against the portable one.

use super::*;
use crate::isa::tests::{available, on};

/// `count` numbers between −1 and 1 as units.
fn units<E: Element>(count: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut number = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        E::narrow((state >> 40) as f32 / 8_388_608.0 - 1.0)
    };
    (0..count).map(|_| E::unit(number(), number())).collect()
}

/// The microkernel of `isa` against the portable one, for each number of rows and both layouts of
/// the left operand. They take the same fused steps in the same order, so the bits agree, unless
/// the set is `loose`: then to the rounding of a sum of `2 · units` terms of at most 1.
fn matches_portable<E: Element, const NR: usize>(isa: Isa, loose: bool) {
    let most = tile_rows::<NR>();
    for count in [0, 1, 2, 7, 16, 64, 83] {
        let rows = units::<E>(most * (count + 3), 1);
        let (panel, right) = (units::<E>(count * NR, 2), units::<E>(count * NR, 3));
        let layouts = [
            LeftOperand {
                start: rows.as_ptr().cast(),
                row_stride: 4 * (count + 3),
                unit_stride: 4,
            },
            LeftOperand { start: panel.as_ptr().cast(), row_stride: 4, unit_stride: 4 * NR },
        ];
        for left in layouts {
            for height in 1..=most {
                for mode in [StoreMode::Store, StoreMode::Add, StoreMode::Round] {
                    let run = |microkernel: Microkernel| {
                        let mut tile = Tile([[9.0; NR]; MOST_ROWS]);
                        let width = if mode == StoreMode::Round { size_of::<E>() } else { 4 };
                        let out =
                            TileOutput { stride: NR * width, mode, ..TileOutput::tile(&mut tile) };
                        // SAFETY: both sides have `count` units, and a tile is as large as can
                        // be.
                        unsafe { microkernel(height, count, left, right.as_ptr(), out) };
                        let bytes = bytemuck::cast_slice::<f32, u8>(tile.0.as_flattened());
                        let (put, rest) = bytes.split_at(height * NR * width);
                        let nine = 9f32.to_ne_bytes();
                        assert!(
                            rest.chunks_exact(4).all(|bytes| bytes == nine),
                            "{mode:?} goes beyond {height} rows"
                        );
                        match mode {
                            StoreMode::Round => bytemuck::cast_slice::<u8, E>(put)
                                .iter()
                                .map(|x| x.widen())
                                .collect(),
                            _ => bytemuck::cast_slice::<u8, f32>(put).to_vec(),
                        }
                    };
                    let expected: Vec<f32> = run(portable::<E, NR>);
                    let found = run(on(isa, microkernel::<E, NR>));
                    // Sums that lie on both sides of the middle between two numbers round to
                    // neighbours.
                    let step = if mode == StoreMode::Round { 1.0 / 128.0 } else { f32::EPSILON };
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let bound = if loose {
                            (4 * count * count) as f32 * f32::EPSILON + step * expected.abs()
                        } else {
                            0.0
                        };
                        let off = (found - expected).abs();
                        assert!(
                            off <= bound,
                            "{isa:?}, {mode:?}, {height} rows, {count} units, sum {i}: off by {off:e}"
                        );
                    }
                }
            }
        }
    }
}

/// `$test` with the columns of each available instruction set's tiles as a constant.
macro_rules! for_each_set {
    (|$isa:ident, $columns:ident| $test:expr) => {
        for $isa in available() {
            macro_rules! with {
                ($set:ident) => {{
                    const $columns: usize = Isa::$set.columns();
                    $test
                }};
            }
            match $isa {
                Isa::Baseline => with!(Baseline),
                Isa::Avx2 => with!(Avx2),
                Isa::Avx512 => with!(Avx512),
                Isa::Avx512Bf16 => with!(Avx512Bf16),
            }
        }
    };
}

#[test]
fn every_microkernel_is_the_portable_one() {
    for_each_set!(|isa, NR| {
        matches_portable::<f32, NR>(isa, false);
        matches_portable::<bf16, NR>(isa, isa == Isa::Avx512Bf16);
    });
}

/// Row r is 1 at unit r and 0 elsewhere: its sums are the right side's row r.
fn takes_each_unit<const NR: usize>(isa: Isa) {
    let most = tile_rows::<NR>();
    let mut left = vec![0f32; most * most];
    (0..most).for_each(|r| left[r * most + r] = 1.0);
    let right: Vec<f32> = (0..most * NR).map(|i| i as f32).collect();
    let mut tile = Tile::<NR>::ZERO;
    let rows = LeftOperand { start: left.as_ptr().cast(), row_stride: 4 * most, unit_stride: 4 };
    let microkernel = on(isa, microkernel::<f32, NR>);
    // SAFETY: both sides have as many units as a tile has rows.
    unsafe {
        microkernel(most, most, rows, right.as_ptr().cast(), TileOutput::tile(&mut tile));
    }
    assert_eq!(tile.0[..most].as_flattened(), right, "{isa:?}");
}

#[test]
fn a_microkernel_takes_each_unit_of_its_row_and_lane() {
    for_each_set!(|isa, NR| takes_each_unit::<NR>(isa));
}
