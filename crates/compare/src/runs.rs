//! The losses of an arm's runs, and which of them pair with the baseline's.
//!
//! A run whose losses are not all numbers has diverged: it counts as no result, and is named.

use crate::input::{ArmInput, Input, RunInput};
use crate::paired::{Paired, window_variance};

/// An arm's runs by seed.
pub(crate) struct Runs<'a> {
    pub(crate) input: &'a ArmInput,
    /// Y by seed.
    pub(crate) losses: Vec<Option<f64>>,
    /// L_i by seed.
    pub(crate) domain_losses: Vec<Option<Vec<f64>>>,
    /// Indices of seeds whose run diverged.
    pub(crate) diverged: Vec<usize>,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(arm: &'a ArmInput, importances: &[f64]) -> Self {
        let mut runs = Self {
            input: arm,
            losses: Vec::new(),
            domain_losses: Vec::new(),
            diverged: Vec::new(),
        };
        for (index, run) in arm.runs.iter().enumerate() {
            let found = run.as_ref().map(domain_means);
            let mean = |losses: &Vec<f64>| -> f64 {
                losses.iter().zip(importances).map(|(loss, importance)| loss * importance).sum()
            };
            let finite = |losses: &Vec<f64>| losses.iter().all(|l| l.is_finite());
            if found.as_ref().is_some_and(|l| !finite(l) || !mean(l).is_finite()) {
                runs.diverged.push(index);
                runs.losses.push(None);
                runs.domain_losses.push(None);
            } else {
                runs.losses.push(found.as_ref().map(mean));
                runs.domain_losses.push(found);
            }
        }
        runs
    }

    /// Y of the seeds that have one.
    pub(crate) fn known(&self) -> Vec<f64> {
        self.losses.iter().flatten().copied().collect()
    }

    /// L of one domain, of the seeds that have one.
    pub(crate) fn known_of_domain(&self, domain: usize) -> Vec<f64> {
        self.domain_losses.iter().flatten().map(|losses| losses[domain]).collect()
    }

    /// Curves of the runs that have a result, with the index of their seed.
    pub(crate) fn curve(&self, seed: usize) -> Option<&'a [(u64, f64)]> {
        self.losses[seed]?;
        self.input.runs[seed].as_ref().map(|run| &run.curve[..])
    }
}

/// L_i of each domain: the mean of its windows.
fn domain_means(run: &RunInput) -> Vec<f64> {
    run.windows.iter().map(|losses| losses.iter().sum::<f64>() / losses.len() as f64).collect()
}

/// An arm and the baseline, by the seeds that both have.
pub(crate) struct Pairing<'a> {
    importances: Vec<f64>,
    arm: &'a Runs<'a>,
    baseline: &'a Runs<'a>,
    /// Indices of the seeds, in the order of declaration.
    pub(crate) seeds: Vec<usize>,
}

impl<'a> Pairing<'a> {
    pub(crate) fn new(input: &Input, arm: &'a Runs<'a>, baseline: &'a Runs<'a>) -> Self {
        let both = |seed: &usize| arm.losses[*seed].is_some() && baseline.losses[*seed].is_some();
        Self {
            importances: input.domains.iter().map(|domain| domain.importance).collect(),
            arm,
            baseline,
            seeds: (0..input.seeds.len()).filter(both).collect(),
        }
    }

    /// Whether no further pair is to come: every seed has both runs, or one of them diverged.
    pub(crate) fn is_complete(&self) -> bool {
        let ended = |seed: usize| {
            let both = self.difference(seed).is_some();
            both || self.arm.diverged.contains(&seed) || self.baseline.diverged.contains(&seed)
        };
        (0..self.arm.losses.len()).all(ended)
    }

    /// D by seed.
    pub(crate) fn difference(&self, seed: usize) -> Option<f64> {
        Some(self.arm.losses[seed]? - self.baseline.losses[seed]?)
    }

    /// Of Y, over the first `n` pairs.
    pub(crate) fn paired(&self, n: usize) -> Paired {
        let seeds = &self.seeds[..n.min(self.seeds.len())];
        let differences: Vec<f64> = seeds.iter().filter_map(|s| self.difference(*s)).collect();
        let parts = self.importances.iter().enumerate().filter_map(|(domain, importance)| {
            let part = window_variance(&self.window_differences(seeds, domain))?;
            Some(importance * importance * part)
        });
        let parts: Vec<f64> = parts.collect();
        let windows = (!parts.is_empty()).then(|| parts.iter().sum());
        Paired::new(&differences, windows, self.scale(seeds))
    }

    /// Of one domain's losses, over all pairs.
    pub(crate) fn paired_of_domain(&self, domain: usize) -> Paired {
        let windows = window_variance(&self.window_differences(&self.seeds, domain));
        let differences = self.differences_of(|losses| losses[domain]);
        Paired::new(&differences, windows, self.scale(&self.seeds))
    }

    /// Of the largest domain losses, over all pairs.
    pub(crate) fn worst_differences(&self) -> Vec<f64> {
        self.differences_of(|losses| losses.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    fn differences_of(&self, value: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        let difference = |seed: &usize| {
            let arm = value(self.arm.domain_losses[*seed].as_ref()?);
            Some(arm - value(self.baseline.domain_losses[*seed].as_ref()?))
        };
        self.seeds.iter().filter_map(difference).collect()
    }

    /// The arm's window losses less the baseline's, a row a seed.
    fn window_differences(&self, seeds: &[usize], domain: usize) -> Vec<Vec<f64>> {
        let row = |seed: &usize| {
            let arm = self.arm.input.runs[*seed].as_ref()?;
            let baseline = self.baseline.input.runs[*seed].as_ref()?;
            let pairs = arm.windows[domain].iter().zip(&baseline.windows[domain]);
            Some(pairs.map(|(a, b)| a - b).collect())
        };
        seeds.iter().filter_map(row).collect()
    }

    /// The largest domain loss in size: differences far below it are rounding.
    fn scale(&self, seeds: &[usize]) -> f64 {
        let of = |runs: &Runs<'_>| {
            let losses = seeds.iter().filter_map(|seed| runs.domain_losses[*seed].as_ref());
            losses.flatten().fold(0.0f64, |most, loss| most.max(loss.abs()))
        };
        of(self.arm).max(of(self.baseline))
    }
}
