//! The same invariants over the whole table, then what is particular to a strategy.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::{
    DomainId, DomainInfo, GradientGram, GradientStatistics, LossStatistics, LossWeights, Mixer,
    MixtureSpec, Objective, Observation, ObservationRequest, RunSize, Simplex, Slot,
};

const RUN: RunSize = RunSize { steps: 12, batch_size: 8, context: 10, seed: 3 };

fn domains() -> Vec<DomainInfo> {
    vec![
        DomainInfo::new("web", 6_000),
        DomainInfo::new("code", 1_500),
        DomainInfo::new("math", 300),
    ]
}

#[derive(Debug, Deserialize, Serialize)]
struct Wrapped {
    value: StrategySpec,
}

fn parse(text: &str) -> std::result::Result<StrategySpec, toml::de::Error> {
    toml::from_str::<Wrapped>(&format!("value = {text}")).map(|wrapped| wrapped.value)
}

fn build(text: &str, slot: Slot) -> Result<Box<dyn Strategy>> {
    build_for(text, slot, &domains(), &RUN)
}

fn build_for(
    text: &str,
    slot: Slot,
    domains: &[DomainInfo],
    run: &RunSize,
) -> Result<Box<dyn Strategy>> {
    parse(text).unwrap().build(&Setup { slot, domains, run })
}

fn proposal(strategy: &dyn Strategy, step: u64) -> Vec<f64> {
    let domains = domains();
    let importance = Simplex::uniform(domains.len());
    let loss = LossWeights::ones(domains.len());
    let context =
        Context { step, domains: &domains, importance: &importance, loss_weight: Some(&loss) };
    strategy.propose(&context).unwrap()
}

fn shares(text: &str) -> Vec<f64> {
    proposal(build(text, Slot::Sampling).unwrap().as_ref(), 0)
}

fn assert_close(found: &[f64], expected: &[f64]) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(found.len() == expected.len() && near, "{found:?} is not {expected:?}");
}

/// A step after which everything was measured, except for the held-out losses of `math`; no two
/// steps are alike.
fn observation(step: u64) -> Observation {
    let drift = 1.0 + (step as f64).sin() / 3.0;
    let loss =
        |mean, variance| Some(LossStatistics { mean, variance: variance * drift, count: 40 });
    let gradient = |sequences, variance: f64| {
        let variance = variance * drift;
        let mean_square = 1.5 * variance;
        Some(GradientStatistics { sequences, variance, mean_square, direction: None })
    };
    let mut gram = GradientGram::new(3, 1e-3);
    for (i, j, product) in [(0, 0, 4.0), (0, 1, 1.0), (1, 1, 9.0)] {
        gram.set(DomainId(i), DomainId(j), product * drift);
    }
    Observation::of_step(step, 3, &[0, 1, 1].map(DomainId), &[2.0, 3.0, 4.0])
        .with_gram(gram)
        .with_excess(vec![Some(0.1 * drift), Some(0.05), None])
        .with_held_out(vec![loss(2.0, 0.1), loss(3.0, 0.7), None])
        .with_gradient(vec![gradient(3, 4.0), gradient(2, 9.0)])
}

