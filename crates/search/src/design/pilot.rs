//! What a pilot says: how large the noise is, what can be gained, and whether so many runs can find
//! it.
//!
//! The gain is that of the simplest law with an optimum inside: L = c − Σ_i b_i ln r_i, whose best
//! mixture is r_i ∝ b_i (under caps the nearest to it). A pilot has each domain's share at three
//! values, so b_i comes from the target of the same name: b_i = ω_i · (−dL_i/d ln r_i). What noise
//! alone would add to the gain is taken off.
//!
//! What n runs miss is that law's expected regret when its K slopes are fitted by least squares:
//! Σ_i Var(b̂_i)/(2 S u_i) = K² σ² / (2 S v (n − K − 1)), with S = Σ b, u = 1/K, and v the variance
//! of ln r over the swarm. Derived here; on worlds that the law does not describe it agrees with
//! what fits of a log-linear law lose to noise.

use cuvee_words::counted;

use super::least_runs;
use crate::error::{Result, SearchError};
use crate::shares::{Bounds, SAME, total_variation, uniform};
use crate::swarm::{Swarm, SwarmRun};

/// Variance of ln r over a swarm's runs.
const DESIGN_VARIANCE: f64 = 0.5;

/// Part of the gain that may be missed before more runs are asked for.
const MISSED: f64 = 0.5;

/// Smallest slope that is divided by, in nats.
const SMALLEST: f64 = 1e-9;

/// KL to uniform of shares that are exponential variates over their sum: 1 − γ (Euler's).
const TYPICAL_DIVERGENCE: f64 = 0.422_784;

/// The scatter of one mixture's runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Why the mixture was run.
    pub kind: String,
    /// Runs of it, each with its own seed.
    pub runs: usize,
    /// Standard deviation of the loss over them, in nats.
    pub sigma: f64,
}

/// What a pilot says. Losses are Σ ω L over the targets, in nats a token.
#[derive(Clone, Debug, PartialEq)]
pub struct PilotFinding {
    /// σ, from the runs of the mixture that was run most often, and from no other's: noise differs
    /// up to 25 times between mixtures.
    pub sigma: f64,
    /// Runs that σ comes from.
    pub sigma_runs: usize,
    /// Every mixture with more than one run, for comparison; `sigma` pools none of them.
    pub noise: Vec<Noise>,
    /// −dL/d ln B at the end of the runs, B the tokens trained on: what a unit of the logarithm of
    /// the budget is worth. `None` without curves.
    pub per_log_tokens: Option<f64>,
    /// What the best mixture is expected to gain over the uniform one.
    pub expected_gain: f64,
    /// What of it the planned runs are expected to miss; infinite where they are too few to fit.
    pub expected_regret: f64,
    /// `expected_gain` over `sigma`.
    pub gain_over_noise: f64,
    /// Runs at which half of the gain is expected to be found, and at least three a domain.
    pub runs_needed: usize,
    /// Do not start: too few runs, or the noise is larger than what can be gained.
    pub hopeless: bool,
    /// All of this as a sentence, with the numbers.
    pub sentence: String,
}

/// Judges the runs of a pilot (more runs than those may be there): whether `runs` of a swarm can
/// find what can be gained. `target_weights` are ω, one a target; `caps` the domains' largest
/// shares.
///
/// # Errors
/// No mixture with two runs, a loss that is no number, lists of other lengths, and caps that cannot
/// fill the run.
pub fn judge_pilot(
    swarm: &Swarm,
    target_weights: &[f64],
    caps: &[f64],
    runs: usize,
) -> Result<PilotFinding> {
    let domains = swarm.domains.len();
    check(swarm, target_weights, caps)?;
    let mut noise: Vec<(Noise, Vec<&SwarmRun>)> = replicates(swarm)
        .into_iter()
        .map(|same| {
            let losses: Vec<f64> = same.iter().map(|run| weighted(run, target_weights)).collect();
            let (kind, runs) = (same[0].kind.clone(), same.len());
            (Noise { kind, runs, sigma: deviation(&losses) }, same)
        })
        .collect();
    noise.sort_by_key(|(noise, _)| std::cmp::Reverse(noise.runs));
    let Some((most, replicates)) = noise.first() else {
        return Err(SearchError::BadValue {
            expected: "a mixture that was run from at least 2 seeds".to_owned(),
            found: format!("{} runs of as many mixtures", swarm.runs.len()),
            place: "the pilot".to_owned(),
            hint: "the noise is known from repeated runs alone",
        });
    };
    let (sigma, sigma_runs) = (most.sigma, most.runs);
    let slopes = slopes(swarm, target_weights, replicates);
    let bounds = Bounds::new(0.0, caps)?;
    let expected_gain = slopes.gain(&bounds);
    let total = slopes.total.max(SMALLEST);
    let scale = (domains * domains) as f64 * sigma * sigma / (2.0 * total * DESIGN_VARIANCE);
    let spare = runs.saturating_sub(domains + 1);
    let expected_regret = if spare > 0 { scale / spare as f64 } else { f64::INFINITY };
    let asked = (scale / (MISSED * expected_gain).max(SMALLEST)).min(1e9).ceil();
    let runs_needed = least_runs(domains).max(domains + 1 + asked as usize);
    let mut finding = PilotFinding {
        sigma,
        sigma_runs,
        noise: noise.iter().map(|(noise, _)| noise.clone()).collect(),
        per_log_tokens: per_log_tokens(swarm, target_weights),
        expected_gain,
        expected_regret,
        gain_over_noise: expected_gain / sigma.max(f64::MIN_POSITIVE),
        runs_needed,
        hopeless: runs < least_runs(domains) || expected_regret >= expected_gain,
        sentence: String::new(),
    };
    finding.sentence = sentence(&finding, domains, runs);
    Ok(finding)
}

