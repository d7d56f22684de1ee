//! Space on a disk: how much there is, how much a source will need.
//!
//! Estimates err on the safe side by some; they are for warnings and hints, never a reason to
//! refuse.

use std::path::Path;

use cuvee_fs::{free_space, is_full};

use crate::error::DataError;
use crate::source::readers;
use crate::source::resolve::Source;
use crate::token_type::TokenType;

/// Bytes that the shards of `bytes` on disk of a source take, very roughly.
pub(crate) fn estimate(source: &Source, bytes: u64, token_type: TokenType) -> u64 {
    let compressed = source
        .files
        .iter()
        .filter(|file| readers::is_compressed(file))
        .map(|file| file.bytes)
        .sum::<u64>();
    let share = compressed as f64 / source.all_bytes().max(1) as f64;
    // Text compresses to a third.
    of_text((bytes as f64 * (1.0 + 2.0 * share)) as u64, token_type)
}

/// Bytes that the shards of so many bytes of text take: a token stands for four of them.
pub(crate) fn of_text(bytes: u64, token_type: TokenType) -> u64 {
    bytes / 4 * token_type.size() as u64
}

/// Bytes still to be written when `written` are there and `done` of the work, from 0 to 1; `None`
/// where too little is done to tell.
pub(crate) fn left(written: u64, done: f64) -> Option<u64> {
    (done > 0.001).then(|| (written as f64 * (1.0 - done).max(0.0) / done) as u64)
}

/// What is still needed on a disk, in bytes; and where that follows from the work so far, the bytes
/// written and the share of the work done, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SpaceNeeded {
    pub(crate) bytes: u64,
    pub(crate) done: Option<(u64, f64)>,
}

/// An error about a full disk with how much more is needed where `dir` lies; any other as it is.
pub(crate) fn explain(error: DataError, dir: &Path, needed: Option<SpaceNeeded>) -> DataError {
    match error {
        DataError::Io { path, source, .. } if is_full(&source) => DataError::DiskFull {
            path,
            source,
            needed: needed.map(|needed| needed.bytes),
            done: needed.and_then(|needed| needed.done),
            free: free_space(dir),
        },
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_is_done() {
        assert_eq!(left(300, 0.75), Some(100));
        assert_eq!(left(300, 1.0), Some(0));
        assert_eq!(left(300, 0.0), None);
    }
}
