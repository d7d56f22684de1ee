//! `part.json`: how much of a part's files counts, and where in the source to go on.
//!
//! In: the folder of an entry. Out: its parts, and how far each is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{RECORD_BYTES, StreamRecord, records_file, stream_files};
use crate::document::invalid::{LeftOut, Skips};
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::hash::sha256_hex;
use crate::prepare::job::Job;
use crate::shard::manifest::{Counts, split_file, write_json};
use crate::source::chunk::Cursor;
use crate::source::share::Share;

/// The version of the layout of part folders; another one's are made again.
pub(crate) const PART_VERSION: u32 = 2;
/// What tells how far a part is.
pub(crate) const FILE_NAME: &str = "part.json";
/// The key of the checksum of the rest.
const CHECK: &str = "check";
/// No count is larger, so that sums of some counts always fit.
const LARGEST: u64 = 1 << 48;
/// The folder in an entry's folder that its parts are in.
const FOLDER: &str = ".parts";

/// The content of `part.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) version: u32,
    /// The signature of the shards to be made.
    pub(crate) signature: String,
    pub(crate) share: Share,
    /// Where to go on; none where everything has been read.
    pub(crate) next: Option<Position>,
    /// Bytes on disk of the source that come before.
    pub(crate) read: u64,
    /// Documents of the source so far, and the bytes of their texts as they were read: what a limit
    /// goes by.
    pub(crate) documents: u64,
    pub(crate) bytes: u64,
    /// Invalid documents left out by the reader.
    pub(crate) skipped: u64,
    /// Why, and what is wrong with the first. A part that an older version began knows less.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub(crate) left_out: LeftOut,
    /// Document records in the file `documents`, where duplicates are left out.
    #[serde(rename = "noted")]
    pub(crate) records: u64,
    /// Whether there were more than could be remembered, so that some may be duplicates.
    #[serde(default)]
    pub(crate) forgetful: bool,
    /// In the order of their first documents; without `domain_by`, one with the empty value.
    pub(crate) domains: Vec<PartDomain>,
}

/// Where reading stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The number of the span among those of the part.
    pub(crate) span: usize,
    /// Where in its file.
    #[serde(rename = "place")]
    pub(crate) cursor: Cursor,
}

/// A domain's share in a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartDomain {
    /// The value of `domain_by`.
    pub(crate) value: String,
    pub(crate) counts: Counts,
    pub(crate) splits: [StreamRecord; 3],
}

impl PartRecord {
    /// The record in a part's folder; `None` where it has none, or one of another version.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(crate) fn read(part: &Path) -> Result<Option<PartRecord>> {
        let path = part.join(FILE_NAME);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(DataError::io("read", &path))?,
        };
        let wrong = |message: String| DataError::Manifest { path: path.clone(), message };
        let mut value: Value =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if value["version"] != PART_VERSION {
            return Ok(None);
        }
        // Older versions wrote none.
        let check = value.as_object_mut().and_then(|record| record.remove(CHECK));
        if check.is_some_and(|check| check != check_of(&value)) {
            return Err(wrong("expected what its checksum says, found something else".to_owned()));
        }
        if let Some(number) = larger(&value, LARGEST) {
            return Err(wrong(format!("expected counts of at most {LARGEST}, found {number}")));
        }
        serde_json::from_value(value).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// Writes the record into a part's folder, with a checksum.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn write(&self, part: &Path) -> Result<()> {
        let path = part.join(FILE_NAME);
        let mut value = serde_json::to_value(self).map_err(|error| DataError::Manifest {
            path: path.clone(),
            message: error.to_string(),
        })?;
        let check = check_of(&value);
        if let Some(record) = value.as_object_mut() {
            record.insert(CHECK.to_owned(), Value::String(check));
        }
        write_json(&path, &value)
    }

    /// Invalid documents that were left out at this place.
    pub(crate) fn skip(&mut self, skips: Skips) {
        self.skipped += skips.reasons.total();
        skips.add_to(&mut self.left_out);
    }

    /// Whether everything has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_none()
    }
}

/// The checksum of a record: of what it says, however it is written.
fn check_of(record: &Value) -> String {
    sha256_hex(record.to_string().as_bytes())
}

/// A number that is no count up to `most`, where there is one.
fn larger(value: &Value, most: u64) -> Option<&serde_json::Number> {
    match value {
        Value::Number(number) => number.as_u64().is_none_or(|n| n > most).then_some(number),
        Value::Array(values) => values.iter().find_map(|value| larger(value, most)),
        Value::Object(values) => values.values().find_map(|value| larger(value, most)),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// The folder of all parts of an entry.
pub(crate) fn parts_folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// The folder of one part.
pub(crate) fn part_folder(dir: &Path, share: Share) -> PathBuf {
    parts_folder(dir).join(format!("{}-of-{}", share.number(), share.count()))
}

/// The parts of an entry that have got anywhere, whatever their signature; damaged ones are not
/// among them.
pub(crate) fn found(dir: &Path) -> Vec<PartRecord> {
    let folders = std::fs::read_dir(parts_folder(dir)).into_iter().flatten().flatten();
    folders.filter_map(|folder| PartRecord::read(&folder.path()).ok().flatten()).collect()
}

/// How many workers there are, by the names of the parts they have begun; 1 where nobody has.
pub(crate) fn workers(dir: &Path) -> u32 {
    let folders = std::fs::read_dir(parts_folder(dir)).into_iter().flatten().flatten();
    let count = |name: &str| name.split_once("-of-")?.1.parse().ok();
    folders.filter_map(|folder| count(folder.file_name().to_str()?)).max().unwrap_or(1)
}

/// A worker's part of a job, if it is done and its files are whole.
pub(crate) fn finished(job: &Job<'_>, share: Share) -> Option<PartRecord> {
    let folder = part_folder(&job.dir, share);
    let part = PartRecord::read(&folder).ok().flatten()?;
    let current = part.is_done() && part.share == share && part.signature == job.signature;
    let size = job.token_type().size() as u64;
    let is = |path: &Path, length: u64| {
        std::fs::metadata(path).map_or(length == 0, |metadata| metadata.len() == length)
    };
    let whole = part.domains.iter().enumerate().all(|(number, domain)| {
        Split::ALL.iter().all(|split| {
            let [bin, lengths] = stream_files(&folder, number, *split);
            let record = &domain.splits[split.number()];
            // Counts are small enough to be multiplied: the record was checked.
            let tokens = record.tokens * size;
            // An assembly that was interrupted may have moved the tokens of a single part already.
            let moved = || {
                !bin.exists() && is(&split_file(&job.folder(&domain.value), *split, "bin"), tokens)
            };
            is(&lengths, 4 * record.documents)
                && (is(&bin, tokens) || share == Share::WHOLE && moved())
        })
    });
    let with_records = job.source.deduplicate;
    let records = if with_records { RECORD_BYTES * part.records } else { 0 };
    let known = !with_records || is(&records_file(&folder), records);
    (current && whole && known).then_some(part)
}

/// Removes all parts of an entry.
///
/// # Errors
/// The system refuses.
pub(crate) fn remove_parts(dir: &Path) -> Result<()> {
    let folder = parts_folder(dir);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::io("remove", &folder)(error))
        }
        _ => Ok(()),
    }
}
