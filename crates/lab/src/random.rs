//! Random numbers of a study: counter-based, so that a seed's data and batches do not depend on
//! which thread runs it.

use cuvee_mixer::seed::{self, CounterRng};

/// The random numbers called `name` of seed number `index` under the root seed `root`.
pub(crate) fn stream(root: u64, index: u64, name: &str) -> CounterRng {
    CounterRng::new(seed::derive(seed::derive(root, name).wrapping_add(seed::mix(index)), name))
}

/// The first `count` numbers of N(0, variance).
pub(crate) fn normals(rng: &CounterRng, count: usize, variance: f64) -> Vec<f64> {
    let scale = variance.sqrt();
    (0..count as u64).map(|index| scale * rng.normal(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_their_moments() {
        // N = 40,000: the mean has σ = 1/√N, the variance √(2/N), the fourth moment √(96/N); bounds
        // at 5σ.
        let n = 40_000;
        let draws = normals(&stream(1, 0, "test"), n, 1.0);
        let moment = |k: i32| draws.iter().map(|x| x.powi(k)).sum::<f64>() / n as f64;
        let root = (n as f64).sqrt();
        assert!(moment(1).abs() < 5.0 / root);
        assert!((moment(2) - 1.0).abs() < 5.0 * 2f64.sqrt() / root);
        assert!((moment(4) - 3.0).abs() < 5.0 * 96f64.sqrt() / root);
    }

    #[test]
    fn streams_differ_by_name_and_index() {
        let first = stream(1, 0, "a").bits(0);
        for other in [stream(1, 0, "b"), stream(1, 1, "a"), stream(2, 0, "a")] {
            assert_ne!(first, other.bits(0));
        }
    }
}