fn sentence(finding: &PilotFinding, domains: usize, runs: usize) -> String {
    let PilotFinding { sigma, sigma_runs, expected_gain, expected_regret, runs_needed, .. } =
        finding;
    let numbers = format!(
        "about {expected_gain:.4} nats can be gained over the uniform mixture, of which a search \
         with {} is expected to miss {expected_regret:.4} (σ = {sigma:.4} over {})",
        counted(runs, "run"),
        counted(*sigma_runs, "seed"),
    );
    let least = least_runs(domains);
    if *expected_gain <= 0.0 || (runs >= least && expected_regret >= expected_gain) {
        format!("stop: the noise is larger than what can be gained: {numbers}")
    } else if runs < least {
        format!(
            "stop: {runs} runs are too few for {domains} domains, {least} are the least: {numbers}"
        )
    } else if runs < *runs_needed {
        format!("go on, better with {runs_needed} runs: {numbers}")
    } else {
        format!("go on: {numbers}")
    }
}

fn check(swarm: &Swarm, target_weights: &[f64], caps: &[f64]) -> Result<()> {
    let lengths = [
        ("importance weights", target_weights.len(), swarm.targets.len(), "targets"),
        ("caps", caps.len(), swarm.domains.len(), "domains"),
    ];
    for (what, found, expected, of) in lengths {
        if found != expected {
            return Err(SearchError::BadValue {
                expected: format!("{expected} {what}, as many as {of}"),
                found: found.to_string(),
                place: "the pilot's judgement".to_owned(),
                hint: "one number each, in order",
            });
        }
    }
    let finite = |run: &SwarmRun| {
        run.tune.len() == swarm.targets.len() && run.tune.iter().all(|loss| loss.is_finite())
    };
    match swarm.runs.iter().find(|run| !finite(run)) {
        None => Ok(()),
        Some(run) => Err(SearchError::BadValue {
            expected: format!("{} losses", swarm.targets.len()),
            found: format!("{:?}", run.tune),
            place: format!("run `{}`", run.name),
            hint: "leave out the run",
        }),
    }
}

/// Mixtures with more than one run, and these runs.
fn replicates(swarm: &Swarm) -> Vec<Vec<&SwarmRun>> {
    let mut mixtures: Vec<Vec<&SwarmRun>> = Vec::new();
    for run in &swarm.runs {
        let same = |other: &SwarmRun| {
            total_variation(&run.sampling, &other.sampling) < SAME
                && total_variation(&run.objective, &other.objective) < SAME
        };
        match mixtures.iter_mut().find(|runs| same(runs[0])) {
            Some(runs) => runs.push(run),
            None => mixtures.push(vec![run]),
        }
    }
    mixtures.retain(|runs| runs.len() > 1);
    mixtures
}

fn weighted(run: &SwarmRun, target_weights: &[f64]) -> f64 {
    run.tune.iter().zip(target_weights).map(|(loss, weight)| loss * weight).sum()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64
}

fn deviation(values: &[f64]) -> f64 {
    variance(values).sqrt()
}

/// What the pilot's runs say of the law L = c − Σ b_i ln r_i.
struct Slopes {
    /// b_i, by the targets that are domains. `[K]`
    domain: Vec<f64>,
    /// Σ b over all targets.
    total: f64,
    /// What noise adds to the gain of the domains' slopes.
    bias: f64,
    /// Gain at the targets that are no domain.
    elsewhere: f64,
}

