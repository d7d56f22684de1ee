//! Promises of the strategies that learn while training, through the public interface.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::seed::CounterRng;
use cuvee_mixer::{
    DomainId, DomainInfo, GradientGram, GradientRequest, GradientStatistics, LossStatistics, Mixer,
    MixerError, MixerState, MixtureSpec, Objective, Observation, ObservationRequest, RunSize,
    StepDraw, VarianceEstimator, rule,
};

const RUN: RunSize = RunSize { steps: 400, batch_size: 12, context: 16, seed: 5 };

fn domains() -> Vec<DomainInfo> {
    let domain = |name, importance| DomainInfo { importance, ..DomainInfo::new(name, 2_000) };
    vec![domain("web", 0.5), domain("code", 0.3), domain("math", 0.2)]
}

fn spec(text: &str) -> MixtureSpec {
    toml::from_str(text).unwrap()
}

fn mixer(sampling: &str, loss: &str) -> Mixer {
    let text = format!("objective = 'importance'\nsampling = {sampling}\nloss = {loss}");
    Mixer::new(&spec(&text), &domains(), &RUN).unwrap()
}

fn losses(mean: f64, variance: f64) -> Option<LossStatistics> {
    Some(LossStatistics { mean, variance, count: 64 })
}

fn gradients(sequences: usize, variance: f64) -> Option<GradientStatistics> {
    Some(GradientStatistics { sequences, variance, mean_square: 1.2 * variance, direction: None })
}

/// What training might have said of `step`: drifting statistics, none of an absent domain, held-out
/// losses now and then.
fn observation(step: &StepDraw) -> Observation {
    let t = step.step as f64;
    let drift = |i: usize| 1.0 + 0.5 * (t / 17.0 + 2.0 * i as f64).sin();
    let of = |draw: fn(&StepDraw) -> &[usize]| draw(step).iter().copied().enumerate();
    let gradient = of(|step| &step.counts)
        .map(|(i, count)| gradients(count, [1.0, 9.0, 4.0][i] * drift(i)).filter(|_| count > 0));
    let sequence_losses: Vec<f64> =
        step.draws.iter().map(|draw| 2.0 + draw.start as f64 / 1e4).collect();
    let observed = step.observation(&sequence_losses).with_gradient(gradient.collect());
    match (step.step + 1).is_multiple_of(10) {
        true => observed
            .with_held_out((0..3).map(|i| losses(3.0 - 0.2 * i as f64, 0.4 * drift(i))).collect()),
        false => observed,
    }
}

fn advance(mixer: &mut Mixer) -> StepDraw {
    let step = mixer.next_step().unwrap();
    mixer.observe(&observation(&step));
    step
}

const SAMPLING: [&str; 4] = [
    "'proportional'",
    "'va'",
    "{ strategy = 'va', variance = 'sketch', every = 3, floor = 'even' }",
    "{ strategy = 'va', start_step = 25, smoothing = 0.5, variance = 'ghost' }",
];
const LOSS: [&str; 4] = [
    "'uniform'",
    "{ strategy = 'fgls', every = 10, beta = 0.3, smoothing = 0.5 }",
    "{ strategy = 'erma', every = 20, gamma1 = 0.5, gamma2 = 2 }",
    "{ strategy = 'erma', every = 10, descent = 'objective' }",
];

#[test]
fn every_combination_resumes_to_the_bit() {
    for sampling in SAMPLING {
        for loss in LOSS {
            let mut whole = mixer(sampling, loss);
            let mut states = Vec::new();
            let steps: Vec<StepDraw> = (0..80)
                .map(|_| {
                    states.push(serde_json::to_string(&whole.state()).unwrap());
                    advance(&mut whole)
                })
                .collect();
            for stop in [0, 1, 9, 10, 11, 20, 25, 26, 63] {
                let mut resumed = mixer(sampling, loss);
                resumed.restore(&serde_json::from_str(&states[stop]).unwrap()).unwrap();
                for expected in &steps[stop..] {
                    assert_eq!(&advance(&mut resumed), expected, "{sampling} {loss} from {stop}");
                }
                assert_eq!(resumed.state(), whole.state());
            }
        }
    }
}

#[test]
fn va_follows_the_loss_weights_of_the_same_step_and_leaves_the_objective_alone() {
    for loss in LOSS {
        let mut mixer = mixer("'va'", loss);
        let importance = mixer.importance().values().to_vec();
        let mut moved = false;
        for _ in 0..200 {
            let step = advance(&mut mixer);
            let w = step.loss.values();
            let deviation =
                step.measurements.gradient_deviation.clone().unwrap_or_else(|| vec![1.0; 3]);
            let measured = [step.measurements.gradient_deviation.is_some(); 3];
            let p = rule::va_defensive(&importance, w, &deviation, &measured, 0.05);
            for i in 0..3 {
                // The mixer normalises once more: a few roundings.
                assert!((step.sampling.values()[i] - p[i]).abs() < 1e-14);
                let product = step.multipliers[i] * step.sampling.values()[i];
                assert!((product - importance[i] * w[i]).abs() < 1e-14, "m p = π w");
            }
            moved |= step.loss.values().iter().any(|w| (w - 1.0).abs() > 0.01);
        }
        assert_eq!(moved, loss != "'uniform'");
    }
}

