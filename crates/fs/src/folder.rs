//! Folders that are replaced whole or not at all, whatever moment the power fails at.
//!
//! A folder NAME is written as its hidden neighbour `.NAME.partial`, synced, and swapped in by two
//! renames: the old one aside to `.NAME.old`, the new one to NAME. Only then is the old one
//! removed. Costs the space of both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{FsError, Result};
use crate::path::{create_parent, neighbour, parent_of};
use crate::sync::{sync_file, sync_folder};

/// Endings of the hidden neighbours.
const PARTIAL: &str = "partial";
const OLD: &str = "old";

/// Makes what `write` puts into the folder it is given (empty, beside `target`) the contents of
/// `target`.
///
/// Until that is complete and on the disk, `target` is what it was; after an error it still is.
/// What an earlier crash left of the same `target` is cleared away first. A `target` that is a link
/// is followed.
///
/// # Errors
/// Those of `write`; [`FsError`] with the path in question.
pub fn replace_folder<E: From<FsError>>(
    target: &Path,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let target = true_path(target)?;
    let (partial, old) = (neighbour(&target, PARTIAL), neighbour(&target, OLD));
    clear_partial(&partial)?;
    settle_old(&old, &target)?;
    fs::create_dir(&partial).map_err(FsError::of("create", &partial))?;
    let written = write(&partial).and_then(|()| Ok(sync_tree(&partial)?));
    if let Err(error) = written {
        // The reason of the failure matters more than whether it can be cleared away; the next call
        // tries again.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    Ok(swap(&partial, &target, &old)?)
}

/// Where a folder is to stand: behind a link, whose own name would be swapped otherwise. Makes the
/// folder above it.
fn true_path(target: &Path) -> Result<PathBuf> {
    let target = match fs::canonicalize(target) {
        Ok(true_path) => true_path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => target.to_path_buf(),
        Err(error) => return Err(FsError::of("read", target)(error)),
    };
    if target.is_file() {
        return Err(FsError::of("write", &target)(io::ErrorKind::NotADirectory.into()));
    }
    if target.file_name().is_none() {
        return Err(FsError::of("write", &target)(io::ErrorKind::InvalidFilename.into()));
    }
    create_parent(&target)?;
    Ok(target)
}

/// Moves what may stand at `target` aside to `old`, gives `partial` its name, and removes `old`.
fn swap(partial: &Path, target: &Path, old: &Path) -> Result<()> {
    let replaces = exists(target)?;
    if replaces {
        fs::rename(target, old).map_err(FsError::of("move aside", target))?;
    }
    if let Err(error) = fs::rename(partial, target) {
        if replaces {
            fs::rename(old, target).map_err(FsError::of("put back", target))?;
        }
        return Err(FsError::of("write", target)(error));
    }
    sync_folder(parent_of(target))?;
    if replaces { remove(old) } else { Ok(()) }
}

/// Removes `folder` so that no crash leaves half of it under its name: it is renamed to that of an
/// unfinished one first.
///
/// # Errors
/// [`FsError`].
pub fn remove_folder(folder: &Path) -> Result<()> {
    if folder.file_name().is_none() {
        return Err(FsError::of("remove", folder)(io::ErrorKind::InvalidFilename.into()));
    }
    let going = neighbour(folder, PARTIAL);
    clear_partial(&going)?;
    fs::rename(folder, &going).map_err(FsError::of("remove", folder))?;
    remove(&going)
}

/// Clears away what crashes of [`replace_folder`] and [`remove_folder`] left in `parent`, under any
/// name: unfinished folders go, and a folder that a crash caught between the two renames gets its
/// name back. Nothing is there to do if `parent` is not.
///
/// Only for folders that are the program's own, such as a run's checkpoints.
///
/// # Errors
/// [`FsError`].
pub fn sweep_folders(parent: &Path) -> Result<()> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FsError::of("read", parent)(error)),
    };
    for entry in entries {
        let path = entry.map_err(FsError::of("read", parent))?.path();
        let Some(hidden) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('.'))
        else {
            continue;
        };
        match hidden.rsplit_once('.') {
            Some((_, PARTIAL)) => clear_partial(&path)?,
            Some((name, OLD)) => settle_old(&path, &parent.join(name))?,
            _ => {}
        }
    }
    Ok(())
}

fn clear_partial(partial: &Path) -> Result<()> {
    if exists(partial)? { remove(partial) } else { Ok(()) }
}

