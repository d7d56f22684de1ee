//! The records of a run, as the metrics log holds them: made here, once, from what the mixer drew
//! and what the engine computed.

use cuvee_data::{Domain, Split};
use cuvee_mixer::{Collapse, Distribution, DomainId, LossStatistics, Simplex, StepDraw};
use cuvee_report::{
    CollapseRecord, EvalDomainRecord, EvalRecord, LearnedShares, StepDomainRecord, StepRecord,
};

use crate::engine::StepOutput;
use crate::evaluate::{bits_per_byte, mean_standard_error, standard_error};
use crate::optim::clip_scale;

/// What a step record says besides what mixer and engine say.
pub(super) struct StepFigures<'a> {
    /// Steps done, this one included.
    pub(super) step: u64,
    /// Tokens trained on so far.
    pub(super) tokens: u64,
    pub(super) learning_rate: f64,
    pub(super) tokens_per_second: f64,
    /// The bound that the gradient's norm is clipped to; 0 for none.
    pub(super) clip: f64,
    /// π.
    pub(super) importance: &'a Simplex,
    /// Passes over each domain's training split so far.
    pub(super) epochs: &'a [f64],
    /// What has collapsed at this step for the first time.
    pub(super) collapse: Option<CollapseRecord>,
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
            objective_mean: measurements.objective_mean.as_ref().map(|alpha| alpha[i]),
        };
        (name.clone(), record)
    };
    StepRecord {
        step: figures.step,
        tokens: figures.tokens,
        loss: output.loss,
        z_loss: output.z_loss,
        lr: figures.learning_rate,
        gradient_norm: output.gradient_norm,
        clip_factor: clip_scale(output.gradient_norm, figures.clip),
        tokens_per_second: figures.tokens_per_second,
        domains: names.iter().enumerate().map(of_domain).collect(),
        headroom: measurements.headroom,
        clamped: names_of(&measurements.clamped, names),
        floored: names_of(&measurements.floored, names),
        capped: names_of(&measurements.capped, names),
        collapse: figures.collapse.clone(),
    }
}

/// The record of a `collapse` that was found in the step that makes `step` steps done.
pub(super) fn collapse_record(step: u64, names: &[String], collapse: &Collapse) -> CollapseRecord {
    CollapseRecord {
        step,
        of: match collapse.of {
            Distribution::Sampling => LearnedShares::Sampling,
            Distribution::Objective => LearnedShares::Objective,
        },
        domain: names.get(collapse.domain.0).cloned().unwrap_or_default(),
        share: collapse.share,
        effective_domains: collapse.effective,
        began_with: collapse.begun,
        hint: collapse.remedy.to_owned(),
    }
}

/// The record of what was measured on the domains' tune splits after `step` steps.
pub(super) fn held_out_record(
    step: u64,
    domains: &[Domain],
    importance: &Simplex,
    statistics: &[Option<LossStatistics>],
) -> EvalRecord {
    let of_domain = |(domain, statistics): (&Domain, &Option<LossStatistics>)| {
        let LossStatistics { mean, variance, count } = (*statistics)?;
        let record = EvalDomainRecord {
            loss: mean,
            perplexity: mean.exp(),
            bits_per_byte: bits_per_byte(domain, Split::Tune, mean),
            standard_error: (*statistics).and_then(standard_error),
            windows: count as u64,
            loss_variance: Some(variance),
        };
        Some((domain.name.clone(), record))
    };
    let (importance, measured) = (importance.values(), statistics.iter().flatten());
    let known = statistics.iter().all(Option::is_some);
    let mean: f64 = importance.iter().zip(measured).map(|(pi, seen)| pi * seen.mean).sum();
    let errors: Vec<_> = statistics.iter().map(|seen| seen.and_then(standard_error)).collect();
    EvalRecord {
        step,
        split: Split::Tune.to_string(),
        mean_loss: if known { mean } else { f64::NAN },
        mean_loss_standard_error: mean_standard_error(importance, &errors),
        domains: domains.iter().zip(statistics).filter_map(of_domain).collect(),
    }
}

fn names_of(domains: &[DomainId], names: &[String]) -> Vec<String> {
    domains.iter().filter_map(|domain| names.get(domain.0)).cloned().collect()
}
