//! What training reads: each domain's shards, and the tokenizer they share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::manifest::Manifest;
use crate::shard::Shard;
use crate::split::Split;
use crate::tokenizer::Tokenizer;

/// Prepared data.
#[derive(Debug)]
pub struct Corpus {
    /// The tokenizer of all shards.
    pub tokenizer: Arc<Tokenizer>,
    /// The domains in the order of the config; those of one `domain_by` entry in the order of their
    /// values.
    pub domains: Vec<Domain>,
}

/// One domain, opened.
#[derive(Debug)]
pub struct Domain {
    /// Its name; of a `domain_by` entry, `name/value`.
    pub name: String,
    /// Which of the config's `[[domain]]` entries it came from.
    pub entry: usize,
    /// Its folder.
    pub dir: PathBuf,
    /// Its `shard.json`.
    pub manifest: Manifest,
    /// Whether the shards were there already.
    pub reused: bool,
    shards: [Shard; 3],
}

impl Domain {
    /// Opens a domain's folder, called as its manifest says.
    ///
    /// Fails where a file is missing, damaged, or of another length than it must have.
    pub fn open(dir: &Path) -> Result<Domain> {
        let manifest = Manifest::read(dir)?;
        manifest.check_lengths(dir)?;
        let open = |split: Split| Shard::open(&dir.join(split.name()));
        let shards = [open(Split::Train)?, open(Split::Tune)?, open(Split::Valid)?];
        let name = manifest.domain.clone();
        Ok(Domain { name, entry: 0, dir: dir.to_owned(), manifest, reused: true, shards })
    }

    /// The tokens of a split; it may be empty.
    pub fn shard(&self, split: Split) -> &Shard {
        &self.shards[split.number()]
    }
}
