//! What adaptive strategies need to be told, and what they make of it.
//!
//! An [`ObservationRequest`] tells a trainer what to measure besides the training losses;
//! [`Measurements`] go into the records of the run. Static strategies have neither.

use crate::collapse::Collapse;
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::seed::{self, CounterRng};
use serde::{Deserialize, Serialize};

/// How the gradient variance v_i² within a domain is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VarianceEstimator {
    /// From the gradients of the normalisation gains alone, which a backward pass has a sequence at
    /// a time anyway (Gray et al., 2024: they track the whole model's). A constant factor away from
    /// the whole, which sampling weights ignore.
    #[default]
    NormLayers,
    /// From the norms of the linear layers' gradients, ‖A_jᵀ G_j‖²_F, without forming them a
    /// sequence at a time. Deprecated: see [`deprecated`](Self::deprecated).
    Ghost,
    /// From a few random projections of every parameter's gradients, which come out a sequence at a
    /// time: unbiased for the whole model's v², whatever part of it carries the variance.
    Sketch,
    /// From one backward pass a sequence: for tests and studies.
    Exact,
}

impl VarianceEstimator {
    /// Its name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NormLayers => "norm-layers",
            Self::Ghost => "ghost",
            Self::Sketch => "sketch",
            Self::Exact => "exact",
        }
    }

    /// Why it should not be chosen any more and what to choose instead; `None` for those to choose
    /// from. A deprecated one still works, and runs that began with it go on.
    pub fn deprecated(self) -> Option<&'static str> {
        match self {
            Self::Ghost => Some(
                "it costs half a step, leaves out part of the model and follows v no better than \
                 the cheap ones\nhint: variance = \"sketch\" is unbiased for the whole model and \
                 costs less than 3 %; \"norm-layers\", the default, costs nothing",
            ),
            Self::NormLayers | Self::Sketch | Self::Exact => None,
        }
    }
}

/// Gradient statistics, of some steps or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradientRequest {
    /// How they are estimated.
    pub estimator: VarianceEstimator,
    /// Of one step in so many, at least 1: in each block of `every` steps, of one of them.
    pub every: u64,
    /// Root of the choice of that step, and of an estimator's random projections. Counts that come
    /// as evenly as ours repeat with a period, and steps at a fixed distance may never show a
    /// domain twice. `None`, as in runs begun before this was drawn: the first step of each block,
    /// and projections that are the same in every run.
    pub seed: Option<u64>,
}

impl GradientRequest {
    /// Whether `step`, counted from 0, is the one of its block.
    fn collects(&self, step: u64) -> bool {
        let (block, place) = (step / self.every, step % self.every);
        let chosen = self.seed.map_or(0, |root| {
            CounterRng::new(seed::derive(root, seed::COLLECT)).below(block, self.every)
        });
        place == chosen
    }
}

/// What a strategy needs to observe besides the training losses. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservationRequest {
    /// Held-out losses after every so many steps, at least 1; see
    /// [`held_out_at`](Self::held_out_at).
    pub held_out_every: Option<u64>,
    /// And after every so many, where the slots ask for them at different steps.
    pub held_out_also: Option<u64>,
    /// Whether each such measurement takes other windows than the last, so that their mean over
    /// time knows more than one of them.
    pub rotate: bool,
    /// Gradient statistics.
    pub gradient: Option<GradientRequest>,
    /// Inner products of the domains' gradients before one step in so many, at least 1.
    pub gram_every: Option<u64>,
    /// Before each step, the excess of the losses of its batch over those of a reference model.
    pub excess: bool,
}

impl ObservationRequest {
    /// Whether the domains' gradients are to be compared before `step`, counted from 0.
    pub fn gram_at(&self, step: u64) -> bool {
        self.gram_every.is_some_and(|every| step.is_multiple_of(every))
    }

    /// Whether the held-out losses are to be measured after `done` steps; then the number of the
    /// measurement, from 0: a function of the step, whatever was resumed in between.
    pub fn held_out_at(&self, done: u64) -> Option<u64> {
        let times = |every: Option<u64>| every.map_or(0, |every| done / every);
        let (a, b) = (self.held_out_every, self.held_out_also);
        let due = |every: u64| done.is_multiple_of(every);
        if done == 0 || !a.into_iter().chain(b).any(due) {
            return None;
        }
        let both = a.zip(b).and_then(|(a, b)| (a / common(a, b)).checked_mul(b));
        Some((times(a) + times(b) - times(both)).saturating_sub(1))
    }