#[test]
fn every_strategy_keeps_the_promises_of_the_table() {
    let names = ["web", "code", "math"];
    // Long enough for the first update of each.
    let run = RunSize { steps: 200, ..RUN };
    for entry in STRATEGIES {
        let spec = parse(entry.example).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
        assert_eq!(spec.entry(), entry, "the example selects its own row");
        let tag = serde_json::to_value(&spec).unwrap()["strategy"].clone();
        assert_eq!(tag, entry.name, "the row's name is the config's");
        assert!(!entry.summary.contains('\n') && !entry.summary.contains('|'), "{}", entry.name);

        for slot in [Slot::Sampling, Slot::Loss] {
            let built = build_for(entry.example, slot, &domains(), &run);
            if !entry.slots.contains(slot) {
                let error = built.unwrap_err().to_string();
                assert!(error.contains(slot.key()) && error.contains("hint: "), "{error}");
                continue;
            }
            let mut strategy = built.unwrap();
            assert!(strategy.describe().starts_with(entry.name));
            for step in [0, 1, 5, 6, 11, 1_000_000] {
                let raw = proposal(strategy.as_ref(), step);
                let p = Simplex::normalise(entry.name, &names, &raw).unwrap();
                assert_eq!(raw, proposal(strategy.as_ref(), step), "asking twice changes nothing");
                if let Some(forecast) = strategy.forecast() {
                    assert_close(p.values(), &forecast.at(step));
                }
            }
            let start = strategy.save();
            let request = strategy.observation_request();
            assert!(request.held_out_every != Some(0), "{}", entry.name);
            for step in 0..200 {
                strategy.observe(&observation(step));
            }
            // Whoever asks for something looks at it, and who cannot say in advance what it will
            // propose keeps a state.
            let learns = strategy.save() != start;
            assert_eq!(learns, strategy.forecast().is_none(), "{}", entry.name);
            assert!(learns || request == ObservationRequest::default(), "{}", entry.name);
            let state = serde_json::to_string(&strategy.save()).unwrap();
            let mut resumed = build_for(entry.example, slot, &domains(), &run).unwrap();
            resumed.load(&serde_json::from_str(&state).unwrap()).unwrap();
            for step in 1..20 {
                assert_eq!(proposal(strategy.as_ref(), step), proposal(resumed.as_ref(), step));
                strategy.observe(&observation(200 + step));
                resumed.observe(&observation(200 + step));
            }
            let foreign = serde_json::json!({"no": "strategy saves this"});
            assert!(resumed.load(&foreign).is_err(), "{} takes in a foreign state", entry.name);
        }
    }
}

#[test]
fn specs_survive_a_round_trip_through_toml_and_json() {
    for entry in STRATEGIES {
        let spec = parse(entry.example).unwrap();
        let text = toml::to_string(&Wrapped { value: spec.clone() }).unwrap();
        assert_eq!(toml::from_str::<Wrapped>(&text).unwrap().value, spec, "{text}");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<StrategySpec>(&json).unwrap(), spec, "{json}");
    }
}

