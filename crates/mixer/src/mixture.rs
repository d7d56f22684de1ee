//! What the two strategies propose for a step, combined.
//!
//! In: both proposals. Out: p, w, α and the multipliers m_i = α_i / p_i, with which the gradient
//! estimates the objective whatever p is (Salmani et al., arXiv:2511.06913).

use crate::domain::{self, DomainId, DomainInfo};
use crate::error::{MixerError, Result};
use crate::measurements::Measurements;
use crate::objective::Objective;
use crate::simplex::{LossWeights, Simplex};
use crate::strategy::{Context, Strategy};

/// The weights of a step.
pub(crate) struct Mixture {
    pub(crate) sampling: Simplex,
    pub(crate) loss: LossWeights,
    pub(crate) objective: Simplex,
    /// α_i / p_i, before any normalisation by the batch.
    pub(crate) multipliers: Vec<f64>,
    pub(crate) measurements: Measurements,
}

impl Mixture {
    /// Asks the strategies for `step`, the loss first since the sampling may depend on it. `limit`
    /// brings p within what is left of the domains, and says which ones that holds.
    ///
    /// # Errors
    /// A proposal that cannot be normalised, π_i = 0 or p_i = 0 where α_i > 0; those of `limit`.
    pub(crate) fn at_step(
        step: u64,
        objective: Objective,
        domains: &[DomainInfo],
        importance: &Simplex,
        sampling: &dyn Strategy,
        loss: &dyn Strategy,
        limit: impl FnOnce(Simplex) -> Result<(Simplex, Vec<DomainId>)>,
    ) -> Result<Self> {
        let names = domain::names(domains);
        let context = Context { step, domains, importance, loss_weight: None };
        let role = |strategy: &dyn Strategy, what: &str| {
            format!("{what} (strategy {}, step {step})", strategy.describe())
        };
        let of_loss = loss.measurements(&context);
        let (loss_weight, alpha) = match objective {
            Objective::Sampled => (LossWeights::ones(names.len()), None),
            Objective::Importance => {
                let raw = loss.propose(&context)?;
                let w =
                    LossWeights::normalise(role(loss, "loss_weight"), &names, importance, &raw)?;
                let alpha = Simplex::product(importance, &w);
                (w, Some(alpha))
            }
            Objective::Reweighted => {
                let raw = loss.propose(&context)?;
                let alpha = Simplex::normalise(role(loss, "objective"), &names, &raw)?;
                (LossWeights::implied(&names, &alpha, importance)?, Some(alpha))
            }
        };
        let context = Context { loss_weight: Some(&loss_weight), ..context };
        let raw = sampling.propose(&context)?;
        let mut measurements = sampling.measurements(&context).merge(of_loss);
        let p = Simplex::normalise(role(sampling, "sampling_weight"), &names, &raw)?;
        let (p, capped) = limit(p)?;
        measurements.capped = capped;
        let (objective, multipliers) = match alpha {
            None => (p.clone(), vec![1.0; names.len()]),
            Some(alpha) => {
                let multipliers = multipliers(&names, &alpha, &p, step)?;
                (alpha, multipliers)
            }
        };
        Ok(Self { sampling: p, loss: loss_weight, objective, multipliers, measurements })
    }

    /// Scales the multipliers so that they sum to the batch size over `counts` sequences: see
    /// [`Normalise::Multipliers`](crate::Normalise::Multipliers).
    pub(crate) fn normalise_multipliers(&mut self, counts: &[usize], batch_size: usize) {
        let realised: f64 = counts.iter().zip(&self.multipliers).map(|(b, m)| *b as f64 * m).sum();
        // A batch of nothing but domains outside the objective has no scale to restore.
        if realised > 0.0 {
            let factor = batch_size as f64 / realised;
            self.multipliers.iter_mut().for_each(|m| *m *= factor);
        }
    }
}

/// m_i = α_i / p_i; 0 for a domain outside the objective, whatever its p.
fn multipliers(names: &[&str], alpha: &Simplex, p: &Simplex, step: u64) -> Result<Vec<f64>> {
    let quotient = |((alpha, p), name): ((&f64, &f64), &&str)| match alpha / p {
        _ if *alpha == 0.0 => Ok(0.0),
        m if m.is_finite() => Ok(m),
        _ => Err(MixerError::ZeroSampling { domain: (*name).to_owned(), step, objective: *alpha }),
    };
    alpha.values().iter().zip(p.values()).zip(names).map(quotient).collect()
}
