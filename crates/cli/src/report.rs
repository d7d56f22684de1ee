//! `cuvee report PATH…`: one HTML page about runs or a comparison.

use std::path::{Path, PathBuf};

use cuvee_compare::Comparison;
use cuvee_report::page::{is_search, read_runs, read_search, write_report, write_search_report};
use cuvee_words::{counted, printable_path, shell_path};
use serde_json::json;

use crate::config::ConfigError;
use crate::session::Session;

/// What `report` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct ReportArgs {
    /// Run folders, or the folder of a comparison or of a search
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// The page's name, where none is given.
pub const PAGE: &str = "report.html";

/// Reads the runs and writes the page: to `--out`, else into the folder, of several into the
/// current one.
pub fn run(args: &ReportArgs, session: &Session) -> anyhow::Result<()> {
    let page = match (&session.common.out, args.paths.as_slice()) {
        (Some(out), _) if out.is_dir() => out.join(PAGE),
        // A slip must not cost a log or a config.
        (Some(out), _) if out.extension().is_none_or(|end| end != "html") => {
            return Err(ConfigError(format!(
                "--out {}: expected a file that ends in .html, or a folder that is there\n\
                 hint: --out {}",
                printable_path(out),
                shell_path(&out.with_extension("html"))
            ))
            .into());
        }
        (Some(out), _) => out.clone(),
        (None, [path]) => path.join(PAGE),
        (None, _) => Path::new(PAGE).to_path_buf(),
    };
    if let [folder] = args.paths.as_slice()
        && is_search(folder)
    {
        return of_search(folder, &page, session);
    }
    let input = read_runs(&args.paths)?;
    write_report(&input, &page)?;
    for note in &input.notes {
        session.say(format!("note: {note}"));
    }
    session.say(format!(
        "report    {}  ({})",
        printable_path(&page),
        counted(input.runs.len(), "run")
    ));
    session.emit(&json!({ "report": page, "runs": input.runs.len() }))
}

/// The page of the search in `folder`.
fn of_search(folder: &Path, page: &Path, session: &Session) -> anyhow::Result<()> {
    let input = read_search(folder)?;
    write_search_report(&input, page)?;
    for note in &input.notes {
        session.say(format!("note: {note}"));
    }
    let runs = input.runs.len();
    session.say(format!("report    {}  ({})", printable_path(page), counted(runs, "cheap run")));
    session.emit(&json!({ "report": page, "runs": runs }))
}

/// Writes the page of the search in `folder` into it, as far as its stages have been made. The
/// search is done with or without it: what keeps it from being written is said, and no failure.
pub fn write_search_page(folder: &Path, session: &Session) -> Option<PathBuf> {
    let page = folder.join(PAGE);
    match read_search(folder).and_then(|input| write_search_report(&input, &page)) {
        Ok(()) => Some(page),
        Err(error) => {
            session.say(format!("warning: no report: {error}"));
            None
        }
    }
}

/// Writes the page about the runs in `paths` into `folder`, with what a `comparison` of them found.
/// The runs are done with or without it: what keeps it from being written is said, and no failure.
pub fn write_page(
    paths: &[PathBuf],
    folder: &Path,
    comparison: Option<&Comparison>,
    session: &Session,
) -> Option<PathBuf> {
    let page = folder.join(PAGE);
    let written = read_runs(paths).and_then(|mut input| {
        input.comparison = comparison.cloned().or(input.comparison);
        write_report(&input, &page)
    });
    match written {
        Ok(()) => Some(page),
        Err(error) => {
            session.say(format!("warning: no report: {error}"));
            None
        }
    }
}
