//! Matrix products by cublasLt.
//!
//! The library stores matrices by columns: what is row-major is to it the transpose. So instead of
//! out = left · right it is asked for outᵀ = rightᵀ · leftᵀ, and nothing is moved.
//!
//! **Same bits**: the algorithm is the first that the library's heuristics name for a shape, which
//! depends on the library and the GPU alone; no algorithm is tried out. Where a sum is split, its
//! parts are f32 and are added in a fixed order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t as Describes;
use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t as Wishes;
use cudarc::cublaslt::{result, result::CublasError, sys};

use super::error::Doing;
use super::memory::Memory;
use super::owned::Owned;
use super::stream::Stream;
use crate::device::{DeviceError, Operand, Product};
use crate::element::ElementType;

/// Bytes that an algorithm may use for parts of sums: what NVIDIA advises for its newest GPUs.
const WORKSPACE: usize = 32 << 20;
/// The library asks for no more than this.
const MOST_ALIGNED: u64 = 256;

/// The library, and how it multiplies each shape seen so far.
pub(super) struct Products {
    plans: HashMap<Shape, Plan>,
    library: Owned<sys::cublasLtHandle_t, CublasError>,
    workspace: Memory,
    stream: Arc<Stream>,
}

/// What decides how a product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    columns: usize,
    depth: usize,
    left: Layout,
    right: Layout,
    out: Layout,
    /// Where something is added, what its address is a multiple of.
    add: Option<u32>,
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Layout {
    stride: usize,
    element: sys::cudaDataType,
    transposed: bool,
    /// What its address is a multiple of.
    aligned: u32,
}

impl Layout {
    fn of(operand: &Operand<'_, Memory>, address: u64) -> Self {
        let element = match operand.element {
            ElementType::F32 => sys::cudaDataType::CUDA_R_32F,
            ElementType::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        };
        let Operand { stride, transposed, .. } = *operand;
        Self { stride, element, transposed, aligned: aligned(address) }
    }
}

/// The largest power of two that an address is a multiple of, and that anybody asks for.
fn aligned(address: u64) -> u32 {
    1 << (address | MOST_ALIGNED).trailing_zeros()
}

type Descriptor<T> = Owned<T, CublasError>;

/// How the library computes products of one shape.
struct Plan {
    product: Descriptor<sys::cublasLtMatmulDesc_t>,
    left: Descriptor<sys::cublasLtMatrixLayout_t>,
    right: Descriptor<sys::cublasLtMatrixLayout_t>,
    out: Descriptor<sys::cublasLtMatrixLayout_t>,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Products {
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Self, DeviceError> {
        let handle = result::create_handle().doing("starting cublasLt")?;
        // SAFETY: made just now.
        let library = unsafe { Owned::new(handle, result::destroy_handle) };
        let workspace = Memory::zeros(stream, WORKSPACE)?;
        Ok(Self { plans: HashMap::new(), library, workspace, stream: Arc::clone(stream) })
    }

    /// out ← left · right, and what is added.
    pub(super) fn multiply(&mut self, product: &Product<'_, Memory>) -> Result<(), DeviceError> {
        let Product { left, right, rows, columns, depth, out, add } = product;
        if *rows == 0 || *columns == 0 {
            return Ok(());
        }
        let address = |operand: &Operand<'_, Memory>| operand.memory.address_from(operand.at);
        let [a, b, d] = [left, right, out].map(address);
        let c = add.map(|(memory, at)| memory.address_from(at));
        let shape = Shape {
            rows: *rows,
            columns: *columns,
            depth: *depth,
            left: Layout::of(left, a),
            right: Layout::of(right, b),
            out: Layout::of(out, d),
            add: c.map(aligned),
        };
        let what = || {
            let element = left.element;
            format!("multiplying {rows} × {depth} by {depth} × {columns} in {element:?}")
        };
        let plan = match self.plans.entry(shape) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(Plan::new(self.library.get(), &shape).doing(&what())?)
            }
        };
        let pointer = |address: u64| address as *const c_void;
        let (one, times) = (1f32, if c.is_some() { 1f32 } else { 0f32 });
        // SAFETY: the layouts are those of the operands, which hold them: the caller's strides and
        // sizes; the factors are f32, as the product was described, and read before this returns.
        let done = unsafe {
            result::matmul(
                self.library.get(),
                plan.product.get(),
                (&raw const one).cast(),
                (&raw const times).cast(),
                pointer(b),
                plan.right.get(),
                pointer(a),
                plan.left.get(),
                pointer(c.unwrap_or(d)),
                plan.out.get(),
                pointer(d).cast_mut(),
                plan.out.get(),
                &plan.algorithm,
                pointer(self.workspace.address_from(0)).cast_mut(),
                WORKSPACE,
                self.stream.get().cast(),
            )
        };
        done.doing(&what())
    }
}

