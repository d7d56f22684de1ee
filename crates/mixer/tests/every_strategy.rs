//! What holds for every strategy of the table, driven by the examples of its rows: a new row is
//! covered by being there. What a rule does not promise is listed here, with the reason.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::{
    Context, DomainId, DomainInfo, GradientGram, GradientStatistics, LossStatistics, LossWeights,
    Mixer, MixtureSpec, Objective, Objectives, Observation, RunSize, STRATEGIES, Setup, Simplex,
    Slot, StepDraw, Strategy, StrategyEntry, StrategySpec, seed::CounterRng,
};
use proptest::prelude::*;

/// Rules that compare losses with each other's size, or with 0: what they propose depends on a
/// constant that is added to all losses.
const LOOKS_AT_THE_LEVEL: &[&str] = &[
    // G L_i grows with the level.
    "erma", // Fits E, the loss that stays, by its logarithm.
    "ado",  // Does not where all domains help as much; those of its example do not.
    "skill-it",
];

/// Rules that learn, and not from losses: what losses are changes nothing at all.
const LOOKS_AT_NO_LOSSES: &[&str] = &[
    // Gradients.
    "va",
    "pike",
    "doge", // What a loss is above another model's.
    "excess-dro",
];

/// Rules under which domains that are alike in all that is observed may part.
const TELLS_EQUALS_APART: &[&str] = &[
    // Perturbs one after the other, and losses change in between.
    "aioli",
];

/// Rules to which an absence says something else than that nothing is known.
const COUNTS_ABSENCES: &[&str] = &[
    // Credits a domain for its share of the recent batches.
    "ado",
    // Estimates how well a gradient serves all targets from those that the batch has.
    "doge",
    // Take out the differences that errors explain, and an error falls with each measurement. What
    // an absent domain's statistics are is tested in `adaptive.rs`.
    "erma", "fgls",
];

const RUN: RunSize = RunSize { steps: 600, batch_size: 12, context: 10, seed: 3 };

/// The domains that the examples of the table name.
const CLASSES: [&str; 3] = ["web", "code", "math"];

/// `count` domains of three classes in turn: those of a class are alike but for their names.
fn domains(count: usize) -> Vec<DomainInfo> {
    let domain = |i: usize| DomainInfo {
        importance: [3.0, 2.0, 1.0][i % 3],
        ..DomainInfo::new(&format!("d{i}"), [60_000, 30_000, 20_000][i % 3])
    };
    (0..count).map(domain).collect()
}

/// The class of a domain that is called as in [`domains`].
fn class(name: &str) -> usize {
    name[1..].parse::<usize>().unwrap() % 3
}

/// A row's example for other domains: each table by the names of classes becomes one by the names
/// of `domains`, which take the values of their class.
fn spec(entry: &StrategyEntry, domains: &[DomainInfo]) -> StrategySpec {
    fn renamed(value: toml::Value, domains: &[DomainInfo]) -> toml::Value {
        match value {
            toml::Value::Table(table) => {
                let names =
                    !table.is_empty() && table.keys().all(|key| CLASSES.contains(&key.as_str()));
                toml::Value::Table(if names {
                    let entry = |domain: &DomainInfo| {
                        let value = table.get(CLASSES[class(&domain.name)])?;
                        Some((domain.name.clone(), renamed(value.clone(), domains)))
                    };
                    domains.iter().filter_map(entry).collect()
                } else {
                    table.into_iter().map(|(key, value)| (key, renamed(value, domains))).collect()
                })
            }
            toml::Value::Array(list) => {
                toml::Value::Array(list.into_iter().map(|value| renamed(value, domains)).collect())
            }
            other => other,
        }
    }
    let example: toml::Table = toml::from_str(&format!("value = {}", entry.example)).unwrap();
    renamed(example["value"].clone(), domains).try_into().unwrap()
}

/// The slots that a row serves.
fn slots(entry: &StrategyEntry) -> impl Iterator<Item = Slot> {
    [Slot::Sampling, Slot::Loss].into_iter().filter(|slot| entry.slots.contains(*slot))
}