#[test]
fn a_bare_name_is_a_strategy_without_parameters() {
    assert_eq!(parse(r#""uniform""#).unwrap(), parse(r#"{ strategy = "uniform" }"#).unwrap());
    let missing = parse(r#""temperature""#).unwrap_err().to_string();
    assert!(missing.contains("missing field `temperature`"), "{missing}");
}

#[test]
fn config_mistakes_name_what_was_expected() {
    let message = |text| parse(text).unwrap_err().to_string();
    let unknown = message(r#""unifrom""#);
    assert!(unknown.contains("unifrom") && unknown.contains("`uniform`"), "{unknown}");
    let key = message(r#"{ strategy = "uniform", temperature = 2 }"#);
    assert!(key.contains("unknown field `temperature`"), "{key}");
    let key = message(r#"{ strategy = "unimax", epochs = 2 }"#);
    assert!(key.contains("unknown field `epochs`") && key.contains("`max_epochs`"), "{key}");
    assert!(message("3").contains("a strategy's name"), "{}", message("3"));
    let error = toml::from_str::<MixtureSpec>("samplin = \"uniform\"").unwrap_err().to_string();
    assert!(error.contains("`samplin`") && error.contains("`sampling`"), "{error}");
}

#[test]
fn the_default_mixture_is_what_other_trainers_do() {
    let spec: MixtureSpec = toml::from_str("").unwrap();
    assert_eq!(spec, MixtureSpec::default());
    assert_eq!(spec.objective, Objective::Sampled);
    assert_eq!((spec.sampling.entry().name, spec.loss.entry().name), ("proportional", "uniform"));
    let text = toml::to_string(&spec).unwrap();
    assert_eq!(toml::from_str::<MixtureSpec>(&text).unwrap(), spec);
}

#[test]
fn proportional_uniform_and_fixed() {
    assert_close(&shares(r#""proportional""#), &[6000.0 / 7800.0, 1500.0 / 7800.0, 300.0 / 7800.0]);
    assert_close(&shares(r#""uniform""#), &[1.0 / 3.0; 3]);
    let fixed = shares(r#"{ strategy = "fixed", shares = { web = 6, code = 3, math = 1 } }"#);
    assert_close(&fixed, &[0.6, 0.3, 0.1]);
}

#[test]
fn importance_draws_what_counts_and_multiplies_nothing() {
    let importance = |domain: &DomainInfo| match domain.name.as_str() {
        "web" => 3.0,
        "code" => 1.0,
        _ => 0.0,
    };
    let weighed = domains()
        .into_iter()
        .map(|domain| DomainInfo { importance: importance(&domain), ..domain })
        .collect::<Vec<_>>();
    let mixture = MixtureSpec {
        objective: Objective::Importance,
        sampling: parse(r#""importance""#).unwrap(),
        ..MixtureSpec::default()
    };
    let mut mixer = Mixer::new(&mixture, &weighed, &RUN).unwrap();
    let step = mixer.next_step().unwrap();
    assert_close(step.sampling.values(), &[0.75, 0.25, 0.0]);
    assert_eq!(step.counts, [6, 2, 0]);
    assert!(step.draws.iter().all(|draw| draw.multiplier == 1.0));
}

#[test]
fn temperature_goes_from_proportional_to_uniform() {
    let at = |temperature: &str| {
        shares(&format!(r#"{{ strategy = "temperature", temperature = {temperature} }}"#))
    };
    assert_close(&at("1"), &shares(r#""proportional""#));
    assert_close(&at("inf"), &[1.0 / 3.0; 3]);
    // |p − 1/3| ≈ ln(20)/T / 3 at most, for sizes that differ by a factor of 20: below 10⁻¹².
    assert_close(&at("1e13"), &[1.0 / 3.0; 3]);
    // T → 0 puts all on the largest, without overflow.
    assert_close(&at("0.001"), &[1.0, 0.0, 0.0]);
    let by_hand: Vec<f64> = [6000.0f64, 1500.0, 300.0].iter().map(|n| n.sqrt()).collect();
    let sum: f64 = by_hand.iter().sum();
    assert_close(&at("2"), &by_hand.iter().map(|n| n / sum).collect::<Vec<_>>());
}

#[test]
fn temperature_scales_then_limits() {
    // 6000, 1500, 300 times 2, at most 3000: 3000, 3000, 600.
    let text = r#"{ strategy = "temperature", temperature = 1, scale = 2, max_tokens = 3000 }"#;
    assert_close(&shares(text), &[3000.0 / 6600.0, 3000.0 / 6600.0, 600.0 / 6600.0]);
}

#[test]
fn unimax_matches_a_hand_calculation() {
    // Budget 12 · 8 · 10 = 960 tokens, N = 0.5: math ← min(960/3, 150) = 150; code ← min(810/2,
    // 750) = 405; web ← 405.
    let found = shares(r#"{ strategy = "unimax", max_epochs = 0.5 }"#);
    assert_close(&found, &[405.0 / 960.0, 405.0 / 960.0, 150.0 / 960.0]);
}

#[test]
fn unimax_never_plans_more_than_its_epochs() {
    // 120 steps · 80 = 9,600 tokens of 2 · 7,800 allowed.
    let run = RunSize { steps: 120, ..RUN };
    let spec = MixtureSpec {
        sampling: parse(r#"{ strategy = "unimax", max_epochs = 2 }"#).unwrap(),
        ..MixtureSpec::default()
    };
    let capped: Vec<DomainInfo> = domains()
        .into_iter()
        .map(|domain| DomainInfo { max_epochs: Some(2.0), ..domain })
        .collect();
    let mixer = Mixer::new(&spec, &capped, &run).unwrap();
    let epochs: Vec<f64> = mixer.plan().iter().map(|row| row.epochs).collect();
    // math and code are read twice, web takes the rest: 9600 − 600 − 3000 = 6000.
    assert_close(&epochs, &[1.0, 2.0, 2.0]);
}

#[test]
fn unimax_refuses_a_run_longer_than_the_data() {
    // 0.1 · 7800 = 780 tokens hold 9 steps of 80.
    let error = build(r#"{ strategy = "unimax", max_epochs = 0.1 }"#, Slot::Sampling).unwrap_err();
    assert!(matches!(error, MixerError::BudgetExceeded { fitting_steps: 9, .. }), "{error}");
    assert!(error.to_string().contains("960 tokens"), "{error}");
    let run = RunSize { steps: 9, ..RUN };
    let text = r#"{ strategy = "unimax", max_epochs = 0.1 }"#;
    assert!(build_for(text, Slot::Sampling, &domains(), &run).is_ok());
}

#[test]
fn shares_must_list_exactly_the_domains() {
    let message =
        |text: &str| build(text, Slot::Sampling).unwrap_err().in_config("mixture", "train");
    let unknown = message(r#"{ strategy = "fixed", shares = { web = 1, cod = 1, math = 1 } }"#);
    assert!(unknown.contains("mixture.sampling.shares names the domain `cod`"), "{unknown}");
    assert!(unknown.contains("hint: did you mean `code`?"), "{unknown}");
    let missing = message(r#"{ strategy = "fixed", shares = { web = 1, math = 1 } }"#);
    assert!(
        missing.contains("no entry for domain `code`") && missing.contains("`code = 0`"),
        "{missing}"
    );
    let zero = message(r#"{ strategy = "fixed", shares = { web = 0, code = 0, math = 0 } }"#);
    assert!(zero.contains("0 for every domain"), "{zero}");
    let negative = message(r#"{ strategy = "fixed", shares = { web = 1, code = -2, math = 1 } }"#);
    assert!(negative.contains("domain `code` is -2"), "{negative}");
    let nan = message(r#"{ strategy = "fixed", shares = { web = 1, code = nan, math = 1 } }"#);
    assert!(nan.contains("domain `code` is NaN"), "{nan}");
    let staged = message(
        r#"{ strategy = "schedule", stages = [{ from_step = 0, shares = { web = 1, code = 1, math = 1 } }, { from_step = 5, shares = { web = -1, code = 1, math = 1 } }] }"#,
    );
    assert!(staged.contains("mixture.sampling.stages[1].shares of domain `web` is -1"), "{staged}");
}

#[test]
fn parameters_out_of_range_are_named() {
    for (text, place) in [
        (r#"{ strategy = "temperature", temperature = 0 }"#, "sampling.temperature is 0"),
        (r#"{ strategy = "temperature", temperature = nan }"#, "sampling.temperature is NaN"),
        (r#"{ strategy = "temperature", temperature = 1, scale = -1 }"#, "sampling.scale is -1"),
        (
            r#"{ strategy = "temperature", temperature = 1, max_tokens = 0 }"#,
            "sampling.max_tokens is 0",
        ),
        (r#"{ strategy = "unimax", max_epochs = 0 }"#, "sampling.max_epochs is 0"),
        (r#"{ strategy = "unimax", max_epochs = inf }"#, "sampling.max_epochs is inf"),
        (
            r#"{ strategy = "schedule", stages = [] }"#,
            "sampling.stages is a list with from_step = []",
        ),
        (
            r#"{ strategy = "schedule", stages = [{ from_step = 2, shares = { web = 1, code = 1, math = 1 } }] }"#,
            "from_step = [2]",
        ),
    ] {
        let error = build(text, Slot::Sampling).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn the_markdown_table_has_a_row_for_each_strategy() {
    let table = strategies_markdown();
    assert_eq!(table.lines().count(), STRATEGIES.len() + 2);
    for (line, entry) in table.lines().skip(2).zip(STRATEGIES) {
        assert!(line.starts_with(&format!("| `{}` |", entry.name)), "{line}");
        assert_eq!(line.matches('|').count(), 6, "{line}");
    }
}

#[test]
fn parameters_of_adaptive_strategies_out_of_range_are_named() {
    for (slot, text, place) in [
        (Slot::Sampling, r#"{ strategy = "va", epsilon = 0 }"#, "sampling.epsilon is 0"),
        (Slot::Sampling, r#"{ strategy = "va", epsilon = nan }"#, "sampling.epsilon is NaN"),
        (Slot::Sampling, r#"{ strategy = "va", smoothing = 1 }"#, "sampling.smoothing is 1"),
        (Slot::Sampling, r#"{ strategy = "va", every = 0 }"#, "sampling.every is 0"),
        (Slot::Loss, r#"{ strategy = "fgls", beta = 0 }"#, "loss.beta is 0"),
        (Slot::Loss, r#"{ strategy = "fgls", beta = 1.5 }"#, "loss.beta is 1.5"),
        (Slot::Loss, r#"{ strategy = "fgls", every = 0 }"#, "loss.every is 0"),
        (Slot::Loss, r#"{ strategy = "fgls", smoothing = 1 }"#, "loss.smoothing is 1"),
        (Slot::Loss, r#"{ strategy = "erma", gamma1 = -1 }"#, "loss.gamma1 is -1"),
        (Slot::Loss, r#"{ strategy = "erma", gamma2 = inf }"#, "loss.gamma2 is inf"),
        (Slot::Loss, r#"{ strategy = "erma", clamp_min = 0 }"#, "loss.clamp_min is 0"),
        (Slot::Loss, r#"{ strategy = "erma", clamp_min = 1.1 }"#, "loss.clamp_min is 1.1"),
        (Slot::Loss, r#"{ strategy = "fgls", clamp_max = 0.9 }"#, "loss.clamp_max is 0.9"),
        (Slot::Loss, r#"{ strategy = "fgls", clamp_max = inf }"#, "loss.clamp_max is inf"),
        (Slot::Sampling, r#"{ strategy = "pike", step = 0 }"#, "sampling.step is 0"),
        (
            Slot::Sampling,
            r#"{ strategy = "pike", noise_ratio = -1 }"#,
            "sampling.noise_ratio is -1",
        ),
        (
            Slot::Sampling,
            r#"{ strategy = "pike", noise_ratio = 0, form = "closed" }"#,
            "sampling.noise_ratio is 0",
        ),
        (Slot::Sampling, r#"{ strategy = "pike", epsilon = 0 }"#, "sampling.epsilon is 0"),
        (Slot::Sampling, r#"{ strategy = "pike", gamma = nan }"#, "sampling.gamma is NaN"),
        (Slot::Sampling, r#"{ strategy = "pike", balance = 0 }"#, "sampling.balance is 0"),
        (Slot::Sampling, r#"{ strategy = "pike", smoothing = 1 }"#, "sampling.smoothing is 1"),
        (Slot::Sampling, r#"{ strategy = "pike", every = 0 }"#, "sampling.every is 0"),
        (
            Slot::Sampling,
            r#"{ strategy = "pike", measure_every = 0 }"#,
            "sampling.measure_every is 0",
        ),
        (Slot::Loss, r#"{ strategy = "doge", mu = 0 }"#, "loss.mu is 0"),
        (Slot::Loss, r#"{ strategy = "doge", max_norm = inf }"#, "loss.max_norm is inf"),
        (Slot::Loss, r#"{ strategy = "doge", every = 0 }"#, "loss.every is 0"),
        (Slot::Loss, r#"{ strategy = "excess-dro", reference = "" }"#, "loss.reference is \"\""),
        (Slot::Loss, r#"{ strategy = "excess-dro", reference = "r", step = 0 }"#, "loss.step is 0"),
        (
            Slot::Loss,
            r#"{ strategy = "excess-dro", reference = "r", epsilon = 2 }"#,
            "loss.epsilon is 2",
        ),
        (Slot::Loss, r#"{ strategy = "group-dro", step = 0 }"#, "loss.step is 0"),
        (Slot::Loss, r#"{ strategy = "group-dro", adjustment = -1 }"#, "loss.adjustment is -1"),
        (Slot::Sampling, r#"{ strategy = "odm", smoothing = 1 }"#, "sampling.smoothing is 1"),
        (Slot::Sampling, r#"{ strategy = "odm", reward_scale = 0 }"#, "sampling.reward_scale is 0"),
        (
            Slot::Sampling,
            r#"{ strategy = "odm", prior = { web = 1, code = 0, math = 1 } }"#,
            "sampling.prior.code is 0",
        ),
        (
            Slot::Sampling,
            r#"{ strategy = "odm", prior = { web = 1, math = 1 } }"#,
            "sampling.prior.code is missing",
        ),
        (Slot::Sampling, r#"{ strategy = "ado", fit_every = 0 }"#, "sampling.fit_every is 0"),
        (Slot::Sampling, r#"{ strategy = "ado", floor = 1 }"#, "sampling.floor is 1"),
        (Slot::Sampling, r#"{ strategy = "ado", recent = 0 }"#, "sampling.recent is 0"),
        (Slot::Sampling, r#"{ strategy = "ado", smoothing = -1 }"#, "sampling.smoothing is -1"),
        (Slot::Sampling, r#"{ strategy = "ado", min_exponent = inf }"#, "min_exponent is inf"),
        (
            Slot::Sampling,
            r#"{ strategy = "ado", min_log_irreducible = nan }"#,
            "sampling.min_log_irreducible is NaN",
        ),
        (Slot::Sampling, r#"{ strategy = "skill-it", step = nan }"#, "sampling.step is NaN"),
        (Slot::Sampling, r#"{ strategy = "skill-it", every = 0 }"#, "sampling.every is 0"),
        (Slot::Sampling, r#"{ strategy = "skill-it", window = 0 }"#, "sampling.window is 0"),
        (Slot::Sampling, r#"{ strategy = "skill-it", epsilon = 2 }"#, "sampling.epsilon is 2"),
        (Slot::Sampling, r#"{ strategy = "aioli", rounds = 0 }"#, "sampling.rounds is 0"),
        (Slot::Sampling, r#"{ strategy = "aioli", lp_steps = 0 }"#, "sampling.lp_steps is 0"),
        (Slot::Sampling, r#"{ strategy = "aioli", rho = 1.5 }"#, "sampling.rho is 1.5"),
        (Slot::Sampling, r#"{ strategy = "aioli", step = -1 }"#, "sampling.step is -1"),
        (Slot::Sampling, r#"{ strategy = "aioli", epsilon = nan }"#, "sampling.epsilon is NaN"),
    ] {
        let error = build(text, slot).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains("\nhint: "), "{error}");
    }
    for (more, place) in [
        ("step = 0", "sampling.step is 0"),
        ("every = 0", "sampling.every is 0"),
        ("epsilon = 0", "sampling.epsilon is 0"),
    ] {
        let targets = "targets = { web = 1, code = 1, math = 1 }";
        let text = format!("{{ strategy = \"target-dro\", {targets}, {more} }}");
        let error = build(&text, Slot::Sampling).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains("\nhint: "), "{error}");
    }
    let missing = parse(r#""target-dro""#).unwrap_err().to_string();
    assert!(missing.contains("missing field `targets`"), "{missing}");
    let unknown = parse(r#"{ strategy = "odm", variant = "exp3" }"#).unwrap_err().to_string();
    assert!(unknown.contains("`exp3`") && unknown.contains("`gibbs`"), "{unknown}");
    let unknown = parse(r#"{ strategy = "va", variance = "norms" }"#).unwrap_err().to_string();
    assert!(unknown.contains("`norms`") && unknown.contains("`norm-layers`"), "{unknown}");
    let unknown = parse(r#"{ strategy = "va", floor = "flat" }"#).unwrap_err().to_string();
    assert!(unknown.contains("`flat`") && unknown.contains("`objective`"), "{unknown}");
    let unknown = parse(r#"{ strategy = "fgls", sigma = "residual" }"#).unwrap_err().to_string();
    assert!(unknown.contains("`residual`") && unknown.contains("`loss-variance`"), "{unknown}");
}

#[test]
fn adaptive_defaults_are_those_of_the_documentation() {
    for (name, entry) in [
        ("va", va::ENTRY),
        ("fgls", fgls::ENTRY),
        ("erma", erma::ENTRY),
        ("pike", pike::ENTRY),
        ("doge", doge::ENTRY),
        ("group-dro", group_dro::ENTRY),
        ("odm", odm::ENTRY),
        ("ado", ado::ENTRY),
        ("aioli", aioli::ENTRY),
    ] {
        assert_eq!(parse(&format!("\"{name}\"")).unwrap(), parse(entry.example).unwrap());
    }
    let excess = parse(r#"{ strategy = "excess-dro", reference = "runs/reference" }"#).unwrap();
    assert_eq!(excess, parse(excess_dro::ENTRY.example).unwrap());
    assert_eq!(excess.reference(), Some("runs/reference"));
    let missing = parse(r#""excess-dro""#).unwrap_err().to_string();
    assert!(missing.contains("missing field `reference`"), "{missing}");
}

#[test]
fn the_documentation_has_the_table() {
    let documentation = include_str!("../../../../docs/strategies.md");
    assert!(documentation.contains(&strategies_markdown()), "{}", strategies_markdown());
}
