//! What is to be put on the Hub, and what is there then. Also in builds without the feature `hub`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

/// Files that are to be put on the Hub.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The model's name, with its owner.
    pub repository: &'a str,
    /// Each file's path in the repository, and where it lies.
    pub files: &'a [(String, PathBuf)],
    /// Whether only its owner may see a repository that is made.
    pub private: bool,
    /// The branch that gets the commit; `None` for `main`.
    pub branch: Option<&'a str>,
    /// A file that never replaces what somebody wrote there.
    pub gives_way: Option<GivesWay<'a>>,
    /// What the commit says of itself.
    pub message: &'a str,
    /// Turns true where the push is to stop.
    pub interrupted: &'a AtomicBool,
}

/// A file that never replaces what somebody wrote.
#[derive(Debug, Clone, Copy)]
pub struct GivesWay<'a> {
    /// Its path in the repository.
    pub path: &'a str,
    /// Tells by the bytes of what is there that nobody wrote it.
    pub is_nobodys: fn(&[u8]) -> bool,
}

/// What is on the Hub now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// The commit that has all files.
    pub commit: String,
    /// The repository's page.
    pub url: String,
    /// The files, in their order.
    pub files: Vec<PushedFile>,
    /// Files of the repository that were deleted: weights in a layout that is no more.
    pub deleted: Vec<String>,
    /// Files that were not sent, since somebody wrote what the branch has there.
    pub kept: Vec<String>,
}

/// A file on the Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushedFile {
    /// Its path in the repository.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// The hash of its content.
    pub sha256: String,
    /// How it came there.
    pub sent: Sent,
}

/// How a file came to be on the Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sent {
    /// By this push.
    Now,
    /// The storage had it, from a push that did not come to its end or from elsewhere.
    Before,
    /// The branch had it.
    Unchanged,
}
