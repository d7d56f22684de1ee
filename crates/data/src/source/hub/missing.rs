//! Stands in for `mod.rs` in a build without the feature `hub`.

use super::file::Found;
use crate::error::Result;
use crate::format::Format;
use crate::hub::{RepoKind, Snapshot};
use crate::progress::Progress;
use crate::spec::SourceSpec;

/// Refuses.
pub(super) fn find(
    spec: &SourceSpec,
    _format: Option<Format>,
    name: &str,
    progress: &dyn Progress,
) -> Result<Found> {
    let revision = spec.revision.as_deref();
    match Snapshot::open(RepoKind::Dataset, name, revision, "source.hub", progress)? {}
}
