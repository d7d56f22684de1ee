//! CUDA's model on the processor, to test kernels and what launches them without a GPU.
//!
//! [`Emulator`] is a [`Device`]: a backend that is written over that trait runs on it. The kernels
//! are those of `crates/kernels/cuda`, compiled for the processor by this crate's build, which also
//! lists them: [`Kernel`] names one by its source and its name.
//!
//! A block's threads are fibers of the calling thread, and blocks run one after another. All of
//! CUDA's own that kernels use is in their `device.h`: barriers, shuffles, products of bf16 on
//! tensor cores, asynchronous copies, which bring their bytes only when they are waited for.
//!
//! # What is found
//!
//! Every access of memory is checked. A kernel stops, and the device's error names the kernel, the
//! thread and the block, and where the program has debug information the line, when it
//!
//! - reads or writes outside of the memory of its arguments and of its shared memory, at an index
//!   that an array does not have, or on no multiple of what a vector needs;
//! - reads shared memory that nothing in the block has written, or that a copy has not brought;
//! - races: two threads of a block use one place, one of them writes, and no barrier is between
//!   (`__syncthreads`, or within a warp `warp_sync`); or two blocks do;
//! - waits for threads that do not come, or asks a warp for something that not all its lanes do;
//! - computes an `int` that is too large.
//!
//! A launch is refused whose kernel does not exist, whose arguments are not the kernel's, or that a
//! GPU would not run. Threads can run in an order drawn from a seed, [`Emulator::shuffled`].
//!
//! What is not found: the speed of anything, and what a compiler for GPUs makes of the source.
//! Memory is compared in units of 2 bytes, the size of the smallest element.

mod memory;
mod product;
mod table;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cuvee_kernels::{Argument, Collective, CollectiveError, Device, DeviceError, Kernel, Product};

pub use memory::Memory;
use table::{Emulation, Entry};

/// The most threads of a block.
const MAX_THREADS: usize = 1024;
/// The most bytes of dynamic shared memory, those of the largest GPU.
const MAX_SHARED: usize = 227 << 10;
/// The most blocks along each side of a grid.
const MAX_GRID: [usize; 3] = [(1 << 31) - 1, 65_535, 65_535];

/// A device of CUDA's model, which is the processor.
pub struct Emulator {
    stream: Mutex<Stream>,
    /// Bytes of memory in use, and which memory is this device's.
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// What the calls do in turn.
struct Stream {
    emulation: Emulation,
    error: Option<DeviceError>,
}

impl Emulator {
    /// A device that runs the threads of a block in order.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// A device that runs the threads of a block in an order drawn anew in each round.
    pub fn shuffled(seed: u64) -> Self {
        Self::with(Some(seed))
    }

