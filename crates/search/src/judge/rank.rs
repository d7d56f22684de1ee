//! Ranks: how far the order of predictions is that of the losses.

use cuvee_mixer::seed::{self, CounterRng};

/// Ranks from 0, equal values sharing the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut lower = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = lower as f64 + (tied.len() - 1) as f64 / 2.0;
        tied.iter().for_each(|index| ranks[*index] = mean);
        lower += tied.len();
    }
    ranks
}

/// Spearman's ρ: the correlation of ranks. 0 where one side has a single value.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    correlation(&ranks(a), &ranks(b))
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        both += x * y;
        of_a += x * x;
        of_b += y * y;
    }
    let scale = (of_a * of_b).sqrt();
    if scale > 0.0 { (both / scale).clamp(-1.0, 1.0) } else { 0.0 }
}

/// How many orders a permutation test looks at.
const PERMUTATIONS: u64 = 9_999;

/// How often losses in a random order are ranked at least as well: (1 + hits) / (1 + orders).
///
/// The predictions are held fixed. Held-out predictions of what is no more than noise lean to the
/// wrong side (those of the mean predictor have ρ = −1), so that this errs towards "worthless".
pub fn permutation_p(predicted: &[f64], losses: &[f64], seed: u64) -> f64 {
    let (predicted, mut losses) = (ranks(predicted), ranks(losses));
    // Orders change neither mean nor spread: the product of ranks decides.
    let product =
        |losses: &[f64]| -> f64 { predicted.iter().zip(losses).map(|(a, b)| a * b).sum() };
    // Products of halves of integers are exact: ties count as hits.
    let found = product(&losses);
    let rng = CounterRng::new(seed::derive(seed, "permutation"));
    let mut hits = 0;
    for order in 0..PERMUTATIONS {
        let rng = rng.nested(order);
        for last in (1..losses.len()).rev() {
            losses.swap(last, rng.below(last as u64, last as u64 + 1) as usize);
        }
        hits += u64::from(product(&losses) >= found);
    }
    (1 + hits) as f64 / (1 + PERMUTATIONS) as f64
}

/// The largest Spearman's ρ that can be expected where `reliability` of the losses' variance is not
/// noise, over `n` mixtures: perfect predictions correlate with losses by √reliability, and ranks
/// of n pairs of correlation r have the expectation
/// 6/π · (asin r + (n − 2) asin(r/2)) / (n + 1) (Moran, *Biometrika* 35, 1948).
pub fn spearman_ceiling(reliability: f64, n: usize) -> f64 {
    let (r, n) = (reliability.clamp(0.0, 1.0).sqrt(), n as f64);
    6.0 / std::f64::consts::PI * (r.asin() + (n - 2.0) * (r / 2.0).asin()) / (n + 1.0)
}
