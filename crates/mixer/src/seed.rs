//! Named sub-seeds and counter-based random numbers.
//!
//! In: one root seed of a run, and names (`"data"`, `"init"`, `"order"`, a domain's or a
//! parameter's name). Out: 64-bit numbers that depend on nothing but (seed, names, counter), so
//! that any one of them is computed at random and nothing has to be stored or replayed on resume.
//! Cost: a few nanoseconds a number. Not cryptographic: it decorrelates, it does not hide.
//!
//! ```
//! use cuvee_mixer::seed::{self, CounterRng};
//!
//! let init = seed::derive(7, seed::INIT);
//! assert_ne!(init, seed::derive(7, seed::ORDER));
//! let rng = CounterRng::new(seed::derive(init, "model.embed_tokens.weight"));
//! assert_eq!(rng.unit(41), rng.unit(41)); // the 41st number, whenever it is asked for
//! ```

/// Sub-seed of the draws of a batch: how many sequences of each domain.
pub const DATA: &str = "data";
/// Sub-seed of the steps at which gradient statistics are collected.
pub const COLLECT: &str = "collect";
/// Sub-seed of parameter initialisation.
pub const INIT: &str = "init";
/// Sub-seed of the order of windows within each domain.
pub const ORDER: &str = "order";
/// Sub-seed of the order of documents within each domain, where it changes from epoch to epoch.
pub const DOCUMENTS: &str = "documents";

