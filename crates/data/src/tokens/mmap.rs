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
    /// # Errors
    /// The file cannot be opened or mapped.
    pub(crate) fn open(path: &Path) -> Result<MappedFile> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        if length == 0 {
            return Ok(MappedFile { map: None });
        }
        // SAFETY: every file that Cuvee writes gets its name by a rename when it is whole and is
        // never written into afterwards, so a map keeps the content it was made of. Files of other
        // programs must not be written into while they are mapped: docs/formats.md asks for that,
        // and nothing here can check it.
        let map = unsafe { map(&file) }.map_err(DataError::io("map", path))?;
        Ok(MappedFile { map: Some(map) })
    }

    /// Prefetches a byte range, as far as it lies in the file, into the processor's second-level
    /// cache. Prefetching into the first level was measured half as fast: it evicts what is being
    /// read meanwhile. Does nothing on processors other than x86-64.
    pub(crate) fn prefetch(&self, range: std::ops::Range<usize>) {
        let bytes = self.bytes();
        let range = range.start.min(bytes.len())..range.end.min(bytes.len());
        #[cfg(target_arch = "x86_64")]
        for line in bytes.get(range).unwrap_or_default().chunks(64) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: every x86-64 has the instruction; it changes no state that a program can see
            // and never faults; the address lies in the map.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = range;
    }

    /// Advises the system that short ranges at random places will be read (`MADV_RANDOM`): it then
    /// reads no pages ahead. The system may ignore it, and systems other than Unix are not told.
    pub(crate) fn advise_random(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // A hint that is refused costs time and changes nothing else.
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
