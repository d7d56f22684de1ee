//! What a search writes down, as its files hold it: what was going to be searched, what the pilot
//! said, how good the fit is, what is proposed and predicted, and what came out.
//!
//! | file | type |
//! | --- | --- |
//! | `search.json` | [`Registration`] |
//! | `pilot.json` | [`PilotDocument`] |
//! | `rounds.json` | [`RoundsDocument`] |
//! | `fit.json` | [`FitDocument`] |
//! | `proposal.json` | [`ProposalDocument`] |
//! | `result.json` | [`ResultDocument`] |
//!
//! Nothing in them depends on when or how fast a run was made.

use serde::{Deserialize, Serialize};

use crate::design::PilotFinding;
use crate::judge::{DomainReach, Judgement};

/// The version of the files that is written and read.
pub const VERSION: u32 = 1;

/// `search.json`: what was going to be searched and how, written before the first run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// What was declared.
    pub declared: Declared,
    /// sha256 of `declared`, as compact JSON.
    pub hash: String,
}

/// What is declared of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// Layout of the file.
    pub version: u32,
    /// The program that wrote it.
    pub cuvee: String,
    /// Decides the design, the fit and the proposal.
    pub seed: u64,
    /// The law, `auto`, or the rule that proposes.
    pub law: String,
    /// κ: how strongly a proposal is held near the prior, in nats.
    pub kappa: f64,
    /// Runs of the swarm, its repetitions of pilot runs included.
    pub runs: usize,
    /// Further runs in which what is drawn and what counts differ.
    pub two_knob: usize,
    /// Mixtures that a fit of the runs before asks for at once; 0 where the design asks for all.
    pub batch: usize,
    /// Groups of domains whose inner ratios stay the prior's, by their names.
    pub freeze: Vec<Vec<String>>,
    /// The split that mixtures are chosen by.
    pub chosen_on: String,
    /// The split that they are verified on.
    pub verified_on: String,
    /// Where it is computed.
    pub device: String,
    /// Engine of every run.
    pub engine: String,
    /// Number type of its arithmetic.
    pub precision: String,
    /// Threads of a cheap run.
    pub threads: usize,
    /// Threads of a run of the confirmation.
    pub confirm_threads: usize,
    /// The domains.
    pub domains: Vec<DeclaredDomain>,
    /// The run that a mixture is wanted for.
    pub target: DeclaredConfig,
    /// The cheap runs.
    pub proxy: DeclaredConfig,
    /// Runs that tell whether to search.
    pub pilot: Vec<DeclaredRun>,
    /// Runs that laws are fitted to, those of the pilot aside.
    pub swarm: Vec<DeclaredRun>,
    /// Seeds of the confirmation, none of which a cheap run has.
    pub confirm_seeds: Vec<u64>,
    /// The data, one entry a domain.
    pub data: serde_json::Value,
}

/// A domain as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredDomain {
    /// Its name.
    pub name: String,
    /// ω: its part of what is minimised.
    pub weight: f64,
    /// Its share without a search.
    pub prior: f64,
    /// Its largest share, by its `max_epochs` in the target run.
    pub cap: f64,
    /// Tokens of its training split.
    pub tokens: f64,
    /// Passes over it in the target run for a share of 1.
    pub epochs_per_share: f64,
}

/// A config as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredConfig {
    /// All of it, TOML.
    pub config: String,
    /// Parameters of the model.
    pub parameters: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens.
    pub tokens: u64,
}

/// A run as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeclaredRun {
    /// Its mixture's name, which is also its folder's.
    pub mixture: String,
    /// Why it is made.
    pub kind: String,
    /// Runs of a block share their seed.
    pub block: usize,
    /// Its seed.
    pub seed: u64,
    /// p, shares of the tokens drawn.
    pub sampling: Vec<f64>,
    /// α, shares of the objective.
    pub objective: Vec<f64>,
}

