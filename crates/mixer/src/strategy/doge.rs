//! DoGE: the objective's shares for the domains whose gradients point where those of the targets
//! do.
//!
//! Source: *DoGE: Domain Reweighting with Generalization Estimation*, arXiv:2310.15393, and its
//! released code. Before each step, of gradients g_i of the domains' mean losses clipped to norm 5,
//!
//! W_i = Σ_{j ∈ targets} ⟨g_i, g_j⟩, less ‖g_i‖² where the targets are the sources,
//! s_i = clip(lr · W_i / (mean ‖g‖ + 10⁻⁶), 0, 5 lr),
//! log α_i += s_i / μ, then softmax,
//!
//! and the step is made with the new α. Its result is the mean of α over the run. Where there are
//! two domains and both are targets, W is the same for both and α stays even.
//!
//! In: the Gram matrix of the domains' gradients before a step. Out: α. State: log α, its mean, and
//! one alignment and one norm a domain. Costs one backward pass more a step that compares
//! gradients, and the memory of one gradient of the model for each domain in the batch.

use super::interface::{Context, Objectives, Setup, Strategy, StrategyEntry};
use super::mean_shares::MeanShares;
use super::weighed::Weighed;
use crate::domain::DomainId;
use crate::error::{MixerError, Place, Result};
use crate::measurements::{Measurements, ObservationRequest};
use crate::nearest::nearest_hint;
use crate::objective::Objective;
use crate::observation::{GradientGram, Observation};
use crate::rule;
use crate::slot::Slots;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: StrategyEntry = StrategyEntry {
    name: "doge",
    slots: Slots::Loss,
    summary: "objective by alignment of gradients: log α += clip(lr·W/mean‖g‖, 0, 5·lr)/mu, W = Σ ⟨g, g_target⟩; its mean is the result",
    source: "arXiv:2310.15393",
    example: r#"{ strategy = "doge", mu = 0.05, max_norm = 5, every = 1 }"#,
    objectives: Objectives::Only(
        &[Objective::Reweighted],
        "it learns the objective's shares α and not loss weights w",
    ),
};

/// The largest s in learning rates.
const LARGEST: f64 = 5.0;

/// log α_i += clip(lr W_i / (mean ‖g‖ + 10⁻⁶), 0, 5 lr) / μ, before a step, from the Gram matrix of
/// the domains' gradients on the batch. Starts at even shares of the domains that have importance;
/// the others have no share, and count as targets only where they are named.
///
/// A domain that the batch lacks keeps its last alignment and norm; one that was never compared
/// moves as the others do on average. **Derived**: W_i is taken over the targets that the batch
/// has, and scaled by how many of them there are; where it has all, it is the published sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Doge {
    /// μ, above 0: how slowly α follows.
    pub mu: f64,
    /// What the norms of gradients are clipped to, above 0.
    pub max_norm: f64,
    /// Steps between comparisons of gradients, at least 1: the cost of a backward pass.
    pub every: u64,
    /// The domains that are to be learned, among those that are trained on. `None`: all of them,
    /// each by what the others teach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
}

impl Default for Doge {
    fn default() -> Self {
        Self { mu: 0.05, max_norm: 5.0, every: 1, targets: None }
    }
}

impl Doge {
    pub(super) fn build(&self, setup: &Setup) -> Result<Box<dyn Strategy>> {
        for (key, value) in [("mu", self.mu), ("max_norm", self.max_norm)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(setup.bad_parameter(key, value, "a finite number above 0"));
            }
        }
        if self.every == 0 {
            return Err(setup.bad_parameter("every", 0, "1 or more steps"));
        }
        let targets = match &self.targets {
            None => Targets::Sources,
            Some(names) => Targets::Some(places(names, setup)?),
        };
        let weighed = Weighed::new(setup);
        let even = weighed.even();
        Ok(Box::new(Aligned {
            config: self.clone(),
            targets,
            state: State {
                log_objective: even.iter().map(|share| share.ln()).collect(),
                mean: MeanShares::new(even),
                seen: vec![None; weighed.count()],
            },
            weighed,
        }))
    }
}

