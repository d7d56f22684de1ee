//! What lies in the device's memory, and how it goes there and back.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::device::{Argument, Device, Operand};
use crate::element::ElementType;

/// Rows of activations and of matrices begin on a multiple of so many elements: then 16 bytes of
/// either element type are read and written at once, and products find their rows aligned.
const ALIGNED: usize = 8;

/// f32 numbers, one after the other.
pub struct Floats<D: Device> {
    pub(super) memory: D::Memory,
    /// How many.
    pub(super) len: usize,
}

impl<D: Device> Floats<D> {
    /// `len` zeros.
    pub(super) fn zeros(device: &D, len: usize) -> Self {
        Self { memory: allocate(device, 4 * len), len }
    }

    /// Its address, of at least `len` numbers.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn of(&self, len: usize) -> Argument<'_, D::Memory> {
        self.from(0, len)
    }

    /// The address of `len` numbers from `at` on.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn from(&self, at: usize, len: usize) -> Argument<'_, D::Memory> {
        self.check(at, len);
        Argument::Memory(&self.memory, 4 * at)
    }

    /// `[rows, columns]` of them from `at` on, as a matrix of a product.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn operand(&self, at: usize, rows: usize, columns: usize) -> Operand<'_, D::Memory> {
        self.check(at, rows * columns);
        floats_operand(&self.memory, 4 * at, columns)
    }

    /// Numbers `at..` ← `values`.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn write(&self, device: &D, at: usize, values: &[f32]) {
        self.check(at, values.len());
        if !values.is_empty() {
            device.write(&self.memory, 4 * at, bytemuck::cast_slice(values));
        }
    }

    /// Those of `range`, once the device has come so far.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn read(&self, device: &D, range: Range<usize>) -> Vec<f32> {
        self.check(range.start, range.len());
        let mut values = vec![0f32; range.len()];
        if !values.is_empty() {
            device.read(&self.memory, 4 * range.start, bytemuck::cast_slice_mut(&mut values));
        }
        values
    }

    fn check(&self, at: usize, len: usize) {
        assert!(at + len <= self.len, "{len} numbers from {at} on, of {}", self.len);
    }
}

/// `[rows, columns]` of the backend's element type, in rows `stride` elements apart. What lies
/// between a row's last column and the next row is never read for its value.
pub struct Activations<D: Device> {
    pub(super) memory: D::Memory,
    /// How many rows.
    pub(super) rows: usize,
    /// Elements of a row.
    pub(super) columns: usize,
    /// Elements from one row to the next, a multiple of 8.
    pub(super) stride: usize,
    element: ElementType,
}

impl<D: Device> Activations<D> {
    /// `[rows, columns]` zeros.
    pub(super) fn zeros(device: &D, element: ElementType, rows: usize, columns: usize) -> Self {
        let stride = aligned(columns);
        let memory = allocate(device, rows * stride * bytes(element));
        Self { memory, rows, columns, stride, element }
    }

    /// Its address, of at least `rows` rows of at least `columns`.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn of(&self, rows: usize, columns: usize) -> Argument<'_, D::Memory> {
        self.from(0, rows, columns)
    }

    /// The address of `rows` rows from row `row` on.
    ///
    /// # Panics
    /// If there are fewer, or they have fewer than `columns`.
    pub(super) fn from(&self, row: usize, rows: usize, columns: usize) -> Argument<'_, D::Memory> {
        self.check(row, rows, columns);
        Argument::Memory(&self.memory, row * self.stride * bytes(self.element))
    }

    /// `rows` rows from row `row` on, `columns` of each, as a matrix of a product.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn operand(
        &self,
        row: usize,
        rows: usize,
        columns: usize,
    ) -> Operand<'_, D::Memory> {
        self.check(row, rows, columns);
        Operand {
            memory: &self.memory,
            at: row * self.stride * bytes(self.element),
            stride: self.stride,
            element: self.element,
            transposed: false,
        }
    }

    /// All of it as a matrix of a product.
    pub(super) fn whole(&self) -> Operand<'_, D::Memory> {
        self.operand(0, self.rows, self.columns)
    }

    fn check(&self, row: usize, rows: usize, columns: usize) {
        assert!(
            row + rows <= self.rows && columns <= self.columns,
            "[{rows}, {columns}] from row {row} on, of [{}, {}]",
            self.rows,
            self.columns
        );
    }
}

/// Whole numbers from 0, as many as were written last, on the device and here.
pub struct Ids<D: Device> {
    memory: Option<D::Memory>,
    /// How many the memory has room for.
    capacity: usize,
    values: Vec<u32>,
    largest: u32,
}

// By hand: derived, it would ask that D has a default.
impl<D: Device> Default for Ids<D> {
    fn default() -> Self {
        Self { memory: None, capacity: 0, values: Vec::new(), largest: 0 }
    }
}

