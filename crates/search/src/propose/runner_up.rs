//! The best proposal that is far from the first.

use cuvee_mixer::seed::{CounterRng, derive};

use super::descent::{Smooth, descend};
use super::objective::Objective;
use super::search::given;
use super::{Aim, Proposal};
use crate::error::Result;
use crate::law::Fitted;
use crate::shares::{dirichlet, total_variation};

/// Directions that are tried besides those of the given mixtures.
const DIRECTIONS: u64 = 64;

/// Rounds of descending and being pushed away again, and steps in each.
const ROUNDS: usize = 40;
const STEPS: usize = 3;

/// Of the mixtures at least `distance` from `first` in total variation, the best that is found:
/// from many directions, in turn descending and being pushed off to the distance. `None` where no
/// mixture within the bounds is so far.
///
/// The second of two mixtures that the laws like is run beside the first: the laws may be wrong
/// about one.
///
/// # Errors
/// As [`propose`](super::propose).
pub fn runner_up(
    laws: &[Box<dyn Fitted>],
    aim: &Aim,
    first: &[f64],
    distance: f64,
    seed: u64,
) -> Result<Option<Proposal>> {
    let objective = Objective::new(laws, aim)?;
    let first = objective.bounds.project(&objective.groups.collapse(first));
    let rng = CounterRng::new(derive(seed, "runner-up"));
    let far = |groups: &[f64]| pushed(&objective, &first, groups, distance);
    let even = vec![1.0; first.len()];
    let mut directions = given(&objective);
    directions.extend(corners(&objective));
    directions.extend((0..DIRECTIONS).map(|i| dirichlet(rng.nested(i), &even)));
    let mut starts: Vec<(f64, Vec<f64>)> = directions
        .iter()
        .filter_map(|direction| far(&objective.bounds.project(direction)))
        .map(|start| (objective.value(&start), start))
        .collect();
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let improved = starts.into_iter().take(8).map(|(mut value, mut at)| {
        for _ in 0..ROUNDS {
            let end = descend(&objective, &[&objective.bounds], &at, 1e-7, STEPS);
            let Some(moved) = far(&end.at) else { break };
            let reached = Smooth::value(&objective, &moved);
            if reached >= value - 1e-9 {
                break;
            }
            (value, at) = (reached, moved);
        }
        (value, at)
    });
    let best = improved.min_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.map(|(_, at)| objective.proposal(&at, None)))
}

/// One group alone, as far as the bounds let it.
fn corners(objective: &Objective) -> Vec<Vec<f64>> {
    let corner = |group: usize| {
        let mut price = vec![0.0; objective.bounds.domains()];
        price[group] = -1.0;
        objective.bounds.cheapest(&price)
    };
    (0..objective.bounds.domains()).map(corner).collect()
}

/// `groups`, or where the line from `first` through it is at the distance; `None` where that is
/// outside the bounds.
fn pushed(objective: &Objective, first: &[f64], groups: &[f64], distance: f64) -> Option<Vec<f64>> {
    let tv = |shares: &[f64]| {
        total_variation(&objective.groups.expand(shares), &objective.groups.expand(first))
    };
    let now = tv(groups);
    if now >= distance {
        // Back to the distance: nearer to the first is nearer to the best.
        let part = distance / now;
        return Some(first.iter().zip(groups).map(|(a, b)| a + part * (b - a)).collect());
    }
    if now < 1e-6 {
        return None;
    }
    let along = distance / now;
    let raw: Vec<f64> = first.iter().zip(groups).map(|(a, b)| a + along * (b - a)).collect();
    let moved = objective.bounds.project(&raw);
    (tv(&moved) >= distance - 1e-6).then_some(moved)
}
