//! Stands in for `cargo.rs` in a build without the feature `cargo`.

use std::path::{Path, PathBuf};

use super::file::Found;
use crate::error::{DataError, Result};
use crate::spec::CargoKind;

/// Refuses.
pub(super) fn find(_kind: CargoKind, _base: &Path) -> Result<(Found, PathBuf)> {
    Err(DataError::MissingFeature {
        what: "`source.cargo` reads the sources of Cargo's packages".to_owned(),
        feature: "cargo",
        hint: "name files with `path`, or build cuvee-data with the feature",
    })
}
