//! The numbers of a record under the names that other programs show them by:
//! `train/loss`, `domain/NAME/loss`, `eval/SPLIT/NAME/loss`. Programs group by what stands before
//! the first `/`.

use std::borrow::Cow;
use std::fmt;

use cuvee_words::printable;
use serde::{Serialize, Serializer};

use crate::record::{EvalRecord, StepRecord};

/// A finite number and its name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar<'a> {
    pub(super) tag: Tag<'a>,
    pub(super) value: f64,
}

/// A name in parts; `/` stands between them.
///
/// Domains are named by data: what would act on a terminal or break a line is written as an escape,
/// as everywhere else. All other characters stay.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tag<'a> {
    group: &'static str,
    middle: [Option<Cow<'a, str>>; 2],
    measure: &'static str,
}

impl Tag<'_> {
    /// The parts, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let middle = self.middle.iter().filter_map(|part| part.as_deref());
        std::iter::once(self.group).chain(middle).chain(std::iter::once(self.measure))
    }
}

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.parts().enumerate().try_for_each(|(place, part)| {
            if place > 0 {
                f.write_str("/")?;
            }
            f.write_str(part)
        })
    }
}

impl Serialize for Tag<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a step's record holds.
pub(super) fn of_step(record: &StepRecord) -> Vec<Scalar<'_>> {
    let mut scalars = Scalars::with_room_for(7, record.domains.0.len(), 8);
    let train = [None, None];
    scalars.add("train", &train, "loss", record.loss);
    scalars.add("train", &train, "z_loss", record.z_loss);
    scalars.add("train", &train, "lr", record.lr);
    scalars.add("train", &train, "gradient_norm", record.gradient_norm);
    scalars.add("train", &train, "clip_factor", record.clip_factor);
    scalars.add("train", &train, "tokens_per_second", record.tokens_per_second);
    scalars.add("train", &train, "headroom", record.headroom);
    for (name, domain) in &record.domains.0 {
        let of = [Some(printable(name)), None];
        scalars.add("domain", &of, "loss", domain.loss);
        scalars.add("domain", &of, "sampling_weight", domain.sampling_weight);
        scalars.add("domain", &of, "loss_weight", domain.loss_weight);
        scalars.add("domain", &of, "loss_weight_error", domain.loss_weight_error);
        scalars.add("domain", &of, "multiplier", domain.multiplier);
        scalars.add("domain", &of, "epochs", domain.epochs);
        scalars.add("domain", &of, "gradient_deviation", domain.gradient_deviation);
        scalars.add("domain", &of, "objective_mean", domain.objective_mean);
    }
    scalars.0
}

/// What an evaluation's record holds.
pub(super) fn of_evaluation(record: &EvalRecord) -> Vec<Scalar<'_>> {
    let mut scalars = Scalars::with_room_for(1, record.domains.0.len(), 3);
    let split = Some(printable(&record.split));
    scalars.add("eval", &[split.clone(), None], "mean_loss", record.mean_loss);
    for (name, domain) in &record.domains.0 {
        let of = [split.clone(), Some(printable(name))];
        scalars.add("eval", &of, "loss", domain.loss);
        scalars.add("eval", &of, "bits_per_byte", domain.bits_per_byte);
        scalars.add("eval", &of, "perplexity", domain.perplexity);
    }
    scalars.0
}

struct Scalars<'a>(Vec<Scalar<'a>>);

impl<'a> Scalars<'a> {
    fn with_room_for(own: usize, domains: usize, each: usize) -> Self {
        Self(Vec::with_capacity(own + domains * each))
    }

    fn add(
        &mut self,
        group: &'static str,
        middle: &[Option<Cow<'a, str>>; 2],
        measure: &'static str,
        value: impl Into<Option<f64>>,
    ) {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            self.0.push(Scalar { tag: Tag { group, middle: middle.clone(), measure }, value });
        }
    }
}
