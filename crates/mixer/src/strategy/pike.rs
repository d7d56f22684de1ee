//! PiKE: sampling weights for the tasks whose gradients are large and whose noise is small, by the
//! statistics that [`va`](super::va) takes.
//!
//! Source: *PiKE: Adaptive Data Mixing for Large-Scale Multi-Task Learning Under Low Gradient
//! Conflicts*, arXiv:2502.06244, its main text. Every T₀ steps, for a batch of b sequences,
//!
//! p_i ← p_i · exp(ζ₁ ‖∇L_i‖² − ζ₂ σ_i² / (2b)), normalised, with ζ₂ / ζ₁ = Lη/β,
//!
//! or, in closed form, w_k = max(0, −(μ + λ_k)/κ_k), λ_k = −ηβ‖∇L_k‖² + Lη²σ_k²/(2b), κ_k =
//! Lη²γ‖∇L_k‖², μ from Σ w = 1.
//!
//! Two things are **derived**. The published balanced variant multiplies the loss L_k by
//! τ·softmax(τL)_k; here the statistics alone are scaled, ‖∇L_k‖² and σ_k² by the square of that
//! factor, and the loss that is trained on stays as it is. And ‖∇L‖² differs by orders of magnitude
//! between models and estimators, and with it ζ₁. So the exponents are divided by the mean over the
//! domains of ‖∇L‖² + ζ₂/ζ₁ σ²/(2b) at the first update, and `step` is ζ₁ on that scale. The mean
//! of ‖∇L‖² alone would not do: it is a difference of estimates, which may be next to 0 by chance.
//! The closed form has no scale.
//!
//! ζ₁, T₀, L, β and γ stand in its appendices, which were not at hand: they are parameters whose
//! defaults are **unverified**. The paper says itself that plain mixing has the lower perplexity at
//! 750M parameters: it aims at downstream tasks.
//!
//! In: per-domain gradient statistics of the steps that collect them, and for the balanced variant
//! training losses. Out: p. State: p, the memory of `va`, one loss a domain, the scale. Costs what
//! the estimator of the variance costs.

use super::interface::{Context, SAMPLED_ALONE, Setup, Strategy, StrategyEntry};
use super::mean_shares::are_shares;
use super::va::collect_every;
use crate::domain::DomainId;
use crate::error::{MixerError, Result};
use crate::measurements::{GradientRequest, Measurements, ObservationRequest, VarianceEstimator};
use crate::observation::Observation;
use crate::rule::{self, GradientMemory};
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "pike",
    slots: Slots::Sampling,
    summary: "large gradients and little noise: p ← p·exp(step·(‖∇L‖² − noise_ratio·σ²/(2·batch_size))), every `every` steps",
    source: "arXiv:2502.06244; step, noise_ratio, every, gamma unverified, scale, balance, epsilon derived",
    example: r#"{ strategy = "pike", step = 1, noise_ratio = 1, epsilon = 0.01, form = "practical", smoothing = 0.9, variance = "norm-layers" }"#,
    objectives: SAMPLED_ALONE,
};

/// p_i ← p_i · exp(ζ₁ ‖∇L_i‖² − ζ₂ σ_i² / (2b)), normalised, every T₀ steps; see [`rule::pike()`]
/// and [`rule::pike_closed()`]. Starts at even shares.
///
/// ‖∇L_i‖² is the mean squared norm of single sequences' gradients less σ_i², their variance:
/// without bias, and not below 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pike {
    /// ζ₁, above 0, of exponents on the scale of the first update, so that neither the model's size
    /// nor the estimator changes what it means. The scale is **derived**, the default
    /// **unverified**: none of the paper was at hand.
    pub step: f64,
    /// r = ζ₂ / ζ₁ = Lη/β, at least 0, in the closed form above 0: how much noise counts against a
    /// domain. **Unverified**, as `step`.
    pub noise_ratio: f64,
    /// T₀: steps between updates, at least 1. `None`: a twentieth of the run, at most 100.
    /// **Unverified**, as `step`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// The share of the batch that is spread evenly, above 0 and at most 1, so that no domain goes
    /// unobserved for good. **Derived**: the paper has none.
    pub epsilon: f64,
    /// The practical rule or the closed form.
    pub form: Form,
    /// γ in κ, above 0; of the closed form alone. **Unverified**, as `step`.
    pub gamma: f64,
    /// τ of the balanced variant, above 0, 3 in the paper at 1B; `None`: not balanced. **Derived**:
    /// only the statistics are scaled, not the loss that is trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<f64>,
    /// How much of the past a step that collects keeps in the moving averages of gradients and
    /// losses, from 0 to below 1.
    pub smoothing: f64,
    /// How gradients are estimated.
    pub variance: VarianceEstimator,
    /// One step in so many collects, at least 1. `None`: each, but of `sketch` one in 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure_every: Option<u64>,
}

