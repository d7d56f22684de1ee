//! ODM: sampling weights by a bandit whose reward is the training loss.
//!
//! Source: Albalak, Pan, Raffel, Wang, *Efficient Online Data Mixing For Language Model
//! Pre-Training*, arXiv:2312.02406, and its released code. With ε_t = min(1/K, √(ln K / (K t)))
//! after t steps:
//!
//! - `linear`, what its release does: R_i ← a R_i + (1 − a) e^{L_i} for the domains drawn, p_i = (1
//!   − K ε_t) R_i / Σ R + ε_t.
//! - `gibbs`, the paper's: R_i ← R_i + (L_i/10) / p_i for the domain drawn, p_i = (1 − K ε_t)
//!   exp(ε_{t−1} R_i) / Σ_j exp(ε_{t−1} R_j) + ε_t.
//!
//! Rewards are collected from the start; p is the prior for `warmup` steps. Two things are
//! **derived**. The first reward of a domain counts whole, where the release begins at R = 0: after
//! n draws the two differ by aⁿ, and a domain never drawn counts at the mean of the others. And
//! where a batch holds several domains, `gibbs` takes the mean over its sequences of what one draw
//! would give: R_i += (b_i/B) (L_i/10) / p_i, unbiased as the published line is for one draw.
//!
//! It changes what is trained on, so it needs `objective = "sampled"`. Where `max_epochs` holds a
//! domain, `gibbs` divides by the p that it proposed.
//!
//! In: training losses. Out: p. State: one reward a domain. Costs nothing. Known weakness: it
//! rewards high losses, and so the domains that cannot be learned; e^{L} weighs a nat of loss like
//! a factor e in the mixture.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::{last_losses, saved};
use crate::error::Result;
use crate::observation::Observation;
use crate::rule;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "odm",
    slots: Slots::Sampling,
    summary: "a bandit rewarded by the training loss: p = (1−K·ε)·R/Σ R + ε, R an average of e^L, ε falling with the steps",
    source: "arXiv:2312.02406; linear as its release, gibbs as its paper",
    example: r#"{ strategy = "odm", variant = "linear", smoothing = 0.9, reward_scale = 10 }"#,
    objectives: SAMPLED_ALONE,
};

/// Sampling weights by the rewards of a bandit; see [`Variant`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Odm {
    /// What the rewards are and what they do.
    pub variant: Variant,
    /// a, from 0 to below 1: how much of the past an average of rewards keeps; of `linear` alone.
    pub smoothing: f64,
    /// What a loss is divided by to be a reward, above 0; of `gibbs` alone.
    pub reward_scale: f64,
    /// Steps on the prior. `None`: 2 % of the run, as 2,000 of 100,000 in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// p of the warm-up, by name. `None`: in proportion to the domains' tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<BTreeMap<String, f64>>,
}

/// What the rewards of [`Odm`] are and what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// R_i ← a R_i + (1 − a) e^{L_i}, p ∝ R: of the release.
    #[default]
    Linear,
    /// R_i ← R_i + (L_i/10) / p_i, p ∝ exp(ε R): of the paper.
    Gibbs,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Gibbs => "gibbs",
        }
    }
}

impl Default for Odm {
    fn default() -> Self {
        let variant = Variant::default();
        Self { variant, smoothing: 0.9, reward_scale: 10.0, warmup: None, prior: None }
    }
}

impl Odm {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        setup.check_smoothing("smoothing", self.smoothing)?;
        setup.check_positive("reward_scale", self.reward_scale)?;
        let prior = setup.prior(self.prior.as_ref(), |domain| domain.tokens as f64)?;
        let warmup = self.warmup.unwrap_or_else(|| setup.run.steps.div_ceil(50));
        // Rewards are collected from the first step on, and count once the warm-up is over.
        setup.check_first_update("warmup", warmup, warmup.max(1))?;
        let state = State { rewards: vec![None; prior.len()], prior };
        Ok(Box::new(Bandit { config: self.clone(), warmup, state }))
    }
}

/// [`Odm`] with its state.
#[derive(Debug)]
struct Bandit {
    config: Odm,
    warmup: u64,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// p of the warm-up.
    prior: Vec<f64>,
    /// ln R of `linear`, R of `gibbs`; `None` for a domain that was never drawn.
    rewards: Vec<Option<f64>>,
}

/// ε_t = min(1/K, √(ln K / (K t))).
fn exploration(domains: usize, t: u64) -> f64 {
    let k = domains as f64;
    // Of one domain it is 0, also after no steps, when √(0/0) is nothing.
    if domains < 2 { 0.0 } else { (1.0 / k).min((k.ln() / (k * t as f64)).sqrt()) }
}

