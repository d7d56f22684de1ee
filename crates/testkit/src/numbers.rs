//! Numbers of numeric tests, and how far results may be from them.

/// Largest relative error of rounding to f32.
pub const U32: f64 = 1.0 / 16_777_216.0; // 2⁻²⁴
/// Relative error that `exp` of the processor's kernels promises; a GPU's is smaller.
pub const EXP: f64 = 1.0 / 4_194_304.0; // 2⁻²²

/// The `i`th of a seed's numbers between −1 and 1 (SplitMix64; Steele et al., 2014).
pub fn number(seed: u64, i: usize) -> f32 {
    let mut z = (seed << 32 | i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 40) as f32 / 8_388_608.0 - 1.0
}

/// The first `len` of them.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    (0..len).map(|i| number(seed, i)).collect()
}

/// Every element within its own bound of what is expected.
#[track_caller]
pub fn close(what: &str, found: &[f64], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let (off, bound) = ((found - expected).abs(), bound(i));
        assert!(
            off <= bound,
            "{what}, element {i}: {found} against {expected}, off by {off:e}, bound {bound:e}"
        );
    }
}
