//! `search.json`: what was going to be searched and how, written before the first run.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use cuvee_fs::{LockKind, wait_for_lock};
use cuvee_search::document::{Declared, DeclaredConfig, DeclaredRun, Registration, VERSION};
use cuvee_words::printable_path;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Config, ConfigError, changes};
use crate::session::Interrupted;
use crate::sweep::matters;

/// Its name in the folder of a search.
pub const FILE: &str = "search.json";

/// What to do about a document that nothing writes anew.
const PUT_BACK: &str = "put it back as it was, or begin a new search with another --out";

/// sha256 of a document as compact JSON.
///
/// # Errors
/// A document that is no JSON.
pub fn hash_of(document: &impl Serialize) -> anyhow::Result<String> {
    Ok(cuvee_data::sha256_hex(&serde_json::to_vec(document)?))
}

/// Writes a document of the search, whole or not at all. Workers that share the folder may write it
/// at once.
///
/// # Errors
/// A file that cannot be written.
pub fn write_document(path: &Path, document: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(cuvee_fs::write_file_concurrently(path, text.as_bytes())?)
}

/// Reads a document of the search, if it is there.
///
/// # Errors
/// A file that is none.
pub fn read_document<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    read_or(path, PUT_BACK)
}

/// As [`read_document`], where the hint says what writes the document anew.
///
/// # Errors
/// As [`read_document`].
pub fn read_or<T: DeserializeOwned>(path: &Path, hint: &str) -> anyhow::Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", printable_path(path)))?;
    Ok(Some(serde_json::from_str(&text).map_err(|e| damaged(path, &e.to_string(), hint))?))
}

/// Reads what the search in `folder` declared, if it did.
///
/// # Errors
/// A file that is none, is of a later version, or was edited.
pub fn read(folder: &Path) -> anyhow::Result<Option<Declared>> {
    let path = folder.join(FILE);
    let Some(value) = read_document::<serde_json::Value>(&path)? else { return Ok(None) };
    let version = value["declared"]["version"].as_u64();
    if version != Some(u64::from(VERSION)) {
        let found = version.map_or("none".to_owned(), |version| version.to_string());
        let what = format!("expected version {VERSION}, found {found}");
        return Err(damaged(&path, &what, PUT_BACK));
    }
    let hash = hash_of(&value["declared"])?;
    let read: Registration =
        serde_json::from_value(value).map_err(|e| damaged(&path, &e.to_string(), PUT_BACK))?;
    if hash != read.hash {
        return Err(ConfigError(format!(
            "{} was changed after it was written: it declares what is searched before the first run (expected sha256 {:.12}…, found {hash:.12}…)\nhint: put it back as it was, or begin a new search with another --out",
            printable_path(&path),
            read.hash
        ))
        .into());
    }
    Ok(Some(read.declared))
}

/// What holds for the search in `folder`: what was declared before, or `now`, written, where
/// nothing was.
///
/// # Errors
/// What was declared is not what `now` declares.
pub fn open(folder: &Path, now: Declared, interrupted: &AtomicBool) -> anyhow::Result<Declared> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot make the folder {}\nhint: give --out a folder that can be written",
            printable_path(folder)
        )
    })?;
    // Workers that begin together: the first writes, the others read.
    let waiting = || match interrupted.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let lock = wait_for_lock(&folder.join(".lock"), LockKind::Exclusive, waiting)?;
    let Some(_lock) = lock else { return Err(Interrupted.into()) };
    if let Some(before) = read(folder)? {
        check(&before, &now, &folder.join(FILE))?;
        return Ok(before);
    }
    if let Some(begun) =
        ["pilot", "swarm", "rounds", "confirm"].iter().find(|name| folder.join(name).exists())
    {
        return Err(ConfigError(format!(
            "{} holds runs, but no {FILE} that declares what is searched\nhint: put it back, or begin anew with another --out",
            printable_path(folder.join(begun))
        ))
        .into());
    }
    // As a JSON value, whose keys are in the order in which they are read again.
    let hash = hash_of(&serde_json::to_value(&now)?)?;
    let registration = Registration { declared: now, hash };
    write_document(&folder.join(FILE), &registration)?;
    Ok(registration.declared)
}

/// Refuses another search than the one that was declared, by what differs.
fn check(before: &Declared, now: &Declared, path: &Path) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    let mut compare = |key: &str, old: String, new: String| {
        if old != new {
            changed.push(format!("{key}: {old} → {new}"));
        }
    };
    compare("search.seed", before.seed.to_string(), now.seed.to_string());
    compare("search.law", before.law.clone(), now.law.clone());
    compare("search.kappa", before.kappa.to_string(), now.kappa.to_string());
    compare("search.freeze", format!("{:?}", before.freeze), format!("{:?}", now.freeze));
    compare("search.runs", before.runs.to_string(), now.runs.to_string());
    compare("search.two_knob", before.two_knob.to_string(), now.two_knob.to_string());
    compare("search.batch", before.batch.to_string(), now.batch.to_string());
    let seeds = |declared: &Declared| declared.confirm_seeds.len().to_string();
    compare("search.confirm_seeds", seeds(before), seeds(now));
    compare("device", before.device.clone(), now.device.clone());
    compare("train.engine", before.engine.clone(), now.engine.clone());
    compare("train.precision", before.precision.clone(), now.precision.clone());
    let configs = [("", &before.target, &now.target), ("search.proxy.", &before.proxy, &now.proxy)];
    for (prefix, old, new) in configs {
        let parsed = |config: &DeclaredConfig| Config::from_toml(&config.config);
        let keys = changes(&parsed(old)?, &parsed(new)?)?;
        let keys = keys.iter().filter(|change| matters(&change.key));
        changed.extend(keys.map(|change| format!("{prefix}{change}")));
    }
    if changed.is_empty() && before.data != now.data {
        changed.push("the data: other shards than those declared".to_owned());
    }
    let same = |old: &[DeclaredRun], new: &[DeclaredRun]| old == new;
    let designed = same(&before.pilot, &now.pilot) && same(&before.swarm, &now.swarm);
    if changed.is_empty() && !(designed && before.domains == now.domains) {
        changed.push(format!(
            "the design: this version of Cuvee ({}) asks for other mixtures than that which declared them ({})",
            now.cuvee, before.cuvee
        ));
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{} declares another search; changed since:\n  {}\nhint: begin the new one with another --out",
        printable_path(path),
        changed.join("\n  ")
    ))
    .into())
}

fn damaged(path: &Path, what: &str, hint: &str) -> anyhow::Error {
    ConfigError(format!("{} cannot be read: {what}\nhint: {hint}", printable_path(path))).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn workers_write_one_document_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pilot.json");
        let document = vec![1.5; 1000];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        write_document(&path, &document).unwrap();
                    }
                });
            }
        });
        assert_eq!(read_document::<Vec<f64>>(&path).unwrap(), Some(document));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_document_that_cannot_be_written_is_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none").join("pilot.json");
        let error = format!("{:#}", write_document(&path, &1).unwrap_err());
        assert_eq!(error.matches("cannot write").count(), 1, "{error}");
        assert!(error.contains("pilot.json"), "{error}");
    }
}
