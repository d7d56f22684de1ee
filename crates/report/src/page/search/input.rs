//! What a search's page is made of, and the folder it is read from.

use std::fs;
use std::path::Path;

use cuvee_search::document::{
    Declared, FitDocument, PilotDocument, ProposalDocument, Registration, ResultDocument,
};
use cuvee_search::swarm::{NamedText, read_table};
use cuvee_words::{printable_path, shell_path, without_hints};
use serde::de::DeserializeOwned;

use crate::error::{ReportError, Result};

/// Names of the documents in a search's folder.
const DECLARED: &str = "search.json";
const PILOT: &str = "pilot.json";
const FIT: &str = "fit.json";
const PROPOSAL: &str = "proposal.json";
const RESULT: &str = "result.json";
const SWARM: &str = "swarm.csv";

/// What a search's page is made of: each document as far as its stage was made.
#[derive(Clone, Debug, Default)]
pub struct SearchInput {
    /// The page's title.
    pub title: String,
    /// What was going to be searched.
    pub declared: Option<Declared>,
    /// Whether it is worth its runs.
    pub pilot: Option<PilotDocument>,
    /// What the law is worth.
    pub fit: Option<FitDocument>,
    /// What is proposed and predicted.
    pub proposal: Option<ProposalDocument>,
    /// What the confirmation found.
    pub result: Option<ResultDocument>,
    /// The cheap runs.
    pub runs: Vec<CheapRun>,
    /// What was noticed while they were read, a sentence each.
    pub notes: Vec<String>,
}

/// A cheap run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheapRun {
    /// Its name.
    pub name: String,
    /// Why it was made.
    pub kind: String,
    /// p
    pub sampling: Vec<f64>,
    /// The targets' losses on the split that mixtures are chosen by.
    pub losses: Vec<f64>,
}

/// Whether `folder` is one of a search.
pub fn is_search(folder: &Path) -> bool {
    folder.join(DECLARED).is_file()
}

/// Reads the folder of a search. A document that its stage has not written yet is left out; so is
/// one that is damaged, with a note.
///
/// # Errors
/// What was declared cannot be read.
pub fn read_search(folder: &Path) -> Result<SearchInput> {
    let declared: Registration = document(&folder.join(DECLARED))?;
    let mut notes = Vec::new();
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let name = whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned();
    let mut input = SearchInput {
        title: format!("cuvee search: {name}"),
        declared: Some(declared.declared),
        pilot: optional(folder, PILOT, &mut notes),
        fit: optional(folder, FIT, &mut notes),
        proposal: optional(folder, PROPOSAL, &mut notes),
        result: optional(folder, RESULT, &mut notes),
        runs: Vec::new(),
        notes: Vec::new(),
    };
    input.runs = runs(&folder.join(SWARM), &mut notes);
    input.notes = notes;
    Ok(input)
}

fn optional<T: DeserializeOwned>(folder: &Path, name: &str, notes: &mut Vec<String>) -> Option<T> {
    let path = folder.join(name);
    if !path.exists() {
        return None;
    }
    document(&path).map_err(|error| notes.push(left_out(name, &error.reason()))).ok()
}

fn runs(path: &Path, notes: &mut Vec<String>) -> Vec<CheapRun> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let name = printable_path(path).to_string();
    match read_table(NamedText { name: &name, text: &text }) {
        Ok(swarm) => swarm
            .runs
            .into_iter()
            .map(|run| CheapRun {
                name: run.name,
                kind: run.kind,
                sampling: run.sampling,
                losses: run.tune,
            })
            .collect(),
        Err(error) => {
            notes.push(left_out(SWARM, &without_hints(&error.to_string())));
            Vec::new()
        }
    }
}

fn left_out(name: &str, reason: &str) -> String {
    format!("{name} is left out: {reason}")
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|source| ReportError::io("read", path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| ReportError::BadFile {
        path: path.to_owned(),
        expected: "a document of a search",
        reason: error.to_string(),
        folder: shell_path(path.parent().unwrap_or(path)),
    })
}
