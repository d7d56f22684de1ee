//! The records of a run, as the metrics log holds them: made here, once, from what the mixer drew
//! and what the engine computed.

use cuvee_data::{Domain, Split};
use cuvee_mixer::{DomainId, LossStatistics, Simplex, StepDraw};
use cuvee_report::{EvalDomainRecord, EvalRecord, StepDomainRecord, StepRecord};

use crate::engine::StepOutput;
use crate::evaluate::bits_per_byte;

/// What a step record says besides what mixer and engine say.
pub(super) struct StepFigures<'a> {
    /// Steps done, this one included.
    pub(super) step: u64,
    /// Tokens trained on so far.
    pub(super) tokens: u64,
    pub(super) learning_rate: f64,
    pub(super) tokens_per_second: f64,
    /// π.
    pub(super) importance: &'a Simplex,
    /// Passes over each domain's training split so far.
    pub(super) epochs: &'a [f64],
}

/// The record of a step; `losses` are those of the batch, grouped by domain.
pub(super) fn step_record(
    figures: &StepFigures,
    names: &[String],
    draw: &StepDraw,
    output: &StepOutput,
    losses: &[Option<LossStatistics>],
) -> StepRecord {
    let measurements = &draw.measurements;
    let of_domain = |(i, name): (usize, &String)| {
        let record = StepDomainRecord {
            loss: losses[i].map(|statistics| statistics.mean),
            importance: figures.importance.values()[i],
            sampling_weight: draw.sampling.values()[i],
            loss_weight: draw.loss.values()[i],
            loss_weight_error: measurements.loss_weight_error.as_ref().map(|error| error[i]),
            multiplier: draw.multipliers[i],
            sequences: draw.counts[i] as u64,
            epochs: figures.epochs[i],
            gradient_deviation: measurements.gradient_deviation.as_ref().map(|v| v[i]),
        };
        (name.clone(), record)
    };
    StepRecord {
        step: figures.step,
        tokens: figures.tokens,
        loss: output.loss,
        lr: figures.learning_rate,
        gradient_norm: output.gradient_norm,
        tokens_per_second: figures.tokens_per_second,
        domains: names.iter().enumerate().map(of_domain).collect(),
        headroom: measurements.headroom,
        clamped: names_of(&measurements.clamped, names),
        floored: names_of(&measurements.floored, names),
        capped: names_of(&measurements.capped, names),
    }
}

/// The record of what was measured on the domains' tune splits after `step` steps.
pub(super) fn held_out_record(
    step: u64,
    domains: &[Domain],
    statistics: &[Option<LossStatistics>],
) -> EvalRecord {
    let of_domain = |(domain, statistics): (&Domain, &Option<LossStatistics>)| {
        let LossStatistics { mean, variance, .. } = (*statistics)?;
        let record = EvalDomainRecord {
            loss: mean,
            perplexity: mean.exp(),
            bits_per_byte: bits_per_byte(domain, Split::Tune, mean),
            loss_variance: Some(variance),
        };
        Some((domain.name.clone(), record))
    };
    EvalRecord {
        step,
        split: Split::Tune.to_string(),
        domains: domains.iter().zip(statistics).filter_map(of_domain).collect(),
    }
}

fn names_of(domains: &[DomainId], names: &[String]) -> Vec<String> {
    domains.iter().filter_map(|domain| names.get(domain.0)).cloned().collect()
}
