//! `shard.json`: what a domain's shards hold, of what they were made, and by which tokenizer.
//!
//! In: what [`prepare`](crate::prepare) counted. Out: a file people and programs can read. It is
//! written last, so its presence says that the shards beside it are whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::invalid::InvalidCounts;
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::spec::SourceSpec;
use crate::token_type::TokenType;

/// The version of the layout of shard folders. It is part of every signature, so that another
/// version is made again and not misread.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the file.
pub(crate) const FILE_NAME: &str = "shard.json";

/// The content of `shard.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// The domain's name when the shards were made.
    pub domain: String,
    /// The tokenizer's fingerprint.
    pub tokenizer: String,
    /// Ids of the tokenizer, its largest plus one.
    pub vocab_size: usize,
    /// The id at the end of every document.
    pub end_of_text: u32,
    /// How a token is stored.
    pub token_type: TokenType,
    /// What the shards were made of.
    pub source: SourceRecord,
    /// The licence of the text, where known.
    pub license: Option<String>,
    /// What the splits hold.
    pub splits: SplitRecords,
    /// What happened to the documents.
    pub counts: Counts,
    /// Changes when anything changes that can change a token: the source's spec but for its
    /// licence, its files (length and time of change; on the Hub, commit and hashes), the
    /// tokenizer, the splits, the format version.
    pub signature: String,
}

/// What shards were made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The config's `source`.
    pub spec: SourceSpec,
    /// The config's `domain_by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_by: Option<String>,
    /// This domain's value of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_value: Option<String>,
    /// The repository and commit that the files are of (Hub sources).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubRecord>,
    /// The files of the source; for Cargo sources, the packages. Empty for a domain of an entry
    /// with `domain_by`: the `domains.json` in the entry's folder has them, once for all of its
    /// domains.
    #[serde(default)]
    pub files: Vec<FileRecord>,
}

/// A repository of the Hugging Face Hub as it was at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubRecord {
    /// Its name.
    pub repository: String,
    /// The commit's full hash.
    pub commit: String,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The file; for Cargo sources, the package and its version; for Hub sources, the path in the
    /// repository.
    pub path: PathBuf,
    /// Its length on disk.
    pub bytes: u64,
    /// The time of its last change, in nanoseconds since 1970 (a string: JSON numbers are not
    /// that exact everywhere). Empty for Hub sources, whose `oid` tells more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modified: String,
    /// The hash of its content as the repository's tree has it (Hub sources): SHA-256, or Git's
    /// SHA-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
}

/// One [`SplitRecord`] a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecords {
    /// Trained on.
    pub train: SplitRecord,
    /// For the strategies.
    pub tune: SplitRecord,
    /// Reported.
    pub valid: SplitRecord,
}

/// What one split holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Documents.
    pub documents: u64,
    /// Tokens, end-of-text included.
    pub tokens: u64,
    /// UTF-8 bytes of the documents' text, which bits per byte divide by.
    pub bytes: u64,
    /// SHA-256 of the `.bin`, in hexadecimal.
    pub bin_sha256: String,
    /// SHA-256 of the `.idx`, in hexadecimal.
    pub idx_sha256: String,
}

/// What happened to the documents of a domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents seen in the source, those that were left out included.
    pub read: u64,
    /// Left out: the same text came before.
    pub duplicates: u64,
    /// Left out: invalid. With `domain_by`, whose value such a document does not tell, those of
    /// the whole entry, which `read` then does not include.
    pub invalid_skipped: u64,
    /// The same by reason. Of shards made before reasons were counted, none are known.
    #[serde(default, skip_serializing_if = "InvalidCounts::is_empty")]
    pub invalid_reasons: InvalidCounts,
    /// Kept with U+FFFD in place of invalid bytes, or of half a surrogate pair.
    pub invalid_replaced: u64,
    /// Left out: no text but white space.
    pub empty: u64,
    /// Left out: fewer characters than `min_chars`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_short: u64,
    /// Left out: more characters than `max_chars`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_long: u64,
    /// Kept with line feeds in place of carriage returns.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cr_stripped: u64,
    /// Kept with characters changed by `normalize`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub normalized: u64,
    /// Kept with the end-of-text within: their text spells the token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub end_of_text_within: u64,
}