/// What turns statistics into sampling weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The multiplicative rule, which goes on from the last weights.
    #[default]
    Practical,
    /// The minimum of the bound, which forgets them.
    Closed,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Practical => "practical",
            Self::Closed => "closed",
        }
    }
}

impl Default for Pike {
    fn default() -> Self {
        Self {
            step: 1.0,
            noise_ratio: 1.0,
            every: None,
            epsilon: 0.01,
            form: Form::default(),
            gamma: 1.0,
            balance: None,
            smoothing: 0.9,
            variance: VarianceEstimator::default(),
            measure_every: None,
        }
    }
}

impl Pike {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let checks = [
            ("step", self.step, positive(self.step), "a finite number above 0"),
            match self.form {
                Form::Practical => {
                    let fits = self.noise_ratio == 0.0 || positive(self.noise_ratio);
                    ("noise_ratio", self.noise_ratio, fits, "a finite number of at least 0")
                }
                Form::Closed => (
                    "noise_ratio",
                    self.noise_ratio,
                    positive(self.noise_ratio),
                    "a finite number above 0, as the closed form divides by it",
                ),
            },
            (
                "epsilon",
                self.epsilon,
                self.epsilon > 0.0 && self.epsilon <= 1.0,
                "a number above 0 and at most 1",
            ),
            ("gamma", self.gamma, positive(self.gamma), "a finite number above 0"),
            (
                "balance",
                self.balance.unwrap_or(1.0),
                self.balance.is_none_or(positive),
                "a finite number above 0",
            ),
            (
                "smoothing",
                self.smoothing,
                (0.0..1.0).contains(&self.smoothing),
                "a number from 0 to below 1",
            ),
        ];
        if let Some((key, value, _, expected)) = checks.iter().find(|(_, _, fits, _)| !fits) {
            return Err(setup.bad_parameter(key, value, expected));
        }
        let every = setup.update_every(self.every)?;
        if self.measure_every == Some(0) {
            return Err(setup.bad_parameter("measure_every", 0, "1 or more steps"));
        }
        let domains = setup.domains.len();
        Ok(Box::new(Tasks {
            config: self.clone(),
            every,
            seed: setup.run.seed,
            batch_size: setup.run.batch_size,
            state: State {
                sampling: vec![1.0 / domains.max(1) as f64; domains],
                memory: GradientMemory::new(domains),
                losses: vec![None; domains],
                scale: None,
            },
        }))
    }
}

/// [`Pike`] with its state.
#[derive(Debug)]
struct Tasks {
    config: Pike,
    every: u64,
    seed: u64,
    batch_size: usize,
    state: State,
}

/// What is known, and what was made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// p, each at least ε/K.
    sampling: Vec<f64>,
    memory: GradientMemory,
    /// L_i, smoothed; of the balanced variant alone.
    losses: Vec<Option<f64>>,
    /// What the exponents of the multiplicative rule are divided by, once there was an update.
    scale: Option<f64>,
}

impl Tasks {
    /// p from what is known, and the scale of the multiplicative rule; `None` while nothing is
    /// known that is above 0.
    fn updated(&self) -> Option<(Vec<f64>, Option<f64>)> {
        let Pike { step, noise_ratio, epsilon, gamma, .. } = self.config;
        let (mut signal, mut noise) = rule::signal_and_noise(self.state.memory.moments())?;
        for ((signal, noise), factor) in signal.iter_mut().zip(&mut noise).zip(self.balance()) {
            *signal *= factor * factor;
            *noise *= factor * factor;
        }
        let batch_size = self.batch_size;
        Some(match self.config.form {
            Form::Practical => {
                let first = || rule::pike_scale(&signal, &noise, noise_ratio, batch_size);
                let scale = self.state.scale.or_else(first)?;
                let (shares, rates) = (&self.state.sampling, (step / scale, noise_ratio));
                (rule::pike(shares, &signal, &noise, rates, batch_size, epsilon), Some(scale))
            }
            Form::Closed => {
                let ratios = (noise_ratio, gamma);
                (rule::pike_closed(&signal, &noise, ratios, batch_size, epsilon), None)
            }
        })
    }

