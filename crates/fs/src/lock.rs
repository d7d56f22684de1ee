//! Locks between processes, held through an open file.
//!
//! The operating system releases a lock when its process ends, however it ends: there is no stale
//! lock to clear away. The lock file itself stays.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::error::{FsError, Result};

/// How often a waiting process looks again.
const POLL: Duration = Duration::from_millis(50);

/// Who else may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Nobody.
    Exclusive,
    /// Others that hold it shared.
    Shared,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct FileLock {
    _file: File,
    /// Why the file system gave no lock.
    refused: Option<io::Error>,
}

impl FileLock {
    /// Whether the lock really keeps others out: `false` on a file system without locks, where what
    /// others are in the middle of writing must be left alone.
    pub fn is_supported(&self) -> bool {
        self.refused.is_none()
    }

    /// The lock, for a caller that must not work beside others: accepted are a lock that is held
    /// and a file system that knows no locks.
    ///
    /// # Errors
    /// [`FsError`] with `path` where the file system has locks and could not give one, as a network
    /// file system does whose lock server is down.
    pub fn required(self, path: &Path) -> Result<Self> {
        match self.refused {
            Some(error) if error.kind() != io::ErrorKind::Unsupported => {
                Err(FsError::of("lock", path)(error))
            }
            _ => Ok(self),
        }
    }
}

/// Takes the lock that the file at `path` stands for; `None` when another process holds it. The
/// file is made if it is not there.
///
/// A file system that gives no lock does not keep anybody from working: two writers at once are
/// then the user's to avoid, unless the caller asks for [`FileLock::required`].
///
/// # Errors
/// [`FsError`] when the file cannot be made.
pub fn try_lock(path: &Path, kind: LockKind) -> Result<Option<FileLock>> {
    let file = open(path)?;
    Ok(acquired(&file, kind).map(|refused| FileLock { _file: file, refused }))
}

/// As [`try_lock`], waiting for others. `waiting` is called each time the lock is found held by
/// another, some twenty times a second; `None` when it breaks.
///
/// # Errors
/// [`FsError`] when the file cannot be made.
pub fn wait_for_lock(
    path: &Path,
    kind: LockKind,
    mut waiting: impl FnMut() -> ControlFlow<()>,
) -> Result<Option<FileLock>> {
    let file = open(path)?;
    loop {
        if let Some(refused) = acquired(&file, kind) {
            return Ok(Some(FileLock { _file: file, refused }));
        }
        if waiting().is_break() {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// NFS gives a shared lock only to who may read the file, and an exclusive one only to who may
/// write it.
fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(FsError::of("create", path))
}

/// `None` when another process holds it; else why there is no lock, if there is none.
fn acquired(file: &File, kind: LockKind) -> Option<Option<io::Error>> {
    let tried = match kind {
        LockKind::Exclusive => file.try_lock(),
        LockKind::Shared => file.try_lock_shared(),
    };
    match tried {
        Ok(()) => Some(None),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => Some(Some(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_exclusive_lock_keeps_others_out_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let held = try_lock(&path, LockKind::Exclusive).unwrap().unwrap();
        assert!(held.is_supported());
        let held = held.required(&path).unwrap();
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_none());
        assert!(try_lock(&path, LockKind::Shared).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_some());
    }

    #[test]
    fn only_a_file_system_that_knows_no_locks_may_refuse_a_required_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let refused = |kind: io::ErrorKind| {
            let lock = FileLock { _file: open(&path).unwrap(), refused: Some(kind.into()) };
            assert!(!lock.is_supported());
            lock.required(&path)
        };
        assert!(refused(io::ErrorKind::Unsupported).is_ok());
        assert_eq!(refused(io::ErrorKind::Other).unwrap_err().action, "lock");
    }

    #[test]
    fn a_lock_file_may_be_read_and_written_as_network_file_systems_ask() {
        use std::io::{Read, Write};
        let folder = tempfile::tempdir().unwrap();
        let mut lock = try_lock(&folder.path().join(".lock"), LockKind::Shared).unwrap().unwrap();
        lock._file.write_all(b"x").unwrap();
        assert_eq!(lock._file.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn shared_locks_stand_beside_each_other_but_not_beside_an_exclusive_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let first = try_lock(&path, LockKind::Shared).unwrap().unwrap();
        let second = try_lock(&path, LockKind::Shared).unwrap().unwrap();
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_none());
        drop((first, second));
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_some());
    }

    #[test]
    fn waiting_ends_when_the_lock_is_free_or_the_caller_gives_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let mut held = try_lock(&path, LockKind::Exclusive).unwrap();
        assert!(held.is_some());
        let given_up = wait_for_lock(&path, LockKind::Exclusive, || ControlFlow::Break(()));
        assert!(given_up.unwrap().is_none());
        let taken = wait_for_lock(&path, LockKind::Exclusive, || {
            held = None;
            ControlFlow::Continue(())
        });
        assert!(taken.unwrap().is_some());
    }
}
