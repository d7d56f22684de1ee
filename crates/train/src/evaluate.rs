//! Per-domain evaluation: an engine and the domains' held-out shards in, loss, perplexity and bits per byte out.
//!
//! The windows are fixed: evenly spaced over the split, the same for every run, step and seed, so that two
//! evaluations differ by the model alone. Costs one forward pass over `sequences` windows a domain.

use std::ops::ControlFlow;

use cuvee_data::{Domain, Split};
use serde::{Deserialize, Serialize};

use crate::batch::read_window;
use crate::engine::Engine;
use crate::error::{NonFinite, Result, TrainError};

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSpec {
    /// Steps between evaluations, 0 for none on the way; there is always one before the first step and one after the last.
    pub every: u64,
    /// Windows of each domain's held-out split (fewer where the split has fewer).
    pub sequences: usize,
}

impl Default for EvalSpec {
    fn default() -> Self {
        Self { every: 100, sequences: 64 }
    }
}

impl EvalSpec {
    /// Refuses an evaluation of nothing.
    ///
    /// # Errors
    /// [`TrainError::Config`] for 0 windows.
    pub fn validate(&self) -> Result<()> {
        if self.sequences == 0 {
            return Err(TrainError::config(
                "eval.sequences",
                "at least 1",
                0,
                "a few dozen windows a domain are usual",
            ));
        }
        Ok(())
    }
}

/// What one domain's held-out text costs the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainEvaluation {
    /// The domain.
    pub name: String,
    /// Tokens predicted.
    pub tokens: u64,
    /// Mean cross-entropy, nats a token; finite.
    pub loss: f64,
    /// `loss / ln 2 · tokens / bytes`, with the split's own ratio of tokens to UTF-8 bytes: comparable between
    /// vocabularies, unlike the loss.
    pub bits_per_byte: f64,
}

impl DomainEvaluation {
    /// exp(loss); infinite where the loss is beyond 709 nats.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// All domains at one moment of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// In the order of the config.
    pub domains: Vec<DomainEvaluation>,
    /// L_π = Σ π_i L_i (METHOD §1), nats a token.
    pub mean_loss: f64,
}

/// Starts of the evaluation windows: at most `sequences`, evenly spaced, never overlapping in their targets,
/// never wrapping. Empty when the split is shorter than one window of `context + 1` tokens.
pub fn evaluation_starts(tokens: u64, context: usize, sequences: usize) -> Vec<u64> {
    let context = context as u64;
    let windows = tokens.saturating_sub(1).checked_div(context).unwrap_or(0);
    let taken = windows.min(sequences as u64);
    (0..taken).map(|j| j * windows / taken * context).collect()
}

/// What is evaluated: the same for every evaluation of a run.
#[derive(Debug, Clone, Copy)]
pub struct EvalPlan<'a> {
    /// The domains.
    pub domains: &'a [Domain],
    /// π, one a domain, sums to 1.
    pub importance: &'a [f64],
    /// The held-out split.
    pub split: Split,
    /// Windows a domain, at most.
    pub sequences: usize,
    /// Tokens a window.
    pub context: usize,
}

impl EvalPlan<'_> {
    /// Windows over all domains.
    pub fn windows(&self) -> usize {
        self.domains.iter().map(|d| self.starts(d).len()).sum()
    }

    fn starts(&self, domain: &Domain) -> Vec<u64> {
        evaluation_starts(domain.shard(self.split).tokens(), self.context, self.sequences)
    }
}

/// Tokens that an engine is given at once, so that progress shows and an interruption is noticed.
const TOKENS_AT_ONCE: usize = 16_384;

/// Evaluates every domain after `step` steps. `progress` is told of windows done and may break off; the result is then `None`.
///
/// # Errors
/// A split shorter than one window, an id beyond the vocabulary, a loss that is not finite, or the engine's own.
pub fn evaluate(
    engine: &mut dyn Engine,
    plan: &EvalPlan,
    step: u64,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Evaluation>> {
    check_split(plan.domains, plan.split, plan.context)?;
    let (context, vocab_size) = (plan.context, engine.model().vocab_size);
    let mut results = Vec::with_capacity(plan.domains.len());
    let mut window = vec![0u32; context + 1];
    for domain in plan.domains {
        let shard = domain.shard(plan.split);
        let starts = plan.starts(domain);
        let mut sum = 0.0;
        for some in starts.chunks((TOKENS_AT_ONCE / context).max(1)) {
            let (mut inputs, mut targets) = (Vec::new(), Vec::new());
            for &start in some {
                read_window(shard, start, &mut window, &domain.name, vocab_size)?;
                inputs.extend_from_slice(&window[..context]);
                targets.extend_from_slice(&window[1..]);
            }
            sum += engine.sequence_losses(&inputs, &targets, context)?.iter().sum::<f64>();
            if progress(some.len()).is_break() {
                return Ok(None);
            }
        }
        let loss = sum / starts.len() as f64;
        if !loss.is_finite() {
            return Err(TrainError::NonFinite(Box::new(NonFinite {
                what: "loss of the evaluation",
                value: loss,
                sequence: None,
                parameter: None,
                step: Some(step),
                domain: Some(domain.name.clone()),
            })));
        }
        let counts = domain.manifest.split(plan.split);
        results.push(DomainEvaluation {
            name: domain.name.clone(),
            tokens: (starts.len() * context) as u64,
            loss,
            bits_per_byte: loss / std::f64::consts::LN_2 * counts.tokens as f64 / counts.bytes.max(1) as f64,
        });
    }
    let mean_loss = results.iter().zip(plan.importance).map(|(d, pi)| pi * d.loss).sum();
    Ok(Some(Evaluation { step, domains: results, mean_loss }))
}

/// Refuses, before any training, a split that cannot be evaluated.
///
/// # Errors
/// [`TrainError::SplitTooShort`] for the first domain whose `split` is shorter than one window.
pub fn check_split(domains: &[Domain], split: Split, context: usize) -> Result<()> {
    match domains.iter().find(|d| evaluation_starts(d.shard(split).tokens(), context, 1).is_empty()) {
        None => Ok(()),
        Some(domain) => Err(too_short(domain, split, context)),
    }
}

fn too_short(domain: &Domain, split: Split, context: usize) -> TrainError {
    TrainError::SplitTooShort {
        domain: domain.name.clone(),
        split: split.to_string(),
        tokens: domain.shard(split).tokens(),
        documents: domain.shard(split).documents(),
        needed: context as u64 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn evaluation_windows_fit_and_never_overlap(tokens in 0u64..100_000, context in 1usize..600, sequences in 1usize..200) {
            let starts = evaluation_starts(tokens, context, sequences);
            prop_assert_eq!(starts.is_empty(), tokens < context as u64 + 1);
            prop_assert!(starts.len() <= sequences);
            prop_assert!(starts.windows(2).all(|w| w[1] - w[0] >= context as u64));
            prop_assert!(starts.iter().all(|s| s + (context as u64) < tokens));
        }
    }

    #[test]
    fn evaluation_takes_every_window_of_a_short_split() {
        assert_eq!(evaluation_starts(41, 10, 64), [0, 10, 20, 30]);
        assert_eq!(evaluation_starts(40, 10, 64), [0, 10, 20]);
    }
}
