//! Room on a disk.

use std::io;
use std::path::Path;

/// Bytes that may still be written where `folder` lies; `None` where the system does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Whether the system has refused to write for want of room.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_where_this_runs() {
        assert!(!is_full(&io::ErrorKind::NotFound.into()));
        assert!(is_full(&io::ErrorKind::StorageFull.into()));
        #[cfg(unix)]
        assert!(free_space(Path::new(".")).is_some_and(|bytes| bytes > 0));
        assert_eq!(free_space(Path::new("no such folder")), None);
    }
}
