//! Per-domain evaluation: an engine and the domains' held-out shards in, loss, perplexity and bits per byte out.
//!
//! The windows are fixed: evenly spaced over the split, the same for every run, step and seed, so that two
//! evaluations differ by the model alone. Costs one forward pass over `sequences` windows a domain.

use cuvee_data::{Domain, Split};
use serde::{Deserialize, Serialize};

use crate::batch::read_window;
use crate::engine::Engine;
use crate::error::{Result, TrainError};

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalSpec {
    /// Steps between evaluations; there is always one before the first step and one after the last.
    pub every: u64,
    /// Windows of each domain's held-out split (fewer where the split has fewer).
    pub sequences: usize,
}

impl Default for EvalSpec {
    fn default() -> Self {
        Self { every: 100, sequences: 64 }
    }
}

/// What one domain's held-out text costs the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainEvaluation {
    /// The domain.
    pub name: String,
    /// Tokens predicted.
    pub tokens: u64,
    /// Mean cross-entropy, nats a token.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// `loss / ln 2 · tokens / bytes`, with the split's own ratio of tokens to UTF-8 bytes: comparable between
    /// vocabularies, unlike the loss.
    pub bits_per_byte: f64,
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

/// Evaluates every domain's `split`. `importance` is π (sums to 1), one a domain. `progress` is told the windows done.
///
/// # Errors
/// A split shorter than one window, an id beyond the vocabulary, a loss that is not finite, or the engine's own.
pub fn evaluate(
    engine: &mut dyn Engine,
    domains: &[Domain],
    importance: &[f64],
    split: Split,
    spec: &EvalSpec,
    context: usize,
    step: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation> {
    let vocab_size = engine.model().vocab_size;
    let mut results = Vec::with_capacity(domains.len());
    for domain in domains {
        let shard = domain.shard(split);
        let starts = evaluation_starts(shard.tokens(), context, spec.sequences);
        if starts.is_empty() {
            return Err(too_short(domain, split, context));
        }
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        let mut window = vec![0u32; context + 1];
        for &start in &starts {
            read_window(shard, start, &mut window, &domain.name, vocab_size)?;
            inputs.extend_from_slice(&window[..context]);
            targets.extend_from_slice(&window[1..]);
        }
        let losses = engine.sequence_losses(&inputs, &targets, context)?;
        let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let counts = domain.manifest.split(split);
        results.push(DomainEvaluation {
            name: domain.name.clone(),
            tokens: (starts.len() * context) as u64,
            loss,
            perplexity: loss.exp(),
            bits_per_byte: loss / std::f64::consts::LN_2 * counts.tokens as f64 / counts.bytes.max(1) as f64,
        });
        progress(starts.len());
    }
    let mean_loss = results.iter().zip(importance).map(|(d, pi)| pi * d.loss).sum();
    Ok(Evaluation { step, domains: results, mean_loss })
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
            prop_assert!(starts.iter().all(|s| s + context as u64 + 1 <= tokens));
        }
    }

    #[test]
    fn evaluation_takes_every_window_of_a_short_split() {
        assert_eq!(evaluation_starts(41, 10, 64), [0, 10, 20, 30]);
        assert_eq!(evaluation_starts(40, 10, 64), [0, 10, 20]);
    }
}
