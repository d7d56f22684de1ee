//! The statistics of comparing training runs over seeds.
//!
//! In: the losses of runs of several arms, each arm trained from the same seeds. Out: a
//! [`Comparison`], what `comparison.json` and `cuvee compare --json` hold. No files, no tensors.
//!
//! | file | what it does |
//! | --- | --- |
//! | `numeric`, `distribution` | integrals and roots; tails, quantiles and power |
//! | `isotonic`, `tokens` | losses as tokens |
//! | `paired` | D̄, s, V_w, intervals and p |
//! | `holm`, `looks` | corrections for many arms and for looking early |
//! | `power` | what a number of seeds resolves, for the plan |
//! | `futility` | when a run may stop early |
//! | `input`, `runs`, `verdict`, `sentence`, `compare` | from losses to the document |

mod compare;
mod distribution;
mod document;
mod error;
mod futility;
mod holm;
mod input;
mod isotonic;
mod looks;
mod numeric;
mod paired;
mod power;
mod runs;
mod sentence;
mod tokens;
mod verdict;

pub use compare::compare;
pub use distribution::{
    chi_squared_quantile, normal_p, normal_quantile, power, student_p, student_quantile,
};
pub use document::{
    ArmResult, ComparedDomain, Comparison, Design, DomainResult, LookResult, Metric, Role, Verdict,
};
pub use error::{CompareError, Result};
pub use futility::{LEAST_SEEDS, earliest_futility_step, is_futile};
pub use holm::holm;
pub use input::{ArmInput, DEFAULT_ALPHA, DEFAULT_MARGIN, DomainInput, Input, RunInput, Settings};
pub use isotonic::{falling, first_at_most};
pub use looks::nominal_p;
pub use paired::{Paired, window_variance};
pub use power::{POWER, Resolution, detectable, equivalent, power_table, resolution, seeds_needed};
pub use sentence::REACH;
pub use tokens::{Curve, NoSpeedup, Schedule, Speedup, nats_per_percent, speedup};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
