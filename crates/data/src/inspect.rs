//! What a shard, or a folder of shards, is.
//!
//! In: a path. Out: its manifest, or for a shard without one what the index says. Costs the
//! headers of the files, and for a single shard one pass over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::corpus::Domain;
use crate::error::{DataError, Result};
use crate::index::TokenType;
use crate::manifest::{Counts, FILE_NAME, Manifest};
use crate::prepare::{DOMAIN_LIST, read_list};
use crate::shard::{self, Shard};

/// More folders than this are not named in a hint.
const MOST_NAMED: usize = 5;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Inspection {
    /// A domain's folder.
    Domain {
        /// Where.
        dir: PathBuf,
        /// Its `shard.json`.
        manifest: Box<Manifest>,
    },
    /// The folder of an entry with `domain_by`.
    Entry {
        /// Where.
        dir: PathBuf,
        /// The manifests of its domains.
        domains: Vec<Manifest>,
        /// Values of `domain_by` that made no domain, since all of their documents were without
        /// text or seen before.
        without_text: BTreeMap<String, Counts>,
    },
    /// A single `.idx` and `.bin`.
    Shard {
        /// The `.bin`.
        path: PathBuf,
        /// How a token is stored.
        token_type: TokenType,
        /// Sequences; more than documents where a document has several.
        sequences: u64,
        /// Documents.
        documents: u64,
        /// Tokens.
        tokens: u64,
        /// Tokens of the longest document.
        longest: u64,
        /// The largest id.
        max_id: Option<u32>,
    },
}

/// Says what stands at a path: a domain's folder or the `shard.json` in it, the folder of a
/// `domain_by` entry or the `domains.json` in it, or a shard by its `.idx`, `.bin` or prefix.
///
/// Fails with [`DataError::NotInspectable`] where it is none of these, and where it is damaged.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let named = |name: &str| path.file_name().is_some_and(|found| found == name) && path.is_file();
    let is_description = named(FILE_NAME) || named(DOMAIN_LIST);
    let dir = if is_description { path.parent().unwrap_or(path) } else { path };
    let holds = |name: &str| if is_description { named(name) } else { dir.join(name).is_file() };
    if holds(FILE_NAME) {
        let manifest = Domain::open(dir)?.manifest;
        return Ok(Inspection::Domain { dir: dir.to_owned(), manifest: Box::new(manifest) });
    }
    if holds(DOMAIN_LIST) {
        let list = read_list(dir)?;
        let open = |folder: &String| Domain::open(&dir.join(folder)).map(|domain| domain.manifest);
        let domains = list.folders.values().map(open).collect::<Result<_>>()?;
        return Ok(Inspection::Entry { dir: dir.to_owned(), domains, without_text: list.without_text });
    }
    // A prefix may also be the name of a folder beside its two files.
    if shard::files(path).0.is_file() {
        return inspect_shard(path);
    }
    Err(not_inspectable(path))
}

fn inspect_shard(path: &Path) -> Result<Inspection> {
    let shard = Shard::open(path)?;
    shard.index().check_contiguous()?;
    let mut longest = 0;
    for i in 0..shard.index().documents() {
        let bytes: u64 = shard.index().document(i)?.iter().map(|range| range.end - range.start).sum();
        longest = longest.max(bytes / shard.token_type().size() as u64);
    }
    Ok(Inspection::Shard {
        path: shard::files(path).1,
        token_type: shard.token_type(),
        sequences: shard.index().sequences() as u64,
        documents: shard.documents(),
        tokens: shard.tokens(),
        longest,
        max_id: shard.max_id(),
    })
}

fn not_inspectable(path: &Path) -> DataError {
    let (idx, bin) = shard::files(path);
    let (found, hint) = if bin.is_file() {
        let hint = format!("the shard's index, {}, belongs beside it", idx.display());
        ("a .bin without its .idx", hint)
    } else if path.is_dir() {
        let mut folders = folders_of_shards(path);
        let more = folders.len().saturating_sub(MOST_NAMED);
        folders.truncate(MOST_NAMED);
        match (folders.as_slice(), more) {
            ([], _) => ("a folder with no shards", PREPARE.to_owned()),
            (folders, 0) => ("a folder of such folders", format!("pass {}", folders.join(" or "))),
            (folders, more) => {
                ("a folder of such folders", format!("pass {} or one of {more} more", folders.join(", ")))
            }
        }
    } else if path.exists() {
        ("another kind of file", PREPARE.to_owned())
    } else {
        ("nothing", "look at the path; relative ones start at the current folder".to_owned())
    };
    DataError::NotInspectable { path: path.to_owned(), found: found.to_owned(), hint }
}

/// What makes something that can be inspected.
const PREPARE: &str = "`cuvee prepare CONFIG` makes shards of text; then pass their folder";

/// The folders of domains and entries in a folder, sorted.
fn folders_of_shards(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_one = |path: &PathBuf| path.join(FILE_NAME).is_file() || path.join(DOMAIN_LIST).is_file();
    let mut folders: Vec<String> = paths.filter(is_one).map(|path| path.display().to_string()).collect();
    folders.sort();
    folders
}
