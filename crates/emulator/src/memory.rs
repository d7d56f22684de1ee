//! A device's memory, in the processor's.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of memory that one [`Mark`] stands for (`cuda/block.h`).
const GRAIN: usize = 2;

/// Who used a grain of memory last (`cuda/block.h`).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Mark([u32; 4]);

/// Memory that a kernel may use (`cuda/block.h`).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Region {
    base: *mut u8,
    bytes: u64,
    marks: *mut Mark,
}

/// A piece of an emulator's memory.
pub struct Memory {
    base: NonNull<u8>,
    marks: NonNull<u8>,
    bytes: usize,
    /// How much memory of the emulator is in use.
    used: Arc<AtomicUsize>,
}

// SAFETY: it is used by its emulator alone, which has a lock.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Of a memory's bytes, and of their marks.
fn layouts(bytes: usize) -> Option<[Layout; 2]> {
    Some([
        Layout::from_size_align(bytes, 256).ok()?,
        Layout::array::<Mark>(bytes / GRAIN + 1).ok()?,
    ])
}

impl Memory {
    /// Zeros, of which there may be `limit` bytes in use. None where there are not so many.
    pub(crate) fn new(bytes: usize, used: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        if bytes == 0 {
            return Some(Self::empty(used));
        }
        if limit.saturating_sub(used.load(Ordering::Relaxed)) < bytes {
            return None;
        }
        let [of_bytes, of_marks] = layouts(bytes)?;
        // SAFETY: neither layout is empty.
        let base = NonNull::new(unsafe { alloc_zeroed(of_bytes) })?;
        // SAFETY: as above.
        let Some(marks) = NonNull::new(unsafe { alloc_zeroed(of_marks) }) else {
            // SAFETY: the allocation above.
            unsafe { dealloc(base.as_ptr(), of_bytes) };
            return None;
        };
        used.fetch_add(bytes, Ordering::Relaxed);
        Some(Self { base, marks, bytes, used: Arc::clone(used) })
    }

    /// An empty one.
    pub(crate) fn empty(used: &Arc<AtomicUsize>) -> Self {
        let dangling = NonNull::dangling();
        Self { base: dangling, marks: dangling, bytes: 0, used: Arc::clone(used) }
    }

    /// Whether it is the emulator's that counts here.
    pub(crate) fn belongs_to(&self, used: &Arc<AtomicUsize>) -> bool {
        Arc::ptr_eq(&self.used, used)
    }

    /// The address of `count` bytes, so many into it.
    ///
    /// # Errors
    /// It has not so many.
    pub(crate) fn range(&self, at: usize, count: usize) -> Result<*mut u8, String> {
        match at.checked_add(count) {
            Some(end) if end <= self.bytes => Ok(self.base.as_ptr().wrapping_add(at)),
            _ => Err(format!("{count} bytes from byte {at} of a memory of {} bytes", self.bytes)),
        }
    }

    pub(crate) fn region(&self) -> Region {
        let (base, marks) = (self.base.as_ptr(), self.marks.as_ptr().cast());
        Region { base, bytes: self.bytes as u64, marks }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (true, Some([of_bytes, of_marks])) = (self.bytes > 0, layouts(self.bytes)) else {
            return;
        };
        // SAFETY: allocated with these layouts.
        unsafe {
            dealloc(self.base.as_ptr(), of_bytes);
            dealloc(self.marks.as_ptr(), of_marks);
        }
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
