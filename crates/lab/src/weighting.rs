//! The weights of one SGD run: which domain the next batch takes, what a sample counts, and how
//! both are learned.
//!
//! In: losses on the held-out split and gradient statistics of batches. Out: w, p and whole counts.
//! The rules, VA's estimate of v̂ and the counts are those of `cuvee_mixer`, which train language
//! models too.

use cuvee_mixer::rule::{self, Clamp, GradientMoments};
use cuvee_mixer::{GradientStatistics, LossStatistics, stratified_counts};
use serde::Serialize;

/// How an arm learns its loss weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LossRule {
    /// w_i ∝ 1/σ̂_i², smoothed by `beta`.
    Fgls { beta: f64 },
    /// Exponentiated gradient on the bound of the risk.
    Erma { gamma1: f64, gamma2: f64 },
}

/// One column of a study: what is learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arm {
    /// Its name in tables and JSON.
    pub(crate) name: &'static str,
    /// How loss weights are learned; `None` keeps them at 1.
    pub(crate) loss: Option<LossRule>,
    /// Are sampling weights learned (VA)? Otherwise they are equal.
    pub(crate) variance_aware: bool,
    /// Is it trained on undamaged labels? The oracle of a study with damaged ones is.
    pub(crate) clean: bool,
}

/// Uniform weights on undamaged labels.
pub(crate) const ORACLE: Arm =
    Arm { name: "oracle", loss: None, variance_aware: false, clean: true };

/// The four combinations of a loss rule and VA, uniform first and both last.
pub(crate) fn four_arms(
    loss_name: &'static str,
    both_name: &'static str,
    loss: LossRule,
) -> [Arm; 4] {
    let arm = |name, loss, variance_aware| Arm { name, loss, variance_aware, clean: false };
    [
        arm("uniform", None, false),
        arm(loss_name, Some(loss), false),
        arm("va", None, true),
        arm(both_name, Some(loss), true),
    ]
}

/// What a domain's held-out split says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HeldOut {
    /// Mean loss, L_i.
    pub(crate) loss: f64,
    /// Variance of the loss over samples, Var_i.
    pub(crate) loss_variance: f64,
    /// Mean squared residual, σ̂_i² (regressions only).
    pub(crate) residual_variance: f64,
}

impl HeldOut {
    /// Statistics of `losses` and `residual_squares`, the one or the other of which may be empty.
    pub(crate) fn of(losses: &[f64], residual_squares: &[f64]) -> Self {
        let of_losses = LossStatistics::from_losses(losses);
        let of_residuals = LossStatistics::from_losses(residual_squares);
        Self {
            loss: of_losses.map_or(0.0, |losses| losses.mean),
            loss_variance: of_losses.map_or(0.0, |losses| losses.variance),
            residual_variance: of_residuals.map_or(0.0, |squares| squares.mean),
        }
    }
}

/// How VA estimates and explores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Exploration {
    /// ε, the share of p that is equal for all domains.
    pub(crate) epsilon: f64,
    /// Share of the past that a step keeps in the estimate of v².
    pub(crate) smoothing: f64,
}

/// π, w, p and the state they are learned with.
#[derive(Clone, Debug)]
pub(crate) struct Weighting {
    arm: Arm,
    exploration: Exploration,
    importance: Vec<f64>,
    loss_weight: Vec<f64>,
    sampling_weight: Vec<f64>,
    moments: Vec<GradientMoments>,
    residual: Vec<f64>,
}

impl Weighting {
    /// All domains alike.
    pub(crate) fn new(arm: Arm, exploration: Exploration, domains: usize) -> Self {
        let equal = vec![1.0 / domains as f64; domains];
        Self {
            arm,
            exploration,
            loss_weight: vec![1.0; domains],
            sampling_weight: equal.clone(),
            importance: equal,
            moments: vec![GradientMoments::default(); domains],
            residual: vec![0.0; domains],
        }
    }

    /// w.
    pub(crate) fn loss_weight(&self) -> &[f64] {
        &self.loss_weight
    }

    /// p.
    pub(crate) fn sampling_weight(&self) -> &[f64] {
        &self.sampling_weight
    }

    /// α_i = π_i w_i.
    pub(crate) fn objective(&self) -> Vec<f64> {
        self.importance.iter().zip(&self.loss_weight).map(|(pi, w)| pi * w).collect()
    }

    /// m_i = α_i / p_i.
    pub(crate) fn multiplier(&self) -> Vec<f64> {
        self.objective().iter().zip(&self.sampling_weight).map(|(alpha, p)| alpha / p).collect()
    }

