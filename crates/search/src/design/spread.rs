//! Mixtures that are far from each other.

use cuvee_mixer::seed::CounterRng;

use crate::shares::{Bounds, dirichlet};

/// Candidates for each mixture that is chosen.
const CANDIDATES: usize = 16;

/// Weakest and strongest pull of the candidates towards the prior, as the sum of the Dirichlet's
/// concentrations over the number of domains.
const STRENGTHS: [f64; 2] = [0.5, 8.0];

/// `count` mixtures that are far from those `taken` and from each other: each is the candidate
/// whose nearest neighbour is the farthest (max–min), in the distance of the square roots of shares
/// (Hellinger's), in which a small share's doubling counts as much as a large one's.
///
/// Candidates come from Dirichlet(prior · strength), strengths drawn evenly on the logarithm, and
/// are brought within `bounds`.
pub(super) fn spread(
    count: usize,
    prior: &[f64],
    bounds: &Bounds,
    taken: &[Vec<f64>],
    rng: CounterRng,
) -> Vec<Vec<f64>> {
    let candidates: Vec<Vec<f64>> = (0..(CANDIDATES * count).max(256) as u64)
        .map(|i| bounds.project(&candidate(prior, rng.nested(i))))
        .collect();
    let roots: Vec<Vec<f64>> = candidates.iter().map(|shares| roots(shares)).collect();
    let mut distance = vec![f64::INFINITY; candidates.len()];
    let mut keep_off = |from: &[f64]| {
        for (least, candidate) in distance.iter_mut().zip(&roots) {
            *least = least.min(squared_distance(candidate, from));
        }
        (0..distance.len()).max_by(|a, b| distance[*a].total_cmp(&distance[*b]).then(b.cmp(a)))
    };
    let mut next = Some(0);
    for mixture in taken {
        next = keep_off(&self::roots(mixture));
    }
    let mut chosen = Vec::with_capacity(count);
    while let Some(best) = next.filter(|_| chosen.len() < count) {
        chosen.push(candidates[best].clone());
        next = keep_off(&roots[best]);
    }
    chosen
}

/// A mixture drawn around the prior.
fn candidate(prior: &[f64], rng: CounterRng) -> Vec<f64> {
    let [weakest, strongest] = STRENGTHS.map(f64::ln);
    let strength = (weakest + (strongest - weakest) * rng.unit(0)).exp() * prior.len() as f64;
    let concentration: Vec<f64> = prior.iter().map(|share| share * strength).collect();
    dirichlet(rng.nested(1), &concentration)
}

fn roots(shares: &[f64]) -> Vec<f64> {
    shares.iter().map(|share| share.sqrt()).collect()
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
