//! `domains.json`: the domains that one entry with `domain_by` was cut into.
//!
//! It lies in the entry's folder, beside the folders of its domains, and is written after all of
//! them, so its presence says that they are whole.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::{Counts, FileRecord, write_json};
use crate::error::{DataError, Result};

/// The name of the file.
pub(crate) const FILE_NAME: &str = "domains.json";

/// The content of `domains.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DomainList {
    pub(crate) signature: String,
    /// From the values of `domain_by` to the folders of their domains.
    pub(crate) folders: BTreeMap<String, String>,
    /// Values that made no domain: their documents were all without text or seen before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) without_text: BTreeMap<String, Counts>,
    /// The files of the source, which are those of every domain. Lists that are older have none:
    /// there each domain's `shard.json` has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileRecord>,
}

impl DomainList {
    /// Reads the `domains.json` in `dir`.
    ///
    /// # Errors
    /// It is missing or not valid.
    pub(crate) fn read(dir: &Path) -> Result<DomainList> {
        let path = dir.join(FILE_NAME);
        let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
        serde_json::from_slice(&text)
            .map_err(|error| DataError::Manifest { path, message: error.to_string() })
    }

    /// Removes the list of a folder, where it has one: its domains are about to change.
    pub(crate) fn remove(dir: &Path) -> Result<()> {
        Ok(cuvee_fs::remove_file(&dir.join(FILE_NAME))?)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(FILE_NAME), self)
    }
}