#[test]
fn va_starts_at_the_importance_and_ends_at_the_closed_form() {
    let importance = [0.5, 0.3, 0.2];
    for (floor, even) in [("objective", false), ("even", true)] {
        let text =
            format!("{{ strategy = 'va', epsilon = 0.1, start_step = 50, floor = '{floor}' }}");
        let mut mixer = mixer(&text, "'uniform'");
        let spread = |i: usize| 0.1 * if even { 1.0 / 3.0 } else { importance[i] };
        let mixed =
            |rule: [f64; 3]| -> Vec<f64> { (0..3).map(|i| 0.9 * rule[i] + spread(i)).collect() };
        for expected in 0..60 {
            let step = mixer.next_step().unwrap();
            assert_eq!(step.measurements.gradient_deviation.is_some(), expected > 0);
            let gradient = [1.0, 9.0, 4.0].map(|variance| gradients(4, variance)).to_vec();
            mixer.observe(&Observation::of_step(expected, 3, &[], &[]).with_gradient(gradient));
            let p = match expected {
                // Nothing measured: ε/K for `code` and `math`, whose objective is less than 1/K.
                0 if !even => {
                    let part = 0.1 / 3.0 - 0.03 + 0.1 / 3.0 - 0.02;
                    let share = |i: usize| (0.9 - part) * importance[i];
                    vec![share(0) + 0.05, share(1) + 0.1 / 3.0, share(2) + 0.1 / 3.0]
                }
                0..50 => mixed(importance),
                // π v = (0.5, 0.9, 0.4) of 1.8.
                _ => mixed([0.5 / 1.8, 0.9 / 1.8, 0.4 / 1.8]),
            };
            assert!(
                step.sampling.values().iter().zip(&p).all(|(a, b)| (a - b).abs() < 1e-12),
                "{floor}, {expected}: {p:?} {:?}",
                step.sampling
            );
        }
    }
}

/// What `va` draws in `steps` steps from `domains` equal domains, where the squared norms of their
/// gradients are `square(domain, step)`, all of it noise, and one step in `every` tells.
fn sampled_by_norms(
    domains: usize,
    run: &RunSize,
    every: u64,
    steps: u64,
    square: impl Fn(usize, u64) -> f64,
) -> Vec<StepDraw> {
    let list: Vec<DomainInfo> =
        (0..domains).map(|i| DomainInfo::new(&format!("d{i}"), 20_000)).collect();
    let text =
        format!("objective = 'importance'\nsampling = {{ strategy = 'va', every = {every} }}");
    let mut mixer = Mixer::new(&spec(&text), &list, run).unwrap();
    let request = mixer.observation_request();
    (0..steps)
        .map(|step| {
            let draw = mixer.next_step().unwrap();
            let seen = |(i, &count): (usize, &usize)| {
                let square = square(i, step);
                (count > 0).then_some(GradientStatistics {
                    sequences: count,
                    variance: if count > 1 { square } else { 0.0 },
                    mean_square: square,
                    direction: None,
                })
            };
            let observed = draw.observation(&vec![1.0; run.batch_size]);
            mixer.observe(&match request.estimator_at(step) {
                Some(_) => {
                    observed.with_gradient(draw.counts.iter().enumerate().map(seen).collect())
                }
                None => observed,
            });
            draw
        })
        .collect()
}

#[test]
fn a_domain_that_once_looked_quiet_recovers() {
    // v of one of 8 domains is a sixth of the others' for 30 steps, and then the same.
    let run = RunSize { steps: 60, batch_size: 16, context: 16, seed: 5 };
    let square = |i: usize, step: u64| if i == 0 && step < 30 { 1.0 / 36.0 } else { 1.0 };
    let steps = sampled_by_norms(8, &run, 1, 51, square);
    let p = |step: usize| steps[step].sampling.values()[0];
    assert!(p(30) < 0.04, "locked in: {}", p(30));
    assert!(p(50) > 0.8 / 8.0, "recovered to {} of 1/8", p(50));
}

#[test]
fn every_domain_is_measured_where_there_are_more_domains_than_sequences() {
    for (domains, batch_size) in [(3, 3), (8, 8), (8, 5), (12, 3)] {
        let run = RunSize { steps: 120, batch_size, context: 16, seed: 5 };
        let square = |i: usize, _| (1 + i % 4) as f64;
        let steps = sampled_by_norms(domains, &run, 1, 120, square);
        let v = steps[119].measurements.gradient_deviation.clone().unwrap();
        for (i, v) in v.iter().enumerate() {
            let expected = square(i, 0).sqrt();
            assert!((v / expected - 1.0).abs() < 1e-9, "{domains} {batch_size}: {i} has {v}");
        }
    }
}