/// Counts of cleaning steps that are off are left out, so that a `shard.json` without them stays
/// what it was before there were such steps.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        // Saturating: a damaged record may say anything.
        self.read = self.read.saturating_add(other.read);
        self.duplicates = self.duplicates.saturating_add(other.duplicates);
        self.invalid_skipped = self.invalid_skipped.saturating_add(other.invalid_skipped);
        self.invalid_reasons += other.invalid_reasons;
        self.invalid_replaced = self.invalid_replaced.saturating_add(other.invalid_replaced);
        self.empty = self.empty.saturating_add(other.empty);
        self.too_short = self.too_short.saturating_add(other.too_short);
        self.too_long = self.too_long.saturating_add(other.too_long);
        self.cr_stripped = self.cr_stripped.saturating_add(other.cr_stripped);
        self.normalized = self.normalized.saturating_add(other.normalized);
        self.end_of_text_within = self.end_of_text_within.saturating_add(other.end_of_text_within);
    }
}

impl Manifest {
    /// Reads the `shard.json` in `dir`.
    ///
    /// # Errors
    /// It is missing, is not valid, or is of another format version.
    pub fn read(dir: &Path) -> Result<Manifest> {
        let path = dir.join(FILE_NAME);
        let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
        let wrong = |message: String| DataError::Manifest { path: path.clone(), message };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if version != FORMAT_VERSION {
            return Err(wrong(format!(
                "expected format version {FORMAT_VERSION}, found {version}"
            )));
        }
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The record of a split.
    pub fn split(&self, split: Split) -> &SplitRecord {
        match split {
            Split::Train => &self.splits.train,
            Split::Tune => &self.splits.tune,
            Split::Valid => &self.splits.valid,
        }
    }

    pub(crate) fn split_mut(&mut self, split: Split) -> &mut SplitRecord {
        match split {
            Split::Train => &mut self.splits.train,
            Split::Tune => &mut self.splits.tune,
            Split::Valid => &mut self.splits.valid,
        }
    }

    /// Documents of all splits.
    pub fn documents(&self) -> u64 {
        let documents = Split::ALL.iter().map(|split| self.split(*split).documents);
        documents.fold(0, u64::saturating_add)
    }

    /// Tokens of all splits.
    pub fn tokens(&self) -> u64 {
        let tokens = Split::ALL.iter().map(|split| self.split(*split).tokens);
        tokens.fold(0, u64::saturating_add)
    }

    /// Bytes of text of all splits.
    pub fn bytes(&self) -> u64 {
        Split::ALL.iter().map(|split| self.split(*split).bytes).fold(0, u64::saturating_add)
    }

    /// Checks that every shard file in `dir` has the length that follows from the counts.
    ///
    /// # Errors
    /// A file is missing or has another length.
    pub(crate) fn check_lengths(&self, dir: &Path) -> Result<()> {
        for split in Split::ALL {
            let record = self.split(split);
            // Saturating: a damaged manifest may say anything.
            let bin = record.tokens.saturating_mul(self.token_type.size() as u64);
            // The header, 12 bytes a document, and one more entry of 8 than there are documents.
            let idx = record.documents.saturating_mul(20).saturating_add(34 + 8);
            for (ending, expected) in [("bin", bin), ("idx", idx)] {
                let path = split_file(dir, split, ending);
                let found = std::fs::metadata(&path).map_err(DataError::io("read", &path))?.len();
                if found != expected {
                    return Err(DataError::Length { path, expected, found });
                }
            }
        }
        Ok(())
    }

    /// Removes a folder's manifest, where it has one: it is not whole any more.
    pub(crate) fn remove(dir: &Path) -> Result<()> {
        Ok(cuvee_fs::remove_file(&dir.join(FILE_NAME))?)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(FILE_NAME), self)
    }
}

/// The path of a shard file, as `train.bin`.
pub(crate) fn split_file(dir: &Path, split: Split, ending: &str) -> PathBuf {
    dir.join(format!("{split}.{ending}"))
}

/// Writes pretty JSON, whole or not at all.
///
/// # Errors
/// The system refuses.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| DataError::Manifest {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    text.push(b'\n');
    Ok(cuvee_fs::write_file(path, &text)?)
}
