//! Proposals that need no law: published rules that turn a few runs of their own kind, or none,
//! into a mixture. A rule is its file and its row here; its runs are the trainer's. What a rule
//! proposes is confirmed as any other proposal is.

pub mod demix;
pub mod doremi;
mod interface;
pub mod mixmin;
pub mod unimax;

pub use interface::ProposalEntry;

/// All rules.
pub const PROPOSALS: &[ProposalEntry] =
    &[doremi::ENTRY, mixmin::ENTRY, demix::ENTRY, unimax::ENTRY];

/// The table of rules in Markdown, one row a rule.
pub fn proposals_markdown() -> String {
    let mut table = String::from("| proposal | what it does | runs it needs | source |\n");
    table.push_str("| --- | --- | --- | --- |\n");
    for ProposalEntry { name, summary, source, runs } in PROPOSALS {
        table.push_str(&format!("| `{name}` | {summary} | {runs} | {source} |\n"));
    }
    table
}
