//! A step of a run, as the mixer draws it.

use crate::domain::DomainId;
use crate::measurements::Measurements;
use crate::observation::Observation;
use crate::simplex::{LossWeights, Simplex};

/// Everything a step needs to know of the mixture. Lists have one entry a domain.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDraw {
    /// The step, counted from 0.
    pub step: u64,
    /// p.
    pub sampling: Simplex,
    /// w.
    pub loss: LossWeights,
    /// α.
    pub objective: Simplex,
    /// m_i = α_i / p_i, after [`Normalise`](crate::Normalise); 0 for a domain outside the
    /// objective.
    pub multipliers: Vec<f64>,
    /// What adaptive strategies believe, and where their bounds bite.
    pub measurements: Measurements,
    /// b_i: sequences of each domain in the batch; they sum to the batch size.
    pub counts: Vec<usize>,
    /// The sequences, grouped by domain in the order of the domains.
    pub draws: Vec<Draw>,
}

/// One sequence of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Where it comes from.
    pub domain: DomainId,
    /// Pass over the domain, from 0.
    pub epoch: u64,
    /// Place in the epoch's grid of windows.
    pub window: u64,
    /// First of its `context` + 1 tokens in the domain's circular training stream.
    pub start: u64,
    /// What its loss is multiplied by.
    pub multiplier: f64,
}

impl StepDraw {
    /// What the step has shown: `sequence_losses[j]`, in nats a token and before any multiplier, is
    /// that of `draws[j]`.
    pub fn observation(&self, sequence_losses: &[f64]) -> Observation {
        let domains: Vec<DomainId> = self.draws.iter().map(|draw| draw.domain).collect();
        Observation::of_step(self.step, self.counts.len(), &domains, sequence_losses)
    }
}
