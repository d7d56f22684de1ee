//! A GPU's memory, and what goes into it and out of it.
//!
//! Memory is taken and given back in the stream's order: what is given back is taken again by the
//! next who asks, and nobody waits. Numbers pass through *pinned* memory of the host, which the GPU
//! reads and writes while the host goes on.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::error::{Doing, out_of_memory};
use super::owned::Owned;
use super::stream::{Event, Stream};
use crate::device::DeviceError;

/// A piece of a GPU's memory.
pub struct Memory {
    stream: Arc<Stream>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// None at all.
    pub(super) fn none(stream: &Arc<Stream>) -> Self {
        Self { stream: Arc::clone(stream), pointer: 0, bytes: 0 }
    }

    /// `bytes` zeros.
    pub(super) fn zeros(stream: &Arc<Stream>, bytes: usize) -> Result<Self, DeviceError> {
        if bytes == 0 {
            return Ok(Self::none(stream));
        }
        let pointer = allocate(stream, bytes)?;
        let memory = Self { stream: Arc::clone(stream), pointer, bytes };
        memory.zero(0, bytes).doing("clearing a buffer")?;
        Ok(memory)
    }

    /// The address of `range`.
    ///
    /// # Panics
    /// If the memory does not hold it.
    pub(super) fn address(&self, range: Range<usize>) -> sys::CUdeviceptr {
        assert!(range.start <= range.end && range.end <= self.bytes, "{range:?} of {}", self.bytes);
        self.pointer + range.start as sys::CUdeviceptr
    }

    /// The address from `at` on.
    ///
    /// # Panics
    /// If the memory ends before it.
    pub(super) fn address_from(&self, at: usize) -> sys::CUdeviceptr {
        self.address(at..self.bytes)
    }

    /// `count` bytes from `at` on ← 0.
    pub(super) fn zero(&self, at: usize, count: usize) -> Result<(), DriverError> {
        if count == 0 {
            return Ok(());
        }
        let to = self.address(at..at + count);
        // SAFETY: the range is of this memory, which is of this stream.
        unsafe { result::memset_d8_async(to, 0, count, self.stream.get()) }
    }

    /// `count` bytes from `at` on ← those of `from` from `from_at` on.
    pub(super) fn copy(
        &self,
        at: usize,
        from: &Memory,
        from_at: usize,
        count: usize,
    ) -> Result<(), DriverError> {
        if count == 0 {
            return Ok(());
        }
        let to = self.address(at..at + count);
        let from = from.address(from_at..from_at + count);
        // SAFETY: both ranges are of memory of this stream.
        unsafe { result::memcpy_dtod_async(to, from, count, self.stream.get()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.pointer != 0 {
            // What fails here has failed before, and is known.
            let _ = self.stream.bind();
            let _ = self.stream.join();
            // SAFETY: taken from this stream in `zeros`, and given back once; what the stream has
            // been told to do with it comes before, and what others do with it too.
            let _ = unsafe { result::free_async(self.pointer, self.stream.get()) };
        }
    }
}

/// Takes memory, where there is too little after giving back what was freed: pieces of it may be
/// too small each.
fn allocate(stream: &Stream, bytes: usize) -> Result<sys::CUdeviceptr, DeviceError> {
    const FULL: DriverError = DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    // SAFETY: the stream is there; the caller fills the memory.
    let take = || unsafe { result::malloc_async(stream.get(), bytes) };
    let taken = match take() {
        Err(FULL) => stream.wait().and_then(|()| stream.trim()).and_then(|()| take()),
        other => other,
    };
    match taken {
        Err(FULL) => {
            let (free, total) = result::mem_get_info().unwrap_or((0, 0));
            Err(out_of_memory(bytes, free, total))
        }
        other => other.doing("taking the GPU's memory"),
    }
}

/// Memory of the host that a GPU reads and writes by itself.
struct Pinned(Owned<*mut c_void, DriverError>);

impl Pinned {
    fn new(bytes: usize) -> Result<Self, DeviceError> {
        // SAFETY: of the context that is bound; nobody reads it before it was written.
        let memory = unsafe { result::malloc_host(bytes, 0) }.doing("taking pinned memory")?;
        // SAFETY: taken just now.
        Ok(Self(unsafe { Owned::new(memory, result::free_host) }))
    }

    /// The address of byte `at`, which is below its size.
    fn byte(&self, at: usize) -> *mut u8 {
        self.0.get().cast::<u8>().wrapping_add(at)
    }
}

/// Bytes of a half of the ring.
const HALF: usize = 4 << 20;
/// Bytes that are read at once.
const READ: usize = 4 << 20;
/// Where a write into the ring begins.
const ALIGNED: usize = 64;

/// The way in and out. What goes in is put into a ring of two halves, from which the GPU fetches it
/// when it comes to it; a half is filled again once everything in it was fetched. What comes out is
/// waited for.
pub(super) struct Staging {
    ring: Pinned,
    /// Of each half, the moment when everything in it was fetched.
    fetched: [Event; 2],
    half: usize,
    /// Bytes of this half that are filled.
    filled: usize,
    out: Pinned,
}

impl Staging {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let event = || Event::new(false).doing("making an event");
        Ok(Self {
            ring: Pinned::new(2 * HALF)?,
            fetched: [event()?, event()?],
            half: 0,
            filled: 0,
            out: Pinned::new(READ)?,
        })
    }

    /// `memory[at..]` ← `bytes`.
    pub(super) fn write(
        &mut self,
        memory: &Memory,
        at: usize,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        let to = memory.address(at..at + bytes.len());
        for (index, piece) in bytes.chunks(HALF).enumerate() {
            if self.filled + piece.len() > HALF {
                self.fetched[self.half].record(&memory.stream)?;
                self.half = 1 - self.half;
                self.filled = 0;
                self.fetched[self.half].wait()?;
            }
            let from = self.ring.byte(self.half * HALF + self.filled);
            self.filled += piece.len().next_multiple_of(ALIGNED);
            // SAFETY: the half has room for the piece, and the GPU has fetched all that it reads of
            // it; it fetches the piece before the half is filled again. The range of `memory` was
            // checked.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), from, piece.len());
                sys::cuMemcpyHtoDAsync_v2(
                    to + (index * HALF) as sys::CUdeviceptr,
                    from.cast::<c_void>(),
                    piece.len(),
                    memory.stream.get(),
                )
                .result()?;
            }
        }
        Ok(())
    }

    /// `bytes` ← `memory[at..]`.
    pub(super) fn read(
        &mut self,
        memory: &Memory,
        at: usize,
        bytes: &mut [u8],
    ) -> Result<(), DriverError> {
        let from = memory.address(at..at + bytes.len());
        for (index, piece) in bytes.chunks_mut(READ).enumerate() {
            let through = self.out.byte(0);
            // SAFETY: the range of `memory` was checked, `out` has room for a piece, and the stream
            // is waited for before it is read.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(
                    through.cast::<c_void>(),
                    from + (index * READ) as sys::CUdeviceptr,
                    piece.len(),
                    memory.stream.get(),
                )
                .result()?;
                memory.stream.wait()?;
                std::ptr::copy_nonoverlapping(through, piece.as_mut_ptr(), piece.len());
            }
        }
        Ok(())
    }
}
