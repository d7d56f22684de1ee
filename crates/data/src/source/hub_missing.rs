//! What stands in for [`hub`](super::hub) in a build without the feature `hub`.

use super::SourceFile;
use crate::error::Result;
use crate::hub::{RepoKind, Snapshot};
use crate::manifest::{FileRecord, HubRecord};
use crate::progress::Progress;
use crate::spec::SourceSpec;

/// See the feature `hub`; there is none.
pub(super) struct Found {
    pub(super) snapshot: Snapshot,
    pub(super) files: Vec<SourceFile>,
    pub(super) records: Vec<FileRecord>,
    pub(super) record: HubRecord,
}

/// Refuses.
pub(super) fn find(spec: &SourceSpec, name: &str, progress: &dyn Progress) -> Result<Found> {
    let snapshot =
        Snapshot::open(RepoKind::Dataset, name, spec.revision.as_deref(), "source.hub", progress)?;
    match snapshot {}
}