/// Which of the domains `targets` names.
fn places(names: &[String], setup: &Setup) -> Result<Vec<DomainId>> {
    let known = setup.names();
    if names.is_empty() {
        return Err(setup.bad_parameter("targets", "[]", "one domain or more"));
    }
    let place = |name: &String| {
        let index = known.iter().position(|known| known == name);
        index.map(DomainId).ok_or_else(|| MixerError::UnknownDomain {
            place: Place::Parameter(setup.slot, "targets".to_owned()),
            name: name.clone(),
            hint: nearest_hint(name, &known),
        })
    };
    let mut places = names.iter().map(place).collect::<Result<Vec<_>>>()?;
    places.sort_by_key(|domain| domain.0);
    if let Some(twice) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = known.get(twice[0].0).copied().unwrap_or_default();
        return Err(setup.bad_parameter("targets", format!("`{name}` twice"), "each domain once"));
    }
    Ok(places)
}

/// Whose gradients a domain's is compared with.
#[derive(Debug)]
enum Targets {
    /// Those of all other domains that have importance.
    Sources,
    /// Those of these, its own among them if it is one.
    Some(Vec<DomainId>),
}

impl Targets {
    /// Those of domain `i`.
    fn of(&self, i: DomainId, weighed: &Weighed) -> Vec<DomainId> {
        let others = weighed.places().iter().copied().map(DomainId).filter(|j| *j != i);
        match self {
            Self::Sources => others.collect(),
            Self::Some(targets) => targets.clone(),
        }
    }
}

/// [`Doge`] with its state.
#[derive(Debug)]
struct Aligned {
    config: Doge,
    targets: Targets,
    weighed: Weighed,
    state: State,
}

/// What is known of the domains that have importance, and what was made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// log α: a share may be too small for a number, and grow again.
    log_objective: Vec<f64>,
    mean: MeanShares,
    seen: Vec<Option<Seen>>,
}

/// What a comparison has shown of a domain.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    /// W.
    alignment: f64,
    /// ‖g‖, clipped.
    norm: f64,
}

impl Aligned {
    fn objective(&self) -> Vec<f64> {
        let even = || vec![1.0; self.state.log_objective.len()];
        rule::softmax(&self.state.log_objective).unwrap_or_else(even)
    }

    /// Takes in W and norms from a Gram matrix; whether there was any.
    fn compare(&mut self, gram: &GradientGram) -> bool {
        // Of a domain in the batch, its norm and what clipping multiplies its gradient by.
        let max_norm = self.config.max_norm;
        let clipped = |i: DomainId| {
            let norm = gram.product(i, i)?.sqrt();
            let scale = if norm > max_norm { max_norm / norm } else { 1.0 };
            norm.is_finite().then_some((norm * scale, scale))
        };
        let mut any = false;
        for (i, place) in self.weighed.places().iter().copied().map(DomainId).enumerate() {
            let Some((norm, scale)) = clipped(place) else { continue };
            let targets = self.targets.of(place, &self.weighed);
            let product = |j: &DomainId| {
                let (_, other) = clipped(*j)?;
                Some(gram.product(place, *j)? * scale * other)
            };
            let products: Vec<f64> = targets.iter().filter_map(product).collect();
            let of_present = targets.len() as f64 / products.len() as f64;
            let alignment = products.iter().sum::<f64>() * of_present;
            // Not finite where the batch has none of the targets.
            if alignment.is_finite() {
                self.state.seen[i] = Some(Seen { alignment, norm });
                any = true;
            }
        }
        any
    }

    /// Moves α by what is known, at a step of this learning rate.
    fn update(&mut self, rate: f64) {
        let known: Vec<Seen> = self.state.seen.iter().copied().flatten().collect();
        let norm = known.iter().map(|seen| seen.norm).sum::<f64>() / known.len() as f64;
        let step = |seen: &Seen| (rate * seen.alignment / (norm + 1e-6)).clamp(0.0, LARGEST * rate);
        let mean = known.iter().map(step).sum::<f64>() / known.len() as f64;
        let moved: Vec<f64> = (self.state.log_objective.iter().zip(&self.state.seen))
            .map(|(log, seen)| log + seen.as_ref().map_or(mean, step) / self.config.mu)
            .collect();
        // Normalised, so that logarithms stay those of shares.
        let largest = moved.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = moved.iter().map(|log| (log - largest).exp()).sum();
        let next: Vec<f64> = moved.iter().map(|log| log - largest - sum.ln()).collect();
        if let Some(objective) = rule::softmax(&next) {
            self.state.log_objective = next;
            self.state.mean.add(&objective);
        }
    }
}

