//! How fast each group of parameters moves, and how much of it decays, at one update.

use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, OptimizerGroup, ParameterInfo};
use crate::spec::{DecaySchedule, TrainSpec};

use super::interface::Update;
use super::schedule::peak_learning_rate;

/// What of a parameter decides how an optimizer treats it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Treatment {
    /// Its group.
    pub(crate) group: OptimizerGroup,
    /// Whether weight decay applies.
    pub(crate) decays: bool,
}

impl From<&ParameterInfo> for Treatment {
    fn from(info: &ParameterInfo) -> Self {
        Self { group: info.optimizer, decays: info.decay }
    }
}

/// What all parameters of one update share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// Which update this is, t ≥ 1.
    pub(crate) count: u64,
    /// Where the schedule of the learning rate has come to.
    pub(crate) lr: f64,
    /// What gradients are multiplied by first: the clipping.
    pub(crate) scale: f64,
}

/// The rates and decays of a run's groups.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Paces {
    /// The peak of the schedule.
    peak: f64,
    /// Updates of the run.
    steps: u64,
    schedule: DecaySchedule,
    cautious: bool,
    matrix: Pace,
    embedding: Pace,
    head: Pace,
    vector: Pace,
}

/// One group's.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    /// Its rate, in the schedule's.
    share: f64,
    /// λ.
    decay: f64,
}

impl Paces {
    /// Those that `train` gives to a model.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a rate or a decay of a head that the model does not have, or a
    /// run without a length.
    pub(super) fn of(train: &TrainSpec, model: &ModelConfig) -> Result<Self> {
        let (optimizer, decay) = (&train.optimizer, &train.weight_decay);
        let of_head = [
            ("train.optimizer.head_lr", optimizer.head_lr),
            ("train.weight_decay.head", decay.head),
        ];
        if let (true, Some((key, Some(value)))) =
            (model.tied, of_head.into_iter().find(|(_, value)| value.is_some()))
        {
            return Err(TrainError::config(
                key,
                "a model with a head of its own",
                format!("{value}, and a head that is the embedding"),
                "give the embedding's, which is the head's too, or set model.tied = false",
            ));
        }
        let peak = peak_learning_rate(train, model);
        let pace = |rate: Option<f64>, own: Option<f64>| Pace {
            share: rate.map_or(1.0, |rate| rate / peak),
            decay: own.unwrap_or(decay.rate),
        };
        Ok(Self {
            peak,
            steps: train.total_steps()?,
            schedule: decay.schedule,
            cautious: decay.cautious,
            matrix: pace(optimizer.lr, None),
            embedding: pace(optimizer.embedding_lr, decay.embedding),
            head: pace(optimizer.head_lr, decay.head),
            vector: pace(optimizer.vector_lr, None),
        })
    }

