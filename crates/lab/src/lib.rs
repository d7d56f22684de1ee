//! The experiments of a paper on sampling and loss weights, in plain f64 on the CPU, one function
//! each.
//!
//! In: a study's settings. Out: a [`Study`], its tables ([`arm_table`], [`steps_table`],
//! [`tuned_table`]) and its page ([`page()`]); or a [`Sweep`] of studies over the ratio of the
//! domains' features. Seeds run in parallel; every number is a pure function of the settings.
//! Nothing here knows tensors, models or files, but for MNIST's.
//!
//! Source: M. Salmani, P. Worah, M. Razaviyayn, V. Mirrokni, *Sampling and Loss Weights in
//! Multi-Domain Training*, arXiv:2511.06913 (2025). The rules, VA's estimate of the gradient
//! variance and the counts of a batch are the functions of [`cuvee_mixer`] that train language
//! models.
//!
//! ```
//! use std::ops::ControlFlow;
//! use cuvee_lab::{RegressionSettings, linear};
//!
//! let start = RegressionSettings::linear();
//! let settings = RegressionSettings { seeds: 4, steps: 100, instances: 0, rates: 0, ..start };
//! let study = linear(&settings, &|_| ControlFlow::Continue(()))?.expect("nobody stopped it");
//! assert_eq!(study.arms.len(), 4);
//! # Ok::<(), cuvee_lab::LabError>(())
//! ```

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod bootstrap;
mod error;
mod linalg;
mod mnist;
mod page;
mod random;
mod regression;
mod schedule;
mod settings;
mod sgd;
mod study;
mod summary;
mod table;
mod tuning;
mod weighting;

pub use cuvee_report::Interval;
pub use error::{LabError, Result};
pub use mnist::{MnistSettings, mnist};
pub use page::{page, sweep_page};
pub use regression::{RegressionSettings, linear, linear_sweep, logistic, logistic_sweep};
pub use schedule::Progress;
pub use study::{
    Allocation, ArmResult, Curve, Estimator, Instance, Lag, Study, Sweep, Tried, Tuned,
};
pub use table::{arm_table, steps_table, sweep_table, tuned_table};

/// SGD steps of a study with `arms` trained arms, oracles included, and `trainings` of each: what
/// its progress function is told in total.
pub fn total_steps(trainings: u64, steps: u64, arms: u64) -> u64 {
    trainings.saturating_mul(steps).saturating_mul(arms)
}
