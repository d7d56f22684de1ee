//! What a study finds, as the tables, the page and `results.json` show it.

use serde::Serialize;

use cuvee_report::Interval;

/// A study's findings, as written to `results.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// `linear`, `logistic` or `mnist`.
    pub study: &'static str,
    /// What an arm's error is, in words, with its unit.
    pub metric: &'static str,
    /// All settings, defaults included.
    pub settings: serde_json::Value,
    /// One an arm: uniform first, both rules last.
    pub arms: Vec<ArmResult>,
    /// Mean error of the reference that knows what the arms have to learn; see `oracle`.
    pub oracle_error: f64,
    /// Half-width of its 95 % interval; `null` of a single seed.
    pub oracle_ci95: Option<f64>,
    /// What the oracle is.
    pub oracle: &'static str,
    /// Minimisers of weighted objectives, found without SGD (linear only).
    pub estimators: Vec<Estimator>,
    /// Measured variance of g under VA and under uniform sampling, on random instances (linear
    /// only, unless left out).
    pub allocation: Option<Allocation>,
    /// The arms once more, each at the learning rate that suits it best; `null` where none was
    /// looked for.
    pub tuned: Option<Tuned>,
}

/// The arms at learning rates of their own.
#[derive(Clone, Debug, Serialize)]
pub struct Tuned {
    /// The rates tried, in rising order.
    pub rates: Vec<f64>,
    /// Seeds that chose, none of them among the study's.
    pub seeds: u64,
    /// What was tried, one an arm, with the oracle last where it is trained.
    pub tried: Vec<Tried>,
    /// The arms at their rates, on the study's seeds. `uniform` and `both` of the comparisons are
    /// those at their own rates, too.
    pub arms: Vec<ArmResult>,
    /// Mean error of the oracle, at its own rate where it is trained.
    pub oracle_error: f64,
    /// Half-width of its 95 % interval.
    pub oracle_ci95: Option<f64>,
}

/// How an arm came by its learning rate.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// The arm.
    pub name: &'static str,
    /// The rate of the least error.
    pub lr: f64,
    /// Mean final error at each rate; `null` where it diverged.
    pub errors: Vec<f64>,
    /// Is it the least or the largest rate tried? A better one may then lie beyond.
    pub at_edge: bool,
}

/// A study at several ratios of the domains' feature covariances.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// `linear` or `logistic`.
    pub study: &'static str,
    /// The largest C over the smallest, one a point.
    pub ratios: Vec<f64>,
    /// The study at each ratio; its settings have the C and the shared learning rate.
    pub points: Vec<Study>,
}

/// An arm's findings.
#[derive(Clone, Debug, Serialize)]
pub struct ArmResult {
    /// Its name.
    pub name: &'static str,
    /// Its learning rate.
    pub lr: f64,
    /// Mean error after the last step.
    pub final_error: f64,
    /// Half-width of its 95 % interval over seeds; `null` of a single seed.
    pub ci95: Option<f64>,
    /// First measured step (linear, logistic: of all; mnist: of those recorded) at which the arm's
    /// mean error is at most uniform's after the last step, both on isotonic curves.
    pub steps_to_uniform: Option<u64>,
    /// 95 % interval of `steps_to_uniform` by bootstrap over seeds; `null` of an end is never, that
    /// of the whole a single seed.
    pub steps_interval: Option<[Option<u64>; 2]>,
    /// 95 % bootstrap interval of `steps_to_uniform` less that of the last arm, on the same
    /// resamples; `null` of a single seed.
    pub steps_less_both: Option<[Lag; 2]>,
    /// Final error less uniform's, seed by seed.
    pub difference_from_uniform: Interval,
    /// Final error less that of the last arm (both rules), seed by seed.
    pub difference_from_both: Interval,
    /// Mean w after the last step, one a domain.
    pub loss_weight: Vec<f64>,
    /// Mean p after the last step, one a domain.
    pub sampling_weight: Vec<f64>,
    /// Mean over seeds and probes of the measured variance of g, over that of Σ π²w²/b v².
    pub variance_measured_over_formula: f64,
    /// The arm over training.
    pub curve: Curve,
}

/// How many steps an arm is behind the last one, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lag {
    /// The last arm never gets there; in `results.json` the text `"both never"`.
    LastNever,
    /// So many steps more, or fewer where it is negative: a number.
    Steps(i64),
    /// The arm never gets there: `null`.
    Never,
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LastNever => f.write_str(LAST_NEVER),
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Never => f.write_str("never"),
        }
    }
}

impl Serialize for Lag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::LastNever => serializer.serialize_str(LAST_NEVER),
            Self::Steps(steps) => serializer.serialize_i64(*steps),
            Self::Never => serializer.serialize_none(),
        }
    }
}

/// The last arm is the one with both rules.
const LAST_NEVER: &str = "both never";

/// A minimiser's error against its closed form.
#[derive(Clone, Debug, Serialize)]
pub struct Estimator {
    /// Its name.
    pub name: String,
    /// Mean ‖θ − θ_gt‖².
    pub error: f64,
    /// Half-width of its 95 % interval; `null` of a single seed.
    pub ci95: Option<f64>,
    /// Mean over seeds of the trace of its covariance given X; `null` where the loss weights depend
    /// on the data.
    pub closed_form: Option<f64>,
    /// `error` over the oracle's, by the ratio of means.
    pub over_oracle: f64,
}

/// Means over seeds at recorded steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curve {
    /// Recorded steps.
    pub steps: Vec<u64>,
    /// Mean error at each.
    pub error: Vec<f64>,
    /// Half-widths of its 95 % intervals; `null` of a single seed.
    pub error_ci95: Vec<Option<f64>>,
    /// Mean w at each, by domain.
    pub loss_weight: Vec<Vec<f64>>,
    /// Mean p at each, by domain.
    pub sampling_weight: Vec<Vec<f64>>,
    /// Steps at which the variance of g was measured.
    pub probe_steps: Vec<u64>,
    /// Mean of E‖g − ∇L̂‖², measured on batches drawn for the purpose.
    pub variance_measured: Vec<f64>,
    /// Mean of Σ π²w²/b v².
    pub variance_formula: Vec<f64>,
}

/// Measured and predicted ratios of variances.
#[derive(Clone, Debug, Serialize)]
pub struct Allocation {
    /// One a random instance.
    pub instances: Vec<Instance>,
    /// Largest |measured/formula − 1| of all.
    pub largest_relative_error: f64,
}

/// One random instance.
#[derive(Clone, Debug, Serialize)]
pub struct Instance {
    /// Number of domains.
    pub domains: usize,
    /// Measured variance with equal sampling weights over that under VA.
    pub measured: f64,
    /// K Σ a²/(Σ a)².
    pub formula: f64,
}
