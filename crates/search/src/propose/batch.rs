//! Batches for a search in rounds: Thompson's draws from a bootstrap ensemble, and what the next
//! run is expected to improve.

use cuvee_mixer::seed::{CounterRng, derive};
use rayon::prelude::*;

use super::Aim;
use super::objective::Objective;
use super::search::{best_end, given, sampled};
use crate::error::Result;
use crate::law::{Fitted, LawEntry, LawOptions, Observations};
use crate::shares::{between, dirichlet, total_variation};
use crate::swarm::Swarm;

/// A search ends when the best expected improvement is below this part of σ.
pub const STOP_BELOW: f64 = 0.25;

/// Fits in the ensemble.
const MEMBERS: u64 = 16;

/// Random mixtures that a fit without a slope chooses from.
const SAMPLES: u64 = 10_000;

/// Mixtures of a batch are at least this far from each other in total variation.
const APART: f64 = 0.01;

/// Attempts to move a mixture that another of the batch is too near to.
const MOVES: u64 = 16;

/// What to run next.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The mixtures. `[count][K]`
    pub mixtures: Vec<Vec<f64>>,
    /// What each is expected to improve on the best one run, in nats. `[count]`
    pub improvements: Vec<f64>,
    /// The largest of these.
    pub expected_improvement: f64,
    /// The run whose mixture the ensemble likes best.
    pub best_seen: usize,
}

impl Batch {
    /// Whether to stop: what the next runs are expected to improve is below a quarter of the noise.
    pub fn is_enough(&self, sigma: f64) -> bool {
        self.expected_improvement < STOP_BELOW * sigma
    }
}

/// `count` mixtures to run next.
///
/// Each of 16 fits sees losses of its own: the prediction plus the run's error times a random sign
/// (a wild bootstrap, the same signs for all targets; errors are those of the fit, scaled for its
/// coefficients, and at least the noise of repeated runs). Each proposes its best mixture. Expected
/// improvement is the mean over the ensemble of max(0, value at the best mixture that was run, less
/// the value here): a mixture is judged by the fits that did not propose it too.
///
/// # Errors
/// As the law's fit and [`propose`](super::propose).
pub fn next_batch(
    swarm: &Swarm,
    law: &LawEntry,
    aim: &Aim,
    count: usize,
    seed: u64,
) -> Result<Batch> {
    let form = (law.make)(&LawOptions::seeded(seed));
    let observed: Vec<Observations> = (0..swarm.targets.len())
        .map(|target| Observations::of(swarm, target))
        .collect::<Result<_>>()?;
    let fits: Vec<Box<dyn Fitted>> =
        observed.par_iter().map(|seen| form.fit(seen)).collect::<Result<_>>()?;
    let disturbed: Vec<Disturbed> =
        observed.iter().zip(&fits).map(|(seen, fit)| Disturbed::new(seen, fit.as_ref())).collect();
    let rng = CounterRng::new(derive(seed, "batch"));
    let members: Vec<Vec<Box<dyn Fitted>>> = (0..MEMBERS)
        .into_par_iter()
        .map(|member| {
            let signs = rng.nested(member);
            disturbed.iter().map(|target| form.fit(&target.draw(signs))).collect()
        })
        .collect::<Result<_>>()?;
    let objectives: Vec<Objective> =
        members.iter().map(|laws| Objective::new(laws, aim)).collect::<Result<_>>()?;
    let middle = Objective::new(&fits, aim)?;

    let groups = &middle.groups;
    let values = |shares: &[f64]| -> Vec<f64> {
        objectives.iter().map(|objective| objective.value(shares)).collect()
    };
    let seen: Vec<Vec<f64>> = swarm
        .runs
        .iter()
        .map(|run| middle.bounds.project(&groups.collapse(&run.sampling)))
        .collect();
    let seen_values: Vec<Vec<f64>> = seen.par_iter().map(|shares| values(shares)).collect();
    let sums: Vec<f64> = seen_values.iter().map(|values| values.iter().sum()).collect();
    let best_seen =
        (0..seen.len()).min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or_default();
    let improvement = |shares: &[f64]| {
        let gains = values(shares).into_iter().zip(&seen_values[best_seen]);
        gains.map(|(value, best)| (best - value).max(0.0)).sum::<f64>() / objectives.len() as f64
    };

    let mut starts = given(&middle);
    starts.push(seen[best_seen].clone());
    let mut drawn: Vec<Vec<f64>> =
        objectives.par_iter().map(|objective| best(objective, &starts, rng)).collect();
    // The fit of all runs proposes first.
    drawn.insert(0, best(&middle, &starts, rng));
    let mut chosen: Vec<Vec<f64>> = Vec::with_capacity(count);
    for place in 0..count {
        let wanted = &drawn[place % drawn.len()];
        let shares = moved_apart(&middle, wanted, &chosen, rng.nested(MEMBERS + place as u64));
        chosen.push(shares);
    }
    let improvements: Vec<f64> = chosen.iter().map(|shares| improvement(shares)).collect();
    Ok(Batch {
        mixtures: chosen.iter().map(|shares| groups.expand(shares)).collect(),
        expected_improvement: improvements.iter().copied().fold(0.0, f64::max),
        improvements,
        best_seen,
    })
}