/// 2⁶⁴ divided by the golden ratio, made odd: consecutive multiples are spread evenly over 64 bits.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Derives the sub-seed called `name` from `seed`.
///
/// A hash of (seed, length of the name, its UTF-8 bytes), stable across versions and machines:
/// checkpoints rely on it. Nest it for finer keys: `derive(derive(seed, ORDER), domain_name)`.
pub fn derive(seed: u64, name: &str) -> u64 {
    let mut state = mix(seed ^ GOLDEN).wrapping_add(name.len() as u64);
    for chunk in name.as_bytes().chunks(8) {
        let mut word = [0u8; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state.wrapping_add(GOLDEN) ^ u64::from_le_bytes(word));
    }
    mix(state)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number
/// generators*, 2014, with Stafford's constants "Mix13"): a bijection of 64 bits in which each
/// input bit flips about half of the output.
pub fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Random numbers addressed by a counter: number `i` is a pure function of (key, i).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRng {
    key: u64,
}

impl CounterRng {
    /// The sequence of numbers that belongs to `key`, best made with [`derive()`].
    pub fn new(key: u64) -> Self {
        Self { key }
    }

    /// The sequence that belongs to number `index` of this one: for two counters, such as (step,
    /// sequence).
    pub fn nested(&self, index: u64) -> Self {
        Self::new(self.bits(index))
    }

    /// Number `index`: 64 uniform bits.
    ///
    /// Two rounds of [`mix`] with the key entering before each, since one round would make
    /// sequences of keys that differ by a multiple of the golden constant shifted copies of each
    /// other.
    pub fn bits(&self, index: u64) -> u64 {
        let counter = index.wrapping_add(1).wrapping_mul(GOLDEN);
        mix(mix(counter ^ self.key).wrapping_add(self.key.rotate_left(32)))
    }

    /// Number `index` as a uniform value in [0, 1), a multiple of 2⁻⁵³.
    pub fn unit(&self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Numbers 2·`index` and 2·`index` + 1 as two independent draws from N(0, 1), by Box & Muller
    /// (1958): √(−2 ln u)·cos 2πv and √(−2 ln u)·sin 2πv of uniform u and v.
    pub fn normal_pair(&self, index: u64) -> (f64, f64) {
        let first = index.wrapping_mul(2);
        let u = 1.0 - self.unit(first); // (0, 1]: its logarithm is finite
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit(first.wrapping_add(1))).sin_cos();
        (radius * cos, radius * sin)
    }

    /// The first of [`normal_pair`](Self::normal_pair): number `index` of a sequence of independent
    /// draws from N(0, 1).
    pub fn normal(&self, index: u64) -> f64 {
        self.normal_pair(index).0
    }

    /// Number `index` as a uniform integer in [0, `bound`); 0 where `bound` is 0.
    ///
    /// The high half of a 128-bit product: no division, and a bias of at most `bound` / 2⁶⁴.
    pub fn below(&self, index: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn derived_seeds_are_pinned() {
        // Golden: a change here silently reorders the data of every existing checkpoint.
        let found = [
            derive(0, ""),
            derive(0, DATA),
            derive(1, DATA),
            derive(0, "a domain with a long name"),
        ];
        assert_eq!(found, GOLDEN_SEEDS, "found {found:#018x?}");
        assert_eq!(
            CounterRng::new(7).bits(0),
            GOLDEN_BITS,
            "found {:#018x}",
            CounterRng::new(7).bits(0)
        );
    }

    // From the same formulas written in Python with 64-bit masks.
    const GOLDEN_SEEDS: [u64; 4] = [
        0x4821_8226_FF3C_D4BF,
        0xE5C1_0661_B1DE_B44F,
        0xA57D_F86A_4E70_07CA,
        0xA8E5_7796_77DB_F2E6,
    ];
    const GOLDEN_BITS: u64 = 0x3483_3F2B_28E9_2BD8;

    #[test]
    fn names_and_seeds_give_distinct_sub_seeds() {
        let mut seen = HashSet::new();
        for seed in 0..200 {
            for name in
                ["", "\0", "\0\0", "data", "init", "order", "eval", "abcdefgh", "abcdefgh\0"]
            {
                assert!(seen.insert(derive(seed, name)), "{seed} {name:?} collides");
            }
        }
    }

    #[test]
    fn numbers_are_uniform() {
        // Mean of N uniforms: 0.5 ± 5σ with σ = 1/√(12 N); each of 10 bins: N/10 ± 5 √(N·0.09).
        let rng = CounterRng::new(derive(3, "uniform"));
        let total = 20_000u64;
        let (mut sum, mut bins) = (0.0, [0u64; 10]);
        for i in 0..total {
            sum += rng.unit(i);
            bins[rng.below(i, 10) as usize] += 1;
        }
        let n = total as f64;
        assert!((sum / n - 0.5).abs() < 5.0 / (12.0 * n).sqrt());
        for bin in bins {
            assert!((bin as f64 - n / 10.0).abs() < 5.0 * (n * 0.09).sqrt(), "{bins:?}");
        }
    }

    #[test]
    fn neighbouring_keys_are_uncorrelated() {
        // Correlation of N independent pairs has σ = 1/√N.
        let (a, b) = (CounterRng::new(1), CounterRng::new(1u64.wrapping_add(GOLDEN)));
        let n = 10_000u64;
        for lag in 0..3 {
            let sum: f64 = (0..n).map(|i| (a.unit(i + lag) - 0.5) * (b.unit(i) - 0.5)).sum();
            let correlation = sum / n as f64 * 12.0;
            assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "lag {lag}: {correlation}");
        }
    }

    #[test]
    fn normal_pairs_have_their_moments_and_are_uncorrelated() {
        // N = 40,000: the mean has σ = 1/√N, the variance √(2/N), the fourth moment √(96/N), the
        // mean product of independent draws 1/√N; bounds at 5σ.
        let rng = CounterRng::new(derive(4, "normal"));
        let pairs: Vec<(f64, f64)> = (0..20_000).map(|i| rng.normal_pair(i)).collect();
        let all: Vec<f64> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let (n, root) = (all.len() as f64, (all.len() as f64).sqrt());
        let moment = |k: i32| all.iter().map(|x| x.powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 5.0 / root);
        assert!((moment(2) - 1.0).abs() < 5.0 * 2f64.sqrt() / root);
        assert!((moment(4) - 3.0).abs() < 5.0 * 96f64.sqrt() / root);
        let product = pairs.iter().map(|(a, b)| a * b).sum::<f64>() / pairs.len() as f64;
        assert!(product.abs() < 5.0 / (pairs.len() as f64).sqrt());
        assert_eq!(rng.normal(7), rng.normal_pair(7).0);
    }

    #[test]
    fn below_stays_below() {
        let rng = CounterRng::new(9);
        assert_eq!(rng.below(0, 0), 0);
        assert_eq!(rng.below(0, 1), 0);
        assert!((0..1000).all(|i| rng.below(i, 3) < 3));
        assert!((0..1000).all(|i| rng.nested(4).unit(i) < 1.0));
    }
}
