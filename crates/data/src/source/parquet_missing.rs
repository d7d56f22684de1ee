//! Stands in for `parquet.rs` in a build without the feature `parquet`.

use super::chunk::{ChunkSink, Chunker, Stretch};
use super::file::SourceFile;
use super::reading::Reading;
use crate::error::{DataError, Result};

pub(super) static CHUNKER: Chunker = Chunker { splits: |_| false, cut };

/// Refuses.
fn cut<'a>(
    _reading: &Reading<'a>,
    file: &SourceFile,
    _stretch: &Stretch,
    _sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    Err(DataError::MissingFeature {
        what: format!("{} is a Parquet file", file.path.display()),
        feature: "parquet",
        hint: "convert the file to JSON lines, or build cuvee-data with the feature",
    })
}