#[test]
fn statistics_that_are_collected_now_and_then_see_every_domain() {
    // 12 sequences of 8 domains come with a period of 2 steps, which every eighth step never
    // leaves: four of the domains would never have two sequences.
    let run = RunSize { steps: 800, batch_size: 12, context: 16, seed: 5 };
    let request =
        mixer("{ strategy = 'va', variance = 'sketch' }", "'uniform'").observation_request();
    let mut pairs = [0; 8];
    for step in sampled_by_norms(8, &run, 8, 800, |_, _| 1.0) {
        if request.estimator_at(step.step).is_some() {
            pairs.iter_mut().zip(&step.counts).for_each(|(n, count)| *n += (*count > 1) as u32);
        }
    }
    // Half of 100 collected steps, and no fewer than five deviations of 5 less.
    assert!(pairs.iter().all(|n| *n > 25), "{pairs:?}");
}

#[test]
fn no_multiplier_is_above_that_of_the_floor() {
    // A domain of nearly all importance whose v is next to nothing: an even floor gives it 0.05/3.
    let list = [("main", 0.96), ("b", 0.02), ("c", 0.02)]
        .map(|(name, importance)| DomainInfo { importance, ..DomainInfo::new(name, 2_000) });
    let largest = |floor: &str| {
        let text = format!(
            "objective = 'importance'\nsampling = {{ strategy = 'va', floor = '{floor}' }}"
        );
        let mut mixer = Mixer::new(&spec(&text), &list, &RUN).unwrap();
        let mut largest: f64 = 0.0;
        for step in 0..200 {
            let draw = mixer.next_step().unwrap();
            largest = draw.multipliers.iter().copied().fold(largest, f64::max);
            let gradient = vec![gradients(4, 1e-12), gradients(4, 1.0), gradients(4, 1.0)];
            mixer.observe(&Observation::of_step(step, 3, &[], &[]).with_gradient(gradient));
        }
        largest
    };
    assert!(largest("objective") < 20.0 + 1e-9, "1/0.05");
    assert!(largest("even") > 50.0);
}

#[test]
fn domains_with_limits_last_until_the_end_of_the_run() {
    // 2,000 tokens are 125 windows. `code` asks for half the batch and may be read 4 times, 500 of
    // 4,800 sequences; `math` for 2/9 and 6 times.
    for counts in ["stratified", "multinomial"] {
        let mut list = domains();
        list[1].max_epochs = Some(4.0);
        list[2].max_epochs = Some(6.0);
        let text = format!("objective = 'importance'\nsampling = 'va'\ncounts = '{counts}'");
        let mut mixer = Mixer::new(&spec(&text), &list, &RUN).unwrap();
        let plan = mixer.plan().to_vec();
        assert_eq!(plan[0].largest_share, None);
        assert!((plan[1].largest_share.unwrap() - 500.0 / 4_800.0).abs() < 1e-12);
        assert!((plan[1].share - 500.0 / 4_800.0).abs() < 1e-12, "{:?}", plan[1]);
        let mut resumed = Mixer::new(&spec(&text), &list, &RUN).unwrap();
        for step in 0..RUN.steps {
            let draw = advance(&mut mixer);
            assert_eq!(draw.counts.iter().sum::<usize>(), RUN.batch_size);
            assert!(draw.measurements.capped.contains(&DomainId(1)), "{step}");
            let p = draw.sampling.values();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for i in 0..3 {
                let product = draw.multipliers[i] * p[i];
                assert!((product - [0.5, 0.3, 0.2][i]).abs() < 1e-12, "m grows as p is cut");
            }
            assert!(mixer.consumed()[1] <= 500 && mixer.consumed()[2] <= 750);
            if step == 199 {
                resumed.restore(&mixer.state()).unwrap();
            } else if step > 199 {
                assert_eq!(advance(&mut resumed), draw);
            }
        }
        if counts == "stratified" {
            assert!(mixer.consumed()[1] >= 498, "{:?}", mixer.consumed());
        }
    }
}

#[test]
fn limits_that_do_not_bind_change_nothing() {
    let mut list = domains();
    let text = "objective = 'importance'\nsampling = 'va'";
    let mut free = Mixer::new(&spec(text), &list, &RUN).unwrap();
    list[1].max_epochs = Some(1_000.0);
    let mut limited = Mixer::new(&spec(text), &list, &RUN).unwrap();
    for _ in 0..100 {
        assert_eq!(advance(&mut limited), advance(&mut free));
    }
}

