//! The backend on a device of CUDA's model against that on the processor, and against f64: every
//! kernel but attention, forward and backward, in f32 and bf16, on odd shapes. The emulator runs
//! each case with its threads in order and in orders drawn from seeds, which must give the same
//! bits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedding;
mod head;
mod head_norm;
mod kv_cache;
mod linear;
mod memory;
mod muon;
mod norm;
mod optimizer;
mod reduce;
mod rotate;
mod swiglu;
mod tools;
