//! Per-domain evaluation: an engine and the domains' held-out shards in; loss with its standard
//! error, perplexity and bits per byte out, and the loss of every window.
//!
//! The windows are fixed: evenly spaced over the split, the same for every run, step and seed, so
//! that two evaluations differ by the model alone. Costs one forward pass over `sequences` windows
//! a domain.

use std::ops::ControlFlow;

use cuvee_data::{Domain, Split};
use cuvee_mixer::{LossStatistics, Simplex};
use cuvee_report::{DomainWindows, EvalDomainRecord, EvalRecord, WindowRecord};
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
    /// Standard error of the loss over the windows; `None` of a single one, and of evaluations from
    /// before it was kept.
    #[serde(default)]
    pub standard_error: Option<f64>,
    /// Windows evaluated; 0 in evaluations from before they were counted.
    #[serde(default)]
    pub windows: u64,
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
    /// Standard error of `mean_loss`, √Σ π_i² s_i²; `None` where a domain of the mean has none.
    #[serde(default)]
    pub mean_loss_standard_error: Option<f64>,
}

impl Evaluation {
    /// What `losses`, those of every window of every domain, say of the model after `step` steps.
    fn of(plan: &EvalPlan, step: u64, losses: &[Vec<f64>]) -> Self {
        let of_domain = |(domain, losses): (&Domain, &Vec<f64>)| {
            let loss = losses.iter().sum::<f64>() / losses.len() as f64;
            DomainEvaluation {
                name: domain.name.clone(),
                tokens: (losses.len() * plan.context) as u64,
                loss,
                bits_per_byte: bits_per_byte(domain, plan.split, loss),
                standard_error: LossStatistics::from_losses(losses).and_then(standard_error),
                windows: losses.len() as u64,
            }
        };
        let domains: Vec<_> = plan.domains.iter().zip(losses).map(of_domain).collect();
        let importance = plan.importance.values();
        let mean_loss = domains.iter().zip(importance).map(|(d, pi)| pi * d.loss).sum();
        let errors: Vec<_> = domains.iter().map(|d| d.standard_error).collect();
        let mean_loss_standard_error = mean_standard_error(importance, &errors);
        Self { step, domains, mean_loss, mean_loss_standard_error }
    }

    /// What the metrics log holds of it; `split` is what was evaluated.
    pub fn record(&self, split: &str) -> EvalRecord {
        let of_domain = |domain: &DomainEvaluation| {
            let record = EvalDomainRecord {
                loss: domain.loss,
                perplexity: domain.perplexity(),
                bits_per_byte: domain.bits_per_byte,
                standard_error: domain.standard_error,
                windows: domain.windows,
                loss_variance: None,
            };
            (domain.name.clone(), record)
        };
        EvalRecord {
            step: self.step,
            split: split.to_owned(),
            mean_loss: self.mean_loss,
            mean_loss_standard_error: self.mean_loss_standard_error,
            domains: self.domains.iter().map(of_domain).collect(),
        }
    }
}

/// s/√n: the standard error of a mean over windows; `None` of a single one, which has no spread.
pub(crate) fn standard_error(losses: LossStatistics) -> Option<f64> {
    (losses.count >= 2).then(|| (losses.variance / losses.count as f64).sqrt())
}

/// √Σ π_i² s_i², the standard error of Σ π_i L_i; `None` where a domain that counts has none.
pub fn mean_standard_error(importance: &[f64], errors: &[Option<f64>]) -> Option<f64> {
    let counted = importance.iter().zip(errors).filter(|(pi, _)| **pi > 0.0);
    let squares = counted.map(|(pi, error)| error.map(|error| (pi * error).powi(2)));
    squares.sum::<Option<f64>>().map(f64::sqrt)
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
    /// Whether tokens attend to their own document alone, as where the model was trained so.
    pub document_mask: bool,
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

    /// The windows of an evaluation after `step` steps with their `losses`, as
    /// [`sequence_losses`] gives them.
    pub(crate) fn window_record(&self, step: u64, losses: &[Vec<f64>]) -> WindowRecord {
        let of_domain = |((domain, losses), pi): ((&Domain, &Vec<f64>), &f64)| {
            let number = |start: u64| start / self.context as u64;
            let windows = DomainWindows {
                importance: *pi,
                data: domain.manifest.split(self.split).bin_sha256.clone(),
                tokens: (losses.len() * self.context) as u64,
                windows: self.starts(domain).into_iter().map(number).collect(),
                losses: losses.clone(),
            };
            (domain.name.clone(), windows)
        };
        let domains = self.domains.iter().zip(losses).zip(self.importance.values());
        WindowRecord {
            step,
            split: self.split.to_string(),
            context: self.context,
            domains: domains.map(of_domain).collect(),
        }
    }
}

/// Tokens that an engine is given at once, so that progress shows and an interruption is noticed.
const TOKENS_AT_ONCE: usize = 16_384;

/// Evaluates every domain after `step` steps, and gives the loss of every window beside.
/// `progress` is told of windows done and may break off; the result is then `None`.
///
/// # Errors
/// A split shorter than one window, an id beyond the vocabulary, a loss that is not finite, or the
/// engine's own.
pub fn evaluate(
    engine: &mut dyn Engine,
    plan: &EvalPlan,
    step: u64,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<(Evaluation, WindowRecord)>> {
    let Some(losses) = sequence_losses(engine, plan, step, progress)? else { return Ok(None) };
    Ok(Some((Evaluation::of(plan, step, &losses), plan.window_record(step, &losses))))
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
            let domain = &domain.name;
            let window = |&start: &u64| Window { shard, start, domain, stream: None };
            let windows: Vec<Window> = some.iter().map(window).collect();
            let tokens = TokenBuffer::read(&windows, context, vocab_size, plan.document_mask)?;
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
    fn standard_errors_are_those_of_means_and_one_window_has_none() {
        // Of 1, 2, 3: s = 1, and 1/√3 of it.
        let of = |losses: &[f64]| LossStatistics::from_losses(losses).and_then(standard_error);
        assert!((of(&[1.0, 2.0, 3.0]).unwrap_or(0.0) - 1.0 / 3f64.sqrt()).abs() < 1e-15);
        assert_eq!((of(&[2.0]), of(&[])), (None, None));
        // √((0.6 · 3)² + (0.4 · 6)²) = 3.
        let found = mean_standard_error(&[0.6, 0.4, 0.0], &[Some(3.0), Some(6.0), None]);
        assert!((found.unwrap_or(0.0) - 3.0).abs() < 1e-14, "{found:?}");
        assert_eq!(mean_standard_error(&[0.5, 0.5], &[Some(1.0), None]), None);
    }

    #[test]
    fn evaluation_takes_every_window_of_a_short_split() {
        assert_eq!(evaluation_starts(41, 10, 64), [0, 10, 20, 30]);
        assert_eq!(evaluation_starts(40, 10, 64), [0, 10, 20]);
    }
}
