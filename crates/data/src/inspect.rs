//! What a shard, or a folder of shards, is.
//!
//! In: a path. Out: its manifest, or for a shard without one what the index says. Costs nothing but
//! the manifest, or one pass over the index.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;
use crate::index::TokenType;
use crate::manifest::{FILE_NAME, Manifest};
use crate::prepare;
use crate::shard::{self, Shard};

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

/// Says what stands at a path: a domain's folder, the folder of a `domain_by` entry, or a shard by its
/// `.idx`, `.bin` or prefix.
///
/// Fails where it is none of these or is damaged.
pub fn inspect(path: &Path) -> Result<Inspection> {
    if path.is_dir() && !path.join(FILE_NAME).exists() {
        let folders = prepare::domain_folders(path)?;
        let domains = folders.iter().map(|dir| Manifest::read(dir)).collect::<Result<_>>()?;
        return Ok(Inspection::Entry { dir: path.to_owned(), domains });
    }
    let is_manifest = path.file_name().is_some_and(|name| name == FILE_NAME);
    let dir = if is_manifest { path.parent().unwrap_or(path) } else { path };
    if dir.is_dir() {
        let manifest = Manifest::read(dir)?;
        manifest.check_lengths(dir)?;
        return Ok(Inspection::Domain { dir: dir.to_owned(), manifest: Box::new(manifest) });
    }
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
