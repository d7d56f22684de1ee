//! The update rules of the seed method, as plain functions of per-domain numbers.
//!
//! In: π, w and statistics, one number a domain in each list. Out: the next loss weights w, or the
//! sampling weights p. No randomness, and no state but [`GradientMoments`]: the strategies keep it,
//! and studies outside of language models use the same rules. One file a rule; a loss rule needs but
//! its proposal, `update.rs` does the rest. Source: Salmani, Worah, Razaviyayn, Mirrokni,
//! *Sampling and Loss Weights in Multi-Domain Training*, arXiv:2511.06913 (2025); what was worked
//! out for Cuvee instead of read there is marked **derived**.
//!
//! A statistic that is missing, not finite or out of its range is ignored and the domain keeps its
//! loss weight, so that nothing here returns a NaN or panics.

mod clamp;
mod erma;
mod fgls;
mod moments;
mod shares;
pub(crate) mod update;
mod va;

pub use clamp::Clamp;
pub use erma::{erma, erma_objective};
pub use fgls::fgls;
pub use moments::{GradientMoments, deviations};
pub use va::{va, variance_ratio};

#[cfg(test)]
mod tests;
