//! Sampling and objective apart: when to resample and when to reweight.

use cuvee_mixer::seed::{CounterRng, derive};

use super::Aim;
use super::descent::{Smooth, descend};
use super::objective::Objective;
use super::search::given;
use crate::error::{Result, SearchError};
use crate::law::Fitted;
use crate::shares::{Bounds, dirichlet};

const RANDOM_STARTS: u64 = 8;
const STEPS: usize = 2000;
const TOLERANCE: f64 = 1e-6;

/// p and α, and what the laws say of them.
#[derive(Clone, Debug, PartialEq)]
pub struct TwoKnobs {
    /// p, shares of the tokens drawn. `[K]`
    pub sampling: Vec<f64>,
    /// α, shares of the objective. `[K]`
    pub objective: Vec<f64>,
    /// Σ ω L there, in nats.
    pub predicted: f64,
    /// As [`Proposal::gap`](super::Proposal::gap).
    pub gap: f64,
}

/// The p and α with the least Σ ω L(α, p) + ½ κ (KL(p ‖ prior) + KL(α ‖ prior)). Caps hold p alone:
/// a domain that has too few tokens can be counted more instead of being repeated.
///
/// # Errors
/// As [`propose`](super::propose); also where a law has no slope.
pub fn propose_two_knobs(laws: &[Box<dyn Fitted>], aim: &Aim, seed: u64) -> Result<TwoKnobs> {
    let objective = Objective::new(laws, aim)?;
    let count = objective.bounds.domains();
    let free = Bounds::new(aim.floor, &vec![1.0; count])?;
    let rng = CounterRng::new(derive(seed, "two-knobs"));
    let mut starts = given(&objective);
    starts.extend((0..RANDOM_STARTS).map(|i| dirichlet(rng.nested(i), &vec![1.0; count])));
    let both = Both(&objective);
    let ends = starts.iter().map(|start| {
        let start: Vec<f64> = start.iter().chain(start).copied().collect();
        descend(&both, &[&objective.bounds, &free], &start, TOLERANCE, STEPS)
    });
    let best = ends.min_by(|a, b| a.value.total_cmp(&b.value)).filter(|end| end.gap.is_finite());
    let Some(end) = best else {
        return Err(SearchError::BadValue {
            expected: "laws with a slope".to_owned(),
            found: "a law without, or no number".to_owned(),
            place: "the search over sampling and objective".to_owned(),
            hint: "take the law two-knob",
        });
    };
    let [sampling, weights] = both.halves(&end.at);
    let point = objective.point(sampling.clone(), weights.clone());
    Ok(TwoKnobs { sampling, objective: weights, predicted: objective.loss(&point), gap: end.gap })
}

/// p of the groups, then α.
struct Both<'a>(&'a Objective<'a>);

impl Both<'_> {
    fn halves(&self, at: &[f64]) -> [Vec<f64>; 2] {
        let (sampling, objective) = at.split_at(at.len() / 2);
        [sampling, objective].map(|groups| self.0.groups.expand(groups))
    }
}

impl Smooth for Both<'_> {
    fn value(&self, at: &[f64]) -> f64 {
        let [sampling, objective] = self.halves(at);
        let pull = 0.5 * (self.0.pull(&sampling) + self.0.pull(&objective));
        self.0.loss(&self.0.point(sampling, objective)) + pull
    }

    fn slope(&self, at: &[f64]) -> Option<Vec<f64>> {
        let halves = self.halves(at);
        let pulls = halves.each_ref().map(|shares| self.0.pull_slope(shares));
        let [sampling, objective] = halves;
        let slopes = self.0.loss_slopes(&self.0.point(sampling, objective))?;
        let with_pull = |(slope, pull): (Vec<f64>, Vec<f64>)| {
            let sum: Vec<f64> = slope.iter().zip(&pull).map(|(s, p)| s + 0.5 * p).collect();
            self.0.groups.pull_back(&sum)
        };
        Some(slopes.into_iter().zip(pulls).flat_map(with_pull).collect())
    }
}
