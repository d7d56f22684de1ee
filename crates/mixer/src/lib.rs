//! Which sequence comes next and how much it counts.
//!
//! In: the domains (name, importance, tokens), a [`MixtureSpec`] and the size of the run. Out: for
//! every step a [`StepDraw`]: how many sequences of each domain, which windows of its token stream,
//! and the multiplier of each sequence's loss. No tensors and no files; state is O(domains), and
//! starting costs the same at any token count.
//!
//! Three things are kept apart throughout (the names are used in configs and logs too):
//!
//! | symbol | name | type |
//! | --- | --- | --- |
//! | p_i | `sampling_weight`: the share of a batch drawn from domain i | [`Simplex`] |
//! | w_i | `loss_weight`: scale of domain i's loss, Σ π_i w_i = 1 | [`LossWeights`] |
//! | α_i | `objective`: domain i's share of the training objective | [`Simplex`] |
//!
//! The gradient of a batch of B sequences is (1/B) Σ m_i ∇ℓ with m_i = α_i / p_i, so sampling
//! weights change its variance and not its mean (Salmani et al., arXiv:2511.06913). This holds for
//! the gradient, and so for SGD. An optimizer that divides by the gradient's size, as AdamW does,
//! moves less along a direction whose gradient scatters more.
//!
//! ```
//! use cuvee_mixer::{DomainInfo, Mixer, MixtureSpec, RunSize};
//!
//! let domains = [DomainInfo::new("web", 9_000), DomainInfo::new("code", 3_000)];
//! let run = RunSize { steps: 10, batch_size: 4, context: 100, seed: 0 };
//! let mut mixer = Mixer::new(&MixtureSpec::default(), &domains, &run)?;
//! let first = mixer.next_step()?;
//! assert_eq!(first.counts, [3, 1]); // proportional to tokens
//! assert!(first.draws.iter().all(|draw| draw.multiplier == 1.0)); // objective = "sampled"
//! # Ok::<(), cuvee_mixer::MixerError>(())
//! ```

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod collapse;
mod counts;
mod direction;
mod documents;
mod domain;
mod draw;
mod error;
mod limits;
mod measurements;
mod message;
mod mixer;
mod mixture;
mod nearest;
mod objective;
mod observation;
mod order;
mod plan;
pub mod rule;
pub mod seed;
mod share_schedule;
mod simplex;
mod slot;
mod spec;
mod state;
pub mod strategy;

pub use collapse::{Collapse, Distribution};
pub use counts::stratified_counts;
pub use direction::Direction;
pub use documents::{DocumentOrder, EpochDocuments, Piece};
pub use domain::{DomainId, DomainInfo, RunSize};
pub use draw::{Draw, StepDraw};
pub use error::{MixerError, Place, Result};
pub use measurements::{GradientRequest, Measurements, ObservationRequest, VarianceEstimator};
pub use mixer::Mixer;
pub use objective::{Counts, MixtureOptions, Normalise, Objective};
pub use observation::{GradientGram, GradientStatistics, LossStatistics, Observation};
pub use order::{Window, WindowOrder};
pub use plan::DomainPlan;
pub use share_schedule::{Interpolate, ShareSchedule};
pub use simplex::{LossWeights, Simplex};
pub use slot::{Slot, Slots};
pub use spec::MixtureSpec;
pub use state::{DomainState, MixerState, SlotState};
pub use strategy::{
    Context, Objectives, STRATEGIES, Setup, Strategy, StrategyEntry, StrategySpec,
    strategies_markdown,
};
