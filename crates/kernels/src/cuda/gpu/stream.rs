//! A GPU's context with one stream in it, and moments of that stream.

use std::sync::{Arc, Mutex};

use cudarc::driver::result::{self, stream::StreamKind};
use cudarc::driver::{DriverError, sys};

use super::error::Doing;
use super::owned::{Owned, locked};
use crate::device::DeviceError;

/// The order in which a GPU works.
pub(super) struct Stream {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    pool: sys::CUmemoryPool,
    /// When another stream is done with this one's memory, until this one waits for it.
    lent: Mutex<Option<Arc<Event>>>,
}

// SAFETY: the driver takes calls on its objects from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream on `device`, which the driver gave.
    pub(super) fn open(device: sys::CUdevice) -> Result<Self, DeviceError> {
        // SAFETY: `device` is one that the driver gave.
        let context = unsafe { result::primary_ctx::retain(device) }.doing("opening the GPU")?;
        let none = std::ptr::null_mut();
        // From here on dropping it gives back what it has.
        let pool = std::ptr::null_mut();
        let mut own = Self { device, context, stream: none, pool, lent: Mutex::new(None) };
        own.bind().doing("opening the GPU")?;
        own.stream = result::stream::create(StreamKind::NonBlocking).doing("opening the GPU")?;
        // SAFETY: `device` is as above.
        let pool = unsafe { result::device::get_default_mem_pool(device) };
        own.pool = pool.doing("asking the GPU for its memory")?;
        // Else what is freed goes back to the system whenever the stream is waited for.
        let mut keep = u64::MAX;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool is the device's, and this attribute is 64 bits.
        unsafe { result::mem_pool::set_attribute(own.pool, threshold, (&raw mut keep).cast()) }
            .doing("setting up the GPU's memory")?;
        Ok(own)
    }

    pub(super) fn get(&self) -> sys::CUstream {
        self.stream
    }

    /// Makes the context that of the calling thread, which every other call needs.
    pub(super) fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the context is held until `self` is dropped.
        unsafe { result::ctx::set_current(self.context) }
    }

    /// Waits for everything so far.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the stream is there until `self` is dropped.
        unsafe { result::stream::synchronize(self.stream) }
    }

    /// Whether everything so far is done.
    pub(super) fn idle(&self) -> Result<bool, DriverError> {
        // SAFETY: the stream is there until `self` is dropped.
        match unsafe { sys::cuStreamQuery(self.stream) }.result() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// What comes from now on comes after that moment of another stream.
    pub(super) fn after(&self, event: &Event) -> Result<(), DriverError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are there, in the context that is bound.
        unsafe { result::stream::wait_event(self.stream, event.0.get(), flags) }
    }

    /// Another stream works on this one's memory until that moment of it. None is given back
    /// before: see [`Stream::join`].
    pub(super) fn lend(&self, until: &Arc<Event>) {
        *locked(&self.lent) = Some(Arc::clone(until));
    }

    /// What comes from now on comes after what other streams do with this one's memory.
    pub(super) fn join(&self) -> Result<(), DriverError> {
        let until = locked(&self.lent).take();
        until.map_or(Ok(()), |until| self.after(&until))
    }

    /// Gives memory back that was freed and that nothing uses any more.
    pub(super) fn trim(&self) -> Result<(), DriverError> {
        // SAFETY: the pool is the device's.
        unsafe { result::mem_pool::trim_to(self.pool, 0) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What fails here has failed before, and is known.
        let _ = self.bind();
        // An event goes before its context.
        drop(locked(&self.lent).take());
        if !self.stream.is_null() {
            let _ = self.wait();
            // SAFETY: nobody has the stream any more: memory keeps `self`.
            let _ = unsafe { result::stream::destroy(self.stream) };
        }
        // SAFETY: it was retained once in `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A moment of a stream.
pub(super) struct Event(Owned<sys::CUevent, DriverError>);

impl Event {
    /// No moment yet; `timed` if seconds are to be taken from it.
    pub(super) fn new(timed: bool) -> Result<Self, DriverError> {
        let event = result::event::create(match timed {
            true => sys::CUevent_flags::CU_EVENT_DEFAULT,
            false => sys::CUevent_flags::CU_EVENT_DISABLE_TIMING,
        })?;
        // SAFETY: made just now.
        Ok(Self(unsafe { Owned::new(event, result::event::destroy) }))
    }

    /// Makes it the stream's moment of now.
    pub(super) fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: both are there, in the context that is bound.
        unsafe { result::event::record(self.0.get(), stream.get()) }
    }

    /// Waits until it is there; at once where it was never recorded.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event is there.
        unsafe { result::event::synchronize(self.0.get()) }
    }

    /// Seconds from it to a later one, both recorded and there.
    pub(super) fn seconds_to(&self, later: &Event) -> Result<f64, DriverError> {
        elapsed(self.0.get(), later.0.get()).map(|ms| f64::from(ms) / 1e3)
    }
}

/// Milliseconds between two events, by the function's first form: the second, which cudarc calls,
/// is not in drivers older than CUDA 12.8.
#[cfg(not(feature = "cuda-linked"))]
fn elapsed(from: sys::CUevent, to: sys::CUevent) -> Result<f32, DriverError> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut ms = 0.0;
    // SAFETY: the driver is loaded, as it made the events; the function is of this type.
    unsafe {
        let elapsed = sys::culib().get::<Elapsed>(c"cuEventElapsedTime");
        let elapsed = elapsed.map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?;
        elapsed(&mut ms, from, to).result()?;
    }
    Ok(ms)
}

#[cfg(feature = "cuda-linked")]
fn elapsed(from: sys::CUevent, to: sys::CUevent) -> Result<f32, DriverError> {
    // SAFETY: both events are there, timed, and of one stream.
    unsafe { result::event::elapsed(from, to) }
}
