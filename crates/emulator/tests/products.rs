//! Products of every layout and number type against f64.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_emulator::{Emulator, Memory};
use cuvee_kernels::{Device, Element, ElementType, Operand, Product, bf16};

use ElementType::{Bf16, F32};

const ROWS: usize = 5;
const COLUMNS: usize = 7;
const DEPTH: usize = 19;
/// Bytes before each matrix, and elements between its rows.
const BEFORE: usize = 12;
const BETWEEN: usize = 3;

/// A matrix on the device and what it holds: value `[i, j]` as it is taken.
struct Stored {
    memory: Memory,
    stride: usize,
    element: ElementType,
    transposed: bool,
    values: Vec<f64>,
}

impl Stored {
    fn new(
        device: &Emulator,
        [rows, columns]: [usize; 2],
        element: ElementType,
        transposed: bool,
        seed: usize,
    ) -> Self {
        let stored = if transposed { [columns, rows] } else { [rows, columns] };
        let stride = stored[1] + BETWEEN;
        let size = if element == F32 { 4 } else { 2 };
        // What is between rows must not be read as a number.
        let mut bytes = vec![0xff; BEFORE + stored[0] * stride * size];
        let mut values = vec![0.0; rows * columns];
        for i in 0..rows {
            for j in 0..columns {
                let value =
                    (((i * columns + j) * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0;
                let at = if transposed { j * stride + i } else { i * stride + j };
                let to = &mut bytes[BEFORE + at * size..][..size];
                values[i * columns + j] = match element {
                    F32 => {
                        to.copy_from_slice(&value.to_ne_bytes());
                        value.into()
                    }
                    Bf16 => {
                        let rounded = <bf16 as Element>::narrow(value);
                        to.copy_from_slice(&rounded.to_bits().to_ne_bytes());
                        rounded.widen().into()
                    }
                };
            }
        }
        let memory = device.allocate(bytes.len());
        device.write(&memory, 0, &bytes);
        Self { memory, stride, element, transposed, values }
    }

    fn operand(&self) -> Operand<'_, Memory> {
        let Self { memory, stride, element, transposed, .. } = self;
        let (stride, element, transposed) = (*stride, *element, *transposed);
        Operand { memory, at: BEFORE, stride, element, transposed }
    }

    /// Its bytes, and the numbers in them.
    fn read(&self, device: &Emulator, rows: usize, columns: usize) -> Vec<f64> {
        let size = if self.element == F32 { 4 } else { 2 };
        let mut bytes = vec![0; BEFORE + rows * self.stride * size];
        device.read(&self.memory, 0, &mut bytes);
        assert_eq!(device.status(), Ok(()));
        let mut values = Vec::new();
        for i in 0..rows {
            for j in 0..self.stride {
                let from = &bytes[BEFORE + (i * self.stride + j) * size..][..size];
                if j >= columns {
                    assert!(from.iter().all(|&byte| byte == 0xff), "between rows, nothing changes");
                } else if size == 4 {
                    values.push(f32::from_ne_bytes(from.try_into().unwrap()).into());
                } else {
                    let bits = u16::from_ne_bytes(from.try_into().unwrap());
                    values.push(bf16::from_bits(bits).widen().into());
                }
            }
        }
        values
    }
}

#[test]
fn products_of_every_layout_and_type_are_those_of_f64() {
    let device = Emulator::new();
    for (element, out_element) in [(F32, F32), (Bf16, F32), (Bf16, Bf16)] {
        for layout in 0..8 {
            let [left_transposed, right_transposed, adds] = [1, 2, 4].map(|bit| layout & bit != 0);
            let left = Stored::new(&device, [ROWS, DEPTH], element, left_transposed, 1);
            let right = Stored::new(&device, [DEPTH, COLUMNS], element, right_transposed, 2);
            let out = Stored::new(&device, [ROWS, COLUMNS], out_element, false, 3);
            device.product(&Product {
                left: left.operand(),
                right: right.operand(),
                rows: ROWS,
                columns: COLUMNS,
                depth: DEPTH,
                out: out.operand(),
                add: adds.then_some((&out.memory, BEFORE)),
            });
            for (at, found) in out.read(&device, ROWS, COLUMNS).into_iter().enumerate() {
                let (i, j) = (at / COLUMNS, at % COLUMNS);
                let terms =
                    (0..DEPTH).map(|k| left.values[i * DEPTH + k] * right.values[k * COLUMNS + j]);
                let before = if adds { out.values[at] } else { 0.0 };
                let exact = terms.clone().sum::<f64>() + before;
                // Half a unit in the last place of a sum that no partial sum exceeds, a term; and
                // of the result, where it is rounded.
                let size = terms.map(f64::abs).sum::<f64>() + before.abs();
                let sums = (DEPTH + 1) as f64 * size * f64::from(f32::EPSILON) / 2.0;
                let rounding = if out_element == Bf16 { exact.abs() / 256.0 } else { 0.0 };
                let error = (found - exact).abs();
                assert!(error <= sums + rounding, "{element:?} {layout} {found} {exact}");
            }
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros() {
    let device = Emulator::new();
    let out = Stored::new(&device, [2, 3], F32, false, 1);
    let [left, right] = [out.operand(), out.operand()];
    let (rows, columns, out_operand) = (2, 3, out.operand());
    let product = Product { left, right, rows, columns, depth: 0, out: out_operand, add: None };
    device.product(&product);
    assert_eq!(out.read(&device, 2, 3), [0.0; 6]);
}