/// ln(e^a + e^b).
fn log_sum(a: f64, b: f64) -> f64 {
    let largest = a.max(b);
    largest + ((a - largest).exp() + (b - largest).exp()).ln()
}

impl Bandit {
    fn sampling(&self, step: u64) -> Vec<f64> {
        let State { prior, rewards } = &self.state;
        let domains = prior.len();
        let known = rewards.iter().flatten().count();
        if step < self.warmup || known == 0 {
            return prior.clone();
        }
        let logarithms: Vec<f64> = match self.config.variant {
            Variant::Linear => {
                let sum = rewards.iter().copied().flatten().reduce(log_sum).unwrap_or(0.0);
                let mean = sum - (known as f64).ln();
                rewards.iter().map(|reward| reward.unwrap_or(mean)).collect()
            }
            Variant::Gibbs => {
                let rate = exploration(domains, step.saturating_sub(1));
                rewards.iter().map(|reward| rate * reward.unwrap_or(0.0)).collect()
            }
        };
        let Some(shares) = rule::softmax(&logarithms) else {
            return prior.clone();
        };
        let floor = exploration(domains, step);
        // The product with K may round above 1.
        let rest = (1.0 - domains as f64 * floor).max(0.0);
        shares.iter().map(|share| rest * share + floor).collect()
    }
}

impl Strategy for Bandit {
    fn describe(&self) -> String {
        let Odm { variant, smoothing, reward_scale, .. } = &self.config;
        let parameter = match variant {
            Variant::Linear => format!("smoothing {smoothing}"),
            Variant::Gibbs => format!("reward scale {reward_scale}"),
        };
        let (name, variant, warmup) = (ENTRY.name, variant.name(), self.warmup);
        format!("{name} {variant}, {parameter}, prior for {warmup} steps")
    }

