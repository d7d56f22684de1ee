//! `comparison.json`: what a comparison found.
//!
//! Losses and differences are in nats a token. A difference is the arm's loss less the baseline's
//! of the same seed, so that a negative one is the arm's gain. A value is `null` where there is
//! none: of one seed there is no spread, so no interval, test or verdict.

use serde::{Deserialize, Serialize};

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The verdict in one sentence.
    pub sentence: String,
    /// Name of the arm that the others are compared with.
    pub baseline: String,
    /// The seeds, in the order of each arm's `losses`.
    pub seeds: Vec<u64>,
    /// How runs are matched.
    pub design: Design,
    /// What is compared.
    pub metric: Metric,
    /// δ: differences within ± δ do not matter.
    pub margin: f64,
    /// α: the chance of a false call, over all arms.
    pub alpha: f64,
    /// Numbers of seeds at which the arms were tested, where interim looks were declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<LookResult>,
    /// Whether the seeds were not those declared before the first run.
    pub exploratory: bool,
    /// The domains, in the order of each arm's `domains`.
    pub domains: Vec<ComparedDomain>,
    /// s of the baseline run again with other draws: what differs when nothing does.
    pub baseline_noise: Option<f64>,
    /// The verdict on that arm, which should be no difference.
    pub aa_verdict: Option<Verdict>,
    /// Spread of the arms' mean losses over the noise of their differences.
    pub signal_to_noise: Option<f64>,
    /// How many nats one per cent more tokens is worth to the baseline near its end.
    pub nats_per_percent_of_tokens: Option<f64>,
    /// The arms, in the order of the config: the baseline first, its repetition last.
    pub arms: Vec<ArmResult>,
    /// What a reader should know besides, a sentence each.
    pub notes: Vec<String>,
}

impl Comparison {
    /// The arms from the best to the worst: by their paired difference, the baseline at 0, since
    /// mean losses are of other seeds where a run is missing. Those without one come last, and what
    /// is even keeps the order of the config.
    pub fn ranked(&self) -> Vec<&ArmResult> {
        let place = |arm: &ArmResult| match arm.role {
            Role::Baseline => 0.0,
            Role::Arm | Role::Replica => {
                arm.difference.filter(|mean| mean.is_finite()).unwrap_or(f64::INFINITY)
            }
        };
        let mut arms: Vec<&ArmResult> = self.arms.iter().collect();
        // A difference of −0 is none.
        arms.sort_by(|a, b| (place(a) + 0.0).total_cmp(&(place(b) + 0.0)));
        arms
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// In words, for people: `Σ π_i L_i on valid at step 1000`.
    pub name: String,
    /// The split: `valid`.
    pub split: String,
    /// Steps done at the last evaluation.
    pub step: u64,
    /// Evaluations that are averaged, the last one and those before it.
    pub evaluations: usize,
}

/// How runs are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// By seed: a seed fixes initialisation and draws in every arm.
    PairedBySeed,
}

/// A domain of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedDomain {
    /// Its name.
    pub name: String,
    /// π.
    pub importance: f64,
    /// Windows evaluated.
    pub windows: usize,
}

/// An interim look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookResult {
    /// Seeds done at it.
    pub seeds: usize,
    /// The two-sided p below which one arm is decided there, after correction for the arms.
    pub nominal: f64,
    /// Arms decided at it.
    pub decided: Vec<String>,
}

/// What an arm is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The others are compared with it.
    Baseline,
    /// Compared with the baseline.
    Arm,
    /// The baseline with other draws: the noise floor. No part of the family of tests.
    Replica,
}

/// What is concluded about an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Lower loss than the baseline, after correction for the number of arms.
    Better,
    /// Higher loss than the baseline, after correction for the number of arms.
    Worse,
    /// The difference lies within the margin.
    Equivalent,
    /// Every difference is exactly 0.
    Identical,
    /// Too noisy or too few seeds to tell.
    Undecided,
    /// Fewer than two seeds: nothing can be said.
    None,
    /// Stopped before its end, since it could not have become better.
    Futile,
}

