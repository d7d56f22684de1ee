//! A mixture in the words of Cuvee and of other trainers. A program is its file and its row here.
//!
//! The numbers are shares of **tokens**, whatever the program: written with six decimals that sum
//! to exactly 1. Where a program's weights count something else, its `semantics` say what has to be
//! true for them to mean tokens, and so does what is written. Domains without a share are left out,
//! but for Cuvee, whose configs list all of them.

mod automodel;
mod cuvee;
mod datasets;
mod interface;
mod levanter;
mod megatron;
mod nemo;
mod olmo_core;
mod text;

pub use interface::{FormatEntry, Output, Verified};

use crate::error::{Result, SearchError};

/// All programs, Cuvee first.
pub const FORMATS: &[FormatEntry] = &[
    cuvee::ENTRY,
    megatron::ENTRY,
    nemo::ENTRY,
    automodel::ENTRY,
    levanter::ENTRY,
    olmo_core::ENTRY,
    datasets::ENTRY,
];

/// The program called `name`.
///
/// # Errors
/// No such program; the names are said.
pub fn format_named(name: &str) -> Result<&'static FormatEntry> {
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| SearchError::BadValue {
        expected: FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", "),
        found: name.to_owned(),
        place: "the format of the output".to_owned(),
        hint: "take one of these programs",
    })
}

/// The table of programs in Markdown, one row a program.
pub fn formats_markdown() -> String {
    let mut table = String::from("| program | what is written | what its weights count |\n");
    table.push_str("| --- | --- | --- |\n");
    for FormatEntry { name, summary, semantics, .. } in FORMATS {
        table.push_str(&format!("| `{name}` | {summary} | {semantics} |\n"));
    }
    table
}

#[cfg(test)]
mod tests;
