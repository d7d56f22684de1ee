//! The statistics of comparing training runs over seeds.
//!
//! In: the losses of runs of several arms, each arm trained from the same seeds. Out: a
//! [`Comparison`], what `comparison.json` and `cuvee compare --json` hold. No files, no tensors.

mod document;

pub use document::{
    ArmResult, ComparedDomain, Comparison, Design, DomainResult, LookResult, Metric, Role, Verdict,
};
