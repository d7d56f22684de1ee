//! Worlds in which repeating harms: one good and scarce domain, three plentiful ones.
//!
//! What a domain brings is q_i N_i D(E_i), with D(E) = E up to one epoch and 1 + 5 (1 −
//! e^(−(E−1)/5)) beyond (Muennighoff et al., arXiv:2305.16264, with a shorter life); L = 2 + A (Σ
//! q_i N_i D_i / T)^(−β) + h ln²((1 + E)/(1 + 6)) summed over domains beyond 6 epochs. It is no
//! law's form.

use super::world::law;
use cuvee_mixer::seed::CounterRng;
use cuvee_search::design::{DesignInput, swarm};
use cuvee_search::law::{Fitted, LawOptions, Observations};
use cuvee_search::propose::{Aim, propose};
use cuvee_search::shares::{dirichlet, uniform};
use cuvee_search::swarm::{Swarm, SwarmRun};

struct Scarce {
    /// T/N_i.
    epochs_per_share: [f64; 4],
    quality: [f64; 4],
}

impl Scarce {
    fn new(seed: u64) -> Self {
        let rng = CounterRng::new(seed);
        let between = |i: u64, low: f64, high: f64| low + (high - low) * rng.unit(i);
        Self {
            epochs_per_share: [between(0, 25.0, 50.0), 0.8, 1.0, 0.5],
            quality: [between(1, 2.5, 4.0), 1.0, between(2, 0.4, 0.9), between(3, 0.4, 0.9)],
        }
    }

    fn loss(&self, shares: &[f64]) -> f64 {
        let (mut brought, mut harm) = (0.0, 0.0);
        for (i, share) in shares.iter().enumerate() {
            let epochs = share * self.epochs_per_share[i];
            let repeated = 5.0 * (1.0 - (-(epochs - 1.0).max(0.0) / 5.0).exp());
            brought += self.quality[i] * (epochs.min(1.0) + repeated) / self.epochs_per_share[i];
            harm += 0.1 * ((1.0 + epochs) / 7.0).ln().max(0.0).powi(2);
        }
        2.0 + 0.8 * brought.max(1e-3).powf(-0.25) + harm
    }

    /// By trying: 60,000 mixtures, the last half of them near the best of the first.
    fn least(&self) -> f64 {
        let rng = CounterRng::new(99);
        let mut best = uniform(4);
        for i in 0..60_000u64 {
            let sharpness = if i < 30_000 { 0.0 } else { 200.0 };
            let around: Vec<f64> = best.iter().map(|r| 0.7 + sharpness * r).collect();
            let shares = dirichlet(rng.nested(i), &around);
            if self.loss(&shares) < self.loss(&best) {
                best = shares;
            }
        }
        self.loss(&best)
    }

    fn run(&self, runs: usize, sigma: f64, seed: u64) -> Swarm {
        let design = DesignInput {
            prior: uniform(4),
            caps: vec![1.0; 4],
            runs,
            two_knob: 0,
            frozen: Vec::new(),
            seed,
        };
        let rng = CounterRng::new(200 + seed);
        let asked = swarm(&design).unwrap();
        let runs = asked.into_iter().enumerate().map(|(i, asked)| SwarmRun {
            name: i.to_string(),
            kind: asked.kind.into(),
            seed: 0,
            block: asked.block,
            steps: 1,
            tokens: 1.0,
            tune: vec![self.loss(&asked.sampling) + sigma * rng.normal(i as u64)],
            objective: asked.objective,
            sampling: asked.sampling,
            seen: Vec::new(),
            valid: Vec::new(),
            curve: Vec::new(),
        });
        Swarm {
            domains: (0..4).map(|i| i.to_string()).collect(),
            targets: vec!["all".into()],
            available: self.epochs_per_share.iter().map(|epochs| 1.0 / epochs).collect(),
            runs: runs.collect(),
        }
    }

    fn regret_of(&self, name: &str, seed: u64) -> f64 {
        let seen = self.run(32, 0.003, seed);
        let form = (law(name).make)(&LawOptions::default());
        let laws: Vec<Box<dyn Fitted>> =
            vec![form.fit(&Observations::of(&seen, 0).unwrap()).unwrap()];
        let aim = Aim {
            target_weights: vec![1.0],
            prior: uniform(4),
            kappa: 0.001,
            caps: vec![1.0; 4],
            epochs_per_share: self.epochs_per_share.into(),
            floor: 1e-4,
            ..Aim::default()
        };
        let found = propose(&laws, &aim, 0).unwrap();
        self.loss(&found.mixture) - self.least()
    }
}

const WORLDS: u64 = 6;

fn mean(name: &str) -> f64 {
    (0..WORLDS).map(|seed| Scarce::new(seed).regret_of(name, seed)).sum::<f64>() / WORLDS as f64
}

#[test]
fn exposure_finds_the_optimum_where_a_law_in_shares_misses_it() {
    let uniform: f64 = (0..WORLDS)
        .map(|seed| {
            let world = Scarce::new(seed);
            world.loss(&uniform(4)) - world.least()
        })
        .sum::<f64>()
        / WORLDS as f64;
    let [exposure, in_shares] = ["exposure", "two-knob"].map(mean);
    assert!(exposure < 0.01 && exposure < 0.3 * in_shares, "{exposure} {in_shares}");
    assert!(exposure < 0.3 * uniform, "{uniform}");
}
