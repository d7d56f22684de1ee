//! Stands in for `parquet.rs` in a build without the feature `parquet`.

use cuvee_words::printable_path;

use crate::error::{DataError, Result};
use crate::source::chunk::{ChunkSink, Chunker, Stretch};
use crate::source::file::SourceFile;
use crate::source::reading::Reading;

pub(super) static CHUNKER: Chunker = Chunker { splits: |_| false, cut };

/// Refuses.
fn cut<'a>(
    _reading: &Reading<'a>,
    file: &SourceFile,
    _stretch: &Stretch,
    _sink: &mut ChunkSink<'_, 'a>,
) -> Result<()> {
    Err(DataError::MissingFeature {
        what: format!("{} is a Parquet file", printable_path(&file.path)),
        feature: "parquet",
        hint: "convert the file to JSON lines, or build cuvee-data with the feature",
    })
}
