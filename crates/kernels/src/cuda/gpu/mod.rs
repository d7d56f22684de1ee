//! The device on an NVIDIA GPU: kernels compiled while the program runs, products by cublasLt.
//!
//! Nothing of NVIDIA's is needed to build or to start the program. Its libraries are loaded when a
//! GPU is asked for: the driver, the compiler NVRTC and cublasLt; NCCL where several ranks train.
//!
//! | file | what it does |
//! | --- | --- |
//! | `library` | which libraries are here |
//! | `info` | which GPUs there are |
//! | `stream` | a context with one stream, moments of it |
//! | `memory` | memory, and the way in and out |
//! | `compile` | kernels from their sources |
//! | `product` | matrix products |
//! | `peak` | how fast they can be |
//! | `ranks` | what the GPUs of several ranks do together |
//! | `nccl` | the library that they do it by |
//! | `error` | what the libraries say, in words |
//! | `owned` | handles that are given back, and locks |
//!
//! A call costs the host some microseconds. Locks are held for one call each, so that several
//! threads may use a GPU; in one stream all the same, but for what the ranks do together.

mod compile;
mod error;
mod info;
mod library;
mod memory;
mod nccl;
mod owned;
mod peak;
mod product;
mod ranks;
mod stream;

use std::ffi::{c_uint, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::sys;

use compile::Kernels;
use error::Doing;
pub use info::GpuInfo;
pub use memory::Memory;
use memory::Staging;
use nccl::Together;
use owned::locked;
pub use peak::gpu_peak_flops;
use product::Products;
use ranks::Ranks;
use stream::{Event, Stream};

use crate::collective::{Collective, CollectiveError};
use crate::device::{Argument, Device, DeviceError, Kernel, Product};

/// An NVIDIA GPU, with a stream of its own.
pub struct Gpu {
    kernels: Mutex<Kernels>,
    products: Mutex<Products>,
    staging: Mutex<Staging>,
    ranks: Ranks,
    stream: Arc<Stream>,
    /// What went wrong first.
    error: OnceLock<DeviceError>,
}

/// A moment in a GPU's work; none where it had failed.
pub struct Mark(Option<Event>);

impl Gpu {
    /// The GPU of this index, as the driver counts them. Compiled kernels are kept in `cache`.
    ///
    /// # Errors
    /// As [`GpuInfo::find`]; a GPU that cannot be used now, or is out of memory.
    pub fn open(index: usize, cache: Option<PathBuf>) -> Result<Self, DeviceError> {
        let info = GpuInfo::find(index)?;
        let stream = Arc::new(Stream::open(info.device)?);
        Ok(Self {
            kernels: Mutex::new(Kernels::new(&info, cache)),
            products: Mutex::new(Products::new(&stream)?),
            staging: Mutex::new(Staging::new()?),
            ranks: Ranks::new(info),
            stream,
            error: OnceLock::new(),
        })
    }

    /// Does something with the GPU, unless something has failed before.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<T, DeviceError>) -> Option<T> {
        if self.error.get().is_some() {
            return None;
        }
        match self.stream.bind().doing("using the GPU").and_then(|()| work()) {
            Ok(made) => Some(made),
            Err(error) => {
                // Of two threads that fail at once one is told of.
                let _ = self.error.set(error);
                None
            }
        }
    }

    /// Does something with the numbers of all ranks, after everything before and beside what
    /// follows. Where it or something before has failed here, this says so: the other ranks wait.
    fn together(
        &self,
        together: Together,
        memory: &Memory,
        at: usize,
        count: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        self.attempt(|| self.ranks.run(&self.stream, together, memory, at, count, ranks));
        self.status().map_err(|DeviceError { message, hint }| CollectiveError { message, hint })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Whoever drops it may be another thread than used it. What fails has failed before.
        let _ = self.stream.bind();
        // Before the stream is waited for, which may wait for a rank that is gone.
        self.ranks.leave();
        let _ = self.stream.wait();
    }
}

impl Device for Gpu {
    type Memory = Memory;
    type Mark = Mark;

    fn allocate(&self, bytes: usize) -> Memory {
        self.attempt(|| Memory::zeros(&self.stream, bytes))
            .unwrap_or_else(|| Memory::none(&self.stream))
    }

    fn write(&self, memory: &Memory, at: usize, bytes: &[u8]) {
        self.attempt(|| locked(&self.staging).write(memory, at, bytes).doing("writing to the GPU"));
    }

