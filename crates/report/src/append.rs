//! A file that grows by whole records: each is handed to the operating system at once, so that a
//! crash of the program loses nothing, and a disk that fills up leaves no half record.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{ReportError, Result};

/// A file open at its end.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl AppendFile {
    /// An empty file, in place of one that may be there.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|source| ReportError::io("create", path, source))?;
        Ok(Self { path: path.to_owned(), file, bytes: 0 })
    }

    /// Cuts `file`, open for writing, after its first `bytes` bytes, and goes on there.
    pub(crate) fn cut(path: &Path, mut file: File, bytes: u64) -> Result<Self> {
        let cut = file.set_len(bytes).and_then(|()| file.seek(SeekFrom::Start(bytes)));
        cut.map_err(|source| ReportError::io("cut", path, source))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// Appends a record; where that fails, the file is as it was before.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<()> {
        if let Err(source) = self.file.write_all(record) {
            // A disk that fills up can take part of a record: take it back. If that fails too, the
            // first reason counts.
            let _ = self.file.set_len(self.bytes);
            let _ = self.file.seek(SeekFrom::Start(self.bytes));
            return Err(ReportError::io("append to", &self.path, source));
        }
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// Waits until the file is on the disk itself, where a power failure does not reach it.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| ReportError::io("sync", &self.path, source))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file_and_nothing_counts_as_written() {
        let mut file = AppendFile::create(Path::new("/dev/full")).unwrap();
        let error = file.append(b"record").unwrap_err().to_string();
        assert!(error.contains("append to /dev/full") && error.contains("\nhint: "), "{error}");
        assert_eq!(file.bytes(), 0);
    }
}
