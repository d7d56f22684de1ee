//! Read-only memory maps of finished files; the only `unsafe` of this crate.
//!
//! In: a path. Out: its bytes, paged in by the system as they are touched, so opening costs the
//! same at any size. An empty file, which Linux refuses to map, is an empty slice.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{DataError, Result};

/// The bytes of a file.
#[derive(Debug)]
pub(crate) struct MappedFile {
    /// `None` for an empty file.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// Fails where it cannot be opened or mapped.
    pub(crate) fn open(path: &Path) -> Result<MappedFile> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        if length == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: Cuvee writes shards under another name and renames them when they are whole,
        // and never writes into one afterwards; a rebuilt shard is a new file, and the old map
        // keeps the old one. For a user's own files, the guide asks for the same.
        let map = unsafe { map(&file) }.map_err(DataError::io("map", path))?;
        Ok(MappedFile { map: Some(map) })
    }

    /// Has the processor fetch a range, as far as the file has it, into its second-level cache
    /// while it does something else. (Into the first level it would take the places that the loads
    /// of what is read meanwhile need: measured half as fast.)
    pub(crate) fn prefetch(&self, range: std::ops::Range<usize>) {
        let bytes = self.bytes();
        let range = range.start.min(bytes.len())..range.end.min(bytes.len());
        #[cfg(target_arch = "x86_64")]
        for line in bytes.get(range).unwrap_or_default().chunks(64) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: the instruction is part of every x86-64, changes nothing that a program can
            // see and never faults; the address lies in the map.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = range;
    }

    /// Tells the system that short stretches from all over will be read: it then takes from the
    /// disk what is asked for and nothing around it. It may not listen.
    pub(crate) fn advise_random(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // What cannot be told changes nothing but time.
            let _ = map.advise(memmap2::Advice::Random);
        }
    }

    /// The content.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

/// Maps a file that is not empty.
///
/// # Safety
///
/// While the map lives, no process may write into the file or shorten it: the bytes behind the
/// returned slice would change under a shared reference, and a page beyond a new, shorter end
/// raises a bus error when touched. Replacing the file by a rename is fine.
unsafe fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: what the caller promises is what `Mmap::map` asks for.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// What the system keeps of the advice: `rr` among the flags of the map.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_is_told_of_random_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("told.bin");
        std::fs::write(&path, [7; 10_000]).unwrap();
        let file = MappedFile::open(&path).unwrap();
        let is_told = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let (_, of_file) = maps.split_once(path.to_str().unwrap()).unwrap();
            let flags = of_file.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
            flags.split_whitespace().any(|flag| flag == "rr")
        };
        assert!(!is_told());
        file.advise_random();
        assert!(is_told());
        assert_eq!(file.bytes(), [7; 10_000]);
    }

    #[test]
    fn empty_files_map_to_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(MappedFile::open(&path).unwrap().bytes(), b"");
        std::fs::write(&path, b"ab").unwrap();
        assert_eq!(MappedFile::open(&path).unwrap().bytes(), b"ab");
        let error = MappedFile::open(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("cannot open"), "{error}");
    }
}