impl Plan {
    fn new(library: sys::cublasLtHandle_t, shape: &Shape) -> Result<Self, CublasError> {
        // True f32: no operand is rounded to fewer bits.
        let sums = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let handle = result::create_matmul_desc(sums, sys::cudaDataType::CUDA_R_32F)?;
        // SAFETY: made just now.
        let product = unsafe { Owned::new(handle, result::destroy_matmul_desc) };
        let transposition = |layout: &Layout| i32::from(layout.transposed);
        // SAFETY: both attributes are 32 bits: 0 as it is, 1 transposed.
        unsafe {
            for (attribute, value) in [
                (Describes::CUBLASLT_MATMUL_DESC_TRANSA, transposition(&shape.right)),
                (Describes::CUBLASLT_MATMUL_DESC_TRANSB, transposition(&shape.left)),
            ] {
                let value = (&raw const value).cast();
                result::set_matmul_desc_attribute(handle, attribute, value, size_of::<i32>())?;
            }
        }
        let Shape { rows, columns, depth, .. } = *shape;
        let left = matrix(&shape.left, rows, depth)?;
        let right = matrix(&shape.right, depth, columns)?;
        let out = matrix(&shape.out, rows, columns)?;
        let wishes = wishes(shape)?;
        // SAFETY: all are descriptors that are there.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                library,
                handle,
                right.get(),
                left.get(),
                out.get(),
                out.get(),
                wishes.get(),
            )?
        };
        Ok(Self { product, left, right, out, algorithm: found.algo })
    }
}

/// The library's view of a matrix that is taken as `[rows, columns]`: by columns, so transposed.
fn matrix(
    layout: &Layout,
    rows: usize,
    columns: usize,
) -> Result<Descriptor<sys::cublasLtMatrixLayout_t>, CublasError> {
    let stored = if layout.transposed { [columns, rows] } else { [rows, columns] };
    let [rows, columns] = stored.map(|n| n as u64);
    let stride = layout.stride as i64;
    let handle = result::create_matrix_layout(layout.element, columns, rows, stride)?;
    // SAFETY: made just now.
    Ok(unsafe { Owned::new(handle, result::destroy_matrix_layout) })
}

/// What an algorithm may take, and may rely on.
fn wishes(shape: &Shape) -> Result<Descriptor<sys::cublasLtMatmulPreference_t>, CublasError> {
    let handle = result::create_matmul_pref()?;
    // SAFETY: made just now.
    let wishes = unsafe { Owned::new(handle, result::destroy_matmul_pref) };
    let workspace = WORKSPACE as u64;
    // Parts of a sum are kept in the workspace as f32, and added in a step of its own.
    let scheme = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    let out = shape.out.aligned;
    // SAFETY: the first attribute is 64 bits, the others 32.
    unsafe {
        result::set_matmul_pref_attribute(
            handle,
            Wishes::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<u64>(),
        )?;
        for (attribute, value) in [
            (Wishes::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme),
            (Wishes::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.right.aligned),
            (Wishes::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.left.aligned),
            (Wishes::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.add.unwrap_or(out)),
            (Wishes::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            let value = (&raw const value).cast();
            result::set_matmul_pref_attribute(handle, attribute, value, size_of::<u32>())?;
        }
    }
    Ok(wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_multiple_of_what_the_library_is_told() {
        for (address, expected) in [(0x7000_0000, 256), (0x7000_0010, 16), (0x7000_0006, 2)] {
            assert_eq!(aligned(address), expected);
        }
    }
}