impl Strategy for Aligned {
    fn describe(&self) -> String {
        let Doge { mu, max_norm, every, targets } = &self.config;
        let targets = match targets {
            None => String::new(),
            Some(names) => format!(", targets {}", names.join(", ")),
        };
        format!("{}, mu {mu}, norms up to {max_norm}, every {every} steps{targets}", ENTRY.name)
    }

    fn against_collapse(&self) -> &'static str {
        "a larger `mu`, which moves α more slowly, or a smaller `max_norm`"
    }

    fn propose(&self, _context: &Context) -> Result<Vec<f64>> {
        Ok(self.weighed.spread(&self.objective()))
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest { gram_every: Some(self.config.every), ..ObservationRequest::default() }
    }

    fn measurements(&self, _context: &Context) -> Measurements {
        Measurements {
            objective_mean: Some(self.weighed.spread(self.state.mean.values())),
            ..Measurements::default()
        }
    }

    fn observe(&mut self, observation: &Observation) {
        let Some(gram) = &observation.gram else { return };
        let rate = gram.learning_rate();
        if rate.is_finite() && rate >= 0.0 && self.compare(gram) {
            self.update(rate);
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.state)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        let domains = self.state.seen.len();
        let refuse = |expected: &str, found: String| {
            let expected = format!("{expected} of {domains} domains");
            Err(MixerError::strategy_state(&self.describe(), expected, found))
        };
        let state: State = match serde_json::from_value(state.clone()) {
            Ok(state) => state,
            Err(error) => {
                let expected = "log_objective, mean and seen, as this strategy saves them,";
                return refuse(expected, error.to_string());
            }
        };
        let State { log_objective, mean, seen } = &state;
        let shares = log_objective.iter().all(|log| log.is_finite() && *log <= 1e-6);
        if !shares || log_objective.len() != domains {
            return refuse("logarithms of shares", format!("{log_objective:?}"));
        }
        if !mean.is_valid(domains) {
            return refuse("mean shares", format!("{:?}", mean.values()));
        }
        let usable = |seen: &Seen| seen.alignment.is_finite() && seen.norm.is_finite();
        let fits = |seen: &Seen| usable(seen) && seen.norm >= 0.0;
        if seen.len() != domains || !seen.iter().flatten().all(fits) {
            return refuse("finite alignments and norms", format!("{seen:?}"));
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::strategy::StrategySpec;
    use crate::{DomainInfo, RunSize, Simplex, Slot};

    const RUN: RunSize = RunSize { steps: 100, batch_size: 8, context: 4, seed: 3 };

    fn build(config: serde_json::Value, domains: usize) -> Result<Box<dyn Strategy>> {
        let list: Vec<DomainInfo> =
            (0..domains).map(|i| DomainInfo::new(&format!("d{i}"), 1_000)).collect();
        let spec: StrategySpec = serde_json::from_value(config).unwrap();
        spec.build(&Setup { slot: Slot::Loss, domains: &list, run: &RUN })
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

    /// The Gram matrix of these gradients, `None` of a domain that is not in the batch.
    fn gram(gradients: &[Option<Vec<f64>>], rate: f64) -> GradientGram {
        let mut gram = GradientGram::new(gradients.len(), rate);
        for (i, left) in gradients.iter().enumerate() {
            for (j, right) in gradients.iter().enumerate() {
                if let (Some(left), Some(right)) = (left, right) {
                    let product = left.iter().zip(right).map(|(a, b)| a * b).sum();
                    gram.set(DomainId(i), DomainId(j), product);
                }
            }
        }
        gram
    }

    fn seen(step: u64, gradients: &[Option<Vec<f64>>], rate: f64) -> Observation {
        Observation::before_step(step).with_gram(gram(gradients, rate))
    }

    fn mean(strategy: &dyn Strategy, domains: usize) -> Vec<f64> {
        let importance = Simplex::uniform(domains);
        let context = Context { step: 0, domains: &[], importance: &importance, loss_weight: None };
        strategy.measurements(&context).objective_mean.unwrap()
    }

    // The expected numbers are what this prints:
    //
    // import numpy as np
    // K, mu, clip = 3, 0.05, 5.0
    // log_a, mean, W, norm = np.log(np.full(K, 1 / K)), np.zeros(K), [None] * K, [None] * K
    // for t in range(12):
    //     lr = 0.002 * (1 + t % 4)
    //     g = [[np.sin(1.3 * i + d + 0.2 * t) * (1 + 3 * i) for d in range(4)] for i in range(K)]
    //     here = [i for i in range(K) if i != 1 or t % 3]  # domain 1 is absent now and then
    //     g = [np.array(x) * min(1, clip / np.linalg.norm(x)) for x in g]
    //     for i in here:
    //         others = [g[i] @ g[j] for j in here if j != i]
    //         W[i] = sum(others) * (K - 1) / len(others)
    //         norm[i] = np.linalg.norm(g[i])
    //     known = [i for i in range(K) if W[i] is not None]
    //     n = np.mean([norm[i] for i in known])
    //     s = {i: np.clip(lr * W[i] / (n + 1e-6), 0, 5 * lr) for i in known}
    //     move = np.array([s.get(i, np.mean(list(s.values()))) for i in range(K)])
    //     log_a = log_a + move / mu
    //     log_a -= np.log(np.exp(log_a).sum())
    //     mean += np.exp(log_a) / 12
    // print(np.exp(log_a).tolist(), mean.tolist())
    #[test]
    fn the_trajectory_is_that_of_twenty_lines_of_python() {
        let mut strategy = build(serde_json::json!({ "strategy": "doge" }), 3).unwrap();
        for t in 0..12_u64 {
            let of_domain = |i: usize| {
                let element = |d: i32| {
                    (1.3 * i as f64 + f64::from(d) + 0.2 * t as f64).sin() * (1 + 3 * i) as f64
                };
                (i != 1 || !t.is_multiple_of(3)).then(|| (0..4).map(element).collect())
            };
            let gradients: Vec<Option<Vec<f64>>> = (0..3).map(of_domain).collect();
            strategy.observe(&seen(t, &gradients, 0.002 * (1 + t % 4) as f64));
        }
        let found = (proposal(strategy.as_ref(), 3), mean(strategy.as_ref(), 3));
        assert!(
            close(&found.0, &[0.08189387421943027, 0.8125911273642485, 0.10551499841632121]),
            "{found:?}"
        );
        assert!(
            close(&found.1, &[0.18838612365063123, 0.5930232166899052, 0.21859065965946356]),
            "{found:?}"
        );
    }

    #[test]
    fn the_domain_that_points_where_the_others_do_gains() {
        let mut strategy = build(serde_json::json!({ "strategy": "doge" }), 3).unwrap();
        let gradients = [vec![1.0, 0.0], vec![1.0, 0.0], vec![-1.0, 0.0]].map(Some);
        strategy.observe(&seen(0, &gradients, 0.01));
        // W = 1 − 1, 1 − 1 and −2: none above 0, and so nothing moves.
        assert!(close(&proposal(strategy.as_ref(), 3), &[1.0 / 3.0; 3]));
        let gradients = [vec![1.0, 0.0], vec![0.8, 0.6], vec![0.0, 1.0]].map(Some);
        strategy.observe(&seen(1, &gradients, 0.01));
        // W = 0.8, 1.4, 0.6, norms of 1: log α moves by 0.01 W / 0.05.
        let raw = [0.8, 1.4, 0.6].map(|w: f64| (0.2 * w / (1.0 + 1e-6)).exp());
        let sum: f64 = raw.iter().sum();
        assert!(close(&proposal(strategy.as_ref(), 3), &raw.map(|x| x / sum)));
    }

    #[test]
    fn a_target_among_the_domains_counts_itself_and_the_largest_step_is_five_rates() {
        let config = serde_json::json!({ "strategy": "doge", "targets": ["d1"] });
        let mut strategy = build(config, 2).unwrap();
        // Clipped to norm 5: W = 0 and 25, over a mean norm of 5, s = 5 lr at most.
        let gradients = [vec![5.0, 0.0], vec![0.0, 500.0]].map(Some);
        strategy.observe(&seen(0, &gradients, 0.01));
        let odds = f64::exp(0.01 * 25.0 / (5.0 + 1e-6) / 0.05);
        let found = proposal(strategy.as_ref(), 2);
        assert!(close(&found, &[1.0 / (1.0 + odds), odds / (1.0 + odds)]), "{found:?}");
        // A mean norm far below one domain's: the step is capped.
        let gradients = [vec![1e-3, 0.0], vec![0.0, 5.0]].map(Some);
        let before = found[1] / found[0];
        strategy.observe(&seen(1, &gradients, 0.01));
        let found = proposal(strategy.as_ref(), 2);
        assert!((found[1] / found[0] / before - f64::exp(1.0)).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn targets_must_be_domains_each_named_once() {
        for (targets, expected) in [
            (serde_json::json!([]), "one domain or more"),
            (serde_json::json!(["d0", "d7"]), "`d7`"),
            (serde_json::json!(["d0", "d0"]), "each domain once"),
        ] {
            let config = serde_json::json!({ "strategy": "doge", "targets": targets });
            let error = build(config, 2).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("targets"), "{error}");
        }
    }

    #[test]
    fn an_absent_domain_keeps_its_alignment_and_one_never_seen_moves_as_the_others() {
        let mut strategy = build(serde_json::json!({ "strategy": "doge" }), 3).unwrap();
        let first = [Some(vec![1.0, 0.0]), Some(vec![1.0, 0.1]), None];
        strategy.observe(&seen(0, &first, 0.01));
        let found = proposal(strategy.as_ref(), 3);
        assert!((found[2] - 1.0 / 3.0).abs() < 1e-3, "{found:?}");
        let before = strategy.save();
        strategy.observe(&seen(1, &[None, Some(vec![1.0, 0.1]), Some(vec![0.0, 1.0])], 0.01));
        let after = strategy.save();
        assert_eq!(before["seen"][0], after["seen"][0]);
        assert_ne!(before["seen"][2], after["seen"][2]);
        // Alone in a batch, a domain is compared with none.
        strategy.observe(&seen(2, &[None, None, Some(vec![9.0, 9.0])], 0.01));
        assert_eq!(strategy.save(), after);
    }

    #[test]
    fn gradients_that_are_unusable_poison_nothing_and_one_or_300_domains_do() {
        for domains in [1, 300] {
            let mut strategy = build(serde_json::json!({ "strategy": "doge" }), domains).unwrap();
            for bad in [f64::NAN, f64::INFINITY, 1e200, 0.0] {
                strategy.observe(&seen(0, &vec![Some(vec![bad, bad]); domains], 0.01));
                strategy.observe(&seen(1, &vec![Some(vec![1.0, bad]); domains], bad));
                strategy.observe(&seen(2, &vec![None; domains], 0.01));
            }
            let mut lying = GradientGram::new(domains, 0.01);
            lying.set(DomainId(0), DomainId(0), -1.0);
            lying.set(DomainId(0), DomainId(domains + 5), 1.0);
            strategy.observe(&Observation::before_step(3).with_gram(lying));
            strategy.observe(&seen(4, &vec![Some(vec![1.0, 0.5]); domains], 0.01));
            let alpha = proposal(strategy.as_ref(), domains);
            let even = 1.0 / domains as f64;
            assert!(alpha.iter().all(|alpha| (alpha - even).abs() < 1e-9), "{alpha:?}");
            let state = strategy.save();
            let mut other = build(serde_json::json!({ "strategy": "doge" }), domains).unwrap();
            other.load(&state).unwrap();
            assert_eq!(other.save(), state);
        }
    }

    #[test]
    fn a_state_that_it_did_not_save_is_refused() {
        let config = || serde_json::json!({ "strategy": "doge" });
        let mut strategy = build(config(), 2).unwrap();
        assert!(strategy.load(&build(config(), 3).unwrap().save()).is_err());
        for (key, bad) in [
            ("log_objective", serde_json::json!([0.0, null])),
            ("log_objective", serde_json::json!([0.0, 1.0])),
            ("mean", serde_json::json!({ "mean": [0.1, 0.1], "updates": 1 })),
            ("seen", serde_json::json!([null])),
            ("seen", serde_json::json!([null, { "alignment": 1.0, "norm": -1.0 }])),
            ("more", serde_json::json!(1)),
        ] {
            let mut state = strategy.save();
            state[key] = bad;
            let error = strategy.load(&state).unwrap_err().to_string();
            assert!(error.contains("doge"), "{error}");
        }
    }
}
