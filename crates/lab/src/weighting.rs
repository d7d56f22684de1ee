//! The weights of one SGD run: which domain the next batch takes, what a sample counts, and how
//! both are learned.
//!
//! In: losses on the held-out split and gradient statistics of batches. Out: w, p and whole counts.
//! The rules are those of `cuvee_mixer::rule`, the very ones that train language models.

use cuvee_mixer::rule::{self, Clamp};
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
}

/// The four combinations of a loss rule and VA, uniform first and both last.
pub(crate) fn four_arms(
    loss_name: &'static str,
    both_name: &'static str,
    loss: LossRule,
) -> [Arm; 4] {
    [
        Arm { name: "uniform", loss: None, variance_aware: false },
        Arm { name: loss_name, loss: Some(loss), variance_aware: false },
        Arm { name: "va", loss: None, variance_aware: true },
        Arm { name: both_name, loss: Some(loss), variance_aware: true },
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

/// Mean and unbiased variance of `losses`, and the mean of `residual_squares`.
pub(crate) fn held_out(losses: &[f64], residual_squares: &[f64]) -> HeldOut {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / (values.len().max(1)) as f64;
    let loss = mean(losses);
    let squares: f64 = losses.iter().map(|l| (l - loss) * (l - loss)).sum();
    HeldOut {
        loss,
        loss_variance: squares / (losses.len().saturating_sub(1).max(1)) as f64,
        residual_variance: mean(residual_squares),
    }
}

/// How VA estimates and explores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Exploration {
    /// ε, the share of p that is equal for all domains.
    pub(crate) epsilon: f64,
    /// Share of the old v̂² that each step keeps.
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
    gradient_variance: Vec<Option<f64>>,
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
            gradient_variance: vec![None; domains],
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

    /// Σ_i α_i²/(B p_i) v_i², the variance of g at gradient variances v² (METHOD's closed form, b_i
    /// = B p_i).
    pub(crate) fn variance(&self, batch_size: usize, gradient_variance: &[f64]) -> f64 {
        let terms = self.objective().into_iter().zip(&self.sampling_weight).zip(gradient_variance);
        terms.map(|((alpha, p), v2)| alpha * alpha / (batch_size as f64 * p) * v2).sum()
    }

    /// b_i of the next batch: what has come due of each B p_i, largest remainders first.
    pub(crate) fn next_counts(&mut self, batch_size: usize) -> Vec<usize> {
        next_counts(&mut self.residual, &self.sampling_weight, batch_size)
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

    /// Learns from a batch's gradient variance a domain, `None` where it had fewer than two
    /// samples. Such a domain keeps its last estimate.
    pub(crate) fn observe_gradient(&mut self, gradient_variance: &[Option<f64>]) {
        let keep = self.exploration.smoothing;
        for (old, new) in self.gradient_variance.iter_mut().zip(gradient_variance) {
            if let Some(new) = new {
                *old = Some(old.map_or(*new, |old| keep * old + (1.0 - keep) * new));
            }
        }
        self.allocate();
    }

    /// Does this arm need gradient statistics, or held-out losses?
    pub(crate) fn needs(&self) -> (bool, bool) {
        (self.arm.variance_aware, self.arm.loss.is_some())
    }

    /// p ∝ π w v̂ once every domain has been seen.
    fn allocate(&mut self) {
        let known: Option<Vec<f64>> =
            self.gradient_variance.iter().map(|v2| v2.map(|v2| v2.max(0.0).sqrt())).collect();
        if let Some(deviation) =
            known.filter(|v| self.arm.variance_aware && v.iter().any(|v| *v > 0.0))
        {
            self.sampling_weight =
                rule::va(&self.importance, &self.loss_weight, &deviation, self.exploration.epsilon);
        }
    }
}

/// Error diffusion: adds B p to `residual`, takes whole samples out of it, the largest remainders
/// first.
pub(crate) fn next_counts(residual: &mut [f64], sampling: &[f64], batch_size: usize) -> Vec<usize> {
    for (residual, p) in residual.iter_mut().zip(sampling) {
        *residual += batch_size as f64 * p;
    }
    let mut counts: Vec<usize> =
        residual.iter().map(|r| (r.max(0.0) as usize).min(batch_size)).collect();
    let lag = |i: usize, counts: &[usize]| residual[i] - counts[i] as f64;
    let mut taken: usize = counts.iter().sum();
    while taken > batch_size {
        let served = (0..counts.len()).filter(|i| counts[*i] > 0);
        let Some(least) = served.min_by(|a, b| lag(*a, &counts).total_cmp(&lag(*b, &counts)))
        else {
            break;
        };
        counts[least] -= 1;
        taken -= 1;
    }
    while taken < batch_size {
        let all = 0..counts.len();
        let Some(most) = all.max_by(|a, b| lag(*a, &counts).total_cmp(&lag(*b, &counts))) else {
            break;
        };
        counts[most] += 1;
        taken += 1;
    }
    for (residual, count) in residual.iter_mut().zip(&counts) {
        *residual -= *count as f64;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_sum_to_the_batch_and_follow_p(p in 0.01f64..0.99, batch_size in 1usize..40) {
            let (sampling, mut residual) = ([p, 1.0 - p], [0.0; 2]);
            let mut total = [0.0; 2];
            for step in 1..=50 {
                let counts = next_counts(&mut residual, &sampling, batch_size);
                prop_assert_eq!(counts.iter().sum::<usize>(), batch_size);
                for i in 0..2 {
                    total[i] += counts[i] as f64;
                    let expected = f64::from(step) * batch_size as f64 * sampling[i];
                    prop_assert!((total[i] - expected).abs() < 1.0 + 1e-6);
                }
            }
        }
    }

    const EXPLORATION: Exploration = Exploration { epsilon: 0.0, smoothing: 0.5 };

    #[test]
    fn an_unseen_domain_keeps_p_and_a_seen_one_its_last_estimate() {
        let arm = Arm { name: "va", loss: None, variance_aware: true };
        let mut weighting = Weighting::new(arm, EXPLORATION, 2);
        weighting.observe_gradient(&[Some(4.0), None]);
        assert_eq!(weighting.sampling_weight(), [0.5, 0.5]);
        weighting.observe_gradient(&[None, Some(36.0)]);
        // v̂ = (2, 6) at equal π w.
        for (p, expected) in weighting.sampling_weight().iter().zip([0.25, 0.75]) {
            assert!((p - expected).abs() < 1e-12, "{p} {expected}");
        }
    }

    #[test]
    fn uniform_learns_nothing() {
        let [uniform, ..] = four_arms("loss", "both", LossRule::Fgls { beta: 0.5 });
        let mut weighting = Weighting::new(uniform, EXPLORATION, 2);
        weighting.observe_gradient(&[Some(1.0), Some(9.0)]);
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
        let found = held_out(&[1.0, 2.0, 6.0], &[1.0, 3.0]);
        assert_eq!(found, HeldOut { loss: 3.0, loss_variance: 7.0, residual_variance: 2.0 });
    }
}
