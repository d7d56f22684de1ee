//! What a page is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cuvee_compare::Comparison;
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// What a report is made of.
#[derive(Clone, Debug, Default)]
pub struct ReportInput {
    /// The page's title.
    pub title: String,
    /// What a comparison of the runs found.
    pub comparison: Option<Comparison>,
    /// The runs; those of one arm need not stand together.
    pub runs: Vec<RunRecord>,
    /// What was noticed while they were read, a sentence each.
    pub notes: Vec<String>,
}

/// A run.
#[derive(Clone, Debug, Default)]
pub struct RunRecord {
    /// The arm that it belongs to: runs of one arm differ in their seeds alone.
    pub arm: String,
    /// Its seed, where it is known.
    pub seed: Option<u64>,
    /// Its name for people.
    pub label: String,
    /// Its folder, from the one on that was asked for: a page may be sent to others, whom the
    /// folders above do not concern.
    pub folder: PathBuf,
    /// Its metrics.
    pub records: Vec<Record>,
    /// Its config; empty where there is none.
    pub config: String,
    /// Texts that its model wrote.
    pub generations: Vec<Generation>,
    /// The text of its last evaluation, where it is known.
    pub evaluated: Option<EvaluatedText>,
}

/// The windows of an evaluation: losses of two runs are of the same text where these are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvaluatedText {
    /// Tokens predicted in a window.
    pub context: usize,
    /// By domain the sha256 of the split's tokens, and the windows' numbers.
    pub domains: BTreeMap<String, (String, Vec<u64>)>,
}

/// A text that a model wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// What it was to continue.
    pub prompt: String,
    /// How it went on.
    pub text: String,
}
