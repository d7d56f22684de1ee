//! Folders that are replaced whole or not at all, whatever moment the power fails at.
//!
//! A folder NAME is written as its hidden neighbour `.NAME.partial`, put on the disk, and swapped
//! in by two renames: the old one aside to `.NAME.old`, the new one to NAME. Only then is the old
//! one deleted. Costs the space of both.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Result, TrainError};

const PARTIAL: &str = ".partial";
const OLD: &str = ".old";

/// Makes what `write` puts into the folder it is given (empty, beside `target`) the contents of
/// `target`.
///
/// Until that is complete and on the disk, `target` is what it was; after an error it still is.
/// What an earlier crash left of the same `target` is cleared away first. A `target` that is a link
/// is followed.
///
/// # Errors
/// Those of `write`; [`TrainError::Io`] with the path in question.
pub fn replace_folder(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    // The true path: a link's own name would be swapped instead of the folder it stands for.
    let target = match fs::canonicalize(target) {
        Ok(true_path) => true_path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => target.to_path_buf(),
        Err(error) => return Err(TrainError::io("read", target)(error)),
    };
    if target.is_file() {
        return Err(TrainError::io("write", &target)(io::ErrorKind::NotADirectory.into()));
    }
    let nameless = || TrainError::io("write", &target)(io::ErrorKind::InvalidFilename.into());
    let name = target.file_name().ok_or_else(nameless)?;
    let parent = parent_of(&target);
    fs::create_dir_all(parent).map_err(TrainError::io("create", parent))?;
    let (partial, old) = (hidden(parent, name, PARTIAL), hidden(parent, name, OLD));
    clear_partial(&partial)?;
    settle_old(&old, &target)?;

    fs::create_dir(&partial).map_err(TrainError::io("create", &partial))?;
    let written = write(&partial).and_then(|()| sync_tree(&partial));
    if let Err(error) = written {
        // The reason of the failure matters more than whether it can be cleared away; the next call
        // tries again.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    let replaces = exists(&target)?;
    if replaces {
        fs::rename(&target, &old).map_err(TrainError::io("move aside", &target))?;
    }
    if let Err(error) = fs::rename(&partial, &target) {
        if replaces {
            fs::rename(&old, &target).map_err(TrainError::io("put back", &target))?;
        }
        return Err(TrainError::io("write", &target)(error));
    }
    sync_folder(parent)?;
    if replaces { remove(&old) } else { Ok(()) }
}

/// Removes `folder` so that no crash leaves half of it under its name: it is renamed to that of an
/// unfinished one first.
///
/// # Errors
/// [`TrainError::Io`].
pub fn remove_folder(folder: &Path) -> Result<()> {
    let nameless = || TrainError::io("remove", folder)(io::ErrorKind::InvalidFilename.into());
    let name = folder.file_name().ok_or_else(nameless)?;
    let going = hidden(parent_of(folder), name, PARTIAL);
    clear_partial(&going)?;
    fs::rename(folder, &going).map_err(TrainError::io("remove", folder))?;
    remove(&going)
}

/// Clears away what crashes of [`replace_folder`] and [`remove_folder`] left in `parent`, under any
/// name: unfinished folders go, and a folder that a crash caught between the two renames gets its
/// name back. Nothing is there to do if `parent` is not.
///
/// Only for folders that are the program's own, such as a run's checkpoints.
///
/// # Errors
/// [`TrainError::Io`].
pub fn sweep_folders(parent: &Path) -> Result<()> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(TrainError::io("read", parent)(error)),
    };
    for entry in entries {
        let path = entry.map_err(TrainError::io("read", parent))?.path();
        let Some(hidden) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('.'))
        else {
            continue;
        };
        if hidden.ends_with(PARTIAL) {
            clear_partial(&path)?;
        } else if let Some(name) = hidden.strip_suffix(OLD) {
            settle_old(&path, &parent.join(name))?;
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
        (true, false) => fs::rename(old, target).map_err(TrainError::io("put back", target)),
    }
}

fn hidden(parent: &Path, name: &std::ffi::OsStr, suffix: &str) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    parent.join(hidden)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Unlike `Path::exists`, tells "not there" from "cannot be looked at".
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(TrainError::io("read", path))
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(TrainError::io("remove", folder))
}

/// Flushes every file below `folder`, then the folder.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(TrainError::io("read", folder))? {
        let path = entry.map_err(TrainError::io("read", folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            // Opened for writing: on Windows a file opened for reading cannot be flushed.
            let file = File::options().write(true).open(&path);
            file.and_then(|file| file.sync_all()).map_err(TrainError::io("flush", &path))?;
        }
    }
    sync_folder(folder)
}

/// Flushes a folder's list of names. Windows cannot open a folder as a file and keeps that list by
/// itself.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(TrainError::io("flush", folder))?;
    }
    Ok(())
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
            Err(TrainError::io("write", folder)(io::ErrorKind::StorageFull.into()))
        });
        assert!(matches!(failed, Err(TrainError::Io { .. })));
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
                Err(TrainError::io("write", folder)(io::ErrorKind::StorageFull.into()))
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
        assert!(matches!(remove_folder(&dir.path().join("a")), Err(TrainError::Io { .. })));
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
        assert!(matches!(replace(&dir.path().join("export"), ""), Err(TrainError::Io { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("export")).unwrap(), "a file");
        assert_eq!(names(dir.path()), ["export"]);
    }
}
