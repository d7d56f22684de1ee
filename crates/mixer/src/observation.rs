//! What training tells the strategies after a step.
//!
//! In: per-sequence losses of the batch and, where a strategy asks for them, losses on held-out
//! text and gradient statistics. Out: mean, variance and count per domain. A domain without a
//! sequence is `None`, never a loss of 0.

use crate::direction::Direction;
use crate::domain::DomainId;
use serde::{Deserialize, Serialize};

/// Mean and variance of per-sequence losses of one domain, in nats a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossStatistics {
    /// L_i: mean over the sequences of their mean token cross-entropy.
    pub mean: f64,
    /// Var_i: unbiased sample variance over the sequences; 0 for a single one.
    pub variance: f64,
    /// Number of sequences, at least 1.
    pub count: usize,
}

impl LossStatistics {
    /// Statistics of `losses`, `None` where there are none.
    pub fn from_losses(losses: &[f64]) -> Option<Self> {
        let count = losses.len();
        if count == 0 {
            return None;
        }
        let mean = losses.iter().sum::<f64>() / count as f64;
        // Two passes: the textbook difference of sums loses the variance of nearly equal losses.
        let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        Some(Self { mean, variance: squares / (count.max(2) - 1) as f64, count })
    }
}

/// Statistics of the gradients ∇ℓ_ij of single sequences of one domain, before any multiplier and
/// any 1/B.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientStatistics {
    /// Number of sequences they come from, at least 1.
    pub sequences: usize,
    /// v_i²: unbiased trace of the covariance of ∇ℓ_ij within the domain. It takes 2 sequences; of
    /// a single one it is 0 and says nothing.
    pub variance: f64,
    /// Mean of ‖∇ℓ_ij‖² over the sequences.
    pub mean_square: f64,
    /// Of a single sequence where its gradient points, to compare it with the domain's next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

impl GradientStatistics {
    /// From sums over `sequences` gradients x_j, at least 1: `squares` is Σ_j ‖x_j‖², `sum_squared`
    /// ‖Σ_j x_j‖². The variance is the unbiased sample variance, summed over the elements, and 0
    /// for a single sequence.
    pub fn from_sums(sequences: usize, squares: f64, sum_squared: f64) -> Self {
        let n = sequences as f64;
        let spread = squares - sum_squared / n;
        Self {
            sequences,
            // Equal sequences can come out below 0 by rounding; a NaN stays one (`max` would hide
            // it).
            variance: if spread < 0.0 || sequences < 2 { 0.0 } else { spread / (n - 1.0) },
            mean_square: squares / n,
            direction: None,
        }
    }

    /// Adds where the gradient of a single sequence points.
    #[must_use]
    pub fn with_direction(mut self, direction: Option<Direction>) -> Self {
        self.direction = direction;
        self
    }
}

/// Inner products of the domains' gradients at one step: of the gradients of their mean losses over
/// their sequences of the batch, before any multiplier.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientGram {
    domains: usize,
    /// ⟨g_i, g_j⟩, row by row.
    products: Vec<Option<f64>>,
    learning_rate: f64,
}

impl GradientGram {
    /// Nothing known of `domains` domains, at a step of this learning rate.
    pub fn new(domains: usize, learning_rate: f64) -> Self {
        Self { domains, products: vec![None; domains * domains], learning_rate }
    }

    /// Sets ⟨g_i, g_j⟩ = ⟨g_j, g_i⟩; a pair of domains that there are not is ignored.
    pub fn set(&mut self, i: DomainId, j: DomainId, product: f64) {
        if i.0 < self.domains && j.0 < self.domains {
            self.products[i.0 * self.domains + j.0] = Some(product);
            self.products[j.0 * self.domains + i.0] = Some(product);
        }
    }

    /// ⟨g_i, g_j⟩; `None` where either domain was not in the batch, or is none.
    pub fn product(&self, i: DomainId, j: DomainId) -> Option<f64> {
        let inside = i.0 < self.domains && j.0 < self.domains;
        inside.then(|| self.products[i.0 * self.domains + j.0]).flatten()
    }

