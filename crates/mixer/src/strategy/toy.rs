//! One strategy on three domains, driven by hand: what the tests of single strategies share.

#![allow(clippy::unwrap_used)]
use super::{Context, Setup, Strategy, StrategySpec};
use crate::error::Result;
use crate::{DomainInfo, LossStatistics, LossWeights, Observation, RunSize, Simplex, Slot};
use serde::Deserialize;

pub(super) const RUN: RunSize = RunSize { steps: 1_200, batch_size: 8, context: 10, seed: 3 };

pub(super) struct Toy {
    pub(super) strategy: Box<dyn Strategy>,
    domains: Vec<DomainInfo>,
}

#[derive(Deserialize)]
struct Wrapped {
    value: StrategySpec,
}

impl Toy {
    /// 600, 150 and 30 windows.
    pub(super) fn domains() -> Vec<DomainInfo> {
        let sizes = [("web", 6_000), ("code", 1_500), ("math", 300)];
        sizes.map(|(name, tokens)| DomainInfo::new(name, tokens)).to_vec()
    }

    /// `count` domains of one size, called `d0`, `d1`, ….
    pub(super) fn equal_domains(count: usize) -> Vec<DomainInfo> {
        (0..count).map(|i| DomainInfo::new(&format!("d{i}"), 1_000)).collect()
    }

    pub(super) fn build(
        text: &str,
        slot: Slot,
        domains: &[DomainInfo],
    ) -> Result<Box<dyn Strategy>> {
        Self::build_for(text, slot, domains, &RUN)
    }

    pub(super) fn build_for(
        text: &str,
        slot: Slot,
        domains: &[DomainInfo],
        run: &RunSize,
    ) -> Result<Box<dyn Strategy>> {
        let wrapped: Wrapped = toml::from_str(&format!("value = {text}")).unwrap();
        wrapped.value.build(&Setup { slot, domains, run })
    }

    pub(super) fn of(text: &str, slot: Slot, domains: Vec<DomainInfo>) -> Self {
        Self { strategy: Self::build(text, slot, &domains).unwrap(), domains }
    }

    pub(super) fn new(text: &str, slot: Slot) -> Self {
        Self::of(text, slot, Self::domains())
    }

    pub(super) fn proposal(&self, step: u64) -> Vec<f64> {
        let raw: Vec<f64> = self.domains.iter().map(|domain| domain.importance).collect();
        let names: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        let importance = Simplex::normalise("importance", &names, &raw).unwrap();
        let ones = LossWeights::ones(names.len());
        let (domains, loss_weight) = (self.domains.as_slice(), Some(&ones));
        let context = Context { step, domains, importance: &importance, loss_weight };
        self.strategy.propose(&context).unwrap()
    }

    pub(super) fn observe(&mut self, observation: &Observation) {
        self.strategy.observe(observation);
    }
}

/// Statistics of `count` sequences a domain that is there.
pub(super) fn losses(means: &[Option<f64>], count: usize) -> Vec<Option<LossStatistics>> {
    let of = |mean: f64| LossStatistics { mean, variance: 0.0, count };
    means.iter().map(|mean| mean.map(of)).collect()
}

/// A step of one sequence a domain with these losses.
pub(super) fn training(step: u64, means: &[Option<f64>]) -> Observation {
    let mut observation = Observation::of_step(step, means.len(), &[], &[]);
    observation.training = losses(means, 1);
    observation
}

/// A step after which the `tune` split had these losses.
pub(super) fn held_out(step: u64, means: &[Option<f64>]) -> Observation {
    Observation::of_step(step, means.len(), &[], &[]).with_held_out(losses(means, 30))
}

pub(super) fn assert_close(found: &[f64], expected: &[f64]) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(found.len() == expected.len() && near, "{found:?} is not {expected:?}");
}