/// `pilot.json`: whether the search is worth its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PilotDocument {
    /// Runs that the swarm is planned to have, those of the pilot included.
    pub runs: usize,
    /// Standard deviation of the loss over seeds, in nats.
    pub sigma: f64,
    /// Runs that it comes from.
    pub sigma_runs: usize,
    /// −dL/d ln B at the end: what a unit of the logarithm of the tokens is worth.
    pub per_log_tokens: Option<f64>,
    /// What the best mixture is expected to gain over the uniform one, in nats.
    pub expected_gain: f64,
    /// What of it the planned runs are expected to miss; absent where they are too few to fit.
    pub expected_regret: Option<f64>,
    /// Runs at which half of the gain is expected to be found.
    pub runs_needed: usize,
    /// Do not go on.
    pub hopeless: bool,
    /// All of this in words.
    pub sentence: String,
}

impl PilotDocument {
    /// Of what was found, for a swarm of `runs` runs.
    pub fn new(finding: &PilotFinding, runs: usize) -> Self {
        Self {
            runs,
            sigma: finding.sigma,
            sigma_runs: finding.sigma_runs,
            per_log_tokens: finding.per_log_tokens,
            expected_gain: finding.expected_gain,
            expected_regret: finite(finding.expected_regret),
            runs_needed: finding.runs_needed,
            hopeless: finding.hopeless,
            sentence: finding.sentence.clone(),
        }
    }
}

/// `rounds.json`: what was asked for in rounds, by fits of the runs before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundsDocument {
    /// The rounds so far, each written before its runs are made.
    pub rounds: Vec<Round>,
    /// Why there is no further one.
    pub ended: Option<RoundsEnd>,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// What the best of its mixtures is expected to improve on the best one run, in nats.
    pub expected_improvement: f64,
    /// Its runs.
    pub runs: Vec<DeclaredRun>,
}

/// Why rounds ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum RoundsEnd {
    /// As many runs as were planned.
    Runs,
    /// The next ones are expected to improve less than a quarter of the noise.
    Enough {
        /// What they are expected to improve, in nats.
        expected_improvement: f64,
        /// σ over seeds.
        sigma: f64,
    },
}

/// `fit.json`: what the law is worth by its own held-out predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitDocument {
    /// The law.
    pub law: String,
    /// sha256 of `swarm.csv`, which it was fitted to.
    pub swarm: String,
    /// Whether it was chosen among all laws, by runs left out; else the config named it.
    pub chosen: bool,
    /// Runs that have no result.
    pub left_out: Vec<String>,
    /// Σ ω L, what is minimised.
    pub together: Judged,
    /// Each target.
    pub targets: Vec<TargetFit>,
    /// What was tried of each domain.
    pub domains: Vec<Reached>,
}

/// A target's law.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetFit {
    /// Its name.
    pub target: String,
    /// ω.
    pub weight: f64,
    /// What its law is worth.
    pub judged: Judged,
    /// Form and coefficients.
    pub form: serde_json::Value,
}

/// What a law is worth by predictions of runs that it has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Runs.
    pub n: usize,
    /// Different mixtures.
    pub mixtures: usize,
    /// 1 − PRESS / PRESS of the mean predictor.
    pub loo_r2: Option<f64>,
    /// Rank correlation of held-out predictions and losses.
    pub spearman: Option<f64>,
    /// How often a random order is ranked as well.
    pub permutation_p: f64,
    /// The largest rank correlation that the noise allows; absent without replicates.
    pub noise_ceiling: Option<f64>,
    /// Loss of the mixture that is ranked first, less the best one's; nats.
    pub regret_at_1: f64,
    /// How much worse that mixture came out than predicted; nats.
    pub optimism: f64,
    /// Total-variation distance of that mixture to the nearest other one.
    pub distance: f64,
    /// Whether it is worth nothing: no better than the mean, or than chance.
    pub worthless: bool,
    /// What was predicted of each run unseen, in the order of the table of runs. `[n]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_out: Vec<f64>,
}

impl Judged {
    /// The numbers of a judgement.
    pub fn new(judgement: &Judgement) -> Self {
        Self {
            n: judgement.n,
            mixtures: judgement.mixtures,
            loo_r2: finite(judgement.loo_r2),
            spearman: finite(judgement.spearman),
            permutation_p: judgement.permutation_p,
            noise_ceiling: judgement.noise_ceiling.and_then(finite),
            regret_at_1: judgement.regret_at_1,
            optimism: judgement.optimism,
            distance: judgement.distance,
            worthless: judgement.is_worthless(),
            held_out: Vec::new(),
        }
    }

