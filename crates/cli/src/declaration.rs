//! Files that declare what is going to be done before the first run: `compare.json`, `search.json`.
//!
//! Each holds `declared`, with its version, and the hash of it, so that what is changed after
//! results were seen does not pass for a plan. Workers that share a folder declare one after the
//! other; the first one's declaration holds.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use cuvee_fs::{FileLock, LockKind, wait_for_lock};
use cuvee_words::printable_path;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Change, ConfigError};
use crate::session::{Interrupted, unless_interrupted};

/// What declares itself in such a file.
#[derive(Clone, Copy, Debug)]
pub struct Declaring {
    /// What messages call it: `comparison`.
    pub noun: &'static str,
    /// What is done by it: `compared`.
    pub done: &'static str,
    /// The version of the file that is written and read.
    pub version: u32,
}

/// sha256 of a document as compact JSON.
///
/// # Errors
/// A document that is no JSON.
pub fn hash_of(document: &impl Serialize) -> anyhow::Result<String> {
    Ok(cuvee_data::sha256_hex(&serde_json::to_vec(document)?))
}

/// Reads a JSON document, if it is there; `hint` says what to do about one that is damaged.
///
/// # Errors
/// A file that cannot be read, or is none.
pub fn read_document<T: DeserializeOwned>(path: &Path, hint: &str) -> anyhow::Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", printable_path(path)))?;
    Ok(Some(serde_json::from_str(&text).map_err(|e| damaged(path, &e, hint))?))
}

fn damaged(path: &Path, what: impl Display, hint: &str) -> anyhow::Error {
    ConfigError(format!("{} cannot be read: {what}\nhint: {hint}", printable_path(path))).into()
}

/// Waits until no other process writes what lies in a shared `folder` itself.
///
/// # Errors
/// [`Interrupted`], or a lock that cannot be had.
pub fn lock(folder: &Path, interrupted: &AtomicBool) -> anyhow::Result<FileLock> {
    let waiting = || unless_interrupted(interrupted);
    let lock = wait_for_lock(&folder.join(".lock"), LockKind::Exclusive, waiting)?;
    lock.ok_or_else(|| Interrupted.into())
}

impl Declaring {
    /// What to do about a file that nothing writes anew.
    pub fn put_back(self) -> String {
        let noun = self.noun;
        format!("put it back as it was, or begin a new {noun} with another --out")
    }

    /// Makes the folder, and locks it.
    ///
    /// # Errors
    /// A folder that cannot be made; as [`lock`].
    pub fn lock(self, folder: &Path, interrupted: &AtomicBool) -> anyhow::Result<FileLock> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!(
                "cannot make the folder {}\nhint: give --out a folder that can be written",
                printable_path(folder)
            )
        })?;
        lock(folder, interrupted)
    }

    /// Reads the file at `path`, if there is one.
    ///
    /// # Errors
    /// A file that is none, is of another version, or was edited.
    pub fn read<T: DeserializeOwned>(self, path: &Path) -> anyhow::Result<Option<T>> {
        let hint = self.put_back();
        let Some(value) = read_document::<serde_json::Value>(path, &hint)? else {
            return Ok(None);
        };
        let version = value["declared"]["version"].as_u64();
        if version != Some(u64::from(self.version)) {
            let found = version.map_or("none".to_owned(), |version| version.to_string());
            let what = format!("expected version {}, found {found}", self.version);
            return Err(damaged(path, what, &hint));
        }
        // As it stands there, also what only a later version knows.
        let found = hash_of(&value["declared"])?;
        let expected = value["hash"].as_str().unwrap_or_default().to_owned();
        let read = serde_json::from_value(value).map_err(|e| damaged(path, e, &hint))?;
        if found != expected {
            return Err(ConfigError(format!(
                "{} was changed after it was written: it declares what is {} before the first run (expected sha256 {expected:.12}…, found {found:.12}…)\nhint: {hint}",
                printable_path(path),
                self.done,
            ))
            .into());
        }
        Ok(Some(read))
    }

    /// Refuses to go on where anything in `differences` differs from what the file at `path`
    /// declares.
    ///
    /// # Errors
    /// What differs; `but` ends the hint.
    pub fn refuse(self, differences: &Differences, path: &Path, but: &str) -> anyhow::Result<()> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(ConfigError(format!(
            "{} declares another {}; changed since:\n  {}\nhint: begin the new one with another --out{but}",
            printable_path(path),
            self.noun,
            differences.0.join("\n  ")
        ))
        .into())
    }
}

/// What differs between what was declared and what would be now.
#[derive(Debug, Default)]
pub struct Differences(Vec<String>);

impl Differences {
    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that the value of `key` was `old` and is `new`, where these differ.
    pub fn value(&mut self, key: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.0.push(format!("{key}: {old} → {new}"));
        }
    }

    /// Notes changes between two configs, each behind `prefix`.
    pub fn changes<'a>(&mut self, prefix: &str, changes: impl IntoIterator<Item = &'a Change>) {
        self.0.extend(changes.into_iter().map(|change| format!("{prefix}{change}")));
    }

    /// Notes a difference in words.
    pub fn say(&mut self, what: String) {
        self.0.push(what);
    }
}
