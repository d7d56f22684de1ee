//! Promises about draws, objectives, resume and refusals, through the public interface.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::strategy::{Fixed, Planned, Unimax};
use cuvee_mixer::{
    Context, Counts, DomainInfo, Draw, Mixer, MixerError, MixerState, MixtureOptions, MixtureSpec,
    Normalise, Objective, Observation, Result, RunSize, ShareSchedule, StepDraw, Strategy,
    StrategySpec,
};
use proptest::prelude::*;
use std::collections::HashSet;

const RUN: RunSize = RunSize { steps: 60, batch_size: 10, context: 16, seed: 11 };

fn domains() -> Vec<DomainInfo> {
    vec![DomainInfo::new("web", 1_000), DomainInfo::new("code", 500), DomainInfo::new("math", 90)]
}

fn fixed(shares: &[(&str, f64)]) -> StrategySpec {
    let shares = shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
    StrategySpec::Fixed(Fixed { shares })
}

fn three(web: f64, code: f64, math: f64) -> StrategySpec {
    fixed(&[("web", web), ("code", code), ("math", math)])
}

fn spec(text: &str) -> MixtureSpec {
    toml::from_str(text).unwrap()
}

fn all_steps(mixer: &mut Mixer) -> Vec<StepDraw> {
    (mixer.step()..RUN.steps).map(|_| mixer.next_step().unwrap()).collect()
}

/// (epoch, window, start) of the draws of one domain, in order.
fn order_within(mixer: &mut Mixer, name: &str) -> Vec<(u64, u64, u64)> {
    let index = mixer.domains().iter().position(|domain| domain.name == name).unwrap();
    let draws: Vec<Draw> = all_steps(mixer).into_iter().flat_map(|step| step.draws).collect();
    let within = draws.iter().filter(|draw| draw.domain.0 == index);
    within.map(|draw| (draw.epoch, draw.window, draw.start)).collect()
}

#[test]
fn each_window_once_per_epoch_through_the_mixer() {
    let mixture = MixtureSpec { sampling: three(1.0, 1.0, 1.0), ..MixtureSpec::default() };
    let mut mixer = Mixer::new(&mixture, &domains(), &RUN).unwrap();
    let order = order_within(&mut mixer, "math"); // 5 windows, 200 draws
    assert_eq!(order.len(), 200);
    for (epoch, visited) in order.chunks(5).enumerate() {
        assert!(visited.iter().all(|(e, ..)| *e == epoch as u64));
        assert_eq!(visited.iter().map(|(_, window, _)| window).collect::<HashSet<_>>().len(), 5);
    }
    assert_eq!(mixer.epochs()[2], 40.0);
}

#[test]
fn order_within_a_domain_is_independent_of_other_domains() {
    let build = |sampling, domains: &[DomainInfo], counts| {
        let mixture = MixtureSpec { sampling, counts, ..MixtureSpec::default() };
        Mixer::new(&mixture, domains, &RUN).unwrap()
    };
    let base =
        order_within(&mut build(three(1.0, 1.0, 1.0), &domains(), Counts::Stratified), "code");
    let skewed =
        order_within(&mut build(three(7.0, 2.0, 0.0), &domains(), Counts::Stratified), "code");
    let random =
        order_within(&mut build(three(1.0, 3.0, 1.0), &domains(), Counts::Multinomial), "code");
    let mut more = domains();
    more.insert(0, DomainInfo::new("poetry", 700));
    more.reverse();
    let shares = fixed(&[("web", 1.0), ("code", 2.0), ("math", 1.0), ("poetry", 3.0)]);
    let added = order_within(&mut build(shares, &more, Counts::Stratified), "code");
    for other in [skewed, random, added] {
        let shared = base.len().min(other.len());
        assert!(shared > 100);
        assert_eq!(base[..shared], other[..shared]);
    }
}

#[test]
fn changing_the_mixture_mid_run_neither_repeats_nor_loses_a_window() {
    let build = |sampling| {
        Mixer::new(&MixtureSpec { sampling, ..MixtureSpec::default() }, &domains(), &RUN).unwrap()
    };
    let mut uninterrupted = build(three(1.0, 1.0, 1.0));
    let expected = order_within(&mut uninterrupted, "web");
    let mut first = build(three(1.0, 1.0, 1.0));
    let mut visited: Vec<Draw> = (0..20).flat_map(|_| first.next_step().unwrap().draws).collect();
    let mut second = build(three(1.0, 5.0, 2.0));
    second.restore(&first.state()).unwrap();
    visited.extend(all_steps(&mut second).into_iter().flat_map(|step| step.draws));
    let web: Vec<_> =
        visited.iter().filter(|d| d.domain.0 == 0).map(|d| (d.epoch, d.window, d.start)).collect();
    assert!(web.len() > 80 && web.len() < expected.len());
    assert_eq!(web, expected[..web.len()]);
}

