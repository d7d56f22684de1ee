//! Locks between processes, held through an open file.
//!
//! The operating system releases a lock when its process ends, however it ends: there is no stale
//! lock to clear away. The lock file itself stays.

use std::fs::{File, TryLockError};
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
    supported: bool,
}

impl FileLock {
    /// Whether the lock really keeps others out: `false` on a file system without locks, where what
    /// others are in the middle of writing must be left alone.
    pub fn is_supported(&self) -> bool {
        self.supported
    }
}

/// Takes the lock that the file at `path` stands for; `None` when another process holds it. The
/// file is made if it is not there.
///
/// A file system without locks grants every lock: it does not keep anybody from working, and two
/// writers at once are then the user's to avoid.
///
/// # Errors
/// [`FsError`] when the file cannot be made.
pub fn try_lock(path: &Path, kind: LockKind) -> Result<Option<FileLock>> {
    let file = open(path)?;
    Ok(acquired(&file, kind).map(|supported| FileLock { _file: file, supported }))
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
        if let Some(supported) = acquired(&file, kind) {
            return Ok(Some(FileLock { _file: file, supported }));
        }
        if waiting().is_break() {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn open(path: &Path) -> Result<File> {
    File::create(path).map_err(FsError::of("create", path))
}

/// `None` when another process holds it; else whether there are locks at all.
fn acquired(file: &File, kind: LockKind) -> Option<bool> {
    let tried = match kind {
        LockKind::Exclusive => file.try_lock(),
        LockKind::Shared => file.try_lock_shared(),
    };
    match tried {
        Ok(()) => Some(true),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => Some(false),
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
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_none());
        assert!(try_lock(&path, LockKind::Shared).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path, LockKind::Exclusive).unwrap().is_some());
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