/// The best of an objective: by descent, or of random mixtures where it has no slope.
fn best(objective: &Objective, starts: &[Vec<f64>], rng: CounterRng) -> Vec<f64> {
    if objective.slope(&starts[0]).is_some() {
        return best_end(objective, starts).at;
    }
    sampled(objective, starts.to_vec(), SAMPLES, rng)
}

/// `wanted`, or a mixture near it that is apart from those chosen.
fn moved_apart(
    objective: &Objective,
    wanted: &[f64],
    chosen: &[Vec<f64>],
    rng: CounterRng,
) -> Vec<f64> {
    let apart = |shares: &[f64]| chosen.iter().all(|other| total_variation(other, shares) > APART);
    let concentration: Vec<f64> = wanted.iter().map(|r| 1.0 + r * wanted.len() as f64).collect();
    let moved = |i: u64| {
        let far = dirichlet(rng.nested(i), &concentration);
        objective.bounds.project(&between(wanted, &far, 0.05 * (i + 1) as f64))
    };
    match apart(wanted) {
        true => wanted.to_vec(),
        false => (0..MOVES).map(moved).find(|shares| apart(shares)).unwrap_or(wanted.to_vec()),
    }
}

/// A target's runs, what the fit predicts of them and how far it is off.
struct Disturbed<'a> {
    observed: &'a Observations,
    predicted: Vec<f64>,
    errors: Vec<f64>,
}

impl<'a> Disturbed<'a> {
    fn new(observed: &'a Observations, fit: &dyn Fitted) -> Self {
        let runs = observed.points.len() as f64;
        let coefficients = observed.points.first().map_or(0, |p| p.sampling.len() + 1) as f64;
        // Errors shrink with every coefficient; at most to a half, for laws that count otherwise.
        let scale = (runs / (runs - coefficients).max(0.25 * runs)).sqrt();
        let noise = noise(observed);
        let predicted: Vec<f64> = observed.points.iter().map(|point| fit.predict(point)).collect();
        let error = |(loss, predicted): (&f64, &f64)| (scale * (loss - predicted).abs()).max(noise);
        let errors = observed.losses.iter().zip(&predicted).map(error).collect();
        Self { observed, predicted, errors }
    }

    fn draw(&self, signs: CounterRng) -> Observations {
        let sign = |run: usize| if signs.bits(run as u64) & 1 == 0 { 1.0 } else { -1.0 };
        let losses = self.predicted.iter().zip(&self.errors).enumerate();
        Observations {
            points: self.observed.points.clone(),
            losses: losses.map(|(run, (loss, error))| loss + sign(run) * error).collect(),
            groups: self.observed.groups.clone(),
        }
    }
}

/// The scatter of the mixture that was run most often; 0 where none was run twice.
fn noise(observed: &Observations) -> f64 {
    let runs_of = |group: usize| -> Vec<f64> {
        let runs = observed.groups.iter().zip(&observed.losses);
        runs.filter(|(other, _)| **other == group).map(|(_, loss)| *loss).collect()
    };
    let most = observed.groups.iter().map(|group| runs_of(*group)).max_by_key(Vec::len);
    let Some(losses) = most.filter(|losses| losses.len() > 1) else { return 0.0 };
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
    (squares / (losses.len() - 1) as f64).sqrt()
}