const MIXTURES: [&str; 5] = [
    "",
    "sampling = { strategy = 'fixed', shares = { web = 0.61, code = 0.3, math = 0.09 } }\ncounts = 'multinomial'",
    "objective = 'importance'\nsampling = 'uniform'\nloss = { strategy = 'fixed', shares = { web = 1, code = 2, math = 0.3 } }",
    "sampling = { strategy = 'schedule', interpolate = 'linear', stages = [{ from_step = 0, shares = { web = 3, code = 1, math = 0 } }, { from_step = 37, shares = { web = 0, code = 1, math = 2 } }] }",
    "objective = 'reweighted'\nnormalise = 'multipliers'\nsampling = { strategy = 'schedule', stages = [{ from_step = 0, shares = { web = 3, code = 1, math = 1 } }, { from_step = 9, shares = { web = 0.1, code = 1, math = 2 } }] }\nloss = { strategy = 'schedule', interpolate = 'linear', stages = [{ from_step = 0, shares = { web = 3, code = 1, math = 1 } }, { from_step = 30, shares = { web = 1, code = 1, math = 2 } }] }",
];

#[test]
fn resume_at_any_step_equals_an_uninterrupted_run_to_the_bit() {
    for text in MIXTURES {
        let build = || Mixer::new(&spec(text), &domains(), &RUN).unwrap();
        let whole = all_steps(&mut build());
        for stop in [0, 1, 7, 9, 36, 37, 38, 59, 60] {
            let mut first = build();
            for _ in 0..stop {
                first.next_step().unwrap();
            }
            let json = serde_json::to_string(&first.state()).unwrap();
            let state: MixerState = serde_json::from_str(&json).unwrap();
            assert_eq!(state, first.state());
            for (before, after) in first.state().domains.iter().zip(&state.domains) {
                assert_eq!(before.residual.to_bits(), after.residual.to_bits());
            }
            let mut second = build();
            second.restore(&state).unwrap();
            assert_eq!(all_steps(&mut second), whole[stop..], "{text}, resumed at {stop}");
        }
    }
}

#[test]
fn seeds_change_the_windows_and_equal_seeds_do_not() {
    let build = |seed| Mixer::new(&spec(""), &domains(), &RunSize { seed, ..RUN }).unwrap();
    let run = |seed| all_steps(&mut build(seed));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1)[0].draws, run(2)[0].draws);
}

#[test]
fn the_three_objectives_by_hand() {
    let mut weighted = domains();
    weighted[0].importance = 2.0; // π = (1/2, 1/4, 1/4)
    let first = |text: &str| {
        let sampling =
            "sampling = { strategy = 'fixed', shares = { web = 5, code = 3, math = 2 } }";
        let mixture = spec(&format!("{sampling}\n{text}"));
        Mixer::new(&mixture, &weighted, &RUN).unwrap().next_step().unwrap()
    };
    let near = |found: &[f64], expected: [f64; 3]| {
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14);
        assert!(close, "{found:?} is not {expected:?}");
    };
    let loss = "loss = { strategy = 'fixed', shares = { web = 1, code = 3, math = 4 } }";

    let sampled = first("");
    near(sampled.objective.values(), [0.5, 0.3, 0.2]);
    assert_eq!(sampled.multipliers, [1.0; 3]);
    assert_eq!(sampled.loss.values(), [1.0; 3]);
    assert_eq!(sampled.counts, [5, 3, 2]);

    let importance = first("objective = 'importance'");
    near(importance.objective.values(), [0.5, 0.25, 0.25]);
    near(&importance.multipliers, [1.0, 0.25 / 0.3, 1.25]);

    // Σ π w = 0.5 · 1 + 0.25 · 3 + 0.25 · 4 = 2.25.
    let both = first(&format!("objective = 'importance'\n{loss}"));
    near(both.loss.values(), [1.0 / 2.25, 3.0 / 2.25, 4.0 / 2.25]);
    near(both.objective.values(), [0.5 / 2.25, 0.75 / 2.25, 1.0 / 2.25]);
    near(&both.multipliers, [1.0 / 2.25, 2.5 / 2.25, 5.0 / 2.25]);

    let reweighted = first(&format!("objective = 'reweighted'\n{loss}"));
    near(reweighted.objective.values(), [0.125, 0.375, 0.5]);
    near(reweighted.loss.values(), [0.25, 1.5, 2.0]);
    near(&reweighted.multipliers, [0.25, 1.25, 2.5]);
}

