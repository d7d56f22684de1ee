//! Which window of a domain's token stream comes next: every window once an epoch, in pseudo-random
//! order.
//!
//! In: (seed, domain *name*, tokens, context) and a position, the number of windows consumed
//! before. Out: the window. Nothing is stored: any position is computed in tens of nanoseconds, at
//! any token count. Neither other domains nor the domain's place in the list enter, so changing the
//! mixture or adding a domain leaves the order as it is. Costs: up to `context` − 1 tokens of a
//! stream of T, the remainder of T / context, are dropped each epoch; the grid's shift moves them
//! about.

use crate::seed::{self, CounterRng};

/// The order of windows of one domain.
///
/// The stream of T tokens is a circle. Epoch e cuts n = ⌊T / context⌋ windows of `context` + 1
/// tokens from it, window k starting at (shift_e + k · context) mod T, with shift_e uniform in [0,
/// T). Consecutive windows share one token: the last target of one is the first input of the next,
/// so each token is predicted at most once an epoch.
///
/// ```
/// use cuvee_mixer::WindowOrder;
///
/// let order = WindowOrder::new(0, "web", 1_000, 100);
/// assert_eq!(order.windows(), 10);
/// assert_eq!(order.window(23).epoch, 2);
/// ```
#[derive(Clone, Debug)]
pub struct WindowOrder {
    rng: CounterRng,
    tokens: u64,
    context: u64,
    windows: u64,
}

/// One window of a domain's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pass over the domain, from 0.
    pub epoch: u64,
    /// Place k in the epoch's grid, in 0..n.
    pub window: u64,
    /// First token of the window in the circular stream, in 0..T.
    pub start: u64,
}

impl WindowOrder {
    /// The order for the domain `name` under a root seed. A context or a stream of 0 counts as 1
    /// token.
    pub fn new(seed: u64, name: &str, tokens: u64, context: usize) -> Self {
        let (tokens, context) = (tokens.max(1), (context as u64).max(1));
        Self {
            rng: CounterRng::new(seed::derive(seed::derive(seed, seed::ORDER), name)),
            tokens,
            context,
            windows: (tokens / context).max(1),
        }
    }

    /// Windows in an epoch, at least 1.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// The window that comes after `consumed` others.
    pub fn window(&self, consumed: u64) -> Window {
        let epoch = consumed / self.windows;
        let keys = self.rng.nested(epoch);
        let window = permute(&keys, self.windows, consumed % self.windows);
        let shift = keys.below(SHIFT, self.tokens);
        let start = (u128::from(shift) + u128::from(window) * u128::from(self.context))
            % u128::from(self.tokens);
        Window { epoch, window, start: start as u64 }
    }
}

/// Counter of an epoch's shift; the counters below it key the rounds of its permutation.
const SHIFT: u64 = ROUNDS;

/// Half-rounds of the Feistel network. Four full rounds make a strong pseudo-random permutation of
/// good round functions (Luby, Rackoff, 1988).
const ROUNDS: u64 = 8;

/// Element `index` of a pseudo-random permutation of 0..n, for `index` < n.
///
/// A Feistel network over the smallest power of two ≥ n, whose two parts may differ by a bit and
/// take turns in being mixed with a hash of the other: a bijection for any hash. Values ≥ n are
/// sent through again until one is < n ("cycle-walking", Black, Rogaway, *Ciphers with arbitrary
/// finite domains*, 2002): still a bijection, fewer than two passes on average.
pub(crate) fn permute(keys: &CounterRng, n: u64, index: u64) -> u64 {
    let bits = 64 - n.saturating_sub(1).leading_zeros();
    let right_bits = bits - bits / 2;
    let mask = |bits: u32| (1u64 << bits) - 1; // bits ≤ 32
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> right_bits, value & mask(right_bits));
        for round in 0..ROUNDS / 2 {
            left ^= hash(keys.bits(2 * round), right) & mask(bits / 2);
            right ^= hash(keys.bits(2 * round + 1), left) & mask(right_bits);
        }
        value = left << right_bits | right;
        if value < n || n == 0 {
            return value;
        }
    }
}