    /// Σ_i α_i²/(B p_i) v_i², the variance of g at gradient variances v²: the paper's Σ π²w²/b v²
    /// at b_i = B p_i.
    pub(crate) fn variance(&self, batch_size: usize, gradient_variance: &[f64]) -> f64 {
        let terms = self.objective().into_iter().zip(&self.sampling_weight).zip(gradient_variance);
        terms.map(|((alpha, p), v2)| alpha * alpha / (batch_size as f64 * p) * v2).sum()
    }

    /// b_i of the next batch.
    pub(crate) fn next_counts(&mut self, batch_size: usize) -> Vec<usize> {
        stratified_counts(&mut self.residual, &self.sampling_weight, batch_size)
    }

    /// Learns from the held-out split, where the arm does.
    pub(crate) fn observe_held_out(&mut self, held_out: &[HeldOut]) {
        let column = |value: fn(&HeldOut) -> f64| held_out.iter().map(value).collect::<Vec<f64>>();
        self.loss_weight = match self.arm.loss {
            None => return,
            Some(LossRule::Fgls { beta }) => {
                let sigma2 = column(|h| h.residual_variance);
                rule::fgls(&self.importance, &self.loss_weight, &sigma2, beta, Clamp::default())
            }
            Some(LossRule::Erma { gamma1, gamma2 }) => {
                let (loss, variance) = (column(|h| h.loss), column(|h| h.loss_variance));
                let clamp = Clamp::default();
                rule::erma(
                    &self.importance,
                    &self.loss_weight,
                    &loss,
                    &variance,
                    gamma1,
                    gamma2,
                    clamp,
                )
            }
        };
        self.allocate();
    }

    /// Learns from a batch's gradient statistics, where the arm does. A domain without any keeps
    /// its last estimate.
    pub(crate) fn observe_gradient(&mut self, gradient: &[Option<GradientStatistics>]) {
        for (moments, seen) in self.moments.iter_mut().zip(gradient) {
            if let Some(seen) = seen {
                moments.add(seen, self.exploration.smoothing);
            }
        }
        self.allocate();
    }

    /// Whether the arm learns from gradient statistics.
    pub(crate) fn needs_gradient(&self) -> bool {
        self.arm.variance_aware
    }

    /// Whether the arm learns from held-out losses.
    pub(crate) fn needs_held_out(&self) -> bool {
        self.arm.loss.is_some()
    }

    /// p ∝ π w v̂ with the floor, as in training; p ∝ π w until a domain was observed.
    fn allocate(&mut self) {
        if self.arm.variance_aware {
            let deviation =
                rule::deviations(&self.moments).unwrap_or_else(|| vec![1.0; self.importance.len()]);
            self.sampling_weight =
                rule::va(&self.importance, &self.loss_weight, &deviation, self.exploration.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPLORATION: Exploration = Exploration { epsilon: 0.0, smoothing: 0.5 };

    fn seen(variance: f64) -> Option<GradientStatistics> {
        Some(GradientStatistics {
            sequences: 5,
            variance,
            mean_square: 2.0 * variance,
            direction: None,
        })
    }

    #[test]
    fn an_unseen_domain_counts_as_the_others_and_a_seen_one_keeps_its_last_estimate() {
        let arm = Arm { name: "va", loss: None, variance_aware: true, clean: false };
        let mut weighting = Weighting::new(arm, EXPLORATION, 2);
        weighting.observe_gradient(&[seen(4.0), None]);
        assert_eq!(weighting.sampling_weight(), [0.5, 0.5]);
        weighting.observe_gradient(&[None, seen(36.0)]);
        // v̂ = (2, 6) at equal π w.
        for (p, expected) in weighting.sampling_weight().iter().zip([0.25, 0.75]) {
            assert!((p - expected).abs() < 1e-12, "{p} {expected}");
        }
    }

    #[test]
    fn uniform_learns_nothing() {
        let [uniform, ..] = four_arms("loss", "both", LossRule::Fgls { beta: 0.5 });
        let mut weighting = Weighting::new(uniform, EXPLORATION, 2);
        weighting.observe_gradient(&[seen(1.0), seen(9.0)]);
        weighting.observe_held_out(&[
            HeldOut::default(),
            HeldOut { residual_variance: 3.0, ..HeldOut::default() },
        ]);
        assert_eq!(
            (weighting.loss_weight(), weighting.sampling_weight()),
            (&[1.0; 2][..], &[0.5; 2][..])
        );
    }

    #[test]
    fn held_out_statistics() {
        let found = HeldOut::of(&[1.0, 2.0, 6.0], &[1.0, 3.0]);
        assert_eq!(found, HeldOut { loss: 3.0, loss_variance: 7.0, residual_variance: 2.0 });
    }
}
