//! The few numeric kernels of a decoder's training step, and no policy: what is computed when, and
//! on what, the engine in `cuvee-train` decides.
//!
//! **In and out.** Slices of f32 and matrices of an [`Element`], f32 or bf16, come in; results go
//! into buffers of the caller's. Every sum is f32 whatever the element, and what is only added to
//! (the residual stream, gradients of parameters, moments) is f32 throughout; bf16 is for what
//! products read. Each kernel's way back stands beside its way there and takes what that one kept:
//! a scale a row, a logarithm a query. Nothing of the size of context × context or rows ×
//! vocabulary is ever held.
//!
//! **Layout.** All matrices are row-major, parameters `[out, in]`. A [`Matrix`] has each row on a
//! cache line of its own, with zeros from its last column to the next row, so that a product may
//! read whole units. A *unit* is 32 bits along the summed dimension: one f32, or two bf16, the
//! lower half first. The right operand of a product is packed once for many ([`Panels`]): panels of
//! 32 columns, in each the units one after the other, in each unit its columns. The left one is
//! read where it lies, 12 rows at a time, or, if it comes transposed, packed like the right one,
//! each panel's lanes 12, 12 and 8 at a time. The 12 × 32 sums of a tile stay in registers and go
//! from there through a [`Epilogue`], which rounds, adds, or turns logits into exponentials. A producer
//! whose result a later product sums over rows (softmax in the head and in attention) writes it
//! packed as it comes: nothing is transposed afterwards.
//!
//! **Instructions.** Each kernel is compiled for the target's baseline, for AVX2 with FMA and for
//! AVX-512, and picks the best the processor has when it is called; no build flag is needed.
//! AVX-512 has products written out, for bf16 where there is the dot product `vdpbf16ps`;
//! everything else is plain loops that the compiler vectorises, in 16 lanes whose sums are added in
//! the same order everywhere. So the bits do not depend on the instructions, those of `vdpbf16ps`
//! aside. [`fast`] tells whether there are any but the baseline's.
//!
//! **What is not finite** is not hidden: a NaN among a row's logits gives a loss that is one, and
//! any such gradient a sum of squares that is not finite. Nothing is checked in between. (A NaN
//! that no arithmetic makes, all of its bits set, rounds to bf16's −0.)
//!
//! **Costs.** On the processor ([`Cpu`]): a parameter matrix three times, in f32 and packed both
//! ways in the element's size; for each thread the packed inputs of one parameter's gradient, a
//! strip of 256 KiB, 2²³ exponentials of logits at most (or of 16 rows), and in attention 32
//! queries' scores, the score gradients of 240 keys, a dozen rows of both, packed copies of a
//! head's queries, keys, values and output gradients, and its gradients in f32. Work is split by
//! the caller: a kernel runs on the thread it is called from, but for the layout of parameters, the
//! sum of gradients and the update, which use the set's own pool and do not depend on how many
//! threads it has.
//!
//! | file | holds |
//! |---|---|
//! | `backend` | [`Backend`], the set that an engine is written over |
//! | `cpu` | [`Cpu`], the set on the processor; the head, in chunks of rows |
//! | `norm`, `rope`, `swiglu` | row by row: RMSNorm, rotary positions, SwiGLU |
//! | `loss` | softmax and cross-entropy of logits as they come out of the head's product |
//! | `attention`, `cache` | causal attention of a sequence, and of one new token over those before it |
//! | `adamw` | the update, and the sums before it |
//! | `gemm`, `pack`, `micro` | matrix products: the loops around tiles, packed operands, one tile |
//! | `peak` | the ceiling that products are measured against |
//! | `math` | exponentials, and sums in 16 lanes |
//! | `element`, `buffer` | number types; aligned memory and matrices |
//! | `isa` | which instructions there are, and a function for each |
//!
//! A linear layer y = x Wᵀ:
//!
//! ```
//! use cuvee_kernels::{Matrix, Panels, Summed, bf16, multiply};
//!
//! let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
//! let mut panels = Panels::<bf16>::zeros(2, 3);
//! panels.pack_rows::<f32>(&weights, 3, 2, 3);
//! let mut x = Matrix::<bf16>::zeros(1, 3);
//! x.row_mut(0).copy_from_slice(&[1.0, 0.0, -1.0].map(bf16::from_f32));
//! let mut y = [0.0; 2];
//! multiply(x.data(), x.stride(), 1, &panels, Summed { out: &mut y, stride: 2, add: false });
//! assert_eq!(y, [-2.0, -2.0]);
//! ```

#[cfg(target_endian = "big")]
compile_error!(
    "a unit's first element is its lower half, which in memory comes first on little-endian machines alone"
);

mod adamw;
mod attention;
mod backend;
mod buffer;
mod cache;
mod cpu;
mod element;
mod gemm;
mod isa;
mod loss;
mod math;
mod micro;
mod norm;
mod pack;
mod peak;
mod rope;
mod swiglu;

pub use adamw::{AdamWStep, accumulate, adamw, sum_of_squares};
pub use attention::{AttentionWorkspace, Heads, attention, attention_backward};
pub use backend::Backend;
pub use buffer::{Buffer, Matrix};
pub use cache::{Cache, attention_step};
pub use cpu::{Cpu, CpuWorkspace, PackedMatrix};
pub use element::Element;
pub use gemm::{Epilogue, Onto, Rounded, Summed, multiply, multiply_transposed};
pub use half::bf16;
pub use isa::{fast, fast_bf16};
pub use norm::{rms_norm, rms_norm_backward};
pub use pack::{Panels, To};
pub use peak::peak_flops;
pub use rope::{Rotations, rotate};
pub use swiglu::{swiglu, swiglu_backward};
