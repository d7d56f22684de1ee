//! What the file system refused.

use std::io;
use std::path::{Path, PathBuf};

use cuvee_words::printable_path;

/// An operation that the file system refused, with the path in question.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", printable_path(path))]
pub struct FsError {
    /// What was tried, as a verb: `write`, `lock`, `remove`.
    pub action: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// The reason of the operating system.
    pub source: io::Error,
}

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, FsError>;

impl FsError {
    /// Wraps an [`io::Error`]: `file.sync_all().map_err(FsError::of("sync", path))`.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_path_buf(), source }
    }
}
