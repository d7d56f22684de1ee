//! When a mixer says that what a strategy learns has collapsed onto one domain, and when not.

#![allow(clippy::unwrap_used)]

use cuvee_mixer::{
    Collapse, Distribution, DomainId, DomainInfo, GradientStatistics, LossStatistics, Mixer,
    MixtureSpec, Observation, RunSize, StepDraw,
};

const RUN: RunSize = RunSize { steps: 400, batch_size: 12, context: 16, seed: 5 };

fn domains(importances: [f64; 3]) -> Vec<DomainInfo> {
    let names = ["web", "code", "math"].into_iter().zip(importances);
    let domain = |(name, importance)| DomainInfo { importance, ..DomainInfo::new(name, 2_000) };
    names.map(domain).collect()
}

fn mixer(text: &str, importances: [f64; 3]) -> Mixer {
    let spec: MixtureSpec = toml::from_str(text).unwrap();
    Mixer::new(&spec, &domains(importances), &RUN).unwrap()
}

/// What a step shows: `losses` of the domains in training and held out, and `variances` of their
/// gradients.
fn observation(step: &StepDraw, losses: [f64; 3], variances: [f64; 3]) -> Observation {
    let sequences: Vec<f64> = step.draws.iter().map(|draw| losses[draw.domain.0]).collect();
    let gradient = |variance| {
        let mean_square = 1.2 * variance;
        Some(GradientStatistics { sequences: 4, variance, mean_square, direction: None })
    };
    let held_out = |mean| Some(LossStatistics { mean, variance: 0.2, count: 64 });
    step.observation(&sequences)
        .with_gradient(variances.map(gradient).to_vec())
        .with_held_out(losses.map(held_out).to_vec())
}

/// The first step that says so and what it says, within 300 steps.
fn first(mixer: &mut Mixer, losses: [f64; 3], variances: [f64; 3]) -> Option<(u64, Collapse)> {
    for _ in 0..300 {
        let step = mixer.next_step().unwrap();
        if let Some(collapse) = &step.measurements.collapse {
            return Some((step.step, collapse.clone()));
        }
        mixer.observe(&observation(&step, losses, variances));
    }
    None
}

const EVEN: [f64; 3] = [1.0; 3];

/// q ∝ (1, 1, exp(1.5 t)) after t steps: (0.154, 0.154, 0.691) amounts to 2.3 domains, and
/// (0.045, 0.045, 0.909) to 1.44, fewer than 1.5.
#[test]
fn an_objective_that_collapses_is_said_at_the_step_at_which_it_has() {
    let text = "objective = 'reweighted'\nsampling = 'uniform'\n\
                loss = { strategy = 'group-dro', step = 0.5 }";
    let (step, found) = first(&mut mixer(text, EVEN), [2.0, 2.0, 5.0], EVEN).unwrap();
    assert_eq!((step, found.of, found.domain), (2, Distribution::Objective, DomainId(2)));
    let share = 3f64.exp() / (2.0 + 3f64.exp());
    assert!((found.share - share).abs() < 1e-12, "{found:?}");
    let other = 0.5 * (1.0 - share);
    let entropy = -(share * share.ln() + 2.0 * other * other.ln());
    assert!((found.effective - entropy.exp()).abs() < 1e-12, "{found:?}");
    assert!((found.begun - 3.0).abs() < 1e-12);
    assert!(found.remedy.contains("a smaller `step`"), "{found:?}");
    // Losses that are near each other take longer.
    let later = first(&mut mixer(text, EVEN), [2.0, 2.0, 2.1], EVEN).unwrap();
    assert!((50..=60).contains(&later.0), "{later:?}");
}

#[test]
fn sampling_weights_that_collapse_are_said_with_what_helps() {
    for (strategy, losses, variances, remedy) in [
        ("{ strategy = 'odm', warmup = 5 }", [1.0, 6.0, 1.0], EVEN, "gibbs"),
        (
            "{ strategy = 'target-dro', targets = { web = 1, code = 1, math = 1 }, every = 4 }",
            [1.0, 3.0, 1.0],
            EVEN,
            "targets",
        ),
        (
            "{ strategy = 'skill-it', graph = { web = { code = 0.1 } }, every = 4, step = 1 }",
            [1.0, 3.0, 1.0],
            EVEN,
            "`step`",
        ),
    ] {
        let text = format!("objective = 'sampled'\nsampling = {strategy}");
        let (step, found) = first(&mut mixer(&text, EVEN), losses, variances).unwrap();
        assert!(step > 0, "{strategy}");
        assert_eq!((found.of, found.domain), (Distribution::Sampling, DomainId(1)), "{strategy}");
        assert!(found.remedy.contains(remedy), "{strategy}: {found:?}");
    }
}

