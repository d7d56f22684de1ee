//! Whether two paths lead to one file.
//!
//! In: a path. Out: a [`FileId`], the same for every name of a file: links, hard links and
//! spellings with `..`. On Unix it is the number that the file system gives it; elsewhere its path
//! without links, which does not know hard links.

use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::time::SystemTime;

use crate::error::{DataError, Result};

/// What all names of a file have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum FileId {
    /// The file's numbers, and its length and time of change: some network file systems give one
    /// number to several files.
    #[cfg(unix)]
    Inode { device: u64, number: u64, bytes: u64, modified: Option<SystemTime> },
    /// The path without links, where files have no number.
    Path(PathBuf),
}

impl FileId {
    /// The identity of the file that a path leads to.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub(super) fn of(path: &Path) -> Result<FileId> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(path).map_err(DataError::io("read", path))?;
            if metadata.ino() != 0 {
                return Ok(FileId::Inode {
                    device: metadata.dev(),
                    number: metadata.ino(),
                    bytes: metadata.len(),
                    modified: metadata.modified().ok(),
                });
            }
        }
        path.canonicalize().map(FileId::Path).map_err(DataError::io("read", path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_names_of_a_file_are_one_and_copies_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/a"), "text").unwrap();
        std::fs::copy(path("d/a"), path("copy")).unwrap();
        let id = |name: &str| FileId::of(&path(name)).unwrap();
        assert_eq!(id("d/a"), id("d/../d/a"));
        assert_ne!(id("d/a"), id("copy"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("d", path("e")).unwrap();
            std::os::unix::fs::symlink("d/a", path("link")).unwrap();
            std::fs::hard_link(path("d/a"), path("hard")).unwrap();
            for name in ["e/a", "link", "hard"] {
                assert_eq!(id("d/a"), id(name), "{name}");
            }
        }
        assert!(FileId::of(&path("nowhere")).is_err());
    }
}
