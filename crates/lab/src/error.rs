//! The one error type of this crate: says what was expected, what was found, where, and what to do.

use std::path::PathBuf;

use cuvee_words::{counted, printable_path};

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, LabError>;

/// The one key that is a flag and no setting.
pub(crate) const SWEEP: &str = "sweep";

/// What can be wrong with a study's settings or its data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A setting is out of its range.
    #[error(
        "{study}: {key} is {value}: expected {expected}\nhint: {}",
        if *key == SWEEP { "--sweep=1,10,100".to_owned() } else { format!("--set {key}=…") }
    )]
    Setting {
        /// The study.
        study: &'static str,
        /// The setting.
        key: &'static str,
        /// The value found.
        value: String,
        /// What it must be.
        expected: String,
    },

    /// A file cannot be read or written.
    #[error("{}: {source}\nhint: {hint}", printable_path(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },

    /// None of a data file's names exists.
    #[error(
        "{}: expected {name} or {name}.gz, found neither\n\
         hint: --data DIR, a folder with MNIST's four files in the IDX format, or the Hub's Parquet files", printable_path(.folder)
    )]
    NoFile {
        /// The folder looked into.
        folder: PathBuf,
        /// The file's name without `.gz`.
        name: &'static str,
    },

    /// A file of digits does not hold what it should.
    #[error(
        "{}: {what} is {found}, expected {expected}\n\
         hint: download the file again; it must be MNIST's own IDX file, gzipped or not, or the Hub's Parquet", printable_path(.path)
    )]
    Digits {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What must be there.
        expected: String,
        /// What is there.
        found: String,
    },

    /// The data hold fewer examples than the study takes.
    #[error(
        "{}: found {}, expected {expected}: {} of {samples} and {held_out} held out each\n\
         hint: --set samples=N --set held_out=N with a smaller N",
        printable_path(.folder), counted(*found, "training image"), counted(*domains, "domain")
    )]
    TooFew {
        /// The data folder.
        folder: PathBuf,
        /// Images there.
        found: usize,
        /// Images needed.
        expected: usize,
        /// Domains.
        domains: usize,
        /// Training images a domain.
        samples: usize,
        /// Held-out images a domain.
        held_out: usize,
    },
}
