//! What a part of an entry is on disk: a folder of files that only grow, and `part.json`, which
//! says how much of them counts and where in the source to go on.
//!
//! In: the folder of an entry. Out: its parts, and how far each is.
//! [`part_writer`](crate::part_writer) writes them, [`assemble`](crate::assemble) makes shards of
//! them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manifest::Counts;
use crate::part_files::StreamRecord;
use crate::share::Share;
use crate::source::piece::Place;

/// The version of the layout of part folders; another one's are made again.
pub(crate) const PART_VERSION: u32 = 1;
/// What tells how far a part is.
pub(crate) const FILE_NAME: &str = "part.json";
/// The folder in an entry's folder that its parts are in.
const FOLDER: &str = ".parts";

/// The content of `part.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) version: u32,
    /// That of the shards to be made.
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
    /// Notes in `documents`, where duplicates are left out.
    pub(crate) noted: u64,
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
    /// The place in its file.
    pub(crate) place: Place,
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
    /// That of a part's folder, if it has one that can be read.
    pub(crate) fn read(part: &Path) -> Option<PartRecord> {
        let text = std::fs::read(part.join(FILE_NAME)).ok()?;
        let record: PartRecord = serde_json::from_slice(&text).ok()?;
        (record.version == PART_VERSION).then_some(record)
    }

    /// Whether everything has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_none()
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

/// The parts of an entry that have got anywhere, whatever their signature.
pub(crate) fn found(dir: &Path) -> Vec<PartRecord> {
    let folders = std::fs::read_dir(parts_folder(dir)).into_iter().flatten().flatten();
    folders.filter_map(|folder| PartRecord::read(&folder.path())).collect()
}

/// How many workers there are, by the names of the parts they have begun; 1 where nobody has.
pub(crate) fn workers(dir: &Path) -> u32 {
    let folders = std::fs::read_dir(parts_folder(dir)).into_iter().flatten().flatten();
    let count = |name: &str| name.split_once("-of-")?.1.parse().ok();
    folders.filter_map(|folder| count(folder.file_name().to_str()?)).max().unwrap_or(1)
}
