//! The rules for loss weights and sampling weights, as plain functions of per-domain numbers. One
//! file a rule; what all loss rules share is in `update.rs`.
//!
//! In: π, w and statistics, one number a domain in each list. Out: the next loss weights w, or the
//! sampling weights p. No randomness, and no state but [`GradientMemory`]: the strategies keep it,
//! and studies outside of language models use the same rules. Source: Salmani, Worah, Razaviyayn,
//! Mirrokni, *Sampling and Loss Weights in Multi-Domain Training*, arXiv:2511.06913 (2025). What
//! was worked out for Cuvee instead of read there is marked **derived**.
//!
//! A statistic that is missing, not finite or out of its range is ignored and the domain keeps its
//! loss weight, so that nothing here returns a NaN or panics.

mod averages;
mod clamp;
mod erma;
mod excess;
mod fgls;
mod moments;
mod pike;
mod power_law;
mod shares;
mod softmax;
pub(crate) mod update;
mod va;
mod water_filling;

pub use averages::{LossAverage, shrunk};
pub use clamp::Clamp;
pub use erma::{erma, erma_objective};
pub use excess::excess_losses;
pub use fgls::fgls;
pub use moments::{GradientMemory, GradientMoments, deviations, signal_and_noise};
pub use pike::{pike, pike_closed, pike_scale};
pub use power_law::{PowerLaw, PowerLawBounds, fit_power_law};
pub(crate) use softmax::with_floor;
pub use softmax::{softmax, softmax_with_floor};
pub use va::{effective_batch_size, headroom, largest_headroom, va, va_defensive, variance_ratio};
pub use water_filling::water_filled;

#[cfg(test)]
mod tests;