    fn read(&self, memory: &Memory, at: usize, bytes: &mut [u8]) {
        let read = self.attempt(|| {
            self.ranks.wait(&self.stream)?;
            locked(&self.staging).read(memory, at, bytes).doing("reading from the GPU")
        });
        if read.is_none() {
            bytes.fill(0);
        }
    }

    fn copy(&self, from: &Memory, from_at: usize, to: &Memory, to_at: usize, count: usize) {
        self.attempt(|| to.copy(to_at, from, from_at, count).doing("copying on the GPU"));
    }

    fn zero(&self, memory: &Memory, at: usize, count: usize) {
        self.attempt(|| memory.zero(at, count).doing("clearing a buffer"));
    }

    fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument<'_, Memory>],
    ) {
        if grid.contains(&0) {
            return;
        }
        self.attempt(|| {
            let function = locked(&self.kernels).function(kernel, shared)?;
            // Each as 64 bits, of which the kernel reads as many as its parameter has: the lower.
            let mut values: Vec<u64> = arguments.iter().map(value).collect();
            let mut pointers: Vec<*mut c_void> =
                values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
            let [x, y, z] = grid.map(|blocks| blocks as c_uint);
            // SAFETY: the arguments are the kernel's, in its order, and are copied before this
            // returns; what they point to is this GPU's memory, which is given back in the stream's
            // order.
            unsafe {
                sys::cuLaunchKernel(
                    function,
                    x,
                    y,
                    z,
                    threads as c_uint,
                    1,
                    1,
                    shared as c_uint,
                    self.stream.get(),
                    pointers.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            }
            .result()
            .doing(&format!("launching {} in {grid:?} blocks of {threads}", kernel.name))
        });
    }

    fn product(&self, product: &Product<'_, Memory>) {
        self.attempt(|| locked(&self.products).multiply(product));
    }

    fn sum_over_ranks(
        &self,
        memory: &Memory,
        at: usize,
        count: usize,
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        let sum = root.map_or(Together::Sum, Together::SumAt);
        self.together(sum, memory, at, count, ranks)
    }

    fn broadcast(
        &self,
        memory: &Memory,
        at: usize,
        count: usize,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        self.together(Together::From(root), memory, at, count, ranks)
    }

    fn join_ranks(&self) {
        self.attempt(|| self.stream.join().doing("waiting for the other ranks"));
    }

    fn mark(&self) -> Mark {
        Mark(self.attempt(|| {
            let event = Event::new(true).doing("making an event")?;
            event.record(&self.stream).doing("recording an event")?;
            Ok(event)
        }))
    }

    fn seconds(&self, from: &Mark, to: &Mark) -> f64 {
        let (Some(from), Some(to)) = (&from.0, &to.0) else { return 0.0 };
        self.attempt(|| {
            to.wait().doing("waiting for the GPU")?;
            from.seconds_to(to).doing("asking the GPU for the time")
        })
        .unwrap_or(0.0)
    }

    fn status(&self) -> Result<(), DeviceError> {
        self.error.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

/// An argument's bits.
fn value(argument: &Argument<'_, Memory>) -> u64 {
    match *argument {
        Argument::Memory(memory, at) => memory.address_from(at),
        Argument::Null => 0,
        Argument::U32(value) => value.into(),
        Argument::F32(value) => value.to_bits().into(),
        Argument::U64(value) => value,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collective::Alone;

    /// Where there are a GPU and NCCL; elsewhere there is nothing to show.
    #[test]
    fn a_rank_alone_sums_and_broadcasts_through_nccl_what_it_has() {
        let (Ok(gpu), Ok(_)) = (Gpu::open(0, None), nccl::Nccl::load()) else { return };
        let memory = gpu.allocate(16);
        let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        gpu.write(&memory, 0, &bytes);
        gpu.sum_over_ranks(&memory, 4, 3, None, &Alone).unwrap();
        gpu.sum_over_ranks(&memory, 0, 2, Some(0), &Alone).unwrap();
        gpu.broadcast(&memory, 0, 4, 0, &Alone).unwrap();
        gpu.join_ranks();
        let mut read = vec![0; 16];
        gpu.read(&memory, 0, &mut read);
        assert_eq!((read, gpu.status()), (bytes, Ok(())));
    }
}
