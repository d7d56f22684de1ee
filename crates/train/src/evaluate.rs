//! Per-domain evaluation: an engine and the domains' held-out shards in, loss, perplexity and bits
//! per byte out.
//!
//! The windows are fixed: evenly spaced over the split, the same for every run, step and seed, so
//! that two evaluations differ by the model alone. Costs one forward pass over `sequences` windows
//! a domain.

use std::ops::ControlFlow;

use cuvee_data::{Domain, Split};
use cuvee_mixer::Simplex;
use cuvee_report::{EvalDomainRecord, EvalRecord};
use serde::{Deserialize, Serialize};

use crate::batch::{TokenBuffer, Window};
use crate::engine::Engine;
use crate::error::{NonFinite, Result, TrainError};

/// What one domain's held-out text costs the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainEvaluation {
    /// The domain.
    pub name: String,
    /// Tokens predicted.
    pub tokens: u64,
    /// Mean cross-entropy, nats a token; finite.
    pub loss: f64,
    /// `loss / ln 2 · tokens / bytes`, with the split's own ratio of tokens to UTF-8 bytes:
    /// comparable between vocabularies, unlike the loss.
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
    /// L_π = Σ π_i L_i, nats a token (docs/method.md).
    pub mean_loss: f64,
}

impl Evaluation {
    /// What the metrics log holds of it; `split` is the one evaluated.
    pub fn record(&self, split: Split) -> EvalRecord {
        let of_domain = |domain: &DomainEvaluation| {
            let record = EvalDomainRecord {
                loss: domain.loss,
                perplexity: domain.perplexity(),
                bits_per_byte: domain.bits_per_byte,
                loss_variance: None,
            };
            (domain.name.clone(), record)
        };
        EvalRecord {
            step: self.step,
            split: split.to_string(),
            domains: self.domains.iter().map(of_domain).collect(),
        }
    }
}

/// Starts of the evaluation windows: at most `sequences`, evenly spaced, never overlapping in their
/// targets, never wrapping. Empty when the split is shorter than one window of `context + 1`
/// tokens.
pub fn evaluation_starts(tokens: u64, context: usize, sequences: usize) -> Vec<u64> {
    rotated_starts(tokens, context, sequences, 0)
}

/// Windows of `context + 1` tokens in a split, one target a token.
pub(crate) fn window_count(tokens: u64, context: usize) -> u64 {
    tokens.saturating_sub(1).checked_div(context as u64).unwrap_or(0)
}

/// [`evaluation_starts`] moved on by `turn`, so that successive turns look at other windows: as
/// many and as evenly spaced. Between two windows of one turn there are places for those of the
/// others, and none is looked at twice before all were; neighbours, which may be of one document,
/// come far from each other in time. Turn 0 is [`evaluation_starts`].
pub(crate) fn rotated_starts(tokens: u64, context: usize, sequences: usize, turn: u64) -> Vec<u64> {
    let windows = window_count(tokens, context);
    let taken = windows.min(sequences as u64);
    let Some(places) = windows.checked_div(taken) else { return Vec::new() };
    // A step near the golden section of the places, with no factor in common with them.
    let golden = (places as f64 * 0.618) as u64;
    let step = (golden.max(1)..).find(|step| gcd(*step, places) == 1).unwrap_or(1);
    let shift = (turn % places) * step % places;
    (0..taken).map(|j| (j * windows / taken + shift) * context as u64).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What is evaluated: the same for every evaluation of a run.
#[derive(Debug, Clone, Copy)]
pub struct EvalPlan<'a> {
    /// The domains.
    pub domains: &'a [Domain],
    /// π, one a domain.
    pub importance: &'a Simplex,
    /// The held-out split.
    pub split: Split,
    /// Windows a domain, at most.
    pub sequences: usize,
    /// Tokens a window.
    pub context: usize,
    /// How often the windows were moved on. 0, the same ones each time, where it is the model that
    /// is to be compared.
    pub turn: u64,
}

impl EvalPlan<'_> {
    /// Windows over all domains.
    pub fn windows(&self) -> usize {
        self.domains.iter().map(|d| self.starts(d).len()).sum()
    }

    fn starts(&self, domain: &Domain) -> Vec<u64> {
        let tokens = domain.shard(self.split).tokens();
        rotated_starts(tokens, self.context, self.sequences, self.turn)
    }
}

/// Tokens that an engine is given at once, so that progress shows and an interruption is noticed.
const TOKENS_AT_ONCE: usize = 16_384;

