//! The seed paper's own experiments, in plain f64 on the CPU: what its claims are worth, one
//! command each.
//!
//! In: a study's settings. Out: a [`Study`], its tables ([`arm_table`], [`steps_table`]) and its
//! page ([`page`]). Seeds run in parallel; every number is a pure function of the settings. Nothing
//! here knows tensors, models or files, but for MNIST's.
//!
//! Source: M. Salmani, P. Worah, M. Razaviyayn, V. Mirrokni, *Sampling and Loss Weights in
//! Multi-Domain Training*, arXiv:2511.06913 (2025). The rules are those of [`cuvee_mixer::rule`].
//!
//! ```
//! use std::ops::ControlFlow;
//! use cuvee_lab::{RegressionSettings, linear};
//!
//! let settings = RegressionSettings { seeds: 4, steps: 100, features: 3, instances: 0, ..RegressionSettings::linear() };
//! let study = linear(&settings, &|_| ControlFlow::Continue(()))?.expect("nobody stopped it");
//! assert_eq!(study.arms.len(), 4);
//! # Ok::<(), cuvee_lab::LabError>(())
//! ```

mod chart;
mod closed_form;
mod descent;
mod digits;
mod error;
mod idx;
mod linalg;
mod mlp;
mod mnist;
mod page;
mod parquet;
mod random;
mod regression;
mod regression_study;
mod sgd;
mod study;
mod table;
mod variance;
mod weighting;

pub use error::{LabError, Result};
pub use mnist::{MnistSettings, mnist};
pub use page::page;
pub use regression::RegressionSettings;
pub use regression_study::{linear, logistic};
pub use study::{ArmResult, Curve, Estimator, Interval, Progress, Study};
pub use table::{arm_table, steps_table};
pub use variance::{Allocation, Instance};

/// SGD steps of a study with `arms` trained arms, oracles included: what its progress function is
/// told in total.
pub fn total_steps(seeds: u64, steps: u64, arms: u64) -> u64 {
    seeds.saturating_mul(steps).saturating_mul(arms)
}