#[test]
fn dividing_by_the_realised_multipliers_keeps_the_scale_of_every_batch() {
    let text = "objective = 'importance'\nsampling = { strategy = 'fixed', shares = { web = 5.3, code = 3, math = 1 } }";
    let build =
        |normalise| Mixer::new(&MixtureSpec { normalise, ..spec(text) }, &domains(), &RUN).unwrap();
    let sums = |normalise| -> Vec<f64> {
        let steps = all_steps(&mut build(normalise));
        steps.iter().map(|step| step.draws.iter().map(|draw| draw.multiplier).sum()).collect()
    };
    // Ten terms, each rounded twice, of at most 10: a few units of 2⁻⁵⁰.
    assert!(sums(Normalise::Multipliers).iter().all(|sum| (sum - 10.0).abs() < 1e-13));
    assert!(sums(Normalise::Sequences).iter().any(|sum| (sum - 10.0).abs() > 0.1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Σ p_i m_i = Σ α_i = 1, so that a batch's weighted loss has the mean of the objective,
    /// whatever p is (arXiv:2511.06913).
    #[test]
    fn the_multiplier_is_unbiased_in_expectation(
        p in prop::collection::vec(1e-3f64..1.0, 3),
        w in prop::collection::vec(1e-3f64..1.0, 3),
        importance in prop::collection::vec(1e-3f64..1.0, 3),
        reweighted: bool,
    ) {
        let mut weighted = domains();
        for (domain, value) in weighted.iter_mut().zip(&importance) {
            domain.importance = *value;
        }
        let mixture = MixtureSpec {
            objective: if reweighted { Objective::Reweighted } else { Objective::Importance },
            sampling: three(p[0], p[1], p[2]),
            loss: three(w[0], w[1], w[2]),
            ..MixtureSpec::default()
        };
        let step = Mixer::new(&mixture, &weighted, &RUN).unwrap().next_step().unwrap();
        let rows = step.sampling.values().iter().zip(&step.multipliers).zip(step.objective.values());
        let mut total = 0.0;
        for ((p, m), alpha) in rows {
            prop_assert!((p * m - alpha).abs() <= 2.0 * f64::EPSILON * alpha);
            total += p * m;
        }
        // Sums of three, after normalisations of a few roundings each.
        prop_assert!((total - 1.0).abs() < 20.0 * f64::EPSILON);
        let shares = step.loss.values().iter().zip(Mixer::new(&mixture, &weighted, &RUN).unwrap().importance().values()).map(|(w, pi)| w * pi).sum::<f64>();
        prop_assert!((shares - 1.0).abs() < 20.0 * f64::EPSILON);
    }
}

#[test]
fn both_kinds_of_counts_realise_the_objective() {
    // A domain's summed multipliers over the run, over all sequences, estimate its α.
    let skewed = "objective = 'importance'\nsampling = { strategy = 'fixed', shares = { web = 9, code = 1, math = 1 } }";
    for (counts, bound) in [("stratified", 0.0), ("multinomial", 5.0)] {
        let text = format!("{skewed}\ncounts = '{counts}'");
        let steps = all_steps(&mut Mixer::new(&spec(&text), &domains(), &RUN).unwrap());
        let (p, m) = (steps[0].sampling.values(), &steps[0].multipliers);
        let sequences = (RUN.steps * 10) as f64;
        for i in 0..3 {
            let drawn: usize = steps.iter().map(|step| step.counts[i]).sum();
            let estimate = drawn as f64 * m[i] / sequences;
            // Stratified: off by less than one sequence. Multinomial: by five binomial deviations.
            let slack = bound * m[i] * (p[i] * (1.0 - p[i]) / sequences).sqrt() + m[i] / sequences;
            assert!((estimate - 1.0 / 3.0).abs() < slack, "{counts}: {estimate}");
        }
    }
}

fn refusal(text: &str, domains: &[DomainInfo]) -> String {
    Mixer::new(&spec(text), domains, &RUN).unwrap_err().in_config("mixture", "train")
}

#[test]
fn sampling_nothing_of_what_the_objective_needs_is_refused() {
    let text = "objective = 'importance'\nsampling = { strategy = 'fixed', shares = { web = 1, code = 0, math = 1 } }";
    let error = refusal(text, &domains());
    assert!(
        error.contains("domain `code` has sampling_weight 0 at step 0") && error.contains("hint: "),
        "{error}"
    );
    // Without importance it may be left out, and then counts nothing.
    let mut without = domains();
    without[1].importance = 0.0;
    let step = Mixer::new(&spec(text), &without, &RUN).unwrap().next_step().unwrap();
    assert_eq!((step.counts[1], step.multipliers[1]), (0, 0.0));
    // And what is not sampled is not in a sampled objective.
    let sampled = text.replace("importance", "sampled");
    assert!(Mixer::new(&spec(&sampled), &domains(), &RUN).is_ok());
}

#[test]
fn a_schedule_that_will_stop_sampling_what_counts_is_refused_up_front() {
    let stages = |last: u64, interpolate: &str| {
        format!(
            "objective = 'importance'\nsampling = {{ strategy = 'schedule', interpolate = '{interpolate}', stages = [{{ from_step = 0, shares = {{ web = 1, code = 1, math = 1 }} }}, {{ from_step = {last}, shares = {{ web = 1, code = 0, math = 1 }} }}] }}"
        )
    };
    for interpolate in ["hold", "linear"] {
        let error = refusal(&stages(59, interpolate), &domains());
        assert!(error.contains("`code` has sampling_weight 0 at step 59"), "{error}");
        assert!(
            Mixer::new(&spec(&stages(60, interpolate)), &domains(), &RUN).is_ok(),
            "after the end"
        );
    }
}

#[test]
fn a_loss_strategy_without_effect_is_refused() {
    let error = refusal("loss = 'proportional'", &domains());
    assert!(
        error.contains("no effect under objective = \"sampled\"") && error.contains("hint: set"),
        "{error}"
    );
    assert!(Mixer::new(&spec("loss = 'uniform'"), &domains(), &RUN).is_ok());
}

#[test]
fn a_reweighted_objective_needs_importance_where_it_is() {
    let mut without = domains();
    without[2].importance = 0.0;
    let error = refusal("objective = 'reweighted'", &without);
    assert!(error.contains("domain `math` has importance 0"), "{error}");
}

#[test]
fn bad_importance_names_the_domain() {
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let mut wrong = domains();
        wrong[1].importance = bad;
        let error = refusal("", &wrong);
        assert!(error.contains("importance of domain `code`"), "{error}");
    }
    let mut zero = domains();
    zero.iter_mut().for_each(|domain| domain.importance = 0.0);
    assert!(refusal("", &zero).contains("importance is 0 for every domain"));
}

#[test]
fn a_domain_shorter_than_a_window_is_refused() {
    let mut short = domains();
    short[1].tokens = 16;
    let error = refusal("", &short);
    assert!(
        error.contains("domain `code` has 16 training tokens") && error.contains("at least 17"),
        "{error}"
    );
    short[1].tokens = 17;
    assert!(Mixer::new(&spec(""), &short, &RUN).is_ok());
    short[1].tokens = 0;
    assert!(Mixer::new(&spec(""), &short, &RUN).is_err());
}

#[test]
fn domains_must_exist_and_differ() {
    assert_eq!(Mixer::new(&spec(""), &[], &RUN).unwrap_err(), MixerError::NoDomains);
    let twice = [DomainInfo::new("web", 100), DomainInfo::new("web", 200)];
    assert!(refusal("", &twice).contains("two domains are called `web`"));
}

#[test]
fn a_run_of_nothing_or_of_too_much_is_refused() {
    for run in [
        RunSize { steps: 0, ..RUN },
        RunSize { batch_size: 0, ..RUN },
        RunSize { context: 0, ..RUN },
        RunSize { batch_size: usize::MAX, ..RUN },
        RunSize { context: usize::MAX, ..RUN },
    ] {
        let error = Mixer::new(&spec(""), &domains(), &run).unwrap_err();
        assert!(matches!(error, MixerError::BadParameter { .. }), "{error}");
    }
}

#[test]
fn more_epochs_than_allowed_are_refused_with_the_steps_that_fit() {
    // math: 5 windows, 10/3 sequences a step: 3 epochs = 15 sequences = 4.5 steps.
    let mut capped = domains();
    capped[2].max_epochs = Some(3.0);
    let build =
        |steps| Mixer::new(&spec("sampling = 'uniform'"), &capped, &RunSize { steps, ..RUN });
    let error = build(60).unwrap_err();
    match &error {
        MixerError::EpochsExceeded { domain, epochs, fitting_steps: 4, windows: 5, .. } => {
            assert_eq!((domain.as_str(), epochs.round()), ("math", 40.0));
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("4 steps fit"), "{error}");
    assert!(build(5).is_err());
    let mut mixer = build(4).unwrap();
    while mixer.step() < 4 {
        mixer.next_step().unwrap();
    }
    assert!(mixer.epochs()[2] <= 3.0);
    // An exact fit is a fit: 3 steps of 10/3 sequences are 2 epochs of 5 windows.
    capped[2].max_epochs = Some(2.0);
    let exact = Mixer::new(&spec("sampling = 'uniform'"), &capped, &RunSize { steps: 3, ..RUN });
    assert!(exact.is_ok());
    capped[2].max_epochs = Some(-1.0);
    assert!(refusal("", &capped).contains("max_epochs of domain `math` is -1"));
}

#[test]
fn the_plan_is_what_the_run_then_takes() {
    for text in MIXTURES {
        let mut mixer = Mixer::new(&spec(text), &domains(), &RUN).unwrap();
        let plan = mixer.plan().to_vec();
        let first = all_steps(&mut mixer).remove(0);
        assert!((plan.iter().map(|row| row.share).sum::<f64>() - 1.0).abs() < 1e-12);
        for (i, row) in plan.iter().enumerate() {
            // Whole sequences: off by less than one; multinomial by five binomial deviations.
            let slack = match text.contains("multinomial") {
                true => 5.0 * (600.0 * row.share * (1.0 - row.share)).sqrt(),
                false => 1.0 + 1e-9,
            };
            let drawn = mixer.consumed()[i] as f64;
            assert!((drawn - row.sequences).abs() <= slack, "{text}: {drawn} of {row:?}");
            assert!((row.expected_tokens - row.sequences * 16.0).abs() < 1e-9);
            assert!((row.epochs * row.windows as f64 - row.sequences).abs() < 1e-9);
            assert_eq!(row.loss_weight, first.loss.values()[i]);
        }
    }
}

#[test]
fn starting_costs_the_same_at_any_token_count() {
    // 2⁶³ tokens: anything proportional to them would not fit into memory, let alone finish.
    let huge = [DomainInfo::new("web", 1 << 63), DomainInfo::new("code", u64::MAX)];
    let mut mixer = Mixer::new(&spec(""), &huge, &RunSize { steps: u64::MAX, ..RUN }).unwrap();
    let step = mixer.next_step().unwrap();
    assert_eq!(step.draws.len(), 10);
    assert!(step.draws.iter().all(|draw| draw.epoch == 0));
    let mut state = mixer.state();
    state.step = 1 << 60;
    state.domains[0].consumed = 1 << 61;
    mixer.restore(&state).unwrap();
    assert!(mixer.next_step().unwrap().draws.iter().any(|draw| draw.epoch > 0));
}

#[test]
fn a_run_ends_where_it_was_planned_to() {
    let mut mixer = Mixer::new(&spec(""), &domains(), &RUN).unwrap();
    all_steps(&mut mixer);
    assert_eq!(mixer.next_step(), Err(MixerError::RunOver { steps: 60 }));
}

#[test]
fn a_state_of_another_run_is_refused_by_name() {
    let mut mixer = Mixer::new(&spec(""), &domains(), &RUN).unwrap();
    mixer.next_step().unwrap();
    let good = mixer.state();
    type Spoil = fn(&mut MixerState);
    let cases: [(&str, Spoil); 7] = [
        ("seed", |state| state.seed = 12),
        ("context", |state| state.context = 17),
        ("list of domains", |state| state.domains[1].name = "prose".into()),
        ("list of domains", |state| drop(state.domains.pop())),
        ("training tokens of domain `code`", |state| state.domains[1].tokens += 1),
        ("residual of domain `web`", |state| state.domains[0].residual = f64::NAN),
        ("consumed of domain `web`", |state| state.domains[0].consumed = u64::MAX),
    ];
    for (what, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        let error = mixer.restore(&state).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("hint: "), "{error}");
        assert_eq!(mixer.state(), good, "an error changes nothing");
    }
    let mut foreign = good.clone();
    foreign.sampling.state = serde_json::json!([1, 2]);
    assert!(mixer.restore(&foreign).is_err());
    // Any residual within the limits is worked off, not choked on.
    let mut behind = good;
    behind.domains[0].residual = 1e9;
    mixer.restore(&behind).unwrap();
    assert_eq!(mixer.next_step().unwrap().counts, [10, 0, 0]);
}

/// A stand-in for an online strategy: shares follow the last observed losses, and nothing is known
/// in advance.
#[derive(Debug, Default)]
struct FollowLosses {
    losses: Option<Vec<f64>>,
}

impl Strategy for FollowLosses {
    fn describe(&self) -> String {
        "follow-losses".to_owned()
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        let even = vec![1.0; context.domains.len()];
        let losses = self.losses.as_ref().unwrap_or(&even);
        let weights = context.loss_weight.map(|w| w.values().to_vec()).unwrap_or(even.clone());
        Ok(losses.iter().zip(weights).map(|(loss, w)| loss * w).collect())
    }

    fn observe(&mut self, observation: &Observation) {
        let losses = self.losses.get_or_insert_with(|| vec![1.0; observation.training.len()]);
        for (kept, seen) in losses.iter_mut().zip(&observation.training) {
            if let Some(statistics) = seen {
                *kept = statistics.mean;
            }
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.losses)
    }

    fn load(&mut self, state: &serde_json::Value) -> Result<()> {
        self.losses = serde_json::from_value(state.clone()).map_err(|error| MixerError::State {
            what: "losses".to_owned(),
            expected: "a list".to_owned(),
            found: error.to_string(),
        })?;
        Ok(())
    }
}

fn online(domains: &[DomainInfo]) -> Mixer {
    let shares = ShareSchedule::constant(
        cuvee_mixer::Simplex::normalise("loss", &["web", "code", "math"], &[1.0, 2.0, 5.0])
            .unwrap(),
    );
    let options = MixtureOptions { objective: Objective::Importance, ..MixtureOptions::default() };
    let loss = Planned::boxed("fixed", shares);
    Mixer::with_strategies(options, Box::<FollowLosses>::default(), loss, domains, &RUN).unwrap()
}

fn observe(mixer: &mut Mixer, step: &StepDraw) {
    let losses: Vec<f64> = step.draws.iter().map(|d| 1.0 + (d.start % 7) as f64 / 3.0).collect();
    mixer.observe(&step.observation(&losses));
}

#[test]
fn an_adaptive_strategy_sees_loss_weights_and_observations_and_resumes_to_the_bit() {
    let mut mixer = online(&domains());
    let first = mixer.next_step().unwrap();
    // Even losses, so that p ∝ w = (1, 2, 5)/Σπw.
    assert!((first.sampling.values()[2] - 0.625).abs() < 1e-15, "{:?}", first.sampling);
    observe(&mut mixer, &first);
    let second = mixer.next_step().unwrap();
    assert_ne!(second.sampling, first.sampling);
    observe(&mut mixer, &second);

    let json = serde_json::to_string(&mixer.state()).unwrap();
    let mut resumed = online(&domains());
    resumed.restore(&serde_json::from_str(&json).unwrap()).unwrap();
    for _ in 2..RUN.steps {
        let (a, b) = (mixer.next_step().unwrap(), resumed.next_step().unwrap());
        assert_eq!(a, b);
        observe(&mut mixer, &a);
        observe(&mut resumed, &b);
        assert!(mixer.residuals().iter().all(|residual| residual.abs() < 2.0));
    }
}

#[test]
fn an_adaptive_strategy_keeps_max_epochs_until_the_end_of_the_run() {
    let mut capped = domains();
    capped[2].max_epochs = Some(1.5); // 5 windows: at most 8 sequences
    let mut mixer = online(&capped);
    while mixer.step() < RUN.steps {
        let step = mixer.next_step().unwrap();
        assert_eq!(step.counts.iter().sum::<usize>(), RUN.batch_size);
        observe(&mut mixer, &step);
    }
    assert!((7..=8).contains(&mixer.consumed()[2]), "{:?}", mixer.consumed());
}

#[test]
fn unimax_is_a_sampling_strategy_only() {
    let mixture = MixtureSpec {
        objective: Objective::Importance,
        loss: StrategySpec::Unimax(Unimax { max_epochs: 1.0 }),
        ..MixtureSpec::default()
    };
    let error = Mixer::new(&mixture, &domains(), &RUN).unwrap_err();
    let error = error.in_config("mixture", "train");
    assert!(error.contains("mixture.loss: strategy `unimax` does not serve this slot"), "{error}");
}
