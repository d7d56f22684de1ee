//! A world: K domains, each also a target. With e = T r the effective shares of the tokens,
//!
//! L_i(r) = 2 + A_i e_i^(−β_i),   e_i = Σ_j T_ij r_j,   T_ii = 1.
//!
//! A power law in effective tokens with transfer between domains; log-linear in nothing. A_i is
//! drawn evenly on the logarithm from 0.35 to 1, β_i from 0.1 to 0.3, T_ij from 0 to 0.2: at K = 8
//! the uniform mixture is 0.016 nats from the best in the mean of ten worlds.

use cuvee_mixer::seed::CounterRng;
use cuvee_search::design::{Asked, DesignInput};
use cuvee_search::law::{Fitted, Gradient, LAWS, LawEntry, LawOptions, Observations, Point};
use cuvee_search::propose::{Aim, propose};
use cuvee_search::shares::uniform;
use cuvee_search::swarm::{Swarm, SwarmRun};
use serde_json::Value;

pub const WORLDS: u64 = 10;

#[derive(Clone)]
pub struct World {
    pub scale: Vec<f64>,
    pub power: Vec<f64>,
    pub transfer: Vec<Vec<f64>>,
}

impl World {
    pub fn new(domains: usize, seed: u64) -> Self {
        let rng = CounterRng::new(seed);
        let draw = |list: u64, from: f64, to: f64| -> Vec<f64> {
            let unit = |i: usize| rng.nested(list).unit(i as u64);
            (0..domains).map(|i| from + (to - from) * unit(i)).collect()
        };
        let scale = draw(0, 0.35f64.ln(), 0.0).into_iter().map(f64::exp).collect();
        let mut transfer: Vec<Vec<f64>> =
            (0..domains).map(|i| draw(2 + i as u64, 0.0, 0.2)).collect();
        (0..domains).for_each(|i| transfer[i][i] = 1.0);
        Self { scale, power: draw(1, 0.1, 0.3), transfer }
    }

    pub fn domains(&self) -> usize {
        self.scale.len()
    }

    pub fn target(&self, i: usize, shares: &[f64]) -> f64 {
        let effective: f64 = self.transfer[i].iter().zip(shares).map(|(t, r)| t * r).sum();
        2.0 + self.scale[i] * effective.max(1e-9).powf(-self.power[i])
    }

    /// Mean loss of the targets.
    pub fn loss(&self, shares: &[f64]) -> f64 {
        let losses = (0..self.domains()).map(|i| self.target(i, shares));
        losses.sum::<f64>() / self.domains() as f64
    }

    /// The best mixture: what a proposal from the truth itself finds.
    pub fn best(&self) -> Vec<f64> {
        let laws: Vec<Box<dyn Fitted>> = (0..self.domains())
            .map(|target| Box::new(Truth { world: self.clone(), target }) as Box<dyn Fitted>)
            .collect();
        let aim = Aim { kappa: 0.0, floor: 1e-6, ..self.aim() };
        propose(&laws, &aim, 0).unwrap().mixture
    }

    pub fn regret(&self, shares: &[f64]) -> f64 {
        self.loss(shares) - self.loss(&self.best())
    }

    pub fn aim(&self) -> Aim {
        let domains = self.domains();
        Aim {
            target_weights: uniform(domains),
            prior: uniform(domains),
            kappa: 0.01,
            caps: vec![1.0; domains],
            floor: 1e-4,
            ..Aim::default()
        }
    }

    pub fn design(&self, runs: usize, seed: u64) -> DesignInput {
        DesignInput {
            prior: uniform(self.domains()),
            caps: vec![1.0; self.domains()],
            runs,
            two_knob: 0,
            frozen: Vec::new(),
            seed,
        }
    }

    /// The runs of a design. A run's noise is the same for all its targets, as a seed's is.
    pub fn run(&self, asked: &[Asked], sigma: f64, seed: u64) -> Swarm {
        let rng = CounterRng::new(seed);
        let names: Vec<String> = (0..self.domains()).map(|i| format!("d{i}")).collect();
        let runs = asked.iter().enumerate().map(|(number, asked)| {
            let noise = sigma * rng.normal(number as u64);
            let targets = 0..self.domains();
            SwarmRun {
                name: format!("run-{number}"),
                kind: asked.kind.to_owned(),
                seed: asked.block as u64,
                block: asked.block,
                steps: 100,
                tokens: 1e6,
                sampling: asked.sampling.clone(),
                objective: asked.objective.clone(),
                seen: Vec::new(),
                tune: targets.map(|i| self.target(i, &asked.sampling) + noise).collect(),
                valid: Vec::new(),
                curve: Vec::new(),
            }
        });
        Swarm {
            targets: names.clone(),
            domains: names,
            available: Vec::new(),
            runs: runs.collect(),
        }
    }
}

/// A fit of every target.
pub fn fitted(swarm: &Swarm, law: &LawEntry) -> Vec<Box<dyn Fitted>> {
    let form = (law.make)(&LawOptions::default());
    let targets = 0..swarm.targets.len();
    targets.map(|target| form.fit(&Observations::of(swarm, target).unwrap()).unwrap()).collect()
}

pub fn law(name: &str) -> &'static LawEntry {
    LAWS.iter().find(|law| law.name == name).unwrap()
}

/// A target of a world as a law.
struct Truth {
    world: World,
    target: usize,
}

impl Fitted for Truth {
    fn predict(&self, point: &Point) -> f64 {
        self.world.target(self.target, &point.sampling)
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let World { scale, power, transfer } = &self.world;
        let (a, beta, t) = (scale[self.target], power[self.target], &transfer[self.target]);
        let effective: f64 = t.iter().zip(&point.sampling).map(|(t, r)| t * r).sum();
        let slope = -a * beta * effective.max(1e-9).powf(-beta - 1.0);
        let sampling = t.iter().map(|t| slope * t).collect();
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        Value::Null
    }
}
