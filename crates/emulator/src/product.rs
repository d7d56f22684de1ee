//! Matrix products. Their sums are f32, in the order of what is summed over.

use cuvee_kernels::{Element, ElementType, Operand, Product, bf16};

use crate::memory::Memory;

/// out ← left · right, or with `add` added to it.
///
/// # Errors
/// The number types do not belong together, or a matrix is not in its memory.
///
/// # Safety
/// Nothing else uses the memories while this runs.
pub(crate) unsafe fn multiply(product: &Product<'_, Memory>) -> Result<(), String> {
    let Product { left, right, rows, columns, depth, out, add } = product;
    let (&rows, &columns, &depth) = (rows, columns, depth);
    let types = [left.element, right.element, out.element];
    if left.element != right.element
        || (out.element != ElementType::F32 && out.element != left.element)
    {
        return Err(format!("a product's types are {types:?}"));
    }
    if out.transposed {
        return Err("a product's result is transposed".to_string());
    }
    // SAFETY: the caller's promise, here and below.
    let (left, right) = unsafe { (read(left, rows, depth)?, read(right, depth, columns)?) };
    let mut sums = match add {
        // SAFETY: as above.
        Some((memory, at)) => unsafe {
            read(&Operand { memory: *memory, at: *at, ..*out }, rows, columns)?
        },
        None => vec![0.0; rows * columns],
    };
    if columns > 0 {
        let mut row_sums = vec![0.0f32; columns];
        for (i, to) in sums.chunks_exact_mut(columns).enumerate() {
            row_sums.fill(0.0);
            for (k, &a) in left[i * depth..(i + 1) * depth].iter().enumerate() {
                let row = &right[k * columns..(k + 1) * columns];
                row_sums.iter_mut().zip(row).for_each(|(sum, &b)| *sum += a * b);
            }
            to.iter_mut().zip(&row_sums).for_each(|(to, &sum)| *to += sum);
        }
    }
    // SAFETY: as above.
    unsafe { write(out, rows, columns, &sums) }
}

/// Bytes of an element.
fn size(element: ElementType) -> usize {
    match element {
        ElementType::F32 => 4,
        ElementType::Bf16 => 2,
    }
}

/// The address of a matrix that is stored as `[rows, columns]`, all of which is in its memory.
fn place(operand: &Operand<'_, Memory>, rows: usize, columns: usize) -> Result<*mut u8, String> {
    let (element, stride) = (size(operand.element), operand.stride);
    if stride < columns || !operand.at.is_multiple_of(element) {
        let at = operand.at;
        return Err(format!(
            "a matrix of {columns} columns of {element} bytes has a stride of {stride} elements \
             and begins at byte {at}"
        ));
    }
    let elements = rows.checked_sub(1).map_or(0, |before| before * stride + columns);
    operand.memory.range(operand.at, elements * element)
}

/// A matrix as it is taken, `[rows, columns]`.
///
/// # Safety
/// Nothing writes to its memory.
unsafe fn read(
    operand: &Operand<'_, Memory>,
    rows: usize,
    columns: usize,
) -> Result<Vec<f32>, String> {
    let (stored_rows, stored_columns) =
        if operand.transposed { (columns, rows) } else { (rows, columns) };
    let base = place(operand, stored_rows, stored_columns)?;
    let mut taken = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for column in 0..columns {
            let at = if operand.transposed {
                column * operand.stride + row
            } else {
                row * operand.stride + column
            };
            // SAFETY: place found all of the matrix in its memory, aligned.
            taken.push(unsafe {
                match operand.element {
                    ElementType::F32 => base.cast::<f32>().add(at).read(),
                    ElementType::Bf16 => base.cast::<bf16>().add(at).read().widen(),
                }
            });
        }
    }
    Ok(taken)
}

/// `operand` ← `values`, `[rows, columns]`.
///
/// # Safety
/// Nothing else uses its memory.
unsafe fn write(
    operand: &Operand<'_, Memory>,
    rows: usize,
    columns: usize,
    values: &[f32],
) -> Result<(), String> {
    let base = place(operand, rows, columns)?;
    for row in 0..rows {
        for column in 0..columns {
            let (at, value) = (row * operand.stride + column, values[row * columns + column]);
            // SAFETY: place found all of the matrix in its memory, aligned.
            unsafe {
                match operand.element {
                    ElementType::F32 => base.cast::<f32>().add(at).write(value),
                    ElementType::Bf16 => base.cast::<bf16>().add(at).write(bf16::narrow(value)),
                }
            }
        }
    }
    Ok(())
}
