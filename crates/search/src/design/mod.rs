//! Which mixtures to run, and what the first six say about running more.
//!
//! In: the prior, caps of the final run, a number of runs. Out: mixtures, in the order in which
//! they are to be run. A design is a pure function of its input.
//!
//! Runs come in blocks. The runs of a block share a seed, and so most of what the seed does to a
//! loss: differences within a block are what the data made. Each block has one uniform run, from
//! which its offset is known.

mod pilot;
mod spread;
mod swarm;

pub use pilot::{Noise, PilotFinding, judge_pilot};
pub use swarm::{pilot, swarm};

/// What a design is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct DesignInput {
    /// The mixture that would be taken without a search: usually the domains' sizes. `[K]`
    pub prior: Vec<f64>,
    /// Largest share of each domain, by `max_epochs` of the **final** run; 1 where there is none.
    /// `[K]`
    pub caps: Vec<f64>,
    /// Runs in all, those for two knobs aside.
    pub runs: usize,
    /// Further runs in which p differs from α.
    pub two_knob: usize,
    /// Groups of domains that keep the prior's ratios within them.
    pub frozen: Vec<Vec<usize>>,
    /// Decides what is drawn.
    pub seed: u64,
}

/// A run that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Why: `uniform`, `prior`, `raised`, `left-out`, `spread`, `two-knob`; `skewed` in a pilot.
    pub kind: &'static str,
    /// Runs of one block share their seed.
    pub block: usize,
    /// p, shares of the tokens drawn. `[K]`
    pub sampling: Vec<f64>,
    /// α, shares of the objective. `[K]`
    pub objective: Vec<f64>,
}

/// Runs that a swarm over `domains` domains needs: three a domain, and no fewer than 12.
///
/// Chen et al. (olmix, arXiv:2602.12237) fit from 3(m + 1) runs and find no gain from more.
pub fn least_runs(domains: usize) -> usize {
    (3 * domains).max(2 * domains + 2).max(12)
}

#[cfg(test)]
mod tests;
