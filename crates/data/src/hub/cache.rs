//! The cache of Hugging Face's tools, as far as one repository is concerned.
//!
//! ```text
//! $HF_HUB_CACHE/datasets--org--name/
//!     blobs/HASH               a content, called by its hash
//!     snapshots/COMMIT/PATH    a link to it, called as in the repository
//!     refs/main                the commit that a revision meant when it was last looked up
//!     .cuvee/COMMIT.json       ours: the tree of a commit, for work without a network
//! $HF_HUB_CACHE/.locks/datasets--org--name/
//!     HASH.lock                held while a blob is being written
//! ```
//!
//! What other tools fetched is found here, and what we fetch is found by them. Names of blobs are
//! hashes from a checked tree, never what a server wrote into an ETag.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_fs::{FileLock, LockKind, create_parent, unique_neighbour};
use walkdir::WalkDir;

use super::tree::{Oid, RepoEntry, is_commit, is_inside};
use crate::error::{DataError, Result};

/// One repository's part of the cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// How a file stands in the cache.
pub(super) enum Cached {
    /// It is there, of the right length and hash.
    Whole,
    Missing,
    /// Something else is in its place: this, in words.
    Damaged(String),
}

impl RepoCache {
    /// `folder` is the repository's, as `datasets--org--name`.
    pub(super) fn new(cache: &Path, folder: &str) -> RepoCache {
        RepoCache { root: cache.join(folder), locks: cache.join(".locks").join(folder) }
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where a file is read from, once it is there.
    pub(super) fn pointer(&self, commit: &str, entry: &RepoEntry) -> PathBuf {
        self.snapshot(commit).join(&entry.path)
    }

    fn blob(&self, oid: &Oid) -> PathBuf {
        self.root.join("blobs").join(oid.as_str())
    }

    /// The commit that `revision` meant when somebody last looked it up.
    pub(super) fn read_ref(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if self.read_ref(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write_shared(&self.root.join("refs").join(revision), commit.as_bytes())
    }

    fn tree_file(&self, commit: &str) -> PathBuf {
        self.root.join(".cuvee").join(format!("{commit}.json"))
    }

    /// A tree that was remembered. One that cannot be read, or could not be trusted, counts as
    /// none.
    pub(super) fn read_tree(&self, commit: &str) -> Option<Vec<RepoEntry>> {
        let text = fs::read(self.tree_file(commit)).ok()?;
        let entries: Vec<RepoEntry> = serde_json::from_slice(&text).ok()?;
        entries.iter().all(|entry| entry.check().is_ok()).then_some(entries)
    }

    pub(super) fn write_tree(&self, commit: &str, entries: &[RepoEntry]) -> Result<()> {
        let path = self.tree_file(commit);
        let text = serde_json::to_vec(entries).map_err(|error| DataError::Manifest {
            path: path.clone(),
            message: error.to_string(),
        })?;
        write_shared(&path, &text)
    }

    /// The files of a commit that are in the cache already, from the links to their blobs: some of
    /// the tree, where nobody remembered all of it.
    pub(super) fn scan(&self, commit: &str) -> Vec<RepoEntry> {
        let folder = self.snapshot(commit);
        let entry = |file: &Path| {
            let path = file.strip_prefix(&folder).ok()?.to_str()?.replace('\\', "/");
            let oid = Oid::parse(fs::read_link(file).ok()?.file_name()?.to_str()?)?;
            let size = fs::metadata(file).ok()?.len();
            is_inside(&path).then_some(RepoEntry { path, size, oid })
        };
        let files = WalkDir::new(&folder).into_iter().filter_map(|file| file.ok());
        files.filter_map(|file| entry(file.path())).collect()
    }

    /// Looks for a file and reads it whole to check it. Another tool's blob that nothing points to
    /// in this commit gets its link.
    pub(super) fn find(&self, commit: &str, entry: &RepoEntry) -> Result<Cached> {
        let pointer = self.pointer(commit, entry);
        let path = match pointer.is_file() {
            true => pointer.clone(),
            false => self.blob(&entry.oid),
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cached::Missing),
            Err(error) => return Err(DataError::io("open", &path)(error)),
        };
        let length = file.metadata().map_err(DataError::io("read", &path))?.len();
        if length != entry.size {
            return Ok(Cached::Damaged(format!(
                "expected {}, found {length}",
                cuvee_words::counted(entry.size, "byte")
            )));
        }
        let mut hasher = entry.hasher();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(DataError::io("read", &path))? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        if let Err(message) = hasher.check(entry) {
            return Ok(Cached::Damaged(message));
        }
        if path != pointer {
            self.point(commit, entry)?;
        }
        Ok(Cached::Whole)
    }

    /// Removes a file's link and its blob.
    pub(super) fn remove(&self, commit: &str, entry: &RepoEntry) -> Result<()> {
        // The link goes and not what it points to: that may be anybody's.
        cuvee_fs::remove_file(&self.pointer(commit, entry))?;
        Ok(cuvee_fs::remove_file(&self.blob(&entry.oid))?)
    }

    /// Locks a blob: whoever else wants to write it, Hugging Face's tools included, waits. What a
    /// process that was killed had begun is removed. On a file system without locks two processes
    /// may fetch a file twice, each for itself.
    ///
    /// # Errors
    /// The system refuses; [`DataError::Interrupted`] while waiting.
    pub(super) fn lock(&self, oid: &Oid, interrupted: &AtomicBool) -> Result<FileLock> {
        let path = self.locks.join(format!("{}.lock", oid.as_str()));
        create_parent(&path)?;
        let taken = cuvee_fs::wait_for_lock(&path, LockKind::Exclusive, || {
            match interrupted.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        let lock = taken.ok_or(DataError::Interrupted)?;
        // Without locks they may be another process's that is still at it.
        if lock.is_supported() {
            self.remove_parts(oid);
        }
        Ok(lock)
    }

    fn remove_parts(&self, oid: &Oid) {
        let begun = format!(".{}.", oid.as_str());
        let files = fs::read_dir(self.root.join("blobs")).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with(&begun)) {
            let _ = fs::remove_file(file.path());
        }
    }

    /// A new file to write a blob's content into.
    pub(super) fn begin(&self, oid: &Oid) -> Result<Part> {
        let path = unique_neighbour(&self.blob(oid));
        create_parent(&path)?;
        let file = File::create_new(&path).map_err(DataError::io("create", &path))?;
        Ok(Part { path, file })
    }

    /// Gives a whole, checked content its name, and the link that makes it a file of the commit.
    pub(super) fn publish(&self, commit: &str, entry: &RepoEntry, part: &Part) -> Result<()> {
        let blob = self.blob(&entry.oid);
        part.file
            .sync_all()
            .and_then(|()| fs::rename(&part.path, &blob))
            .map_err(DataError::io("write", &blob))?;
        self.point(commit, entry)
    }

    /// Makes the link, in the place of any other. Where the system has no links, a copy.
    fn point(&self, commit: &str, entry: &RepoEntry) -> Result<()> {
        let pointer = self.pointer(commit, entry);
        create_parent(&pointer)?;
        // Up from the file's folder to the repository's.
        let up = "../".repeat(entry.path.split('/').count() + 1);
        let target = format!("{up}blobs/{}", entry.oid.as_str());
        let new = unique_neighbour(&pointer);
        #[cfg(unix)]
        let made = std::os::unix::fs::symlink(target, &new);
        #[cfg(not(unix))]
        let made = fs::copy(pointer.parent().unwrap_or(&pointer).join(target), &new).map(|_| ());
        made.and_then(|()| fs::rename(&new, &pointer)).map_err(DataError::io("write", &pointer))
    }
}

/// A file being written; it is gone when this is dropped, unless it has got its name by then.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a small file whole or not at all, also where other processes do the same.
fn write_shared(path: &Path, content: &[u8]) -> Result<()> {
    create_parent(path)?;
    Ok(cuvee_fs::write_file_concurrently(path, content)?)
}
