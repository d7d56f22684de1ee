//! Memory that starts on a cache line, and matrices each of whose rows starts on one.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use crate::element::Element;

/// A cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// `len` elements, made as zeros. The first starts on a cache line, and at least one line of zeros
/// follows the last.
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

/// A row-major matrix, each row of which starts on a cache line.
///
/// Rows are `stride` elements apart. The elements between a row's last column and the next row are
/// zero and must stay so: a product reads whole units.
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
        let stride = stride::<E>(columns);
        Self { data: Buffer::zeros(rows * stride), rows, columns, stride }
    }

    /// Makes it `[rows, columns]`, with more memory where what it has does not do. What it holds
    /// then is unspecified, but for the zeros between rows.
    pub(crate) fn fit(&mut self, rows: usize, columns: usize) {
        let stride = stride::<E>(columns);
        match self.data.len() < rows * stride {
            true => self.data = Buffer::zeros(rows * stride),
            false => self.data.fill(E::default()),
        }
        (self.rows, self.columns, self.stride) = (rows, columns, stride);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
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

/// Elements from one row of `columns` to the next.
fn stride<E>(columns: usize) -> usize {
    let line = 64 / size_of::<E>();
    let stride = columns.next_multiple_of(line);
    // Rows a multiple of 1 KiB apart fall into few sets of the first-level cache and would evict
    // each other: a product reads a dozen rows at once.
    if (stride * size_of::<E>()).is_multiple_of(1024) { stride + line } else { stride }
}

/// Elements from the start of the first of `rows` rows to the end of the last, the rows `stride`
/// apart and `width` long.
///
/// Saturates where the count does not fit: no slice is that long, so a check against it fails.
#[inline(always)]
pub(crate) fn span(rows: usize, stride: usize, width: usize) -> usize {
    rows.saturating_sub(1).saturating_mul(stride).saturating_add(width)
}