/// A strategy in a slot of a run.
struct Driven {
    strategy: Box<dyn Strategy>,
    domains: Vec<DomainInfo>,
}

impl Driven {
    fn new(entry: &StrategyEntry, slot: Slot, domains: &[DomainInfo]) -> Self {
        let setup = Setup { slot, domains, run: &RUN };
        let strategy = spec(entry, domains).build(&setup).unwrap();
        Self { strategy, domains: domains.to_vec() }
    }

    /// What it proposes, normalised to a sum of 1; and that it can be.
    fn shares(&self, step: u64) -> Vec<f64> {
        let names: Vec<&str> = self.domains.iter().map(|domain| domain.name.as_str()).collect();
        let raw: Vec<f64> = self.domains.iter().map(|domain| domain.importance).collect();
        let importance = Simplex::normalise("importance", &names, &raw).unwrap();
        let even = vec![1.0; names.len()];
        let ones = LossWeights::normalise("loss", &names, &importance, &even).unwrap();
        let (domains, loss_weight) = (self.domains.as_slice(), Some(&ones));
        let context = Context { step, domains, importance: &importance, loss_weight };
        let proposed = self.strategy.propose(&context).unwrap();
        Simplex::normalise("proposal", &names, &proposed).unwrap().values().to_vec()
    }
}

/// What was observed of one domain.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    training: Option<LossStatistics>,
    held_out: Option<LossStatistics>,
    gradient: Option<GradientStatistics>,
}

/// The one place where observations are made: whatever strategies may ask for belongs here.
fn observation(step: u64, seen: &[Seen]) -> Observation {
    let mut observation = Observation::of_step(step, seen.len(), &[], &[])
        .with_held_out(seen.iter().map(|seen| seen.held_out).collect())
        .with_held_out_windows(vec![500; seen.len()])
        .with_gradient(seen.iter().map(|seen| seen.gradient).collect());
    observation.training = seen.iter().map(|seen| seen.training).collect();
    with_comparisons(observation, seen)
}

/// Adds what is known before a step where it is asked for.
fn with_comparisons(observation: Observation, seen: &[Seen]) -> Observation {
    // Gradients of a common part and one of their own, and losses above a reference's by as much.
    let square = |i: usize| seen[i].gradient.map(|gradient| gradient.mean_square);
    let mut gram = GradientGram::new(seen.len(), 2e-3);
    for (i, j) in (0..seen.len()).flat_map(|i| (0..=i).map(move |j| (i, j))) {
        if let (Some(a), Some(b)) = (square(i), square(j)) {
            let product = if i == j { a } else { 0.3 * (a * b).sqrt() };
            gram.set(DomainId(i), DomainId(j), product);
        }
    }
    let excess = (0..seen.len()).map(|i| square(i).map(|square| 0.02 * square)).collect();
    observation.with_gram(gram).with_excess(excess)
}

/// Statistics that differ by class and, at `drift` above 0, by step.
fn usual(name: &str, step: u64, drift: f64) -> Seen {
    let class = class(name);
    let wave = 1.0 + drift * (step as f64 / 7.0 + 2.0 * class as f64).sin();
    let loss = |count| {
        let (mean, variance) = ([2.5, 3.5, 1.5][class] * wave, [0.2, 0.7, 0.4][class] * wave);
        Some(LossStatistics { mean, variance, count })
    };
    let variance = [4.0, 9.0, 1.0][class] * wave;
    let gradient =
        GradientStatistics { sequences: 3, variance, mean_square: 1.5 * variance, direction: None };
    Seen { training: loss(3), held_out: loss(40), gradient: Some(gradient) }
}

fn all_usual(domains: &[DomainInfo], step: u64, drift: f64) -> Vec<Seen> {
    domains.iter().map(|domain| usual(&domain.name, step, drift)).collect()
}

/// Numbers that no rule can use, or hardly any.
const ODD: [f64; 9] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -3.0, 1e308, -1e308, 1e-308];