    /// τ·softmax(τL), 1 where the rule is not balanced; an unknown loss counts as the mean.
    fn balance(&self) -> Vec<f64> {
        let losses = &self.state.losses;
        let known: Vec<f64> = losses.iter().copied().flatten().collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        let balanced = self.config.balance.and_then(|tau| {
            let scaled: Vec<f64> = losses.iter().map(|loss| tau * loss.unwrap_or(mean)).collect();
            Some(rule::softmax(&scaled)?.iter().map(|share| tau * share).collect())
        });
        balanced.unwrap_or_else(|| vec![1.0; losses.len()])
    }

    fn floor(&self) -> f64 {
        self.config.epsilon / self.state.sampling.len().max(1) as f64
    }
}

impl Strategy for Tasks {
    fn describe(&self) -> String {
        let Pike { step, noise_ratio, epsilon, form, gamma, smoothing, variance, .. } =
            &self.config;
        let rates = match form {
            Form::Practical => format!("step {step}"),
            Form::Closed => format!("gamma {gamma}"),
        };
        let balance = self.config.balance.map_or(String::new(), |tau| format!(", balance {tau}"));
        let every = self.every;
        let measured = self.config.measure_every.unwrap_or_else(|| collect_every(*variance));
        format!(
            "{} {}, {rates}, noise ratio {noise_ratio}, every {every} steps, epsilon {epsilon}, smoothing {smoothing}, variance {} every {measured} steps{balance}",
            ENTRY.name,
            form.name(),
            variance.name(),
        )
    }