#[test]
fn va_collapses_where_its_floor_is_small_and_not_where_it_is_large() {
    let va = |epsilon: f64| {
        format!(
            "objective = 'importance'\n\
             sampling = {{ strategy = 'va', epsilon = {epsilon}, floor = 'even' }}"
        )
    };
    let noisy = [1e-6, 1e-6, 1.0];
    let (_, found) = first(&mut mixer(&va(0.05), EVEN), EVEN, noisy).unwrap();
    assert_eq!((found.of, found.domain), (Distribution::Sampling, DomainId(2)));
    assert!(found.remedy.contains("a larger `epsilon`"), "{found:?}");
    assert_eq!(first(&mut mixer(&va(0.2), EVEN), EVEN, noisy), None);
}

/// The step is made with the objective that its own batch brought about.
#[test]
fn what_is_known_before_a_step_counts_at_that_step() {
    let text = "objective = 'reweighted'\nsampling = 'uniform'\n\
                loss = { strategy = 'excess-dro', reference = 'runs/reference' }";
    let mut mixer = mixer(text, EVEN);
    let mut step = mixer.next_step().unwrap();
    assert_eq!(step.measurements.collapse, None);
    let excess = vec![Some(3.0), Some(0.0), Some(0.0)];
    let before = Observation::before_step(step.step).with_excess(excess);
    mixer.observe_before(&mut step, &before).unwrap();
    let found = step.measurements.collapse.unwrap();
    assert_eq!((found.of, found.domain), (Distribution::Objective, DomainId(0)));
    assert!(found.remedy.contains("in proportion to their sizes"), "{found:?}");
}

#[test]
fn shares_that_a_config_fixes_have_not_collapsed() {
    let shares = "{ web = 0.98, code = 0.01, math = 0.01 }";
    let stages = "[{ from_step = 0, shares = { web = 1, code = 1, math = 1 } }, \
                  { from_step = 5, shares = { web = 1, code = 0, math = 0 } }]";
    for sampling in [
        format!("{{ strategy = 'fixed', shares = {shares} }}"),
        format!("{{ strategy = 'schedule', stages = {stages} }}"),
        "{ strategy = 'temperature', temperature = 0.001 }".to_owned(),
    ] {
        let text = format!("objective = 'sampled'\nsampling = {sampling}");
        assert_eq!(first(&mut mixer(&text, EVEN), EVEN, EVEN), None, "{sampling}");
    }
    let text = format!(
        "objective = 'reweighted'\nsampling = 'uniform'\n\
         loss = {{ strategy = 'fixed', shares = {shares} }}"
    );
    assert_eq!(first(&mut mixer(&text, EVEN), EVEN, EVEN), None);
    // Rules that learn, around importances that leave hardly anything to the others.
    let skewed = [0.97, 0.02, 0.01];
    for text in [
        "objective = 'importance'\nsampling = 'va'",
        "objective = 'importance'\nsampling = 'uniform'\n\
         loss = { strategy = 'erma', every = 4 }",
    ] {
        assert_eq!(first(&mut mixer(text, skewed), EVEN, [3.0, 1.0, 2.0]), None, "{text}");
    }
}

/// Its learning phases sample one domain nearly alone, to see what it helps.
#[test]
fn a_perturbation_is_no_collapse() {
    let text = "objective = 'sampled'\n\
                sampling = { strategy = 'aioli', rounds = 1, lp_steps = 2, rho = 0.99 }";
    let mut perturbed = mixer(text, EVEN);
    let largest = (0..8).map(|_| {
        let step = perturbed.next_step().unwrap();
        perturbed.observe(&observation(&step, EVEN, EVEN));
        step.sampling.values().iter().copied().fold(0.0, f64::max)
    });
    assert!(largest.fold(0.0, f64::max) > 0.98, "it is perturbed");
    assert_eq!(first(&mut mixer(text, EVEN), EVEN, EVEN), None);
}

#[test]
fn a_resumed_mixer_says_the_same_of_every_step() {
    let text = "objective = 'reweighted'\nsampling = 'uniform'\n\
                loss = { strategy = 'group-dro', step = 0.02 }";
    let losses = [2.0, 2.0, 5.0];
    let advance = |mixer: &mut Mixer| {
        let step = mixer.next_step().unwrap();
        mixer.observe(&observation(&step, losses, EVEN));
        step.measurements.collapse
    };
    let mut whole = mixer(text, EVEN);
    let mut states = Vec::new();
    let said: Vec<Option<Collapse>> = (0..60)
        .map(|_| {
            states.push(whole.state());
            advance(&mut whole)
        })
        .collect();
    assert!(said[0].is_none() && said[59].is_some());
    for stop in [1, 30, 47, 48, 49, 59] {
        let mut resumed = mixer(text, EVEN);
        resumed.restore(&states[stop]).unwrap();
        for expected in &said[stop..] {
            assert_eq!(&advance(&mut resumed), expected, "from {stop}");
        }
    }
}