impl Slopes {
    /// Σ b_i ln(r_i/u_i) at the best mixture within the bounds, without what noise adds.
    fn gain(&self, bounds: &Bounds) -> f64 {
        let even = bounds.project(&uniform(self.domain.len()));
        let best = bounds.project(&self.domain);
        let term = |i: usize| match self.domain[i] > 0.0 && best[i] > 0.0 && even[i] > 0.0 {
            true => self.domain[i] * (best[i] / even[i]).ln(),
            false => 0.0,
        };
        let gain: f64 = (0..self.domain.len()).map(term).sum();
        (gain - self.bias).max(0.0) + self.elsewhere
    }
}

fn slopes(swarm: &Swarm, target_weights: &[f64], replicates: &[&SwarmRun]) -> Slopes {
    let domains = swarm.domains.len();
    let mut slopes = Slopes { domain: vec![0.0; domains], total: 0.0, bias: 0.0, elsewhere: 0.0 };
    let mut errors = vec![0.0; domains];
    let mut unknown = Vec::new();
    for (target, (name, weight)) in swarm.targets.iter().zip(target_weights).enumerate() {
        let repeated: Vec<f64> = replicates.iter().map(|run| run.tune[target]).collect();
        let noise = variance(&repeated);
        match swarm.domains.iter().position(|domain| domain == name) {
            Some(domain) => match regression(swarm, target, domain) {
                Some((slope, spread)) => {
                    slopes.domain[domain] += weight * (-slope).max(0.0);
                    errors[domain] += weight * weight * noise / spread;
                }
                None => unknown.push((domain, *weight)),
            },
            None => slopes.elsewhere += weight * undirected(swarm, target, noise),
        }
    }
    // A share that a cap held still: as steep as the mean of the others.
    let steepness: f64 = slopes.domain.iter().sum();
    let known: f64 =
        target_weights.iter().sum::<f64>() - unknown.iter().map(|(_, w)| w).sum::<f64>();
    for (domain, weight) in unknown {
        slopes.domain[domain] += if known > 0.0 { weight * steepness / known } else { 0.0 };
    }
    let sum: f64 = slopes.domain.iter().sum();
    slopes.total = sum + slopes.elsewhere / TYPICAL_DIVERGENCE;
    let count = domains as f64;
    slopes.bias = errors.iter().map(|error| count * error).sum::<f64>() / (2.0 * sum.max(SMALLEST));
    slopes
}

/// The slope of a target in ln r of a domain over the runs that draw it, and Σ (x − x̄)²; `None`
/// where the share stands still.
fn regression(swarm: &Swarm, target: usize, domain: usize) -> Option<(f64, f64)> {
    let drawn = swarm.runs.iter().filter(|run| run.sampling[domain] > 0.0);
    let (x, y): (Vec<f64>, Vec<f64>) =
        drawn.map(|run| (run.sampling[domain].ln(), run.tune[target])).unzip();
    if x.is_empty() {
        return None;
    }
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let spread: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
    let covariance: f64 = x.iter().zip(&y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 1e-6).then(|| (covariance / spread, spread))
}

/// What can be gained at a target that is no domain, from the difference D of the two skewed
/// mixtures. Slopes of K domains with the mean b̄ that scatter as exponential variates do give
/// E D² = K b̄² (2 ln 3)², and a gain of K b̄ (1 − γ).
fn undirected(swarm: &Swarm, target: usize, noise: f64) -> f64 {
    let skewed: Vec<&SwarmRun> = swarm.runs.iter().filter(|run| run.kind == "skewed").collect();
    let [first, second] = skewed[..] else { return 0.0 };
    let logs: f64 = first
        .sampling
        .iter()
        .zip(&second.sampling)
        .filter(|(a, b)| **a > 0.0 && **b > 0.0)
        .map(|(a, b)| (a / b).ln().powi(2))
        .sum();
    let difference = ((first.tune[target] - second.tune[target]).powi(2) - 2.0 * noise).max(0.0);
    // Σ ln² is K (2 ln 3)² where no cap binds.
    let slope = (difference / logs.max(SMALLEST)).sqrt();
    swarm.domains.len() as f64 * slope * TYPICAL_DIVERGENCE
}

/// −dL/d ln(tokens) over the last part of the runs' curves, the mean of the runs that have one.
fn per_log_tokens(swarm: &Swarm, target_weights: &[f64]) -> Option<f64> {
    let loss = |losses: &[f64]| losses.iter().zip(target_weights).map(|(l, w)| l * w).sum::<f64>();
    let slope = |run: &SwarmRun| {
        let (tokens, last) = run.curve.last()?;
        let (earlier, before) = run.curve.iter().rev().find(|(at, _)| *at <= 0.5 * tokens)?;
        let slope = (loss(before) - loss(last)) / (tokens / earlier).ln();
        slope.is_finite().then_some(slope)
    };
    let slopes: Vec<f64> = swarm.runs.iter().filter_map(slope).collect();
    (!slopes.is_empty()).then(|| mean(&slopes))
}
