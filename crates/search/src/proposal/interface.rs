//! What a rule's row says.

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