    /// What `step`, counted from 0, is to collect: a function of its number, so that a resumed run
    /// collects at the same ones.
    pub fn estimator_at(&self, step: u64) -> Option<VarianceEstimator> {
        self.gradient.filter(|gradient| gradient.collects(step)).map(|gradient| gradient.estimator)
    }

    /// What serves both slots: held-out losses at the steps of either, gradients at the shorter of
    /// the intervals, by the one estimator. Each strategy takes in only what was measured at its
    /// own steps. Not for what is merged already.
    ///
    /// # Errors
    /// Two different estimators, since a step collects one kind of statistics. Held-out losses of
    /// the same windows each time for one and of others for the other.
    pub fn merge(self, other: Self) -> Result<Self> {
        let (held_out_every, held_out_also) = match (self.held_out_every, other.held_out_every) {
            (Some(_), Some(_)) if self.rotate != other.rotate => {
                return Err(MixerError::TwoKindsOfWindows);
            }
            (Some(a), Some(b)) if a.max(b).is_multiple_of(a.min(b)) => (Some(a.min(b)), None),
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            (a, b) => (a.or(b), None),
        };
        let gradient = match (self.gradient, other.gradient) {
            (Some(a), Some(b)) if a.estimator != b.estimator => {
                let name = |request: GradientRequest| request.estimator.name().to_owned();
                return Err(MixerError::TwoEstimators { sampling: name(a), loss: name(b) });
            }
            (Some(a), Some(b)) => Some(GradientRequest { every: a.every.min(b.every), ..a }),
            (a, b) => a.or(b),
        };
        Ok(Self {
            held_out_every,
            held_out_also,
            rotate: self.rotate || other.rotate,
            gradient,
            gram_every: [self.gram_every, other.gram_every].into_iter().flatten().min(),
            excess: self.excess || other.excess,
        })
    }
}

/// The greatest common divisor.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

/// What an adaptive strategy believes and where its bounds bite, for the records of a run. The
/// default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measurements {
    /// v̂_i, one a domain, once there is one for any: the root of the estimated gradient variance.
    pub gradient_deviation: Option<Vec<f64>>,
    /// Variance of the gradient within domains at p = α over the least there is, by v̂: see
    /// [`rule::headroom`](crate::rule::headroom).
    pub headroom: Option<f64>,
    /// Standard error of each loss weight, once held-out text was measured.
    pub loss_weight_error: Option<Vec<f64>>,
    /// Mean of the objective α over the updates so far, one a domain: the result of a rule that
    /// looks for the shares of a later run.
    pub objective_mean: Option<Vec<f64>>,
    /// Domains whose loss weight a clamp holds.
    pub clamped: Vec<DomainId>,
    /// Domains whose sampling weight sits at the exploration floor: more of it comes from the floor
    /// than from the rule.
    pub floored: Vec<DomainId>,
    /// Domains whose sampling weight their `max_epochs` holds: the rule asks for more.
    pub capped: Vec<DomainId>,
    /// What a strategy learns, where it has collapsed onto one domain.
    pub collapse: Option<Collapse>,
}

impl Measurements {
    /// What both slots say.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.gradient_deviation = self.gradient_deviation.or(other.gradient_deviation);
        self.headroom = self.headroom.or(other.headroom);
        self.loss_weight_error = self.loss_weight_error.or(other.loss_weight_error);
        self.objective_mean = self.objective_mean.or(other.objective_mean);
        self.clamped.extend(other.clamped);
        self.floored.extend(other.floored);
        self.capped.extend(other.capped);
        self.collapse = self.collapse.or(other.collapse);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_merged_request_serves_both_slots() {
        let gradient = |estimator, every| Some(GradientRequest { estimator, every, seed: Some(1) });
        let none = ObservationRequest::default();
        let loss = ObservationRequest { held_out_every: Some(100), rotate: true, ..none };
        let sampling = ObservationRequest {
            held_out_every: Some(30),
            held_out_also: None,
            rotate: true,
            gradient: gradient(VarianceEstimator::Ghost, 4),
            gram_every: Some(3),
            excess: true,
        };
        assert_eq!(none.merge(none), Ok(none));
        let both = ObservationRequest { held_out_also: Some(100), ..sampling };
        assert_eq!(sampling.merge(loss), Ok(both), "every 30 and every 100 steps");
        assert_eq!(loss.merge(none), Ok(loss));
        let compared: Vec<u64> = (0..8).filter(|&step| sampling.gram_at(step)).collect();
        assert_eq!((compared, none.gram_at(0)), (vec![0, 3, 6], false));
        let rarely = ObservationRequest { gram_every: Some(5), ..none };
        assert_eq!(rarely.merge(sampling).unwrap().gram_every, Some(3));
        assert!(none.merge(sampling).unwrap().rotate && !none.merge(none).unwrap().rotate);
        assert_eq!(sampling.merge(sampling), Ok(sampling));
        let often =
            ObservationRequest { gradient: gradient(VarianceEstimator::Ghost, 3), ..sampling };
        assert_eq!(sampling.merge(often), Ok(often));
        let exact = ObservationRequest { gradient: gradient(VarianceEstimator::Exact, 1), ..none };
        let error = sampling.merge(exact).unwrap_err().to_string();
        assert!(
            error.contains("`ghost`") && error.contains("`exact`") && error.contains("hint: "),
            "{error}"
        );
    }

