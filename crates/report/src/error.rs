//! The one error type of this crate: names the file, what was expected and what was found.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_words::printable_path;

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, ReportError>;

/// What can be wrong with a metrics log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}\nhint: check that the folder exists, is writable, and has room", printable_path(.path))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A log is shorter than the checkpoint that goes on with it says.
    #[error(
        "{} has {}: expected at least the {expected} that the checkpoint counts\n\
         hint: the log was cut or replaced; resume from an older checkpoint, or start a new run",
        printable_path(.path), cuvee_words::counted(*found, "byte")
    )]
    LogTooShort {
        /// The log.
        path: PathBuf,
        /// Bytes that the checkpoint counts.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },

    /// The place to go on from lies within a line.
    #[error(
        "{}: byte {offset}, where the checkpoint goes on, is not the start of a line\n\
         hint: the log is not the one that the checkpoint belongs to; start a new run", printable_path(.path)
    )]
    NotALine {
        /// The log.
        path: PathBuf,
        /// The byte.
        offset: u64,
    },

    /// A line is not a record.
    #[error("{}, line {line}: expected a step or eval record: {reason}\nhint: remove the line, or rerun", printable_path(.path))]
    BadRecord {
        /// The log.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What the JSON parser says.
        reason: String,
    },

    /// A file cannot be written or removed whole.
    #[error("{0}\nhint: check that the folder is writable and has room")]
    File(#[from] cuvee_fs::FsError),

    /// What should be reported on is no run.
    #[error(
        "{}: expected a run folder (with metrics.jsonl) or a comparison's (with comparison.json), \
         found {found}\nhint: `cuvee train` and `cuvee compare` print the folders they write", .path.display()
    )]
    NoRun {
        /// What was asked for.
        path: PathBuf,
        /// What is there.
        found: String,
    },

    /// A file beside a log is not what its name says.
    #[error(
        "{}: expected {expected}: {reason}\nhint: look at {folder}; remove the file to do without it",
        .path.display()
    )]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What the JSON parser says.
        reason: String,
        /// The folder that it lies in.
        folder: String,
    },

    /// A file of window losses does not hold what it should.
    #[error(
        "{}: expected the window losses of an evaluation: {reason}\n\
         hint: remove the file; an evaluation of that step writes it anew", printable_path(.path)
    )]
    BadWindows {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ReportError {
    /// What is wrong with a file, without its path and without advice: for where both are known.
    pub(crate) fn reason(&self) -> String {
        match self {
            ReportError::Io { action, source, .. } => format!("cannot {action}: {source}"),
            ReportError::BadRecord { line, reason, .. } => {
                format!("line {line}: expected a step or eval record: {reason}")
            }
            ReportError::BadFile { expected, reason, .. } => {
                format!("expected {expected}: {reason}")
            }
            ReportError::BadWindows { reason, .. } => {
                format!("expected the window losses of an evaluation: {reason}")
            }
            // Of these the path is a part of what is said.
            ReportError::File(_)
            | ReportError::LogTooShort { .. }
            | ReportError::NotALine { .. }
            | ReportError::NoRun { .. } => self.to_string(),
        }
    }

    /// What the system said of a file. "Not found" of a write means the folder; the words cover
    /// both.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> ReportError {
        let source = match source.kind() {
            ErrorKind::NotFound => {
                std::io::Error::new(ErrorKind::NotFound, "no such file or folder")
            }
            _ => source,
        };
        ReportError::Io { action, path: path.to_owned(), source }
    }
}