#[test]
fn too_few_windows_are_refused_at_the_start_and_a_raised_limit_goes_on() {
    let text = "objective = 'importance'\nsampling = 'va'";
    let limited = |epochs: f64| {
        let mut list = domains();
        list.iter_mut().for_each(|domain| domain.max_epochs = Some(epochs));
        Mixer::new(&spec(text), &list, &RUN)
    };
    // 4,800 sequences of 375 windows are 12.8 passes.
    let error = limited(12.0).unwrap_err();
    assert_eq!(
        error,
        MixerError::TooFewWindows {
            domains: ["web", "code", "math"].map(str::to_owned).to_vec(),
            available: 4_500,
            needed: 4_800,
            fitting_steps: 375,
        }
    );
    assert!(error.in_config("mixture", "train").contains("hint: raise max_epochs"), "{error}");
    // An exact fit is a fit, to the last sequence.
    let mut mixer = limited(12.8).unwrap();
    let mut state = None;
    for step in 0..RUN.steps {
        advance(&mut mixer);
        if step == 199 {
            state = Some(mixer.state());
        }
    }
    assert_eq!(mixer.consumed(), [1_600; 3]);
    // A run that goes on may have its limits raised, but not so far lowered that it cannot end.
    let mut raised = limited(20.0).unwrap();
    raised.restore(&state.clone().unwrap()).unwrap();
    while raised.step() < RUN.steps {
        advance(&mut raised);
    }
    let mut exact = limited(12.8).unwrap();
    let before = exact.state();
    let mut spent = state.unwrap();
    spent.step = 150; // 50 steps fewer than were taken: what is left does not do.
    assert!(matches!(exact.restore(&spent), Err(MixerError::TooFewWindows { .. })));
    assert_eq!(exact.state(), before, "an error changes nothing");
}

#[test]
fn counts_stay_near_their_expectation_while_va_moves_the_shares() {
    for (sampling, loss) in SAMPLING.iter().zip(LOSS) {
        let mut mixer = mixer(sampling, loss);
        for _ in 0..RUN.steps {
            let step = advance(&mut mixer);
            assert_eq!(step.counts.iter().sum::<usize>(), RUN.batch_size);
            // No bound of 1 without knowing tomorrow's shares; drifting ones stay far from the
            // worst case.
            assert!(
                mixer.residuals().iter().all(|residual| residual.abs() < 1.5),
                "{:?}",
                mixer.residuals()
            );
        }
    }
}

/// Mean square of g = (1/B) Σ m_i v_i x over `rounds` batches, with x of mean 0 and variance 1.
fn measured_variance(mixer: &mut Mixer, deviation: &[f64], rounds: u64, rng: &CounterRng) -> f64 {
    let steps: Vec<StepDraw> = (0..RUN.steps).map(|_| mixer.next_step().unwrap()).collect();
    let (mut total, mut drawn) = (0.0, 0u64);
    for round in 0..rounds {
        for step in &steps {
            let mut g = 0.0;
            for draw in &step.draws {
                let uniform = rng.unit(drawn) - 0.5; // variance 1/12
                drawn += 1;
                g += draw.multiplier * deviation[draw.domain.0] * uniform * 12f64.sqrt();
            }
            total += (g / RUN.batch_size as f64).powi(2);
        }
        assert!(round < rounds);
    }
    total / (rounds * RUN.steps) as f64
}

#[test]
fn the_measured_variance_under_va_is_that_of_the_formula_below_uniform() {
    let rng = CounterRng::new(23);
    for instance in 0..20u64 {
        let rng = rng.nested(instance);
        let count = 2 + instance as usize % 5;
        let unit = |kind: u64, i: usize| rng.unit(1_000 * kind + i as u64);
        let list: Vec<DomainInfo> = (0..count)
            .map(|i| DomainInfo {
                importance: 0.2 + unit(0, i),
                ..DomainInfo::new(&format!("d{i}"), 2_000)
            })
            .collect();
        let shares: Vec<String> =
            (0..count).map(|i| format!("d{i} = {}", 0.2 + unit(1, i))).collect();
        let deviation: Vec<f64> = (0..count).map(|i| 0.1 + 3.0 * unit(2, i)).collect();
        let build = |sampling: &str| {
            let loss = format!("{{ strategy = 'fixed', shares = {{ {} }} }}", shares.join(", "));
            let text = format!("objective = 'importance'\nsampling = {sampling}\nloss = {loss}");
            Mixer::new(&spec(&text), &list, &RUN).unwrap()
        };
        let mut aware = build("{ strategy = 'va', epsilon = 1e-12 }");
        let seen = deviation.iter().map(|v| gradients(8, v * v)).collect();
        aware.observe(&Observation::of_step(0, count, &[], &[]).with_gradient(seen));
        let mut uniform = build("'uniform'");
        let loss_weight = uniform.next_step().unwrap().loss.values().to_vec();
        let mut uniform = build("'uniform'");

        let predicted = rule::variance_ratio(aware.importance().values(), &loss_weight, &deviation);
        // g is nearly normal, so a variance from n batches is off by √(2/n), the ratio of two by
        // √(4/n). With n = 24,000 that is 1.3 %, and 5 % are nearly four of them.
        let rounds = 60;
        let measured = measured_variance(&mut uniform, &deviation, rounds, &rng.nested(1))
            / measured_variance(&mut aware, &deviation, rounds, &rng.nested(2));
        assert!((measured / predicted - 1.0).abs() < 0.05, "{instance}: {measured} {predicted}");
    }
}