    /// What `step` is for the parameters of a group.
    pub(super) fn update(
        &self,
        Treatment { group, decays }: Treatment,
        Step { count, lr, scale }: Step,
    ) -> Update {
        let Pace { share, decay } = match group {
            OptimizerGroup::Matrix => self.matrix,
            OptimizerGroup::Embedding => self.embedding,
            OptimizerGroup::Head => self.head,
            OptimizerGroup::Vector => self.vector,
        };
        let own = lr * share;
        let over_time = match self.schedule {
            DecaySchedule::Constant => 1.0,
            DecaySchedule::Lr => lr / self.peak,
            DecaySchedule::Linear => {
                let done = count.saturating_sub(1).min(self.steps);
                1.0 - done as f64 / self.steps as f64
            }
        };
        let keep = if decays { 1.0 - own * (decay * over_time) } else { 1.0 };
        Update { count, lr: own, scale, keep, cautious: self.cautious }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::spec::{OptimizerKind, OptimizerSpec, WeightDecay};

    fn train(weight_decay: WeightDecay) -> TrainSpec {
        let optimizer = OptimizerSpec {
            name: OptimizerKind::Muon,
            lr: Some(0.02),
            embedding_lr: Some(0.3),
            head_lr: Some(0.004),
            vector_lr: None,
            ..OptimizerSpec::default()
        };
        TrainSpec {
            steps: Some(10),
            lr: 0.001.into(),
            optimizer,
            weight_decay,
            ..TrainSpec::default()
        }
    }

    fn decaying(group: OptimizerGroup) -> Treatment {
        Treatment { group, decays: true }
    }

    fn step(count: u64, lr: f64) -> Step {
        Step { count, lr, scale: 1.0 }
    }

    const MATRIX: Treatment = Treatment { group: OptimizerGroup::Matrix, decays: true };

    #[test]
    fn every_rate_follows_the_schedule_in_its_proportion() {
        let paces = Paces::of(&train(0.0.into()), &ModelConfig::small()).unwrap();
        let rate = |group, lr| paces.update(decaying(group), step(1, lr)).lr;
        for share in [1.0, 0.5, 0.1] {
            for (group, peak) in [
                (OptimizerGroup::Matrix, 0.02),
                (OptimizerGroup::Embedding, 0.3),
                (OptimizerGroup::Head, 0.004),
                (OptimizerGroup::Vector, 0.001),
            ] {
                let (found, expected) = (rate(group, 0.001 * share), peak * share);
                // A quotient and two products.
                assert!((found / expected - 1.0).abs() < 4.0 * f64::EPSILON, "{group:?} {found}");
            }
        }
        // Without rates of their own all have the schedule's, to the bit.
        let paces = Paces::of(&TrainSpec::default(), &ModelConfig::small()).unwrap();
        assert_eq!(paces.update(MATRIX, step(1, 0.1 + 0.2)).lr, 0.1 + 0.2);
    }

    #[test]
    fn decay_is_the_groups_own_and_goes_on_as_its_schedule_says() {
        let decay = |schedule| WeightDecay {
            rate: 0.5,
            embedding: Some(0.0),
            head: Some(0.25),
            schedule,
            ..WeightDecay::default()
        };
        let keep = |schedule, parameter, count, lr| {
            let paces = Paces::of(&train(decay(schedule)), &ModelConfig::small()).unwrap();
            1.0 - paces.update(parameter, step(count, lr)).keep
        };
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 4.0 * f64::EPSILON, "{found} {expected}");
        };
        let vector = Treatment { group: OptimizerGroup::Vector, decays: false };
        close(keep(DecaySchedule::Constant, MATRIX, 7, 0.001), 0.02 * 0.5);
        close(
            keep(DecaySchedule::Constant, decaying(OptimizerGroup::Head), 7, 0.001),
            0.004 * 0.25,
        );
        assert_eq!(
            keep(DecaySchedule::Constant, decaying(OptimizerGroup::Embedding), 7, 0.001),
            0.0
        );
        assert_eq!(keep(DecaySchedule::Constant, vector, 7, 0.001), 0.0);
        // Half the rate: half of λ as well.
        close(keep(DecaySchedule::Lr, MATRIX, 7, 0.0005), 0.01 * 0.25);
        // Ten updates: all of it at the first, a tenth of it at the last, nothing beyond.
        for (count, share) in [(1, 1.0), (6, 0.5), (10, 0.1), (11, 0.0), (99, 0.0)] {
            close(keep(DecaySchedule::Linear, MATRIX, count, 0.001), 0.02 * 0.5 * share);
        }
    }

    #[test]
    fn a_head_that_is_the_embedding_has_no_rate_and_no_decay_of_its_own() {
        let tied = ModelConfig { tied: true, ..ModelConfig::small() };
        let of_decay = WeightDecay { head: Some(0.1), ..WeightDecay::default() };
        let mut of_decay = TrainSpec { weight_decay: of_decay, ..train(0.1.into()) };
        of_decay.optimizer.head_lr = None;
        let rate = train(0.1.into());
        for (train, key) in
            [(rate, "train.optimizer.head_lr"), (of_decay, "train.weight_decay.head")]
        {
            let message = Paces::of(&train, &tied).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{key}: expected a model with a head")),
                "{message}"
            );
            assert!(message.contains("\nhint: "), "{message}");
            assert!(Paces::of(&train, &ModelConfig::small()).is_ok());
        }
    }
}