    fn against_collapse(&self) -> &'static str {
        match self.config.variant {
            Variant::Linear => "`variant` = \"gibbs\", whose rewards do not grow as e^loss",
            Variant::Gibbs => "a larger `reward_scale`",
        }
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(self.sampling(context.step))
    }

    fn observe(&mut self, observation: &Observation) {
        let Odm { variant, smoothing, reward_scale, .. } = self.config;
        let sampling = self.sampling(observation.step);
        let seen = &observation.training;
        let sequences: usize = seen.iter().flatten().map(|seen| seen.count).sum();
        let rows = self.state.rewards.iter_mut().zip(seen).zip(&sampling);
        for ((reward, seen), p) in rows {
            let Some(seen) = seen.filter(|seen| seen.mean.is_finite() && seen.count > 0) else {
                continue;
            };
            let next = match variant {
                Variant::Linear => match *reward {
                    Some(last) => {
                        log_sum(smoothing.ln() + last, (1.0 - smoothing).ln() + seen.mean)
                    }
                    None => seen.mean,
                },
                Variant::Gibbs => {
                    let share = seen.count as f64 / sequences as f64;
                    reward.unwrap_or(0.0) + share * (seen.mean / reward_scale) / p
                }
            };
            if next.is_finite() {
                *reward = Some(next);
            }
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let prior = &self.state.prior;
        let domains = prior.len();
        self.state = saved::read(&self.describe(), state, |state: &State| {
            [
                ("prior", state.prior == *prior, format!("that of the config, {prior:?}")),
                (
                    "rewards",
                    last_losses::are_valid(&state.rewards, domains),
                    format!("{domains} rewards, finite where they are known"),
                ),
            ]
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;
    use crate::strategy::toy::{RUN, Toy, assert_close, losses, training};

    fn toy(text: &str) -> Toy {
        Toy::new(text, Slot::Sampling)
    }

    /// Losses of a toy run: of `math` at one step in three.
    fn seen(t: u64) -> Vec<Option<f64>> {
        let loss = |i: u64| 2.0 + i as f64 / 2.0 + ((t + 2 * i) as f64).sin() / 2.0;
        (0..3).map(|i| (i < 2 || t.is_multiple_of(3)).then(|| loss(i))).collect()
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // K, prior, warmup, a = 3, np.array([6000, 1500, 300]) / 7800, 5, 0.9
    // eps = lambda t: min(1 / K, np.sqrt(np.log(K) / (K * t))) if t else 1 / K
    // def losses(t):
    //     return {i: 2 + i / 2 + np.sin(t + 2 * i) / 2 for i in range(K) if i < 2 or t % 3 == 0}
    // R = np.full(K, np.nan)
    // for t in range(30):
    //     for i, loss in losses(t).items():
    //         R[i] = np.exp(loss) if np.isnan(R[i]) else a * R[i] + (1 - a) * np.exp(loss)
    // linear = (1 - K * eps(30)) * R / R.sum() + eps(30)
    // R, p = np.zeros(K), prior
    // for t in range(30):
    //     seen = losses(t)
    //     for i, loss in seen.items():
    //         R[i] += loss / 10 / p[i] / len(seen)
    //     if t + 1 >= warmup:
    //         G = np.exp(eps(t) * R)
    //         p = (1 - K * eps(t + 1)) * G / G.sum() + eps(t + 1)
    // print(linear.tolist(), p.tolist())
    #[test]
    fn both_trajectories_are_those_of_a_few_lines_of_python() {
        for (variant, expected) in [
            ("linear", [0.2494532225509412, 0.32993451285104447, 0.4206122645980144]),
            ("gibbs", [0.316898755114611, 0.38148004468919594, 0.30162120019619304]),
        ] {
            let mut toy =
                toy(&format!("{{ strategy = \"odm\", variant = \"{variant}\", warmup = 5 }}"));
            for t in 0..30 {
                toy.observe(&training(t, &seen(t)));
            }
            assert_close(&toy.proposal(30), &expected);
        }
    }

    #[test]
    fn the_prior_serves_for_two_percent_of_the_run() {
        let mut toy = toy("\"odm\"");
        let prior = [6000.0 / 7800.0, 1500.0 / 7800.0, 300.0 / 7800.0];
        assert_eq!(RUN.steps / 50, 24);
        for t in 0..24 {
            assert_close(&toy.proposal(t), &prior);
            toy.observe(&training(t, &seen(t)));
        }
        assert!((toy.proposal(24)[0] - prior[0]).abs() > 0.1);
    }

    #[test]
    fn with_losses_that_stay_the_sampling_weights_are_those_of_the_closed_form() {
        let fixed = [Some(1.0), Some(2.0), Some(1.5)];
        let rewards = [1.0f64, 2.0, 1.5].map(f64::exp);
        let sum: f64 = rewards.iter().sum();
        let mut linear = toy(r#"{ strategy = "odm", warmup = 0 }"#);
        let mut gibbs = toy(r#"{ strategy = "odm", variant = "gibbs", warmup = 0 }"#);
        for t in 0..1_000_u64 {
            linear.observe(&training(t, &fixed));
            // Counts that follow p, as stratified ones do: then R_i grows by L_i/10 a step.
            let mut observation = training(t, &fixed);
            let p = gibbs.proposal(t);
            for (i, seen) in observation.training.iter_mut().enumerate() {
                *seen = losses(&fixed, (p[i] * 1e12) as usize)[i];
            }
            gibbs.observe(&observation);
        }
        let floor = (3.0f64.ln() / 3_000.0).sqrt();
        let expected = rewards.map(|reward| (1.0 - 3.0 * floor) * reward / sum + floor);
        assert_close(&linear.proposal(1_000), &expected);
        let rate = (3.0f64.ln() / (3.0 * 999.0)).sqrt();
        let powers = [1.0, 2.0, 1.5].map(|loss| f64::exp(rate * 1_000.0 * loss / 10.0));
        let sum: f64 = powers.iter().sum();
        for (found, power) in gibbs.proposal(1_000).iter().zip(powers) {
            let expected = (1.0 - 3.0 * floor) * power / sum + floor;
            // Counts are whole numbers of 10⁻¹² of the batch.
            assert!((found - expected).abs() < 1e-8, "{found} {expected}");
        }
    }

    #[test]
    fn the_exploration_rate_is_that_of_the_paper() {
        assert_eq!(exploration(1, 0), 0.0);
        assert_eq!(exploration(8, 0), 0.125);
        // K ln K = 16.6 steps at 1/K.
        assert_eq!(exploration(8, 16), 0.125);
        assert!((exploration(8, 100) - (8.0f64.ln() / 800.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn losses_beyond_the_exponential_stay_finite() {
        let mut toy = toy(r#"{ strategy = "odm", warmup = 0 }"#);
        for t in 0..100 {
            toy.observe(&training(t, &[Some(1e3), Some(1e308), Some(-1e308)]));
        }
        let p = toy.proposal(100);
        assert!(p.iter().all(|p| p.is_finite()) && p[1] > 0.7, "{p:?}");
    }
}
