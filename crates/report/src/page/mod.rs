//! `report.html`: one page about a run, several runs, or a comparison, that needs nothing else.
//!
//! In: records, and a comparison's findings where there are any. Out: the page; the same input
//! gives the same bytes. First what came out, in a sentence; then the ranking, the differences, and
//! what happened on the way. Every name and every text in it is data and stays text. Each section
//! is a file; a section without data is left out.

mod config;
mod curves;
mod domains;
mod figure;
mod html;
mod input;
mod mixture;
mod notes;
mod over_time;
mod paired;
mod ranking;
mod read;
mod runs;
mod samples;
mod search;
mod sheet;
mod speed;

use std::path::Path;

use cuvee_compare::Comparison;
use cuvee_words::counted;

use crate::error::Result;

pub use figure::{Axis, Figure, Kind, Mark, Panel};
pub use input::{EvaluatedText, Generation, ReportInput, RunRecord};
pub use read::read_runs;
pub use search::{
    CheapRun, SearchInput, is_search, read_search, search_report, write_search_report,
};
pub use sheet::Page;

use runs::Runs;

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_report(input: &ReportInput, path: &Path) -> Result<()> {
    cuvee_fs::create_parent(path)?;
    Ok(cuvee_fs::write_file(path, report(input).as_bytes())?)
}

/// The page.
pub fn report(input: &ReportInput) -> String {
    let runs = Runs::of(&input.runs);
    let comparison = input.comparison.as_ref();
    let mut page = Page::new(&input.title, &lead(comparison, &runs));
    match comparison {
        Some(comparison) => {
            ranking::compared(&mut page, comparison);
            paired::section(&mut page, comparison);
            domains::compared(&mut page, comparison);
        }
        None => {
            ranking::uncompared(&mut page, &runs);
            domains::uncompared(&mut page, &runs);
        }
    }
    curves::section(&mut page, &runs);
    mixture::section(&mut page, &runs);
    speed::section(&mut page, &runs);
    config::section(&mut page, comparison, &runs);
    samples::section(&mut page, &runs);
    let notes =
        [input.notes.clone(), config::within_arms(&runs), mixture::collapses(&runs)].concat();
    notes::section(&mut page, comparison, &notes);
    page.finish()
}

/// What came out, in a sentence.
fn lead(comparison: Option<&Comparison>, runs: &Runs) -> String {
    if let Some(comparison) = comparison {
        return comparison.sentence.clone();
    }
    let all: Vec<_> = runs.arms.iter().flat_map(|arm| &arm.runs).collect();
    let [run] = all.as_slice() else {
        return format!(
            "{} of {}, not compared: a difference between them may be chance.",
            counted(all.len(), "run"),
            counted(runs.arms.len(), "arm")
        );
    };
    let Some(last) = run.last() else {
        let steps = run.steps.last_key_value().map_or(0, |(step, _)| *step);
        return format!("{} after {}: not evaluated.", run.run.label, counted(steps, "step"));
    };
    let loss = html::with_half_width(last.mean_loss, last.mean_loss_standard_error);
    let over = if last.mean_loss_standard_error.is_some() {
        " (± the standard error over windows)"
    } else {
        ""
    };
    format!(
        "{}: held-out loss {loss} nats a token after {}{over}.",
        run.run.label,
        counted(last.step, "step")
    )
}
