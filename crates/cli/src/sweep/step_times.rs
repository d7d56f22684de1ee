//! How long a step of each arm takes. A few steps of each kind of arm are timed; of arms with more
//! kinds than that, the rest is told from the first by the floating-point operations of a step.

use cuvee_mixer::VarianceEstimator;
use cuvee_train::{ModelConfig, OptimizerKind};

use super::arms::{Arm, ArmPlan, Sweep};
use super::speed::{Sharing, averages_each_step, collected_each_step, seconds_per_step};

/// Kinds of arms that are timed at most, besides that of the arm by which the runs share the
/// machine.
const MOST_KINDS: usize = 4;

/// How long a step of each arm takes.
#[derive(Debug, Clone)]
pub struct StepTimes {
    /// Runs at once where it takes so long.
    pub jobs: usize,
    /// One an arm.
    pub arms: Vec<StepTime>,
}

/// A forward pass costs a third of a step's forward and backward.
pub(super) const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// How long a step of an arm takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Seconds.
    pub seconds: f64,
    /// Whether its kind was timed.
    pub timed: bool,
}

impl StepTime {
    /// Seconds of a forward pass over as many tokens as so many steps have.
    pub fn forward(self, steps: f64) -> f64 {
        FORWARD_SHARE * steps * self.seconds
    }
}

/// What of an arm its steps' time depends on.
#[derive(Debug, PartialEq)]
struct Kind<'a> {
    model: &'a ModelConfig,
    batch_size: usize,
    context: usize,
    micro_batch: Option<usize>,
    document_mask: bool,
    optimizer: OptimizerKind,
    averages: bool,
    collects: Option<VarianceEstimator>,
}

impl<'a> Kind<'a> {
    fn of(arm: &Arm, plan: &'a ArmPlan) -> Self {
        let train = &arm.config.train;
        Self {
            model: &plan.model,
            batch_size: train.batch_size,
            context: train.context,
            micro_batch: train.micro_batch,
            document_mask: train.document_mask,
            optimizer: train.optimizer.name,
            averages: averages_each_step(&arm.config),
            collects: collected_each_step(&plan.request),
        }
    }
}

impl StepTimes {
    /// Of the arms of `sweep`, of which `first` was timed when it was found how its runs share the
    /// machine; `None` where nothing was.
    ///
    /// # Errors
    /// A step that cannot be made.
    pub fn measure(sweep: &Sweep, first: usize, sharing: Sharing) -> anyhow::Result<Option<Self>> {
        let Some(seconds) = sharing.seconds_per_step else { return Ok(None) };
        let both = || sweep.arms.iter().zip(sweep.plans);
        let kinds: Vec<Kind> = both().map(|(arm, plan)| Kind::of(arm, plan)).collect();
        let flops: Vec<f64> = both().map(|(_, plan)| plan.flops / plan.steps as f64).collect();
        let (jobs, threads) = (sharing.jobs, sharing.threads);
        let arms = times(&kinds, &flops, (first, seconds), |arm| {
            let config = &sweep.arms[arm].config;
            seconds_per_step(config, sweep.corpus, sweep.device, jobs, threads)
        })?;
        Ok(Some(Self { jobs, arms }))
    }
}

/// One time an arm, where a step of the arm `first.0` takes `first.1` seconds; `measure` times an
/// arm of another kind.
fn times<K: PartialEq>(
    kinds: &[K],
    flops: &[f64],
    first: (usize, f64),
    mut measure: impl FnMut(usize) -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<StepTime>> {
    let mut known = vec![first];
    let time = |arm: usize| -> anyhow::Result<StepTime> {
        let same = known.iter().find(|(other, _)| kinds[*other] == kinds[arm]);
        Ok(match same {
            Some(&(_, seconds)) => StepTime { seconds, timed: true },
            None if known.len() <= MOST_KINDS => {
                let seconds = measure(arm)?;
                known.push((arm, seconds));
                StepTime { seconds, timed: true }
            }
            None => StepTime { seconds: first.1 * flops[arm] / flops[first.0], timed: false },
        })
    };
    (0..kinds.len()).map(time).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_kind_is_timed_once_and_those_beyond_the_fifth_are_told_by_their_flops() {
        let mut asked = Vec::new();
        let kinds = ["a", "b", "a", "c", "b", "d", "e", "f", "g", "f"];
        let flops = [1.0, 2.0, 1.0, 3.0, 2.0, 4.0, 5.0, 6.0, 7.0, 6.0];
        // The third arm is the one that was timed before.
        let found = times(&kinds, &flops, (2, 0.5), |arm| {
            asked.push(arm);
            Ok(10.0 * flops[arm])
        })
        .unwrap();
        assert_eq!(asked, [1, 3, 5, 6]);
        let seconds: Vec<f64> = found.iter().map(|time| time.seconds).collect();
        assert_eq!(seconds, [0.5, 20.0, 0.5, 30.0, 20.0, 40.0, 50.0, 3.0, 3.5, 3.0]);
        let told: Vec<bool> = found.iter().map(|time| !time.timed).collect();
        assert_eq!(told.iter().position(|told| *told), Some(7));
        assert!(told[7..].iter().all(|told| *told));
        let failed = times(&kinds, &flops, (2, 0.5), |_| Err(anyhow::anyhow!("no memory")));
        assert!(failed.is_err());
    }
}