/// The usual, with something wrong here and there: domains that were not seen, counts of 0, odd
/// numbers.
fn spoiled(domains: &[DomainInfo], step: u64, rng: &CounterRng) -> Vec<Seen> {
    let one = |(i, domain): (usize, &DomainInfo)| {
        let rng = rng.nested(step).nested(i as u64);
        let mut seen = usual(&domain.name, step, 0.3);
        let odd = |at: u64, value: f64| match rng.below(at, 4) {
            0 => ODD[rng.below(at + 1, ODD.len() as u64) as usize],
            _ => value,
        };
        for (at, list) in [(10, &mut seen.training), (20, &mut seen.held_out)] {
            if let Some(loss) = list {
                (loss.mean, loss.variance) = (odd(at, loss.mean), odd(at + 2, loss.variance));
                loss.count = rng.below(at + 4, 5) as usize;
            }
            if rng.below(at + 5, 4) == 0 {
                *list = None;
            }
        }
        if let Some(gradient) = &mut seen.gradient {
            gradient.variance = odd(30, gradient.variance);
            gradient.mean_square = odd(32, gradient.mean_square);
            gradient.sequences = rng.below(34, 5) as usize;
        }
        if rng.below(35, 4) == 0 {
            seen.gradient = None;
        }
        seen
    };
    domains.iter().enumerate().map(one).collect()
}

