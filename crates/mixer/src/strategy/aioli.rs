//! Aioli: sampling weights for the domains that lower the losses of all the most, learned by
//! perturbing the mixture.
//!
//! Source: Chen, Hu, Lourie, Cho, Ré, *Aioli: A Unified Optimization Framework for Language Model
//! Data Mixing*, arXiv:2411.05735, and its released code. Its model of a few steps is L_i(t) −
//! L_i(t + 1) = Σ_j A_ij p_j. Every `every` steps A is learned anew: `rounds` times, for each
//! domain j in an order drawn from the seed and the names, `lp_steps` steps are sampled at the
//! mixture that gives j the share ρ and the others (1 − ρ)/(K − 1) each, and what the held-out
//! losses fall by is B[:, j]. With W the matrix of these mixtures, A solves W A_i = B_i/rounds, and
//!
//! p_j ← p_j · exp(η Σ_i A_ij), normalised, until the next learning phase.
//!
//! Since all mixtures but for one share are alike, A_ij = (B_ij − u Σ_k B_ik) / (ρ − u) with u = (1
//! − ρ)/(K − 1). The update takes Σ_i A_ij alone, which is the same for Σ_i B_ij: so much is kept,
//! one number a domain and not K². `rounds`, ρ, η and `every` are those of its runs on SlimPajama,
//! where of 200 steps 140 were learning.
//!
//! A learning phase begins `lp_steps` steps after the start of the run, where the first measurement
//! is, and then every `every` steps. The held-out losses are measured every `lp_steps` steps
//! throughout, also where no learning phase is, and always on the same windows, since differences
//! of other windows would drown the falls; beside a loss rule that asks for those each time it
//! is refused. A domain without a measurement at either end of a perturbation is taken to fall by
//! the mean of the others.
//!
//! It changes what is trained on, so it needs `objective = "sampled"`, and starts at even shares.
//! Where `max_epochs` holds a domain, it is not perturbed as far as W says.
//!
//! In: losses on the `tune` split, every `lp_steps` steps. Out: p. State: five numbers a domain.
//! Costs a measurement every `lp_steps` steps, and K · rounds · lp_steps of each `every` steps at
//! mixtures that nobody asked for: a run that is not many times as long is all perturbation. Known
//! weakness: falls over ten steps are small against their noise; a large learning rate swamps them.
//! The paper finds it better than even sampling in 6 of 6 settings, by 0.27 of a perplexity point
//! on average.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::last_losses::{self, filled};
use super::log_shares::LogShares;
use super::saved;
use crate::error::Result;
use crate::measurements::ObservationRequest;
use crate::observation::Observation;
use crate::rule;
use crate::seed::{self, CounterRng};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "aioli",
    slots: Slots::Sampling,
    summary: "by what each domain lowers the held-out losses of all by, learned by perturbing p: p ← p·exp(step·Σ_i A_ij)",
    source: "arXiv:2411.05735",
    example: r#"{ strategy = "aioli", rounds = 2, lp_steps = 10, rho = 0.75, step = 1, epsilon = 0 }"#,
    objectives: SAMPLED_ALONE,
};

/// p_j ← p_j · exp(η Σ_i A_ij) after each learning phase of A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aioli {
    /// Times that each domain is perturbed in a learning phase, at least 1.
    pub rounds: u64,
    /// Steps of one perturbation, at least 1.
    pub lp_steps: u64,
    /// ρ: the share of the domain that is perturbed, above 1/K and below 1, so that the others are
    /// still sampled.
    pub rho: f64,
    /// η, above 0.
    pub step: f64,
    /// Steps from one learning phase to the next, a multiple of `lp_steps` that is longer than the
    /// phase. `None`: 200, or so many that the phase is 70 % of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// The share of the batch that is spread evenly between learning phases, from 0 to 1.
    /// **Derived**: 0 is as published.
    pub epsilon: f64,
    /// Where p starts, by name. `None`: even.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior: Option<BTreeMap<String, f64>>,
}

