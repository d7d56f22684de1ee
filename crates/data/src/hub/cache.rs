//! The cache of Hugging Face's tools, as far as one repository is concerned.
//!
//! ```text
//! $HF_HUB_CACHE/datasets--org--name/blobs/HASH                  a content, called by its hash
//!                                  /snapshots/COMMIT/PATH       a link to it, called as in the repository
//!                                  /refs/main                   the commit a revision meant when it was last looked up
//!                                  /.cuvee/COMMIT.json          ours: the tree of a commit, for work without a network
//!              /.locks/datasets--org--name/HASH.lock            held while a blob is being written
//! ```
//!
//! What other tools fetched is found here, and what we fetch is found by them. Names of blobs are
//! hashes from a checked tree, never what a server wrote into an ETag.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use walkdir::WalkDir;

use super::tree::{Entry, Oid, is_commit, is_inside};
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
    pub(super) fn pointer(&self, commit: &str, entry: &Entry) -> PathBuf {
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
        replace(&self.root.join("refs").join(revision), commit.as_bytes())
    }

    fn tree_file(&self, commit: &str) -> PathBuf {
        self.root.join(".cuvee").join(format!("{commit}.json"))
    }

    /// A tree that was remembered. One that cannot be read, or could not be trusted, counts as
    /// none.
    pub(super) fn read_tree(&self, commit: &str) -> Option<Vec<Entry>> {
        let text = fs::read(self.tree_file(commit)).ok()?;
        let entries: Vec<Entry> = serde_json::from_slice(&text).ok()?;
        entries.iter().all(|entry| entry.check().is_ok()).then_some(entries)
    }

    pub(super) fn write_tree(&self, commit: &str, entries: &[Entry]) -> Result<()> {
        let path = self.tree_file(commit);
        let text = serde_json::to_vec(entries).map_err(|error| DataError::Manifest {
            path: path.clone(),
            message: error.to_string(),
        })?;
        replace(&path, &text)
    }

    /// The files of a commit that are in the cache already, from the links to their blobs: some of
    /// the tree, where nobody remembered all of it.
    pub(super) fn scan(&self, commit: &str) -> Vec<Entry> {
        let folder = self.snapshot(commit);
        let entry = |file: &Path| {
            let path = file.strip_prefix(&folder).ok()?.to_str()?.replace('\\', "/");
            let oid = Oid::parse(fs::read_link(file).ok()?.file_name()?.to_str()?)?;
            let size = fs::metadata(file).ok()?.len();
            is_inside(&path).then_some(Entry { path, size, oid })
        };
        let files = WalkDir::new(&folder).into_iter().filter_map(|file| file.ok());
        files.filter_map(|file| entry(file.path())).collect()
    }

    /// Looks for a file and reads it whole to check it. Another tool's blob that nothing points to
    /// in this commit gets its link.
    pub(super) fn find(&self, commit: &str, entry: &Entry) -> Result<Cached> {
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
            return Ok(Cached::Damaged(format!("expected {} bytes, found {length}", entry.size)));
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
    pub(super) fn remove(&self, commit: &str, entry: &Entry) -> Result<()> {
        // The link goes and not what it points to: that may be anybody's.
        crate::manifest::remove_file(&self.pointer(commit, entry))?;
        crate::manifest::remove_file(&self.blob(&entry.oid))
    }

    /// Holds a blob: whoever else wants to write it, Hugging Face's tools included, waits. What a
    /// process that was killed had begun is removed. Ends with the returned file.
    ///
    /// Fails where the system refuses, and on interruption while waiting.
    pub(super) fn lock(&self, oid: &Oid, interrupted: &AtomicBool) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", oid.as_str()));
        create_parent(&path)?;
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.remove_parts(oid);
                    return Ok(file);
                }
                Err(TryLockError::WouldBlock) if interrupted.load(Ordering::Relaxed) => {
                    return Err(DataError::Interrupted);
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
                // A file system without locks: two processes may fetch a file twice, each for
                // itself.
                Err(TryLockError::Error(_)) => return Ok(file),
            }
        }
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
        let path = unique(&self.blob(oid));
        create_parent(&path)?;
        let file = File::create_new(&path).map_err(DataError::io("create", &path))?;
        Ok(Part { path, file })
    }

    /// Gives a whole, checked content its name, and the link that makes it a file of the commit.
    pub(super) fn publish(&self, commit: &str, entry: &Entry, part: &Part) -> Result<()> {
        let blob = self.blob(&entry.oid);
        part.file
            .sync_all()
            .and_then(|()| fs::rename(&part.path, &blob))
            .map_err(DataError::io("write", &blob))?;
        self.point(commit, entry)
    }

    /// Makes the link, in the place of any other. Where the system has no links, a copy.
    fn point(&self, commit: &str, entry: &Entry) -> Result<()> {
        let pointer = self.pointer(commit, entry);
        create_parent(&pointer)?;
        // Up from the file's folder to the repository's.
        let up = "../".repeat(entry.path.split('/').count() + 1);
        let target = format!("{up}blobs/{}", entry.oid.as_str());
        let new = unique(&pointer);
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

/// A name beside `path` that no other thread or process uses.
fn unique(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{number}.part", std::process::id()))
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(DataError::io("create", folder))
}

/// Writes a small file whole or not at all, also where others do the same.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    create_parent(path)?;
    let new = unique(path);
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
        .map_err(DataError::io("write", path))
}