/// What lies at `old` is the only copy if nothing has its name, and worthless otherwise.
fn settle_old(old: &Path, target: &Path) -> Result<()> {
    match (exists(old)?, exists(target)?) {
        (false, _) => Ok(()),
        (true, true) => remove(old),
        (true, false) => fs::rename(old, target).map_err(FsError::of("put back", target)),
    }
}

/// Unlike `Path::exists`, tells "not there" from "cannot be looked at".
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(FsError::of("read", path))
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(FsError::of("remove", folder))
}

/// Syncs every file below `folder`, then the folder.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(FsError::of("read", folder))? {
        let path = entry.map_err(FsError::of("read", folder))?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync_file(&path)? }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn put(folder: &Path, file: &str, text: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn replace(target: &Path, text: &str) -> Result<()> {
        replace_folder(target, |folder| {
            put(folder, "new", text);
            put(&folder.join("inner"), "deep", text);
            Ok(())
        })
    }

    #[test]
    fn a_folder_is_replaced_whole_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b/export");
        replace(&target, "one").unwrap();
        put(&target, "stale", "");
        replace(&target, "two").unwrap();
        assert_eq!(names(&target), ["inner", "new"]);
        assert_eq!(fs::read_to_string(target.join("inner/deep")).unwrap(), "two");
        assert_eq!(names(&dir.path().join("a/b")), ["export"]);
        assert!(replace(Path::new("/"), "").is_err());
    }

    #[test]
    fn the_old_folder_keeps_its_name_until_the_new_one_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("export");
        put(&target, "old", "kept");
        let failed = replace_folder(&target, |folder| {
            assert_ne!(folder, target);
            assert_eq!(names(&target), ["old"], "untouched while the new one is written");
            put(folder, "half", "");
            Err(FsError::of("write", folder)(io::ErrorKind::StorageFull.into()))
        });
        assert!(matches!(failed, Err(FsError { .. })));
        assert_eq!(
            (names(&target), names(dir.path())),
            (vec!["old".to_owned()], vec!["export".to_owned()])
        );
    }

    #[test]
    fn what_crashes_left_is_swept() {
        // Caught while writing, after both renames, and between them.
        let dir = tempfile::tempdir().unwrap();
        let leave = |name: &str, file: &str| put(&dir.path().join(name), file, "");
        let crash = || {
            leave(".a.partial", "half");
            leave("b", "new");
            leave(".b.old", "old");
            leave(".c.old", "old");
            leave(".c.partial", "complete, but nothing says so");
            leave(".git", "not ours");
        };
        crash();
        sweep_folders(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".git", "b", "c"]);
        assert_eq!(names(&dir.path().join("b")), ["new"]);
        assert_eq!(names(&dir.path().join("c")), ["old"]);
        sweep_folders(&dir.path().join("nowhere")).unwrap();

        fs::remove_dir_all(dir.path().join("c")).unwrap();
        crash();
        for name in ["a", "b", "c"] {
            let target = dir.path().join(name);
            let failed = replace_folder(&target, |folder| {
                assert_eq!(names(folder), [""; 0], "a fresh folder");
                Err(FsError::of("write", folder)(io::ErrorKind::StorageFull.into()))
            });
            assert!(failed.is_err());
        }
        assert_eq!(names(dir.path()), [".git", "b", "c"], "the only copy of c has its name again");
        replace(&dir.path().join("c"), "").unwrap();
        assert_eq!(names(dir.path()), [".git", "b", "c"]);
    }

    #[test]
    fn a_removed_folder_leaves_nothing_and_its_neighbours_alone() {
        let dir = tempfile::tempdir().unwrap();
        put(&dir.path().join("a/inner"), "file", "");
        put(&dir.path().join(".a.partial"), "half", "");
        put(&dir.path().join("b"), "file", "");
        remove_folder(&dir.path().join("a")).unwrap();
        assert_eq!(names(dir.path()), ["b"]);
        assert!(matches!(remove_folder(&dir.path().join("a")), Err(FsError { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_the_folder_behind_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (behind, link) = (dir.path().join("behind"), dir.path().join("link"));
        put(&behind, "old", "");
        std::os::unix::fs::symlink(&behind, &link).unwrap();
        replace(&link, "").unwrap();
        assert!(link.is_symlink());
        assert_eq!(names(&behind), ["inner", "new"]);
        assert_eq!(names(dir.path()), ["behind", "link"]);
    }

    #[test]
    fn a_file_in_the_way_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("export"), "a file").unwrap();
        assert!(matches!(replace(&dir.path().join("export"), ""), Err(FsError { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("export")).unwrap(), "a file");
        assert_eq!(names(dir.path()), ["export"]);
    }
}