#[test]
fn loss_weights_update_once_in_each_stretch_of_steps() {
    let mut mixer = mixer("'uniform'", "{ strategy = 'fgls', every = 100, beta = 0.2 }");
    let held_out = || vec![losses(2.0, 1.0), losses(2.0, 4.0), losses(2.0, 2.0)];
    let mut changes = Vec::new();
    let mut last = vec![1.0; 3];
    for step in 0..400 {
        let draw = mixer.next_step().unwrap();
        if draw.loss.values().iter().zip(&last).any(|(a, b)| (a - b).abs() > 1e-12) {
            changes.push(step);
            last = draw.loss.values().to_vec();
        }
        // Measured at the start and then more often than it needs, as where the other slot asks for
        // it.
        let observed = Observation::of_step(step, 3, &[], &[]);
        let measured = step == 0 || (step + 1) % 30 == 0;
        mixer.observe(&if measured { observed.with_held_out(held_out()) } else { observed });
    }
    // Measured after steps 119, 209 and 299, the first ones of each hundred: seen in the step that
    // follows.
    assert_eq!(changes, [120, 210, 300]);
}

#[test]
fn a_domain_that_was_not_measured_keeps_its_last_statistics() {
    let run = |second: Vec<Option<LossStatistics>>| {
        // A measurement keeps nothing of the past, so that a domain's last one is all there is.
        let loss = "{ strategy = 'fgls', every = 1, beta = 0.5, smoothing = 0 }";
        let mut mixer = mixer("'uniform'", loss);
        for held_out in [vec![losses(2.0, 1.0), losses(2.0, 4.0), losses(2.0, 2.0)], second] {
            let step = mixer.next_step().unwrap().step;
            mixer.observe(&Observation::of_step(step, 3, &[], &[]).with_held_out(held_out));
        }
        mixer.next_step().unwrap().loss
    };
    let expected = run(vec![losses(2.0, 1.0), losses(2.0, 3.0), losses(2.0, 2.0)]);
    assert_eq!(run(vec![None, losses(2.0, 3.0), None]), expected);
    assert_eq!(run(vec![losses(f64::NAN, 1.0), losses(2.0, 3.0), losses(2.0, 0.0)]), expected);
    let single = Some(LossStatistics { mean: 9.0, variance: 0.0, count: 1 });
    assert_eq!(run(vec![losses(2.0, f64::INFINITY), losses(2.0, 3.0), single]), expected);
    // A list that ends early is a list of unmeasured domains, one that goes on has nobody to tell.
    assert_eq!(run(vec![None, losses(2.0, 3.0)]), expected);
    assert_eq!(run(vec![None, losses(2.0, 3.0), None, losses(1.0, 1.0)]), expected);
}

#[test]
fn bounds_are_reported_where_they_bite() {
    let mut mixer = mixer(
        "{ strategy = 'va', epsilon = 0.3 }",
        "{ strategy = 'fgls', every = 1, beta = 1, clamp_min = 0.5 }",
    );
    let first = mixer.next_step().unwrap();
    assert!(
        first.measurements.clamped.is_empty() && first.measurements.gradient_deviation.is_none()
    );
    let observed = Observation::of_step(0, 3, &[], &[])
        .with_held_out(vec![losses(2.0, 1.0), losses(2.0, 1.0), losses(2.0, 100.0)])
        .with_gradient(vec![gradients(4, 100.0), gradients(4, 100.0), gradients(4, 1.0)]);
    mixer.observe(&observed);
    let second = mixer.next_step().unwrap();
    assert_eq!(second.measurements.clamped, [DomainId(2)]);
    assert!((second.loss.values()[2] - 0.5).abs() < 1e-15);
    assert_eq!(second.measurements.floored, [DomainId(2)]);
    // π w v = (0.5, 0.3) · 1.125 · 10 and 0.2 · 0.5 · 1: of 9.1, 0.1 of the rule's 0.7; and of the
    // floor 0.3 α.
    let p = second.sampling.values()[2];
    assert!((p - (0.7 * 0.1 / 9.1 + 0.3 * 0.1)).abs() < 1e-12, "{p}");
    // Σ α v² / (Σ α v)² = (0.9 · 100 + 0.1) / 9.1².
    let headroom = second.measurements.headroom.unwrap();
    assert!((headroom - 90.1 / (9.1 * 9.1)).abs() < 1e-9, "{headroom}");
    assert!(first.measurements.headroom.is_none());
    let error = second.measurements.loss_weight_error.clone().unwrap();
    // Two weights of 1.125 hang on a difference that is in no doubt, and the third on a clamp.
    assert!(error.iter().all(|e| (0.0..0.2).contains(e)), "{error:?}");
}