    /// The same device with so many bytes of memory.
    pub fn limited(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    fn with(seed: Option<u64>) -> Self {
        let stream = Stream { emulation: Emulation::new(seed), error: None };
        Self { stream: Mutex::new(stream), used: Arc::default(), limit: usize::MAX }
    }

    /// Hands `count` f32 numbers from byte `at` of `memory` on to `work`, and puts back what that
    /// leaves. Other ranks wait for it, whatever has gone wrong here before.
    fn through_host(
        &self,
        memory: &Memory,
        at: usize,
        count: usize,
        work: impl FnOnce(&mut [f32]) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        let mut bytes = vec![0; 4 * count];
        self.read(memory, at, &mut bytes);
        let number = |bytes: &[u8; 4]| f32::from_ne_bytes(*bytes);
        let mut values: Vec<f32> = bytes.as_chunks().0.iter().map(number).collect();
        work(&mut values)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.write(memory, at, &bytes);
        Ok(())
    }

    /// Does something in turn, unless something went wrong before. Keeps what goes wrong now.
    fn turn<T>(
        &self,
        memories: &[&Memory],
        work: impl FnOnce(&mut Emulation) -> Result<T, DeviceError>,
    ) -> Option<T> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.error.is_some() {
            return None;
        }
        let done = if memories.iter().all(|memory| memory.belongs_to(&self.used)) {
            work(&mut stream.emulation)
        } else {
            Err(caller("a call was given memory of another device".to_string()))
        };
        done.map_err(|error| stream.error = Some(error)).ok()
    }
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

/// The error of a call that nothing can do.
fn caller(message: String) -> DeviceError {
    DeviceError { message, hint: "the fault is in the code that called the device".to_string() }
}

/// The address where an argument that is memory begins.
fn address(memory: &Memory, at: usize) -> Result<u64, String> {
    Ok(memory.range(at, 0)? as usize as u64)
}

/// The values of a kernel's arguments, each of which must be of its kind.
fn values(kinds: &[u8], arguments: &[Argument<'_, Memory>]) -> Result<Vec<u64>, String> {
    if arguments.len() != kinds.len() {
        return Err(format!("{} arguments, not {}", kinds.len(), arguments.len()));
    }
    let one = |(place, (&kind, argument)): (usize, (&u8, &Argument<'_, Memory>))| {
        let (own, value) = match *argument {
            Argument::Memory(memory, at) => (b'p', address(memory, at)?),
            Argument::Null => (b'p', 0),
            Argument::U32(value) => (b'i', u64::from(value)),
            Argument::F32(value) => (b'f', u64::from(value.to_bits())),
            Argument::U64(value) => (b'l', value),
        };
        if own == kind {
            return Ok(value);
        }
        Err(format!("{} as argument {}, not {}", kind_name(kind), place + 1, kind_name(own)))
    };
    kinds.iter().zip(arguments).enumerate().map(one).collect()
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        b'p' => "an address",
        b'i' => "an int or u32",
        b'f' => "a float",
        _ => "a u64",
    }
}

/// Whether a GPU would run blocks like these.
fn check_shape(
    entry: &Entry,
    grid: [usize; 3],
    threads: usize,
    shared: usize,
) -> Result<(), String> {
    let most = MAX_THREADS.min(entry.threads as usize);
    if !(1..=most).contains(&threads) {
        return Err(format!("1 to {most} threads a block, not {threads}"));
    }
    if grid.iter().zip(MAX_GRID).any(|(&side, most)| !(1..=most).contains(&side)) {
        return Err(format!("a grid of 1 to {MAX_GRID:?} blocks, not {grid:?}"));
    }
    if shared > MAX_SHARED {
        return Err(format!("at most {MAX_SHARED} bytes of shared memory, not {shared}"));
    }
    Ok(())
}

impl Device for Emulator {
    type Memory = Memory;
    type Mark = Instant;

    fn allocate(&self, bytes: usize) -> Memory {
        let memory = self.turn(&[], |_| {
            Memory::new(bytes, &self.used, self.limit).ok_or_else(|| DeviceError {
                message: format!("there is no memory for {bytes} bytes more on the emulator"),
                hint: "take a smaller model or fewer tokens".to_string(),
            })
        });
        memory.unwrap_or_else(|| Memory::empty(&self.used))
    }

    fn write(&self, memory: &Memory, at: usize, bytes: &[u8]) {
        self.turn(&[memory], |_| {
            let to = memory.range(at, bytes.len()).map_err(caller)?;
            // SAFETY: the range is in the memory, which only this turn uses.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            Ok(())
        });
    }

    fn read(&self, memory: &Memory, at: usize, bytes: &mut [u8]) {
        let done = self.turn(&[memory], |_| {
            let from = memory.range(at, bytes.len()).map_err(caller)?;
            // SAFETY: the range is in the memory, which only this turn uses.
            unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
            Ok(())
        });
        if done.is_none() {
            bytes.fill(0);
        }
    }

    fn copy(&self, from: &Memory, from_at: usize, to: &Memory, to_at: usize, count: usize) {
        self.turn(&[from, to], |_| {
            let from = from.range(from_at, count).map_err(caller)?;
            let to = to.range(to_at, count).map_err(caller)?;
            if (from as usize).abs_diff(to as usize) < count {
                return Err(caller(format!("a copy of {count} bytes overlaps itself")));
            }
            // SAFETY: the ranges are in memory that only this turn uses, and do not overlap.
            unsafe { to.copy_from_nonoverlapping(from, count) };
            Ok(())
        });
    }

    fn zero(&self, memory: &Memory, at: usize, count: usize) {
        self.turn(&[memory], |_| {
            let to = memory.range(at, count).map_err(caller)?;
            // SAFETY: the range is in the memory, which only this turn uses.
            unsafe { to.write_bytes(0, count) };
            Ok(())
        });
    }

    fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument<'_, Memory>],
    ) {
        let memories = arguments.iter().filter_map(|argument| match argument {
            Argument::Memory(memory, _) => Some(*memory),
            _ => None,
        });
        let memories: Vec<&Memory> = memories.collect();
        let Kernel { file, name } = kernel;
        self.turn(&memories, |emulation| {
            let entry = Entry::find(file, name).map_err(caller)?;
            let expects = |what| caller(format!("kernel `{name}` of {file}.cu expects {what}"));
            let values = values(entry.kinds(), arguments).map_err(expects)?;
            check_shape(entry, grid, threads, shared).map_err(expects)?;
            let regions: Vec<_> = memories.iter().map(|memory| memory.region()).collect();
            let (grid, threads) = (grid.map(|side| side as u32), threads as u32);
            // SAFETY: only this turn uses the memory.
            let done =
                unsafe { emulation.launch(entry, grid, threads, shared as u64, &values, &regions) };
            done.map_err(|(message, place)| {
                let place = place.map_or(String::new(), |place| format!(", at {place}"));
                DeviceError {
                    message: format!("kernel `{name}` of {file}.cu: {message}"),
                    hint: format!("the fault is in the kernel{place}, or in how it was launched"),
                }
            })
        });
    }

    fn product(&self, product: &Product<'_, Memory>) {
        let mut memories = vec![product.left.memory, product.right.memory, product.out.memory];
        memories.extend(product.add.map(|(memory, _)| memory));
        self.turn(&memories, |_| {
            // SAFETY: only this turn uses the memory.
            unsafe { product::multiply(product) }.map_err(caller)
        });
    }

    fn sum_over_ranks(
        &self,
        memory: &Memory,
        at: usize,
        count: usize,
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        self.through_host(memory, at, count, |values| match root {
            Some(root) => ranks.reduce(root, values),
            None => ranks.all_reduce(values),
        })
    }

    fn broadcast(
        &self,
        memory: &Memory,
        at: usize,
        count: usize,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError> {
        self.through_host(memory, at, count, |values| ranks.broadcast(root, values))
    }

    /// Every call is over when it returns: there is nothing to wait for.
    fn join_ranks(&self) {}

    fn mark(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> f64 {
        to.duration_since(*from).as_secs_f64()
    }

    fn status(&self) -> Result<(), DeviceError> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.error.clone().map_or(Ok(()), Err)
    }
}
