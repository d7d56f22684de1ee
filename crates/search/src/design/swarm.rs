//! The designs of pilot and swarm.

use cuvee_mixer::seed::{CounterRng, derive};

use super::spread::spread;
use super::{Asked, DesignInput};
use crate::error::{Result, SearchError};
use crate::shares::{Bounds, Groups, between, normalised, total_variation, uniform};

/// Uniform runs of a pilot.
const PILOT_SEEDS: usize = 4;

/// A pilot's skewed mixtures multiply half of the domains' shares by this, and divide the others'.
const SKEW: f64 = 3.0;

/// Mixtures nearer than this in total variation would be told apart by nothing.
const DIFFERENT: f64 = 1e-4;

/// How far p and α of a two-knob run are from each other. The multiplier α/p stays below 1/(1 −
/// this).
const FAR: f64 = 0.75;

/// Weight of the prior where a domain that it gives nothing is to be drawn all the same.
const SOME: f64 = 0.9;

/// Six runs: the uniform mixture from four seeds, a block each, and two skewed mixtures in the
/// first of these blocks. The skewed ones are each other's mirror: half of the domains, drawn by
/// the seed, have three times the shares of the other half's, and the other way round.
///
/// # Errors
/// Fewer than two domains, or caps that cannot fill the run.
pub fn pilot(input: &DesignInput) -> Result<Vec<Asked>> {
    let space = Space::new(input)?;
    let mut runs: Vec<Asked> =
        (0..PILOT_SEEDS).map(|block| space.one_knob("uniform", block, &space.uniform)).collect();
    let rng = CounterRng::new(derive(input.seed, "pilot"));
    let mut order: Vec<usize> = (0..space.groups.len()).collect();
    order.sort_by_key(|group| rng.bits(*group as u64));
    for sign in [1.0, -1.0] {
        let mut raw = space.uniform.clone();
        for (place, group) in order.iter().enumerate() {
            let up = if place % 2 == 0 { sign } else { -sign };
            raw[*group] *= SKEW.powf(up);
        }
        runs.push(space.one_knob("skewed", 0, &space.bounds.project(&raw)));
    }
    Ok(runs)
}

/// `input.runs` runs: the uniform mixture 3 to 5 times, one in each block; the prior; each domain's
/// share of the prior raised by half; each domain left out; and mixtures that are far from all of
/// these. Then `input.two_knob` runs with p ≠ α. Blocks take turns.
///
/// All mixtures but the uniform one differ: what a cap or an even prior would make the same is left
/// out, and more far ones are taken. With fewer runs than raising and leaving out need, there are
/// far ones alone, since half of a list of domains would know nothing of the other half.
///
/// # Errors
/// Fewer than two domains or 3 runs, or caps that cannot fill the run.
pub fn swarm(input: &DesignInput) -> Result<Vec<Asked>> {
    let space = Space::new(input)?;
    let domains = space.groups.len();
    let blocks = (input.runs / 8).clamp(3, 5);
    if input.runs < blocks {
        return Err(SearchError::BadValue {
            expected: format!("at least {blocks} runs"),
            found: input.runs.to_string(),
            place: "the swarm's size".to_owned(),
            hint: "3 runs a domain, and no fewer than 12",
        });
    }
    let mut named = vec![("prior", space.prior.clone())];
    if input.runs >= blocks + 1 + 2 * domains {
        named.extend((0..domains).map(|i| ("raised", space.raised(i))));
        named.extend((0..domains).map(|i| ("left-out", space.left_out(i))));
    }
    let mut taken = vec![space.uniform.clone()];
    let mut runs: Vec<Asked> =
        (0..blocks).map(|block| space.one_knob("uniform", block, &space.uniform)).collect();
    let mut add = |kind: &'static str, mixture: Vec<f64>, runs: &mut Vec<Asked>| {
        let new = taken.iter().all(|other| total_variation(other, &mixture) > DIFFERENT);
        if new && runs.len() < input.runs {
            runs.push(space.one_knob(kind, runs.len() % blocks, &mixture));
            taken.push(mixture);
        }
    };
    named.into_iter().for_each(|(kind, mixture)| add(kind, mixture, &mut runs));
    let taken = taken;
    let rng = CounterRng::new(derive(input.seed, "swarm"));
    let drawn = between(&space.uniform, &space.prior, SOME);
    let far = spread(input.runs - runs.len(), &drawn, &space.bounds, &taken, rng.nested(0));
    for mixture in &far {
        runs.push(space.one_knob("spread", runs.len() % blocks, mixture));
    }
    let pairs = spread(input.two_knob, &drawn, &space.bounds, &taken, rng.nested(1));
    for (number, mixture) in pairs.iter().enumerate() {
        runs.push(space.two_knob(number, runs.len() % blocks, mixture));
    }
    Ok(runs)
}

