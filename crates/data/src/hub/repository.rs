//! The name of a repository on the Hub, and what follows from it.

use crate::error::{DataError, Result};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Dataset,
    Model,
}

impl RepoKind {
    pub(super) fn singular(self) -> &'static str {
        match self {
            RepoKind::Dataset => "dataset",
            RepoKind::Model => "model",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            RepoKind::Dataset => "datasets",
            RepoKind::Model => "models",
        }
    }
}

/// A repository by its name, which has been looked at: it makes no path and no address but its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    kind: RepoKind,
    id: String,
}

impl Repository {
    /// `key` is where the name stands in the config.
    ///
    /// # Errors
    /// `id` is no name that the Hub would give.
    pub(super) fn new(kind: RepoKind, id: &str, key: &str) -> Result<Repository> {
        if is_repository(id) {
            return Ok(Repository { kind, id: id.to_owned() });
        }
        Err(DataError::Spec {
            key: key.to_owned(),
            expected: format!(
                "the name of a {} on the Hub, as `organisation/name`",
                kind.singular()
            ),
            found: format!("{id:?}"),
            hint: "it is what follows the host in the address of its page".to_owned(),
        })
    }

    pub(super) fn kind(&self) -> RepoKind {
        self.kind
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }

    /// The name of one of its files in messages.
    pub(super) fn file(&self, path: &str) -> String {
        format!("{}/{path}", self.id)
    }

    pub(super) fn error(&self, message: String, hint: String) -> DataError {
        DataError::Hub { repository: self.id.clone(), message, hint }
    }
}

/// Could `id` be the name of a repository? One or two parts of letters, digits, `-`, `_` and `.`.
pub(super) fn is_repository(id: &str) -> bool {
    let part = |part: &str| {
        let edge = |c: char| matches!(c, '-' | '.');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.chars().all(plain)
            && !part.starts_with(edge)
            && !part.ends_with(edge)
    };
    let parts = id.split('/').count();
    parts <= 2
        && id.split('/').all(part)
        && !id.contains("--")
        && !id.contains("..")
        && id.len() <= 193
}
