//! Where shards lie, and the names of their folders.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_fs::{FileLock, LockKind};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{DataError, Result};
use crate::spec::{CargoKind, SourceSpec};

/// The folder that shards go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardStore {
    /// The user's own: a domain's folder is called as the domain.
    Folder(PathBuf),
    /// Shared by all configs: a domain's folder is called by a hash of what decides its content.
    Cache(PathBuf),
}

impl ShardStore {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        match self {
            ShardStore::Folder(path) | ShardStore::Cache(path) => path,
        }
    }

    /// The folder of one `[[domain]]` entry. `identity` is the hash of what decides its content,
    /// other than the content of the source's files.
    pub(crate) fn entry(&self, name: &str, source: &SourceSpec, identity: &str) -> PathBuf {
        match self {
            ShardStore::Folder(path) => path.join(folder_name(name)),
            ShardStore::Cache(path) => {
                let hash = identity.get(..16).unwrap_or(identity);
                path.join(format!("{}-{hash}", folder_name(&readable(source))))
            }
        }
    }
}

/// A word that tells people what a cache folder holds.
fn readable(source: &SourceSpec) -> String {
    if let Some(kind) = source.cargo {
        let kind = match kind {
            CargoKind::Rust => "rust",
            CargoKind::Docs => "docs",
            CargoKind::C => "c",
        };
        return format!("cargo-{kind}");
    }
    if let Some(hub) = &source.hub {
        // The name in its repository's, and which part of it.
        let name = hub.rsplit('/').next().unwrap_or(hub);
        return source
            .config
            .as_ref()
            .map_or_else(|| name.to_owned(), |config| format!("{name}-{config}"));
    }
    let path = source.path.as_ref().and_then(|paths| paths.as_slice().first());
    // The last part of the path that is more than a pattern.
    let parts = path.into_iter().flat_map(|path| path.rsplit(['/', '\\']));
    let named = |part: &&str| part.chars().any(char::is_alphanumeric) && !part.starts_with('*');
    let part = parts.into_iter().find(named).unwrap_or("shards");
    part.chars().take_while(|c| !matches!(c, '.' | '*' | '?' | '[')).collect()
}

/// A name as the name of a folder: other characters than letters, digits, `.`, `_` and `-`
/// become `-`, and then a hash keeps different names apart.
pub(crate) fn folder_name(name: &str) -> String {
    const LONGEST: usize = 80;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut folder: String =
        name.chars().take(LONGEST).map(|c| if plain(c) { c } else { '-' }).collect();
    // No hidden folders, and none called like the files that stand beside them.
    if folder.starts_with('.') || folder.ends_with(".json") {
        folder = folder.replace('.', "-");
    }
    if folder != name || folder.is_empty() {
        folder.push_str(&format!("-{:08x}", xxh3_64(name.as_bytes()) >> 32));
    }
    folder
}

/// Makes a folder and those it is in.
///
/// # Errors
/// A file stands in the way, or the system refuses.
pub(crate) fn create_folder(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| {
        // The folder itself, or one above it.
        match dir.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            Some(path) => DataError::StoreIsFile { path: path.to_owned() },
            None => DataError::io("create", dir)(error),
        }
    })
}

/// The file in a folder that is locked while the folder is written to.
pub(crate) const LOCK: &str = ".lock";

/// Makes a folder and locks it: another process that wants to write into it waits. `waiting` is
/// called once if somebody else holds it.
///
/// # Errors
/// The folder cannot be made; [`DataError::Interrupted`] while waiting.
pub(crate) fn lock(
    dir: &Path,
    kind: LockKind,
    interrupted: &AtomicBool,
    waiting: &dyn Fn(),
) -> Result<FileLock> {
    create_folder(dir)?;
    let mut told = false;
    let path = dir.join(LOCK);
    let taken = cuvee_fs::wait_for_lock(&path, kind, || {
        if interrupted.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        if !std::mem::replace(&mut told, true) {
            waiting();
        }
        ControlFlow::Continue(())
    })?;
    Ok(taken.ok_or(DataError::Interrupted)?.required(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::OneOrMany;

    #[test]
    fn folder_names_are_safe_and_different() {
        assert_eq!(folder_name("wikipedia.en_v-1"), "wikipedia.en_v-1");
        let names = ["a/b", "a-b", "a b", "", ".", "..", "../x", "ä", "tokenizer.json", ".lock"];
        let folders: std::collections::BTreeSet<String> =
            names.iter().map(|name| folder_name(name)).collect();
        assert_eq!(folders.len(), names.len());
        for folder in &folders {
            assert!(!folder.contains(['/', ' ']) && !folder.starts_with('.'), "{folder}");
            assert!(!folder.ends_with(".json"), "{folder}");
        }
        assert!(folder_name(&"x".repeat(500)).len() < 100);
    }

    #[test]
    fn cache_folders_are_readable() {
        for (path, word) in [
            ("data/github/*.jsonl.zst", "github"),
            ("wiki/part-0*.jsonl", "part-0"),
            ("/a/b/wiki.parquet", "wiki"),
            ("**/*", "shards"),
        ] {
            let path = Some(OneOrMany::One(path.to_owned()));
            assert_eq!(readable(&SourceSpec { path, ..SourceSpec::default() }), word);
        }
    }

    #[test]
    fn a_locked_folder_makes_others_wait() {
        let folder = std::env::temp_dir().join(format!("cuvee-lock-{}", std::process::id()));
        let (go, stop, silent) = (AtomicBool::new(false), AtomicBool::new(true), || ());
        let held = lock(&folder, LockKind::Exclusive, &go, &silent);
        let told = std::cell::Cell::new(0);
        let tell = || told.set(told.get() + 1);
        for kind in [LockKind::Exclusive, LockKind::Shared] {
            // Interrupted already, it looks once and leaves.
            assert!(matches!(lock(&folder, kind, &stop, &tell), Err(DataError::Interrupted)));
        }
        drop(held);
        let shared = lock(&folder, LockKind::Shared, &stop, &silent);
        assert!(lock(&folder, LockKind::Shared, &stop, &silent).is_ok());
        assert!(lock(&folder, LockKind::Exclusive, &stop, &silent).is_err());
        drop(shared);
        assert!(lock(&folder, LockKind::Exclusive, &stop, &silent).is_ok());
        assert_eq!(told.get(), 0, "who is interrupted need not be told to wait");
        let _ = std::fs::remove_dir_all(&folder);
    }
}
