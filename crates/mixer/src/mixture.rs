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
        let of_loss = loss.measurements(&context);
        let (loss_weight, alpha) = weighed(objective, &context, loss)?;
        let context = Context { loss_weight: Some(&loss_weight), ..context };
        let raw = sampling.propose(&context)?;
        let mut measurements = sampling.measurements(&context).merge(of_loss);
        let p = Simplex::normalise(role(sampling, "sampling_weight", step), &names, &raw)?;
        let (p, capped) = limit(p)?;
        measurements.capped = capped;
        Self::at(&context, p, loss_weight.clone(), alpha, measurements)
    }

    /// The weights of `step`, which was drawn at `sampling`, by what the loss strategy proposes for
    /// it now; the measurements are that strategy's alone.
    ///
    /// # Errors
    /// As [`at_step`](Self::at_step).
    pub(crate) fn reweighed(
        step: u64,
        objective: Objective,
        domains: &[DomainInfo],
        importance: &Simplex,
        sampling: Simplex,
        loss: &dyn Strategy,
    ) -> Result<Self> {
        let context = Context { step, domains, importance, loss_weight: None };
        let (loss_weight, alpha) = weighed(objective, &context, loss)?;
        Self::at(&context, sampling, loss_weight, alpha, loss.measurements(&context))
    }

    /// The weights where p, w and α are known; no α is p.
    fn at(
        context: &Context,
        sampling: Simplex,
        loss: LossWeights,
        alpha: Option<Simplex>,
        measurements: Measurements,
    ) -> Result<Self> {
        let names = domain::names(context.domains);
        let (objective, multipliers) = match alpha {
            None => (sampling.clone(), vec![1.0; names.len()]),
            Some(alpha) => {
                let multipliers = multipliers(&names, &alpha, &sampling, context.step)?;
                (alpha, multipliers)
            }
        };
        Ok(Self { sampling, loss, objective, multipliers, measurements })
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

/// w and α as the loss strategy proposes them; no α where it is p.
fn weighed(
    objective: Objective,
    context: &Context,
    loss: &dyn Strategy,
) -> Result<(LossWeights, Option<Simplex>)> {
    let Context { step, importance, .. } = *context;
    let names = domain::names(context.domains);
    match objective {
        Objective::Sampled => Ok((LossWeights::ones(names.len()), None)),
        Objective::Importance => {
            let raw = loss.propose(context)?;
            let role = role(loss, "loss_weight", step);
            let w = LossWeights::normalise(role, &names, importance, &raw)?;
            let alpha = Simplex::product(importance, &w);
            Ok((w, Some(alpha)))
        }
        Objective::Reweighted => {
            let raw = loss.propose(context)?;
            let alpha = Simplex::normalise(role(loss, "objective", step), &names, &raw)?;
            Ok((LossWeights::implied(&names, &alpha, importance)?, Some(alpha)))
        }
    }
}

/// What a strategy proposes at a step, for an error.
fn role(strategy: &dyn Strategy, what: &str, step: u64) -> String {
    format!("{what} (strategy {}, step {step})", strategy.describe())
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