impl<D: Device> Ids<D> {
    /// `values` instead of what it held.
    pub(super) fn write(&mut self, device: &D, values: &[u32]) {
        self.values.clear();
        self.values.extend_from_slice(values);
        self.largest = values.iter().copied().max().unwrap_or(0);
        if self.memory.is_none() || self.capacity < values.len() {
            self.memory = Some(allocate(device, 4 * values.len()));
            self.capacity = values.len();
        }
        if let Some(memory) = self.memory.as_ref().filter(|_| !values.is_empty()) {
            device.write(memory, 0, bytemuck::cast_slice(values));
        }
    }

    /// What was written last.
    pub(super) fn values(&self) -> &[u32] {
        &self.values
    }

    /// Their address.
    pub(super) fn argument(&self) -> Argument<'_, D::Memory> {
        self.from(0)
    }

    /// The address of those from `at` on.
    pub(super) fn from(&self, at: usize) -> Argument<'_, D::Memory> {
        self.memory.as_ref().map_or(Argument::Null, |memory| Argument::Memory(memory, 4 * at))
    }

    /// That each of them is below `end`.
    ///
    /// # Panics
    /// If one is not.
    pub(super) fn check_below(&self, end: usize) {
        let largest = self.largest as usize;
        assert!(self.values.is_empty() || largest < end, "{largest} of {end}");
    }
}

/// The gradient of a parameter `[rows, columns]`. There is one worker: its turns come in their
/// order by themselves.
pub struct Gradient<D: Device> {
    pub(super) floats: Floats<D>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Turns of its sum that are still to come; 0 too once the worker has failed.
    left: Mutex<usize>,
    finished: Condvar,
}

impl<D: Device> Gradient<D> {
    /// Zeros.
    pub(super) fn zeros(device: &D, rows: usize, columns: usize) -> Self {
        let floats = Floats::zeros(device, rows * columns);
        Self { floats, rows, columns, left: Mutex::new(0), finished: Condvar::new() }
    }

    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.floats.len
    }

    /// Begins a sum of so many turns.
    pub(super) fn begin(&self, turns: usize) {
        *self.left() = turns;
    }

    /// One more of its turns has been given to the device.
    pub(super) fn turn(&self) {
        let mut left = self.left();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.finished.notify_all();
        }
    }

    /// That no turn will come any more.
    pub(super) fn fail(&self) {
        self.begin(0);
        self.finished.notify_all();
    }

    /// Waits until the last turn has been given to the device.
    pub(super) fn wait(&self) {
        let mut left = self.left();
        while *left > 0 {
            left = self.finished.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn left(&self) -> MutexGuard<'_, usize> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It as a matrix of a product.
    pub(super) fn operand(&self) -> Operand<'_, D::Memory> {
        self.floats.operand(0, self.rows, self.columns)
    }
}

/// cos and sin of each position's angles, `[positions, e/2]` each.
pub struct Rotations<D: Device> {
    pub(super) cos: Floats<D>,
    pub(super) sin: Floats<D>,
    /// Width of a head, e.
    pub(super) head_dim: usize,
}

impl<D: Device> Rotations<D> {
    /// The same as `rotations`.
    pub(super) fn new(device: &D, rotations: &crate::ops::Rotations) -> Self {
        let floats = |values: &[f32]| {
            let floats = Floats::zeros(device, values.len());
            floats.write(device, 0, values);
            floats
        };
        Self {
            cos: floats(&rotations.cos),
            sin: floats(&rotations.sin),
            head_dim: rotations.head_dim,
        }
    }
}

/// Memory for what is gone when a call's kernels have run, which grows. Everything on a device
/// happens in one order, so that one piece does for all calls.
pub struct Scratch<D: Device> {
    memory: Option<D::Memory>,
    bytes: usize,
}

impl<D: Device> Scratch<D> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { memory: None, bytes: 0 }
    }

    /// At least `bytes` of it, whose content is unspecified.
    pub(super) fn fit(&mut self, device: &D, bytes: usize) -> &D::Memory {
        if self.bytes < bytes {
            // What is too small goes back first.
            self.memory = None;
            self.bytes = bytes;
        }
        self.memory.get_or_insert_with(|| allocate(device, bytes))
    }
}

/// f32 numbers from byte `at` of `memory` on, in rows `stride` apart, as a matrix of a product.
pub(super) fn floats_operand<M>(memory: &M, at: usize, stride: usize) -> Operand<'_, M> {
    Operand { memory, at, stride, element: ElementType::F32, transposed: false }
}

/// `bytes` zeros, or a few where nothing is to be held: no address is none.
pub(super) fn allocate<D: Device>(device: &D, bytes: usize) -> D::Memory {
    device.allocate(bytes.max(16))
}

/// Bytes of an element.
pub(super) fn bytes(element: ElementType) -> usize {
    match element {
        ElementType::F32 => 4,
        ElementType::Bf16 => 2,
    }
}

/// Elements from one row of `columns` to the next.
pub(super) fn aligned(columns: usize) -> usize {
    columns.next_multiple_of(ALIGNED)
}