impl Default for Aioli {
    fn default() -> Self {
        Self {
            rounds: 2,
            lp_steps: 10,
            rho: 0.75,
            step: 1.0,
            every: None,
            epsilon: 0.0,
            prior: None,
        }
    }
}

/// Sub-seed of the order of perturbations.
const ORDER: &str = "aioli";

impl Aioli {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        if self.rounds == 0 {
            return Err(setup.bad_parameter("rounds", 0, "at least 1"));
        }
        setup.check_steps("lp_steps", self.lp_steps)?;
        let domains = setup.domains.len();
        let phase = self.lp_steps.saturating_mul(self.rounds).saturating_mul(domains as u64);
        if phase > u64::from(u32::MAX) {
            let expected = "domains · rounds · lp_steps to be at most 4294967295";
            return Err(setup.bad_parameter("lp_steps", self.lp_steps, expected));
        }
        // A domain alone has no even share to go above.
        let (even, words) = match domains {
            1 => (0.0, "a number above 0 and below 1".to_owned()),
            _ => (
                1.0 / domains as f64,
                format!(
                    "a number above 1/{domains}, an even share, and below 1, which would leave \
                     nothing for the other domains"
                ),
            ),
        };
        if !(self.rho > even && self.rho < 1.0) {
            return Err(setup.bad_parameter("rho", self.rho, &words));
        }
        setup.check_positive("step", self.step)?;
        let multiple = |steps: u64| steps.div_ceil(self.lp_steps) * self.lp_steps;
        let every = self.every.unwrap_or_else(|| multiple((phase * 10).div_ceil(7).max(200)));
        if every <= phase || !every.is_multiple_of(self.lp_steps) {
            let expected = format!(
                "a multiple of lp_steps = {} above domains · rounds · lp_steps = {phase}",
                self.lp_steps
            );
            return Err(setup.bad_parameter("every", every, &expected));
        }
        if !(0.0..=1.0).contains(&self.epsilon) {
            return Err(setup.bad_parameter("epsilon", self.epsilon, "a number from 0 to 1"));
        }
        let first = self.lp_steps.saturating_add(phase);
        setup.check_first_update("lp_steps", self.lp_steps, first)?;
        let prior = setup.prior(self.prior.as_ref(), |_| 1.0)?;
        let root = seed::derive(setup.run.seed, ORDER);
        let key = |domain: &&str| CounterRng::new(seed::derive(root, domain));
        Ok(Box::new(Perturbing {
            config: self.clone(),
            every,
            keys: setup.names().iter().map(key).collect(),
            state: State {
                log_sampling: LogShares::new(&prior),
                falls: vec![None; domains],
                times: vec![0; domains],
                before: vec![None; domains],
                measured: None,
            },
        }))
    }
}

/// [`Aioli`] with its state.
#[derive(Debug)]
struct Perturbing {
    config: Aioli,
    every: u64,
    /// Of each domain's places in the orders.
    keys: Vec<CounterRng>,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// ln p between learning phases.
    log_sampling: LogShares,
    /// Σ_i B_ij of this learning phase.
    falls: Vec<Option<f64>>,
    /// How often each domain's perturbation was measured in it.
    times: Vec<u64>,
    /// The losses of the last measurement.
    before: Vec<Option<f64>>,
    /// The steps that were done then.
    measured: Option<u64>,
}

impl Perturbing {
    fn domains(&self) -> usize {
        self.keys.len()
    }

    /// Perturbations in a learning phase.
    fn perturbations(&self) -> u64 {
        self.domains() as u64 * self.config.rounds
    }

    /// The learning phase after `done` steps, and the steps since its begin; none before the first.
    fn place(&self, done: u64) -> Option<(u64, u64)> {
        let since = done.checked_sub(self.config.lp_steps)?;
        Some((since / self.every, since % self.every))
    }

    /// The domain of perturbation number `nth` of a learning phase.
    fn perturbed(&self, phase: u64, nth: u64) -> usize {
        let domains = self.domains() as u64;
        let round = phase.wrapping_mul(self.config.rounds).wrapping_add(nth / domains);
        let mut order: Vec<usize> = (0..self.domains()).collect();
        order.sort_by_key(|domain| self.keys[*domain].bits(round));
        order[(nth % domains) as usize]
    }

