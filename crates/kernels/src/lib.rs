//! The numeric kernels of a decoder's training step: matrix products, RMSNorm, rotary positions,
//! causal attention, SwiGLU, the output head with its loss, each with its gradient; and the updates
//! of AdamW, Muon and SGD.
//!
//! The crate has no policy: which kernel runs when, and on what data, is the engine's decision (in
//! `cuvee-train`). An engine is written over the trait [`Backend`]. [`Cpu`] is the backend on the
//! processor, [`Cuda`] that on a device of CUDA's model.
//!
//! # Numbers
//!
//! Inputs of matrix products have an [`Element`] type, f32 or bf16. Every sum is taken in f32,
//! whatever the element. What is only ever added to, the residual stream, the gradients of
//! parameters and the optimizer's moments, is stored in f32.
//!
//! A kernel's gradient takes what its forward kept: one scale a row, or one logarithm a query.
//! Nothing of the size of context × context or rows × vocabulary is ever held.
//!
//! Values that are not finite are never hidden. A NaN among a row's logits gives a loss that is
//! NaN, and a gradient that is not finite gives a sum of squares that is not finite. Kernels check
//! nothing else. (A NaN that arithmetic does not make, one whose upper mantissa bits are all set,
//! becomes a zero when rounded to bf16.)
//!
//! # Memory layout
//!
//! Matrices are row-major and parameters are `[out, in]`. A [`Matrix`] starts each row on a cache
//! line and fills it up with zeros, so that a product can read whole *units*: 32 bits along the
//! summed dimension, one f32 or two bf16.
//!
//! The right operand of a product is packed once for many products ([`Panels`]). The left operand
//! is read from its rows. If it comes transposed, it is packed a strip at a time. A tile of sums,
//! 12 × 32 or on AVX2 6 × 16, stays in registers, and an [`Epilogue`] then rounds, adds, or turns
//! logits into exponentials. Where a later product sums over the rows of a result, as over the
//! softmax of the head and of attention, the result is packed as it is computed: nothing is
//! transposed afterwards.
//!
//! # Instruction sets
//!
//! Each kernel is compiled for the target's baseline, for AVX2 with FMA and for AVX-512, and the
//! best that the processor has is chosen at run time; no build flag is needed. [`Isa::choose`]
//! makes a process use a lesser one. [`isa()`] tells which is used, [`fast`] whether it has more
//! than the baseline.
//!
//! For AVX2 and AVX-512, products are written with intrinsics. A tile's size belongs to the
//! instruction set, and so does the width of the panels that it reads. Products of bf16 use the dot
//! product `vdpbf16ps` where the processor has it; elsewhere bf16 is widened first, which is slower
//! than f32. On AVX2 the left operand's rows are taken in blocks that fit into the second-level
//! cache that the processor says it has, and the next panel is fetched while one is multiplied.
//!
//! All other kernels are plain loops, which the compiler vectorises. They sum in 16 lanes that are
//! added in the same order everywhere, and products sum in the same order whatever the tile and the
//! block. So results have the same bits on every instruction set, those of `vdpbf16ps` aside.
//!
//! # Memory and threads of [`Cpu`]
//!
//! | what | memory |
//! |---|---|
//! | a parameter matrix | its f32 values, and two packings in the element's type |
//! | a worker's products | the packed inputs of one parameter's gradient, and a strip of 256 KiB |
//! | a worker's head | 2²³ exponentials at most, or those of 16 rows |
//! | a worker's attention, scores | NR queries' scores, 240 keys' gradients, 12 rows of both |
//! | a matrix's update by Muon | three times the matrix, and twice its smaller side squared |
//! | a worker's attention, one head | packed operands of its products, gradients in f32 |
//!
//! NR is the columns of a tile. A workspace that is too small for a call grows: no call finds too
//! little.
//!
//! A kernel runs on the thread that calls it: the engine splits a batch among workers. Only the
//! packing of parameters, the sum of gradients and the updates element by element, AdamW's and
//! SGD's, use the backend's own thread pool, and their results do not depend on its number of
//! threads.
//!
//! # Floors
//!
//! Modules import from those above them in this table alone.
//!
//! | module | holds |
//! |---|---|
//! | `math` | exponential, logarithm, sigmoid |
//! | `element` | the number types f32 and bf16 |
//! | `buffer` | aligned memory and matrices |
//! | `cache` | how large the processor's cache is |
//! | `isa` | instruction sets, and functions compiled for each |
//! | `lanes`, `dot` | sums in 16 lanes, with the same bits on every instruction set |
//! | `gemm` | matrix products: microkernel, packing, epilogues, the loops around them |
//! | `peak` | the processor's highest rate of multiplications, to compare products with |
//! | `ops` | the kernels, one a file |
//! | `collective` | the trait [`Collective`]: what the ranks of a run do together |
//! | `backend` | the trait [`Backend`] |
//! | `cpu` | [`Cpu`], the backend on the processor |
//! | `device` | the trait [`Device`], of CUDA's model |
//! | `cuda` | [`Cuda`], the backend on a [`Device`] of CUDA's model; [`Gpu`], NVIDIA's |
//!
//! # Example
//!
//! A linear layer y = x Wᵀ:
//!
//! ```
//! use cuvee_kernels::{Matrix, Panels, StoreF32, bf16, multiply};
//!
//! let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
//! let mut panels = Panels::<bf16>::zeros(2, 3);
//! panels.pack_rows::<f32>(&weights, 3, 2, 3);
//! let mut x = Matrix::<bf16>::zeros(1, 3);
//! x.row_mut(0).copy_from_slice(&[1.0, 0.0, -1.0].map(bf16::from_f32));
//! let mut y = [0.0; 2];
//! multiply(x.data(), x.stride(), 1, &panels, StoreF32 { out: &mut y, stride: 2, add: false });
//! assert_eq!(y, [-2.0, -2.0]);
//! ```

#[cfg(target_endian = "big")]
compile_error!(
    "a unit's first element is its lower half, which in memory comes first on little-endian machines alone"
);

mod backend;
mod buffer;
mod cache;
mod collective;
mod cpu;
mod cuda;
mod device;
mod dot;
mod element;
mod gemm;
mod gradient;
mod isa;
mod lanes;
mod math;
mod ops;
mod peak;

pub use backend::Backend;
pub use buffer::{Buffer, Matrix};
pub use collective::{Alone, Collective, CollectiveError};
pub use cpu::{Cpu, CpuWorkspace};
pub use cuda::{Cuda, CudaWorkspace, Gpu, GpuInfo, gpu_peak_flops};
pub use device::{Argument, Device, DeviceError, Kernel, Operand, Product};
pub use element::{Element, ElementType, RoundTo};
pub use gemm::{
    AddBias, AddResidual, Epilogue, Panels, StoreF32, StoreRounded, multiply, multiply_transposed,
};
pub use gradient::Gradient;
pub use half::bf16;
pub use isa::{Isa, fast, fast_bf16, isa};
pub use ops::*;
pub use peak::peak_flops;
