//! What stands in for the Hub in a build without the feature `hub`: the same names, and a refusal.

mod pushed;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::error::{DataError, Result};
use crate::progress::Progress;
pub use pushed::{GivesWay, Push, Pushed, PushedFile, Sent};

/// See the feature `hub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Dataset,
    Model,
}

/// See the feature `hub`; there is none.
#[derive(Debug)]
pub(crate) enum Snapshot {}

impl Snapshot {
    pub(crate) fn open(
        _kind: RepoKind,
        id: &str,
        _revision: Option<&str>,
        key: &str,
        _progress: &dyn Progress,
    ) -> Result<Snapshot> {
        Err(DataError::Spec {
            key: key.to_owned(),
            expected: "files on this machine: reading the Hub is not in this build (feature `hub`)"
                .to_owned(),
            found: format!("\"{id}\""),
            hint: "download the files and name them with `path` (a tokenizer: `file`)".to_owned(),
        })
    }

    pub(crate) fn fetch_optional(
        &self,
        _path: &str,
        _progress: &dyn Progress,
        _interrupted: &AtomicBool,
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn fetch(
        &self,
        _path: &str,
        _progress: &dyn Progress,
        _interrupted: &AtomicBool,
    ) -> Result<PathBuf> {
        match *self {}
    }
}

/// See the feature `hub`: without it, an error that says so.
pub fn push_model(push: &Push, _progress: &dyn Progress) -> Result<Pushed> {
    refuse_push(push.repository)
}

/// See the feature `hub`: without it, an error that says so.
pub fn check_destination(repository: &str, _branch: Option<&str>) -> Result<()> {
    refuse_push(repository)
}

fn refuse_push<T>(repository: &str) -> Result<T> {
    Err(DataError::MissingFeature {
        what: format!("a push to `{repository}`"),
        feature: "hub",
        hint: "build cuvee with the feature (`cargo build --release` has it)",
    })
}

/// See the feature `hub`: without it, nothing is taken for the name of a model.
pub fn is_model_name(_text: &str) -> bool {
    false
}

/// See the feature `hub`: without it, an error that says so.
pub fn fetch_model(
    id: &str,
    progress: &dyn Progress,
    _interrupted: &AtomicBool,
) -> Result<PathBuf> {
    match Snapshot::open(RepoKind::Model, id, None, "model.init", progress)? {}
}

/// See the feature `hub`: without it, an error that says so.
pub fn fetch_model_settings(
    id: &str,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<PathBuf> {
    fetch_model(id, progress, interrupted)
}

/// See the feature `hub`: without it, an error that says so.
pub fn fetch_dataset(
    id: &str,
    _files: &[&str],
    progress: &dyn Progress,
    _interrupted: &AtomicBool,
) -> Result<Vec<PathBuf>> {
    match Snapshot::open(RepoKind::Dataset, id, None, "dataset", progress)? {}
}