    /// The shares that a perturbation gives the other domains.
    fn others(&self) -> f64 {
        match self.domains() {
            1 => 0.0,
            domains => (1.0 - self.config.rho) / (domains - 1) as f64,
        }
    }

    /// The domain that is perturbed at `step`, in a learning phase.
    fn trial(&self, step: u64) -> Option<usize> {
        let (phase, since) = self.place(step)?;
        let nth = since / self.config.lp_steps;
        (nth < self.perturbations()).then(|| self.perturbed(phase, nth))
    }

    fn sampling(&self, step: u64) -> Vec<f64> {
        if let Some(domain) = self.trial(step) {
            let mut mixture = vec![self.others(); self.domains()];
            mixture[domain] = self.config.rho;
            return mixture;
        }
        rule::with_floor(&self.state.log_sampling.shares(), self.config.epsilon)
    }

    /// Takes in the fall of the losses since the last measurement, which the perturbation of
    /// `domain` brought about.
    fn fell(&mut self, domain: usize, now: &[Option<f64>]) {
        let pairs = self.state.before.iter().zip(now);
        let falls: Vec<Option<f64>> =
            pairs.map(|(before, now)| before.zip(*now).map(|(before, now)| before - now)).collect();
        let fall: f64 = filled(&falls).unwrap_or_default().iter().sum();
        let sum = self.state.falls[domain].unwrap_or(0.0) + fall;
        if falls.iter().any(Option::is_some) && sum.is_finite() {
            self.state.falls[domain] = Some(sum);
            self.state.times[domain] += 1;
        }
    }

    /// The end of a learning phase.
    fn update(&mut self) {
        let State { falls, times, .. } = &self.state;
        let mean = |(fall, times): (&Option<f64>, &u64)| fall.map(|fall| fall / *times as f64);
        let means: Vec<Option<f64>> = falls.iter().zip(times).map(mean).collect();
        if let Some(columns) = filled(&means) {
            // Σ_i A_ij = (Σ_i B_ij − u Σ_ik B_ik) / (ρ − u); the same of all drops out.
            let rate = self.config.step / (self.config.rho - self.others());
            let mean: f64 = columns.iter().map(|fall| fall / columns.len() as f64).sum();
            let exponents: Vec<f64> = columns.iter().map(|fall| rate * (fall - mean)).collect();
            self.state.log_sampling.multiply(&exponents);
        }
    }
}

impl Strategy for Perturbing {
    fn describe(&self) -> String {
        let Aioli { rounds, lp_steps, rho, step, epsilon, .. } = &self.config;
        let (name, every) = (ENTRY.name, self.every);
        format!(
            "{name}, {rounds} rounds of {lp_steps} steps a domain every {every} steps, rho {rho}, \
             step {step}, epsilon {epsilon}"
        )
    }

    fn is_trial(&self, step: u64) -> bool {
        self.trial(step).is_some()
    }