/// Evaluates every domain after `step` steps. `progress` is told of windows done and may break off;
/// the result is then `None`.
///
/// # Errors
/// A split shorter than one window, an id beyond the vocabulary, a loss that is not finite, or the
/// engine's own.
pub fn evaluate(
    engine: &mut dyn Engine,
    plan: &EvalPlan,
    step: u64,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Evaluation>> {
    let Some(losses) = sequence_losses(engine, plan, step, progress)? else { return Ok(None) };
    let of_domain = |(domain, losses): (&Domain, &Vec<f64>)| {
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        DomainEvaluation {
            name: domain.name.clone(),
            tokens: (losses.len() * plan.context) as u64,
            loss,
            bits_per_byte: bits_per_byte(domain, plan.split, loss),
        }
    };
    let domains: Vec<_> = plan.domains.iter().zip(&losses).map(of_domain).collect();
    let mean_loss = domains.iter().zip(plan.importance.values()).map(|(d, pi)| pi * d.loss).sum();
    Ok(Some(Evaluation { step, domains, mean_loss }))
}

/// `loss` in nats a token → bits per UTF-8 byte, with the split's own ratio of tokens to bytes.
pub(crate) fn bits_per_byte(domain: &Domain, split: Split, loss: f64) -> f64 {
    let counts = domain.manifest.split(split);
    loss / std::f64::consts::LN_2 * counts.tokens as f64 / counts.bytes.max(1) as f64
}

/// ℓ_ij of every evaluation window j of every domain i, nats a token; never empty for a domain.
///
/// # Errors
/// As [`evaluate`].
pub fn sequence_losses(
    engine: &mut dyn Engine,
    plan: &EvalPlan,
    step: u64,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Vec<f64>>>> {
    check_split(plan.domains, plan.split, plan.context)?;
    let (context, vocab_size) = (plan.context, engine.model().vocab_size);
    let mut all = Vec::with_capacity(plan.domains.len());
    for domain in plan.domains {
        let mut losses = Vec::new();
        for some in plan.starts(domain).chunks((TOKENS_AT_ONCE / context).max(1)) {
            let shard = domain.shard(plan.split);
            let window = |&start: &u64| Window { shard, start, domain: &domain.name };
            let windows: Vec<Window> = some.iter().map(window).collect();
            let tokens = TokenBuffer::read(&windows, context, vocab_size)?;
            losses.extend(engine.sequence_losses(&tokens)?);
            if progress(some.len()).is_break() {
                return Ok(None);
            }
        }
        if let Some(&value) = losses.iter().find(|loss| !loss.is_finite()) {
            return Err(TrainError::NonFinite(Box::new(NonFinite {
                what: "loss of the evaluation",
                value,
                sequence: None,
                parameter: None,
                step: Some(step),
                domain: Some(domain.name.clone()),
            })));
        }
        all.push(losses);
    }
    Ok(Some(all))
}

/// Refuses, before any training, a split that cannot be evaluated.
///
/// # Errors
/// [`TrainError::SplitTooShort`] for the first domain whose `split` is shorter than one window.
pub fn check_split(domains: &[Domain], split: Split, context: usize) -> Result<()> {
    match domains.iter().find(|d| evaluation_starts(d.shard(split).tokens(), context, 1).is_empty())
    {
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

    proptest! {
        #[test]
        fn every_turn_fits_and_none_sees_a_window_again_before_all_places_were_seen(tokens in 2u64..20_000, context in 1usize..60, sequences in 1usize..40) {
            let first = evaluation_starts(tokens, context, sequences);
            prop_assert_eq!(&rotated_starts(tokens, context, sequences, 0), &first);
            let windows = (tokens - 1) / context as u64;
            let places = windows.checked_div(windows.min(sequences as u64)).unwrap_or(1);
            let mut seen = std::collections::BTreeSet::new();
            for turn in 0..places {
                let starts = rotated_starts(tokens, context, sequences, turn);
                prop_assert_eq!(starts.len(), first.len());
                prop_assert!(starts.windows(2).all(|w| w[1] - w[0] >= context as u64));
                prop_assert!(starts.iter().all(|s| s + (context as u64) < tokens));
                seen.extend(starts);
            }
            // Spaces between windows are `places` or one more, and it is the last of these that the
            // turns may leave out.
            prop_assert!(seen.len() as u64 >= places * first.len() as u64);
            prop_assert_eq!(rotated_starts(tokens, context, sequences, places), first);
        }
    }

    #[test]
    fn evaluation_takes_every_window_of_a_short_split() {
        assert_eq!(evaluation_starts(41, 10, 64), [0, 10, 20, 30]);
        assert_eq!(evaluation_starts(40, 10, 64), [0, 10, 20]);
    }
}