    #[test]
    fn held_out_losses_are_measured_at_the_steps_of_either_slot_and_at_no_others() {
        let of = |every| ObservationRequest {
            held_out_every: Some(every),
            rotate: true,
            ..ObservationRequest::default()
        };
        for (a, b) in [(100, 7), (7, 100), (30, 100), (40, 100), (50, 100), (3, 3), (1, 5)] {
            let request = of(a).merge(of(b)).unwrap();
            let mut turns = 0;
            for done in 0..1_000_u64 {
                let due = done > 0 && (done.is_multiple_of(a) || done.is_multiple_of(b));
                assert_eq!(request.held_out_at(done), due.then_some(turns), "{a}, {b} at {done}");
                turns += u64::from(due);
            }
        }
        // One slot alone: as ever.
        assert_eq!((of(20).held_out_at(40), of(20).held_out_at(41)), (Some(1), None));
        assert_eq!(ObservationRequest::default().held_out_at(100), None);
        let far = of(u64::MAX).merge(of(u64::MAX - 1)).unwrap();
        assert_eq!(far.held_out_at(u64::MAX), Some(1));
    }

    #[test]
    fn a_slot_that_needs_the_same_windows_is_refused_beside_one_that_needs_others() {
        let same = ObservationRequest { held_out_every: Some(5), ..ObservationRequest::default() };
        let others = ObservationRequest { rotate: true, ..same };
        for error in [same.merge(others).unwrap_err(), others.merge(same).unwrap_err()] {
            let text = error.in_config("mixture", "train");
            assert!(text.contains("mixture.loss") && text.contains("\nhint: "), "{text}");
        }
        assert_eq!(same.merge(ObservationRequest::default()), Ok(same));
    }

    #[test]
    fn statistics_are_collected_at_one_step_of_each_block() {
        let collected = |every, seed, steps: u64| -> Vec<u64> {
            let gradient =
                Some(GradientRequest { estimator: VarianceEstimator::Sketch, every, seed });
            let request = ObservationRequest { gradient, ..ObservationRequest::default() };
            (0..steps).filter(|&step| request.estimator_at(step).is_some()).collect()
        };
        assert_eq!(collected(3, None, 8), [0, 3, 6]);
        assert_eq!(collected(1, Some(5), 4), [0, 1, 2, 3]);
        let (some, others) = (collected(8, Some(5), 800), collected(8, Some(6), 800));
        let blocks = |steps: &[u64]| steps.iter().map(|step| step / 8).collect::<Vec<_>>();
        assert_eq!(blocks(&some), (0..100).collect::<Vec<_>>());
        assert_ne!(some, others);
        // Every place of a block is chosen now and then: missed once in 8·(7/8)¹⁰⁰ = 10⁻⁵.
        assert!((0..8).all(|place| some.iter().any(|step| step % 8 == place)), "{some:?}");
        assert_eq!(ObservationRequest::default().estimator_at(0), None);
    }

    #[test]
    fn an_estimators_name_is_the_configs() {
        for estimator in [
            VarianceEstimator::NormLayers,
            VarianceEstimator::Ghost,
            VarianceEstimator::Sketch,
            VarianceEstimator::Exact,
        ] {
            assert_eq!(serde_json::to_value(estimator).unwrap(), estimator.name());
        }
        assert_eq!(VarianceEstimator::default().name(), "norm-layers");
        assert_eq!(VarianceEstimator::default().deprecated(), None);
        assert!(VarianceEstimator::Ghost.deprecated().is_some_and(|r| r.contains("hint: ")));
    }
}