impl Verdict {
    /// One word for it, as documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Equivalent => "equivalent",
            Self::Identical => "identical",
            Self::Undecided => "undecided",
            Self::None => "none",
            Self::Futile => "futile",
        }
    }
}

/// What was found of an arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmResult {
    /// Its name.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Config keys that differ from the baseline's, a line each: `mixture.sampling = "va"`.
    pub config: Vec<String>,
    /// The seeds' numbers, in the order of `losses`.
    pub seeds: Vec<u64>,
    /// Y of each seed; `null` where the run has no result.
    pub losses: Vec<Option<f64>>,
    /// Tokens a run trains on.
    pub tokens: u64,
    /// Mean Y over the seeds.
    pub mean_loss: Option<f64>,
    /// Half-width of its 95 % t-interval over seeds.
    pub ci95: Option<f64>,
    /// The largest of the domains' mean losses.
    pub worst_domain_loss: Option<f64>,
    /// The domain it is of.
    pub worst_domain: Option<String>,
    /// Mean over seeds of the largest domain loss less the baseline's largest; exploratory.
    #[serde(default)]
    pub worst_domain_difference: Option<f64>,
    /// Half-width of its 95 % t-interval over seeds.
    #[serde(default)]
    pub worst_domain_difference_ci95: Option<f64>,
    /// Seeds whose run ended in a loss that is no number: they count as no result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverged: Vec<u64>,
    /// Seeds that the baseline and this arm both have.
    pub n: usize,
    /// D of each seed.
    pub differences: Vec<Option<f64>>,
    /// D̄, the mean of them.
    pub difference: Option<f64>,
    /// Half-width of its 95 % interval, seeds and windows together.
    pub difference_ci95: Option<f64>,
    /// s: standard deviation of D over seeds.
    pub sd_seeds: Option<f64>,
    /// √V_w: what other windows of the same text would change.
    pub se_windows: Option<f64>,
    /// Two-sided p of "no difference".
    pub p_value: Option<f64>,
    /// The same after Holm's correction over the arms. With declared looks, that of the look that
    /// was last reached or decided, corrected for the looks too. Significant where at most α.
    pub p_holm: Option<f64>,
    /// Seeds at the declared look that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<usize>,
    /// The smallest difference that n seeds on these windows find in four of five comparisons.
    pub mde: Option<f64>,
    /// Seeds that would find a difference of the margin in four of five comparisons, on as many
    /// windows; `null` also where that takes more windows.
    pub seeds_needed: Option<u64>,
    /// The smallest margin within which the arms would have been called equivalent.
    pub equivalent_within: Option<f64>,
    /// The baseline's tokens over the arm's at equal loss: 2 where it takes half the tokens.
    pub speedup: Option<f64>,
    /// Its 95 % interval.
    pub speedup_ci95: Option<[f64; 2]>,
    /// Why there is no `speedup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speedup_missing: Option<String>,
    /// The conclusion.
    pub verdict: Verdict,
    /// It in one sentence, with what could have been seen.
    pub sentence: String,
    /// Whether its weights move while it trains.
    #[serde(default)]
    pub learns: bool,
    /// Step at which it was stopped, where its runs were not all finished for that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<u64>,
    /// Whether its seeds were not those declared before the first run.
    pub exploratory: bool,
    /// As the comparison's.
    pub design: Design,
    /// As the comparison's.
    pub baseline_noise: Option<f64>,
    /// As the comparison's.
    pub aa_verdict: Option<Verdict>,
    /// By domain, exploratory: a family of tests of its own.
    pub domains: Vec<DomainResult>,
}

/// What was found of an arm on one domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainResult {
    /// The domain.
    pub name: String,
    /// Mean loss over the seeds.
    pub loss: Option<f64>,
    /// Half-width of its 95 % t-interval over seeds.
    pub ci95: Option<f64>,
    /// Mean difference to the baseline.
    pub difference: Option<f64>,
    /// Half-width of its 95 % interval.
    pub difference_ci95: Option<f64>,
    /// Two-sided p of "no difference".
    pub p_value: Option<f64>,
    /// The same after Holm's correction over arms and domains.
    pub p_holm: Option<f64>,
    /// The conclusion; exploratory.
    pub verdict: Verdict,
}
