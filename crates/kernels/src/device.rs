//! What the backend needs of a device: memory, kernels, matrix products, and a clock.
//!
//! A device has one stream: everything happens in the order of the calls. Calls return before it
//! has happened, but for [`Device::read`] and [`Device::seconds`], which wait.
//!
//! **Errors** are kept and not returned: after the first one every call does nothing, and
//! [`Device::status`] says what it was. So a pass over a model is written as if nothing failed, and
//! asks once at its end.

use std::fmt;

use crate::collective::{Collective, CollectiveError};
use crate::element::ElementType;

/// A device of CUDA's model: a GPU, or for tests the processor in its place.
pub trait Device: Send + Sync + 'static {
    /// A piece of its memory, which is given back when it is dropped and what reads it has run.
    type Memory: Send + Sync;
    /// A moment in the order of its work.
    type Mark: Send + Sync;

    /// `bytes` zeros, whose first lies on a multiple of 256.
    fn allocate(&self, bytes: usize) -> Self::Memory;

    /// `memory[at..]` ← `bytes`, which may change once this returns.
    fn write(&self, memory: &Self::Memory, at: usize, bytes: &[u8]);

    /// `bytes` ← `memory[at..]`, after everything before; zeros after an error.
    fn read(&self, memory: &Self::Memory, at: usize, bytes: &mut [u8]);

    /// `to[to_at..]` ← `count` bytes of `from[from_at..]`. They do not overlap.
    fn copy(
        &self,
        from: &Self::Memory,
        from_at: usize,
        to: &Self::Memory,
        to_at: usize,
        count: usize,
    );

    /// `count` bytes of `memory[at..]` ← 0.
    fn zero(&self, memory: &Self::Memory, at: usize, count: usize);

    /// Runs a kernel in `grid` blocks of `threads` threads, each block with `shared` bytes of
    /// dynamic shared memory. The arguments are the kernel's, in its order.
    fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument<'_, Self::Memory>],
    );

    /// A matrix product. Its sums are f32, and the same on every run.
    fn product(&self, product: &Product<'_, Self::Memory>);

    /// `count` f32 numbers from byte `at` of `memory` on ← their sum over the ranks, each of which
    /// has a device: at rank `root` alone, if there is one. It comes after all calls before it, and
    /// beside those behind it until [`Device::join_ranks`].
    ///
    /// # Errors
    /// Those of [`Collective`], or of what the devices speak with each other through.
    fn sum_over_ranks(
        &self,
        memory: &Self::Memory,
        at: usize,
        count: usize,
        root: Option<usize>,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError>;

    /// Likewise, ← those of rank `root`.
    ///
    /// # Errors
    /// As [`Device::sum_over_ranks`].
    fn broadcast(
        &self,
        memory: &Self::Memory,
        at: usize,
        count: usize,
        root: usize,
        ranks: &dyn Collective,
    ) -> Result<(), CollectiveError>;

    /// What is called from now on comes after the sums and broadcasts so far.
    fn join_ranks(&self);

    /// This moment.
    fn mark(&self) -> Self::Mark;

    /// Seconds from one moment to a later one, once that is there.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> f64;

    /// What went wrong first.
    ///
    /// # Errors
    /// The device is out of memory, or a call of its libraries failed.
    fn status(&self) -> Result<(), DeviceError>;
}

/// A kernel, by the source it is in and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The source, such as `norm`.
    pub file: &'static str,
    /// The name, such as `rms_norm_bf16`.
    pub name: &'static str,
}

/// An argument of a kernel.
#[derive(Debug)]
pub enum Argument<'a, M> {
    /// The address so many bytes into a piece of memory.
    Memory(&'a M, usize),
    /// No address.
    Null,
    /// `int` or `u32`.
    U32(u32),
    /// `float`.
    F32(f32),
    /// `u64`.
    U64(u64),
}

/// A matrix in memory, row-major.
#[derive(Debug)]
pub struct Operand<'a, M> {
    /// Where it is.
    pub memory: &'a M,
    /// Bytes before its first element.
    pub at: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    /// Number type of its elements.
    pub element: ElementType,
    /// Whether it is read transposed: what is stored as `[b, a]` is taken as `[a, b]`.
    pub transposed: bool,
}

/// out ← left · right, or with `add` added to it.
///
/// `left` is `[rows, depth]` and `right` `[depth, columns]`, as they are taken, both of one number
/// type. Every stride is at least the width of what is stored.
#[derive(Debug)]
pub struct Product<'a, M> {
    /// The left operand.
    pub left: Operand<'a, M>,
    /// The right operand.
    pub right: Operand<'a, M>,
    /// Rows of the result.
    pub rows: usize,
    /// Columns of the result.
    pub columns: usize,
    /// What is summed over.
    pub depth: usize,
    /// Where the result goes, `[rows, columns]`, not transposed; f32, or the operands' type.
    pub out: Operand<'a, M>,
    /// What is added to it, in f32 where `out` is f32, laid out as `out`; `out` itself adds to it.
    pub add: Option<(&'a M, usize)>,
}

/// What went wrong on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceError {
    /// What was expected and found.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.message, self.hint)
    }
}

impl std::error::Error for DeviceError {}
