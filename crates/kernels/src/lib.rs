//! The few numeric kernels of a decoder's training step, and no policy.
#![allow(missing_docs)] // TEMPORARY
mod adamw;
mod attention;
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
mod set;
mod swiglu;

pub use adamw::{AdamWStep, accumulate, adamw, sum_of_squares};
pub use attention::{AttentionRoom, Heads, attention, attention_backward};
pub use buffer::{Buffer, Matrix};
pub use cache::{Cache, attention_step};
pub use cpu::{Cpu, CpuRoom, PackedMatrix};
pub use element::Element;
pub use gemm::{Onto, Rounded, Scaled, Sink, Summed, multiply, multiply_transposed};
pub use half::bf16;
pub use isa::fast;
pub use loss::cross_entropy;
pub use norm::{rms_norm, rms_norm_backward};
pub use pack::{Panels, To};
pub use peak::peak_flops;
pub use rope::{Rotations, rotate};
pub use set::Kernels;
pub use swiglu::{swiglu, swiglu_backward};
