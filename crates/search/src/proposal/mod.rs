//! Proposals that need no law: published rules that turn a few runs of their own kind, or none, into
//! a mixture. A rule is its file and its row here; its runs are the trainer's. What a rule proposes
//! is confirmed as any other proposal is.

pub mod demix;
pub mod doremi;
pub mod mixmin;
pub mod unimax;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProposalEntry {
    /// What configs and the command line call it.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// The runs that it needs first.
    pub runs: &'static str,
}

/// All rules.
pub const PROPOSALS: &[ProposalEntry] =
    &[doremi::ENTRY, mixmin::ENTRY, demix::ENTRY, unimax::ENTRY];