    fn against_collapse(&self) -> &'static str {
        "a smaller `step`, a larger `epsilon`, or more `rounds`"
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(self.sampling(context.step))
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest {
            held_out_every: Some(self.config.lp_steps),
            ..ObservationRequest::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let lp_steps = self.config.lp_steps;
        let done = observation.step.saturating_add(1);
        let mut now = vec![None; self.domains()];
        let Some((phase, since)) = self.place(done) else {
            return;
        };
        let boundary = since.is_multiple_of(lp_steps) && since / lp_steps <= self.perturbations();
        if !boundary || !last_losses::remember(&mut now, &observation.held_out) {
            return;
        }
        let nth = since / lp_steps;
        if nth == 0 {
            let domains = self.domains();
            (self.state.falls, self.state.times) = (vec![None; domains], vec![0; domains]);
        } else if self.state.measured.and_then(|before| done.checked_sub(before)) == Some(lp_steps)
        {
            self.fell(self.perturbed(phase, nth - 1), &now);
        }
        (self.state.before, self.state.measured) = (now, Some(done));
        if nth == self.perturbations() {
            self.update();
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.domains();
        self.state = saved::read(&self.describe(), state, |state: &State| {
            let State { falls, times, .. } = state;
            let counted = times.len() == domains
                && times.iter().all(|times| *times <= self.config.rounds)
                && times.iter().zip(falls).all(|(times, fall)| (*times > 0) == fall.is_some());
            [
                (
                    "log_sampling",
                    state.log_sampling.is_valid(domains),
                    format!("logarithms of {domains} shares, the largest 0"),
                ),
                (
                    "falls",
                    last_losses::are_valid(falls, domains),
                    format!("{domains} numbers, finite where they are known"),
                ),
                (
                    "times",
                    counted,
                    format!("{domains} numbers up to the rounds, 0 where no fall is known"),
                ),
                (
                    "before",
                    last_losses::are_valid(&state.before, domains),
                    format!("{domains} losses, finite where they are known"),
                ),
            ]
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::strategy::toy::{RUN, Toy, assert_close, held_out};
    use crate::{RunSize, Slot};

    const TEXT: &str = r#"{ strategy = "aioli", lp_steps = 2, every = 20, step = 1.5 }"#;

    fn toy(text: &str) -> Toy {
        Toy::of(text, Slot::Sampling, Toy::equal_domains(3))
    }

    /// A model whose losses fall by A p at every step, over `steps` steps; the mixtures it saw.
    fn train(toy: &mut Toy, a: [[f64; 3]; 3], from: u64, steps: u64) -> Vec<Vec<f64>> {
        let mut losses = [9.0; 3];
        (from..from + steps)
            .map(|step| {
                let p = toy.proposal(step);
                for (loss, row) in losses.iter_mut().zip(a) {
                    *loss -= row.iter().zip(&p).map(|(a, p)| a * p).sum::<f64>();
                }
                // Measured as the request says.
                let means = match (step + 1) % 2 {
                    0 => losses.map(Some).to_vec(),
                    _ => Vec::new(),
                };
                toy.observe(&held_out(step, &means));
                p
            })
            .collect()
    }

    const A: [[f64; 3]; 3] = [[0.02, 0.01, 0.0], [0.005, 0.03, 0.0], [-0.01, 0.02, 0.01]];

    // The expected numbers are what this prints; losses that are linear in p let it solve for A in
    // any order of perturbations:
    //
    // import numpy as np
    // A = np.array([[0.02, 0.01, 0], [0.005, 0.03, 0], [-0.01, 0.02, 0.01]])
    // K, rounds, lp_steps, rho, eta = 3, 2, 2, 0.75, 1.5
    // p = np.ones(K) / K
    // W = np.full((K, K), (1 - rho) / (K - 1)) + (rho - (1 - rho) / (K - 1)) * np.eye(K)
    // for phase in range(3):
    //     B = np.zeros((K, K))
    //     for _ in range(rounds):
    //         for j in np.random.permutation(K):
    //             B[:, j] += lp_steps * A @ W[j]
    //     found = np.array([np.linalg.solve(W, B[i] / rounds) for i in range(K)])
    //     assert np.allclose(found, lp_steps * A)
    //     p = p * np.exp(eta * found.sum(axis=0))
    //     p /= p.sum()
    // print(p.tolist())
    #[test]
    fn a_known_linear_model_is_learned_and_followed() {
        let mut toy = toy(TEXT);
        let seen = train(&mut toy, A, 0, 56);
        // Three learning phases, at 2, 22 and 42, of 12 steps each.
        assert_close(&seen[55], &[0.2894104723877123, 0.43391384479350686, 0.27667568281878097]);
        assert_close(&seen[1], &[1.0 / 3.0; 3]);
        for (step, mixture) in seen.iter().enumerate() {
            let perturbed = step >= 2 && (step - 2) % 20 < 12;
            let count = mixture.iter().filter(|p| (**p - 0.75).abs() < 1e-12).count();
            assert_eq!(count == 1, perturbed, "{step} {mixture:?}");
        }
    }

    #[test]
    fn each_domain_is_perturbed_once_a_round_in_an_order_of_its_own() {
        let seen = train(&mut toy(TEXT), A, 0, 400);
        let mut orders = std::collections::BTreeSet::new();
        for phase in 0..19 {
            for round in 0..2 {
                let begin = 2 + 20 * phase + 6 * round;
                let of = |step: usize| seen[step].iter().position(|p| *p == 0.75).unwrap();
                let order: Vec<usize> = (0..3).map(|nth| of(begin + 2 * nth)).collect();
                assert!((0..3).all(|nth| of(begin + 2 * nth + 1) == order[nth]));
                assert!((0..3).all(|domain| order.contains(&domain)), "{order:?}");
                orders.insert(order);
            }
        }
        // All six; one is missed in 38 orders once in 6·(5/6)³⁸ = 160 seeds.
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn domains_that_help_alike_keep_their_shares() {
        let alike = [[0.03, 0.0, 0.01], [0.0, 0.03, 0.01], [0.01, 0.01, 0.02]];
        let mut toy = toy(TEXT);
        let seen = train(&mut toy, alike, 0, 100);
        assert_close(&seen[99], &[1.0 / 3.0; 3]);
    }

    #[test]
    fn a_measurement_that_is_missing_leaves_its_perturbations_out() {
        let mut whole = toy(TEXT);
        let mut holed = toy(TEXT);
        train(&mut whole, A, 0, 22);
        let mut losses = [9.0; 3];
        for step in 0..22 {
            let p = holed.proposal(step);
            for (loss, row) in losses.iter_mut().zip(A) {
                *loss -= row.iter().zip(&p).map(|(a, p)| a * p).sum::<f64>();
            }
            // Nothing at step 7, and one domain unusable at step 11: of linear losses the rest says
            // the same, but for the mean of the two that are known.
            let mut means = losses.map(Some).to_vec();
            if step == 7 {
                means.clear();
            }
            holed.observe(&held_out(step, if step % 2 == 1 { &means } else { &[] }));
        }
        assert_close(&holed.proposal(21), &whole.proposal(21));
    }

    #[test]
    fn intervals_that_leave_no_room_for_learning_are_refused() {
        let message = |text: &str, count: usize| {
            Toy::build(text, Slot::Sampling, &Toy::equal_domains(count)).unwrap_err().to_string()
        };
        let short = message(r#"{ strategy = "aioli", every = 60 }"#, 3);
        assert!(short.contains("sampling.every is 60") && short.contains("= 60"), "{short}");
        let odd = message(r#"{ strategy = "aioli", every = 205 }"#, 3);
        assert!(odd.contains("a multiple of lp_steps = 10"), "{odd}");
        for (rho, count, expected) in [
            ("0.5", 2, "above 1/2, an even share, and below 1"),
            ("1", 2, "above 1/2, an even share, and below 1"),
            ("1", 1, "above 0 and below 1"),
            ("nan", 1, "above 0 and below 1"),
        ] {
            let rho = message(&format!("{{ strategy = \"aioli\", rho = {rho} }}"), count);
            assert!(rho.contains("sampling.rho is") && rho.contains(expected), "{rho}");
        }
        let long = message(r#"{ strategy = "aioli", lp_steps = 9000000000000000000 }"#, 3);
        assert!(long.contains("sampling.lp_steps"), "{long}");
        // By default a phase of 140 steps is 70 % of 200, as published for 7 domains.
        for (count, every) in [(1, 200), (7, 200), (8, 230), (300, 8_580)] {
            let run = RunSize { steps: 10_000, ..RUN };
            let domains = Toy::equal_domains(count);
            let built = Toy::build_for("\"aioli\"", Slot::Sampling, &domains, &run).unwrap();
            assert!(built.describe().contains(&format!("every {every} steps")), "{built:?}");
        }
    }
}