fn near(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// The number that the example of a row has for `key`.
fn parameter(entry: &StrategyEntry, key: &str) -> Option<f64> {
    let example: toml::Table = toml::from_str(&format!("value = {}", entry.example)).ok()?;
    let value = example["value"].get(key)?;
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// The least share that a row promises to each domain at a step.
fn floor(entry: &StrategyEntry, domains: usize, step: u64) -> f64 {
    let k = domains as f64;
    match entry.name {
        // ε of the objective and not of an even share.
        "va" => 0.05 / (6.0 * k),
        "odm" if step >= 12 => (1.0 / k).min((k.ln() / (k * step as f64)).sqrt()),
        // `recent` of the floor; half an even share where it is less.
        "ado" if step >= 10 => 0.1 * (0.01f64.min(0.5 / k)) / (1.0 + 0.01 * k),
        _ => parameter(entry, "epsilon").unwrap_or(0.0) / k,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proposals_are_shares_above_their_floor_whatever_is_observed(
        count in 1usize..7,
        key in any::<u64>(),
    ) {
        let domains = domains(count);
        let rng = CounterRng::new(key);
        for entry in STRATEGIES {
            for slot in slots(entry) {
                let mut driven = Driven::new(entry, slot, &domains);
                for step in 0..90 {
                    let shares = driven.shares(step);
                    let least = floor(entry, count, step) * (1.0 - 1e-9);
                    // A perturbation is above any floor, of one domain and of the others.
                    prop_assert!(
                        shares.iter().all(|share| *share >= least),
                        "{} at {step}: {shares:?} {least}", entry.name
                    );
                    prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                    let seen = match rng.below(step, 8) {
                        0 => Vec::new(),
                        1 => all_usual(&domains, step, 0.3)[..count / 2].to_vec(),
                        _ => spoiled(&domains, step, &rng),
                    };
                    driven.strategy.observe(&observation(step, &seen));
                }
                // What it knows then is still good enough to be saved and read back.
                let state = serde_json::to_string(&driven.strategy.save()).unwrap();
                let mut other = Driven::new(entry, slot, &domains);
                other.strategy.load(&serde_json::from_str(&state).unwrap()).unwrap();
                prop_assert_eq!(other.shares(90), driven.shares(90), "{}", entry.name);
            }
        }
    }

    #[test]
    fn permuting_the_domains_permutes_the_shares(key in any::<u64>(), count in 2usize..7) {
        let original = domains(count);
        let rng = CounterRng::new(key);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|i| rng.bits(*i as u64));
        let permuted: Vec<DomainInfo> = order.iter().map(|i| original[*i].clone()).collect();
        for entry in STRATEGIES {
            for slot in slots(entry) {
                let mut one = Driven::new(entry, slot, &original);
                let mut other = Driven::new(entry, slot, &permuted);
                for step in 0..90 {
                    let (a, b) = (one.shares(step), other.shares(step));
                    let a: Vec<f64> = order.iter().map(|i| a[*i]).collect();
                    // Sums in another order.
                    prop_assert!(near(&a, &b, 1e-9), "{} at {step}: {a:?} {b:?}", entry.name);
                    let seen = |domain: &DomainInfo| {
                        let present = rng.nested(class(&domain.name) as u64).below(step, 3) > 0;
                        if present { usual(&domain.name, step, 0.3) } else { Seen::default() }
                    };
                    for driven in [&mut one, &mut other] {
                        let seen: Vec<Seen> = driven.domains.iter().map(seen).collect();
                        driven.strategy.observe(&observation(step, &seen));
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_goes_on_to_the_bit_wherever_it_was_saved(stop in 0usize..280) {
        let domains = domains(3);
        for entry in STRATEGIES {
            for slot in slots(entry) {
                let mixture = mixture(entry, slot, &domains);
                let mut whole = Mixer::new(&mixture, &domains, &RUN).unwrap();
                for _ in 0..stop {
                    advance(&mut whole);
                }
                let state = serde_json::to_string(&whole.state()).unwrap();
                let mut resumed = Mixer::new(&mixture, &domains, &RUN).unwrap();
                resumed.restore(&serde_json::from_str(&state).unwrap()).unwrap();
                for _ in 0..30 {
                    prop_assert_eq!(advance(&mut resumed), advance(&mut whole), "{}", entry.name);
                }
                prop_assert_eq!(resumed.state(), whole.state());
            }
        }
    }

    #[test]
    fn a_state_from_a_file_is_refused_or_harmless(key in any::<u64>()) {
        let domains = domains(3);
        let rng = CounterRng::new(key);
        for entry in STRATEGIES {
            for slot in slots(entry) {
                let mut driven = Driven::new(entry, slot, &domains);
                for step in 0..110 {
                    driven.strategy.observe(&observation(step, &all_usual(&domains, step, 0.3)));
                }
                let mut state = driven.strategy.save();
                let numbers = count_values(&state);
                spoil(&mut state, &mut (rng.below(0, numbers.max(1))), &rng);
                let mut other = Driven::new(entry, slot, &domains);
                if other.strategy.load(&state).is_ok() {
                    for step in 110..140 {
                        other.shares(step);
                        let seen = all_usual(&domains, step, 0.3);
                        other.strategy.observe(&observation(step, &seen));
                    }
                }
            }
        }
    }
}

/// Leaves of a JSON value.
fn count_values(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::Array(list) => list.iter().map(count_values).sum(),
        serde_json::Value::Object(map) => map.values().map(count_values).sum(),
        _ => 1,
    }
}

/// Replaces the `nth` leaf.
fn spoil(value: &mut serde_json::Value, nth: &mut u64, rng: &CounterRng) {
    match value {
        serde_json::Value::Array(list) => list.iter_mut().for_each(|v| spoil(v, nth, rng)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|v| spoil(v, nth, rng)),
        leaf => {
            if *nth == 0 {
                let others = [
                    serde_json::json!(null),
                    serde_json::json!("x"),
                    serde_json::json!(0),
                    serde_json::json!(-1),
                    serde_json::json!(1e308),
                    serde_json::json!(-1e308),
                    serde_json::json!(u64::MAX),
                    serde_json::json!([]),
                ];
                *leaf = others[rng.below(1, others.len() as u64) as usize].clone();
            }
            *nth = nth.wrapping_sub(1);
        }
    }
}

/// A mixture with the row's example in a slot.
fn mixture(entry: &StrategyEntry, slot: Slot, domains: &[DomainInfo]) -> MixtureSpec {
    let objective = match (entry.objectives, slot) {
        (Objectives::Only(allowed, _), _) => allowed[0],
        (Objectives::Any, Slot::Sampling) => Objective::Sampled,
        (Objectives::Any, Slot::Loss) => Objective::Importance,
    };
    let strategy = spec(entry, domains);
    let mixture: MixtureSpec = toml::from_str("sampling = 'uniform'").unwrap();
    match slot {
        Slot::Sampling => MixtureSpec { objective, sampling: strategy, ..mixture },
        Slot::Loss => MixtureSpec { objective, loss: strategy, ..mixture },
    }
}

/// A step of a run, before which the batch is compared where that was asked for, and after which
/// whatever was drawn is observed, and the held-out losses where they were asked for.
fn advance(mixer: &mut Mixer) -> StepDraw {
    let mut draw = mixer.next_step().unwrap();
    let request = mixer.observation_request();
    let due = request.held_out_at(draw.step + 1).is_some();
    let seen = |(domain, count): (&DomainInfo, &usize)| {
        let mut seen = usual(&domain.name, draw.step, 0.3);
        seen.held_out = seen.held_out.filter(|_| due);
        match (*count, &mut seen) {
            (0, seen) => (seen.training, seen.gradient) = (None, None),
            (count, Seen { training: Some(loss), gradient: Some(gradient), .. }) => {
                (loss.count, gradient.sequences) = (count, count);
            }
            _ => {}
        }
        seen
    };
    let seen: Vec<Seen> = mixer.domains().iter().zip(&draw.counts).map(seen).collect();
    let mut after = observation(draw.step, &seen);
    (after.gram, after.excess) = (None, Vec::new());
    if request.excess || request.gram_at(draw.step) {
        let known = with_comparisons(Observation::before_step(draw.step), &seen);
        mixer.observe_before(&mut draw, &known).unwrap();
    }
    mixer.observe(&after);
    draw
}

#[test]
fn lists_of_exceptions_name_strategies() {
    let lists = [LOOKS_AT_THE_LEVEL, LOOKS_AT_NO_LOSSES, TELLS_EQUALS_APART, COUNTS_ABSENCES];
    for name in lists.concat() {
        assert!(STRATEGIES.iter().any(|entry| entry.name == name), "{name}");
    }
}

#[test]
fn equal_domains_stay_equal() {
    let domains = domains(6);
    for entry in STRATEGIES.iter().filter(|entry| !TELLS_EQUALS_APART.contains(&entry.name)) {
        for slot in slots(entry) {
            let mut driven = Driven::new(entry, slot, &domains);
            for step in 0..150 {
                let shares = driven.shares(step);
                for i in 0..3 {
                    let apart = (shares[i] - shares[i + 3]).abs();
                    assert!(apart < 1e-12, "{} at {step}: {shares:?}", entry.name);
                }
                driven.strategy.observe(&observation(step, &all_usual(&domains, step, 0.3)));
            }
        }
    }
}

/// Whether a rule proposes something else where losses are changed from a run's first step on.
fn changes_with(entry: &StrategyEntry, slot: Slot, change: impl Fn(u64, usize, &mut f64)) -> bool {
    let domains = domains(4);
    let mut one = Driven::new(entry, slot, &domains);
    let mut other = Driven::new(entry, slot, &domains);
    let mut changed = false;
    for step in 0..250 {
        changed |= !near(&one.shares(step), &other.shares(step), 1e-9);
        let mut seen = all_usual(&domains, step, 0.3);
        one.strategy.observe(&observation(step, &seen));
        for (i, seen) in seen.iter_mut().enumerate() {
            for loss in [&mut seen.training, &mut seen.held_out].into_iter().flatten() {
                change(step, i, &mut loss.mean);
                change(step, i + 7, &mut loss.variance);
            }
        }
        other.strategy.observe(&observation(step, &seen));
    }
    changed
}

#[test]
fn rules_that_look_at_no_losses_are_those_of_the_list_and_those_that_do_not_learn() {
    for entry in STRATEGIES {
        for slot in slots(entry) {
            let learns = Driven::new(entry, slot, &domains(4)).strategy.forecast().is_none();
            let looks = learns && !LOOKS_AT_NO_LOSSES.contains(&entry.name);
            let by_anything = |step: u64, i: usize, value: &mut f64| {
                *value *= 2.0 + (0.7 * step as f64 + i as f64).sin();
            };
            assert_eq!(changes_with(entry, slot, by_anything), looks, "{}", entry.name);
        }
    }
}

#[test]
fn a_constant_added_to_all_losses_changes_nothing_where_a_rule_promises_that() {
    for entry in STRATEGIES {
        for slot in slots(entry) {
            let by_a_constant = |_, i: usize, value: &mut f64| {
                if i < 7 {
                    *value += 1.25;
                }
            };
            let changed = changes_with(entry, slot, by_a_constant);
            assert_eq!(changed, LOOKS_AT_THE_LEVEL.contains(&entry.name), "{}", entry.name);
        }
    }
}

#[test]
fn a_domain_that_is_not_seen_counts_as_it_did_last_and_never_as_a_loss_of_0() {
    let domains = domains(4);
    for entry in STRATEGIES.iter().filter(|entry| !COUNTS_ABSENCES.contains(&entry.name)) {
        for slot in slots(entry) {
            let mut always = Driven::new(entry, slot, &domains);
            let mut seldom = Driven::new(entry, slot, &domains);
            for step in 0..250 {
                let (a, b) = (always.shares(step), seldom.shares(step));
                assert!(near(&a, &b, 1e-9), "{} at {step}: {a:?} {b:?}", entry.name);
                // The statistics of a domain never change, so that its last ones are its next.
                let mut seen = all_usual(&domains, step, 0.0);
                always.strategy.observe(&observation(step, &seen));
                // After the first measurement of rules that take in one in 30 steps.
                if step > 40 && !step.is_multiple_of(3) {
                    seen[1] = Seen::default();
                }
                seldom.strategy.observe(&observation(step, &seen));
            }
        }
    }
}

#[test]
fn one_domain_has_everything_and_300_are_no_trouble() {
    for count in [1, 300] {
        let domains = domains(count);
        // Long enough for a rule that perturbs all of them, 20 steps each.
        let run = RunSize { steps: RUN.steps.max(25 * count as u64), ..RUN };
        for entry in STRATEGIES {
            for slot in slots(entry) {
                let mixture = mixture(entry, slot, &domains);
                let mut mixer = Mixer::new(&mixture, &domains, &run).unwrap();
                for _ in 0..40 {
                    let draw = advance(&mut mixer);
                    assert_eq!(draw.counts.iter().sum::<usize>(), RUN.batch_size);
                    if count == 1 {
                        assert_eq!(draw.sampling.values(), [1.0], "{}", entry.name);
                        assert!((draw.multipliers[0] - 1.0).abs() < 1e-12, "{}", entry.name);
                    }
                }
                let mut resumed = Mixer::new(&mixture, &domains, &run).unwrap();
                resumed.restore(&mixer.state()).unwrap();
                assert_eq!(advance(&mut resumed), advance(&mut mixer), "{}", entry.name);
            }
        }
    }
}

#[test]
fn no_domain_is_read_more_often_than_its_limit() {
    // 7,200 sequences; one pass over `d1` are 3,000 of them, so that it may give 1,500.
    let mut domains = domains(3);
    domains[1].max_epochs = Some(0.5);
    domains[2].max_epochs = Some(0.25);
    for entry in STRATEGIES.iter().filter(|entry| entry.slots.contains(Slot::Sampling)) {
        let mixture = mixture(entry, Slot::Sampling, &domains);
        let mut mixer = match Mixer::new(&mixture, &domains, &RUN) {
            Ok(mixer) => mixer,
            // Who knows all shares in advance is refused up front, with the numbers.
            Err(error) => {
                assert!(error.to_string().contains("expected at most max_epochs"), "{error}");
                continue;
            }
        };
        for _ in 0..RUN.steps {
            advance(&mut mixer);
        }
        let consumed = mixer.consumed();
        let learns = mixer.learns_sampling();
        // Counts of shares that are known in advance are within 1 of what was planned.
        let slack = u64::from(!learns);
        assert!(consumed[1] <= 1_500 + slack && consumed[2] <= 500 + slack, "{consumed:?}");
    }
}

#[test]
fn rules_that_look_at_a_batch_before_its_step_weigh_that_very_step() {
    let domains = domains(3);
    for name in ["doge", "excess-dro"] {
        let entry = STRATEGIES.iter().find(|entry| entry.name == name).unwrap();
        let mut mixer = Mixer::new(&mixture(entry, Slot::Loss, &domains), &domains, &RUN).unwrap();
        let first = advance(&mut mixer);
        assert!(!near(first.objective.values(), &[1.0 / 3.0; 3], 1e-3), "{name}: {first:?}");
    }
}

/// What goes wrong between a draw and its step: going back to before the draw, a run goes on as if
/// it had not happened.
#[test]
fn a_mixer_goes_back_to_before_a_draw_whose_batch_was_weighed_anew() {
    let domains = domains(3);
    for name in ["doge", "excess-dro"] {
        let entry = STRATEGIES.iter().find(|entry| entry.name == name).unwrap();
        let mixture = mixture(entry, Slot::Loss, &domains);
        let mut mixer = Mixer::new(&mixture, &domains, &RUN).unwrap();
        let mut other = Mixer::new(&mixture, &domains, &RUN).unwrap();
        for _ in 0..5 {
            assert_eq!(advance(&mut mixer), advance(&mut other));
        }
        let before = mixer.state();
        let mut draw = mixer.next_step().unwrap();
        let seen = all_usual(&domains, draw.step, 0.3);
        let known = with_comparisons(Observation::before_step(draw.step), &seen);
        mixer.observe_before(&mut draw, &known).unwrap();
        assert_ne!(mixer.state(), before);
        mixer.restore(&before).unwrap();
        assert_eq!(mixer.state(), other.state());
        for _ in 0..5 {
            assert_eq!(advance(&mut mixer), advance(&mut other));
        }
    }
}

#[test]
fn rules_that_change_what_is_trained_on_are_refused_where_the_multiplier_takes_that_back() {
    let domains = domains(3);
    for name in ["target-dro", "odm", "ado", "pike", "skill-it", "aioli"] {
        let entry = STRATEGIES.iter().find(|entry| entry.name == name).unwrap();
        for objective in [Objective::Importance, Objective::Reweighted] {
            let mixture = MixtureSpec { objective, ..mixture(entry, Slot::Sampling, &domains) };
            let error = Mixer::new(&mixture, &domains, &RUN).unwrap_err().to_string();
            assert!(error.contains("the multiplier would take back"), "{error}");
            assert!(error.ends_with("hint: set objective = \"sampled\""), "{error}");
        }
    }
}

#[test]
fn a_run_too_short_for_a_rules_first_update_is_refused_and_one_step_more_is_not() {
    let domains = domains(3);
    let targets = "targets = { d0 = 2, d1 = 2, d2 = 2 }";
    // Of each, the steps until the first update.
    for (text, first, key) in [
        ("strategy = 'pike', every = 60".to_owned(), 60, "every is 60"),
        ("strategy = 'skill-it', every = 60".to_owned(), 60, "every is 60"),
        (format!("strategy = 'target-dro', every = 60, {targets}"), 60, "every is 60"),
        // One of `lp_steps`, and 2 rounds of 3 domains.
        ("strategy = 'aioli'".to_owned(), 70, "lp_steps is 10"),
        ("strategy = 'odm', warmup = 40".to_owned(), 40, "warmup is 40"),
        // 32 points after those ignored.
        ("strategy = 'ado', ignore_steps = 9, fit_every = 4".to_owned(), 41, "ignore_steps is 9"),
        ("strategy = 'ado', start_step = 50".to_owned(), 50, "start_step is 50"),
        // 10, 35, 60: of these 60 is the first that has as many points.
        (
            "strategy = 'ado', start_step = 10, ignore_steps = 4, fit_every = 25".to_owned(),
            60,
            "fit_every is 25",
        ),
    ] {
        let mixture: MixtureSpec =
            toml::from_str(&format!("objective = 'sampled'\nsampling = {{ {text} }}")).unwrap();
        let run = |steps| RunSize { steps, ..RUN };
        let error = Mixer::new(&mixture, &domains, &run(first)).unwrap_err();
        let message = error.in_config("mixture", "train");
        for part in [
            format!("mixture.sampling.{key}"),
            format!("after {first} steps"),
            format!("has {first} steps"),
            "\nhint: lower mixture.sampling.".to_owned(),
            "train.steps".to_owned(),
        ] {
            assert!(message.contains(&part), "{part}: {message}");
        }
        Mixer::new(&mixture, &domains, &run(first + 1)).unwrap();
    }
}

#[test]
fn intervals_left_out_are_a_twentieth_of_the_run_and_stay_left_out_in_a_config() {
    let domains = domains(3);
    for (steps, every) in [(2, 1), (39, 1), (60, 3), (600, 30), (2_000, 100), (90_000, 100)] {
        for text in [
            "strategy = 'pike'",
            "strategy = 'skill-it'",
            "strategy = 'target-dro', targets = { d0 = 2, d1 = 2, d2 = 2 }",
        ] {
            let mixture: MixtureSpec =
                toml::from_str(&format!("objective = 'sampled'\nsampling = {{ {text} }}")).unwrap();
            assert!(!toml::to_string(&mixture).unwrap().contains("every"), "{mixture:?}");
            let run = RunSize { steps, ..RUN };
            let mixer = Mixer::new(&mixture, &domains, &run).unwrap();
            let description = mixer.state().sampling.strategy;
            assert!(description.contains(&format!("every {every} steps")), "{description}");
        }
    }
}

/// Two strategies that both look at held-out losses, as a program may put them together: each
/// takes in only what was measured at its own steps.
#[test]
fn each_slot_takes_in_held_out_losses_at_its_own_steps_alone() {
    let domains = domains(3);
    let build = |slot: Slot, text: &str| {
        let table: toml::Table = toml::from_str(&format!("value = {text}")).unwrap();
        let spec: StrategySpec = table["value"].clone().try_into().unwrap();
        spec.build(&Setup { slot, domains: &domains, run: &RUN }).unwrap()
    };
    for loss in ["fgls", "erma"] {
        let loss = format!("{{ strategy = '{loss}', every = 20 }}");
        let sampling = |text: &str| build(Slot::Sampling, text);
        let options = mixture(&STRATEGIES[0], Slot::Loss, &domains).options();
        let mixer = |text: &str| {
            let loss = build(Slot::Loss, &loss);
            Mixer::with_strategies(options, sampling(text), loss, &domains, &RUN).unwrap()
        };
        let mut alone = mixer("'uniform'");
        let mut beside = mixer("{ strategy = 'skill-it', every = 7 }");
        let request = beside.observation_request();
        let measured: Vec<u64> = (0..45).filter(|d| request.held_out_at(*d).is_some()).collect();
        assert_eq!(measured, [7, 14, 20, 21, 28, 35, 40, 42]);
        for _ in 0..200 {
            let (one, other) = (advance(&mut alone), advance(&mut beside));
            assert_eq!(one.loss, other.loss, "{loss} at {}", one.step);
        }
        assert_eq!(alone.state().loss, beside.state().loss);
        let aioli = sampling("'aioli'");
        let error =
            Mixer::with_strategies(options, aioli, build(Slot::Loss, &loss), &domains, &RUN)
                .unwrap_err()
                .to_string();
        assert!(error.contains("the same held-out windows"), "{error}");
    }
}

#[test]
fn a_state_of_other_domains_is_refused() {
    let (three, four) = (domains(3), domains(4));
    for entry in STRATEGIES {
        for slot in slots(entry) {
            let mut driven = Driven::new(entry, slot, &three);
            for step in 0..110 {
                driven.strategy.observe(&observation(step, &all_usual(&three, step, 0.3)));
            }
            let state = driven.strategy.save();
            let mut other = Driven::new(entry, slot, &four);
            let before = other.strategy.save();
            assert_eq!(other.strategy.load(&state).is_ok(), state.is_null(), "{}", entry.name);
            assert_eq!(other.strategy.save(), before, "an error changes nothing");
        }
    }
}