#[test]
fn the_standard_error_of_a_loss_weight_is_the_scatter_of_its_estimates() {
    // FGLS with everything replaced, from windows of normal losses: w over 400 runs.
    let rng = CounterRng::new(8);
    let (mut found, mut said) = (Vec::new(), 0.0);
    for run in 0..400 {
        let mut mixer =
            mixer("'uniform'", "{ strategy = 'fgls', every = 1, beta = 1, smoothing = 0.8 }");
        for time in 0..12 {
            let draw = mixer.next_step().unwrap();
            let measured = |i: u64| {
                let rng = rng.nested(run).nested(time).nested(i);
                let deviation = [1.0, 2.0, 3.0][i as usize];
                let list: Vec<f64> = (0..32).map(|j| 4.0 + deviation * rng.normal(j)).collect();
                LossStatistics::from_losses(&list)
            };
            let observed = Observation::of_step(draw.step, 3, &[], &[])
                .with_held_out((0..3).map(measured).collect())
                .with_held_out_windows(vec![10_000; 3]);
            mixer.observe(&observed);
        }
        let draw = mixer.next_step().unwrap();
        found.push(draw.loss.values()[0]);
        said += draw.measurements.loss_weight_error.unwrap()[0] / 400.0;
    }
    let mean = found.iter().sum::<f64>() / 400.0;
    let scatter = (found.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / 399.0).sqrt();
    // w_1 = 1/(0.5 + 0.3/4 + 0.2/9) = 1.675. Linear in errors of 9 %: within a quarter.
    assert!((mean / 1.675 - 1.0).abs() < 0.02, "{mean}");
    assert!((said / scatter - 1.0).abs() < 0.25, "{said} {scatter}");
}

#[test]
fn a_request_is_that_of_both_slots() {
    let held_out = |every| ObservationRequest {
        held_out_every: Some(every),
        rotate: true,
        ..Default::default()
    };
    assert_eq!(
        mixer("'uniform'", "'uniform'").observation_request(),
        ObservationRequest::default()
    );
    assert_eq!(
        mixer("'uniform'", "{ strategy = 'erma', every = 7 }").observation_request(),
        held_out(7)
    );
    let both = mixer("{ strategy = 'va', variance = 'exact' }", "'fgls'").observation_request();
    let gradient =
        |estimator, every| Some(GradientRequest { estimator, every, seed: Some(RUN.seed) });
    assert_eq!(
        both,
        ObservationRequest { gradient: gradient(VarianceEstimator::Exact, 1), ..held_out(100) }
    );
    for (sampling, every) in [("'norm-layers'", 1), ("'sketch'", 8), ("'sketch', every = 2", 2)] {
        let request = mixer(&format!("{{ strategy = 'va', variance = {sampling} }}"), "'uniform'")
            .observation_request();
        assert_eq!(request.gradient.map(|gradient| gradient.every), Some(every), "{sampling}");
    }
}

#[test]
fn adaptive_strategies_are_refused_where_they_mean_something_else() {
    let error = |text: &str| Mixer::new(&spec(text), &domains(), &RUN).unwrap_err();
    for loss in ["fgls", "erma"] {
        let unused = error(&format!("loss = '{loss}'"));
        let expected = &[Objective::Importance];
        assert_eq!(unused, MixerError::LossUnused { strategy: loss.to_owned(), expected });
        let shares = error(&format!("objective = 'reweighted'\nloss = '{loss}'"));
        assert!(matches!(shares, MixerError::WrongObjective { .. }), "{shares}");
        let text = shares.in_config("mixture", "train");
        assert!(
            text.contains(&format!("mixture.loss = \"{loss}\"")) && text.contains("hint: "),
            "{text}"
        );
        let slot = error(&format!("objective = 'importance'\nsampling = '{loss}'"));
        assert!(slot.to_string().contains("does not serve this slot"), "{slot}");
    }
    let text = error("sampling = 'va'").in_config("mixture", "train");
    assert!(text.contains("mixture.sampling = \"va\"") && text.contains("\"sampled\""), "{text}");
    let allowed = MixtureSpec { objective: Objective::Reweighted, ..spec("sampling = 'va'") };
    assert!(Mixer::new(&allowed, &domains(), &RUN).is_ok());
}