    fn against_collapse(&self) -> &'static str {
        "a larger `epsilon` or `smoothing`, or a smaller `step`"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.state.sampling.clone())
    }

    fn observation_request(&self) -> ObservationRequest {
        let estimator = self.config.variance;
        let every = self.config.measure_every.unwrap_or_else(|| collect_every(estimator));
        let gradient = Some(GradientRequest { estimator, every, seed: Some(self.seed) });
        ObservationRequest { gradient, ..ObservationRequest::default() }
    }

    fn measurements(&self, _context: &Context) -> Measurements {
        let shares = self.state.sampling.iter().enumerate();
        let floored = shares.filter(|(_, p)| **p < 2.0 * self.floor());
        Measurements {
            gradient_deviation: rule::deviations(self.state.memory.moments()),
            floored: floored.map(|(index, _)| DomainId(index)).collect(),
            ..Measurements::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let smoothing = self.config.smoothing;
        self.state.memory.observe(&observation.gradient, smoothing);
        if self.config.balance.is_some() {
            for (known, seen) in self.state.losses.iter_mut().zip(&observation.training) {
                let Some(loss) = seen.map(|seen| seen.mean).filter(|mean| mean.is_finite()) else {
                    continue;
                };
                *known = Some(match *known {
                    Some(known) => smoothing * known + (1.0 - smoothing) * loss,
                    None => loss,
                });
            }
        }
        if observation.step.saturating_add(1).is_multiple_of(self.every)
            && let Some((sampling, scale)) = self.updated()
        {
            (self.state.sampling, self.state.scale) = (sampling, scale);
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.state.sampling.len();
        let refuse = |expected: String, found: String| {
            Err(MixerError::strategy_state(&self.describe(), expected, found))
        };
        let state: State = match serde_json::from_value(state.clone()) {
            Ok(state) => state,
            Err(error) => {
                let expected = "sampling, memory and losses, as this strategy saves them";
                return refuse(expected.to_owned(), error.to_string());
            }
        };
        let above = |p: &f64| *p > 0.0;
        if !are_shares(&state.sampling, domains) || !state.sampling.iter().all(above) {
            let expected = format!("{domains} shares above 0 that sum to 1");
            return refuse(expected, format!("{:?}", state.sampling));
        }
        if !state.memory.is_valid(domains) {
            let found = format!("{:?}", state.memory.moments());
            return refuse(format!("finite sums of at least 0, of {domains} domains"), found);
        }
        if state.losses.len() != domains || !state.losses.iter().flatten().all(|l| l.is_finite()) {
            return refuse(format!("{domains} finite losses"), format!("{:?}", state.losses));
        }
        if let Some(bad) = state.scale.filter(|scale| !(scale.is_finite() && *scale > 0.0)) {
            return refuse("a finite scale above 0".to_owned(), bad.to_string());
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::GradientStatistics;
    use crate::strategy::StrategySpec;
    use crate::{DomainInfo, RunSize, Simplex, Slot};

    const RUN: RunSize = RunSize { steps: 100, batch_size: 8, context: 4, seed: 3 };

    fn build(config: serde_json::Value, domains: usize) -> Result<Box<dyn Strategy>> {
        let list: Vec<DomainInfo> =
            (0..domains).map(|i| DomainInfo::new(&format!("d{i}"), 1_000)).collect();
        let spec: StrategySpec = serde_json::from_value(config).unwrap();
        spec.build(&Setup { slot: Slot::Sampling, domains: &list, run: &RUN })
    }

    fn proposal(strategy: &dyn Strategy, domains: usize) -> Vec<f64> {
        let importance = Simplex::uniform(domains);
        let context = Context { step: 0, domains: &[], importance: &importance, loss_weight: None };
        strategy.propose(&context).unwrap()
    }

    fn close(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    fn gradient(sequences: usize, variance: f64, signal: f64) -> Option<GradientStatistics> {
        let mean_square = variance + signal;
        Some(GradientStatistics { sequences, variance, mean_square, direction: None })
    }

    /// A step of which gradients are known, one entry a domain.
    fn seen(step: u64, gradient: Vec<Option<GradientStatistics>>) -> Observation {
        Observation::of_step(step, gradient.len(), &[], &[]).with_gradient(gradient)
    }

    // The expected numbers are what this prints:
    //
    // import math
    // K, b, step, r, every, eps, s, gamma = 3, 8, 0.3, 2.0, 5, 0.02, 0.5, 0.5
    // def run(form, tau):
    //     p, L, scale = [1 / K] * K, [None] * K, None
    //     sq, num, noise, paired = [[0.0] * K for _ in range(4)]
    //     for t in range(23):
    //         new, moved, w = set(), 0.0, 0.0
    //         for i in [0, 1, 2] if t % 3 == 0 else [0, 1]:
    //             n, v = 2 + (i + t) % 3, (i + 1) * (1 + 0.5 * math.sin(t + i))
    //             m, l = v + 0.4 * (K - i), 2 + i / 4 + t / 50
    //             old = sq[i] / num[i] if num[i] else None
    //             sq[i], num[i] = s * sq[i] + n * m, s * num[i] + n
    //             noise[i], paired[i] = s * noise[i] + (n - 1) * v, s * paired[i] + (n - 1) * m
    //             L[i] = l if L[i] is None else s * L[i] + (1 - s) * l
    //             new.add(i)
    //             if old is not None:
    //                 moved += n * math.log(sq[i] / num[i] / old); w += n
    //         for i in set(range(K)) - new:  # the absent one moves as the others did
    //             f = math.exp(moved / w); sq[i] *= f; noise[i] *= f; paired[i] *= f
    //         if (t + 1) % every == 0:
    //             m = [sq[i] / num[i] for i in range(K)]
    //             v = [m[i] * noise[i] / paired[i] for i in range(K)]
    //             g = [max(m[i] - v[i], 0) for i in range(K)]
    //             z = [math.exp(tau * x) for x in L]
    //             f = [(tau * x / sum(z)) ** 2 if tau else 1 for x in z]
    //             g, v = [x * y for x, y in zip(g, f)], [x * y for x, y in zip(v, f)]
    //             score = [g[i] - r * v[i] / (2 * b) for i in range(K)]
    //             scale = scale or sum(g[i] + r * v[i] / (2 * b) for i in range(K)) / K
    //             q = [p[i] * math.exp(step / scale * score[i]) for i in range(K)]
    //             low, high = -99, 99
    //             for _ in range(200 if form == "closed" else 0):
    //                 mu = (low + high) / 2
    //                 q = [max(0, (score[i] - mu) / (r * gamma * g[i])) for i in range(K)]
    //                 low, high = (mu, high) if sum(q) > 1 else (low, mu)
    //             p = [(1 - eps) * x / sum(q) + eps / K for x in q]
    //     return p
    // print(run("practical", 0), run("practical", 3), run("closed", 0))
    #[test]
    fn the_trajectories_are_those_of_thirty_lines_of_python() {
        for (form, balance, expected) in [
            ("practical", None, [0.5469355411890773, 0.2941221816448923, 0.15894227716603043]),
            (
                "practical",
                Some(3.0),
                [0.31627020422412055, 0.4294979378859589, 0.25423185788992037],
            ),
            ("closed", None, [0.6932243819249871, 0.3001089514083462, 0.006666666666666667]),
        ] {
            let mut config = serde_json::json!({
                "strategy": "pike", "step": 0.3, "noise_ratio": 2.0, "every": 5, "epsilon": 0.02,
                "smoothing": 0.5, "gamma": 0.5, "form": form,
            });
            if let Some(balance) = balance {
                config["balance"] = serde_json::json!(balance);
            }
            let mut strategy = build(config, 3).unwrap();
            for t in 0..23_usize {
                let present = |i: usize| i < 2 || t.is_multiple_of(3);
                let of_domain = |i: usize| {
                    let variance = (i + 1) as f64 * (1.0 + 0.5 * ((t + i) as f64).sin());
                    gradient(2 + (i + t) % 3, variance, 0.4 * (3 - i) as f64).filter(|_| present(i))
                };
                let domains: Vec<DomainId> = (0..3).filter(|i| present(*i)).map(DomainId).collect();
                let loss = |i: &DomainId| 2.0 + i.0 as f64 / 4.0 + t as f64 / 50.0;
                let losses: Vec<f64> = domains.iter().map(loss).collect();
                let observation = Observation::of_step(t as u64, 3, &domains, &losses)
                    .with_gradient((0..3).map(of_domain).collect());
                strategy.observe(&observation);
            }
            let found = proposal(strategy.as_ref(), 3);
            assert!(close(&found, &expected), "{form}, {balance:?}: {found:?}");
        }
    }

    #[test]
    fn the_quieter_of_two_domains_with_equal_signals_and_the_stronger_of_equal_noise_wins() {
        for form in ["practical", "closed"] {
            let after = |gradients: [(f64, f64); 2]| {
                let config = serde_json::json!({ "strategy": "pike", "every": 1, "form": form });
                let mut strategy = build(config, 2).unwrap();
                let of_domain = |(variance, signal)| gradient(8, variance, signal);
                for step in 0..3 {
                    strategy.observe(&seen(step, gradients.map(of_domain).to_vec()));
                }
                proposal(strategy.as_ref(), 2)
            };
            let noisy = after([(1.0, 0.5), (4.0, 0.5)]);
            assert!(noisy[0] > 0.51, "{form}: {noisy:?}");
            let equal = after([(2.0, 0.5), (2.0, 0.5)]);
            assert!(close(&equal, &[0.5; 2]), "{form}: {equal:?}");
            let strong = after([(4.0, 1.0), (4.0, 0.6)]);
            // A larger signal has a larger κ too: where it dominates, the closed form evens out.
            assert_eq!(strong[0] > 0.5, form == "practical" || strong[0] > strong[1], "{strong:?}");
        }
        // By hand: each of three updates adds ζ₁ (½ − 1/16) against ζ₁ (½ − 4/16), on the scale of
        // the mean of ½ + 1/16 and ½ + 4/16.
        let mut strategy = build(serde_json::json!({ "strategy": "pike", "every": 1 }), 2).unwrap();
        let gradients = vec![gradient(8, 1.0, 0.5), gradient(8, 4.0, 0.5)];
        let mut p = [0.5, 0.5];
        for step in 0..3 {
            strategy.observe(&seen(step, gradients.clone()));
            let raw = [p[0] * f64::exp(0.4375 / 0.65625), p[1] * f64::exp(0.25 / 0.65625)];
            p = raw.map(|raw_i| 0.99 * raw_i / (raw[0] + raw[1]) + 0.005);
        }
        assert!(close(&proposal(strategy.as_ref(), 2), &p), "{p:?}");
    }

    #[test]
    fn the_scale_of_gradients_changes_nothing() {
        for form in ["practical", "closed"] {
            for balance in [None, Some(3.0)] {
                let after = |scale: f64| {
                    let mut config =
                        serde_json::json!({ "strategy": "pike", "every": 2, "form": form });
                    if let Some(balance) = balance {
                        config["balance"] = serde_json::json!(balance);
                    }
                    let mut strategy = build(config, 2).unwrap();
                    for step in 0..20_u64 {
                        let wave = 1.0 + 0.3 * (step as f64).sin();
                        let gradients = [(1.0, 0.5 * wave), (4.0 * wave, 0.6)];
                        let gradients = gradients.map(|(v, s)| gradient(8, scale * v, scale * s));
                        let domains = [DomainId(0), DomainId(1)];
                        let observation = Observation::of_step(step, 2, &domains, &[2.0, 2.1]);
                        strategy.observe(&observation.with_gradient(gradients.to_vec()));
                    }
                    proposal(strategy.as_ref(), 2)
                };
                let (one, small, large) = (after(1.0), after(1e-9), after(1e9));
                assert!((one[0] - 0.5).abs() > 0.01, "{one:?}");
                for other in [small, large] {
                    let near = one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-9);
                    assert!(near, "{form} {balance:?}: {one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn signals_next_to_nothing_make_no_exponent_large() {
        let config = serde_json::json!({ "strategy": "pike", "every": 1 });
        let mut strategy = build(config, 2).unwrap();
        let gradients = vec![gradient(8, 1.0, 1e-15), gradient(8, 1.0, 0.0)];
        strategy.observe(&seen(0, gradients));
        let p = proposal(strategy.as_ref(), 2);
        assert!(close(&p, &[0.5; 2]), "{p:?}");
        // Nothing but zeros: no scale, and no update.
        let mut strategy = build(serde_json::json!({ "strategy": "pike", "every": 1 }), 2).unwrap();
        strategy.observe(&seen(0, vec![gradient(8, 0.0, 0.0), gradient(8, 0.0, 0.0)]));
        assert!(close(&proposal(strategy.as_ref(), 2), &[0.5; 2]));
        assert!(strategy.save()["scale"].is_null());
    }

    #[test]
    fn the_balanced_variant_prefers_the_larger_loss_and_ignores_a_shift_of_all() {
        let after = |losses: [f64; 2]| {
            let config = serde_json::json!({ "strategy": "pike", "every": 1, "balance": 3 });
            let mut strategy = build(config, 2).unwrap();
            let domains = [DomainId(0), DomainId(1)];
            let gradients = vec![gradient(8, 1.0, 0.5), gradient(8, 1.0, 0.5)];
            let observation =
                Observation::of_step(0, 2, &domains, &losses).with_gradient(gradients);
            strategy.observe(&observation);
            proposal(strategy.as_ref(), 2)
        };
        assert!(after([2.0, 3.0])[1] > 0.6, "{:?}", after([2.0, 3.0]));
        assert!(close(&after([2.0, 3.0]), &after([7.0, 8.0])));
        assert!(close(&after([2.0, 2.0]), &[0.5; 2]));
    }

    #[test]
    fn statistics_that_are_unusable_poison_nothing_and_one_or_300_domains_do() {
        for domains in [1, 300] {
            let config = serde_json::json!({ "strategy": "pike", "every": 1, "balance": 3 });
            let mut strategy = build(config, domains).unwrap();
            let good = || seen(0, vec![gradient(2, 1.0, 1.0); domains]);
            strategy.observe(&good());
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.0] {
                strategy.observe(&seen(1, vec![gradient(2, bad, bad); domains]));
                strategy.observe(&seen(2, vec![None; domains]));
                let ids: Vec<DomainId> = (0..domains).map(DomainId).collect();
                strategy.observe(&Observation::of_step(3, domains, &ids, &vec![bad; domains]));
            }
            strategy.observe(&good());
            let p = proposal(strategy.as_ref(), domains);
            assert!(p.iter().all(|p| p.is_finite() && *p > 0.0), "{p:?}");
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let state = strategy.save();
            let mut other =
                build(serde_json::json!({ "strategy": "pike", "every": 1, "balance": 3 }), domains)
                    .unwrap();
            other.load(&state).unwrap();
            assert_eq!(other.save(), state);
        }
    }

    #[test]
    fn a_state_that_it_did_not_save_is_refused() {
        let config = || serde_json::json!({ "strategy": "pike" });
        let mut strategy = build(config(), 2).unwrap();
        let other = build(config(), 3).unwrap().save();
        assert!(strategy.load(&other).is_err());
        for (key, bad) in [
            ("sampling", serde_json::json!([0.0, 1.0])),
            ("sampling", serde_json::json!([0.9, 0.9])),
            ("losses", serde_json::json!([1.0])),
            ("scale", serde_json::json!(0.0)),
            ("more", serde_json::json!(1)),
        ] {
            let mut state = strategy.save();
            state[key] = bad;
            let error = strategy.load(&state).unwrap_err().to_string();
            assert!(error.contains("pike"), "{error}");
        }
    }
}
