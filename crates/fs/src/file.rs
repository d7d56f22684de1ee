//! One file, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{FsError, Result};
use crate::path::{neighbour, parent_of, unique_neighbour};
use crate::sync::sync_folder;

/// Makes `content` the content of the file at `path`; its folder must be there.
///
/// The new file is `.NAME.part` beside `path`. Its name is always the same, so that the next write
/// replaces what a killed process left. One writer at a time: hold a lock, or use
/// [`write_file_concurrently`].
///
/// # Errors
/// [`FsError`] with the path. At `path` is then what was there before, unless only the folder could
/// not be synced.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    write_file_with(path, |file| file.write_all(content))
}

/// As [`write_file`], with what `write` puts into the new file it is given.
///
/// # Errors
/// As [`write_file`]; those of `write` with the path.
pub fn write_file_with<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<T> {
    replace(path, &neighbour(path, "part"), write)
}

/// As [`write_file`], where several threads or processes may write the same file at once: the last
/// one to finish wins. A killed process leaves its [`unique_neighbour`].
///
/// # Errors
/// As [`write_file`].
pub fn write_file_concurrently(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, &unique_neighbour(path), |file| file.write_all(content))
}

/// Writes `new`, syncs it, and renames it to `path`.
fn replace<T>(
    path: &Path,
    new: &Path,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<T> {
    let written = || -> io::Result<T> {
        let mut file = File::create(new)?;
        let value = write(&mut file)?;
        file.sync_all()?;
        // Windows does not rename a file that is open.
        drop(file);
        fs::rename(new, path)?;
        Ok(value)
    };
    let value = written().map_err(|error| {
        // The reason of the failure matters more than whether the new file can be removed.
        let _ = fs::remove_file(new);
        FsError::of("write", path)(error)
    })?;
    sync_folder(parent_of(path))?;
    Ok(value)
}

/// Gives a file that is whole and synced its name, in place of what may be there. The folder is not
/// synced, so that several renames can share one [`sync_folder`].
///
/// # Errors
/// [`FsError`] with the new path.
pub fn rename_file(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(FsError::of("write", to))
}

/// As [`rename_file`], unless something has that name already: two programs that give files one
/// name at the same moment do not lose either.
///
/// # Errors
/// [`FsError`] with the new path, of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) where it
/// is taken. The file then keeps its old name.
pub fn rename_new_file(from: &Path, to: &Path) -> Result<()> {
    let failed = FsError::of("write", to);
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from).map_err(|error| {
            // Its new name is given up, so that the file has one name as before.
            let _ = fs::remove_file(to);
            failed(error)
        }),
        Err(error) if is_final(&error) => Err(failed(error)),
        Err(_) => claim_and_rename(from, to).map_err(failed),
    }
}

/// Whether a refused link means more than that the file system knows no second names for a file.
fn is_final(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound)
}

/// Takes the name with an empty file, which fails where it is taken, and puts the file in its
/// place.
fn claim_and_rename(from: &Path, to: &Path) -> io::Result<()> {
    File::create_new(to)?;
    fs::rename(from, to).inspect_err(|_| {
        // The reason of the failure matters more than whether the empty file can be removed.
        let _ = fs::remove_file(to);
    })
}

/// Removes a file; one that is not there is as good.
///
/// # Errors
/// [`FsError`] with the path.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FsError::of("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_file(&path, b"first, and longer").unwrap();
        write_file(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_file(&path, b"old").unwrap();
        let error = write_file_with(&path, |file| {
            file.write_all(b"half")?;
            Err::<(), _>(io::Error::other("disk full"))
        });
        let error = error.unwrap_err();
        assert_eq!((error.action, error.path.as_path()), ("write", path.as_path()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn an_open_reader_keeps_the_old_content() {
        use std::io::Read;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_file(&path, b"old").unwrap();
        let mut reader = File::open(&path).unwrap();
        write_file(&path, b"").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn a_new_name_is_given_once_and_what_has_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let claim =
            |from: &Path, to: &Path| claim_and_rename(from, to).map_err(FsError::of("", to));
        for give in [rename_new_file, claim] {
            fs::write(path("first"), b"1").unwrap();
            fs::write(path("second"), b"2").unwrap();
            give(&path("first"), &path("name")).unwrap();
            let error = give(&path("second"), &path("name")).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(path("name")).unwrap(), b"1");
            assert_eq!(fs::read(path("second")).unwrap(), b"2");
            assert!(!path("first").exists());
            fs::remove_file(path("name")).unwrap();
            // A link that leads nowhere has its name too.
            #[cfg(unix)]
            {
                std::os::unix::fs::symlink("nowhere", path("name")).unwrap();
                assert!(give(&path("second"), &path("name")).is_err());
                fs::remove_file(path("name")).unwrap();
            }
            assert!(give(&path("missing"), &path("name")).is_err());
            assert_eq!(names(folder.path()), ["second"]);
        }
    }

    #[test]
    fn of_many_that_want_a_name_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("name");
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|number| {
                    let (from, to) = (folder.path().join(format!("{number}")), &to);
                    scope.spawn(move || {
                        fs::write(&from, [number]).unwrap();
                        rename_new_file(&from, to).is_ok().then_some(number)
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(won.len(), 1);
        assert_eq!(fs::read(&to).unwrap(), won);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error_and_a_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        remove_file(&folder.path().join("missing")).unwrap();
        assert_eq!(remove_file(folder.path()).unwrap_err().action, "remove");
    }
}