/// Both loss rules keep the same kind of state: what tells them apart is their name.
#[test]
fn the_state_of_one_strategy_never_loads_into_another() {
    let cases = [
        (("'uniform'", "'erma'"), ("'uniform'", "'fgls'"), "the loss strategy"),
        (("'uniform'", "'fgls'"), ("'uniform'", "'erma'"), "the loss strategy"),
        (
            ("'uniform'", "'erma'"),
            ("'uniform'", "{ strategy = 'erma', gamma1 = 2 }"),
            "gamma 2 and 1",
        ),
        (
            ("'va'", "'uniform'"),
            ("{ strategy = 'va', smoothing = 0.5 }", "'uniform'"),
            "smoothing 0.5",
        ),
        (
            ("'va'", "'uniform'"),
            ("{ strategy = 'va', variance = 'sketch' }", "'uniform'"),
            "sketch",
        ),
        (("'va'", "'uniform'"), ("'proportional'", "'uniform'"), "the sampling strategy"),
        (("'uniform'", "'uniform'"), ("'va'", "'uniform'"), "the sampling strategy"),
        (("'uniform'", "'erma'"), ("'uniform'", "'uniform'"), "the loss strategy"),
    ];
    for ((sampling, loss), (other_sampling, other_loss), said) in cases {
        let mut first = mixer(sampling, loss);
        for _ in 0..30 {
            advance(&mut first);
        }
        let mut second = mixer(other_sampling, other_loss);
        let before = second.state();
        let error = second.restore(&first.state()).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("expected `"), "{error}");
        assert!(error.contains("hint: "), "{error}");
        assert_eq!(second.state(), before, "an error changes nothing");
        // Into itself it does.
        let mut same = mixer(sampling, loss);
        same.restore(&first.state()).unwrap();
        assert_eq!(same.state(), first.state());
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut mixer = mixer("'va'", "{ strategy = 'erma', every = 10 }");
    for _ in 0..30 {
        advance(&mut mixer);
    }
    let good = mixer.state();
    for _ in 0..10 {
        advance(&mut mixer);
    }
    let now = mixer.state();
    assert_ne!(now.sampling, good.sampling);
    type Spoil = fn(&mut MixerState);
    let cases: [(&str, Spoil); 9] = [
        ("null", |state| state.sampling.state = serde_json::Value::Null),
        ("2 entries", |state| drop(state.sampling.state["moments"].as_array_mut().unwrap().pop())),
        ("sums of at least 0", |state| state.sampling.state["moments"][1]["noise"] = (-1.0).into()),
        ("missing field", |state| {
            drop(state.sampling.state["moments"][0].as_object_mut().unwrap().remove("paired"))
        }),
        ("unknown field", |state| state.loss.state["more"] = 1.into()),
        ("3 entries, one a domain", |state| {
            state.loss.state["loss_weight"] = serde_json::json!([1.0, 1.0])
        }),
        ("weights above 0", |state| state.loss.state["loss_weight"][2] = 0.0.into()),
        ("at least 2 sequences", |state| state.loss.state["averages"][0]["pairs"] = 0.into()),
        ("at least 2 sequences", |state| {
            state.loss.state["averages"][0]["variance"] = (-1.0).into()
        }),
    ];
    for (what, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        let error = mixer.restore(&state).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("\nhint: "), "{what}: {error}");
        assert_eq!(mixer.state(), now, "an error changes nothing");
    }
    mixer.restore(&good).unwrap();
    assert_eq!(mixer.state(), good);
}

/// What might be known before `step`: Gram matrices and excess losses that drift, of the domains in
/// its batch.
fn known_before(step: &StepDraw) -> Observation {
    let t = step.step as f64;
    let present = |i: usize| step.counts[i] > 0;
    let gradient = |i: usize| [1.0 + i as f64, (t / 9.0 + i as f64).sin()];
    let mut gram = GradientGram::new(3, 2e-3);
    for (i, j) in (0..3).flat_map(|i| (0..=i).map(move |j| (i, j))) {
        if present(i) && present(j) {
            let (a, b) = (gradient(i), gradient(j));
            gram.set(DomainId(i), DomainId(j), a[0] * b[0] + a[1] * b[1]);
        }
    }
    let excess = |i: usize| 0.02 * i as f64 * (1.0 + (t / 5.0).sin());
    Observation::before_step(step.step)
        .with_gram(gram)
        .with_excess((0..3).map(|i| present(i).then(|| excess(i))).collect())
}

/// One step of a trainer that measures what it is asked for.
fn advance_measured(mixer: &mut Mixer) -> StepDraw {
    let mut step = mixer.next_step().unwrap();
    let request = mixer.observation_request();
    if request.excess || request.gram_at(step.step) {
        let known = known_before(&step);
        mixer.observe_before(&mut step, &known).unwrap();
    }
    mixer.observe(&observation(&step));
    step
}

