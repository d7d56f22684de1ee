//! Each domain's part of the predicted gain.

use super::Aim;
use super::objective::Objective;
use crate::error::Result;
use crate::law::Fitted;
use crate::shares::between;

/// Places along the line at which the slope is taken: Gauss–Legendre's five in each of so many
/// pieces.
const PIECES: usize = 16;
const NODES: [(f64, f64); 5] = [
    (0.0, 128.0 / 225.0),
    (0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (-0.538_469_310_105_683_1, 0.478_628_670_499_366_47),
    (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
];

/// Step of a difference where a law has no slope.
const STEP: f64 = 0.02;

/// Each domain's part of Σ ω L(from) − Σ ω L(to), whose sum it is. `[K]`
///
/// It is the integral along the straight line between the two (Aumann & Shapley's value): part_i =
/// − ∫ (to_i − from_i) (∂L/∂r_i − Σ_j r_j ∂L/∂r_j) dt. What is in brackets is what a share of
/// domain i brings when all others give it in proportion, so that a part does not depend on what is
/// added to all slopes. Where a law has no slope, differences over shares of 0.02 stand for it;
/// what the sum is off by is spread in proportion to the parts' sizes.
///
/// # Errors
/// As [`propose`](super::propose).
pub fn parts_of_gain(
    laws: &[Box<dyn Fitted>],
    aim: &Aim,
    from: &[f64],
    to: &[f64],
) -> Result<Vec<f64>> {
    let objective = Objective::new(laws, aim)?;
    let loss = |shares: &[f64]| objective.loss(&objective.point(shares.to_vec(), shares.to_vec()));
    let mut parts = vec![0.0; from.len()];
    for piece in 0..PIECES {
        for (node, weight) in NODES {
            let t = (piece as f64 + 0.5 + 0.5 * node) / PIECES as f64;
            let at = between(from, to, t);
            let slope = slope(&objective, &at);
            let mean: f64 = at.iter().zip(&slope).map(|(r, g)| r * g).sum();
            for i in 0..parts.len() {
                let step = (to[i] - from[i]) * 0.5 * weight / PIECES as f64;
                parts[i] -= step * (slope[i] - mean);
            }
        }
    }
    let gain = loss(from) - loss(to);
    let (sum, size) = (parts.iter().sum::<f64>(), parts.iter().map(|p| p.abs()).sum::<f64>());
    let off = gain - sum;
    let moved: f64 = from.iter().zip(to).map(|(a, b)| (a - b).abs()).sum();
    for (i, part) in parts.iter_mut().enumerate() {
        *part += match size > 0.0 {
            true => off * part.abs() / size,
            false if moved > 0.0 => off * (to[i] - from[i]).abs() / moved,
            false => 0.0,
        };
    }
    Ok(parts)
}

/// The slope of Σ ω L with p = α, by differences towards each domain where a law has none.
fn slope(objective: &Objective, at: &[f64]) -> Vec<f64> {
    let point = objective.point(at.to_vec(), at.to_vec());
    if let Some([sampling, objective]) = objective.loss_slopes(&point) {
        return sampling.iter().zip(&objective).map(|(p, alpha)| p + alpha).collect();
    }
    let here = objective.loss(&point);
    let towards = |i: usize| {
        let mut alone = vec![0.0; at.len()];
        alone[i] = 1.0;
        let moved = between(at, &alone, STEP);
        (objective.loss(&objective.point(moved.clone(), moved)) - here) / STEP
    };
    (0..at.len()).map(towards).collect()
}
