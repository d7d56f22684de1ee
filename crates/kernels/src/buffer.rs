//! Memory that starts on a cache line, and matrices whose rows do.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::element::Element;

/// A cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// `len` elements, zero at the start, the first on a cache line, with a line of zeros behind the
/// last.
#[derive(Clone, Default)]
pub struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let lines = vec![Line::zeroed(); (len * size_of::<T>()).div_ceil(64) + 1];
        Self { lines, len, of: PhantomData }
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// A row-major matrix, each row on a cache line of its own.
///
/// Rows are `stride` elements apart; what lies between a row's last column and the next row stays
/// zero, so that a product may read whole units.
#[derive(Clone, Default)]
pub struct Matrix<E> {
    data: Buffer<E>,
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<E: Element> Matrix<E> {
    /// `[rows, columns]` zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let line = 64 / size_of::<E>();
        let mut stride = columns.next_multiple_of(line);
        // Rows a multiple of 1 KiB apart would share few sets of the first-level cache, and a
        // product reads a dozen at once.
        if (stride * size_of::<E>()).is_multiple_of(1024) {
            stride += line;
        }
        Self { data: Buffer::zeros(rows * stride), rows, columns, stride }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row's start to the next's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `row`, `[columns]`.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[E] {
        &self.data[row * self.stride..][..self.columns]
    }

    /// Row `row`, `[columns]`.
    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [E] {
        &mut self.data[row * self.stride..][..self.columns]
    }

    /// All elements, `[rows · stride]`.
    pub fn data(&self) -> &[E] {
        &self.data
    }

    /// All elements, `[rows · stride]`.
    pub fn data_mut(&mut self) -> &mut [E] {
        &mut self.data
    }
}
