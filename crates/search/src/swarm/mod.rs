//! A swarm: runs of many mixtures, what each was trained on and what came out. It is the search's
//! memory: laws are fitted to it, and it serves other budgets, targets and groups of domains later.

mod olmix;
mod regroup;
mod table;
mod text_table;

pub use olmix::{read_olmix, write_olmix};
pub use regroup::Frozen;
pub use table::{find_target, read_table, write_table};
pub use text_table::NamedText;

/// A swarm over K domains and M targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Swarm {
    /// The domains that mixtures are over. `[K]`
    pub domains: Vec<String>,
    /// The losses that were measured; usually the domains again. `[M]`
    pub targets: Vec<String>,
    /// Tokens that each domain has, before any is repeated; empty where unknown. `[K]`
    pub available: Vec<f64>,
    /// The runs, in the order in which they were asked for.
    pub runs: Vec<SwarmRun>,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct SwarmRun {
    /// What its folder is called; a number in tables of other programs.
    pub name: String,
    /// Why it was made: `uniform`, `prior`, `raised`, `left-out`, `spread`, `proposed`, `two-knob`;
    /// `given` where another program's table does not say.
    pub kind: String,
    /// The run's seed.
    pub seed: u64,
    /// Runs of one block share their seed and their offset.
    pub block: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens trained on, all domains together.
    pub tokens: f64,
    /// p, the domains' shares of the tokens drawn; sums to 1. `[K]`
    pub sampling: Vec<f64>,
    /// α, the domains' shares of the objective; p where one knob alone was turned. `[K]`
    pub objective: Vec<f64>,
    /// Tokens of each domain that were drawn; empty where unknown. `[K]`
    pub seen: Vec<f64>,
    /// Loss of each target on the split that steers; nats a token. `[M]`
    pub tune: Vec<f64>,
    /// Loss of each target on the split that only verifies; empty where there is none. `[M]`
    pub valid: Vec<f64>,
    /// Tokens trained on, and the losses on the split that steers there.
    pub curve: Vec<(f64, Vec<f64>)>,
}

#[cfg(test)]
mod tests;
