//! A GPU's highest rate of multiplications: the ceiling that a training step is measured against.

use half::bf16;

use super::Gpu;
use crate::device::{Device, DeviceError, Operand, Product};
use crate::element::ElementType;

/// Rows and columns of the matrices: the library is at its best, and they fit into 1 GB.
const SIDE: usize = 8192;
/// Products between two readings of the clock.
const AT_ONCE: usize = 8;
/// Readings, of which the best counts.
const READINGS: usize = 4;
/// Numbers that the matrices repeat.
const NUMBERS: usize = 1 << 20;

/// The most floating-point operations a second that the GPU of this index reaches in a large matrix
/// product of numbers between −½ and ½. (Of zeros it would be more: they take less power.) A
/// multiplication and its addition count as two.
///
/// # Errors
/// As [`Gpu::open`]; those of the product.
pub fn gpu_peak_flops(index: usize, element: ElementType) -> Result<f64, DeviceError> {
    let gpu = Gpu::open(index, None)?;
    let numbers = numbers(element);
    let [left, right, out] = [0; 3].map(|_| {
        let memory = gpu.allocate(SIDE * SIDE * numbers.len() / NUMBERS);
        for at in (0..SIDE * SIDE / NUMBERS).map(|turn| turn * numbers.len()) {
            gpu.write(&memory, at, &numbers);
        }
        memory
    });
    let operand = |memory| Operand { memory, at: 0, stride: SIDE, element, transposed: false };
    let product = Product {
        left: operand(&left),
        right: operand(&right),
        rows: SIDE,
        columns: SIDE,
        depth: SIDE,
        out: operand(&out),
        add: None,
    };
    let operations = 2.0 * (SIDE as f64).powi(3) * AT_ONCE as f64;
    let reading = |_| {
        let from = gpu.mark();
        (0..AT_ONCE).for_each(|_| gpu.product(&product));
        operations / gpu.seconds(&from, &gpu.mark())
    };
    // The first also chooses how to multiply.
    let best = (0..=READINGS).map(reading).skip(1).fold(0.0, f64::max);
    gpu.status().map(|()| best)
}

/// As many numbers of this type as the matrices repeat.
fn numbers(element: ElementType) -> Vec<u8> {
    let mut state = 1u32;
    let number = |_| {
        // Numerical Recipes' generator; its upper bits are random enough for this.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32 - 0.5
    };
    let numbers = (0..NUMBERS).map(number);
    match element {
        ElementType::F32 => numbers.flat_map(f32::to_le_bytes).collect(),
        ElementType::Bf16 => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}
