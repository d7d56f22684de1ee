//! The kernels' promises, over the public API: each forward and backward against Candle's autograd
//! or the formula in f64, with f32 and with bf16 elements, on shapes that fill no tile, panel, unit
//! or block.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attention;
mod embedding;
mod head;
mod head_norm;
mod norm;
mod optimizer;
mod products;
mod rope;
mod swiglu;
mod tools;