    /// The same with the predictions that it is a judgement of.
    pub fn of(self, held_out: &[f64]) -> Self {
        Self { held_out: held_out.to_vec(), ..self }
    }
}

/// What was tried of a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Its name.
    pub name: String,
    /// The smallest share above 0; absent where no run drew from it.
    pub smallest_share: Option<f64>,
    /// The largest share.
    pub largest_share: f64,
    /// The most passes over it.
    pub largest_epochs: Option<f64>,
}

impl Reached {
    /// Of the domain `name`.
    pub fn new(name: &str, reach: &DomainReach) -> Self {
        Self {
            name: name.to_owned(),
            smallest_share: reach.smallest_share,
            largest_share: reach.largest_share,
            largest_epochs: reach.largest_epochs,
        }
    }
}

/// `proposal.json`: the mixtures that are to be run, and what is predicted of them before they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposalDocument {
    /// The law, or the rule, that proposes.
    pub law: String,
    /// The domains that shares are of.
    pub domains: Vec<String>,
    /// What is predicted.
    pub predictions: Predictions,
    /// sha256 of `predictions`, as compact JSON.
    pub hash: String,
    /// Each domain at the proposal.
    pub proposed: Vec<ProposedDomain>,
    /// How much lower the objective could be, at most, where it is convex; absent without slopes.
    pub gap: Option<f64>,
    /// What deserves a second thought, a sentence each.
    pub warnings: Vec<String>,
}

/// What is predicted of the mixtures of a confirmation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// The mixtures, the baseline first.
    pub mixtures: Vec<PredictedMixture>,
    /// The uniform mixture's predicted loss less the proposal's; absent without a law.
    pub gain_over_uniform: Option<f64>,
    /// The prior's less the proposal's.
    pub gain_over_prior: Option<f64>,
}

/// A mixture of a confirmation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedMixture {
    /// What it is there for.
    pub role: ConfirmRole,
    /// The arm of the confirmation that runs it, which stands for every role of the same mixture.
    pub arm: String,
    /// p
    pub sampling: Vec<f64>,
    /// α
    pub objective: Vec<f64>,
    /// Σ ω L of a cheap run, on the split that mixtures are chosen by; absent without a law.
    pub predicted: Option<f64>,
    /// The targets' losses.
    pub targets: Vec<f64>,
    /// Total-variation distance to the nearest cheap run; absent where there are none.
    pub distance: Option<f64>,
    /// The most passes over a domain in the target run.
    pub largest_epochs: f64,
}

/// What a mixture is confirmed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfirmRole {
    /// All domains alike, as far as caps let them: the baseline.
    Uniform,
    /// What would be taken without a search.
    Prior,
    /// The mixture with the lowest loss of those that were run.
    BestSeen,
    /// What the search proposes.
    Proposal,
    /// The best mixture that is far from the proposal.
    RunnerUp,
}

impl ConfirmRole {
    /// What tables and folders call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Prior => "prior",
            Self::BestSeen => "best-seen",
            Self::Proposal => "proposal",
            Self::RunnerUp => "runner-up",
        }
    }
}

/// A domain at the proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposedDomain {
    /// Its name.
    pub name: String,
    /// Its share of the tokens drawn.
    pub share: f64,
    /// Passes over it in the target run.
    pub epochs: f64,
    /// Its part of the predicted gain over the uniform mixture; absent without a law.
    pub part_of_gain: Option<f64>,
}

/// `result.json`: what the confirmation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultDocument {
    /// Whether the proposal is verified to be better than the uniform mixture.
    pub verified: bool,
    /// The result in words; never what was predicted.
    pub sentence: String,
    /// The hash of the predictions that it is held against.
    pub predictions: String,
    /// The mixtures that were run, against the baseline.
    pub mixtures: Vec<ConfirmedMixture>,
}

/// A mixture as it came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmedMixture {
    /// What it was confirmed as.
    pub role: ConfirmRole,
    /// The arm that ran it.
    pub arm: String,
    /// The uniform mixture's loss less its own in the confirmation, in nats; absent for the uniform
    /// mixture.
    pub gain: Option<f64>,
    /// Half-width of the 95 % interval of `gain`.
    pub within: Option<f64>,
    /// The comparison's verdict on it.
    pub verdict: String,
    /// The gain that was predicted of cheap runs.
    pub predicted_gain: Option<f64>,
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