    /// The learning rate of the step.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
}

/// Everything known after a step, or before it, one entry a domain in each list.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// The step just done, counted from 0.
    pub step: u64,
    /// Losses of the training sequences of the step, at the parameters before its update and before
    /// any multiplier.
    pub training: Vec<Option<LossStatistics>>,
    /// Losses of held-out sequences of the `tune` split, never trained on; empty unless measured
    /// after this step.
    pub held_out: Vec<Option<LossStatistics>>,
    /// Windows of each domain's `tune` split, measured or not; empty where nobody said.
    pub held_out_windows: Vec<u64>,
    /// Gradients of the training sequences of the step; empty unless collected.
    pub gradient: Vec<Option<GradientStatistics>>,
    /// Inner products of the domains' gradients, unless nobody asked; known before the step.
    pub gram: Option<GradientGram>,
    /// Excess of the loss over a reference model's; empty unless asked for, and known before the
    /// step. See [`rule::excess_losses`](crate::rule::excess_losses()).
    pub excess: Vec<Option<f64>>,
}

impl Observation {
    /// Of a step that is drawn and not trained on yet: nothing, to which is added what is known.
    /// For [`Mixer::observe_before`](crate::Mixer::observe_before).
    pub fn before_step(step: u64) -> Self {
        Self { step, ..Self::default() }
    }

    /// Groups the losses of a batch by domain.
    ///
    /// `sequence_domains[j]` and `sequence_losses[j]` belong to sequence j; `domains` is the number
    /// of domains, and a domain beyond it is ignored. See also
    /// [`StepDraw::observation`](crate::StepDraw::observation).
    pub fn of_step(
        step: u64,
        domains: usize,
        sequence_domains: &[DomainId],
        sequence_losses: &[f64],
    ) -> Self {
        let mut grouped = vec![Vec::new(); domains];
        for (domain, loss) in sequence_domains.iter().zip(sequence_losses) {
            if let Some(group) = grouped.get_mut(domain.0) {
                group.push(*loss);
            }
        }
        let training = grouped.iter().map(|losses| LossStatistics::from_losses(losses)).collect();
        Self { step, training, ..Self::default() }
    }

    /// Adds what was measured on the `tune` split after the step, one entry a domain.
    pub fn with_held_out(mut self, held_out: Vec<Option<LossStatistics>>) -> Self {
        self.held_out = held_out;
        self
    }

    /// Adds how many windows each domain's `tune` split has, one entry a domain.
    #[must_use]
    pub fn with_held_out_windows(mut self, windows: Vec<u64>) -> Self {
        self.held_out_windows = windows;
        self
    }

    /// Adds gradient statistics of the step; domains beyond the end of the list were not in the
    /// batch.
    pub fn with_gradient(mut self, gradient: Vec<Option<GradientStatistics>>) -> Self {
        self.gradient = gradient;
        self
    }

    /// Adds inner products of the domains' gradients.
    #[must_use]
    pub fn with_gram(mut self, gram: GradientGram) -> Self {
        self.gram = Some(gram);
        self
    }

    /// Adds the excess of each domain's loss over a reference model's.
    #[must_use]
    pub fn with_excess(mut self, excess: Vec<Option<f64>>) -> Self {
        self.excess = excess;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_grouped_and_an_absent_domain_has_none() {
        let observation =
            Observation::of_step(3, 3, &[2, 0, 2, 2].map(DomainId), &[1.0, 5.0, 2.0, 6.0]);
        assert_eq!(observation.step, 3);
        let single = LossStatistics { mean: 5.0, variance: 0.0, count: 1 };
        let triple = LossStatistics { mean: 3.0, variance: 7.0, count: 3 }; // (4 + 1 + 9) / 2
        assert_eq!(observation.training, [Some(single), None, Some(triple)]);
    }
}
