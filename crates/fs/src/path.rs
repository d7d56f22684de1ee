//! Names beside a path, and the folder above it.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{FsError, Result};

/// The folder that `path` lies in.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the folder that `path` is to lie in.
///
/// # Errors
/// [`FsError`] with the folder.
pub fn create_parent(path: &Path) -> Result<()> {
    let folder = parent_of(path);
    fs::create_dir_all(folder).map_err(FsError::of("create", folder))
}

/// A hidden name beside `path`, `.NAME.PROCESS-NUMBER.part`, that no other thread and no other
/// process uses, on any machine that shares the folder: the process has a random name, since
/// machines and containers count their processes alike.
pub fn unique_neighbour(path: &Path) -> PathBuf {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    neighbour(path, &format!("{:016x}-{number}.part", *PROCESS))
}

/// `.NAME.ENDING` beside `path`.
pub(crate) fn neighbour(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    #[test]
    fn neighbours_are_hidden_beside_the_path_and_never_the_same() {
        let (a, b) = (unique_neighbour(Path::new("x/y")), unique_neighbour(Path::new("x/y")));
        assert_ne!(a, b);
        assert_eq!(a.parent(), Some(Path::new("x")));
        assert!(a.file_name().unwrap().to_str().unwrap().starts_with(".y."));
    }
}
