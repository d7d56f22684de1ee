//! `search.json`: what was going to be searched and how, written before the first run.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cuvee_search::document::{Declared, DeclaredConfig, DeclaredRun, Registration, VERSION};
use cuvee_train::DataFingerprint;
use cuvee_words::printable_path;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Config, ConfigError, changes};
use crate::declaration::{self, Declaring, Differences, hash_of};
use crate::json;
use crate::sweep::matters;

/// Its name in the folder of a search.
pub const FILE: &str = "search.json";

const DECLARING: Declaring = Declaring { noun: "search", done: "searched", version: VERSION };

/// Writes a document of the search, whole or not at all. Workers that share the folder may write it
/// at once.
///
/// # Errors
/// A file that cannot be written.
pub fn write_document(path: &Path, document: &impl Serialize) -> anyhow::Result<()> {
    Ok(cuvee_fs::write_file_concurrently(path, json::text(document)?.as_bytes())?)
}

/// Reads a document of the search, if it is there.
///
/// # Errors
/// A file that is none.
pub fn read_document<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    declaration::read_document(path, &DECLARING.put_back())
}

/// Reads what the search in `folder` declared, if it did.
///
/// # Errors
/// A file that is none, is of a later version, or was edited.
pub fn read(folder: &Path) -> anyhow::Result<Option<Declared>> {
    let read: Option<Registration> = DECLARING.read(&folder.join(FILE))?;
    Ok(read.map(|registration| registration.declared))
}

/// What holds for the search in `folder`: what was declared before, or `now`, written, where
/// nothing was.
///
/// # Errors
/// What was declared is not what `now` declares.
pub fn open(folder: &Path, now: Declared, interrupted: &AtomicBool) -> anyhow::Result<Declared> {
    // Workers that begin together: the first writes, the others read.
    let _lock = DECLARING.lock(folder, interrupted)?;
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
    let mut differences = Differences::default();
    differences.value("search.seed", before.seed, now.seed);
    differences.value("search.law", &before.law, &now.law);
    differences.value("search.kappa", before.kappa, now.kappa);
    differences.value("search.freeze", format!("{:?}", before.freeze), format!("{:?}", now.freeze));
    differences.value("search.runs", before.runs, now.runs);
    differences.value("search.two_knob", before.two_knob, now.two_knob);
    differences.value("search.batch", before.batch, now.batch);
    let seeds = |declared: &Declared| declared.confirm_seeds.len().to_string();
    differences.value("search.confirm_seeds", seeds(before), seeds(now));
    differences.value("device", &before.device, &now.device);
    differences.value("train.engine", &before.engine, &now.engine);
    differences.value("train.precision", &before.precision, &now.precision);
    let configs = [("", &before.target, &now.target), ("search.proxy.", &before.proxy, &now.proxy)];
    for (prefix, old, new) in configs {
        let parsed = |config: &DeclaredConfig| Config::from_toml(&config.config);
        let keys = changes(&parsed(old)?, &parsed(new)?)?;
        let keys = keys.iter().filter(|change| matters(&change.key));
        differences.changes(prefix, keys);
    }
    let data = |declared: &Declared| -> anyhow::Result<Vec<DataFingerprint>> {
        Ok(serde_json::from_value(declared.data.clone())?)
    };
    if differences.is_empty() && !DataFingerprint::all_agree(&data(before)?, &data(now)?) {
        differences.say("the data: other shards than those declared".to_owned());
    }
    let same = |old: &[DeclaredRun], new: &[DeclaredRun]| old == new;
    let designed = same(&before.pilot, &now.pilot) && same(&before.swarm, &now.swarm);
    if differences.is_empty() && !(designed && before.domains == now.domains) {
        differences.say(format!(
            "the design: this version of Cuvee ({}) asks for other mixtures than that which declared them ({})",
            now.cuvee, before.cuvee
        ));
    }
    DECLARING.refuse(&differences, path, "")
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