fn hash(key: u64, value: u64) -> u64 {
    seed::mix(key ^ seed::mix(value.wrapping_add(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// Tokens and context such that an epoch has `n` windows.
    fn order(seed: u64, name: &str, n: u64) -> WindowOrder {
        WindowOrder::new(seed, name, n * 7 + 3, 7)
    }

    fn epoch(order: &WindowOrder, epoch: u64) -> Vec<u64> {
        let n = order.windows();
        (0..n).map(|j| order.window(epoch * n + j).window).collect()
    }

    fn assert_each_window_once(seed: u64, n: u64) {
        let order = order(seed, "web", n);
        for e in 0..3 {
            let mut seen = epoch(&order, e);
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..n), "n = {n}, epoch {e}: {seen:?}");
        }
    }

    #[test]
    fn each_window_once_per_epoch() {
        for n in (1..=70).chain([127, 128, 129, 255, 256, 257, 1000, 4095, 4096, 4097]) {
            assert_each_window_once(5, n);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn each_window_once_per_epoch_for_any_number(seed: u64, n in 1u64..20_000) {
            assert_each_window_once(seed, n);
        }

        #[test]
        fn starts_lie_on_the_circle_at_any_size(tokens in 1u64.., context in 1usize.., consumed: u64) {
            let order = WindowOrder::new(1, "web", tokens, context);
            let window = order.window(consumed);
            prop_assert!(window.start < tokens);
            prop_assert!(window.window < order.windows());
            prop_assert_eq!(window.epoch, consumed / order.windows());
        }

        #[test]
        fn no_token_is_a_target_twice_in_an_epoch(tokens in 2u64..400, context in 1usize..50, seed: u64) {
            prop_assume!(tokens > context as u64);
            let order = WindowOrder::new(seed, "web", tokens, context);
            let mut targets = HashSet::new();
            for j in 0..order.windows() {
                let start = order.window(j).start;
                for offset in 1..=context as u64 {
                    prop_assert!(targets.insert((start + offset) % tokens));
                }
            }
            prop_assert!(tokens - (targets.len() as u64) < context as u64);
        }
    }

    #[test]
    fn epochs_seeds_and_names_differ() {
        let base = order(1, "web", 500);
        let others =
            [epoch(&base, 1), epoch(&order(2, "web", 500), 0), epoch(&order(1, "code", 500), 0)];
        for other in others {
            // Two independent permutations agree in Poisson(1) places: 12 or more have probability
            // below 10⁻⁸.
            let same = epoch(&base, 0).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of 500 in the same place");
        }
        let shifts: HashSet<u64> = (0..20)
            .map(|e| {
                let first = base.window(e * 500);
                (first.start + base.tokens - first.window * 7 % base.tokens) % base.tokens
            })
            .collect();
        assert!(shifts.len() > 15, "the grid shifts each epoch: {shifts:?}");
    }

    #[test]
    fn small_permutations_all_occur() {
        let order = order(3, "web", 3);
        let seen: HashSet<Vec<u64>> = (0..200).map(|e| epoch(&order, e)).collect();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn the_order_looks_random() {
        for n in [50u64, 512, 1000, 3000] {
            let order = order(7, "web", n);
            let (epochs, nf) = (20u64, n as f64);
            let (mut displacement, mut ascents) = (0.0, 0.0);
            for e in 0..epochs {
                let visited = epoch(&order, e);
                displacement += visited
                    .iter()
                    .enumerate()
                    .map(|(j, window)| (j as f64 - *window as f64).abs())
                    .sum::<f64>();
                ascents += visited.windows(2).filter(|pair| pair[1] > pair[0]).count() as f64;
            }
            // Of a random permutation: Σ|π(j) − j| has mean (n² − 1)/3 and variance (n + 1)(2n² +
            // 7)/45 (Spearman's footrule; Diaconis, Graham, 1977); ascents have mean (n − 1)/2 and
            // variance (n + 1)/12. Five deviations.
            let count = epochs as f64;
            let (mean, variance) =
                ((nf * nf - 1.0) / 3.0, (nf + 1.0) * (2.0 * nf * nf + 7.0) / 45.0);
            assert!((displacement - count * mean).abs() < 5.0 * (count * variance).sqrt(), "{n}");
            let (mean, variance) = ((nf - 1.0) / 2.0, (nf + 1.0) / 12.0);
            assert!((ascents - count * mean).abs() < 5.0 * (count * variance).sqrt(), "{n}");
        }
    }

    #[test]
    fn the_order_is_pinned() {
        // Golden: a change here silently reorders the data of every existing checkpoint.
        let order = WindowOrder::new(42, "web", 1_003, 100);
        let found: Vec<(u64, u64)> = [0, 1, 2, 9, 10]
            .iter()
            .map(|c| (order.window(*c).window, order.window(*c).start))
            .collect();
        // From the same formulas written in Python with 64-bit masks.
        assert_eq!(found, [(1, 740), (6, 237), (7, 337), (5, 137), (5, 143)]);
    }
}
