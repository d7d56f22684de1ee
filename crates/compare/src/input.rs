//! What a comparison is made from: settings, and the losses of the runs that are done.

use crate::document::{Metric, Role};
use crate::error::{CompareError, Result};
use crate::tokens::Schedule;

/// δ where none is given, in nats a token.
pub const DEFAULT_MARGIN: f64 = 0.01;

/// α where none is given.
pub const DEFAULT_ALPHA: f64 = 0.05;

/// The arms of a comparison and their runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// How it is judged.
    pub settings: Settings,
    /// The seeds, in the order in which they were declared.
    pub seeds: Vec<u64>,
    /// The domains.
    pub domains: Vec<DomainInput>,
    /// The arms, in the order of the config.
    pub arms: Vec<ArmInput>,
}

/// How a comparison is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// δ: differences within ± δ do not matter.
    pub margin: f64,
    /// α: the chance of a false call, over all arms.
    pub alpha: f64,
    /// Numbers of seeds at which arms are tested, the last of them all that were declared. None:
    /// once, with the seeds there are.
    pub looks: Vec<usize>,
    /// Whether seeds were added after the first run, without declared looks.
    pub seeds_added: bool,
    /// What is compared, in words.
    pub metric: Metric,
    /// How the learning rate went.
    pub schedule: Schedule,
}

/// A domain.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainInput {
    /// Its name.
    pub name: String,
    /// π; all of them add up to 1.
    pub importance: f64,
}

/// An arm.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmInput {
    /// Its name.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Whether its weights move while it trains.
    pub learns: bool,
    /// Tokens a run trains on.
    pub tokens: u64,
    /// Config keys that differ from the baseline's, a line each.
    pub config: Vec<String>,
    /// Step at which its runs were stopped, since they could not have become better.
    pub stopped_at: Option<u64>,
    /// One entry a seed, in the order of the seeds; `None` where the run is not done.
    pub runs: Vec<Option<RunInput>>,
}

/// The losses of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInput {
    /// By domain, the mean loss of each window: of the last evaluation, or the mean of the last few.
    pub windows: Vec<Vec<f64>>,
    /// Tokens trained on and Σ π_i L_i at each evaluation.
    pub curve: Vec<(u64, f64)>,
}

/// How far from 1 the sum of importances may be by rounding.
const SUM_ROUNDING: f64 = 1e-9;

impl Input {
    /// Refuses what cannot be compared.
    pub(crate) fn check(&self) -> Result<()> {
        let settings = &self.settings;
        let setting = |good: bool, key, expected, found: String| match good {
            true => Ok(()),
            false => Err(CompareError::Setting { key, expected, found }),
        };
        let (margin, alpha) = (settings.margin, settings.alpha);
        let positive = margin.is_finite() && margin > 0.0;
        setting(positive, "compare.margin", "a number above 0", margin.to_string())?;
        let share = alpha > 0.0 && alpha < 0.5;
        setting(share, "compare.alpha", "a number between 0 and 0.5", alpha.to_string())?;
        let looks = &settings.looks;
        let rising = looks.windows(2).all(|pair| pair[0] < pair[1]);
        let all = looks.last().is_none_or(|last| *last <= self.seeds.len());
        let good = rising && all && looks.first().is_none_or(|first| *first >= 2);
        let expected = "rising numbers of seeds from 2 on, up to the number of seeds";
        setting(good, "compare.looks", expected, format!("{looks:?}"))?;
        once("seed", self.seeds.iter())?;
        once("domain", self.domains.iter().map(|domain| &domain.name))?;
        once("arm", self.arms.iter().map(|arm| &arm.name))?;
        self.check_importances()?;
        let of_role = |role| self.arms.iter().filter(|arm| arm.role == role).count();
        match (of_role(Role::Baseline), of_role(Role::Replica)) {
            (1, 0 | 1) => {}
            (1, found) => return Err(CompareError::Replicas { found }),
            (found, _) => return Err(CompareError::Baselines { found }),
        }
        self.check_windows()
    }

    fn check_importances(&self) -> Result<()> {
        if self.domains.is_empty() {
            return Err(CompareError::NoDomains);
        }
        for domain in &self.domains {
            let found = domain.importance;
            if !found.is_finite() || found < 0.0 {
                return Err(CompareError::Importance { domain: Some(domain.name.clone()), found });
            }
        }
        let found: f64 = self.domains.iter().map(|domain| domain.importance).sum();
        match (found - 1.0).abs() <= SUM_ROUNDING {
            true => Ok(()),
            false => Err(CompareError::Importance { domain: None, found }),
        }
    }

    fn check_windows(&self) -> Result<()> {
        let windows = self.windows();
        for arm in &self.arms {
            let (found, seeds) = (arm.runs.len(), self.seeds.len());
            if found != seeds {
                return Err(CompareError::Runs { arm: arm.name.clone(), found, seeds });
            }
            for (seed, run) in self.seeds.iter().zip(&arm.runs) {
                let Some(run) = run else { continue };
                let (arm, seed) = (arm.name.clone(), *seed);
                let (expected, found) = (self.domains.len(), run.windows.len());
                if expected != found {
                    return Err(CompareError::Domains { arm, seed, expected, found });
                }
                for ((domain, losses), expected) in
                    self.domains.iter().zip(&run.windows).zip(&windows)
                {
                    let (expected, found) = (*expected, losses.len());
                    if expected != found || found == 0 {
                        let domain = domain.name.clone();
                        let expected = expected.max(1);
                        return Err(CompareError::Windows { arm, seed, domain, expected, found });
                    }
                }
            }
        }
        Ok(())
    }

    /// Windows of each domain, by the first run that is done; 0 while none is.
    pub(crate) fn windows(&self) -> Vec<usize> {
        let first = self.arms.iter().flat_map(|arm| &arm.runs).flatten().next();
        let of_domain = |index: usize| first.and_then(|run| run.windows.get(index)).map(Vec::len);
        (0..self.domains.len()).map(|index| of_domain(index).unwrap_or(0)).collect()
    }
}

/// Refuses a name that is there twice.
fn once<T: Ord + ToString>(what: &'static str, names: impl Iterator<Item = T>) -> Result<()> {
    let mut sorted: Vec<T> = names.collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CompareError::Duplicate { what, name: pair[0].to_string() }),
        None => Ok(()),
    }
}
