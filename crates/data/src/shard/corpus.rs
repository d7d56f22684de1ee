//! What training reads: each domain's shards, and the tokenizer they share.

use cuvee_words::printable;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::manifest::Manifest;
use super::shard_file::Shard;
use crate::document::split::Split;
use crate::error::Result;
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

/// Work that was done, from the reading of the source to the finished shards.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Bytes of text that were read and tokenized, documents that were left out included; what an
    /// earlier run had done does not count.
    pub bytes: u64,
    /// How long it took. Of the domains of one `domain_by` entry, each has its share by its bytes.
    pub seconds: f64,
}

impl Work {
    /// Millions of bytes of text a second; `None` where there was none.
    pub fn megabytes_per_second(&self) -> Option<f64> {
        (self.bytes > 0 && self.seconds > 0.0).then(|| self.bytes as f64 / 1e6 / self.seconds)
    }

    /// The same for the end of a line, or nothing.
    pub(crate) fn words(&self) -> String {
        // A corpus of a few lines has no speed to speak of.
        self.megabytes_per_second()
            .filter(|speed| *speed >= 0.5)
            .map_or_else(String::new, |speed| format!(", {speed:.0} MB/s of text"))
    }
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
    /// What making the shards took; `None` where they were there already.
    pub work: Option<Work>,
    shards: [Shard; 3],
}

impl Domain {
    /// Opens a domain's folder, called as its manifest says.
    ///
    /// # Errors
    /// A file is missing, damaged, or of another length than it must have.
    pub fn open(dir: &Path) -> Result<Domain> {
        let manifest = Manifest::read(dir)?;
        manifest.check_lengths(dir)?;
        let open = |split: Split| Shard::open(&dir.join(split.name()));
        let shards = [open(Split::Train)?, open(Split::Tune)?, open(Split::Valid)?];
        let name = printable(&manifest.domain).into_owned();
        Ok(Domain {
            name,
            entry: 0,
            dir: dir.to_owned(),
            manifest,
            reused: true,
            work: None,
            shards,
        })
    }

    /// The tokens of a split; it may be empty.
    pub fn shard(&self, split: Split) -> &Shard {
        &self.shards[split.number()]
    }
}