/// Where mixtures may be: groups of domains, with bounds.
struct Space {
    groups: Groups,
    bounds: Bounds,
    uniform: Vec<f64>,
    prior: Vec<f64>,
}

impl Space {
    fn new(input: &DesignInput) -> Result<Self> {
        let domains = input.prior.len();
        let bad = |expected: &str, found: String, place: &str, hint| SearchError::BadValue {
            expected: expected.to_owned(),
            found,
            place: place.to_owned(),
            hint,
        };
        if domains < 2 {
            let hint = "one domain leaves nothing to search";
            return Err(bad("at least 2 domains", domains.to_string(), "the design", hint));
        }
        let prior = normalised(&input.prior).ok_or_else(|| {
            let found = format!("{:?}", input.prior);
            bad("shares of at least 0, not all 0", found, "the prior", "give token counts")
        })?;
        if input.caps.len() != domains {
            let found = input.caps.len().to_string();
            return Err(bad("a cap for each domain", found, "the caps", "1 where there is none"));
        }
        let groups = Groups::new(&prior, &input.frozen)?;
        if groups.len() < 2 {
            let hint = "leave a domain out of the frozen group";
            return Err(bad("at least 2 groups", "1".to_owned(), "the frozen groups", hint));
        }
        let bounds = Bounds::new(0.0, &groups.caps(&input.caps))?;
        // Uniform over domains: a frozen group counts as many as it has.
        let even = groups.collapse(&uniform(domains));
        let uniform = bounds.project(&even);
        let prior = bounds.project(&groups.collapse(&prior));
        Ok(Self { groups, bounds, uniform, prior })
    }

    fn one_knob(&self, kind: &'static str, block: usize, groups: &[f64]) -> Asked {
        let shares = self.groups.expand(groups);
        Asked { kind, block, objective: shares.clone(), sampling: shares }
    }

    /// Tokens of a far mixture at the uniform objective, and the other way round in turn.
    fn two_knob(&self, number: usize, block: usize, far: &[f64]) -> Asked {
        let moved = between(&self.uniform, far, FAR);
        let (sampling, objective) = match number % 2 {
            0 => (moved, self.uniform.clone()),
            _ => (between(&moved, &self.uniform, FAR), moved),
        };
        let [sampling, objective] = [sampling, objective].map(|shares| self.groups.expand(&shares));
        Asked { kind: "two-knob", block, sampling, objective }
    }

    /// The prior with one share raised by half (where that would be over the half of what is left,
    /// by that), the others in proportion.
    fn raised(&self, i: usize) -> Vec<f64> {
        let share = self.prior[i];
        self.with_share(i, (1.5 * share).min(0.5 + 0.5 * share))
    }

    fn left_out(&self, i: usize) -> Vec<f64> {
        self.with_share(i, 0.0)
    }

    fn with_share(&self, i: usize, share: f64) -> Vec<f64> {
        let rest = 1.0 - self.prior[i];
        let scale = if rest > 0.0 { (1.0 - share) / rest } else { 0.0 };
        let mut raw: Vec<f64> = self.prior.iter().map(|share| share * scale).collect();
        raw[i] = share;
        self.bounds.project(&raw)
    }
}
