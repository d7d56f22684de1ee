//! What adaptive strategies need to have measured, and what they believe.
//!
//! In: nothing. Out: [`Needs`], which tell a run what to measure besides training losses, and [`Estimates`], which go
//! into its records. Static strategies have neither, and cost nothing.

use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use serde::{Deserialize, Serialize};

/// How the gradient variance v_i² within a domain is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VarianceEstimator {
    /// From the gradients of the normalisation gains alone, which a backward pass has a sequence at a time anyway (Gray et
    /// al., 2024: they track the whole model's). A constant factor away from the whole, which sampling weights ignore.
    #[default]
    NormLayers,
    /// From the norms of the linear layers' gradients, ‖A_jᵀ G_j‖²_F, without forming them a sequence at a time.
    Ghost,
    /// From one backward pass a sequence: for tests and studies.
    Exact,
}

impl VarianceEstimator {
    /// Its name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NormLayers => "norm-layers",
            Self::Ghost => "ghost",
            Self::Exact => "exact",
        }
    }
}

/// What a strategy needs to observe besides the training losses. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Held-out losses after every so many steps, at least 1.
    pub held_out_every: Option<u64>,
    /// Gradient statistics of every step.
    pub gradient: Option<VarianceEstimator>,
}

impl Needs {
    /// What serves both: the shorter interval, the one estimator.
    ///
    /// # Errors
    /// Two different estimators, since a step collects one kind of statistics.
    pub fn merge(self, other: Self) -> Result<Self> {
        let held_out_every = match (self.held_out_every, other.held_out_every) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match (self.gradient, other.gradient) {
            (Some(a), Some(b)) if a != b => {
                Err(MixerError::TwoEstimators { sampling: a.name().to_owned(), loss: b.name().to_owned() })
            }
            (a, b) => Ok(Self { held_out_every, gradient: a.or(b) }),
        }
    }
}

/// What an adaptive strategy believes and where its bounds bite, for the records of a run. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Estimates {
    /// v̂_i, one a domain, once there is one for any: the root of the estimated gradient variance.
    pub gradient_deviation: Option<Vec<f64>>,
    /// Domains whose loss weight a clamp holds.
    pub clamped: Vec<DomainId>,
    /// Domains whose sampling weight sits at the exploration floor: more of it comes from the floor than from the rule.
    pub floored: Vec<DomainId>,
}

impl Estimates {
    /// What both slots say.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.gradient_deviation = self.gradient_deviation.or(other.gradient_deviation);
        self.clamped.extend(other.clamped);
        self.floored.extend(other.floored);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn merged_needs_serve_both_slots() {
        let none = Needs::default();
        let loss = Needs { held_out_every: Some(100), gradient: None };
        let sampling = Needs { held_out_every: Some(30), gradient: Some(VarianceEstimator::Ghost) };
        assert_eq!(none.merge(none), Ok(none));
        assert_eq!(sampling.merge(loss), Ok(sampling));
        assert_eq!(loss.merge(none), Ok(loss));
        assert_eq!(sampling.merge(sampling), Ok(sampling));
        let exact = Needs { held_out_every: None, gradient: Some(VarianceEstimator::Exact) };
        let error = sampling.merge(exact).unwrap_err().to_string();
        assert!(
            error.contains("`ghost`") && error.contains("`exact`") && error.contains("hint: "),
            "{error}"
        );
    }

    #[test]
    fn an_estimators_name_is_the_configs() {
        for estimator in [VarianceEstimator::NormLayers, VarianceEstimator::Ghost, VarianceEstimator::Exact] {
            assert_eq!(serde_json::to_value(estimator).unwrap(), estimator.name());
        }
        assert_eq!(VarianceEstimator::default().name(), "norm-layers");
    }
}