const REWEIGHING: [&str; 3] = [
    "'doge'",
    "{ strategy = 'doge', every = 4, targets = ['code'] }",
    "{ strategy = 'excess-dro', reference = 'r', step = 0.5 }",
];

#[test]
fn what_is_known_before_a_step_weighs_its_batch_and_moves_no_draw() {
    for loss in REWEIGHING {
        for normalise in ["sequences", "multipliers"] {
            let text = format!(
                "objective = 'reweighted'\nsampling = 'uniform'\nloss = {loss}\nnormalise = '{normalise}'"
            );
            let run = RunSize { batch_size: 2, ..RUN };
            let mut mixer = Mixer::new(&spec(&text), &domains(), &run).unwrap();
            let mut told = Mixer::new(&spec(&text), &domains(), &run).unwrap();
            let mut last = None;
            for _ in 0..40 {
                let step = mixer.next_step().unwrap();
                let mut weighed = told.next_step().unwrap();
                let drawn = weighed.clone();
                let known = known_before(&weighed);
                told.observe_before(&mut weighed, &known).unwrap();
                assert_eq!(weighed.sampling, drawn.sampling);
                assert_eq!(weighed.counts, step.counts, "{loss}");
                let place = |d: &cuvee_mixer::Draw| (d.domain, d.epoch, d.window, d.start);
                let places = |step: &StepDraw| step.draws.iter().map(place).collect::<Vec<_>>();
                assert_eq!(places(&weighed), places(&step));
                let alpha = weighed.objective.values();
                assert!((alpha.iter().sum::<f64>() - 1.0).abs() < 1e-14);
                for draw in &weighed.draws {
                    assert_eq!(draw.multiplier, weighed.multipliers[draw.domain.0]);
                }
                let scale = match normalise {
                    "sequences" => 1.0,
                    _ => 2.0 / weighed.draws.iter().map(|d| 3.0 * alpha[d.domain.0]).sum::<f64>(),
                };
                for (i, alpha) in alpha.iter().enumerate() {
                    let m = weighed.multipliers[i];
                    assert!((m - scale * 3.0 * alpha).abs() < 1e-12 * m.max(1.0), "{loss}");
                }
                last = Some(weighed.objective);
            }
            // The weights that the last batch was given are those that the next one starts from.
            let next = told.next_step().unwrap();
            assert_eq!(Some(&next.objective), last.as_ref(), "{loss}");
            assert!((next.objective.values()[0] - 1.0 / 3.0).abs() > 0.01, "{loss}: {next:?}");
            assert_eq!(mixer.next_step().unwrap().objective.values(), [1.0 / 3.0; 3]);
        }
    }
}

#[test]
fn strategies_that_reweigh_or_sample_by_tasks_resume_to_the_bit() {
    let reweighing = REWEIGHING.map(|loss| {
        format!("objective = 'reweighted'\nsampling = {{ strategy = 'va' }}\nloss = {loss}")
    });
    let tasks = ["", ", form = 'closed', variance = 'sketch'", ", balance = 3, noise_ratio = 0.5"]
        .map(|more| format!("sampling = {{ strategy = 'pike', every = 7, step = 0.1{more} }}"));
    for text in reweighing.iter().chain(&tasks) {
        let new = || Mixer::new(&spec(text), &domains(), &RUN).unwrap();
        let mut whole = new();
        let mut states = Vec::new();
        let steps: Vec<StepDraw> = (0..60)
            .map(|_| {
                states.push(serde_json::to_string(&whole.state()).unwrap());
                advance_measured(&mut whole)
            })
            .collect();
        for stop in [0, 1, 6, 7, 8, 31, 59] {
            let mut resumed = new();
            resumed.restore(&serde_json::from_str(&states[stop]).unwrap()).unwrap();
            for expected in &steps[stop..] {
                assert_eq!(&advance_measured(&mut resumed), expected, "{text} from {stop}");
            }
            assert_eq!(resumed.state(), whole.state());
        }
        let moved =
            |step: &StepDraw| step.objective.values().iter().any(|a| (a - 1.0 / 3.0).abs() > 0.01);
        assert!(moved(&steps[59]), "{text}: {:?}", steps[59].objective);
    }
}

#[test]
fn they_are_refused_where_their_numbers_would_mean_something_else() {
    for (text, expected) in [
        ("objective = 'importance'\nsampling = 'pike'", "sampled"),
        ("objective = 'importance'\nloss = 'doge'", "reweighted"),
        (
            "objective = 'importance'\nloss = { strategy = 'excess-dro', reference = 'r' }",
            "reweighted",
        ),
        ("loss = 'doge'", "objective"),
        ("objective = 'reweighted'\nloss = 'pike'", "loss"),
    ] {
        let error = Mixer::new(&spec(text), &domains(), &RUN).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("hint: "), "{error}");
    }
}
