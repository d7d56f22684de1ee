//! Waiting for the disk.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{FsError, Result};

/// What a file system answers that cannot sync a folder.
const CANNOT: [ErrorKind; 2] = [ErrorKind::InvalidInput, ErrorKind::Unsupported];

/// Waits until a file's content is on the disk.
///
/// # Errors
/// [`FsError`] with the path.
pub fn sync_file(path: &Path) -> Result<()> {
    // Opened for writing: on Windows a file opened for reading cannot be synced.
    let file = File::options().write(true).open(path);
    file.and_then(|file| file.sync_all()).map_err(FsError::of("sync", path))
}

/// Waits until a folder's list of names is on the disk, so that renames in it outlive a power cut.
/// Windows cannot open a folder as a file and keeps that list by itself.
///
/// # Errors
/// [`FsError`] with the folder.
pub fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|file| file.sync_all());
        match synced {
            // Some network file systems have no such thing as syncing a folder.
            Err(error) if CANNOT.contains(&error.kind()) => {}
            other => other.map_err(FsError::of("sync", folder))?,
        }
    }
    Ok(())
}
