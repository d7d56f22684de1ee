//! Worlds in which what is drawn and what counts differ.

use super::world::{World, fitted, law};
use cuvee_mixer::seed::CounterRng;
use cuvee_search::design::{DesignInput, swarm};
use cuvee_search::law::Fitted;
use cuvee_search::propose::{propose, propose_two_knobs};
use cuvee_search::shares::normalised;
use cuvee_search::swarm::Swarm;

/// The world at z ∝ α^(1−τ) p^τ, and a price of 0.03 a unit of ln B_eff.
fn run(world: &World, tau: f64, two_knob: usize, sigma: f64) -> Swarm {
    let design = DesignInput { two_knob, ..world.design(16, 2) };
    let asked = swarm(&design).unwrap();
    let mut seen = world.run(&asked, 0.0, 0);
    let rng = CounterRng::new(77);
    for (i, run) in seen.runs.iter_mut().enumerate() {
        let pairs = run.objective.iter().zip(&run.sampling);
        let raw: Vec<f64> =
            pairs.clone().map(|(alpha, p)| alpha.powf(1.0 - tau) * p.powf(tau)).collect();
        let smaller: f64 = pairs.map(|(alpha, p)| alpha * alpha / p.max(1e-9)).sum();
        let between = normalised(&raw).unwrap();
        let offset = 0.03 * smaller.ln() + sigma * rng.normal(i as u64);
        run.tune = (0..world.domains()).map(|i| world.target(i, &between) + offset).collect();
    }
    seen
}

/// The mean of the targets' τ; they are the same world's.
fn tau_of(laws: &[Box<dyn Fitted>]) -> f64 {
    let taus = laws.iter().map(|law| law.describe()["tau"].as_f64().unwrap());
    taus.sum::<f64>() / laws.len() as f64
}

#[test]
fn tau_is_found_within_a_tenth_in_a_world_that_is_not_log_linear() {
    for (seed, tau) in [(0, 0.0), (0, 0.2), (1, 0.5), (2, 0.8), (3, 1.0)] {
        let found = tau_of(&fitted(&run(&World::new(4, seed), tau, 6, 0.002), law("two-knob")));
        assert!((found - tau).abs() < 0.1, "{found} for {tau}");
    }
}

#[test]
fn a_swarm_of_one_knob_says_nothing_of_tau() {
    for law in fitted(&run(&World::new(4, 0), 0.5, 0, 0.001), law("two-knob")) {
        let described = law.describe();
        assert!(described["tau"].is_null() && described["beta"] == 0.0, "{described}");
    }
}

#[test]
fn a_scarce_domain_is_counted_more_than_it_is_drawn() {
    let world = World::new(4, 1);
    let laws = fitted(&run(&world, 0.3, 6, 0.0005), law("two-knob"));
    let wanted = propose(&laws, &world.aim(), 0).unwrap().mixture;
    let best = (0..4).max_by(|a, b| wanted[*a].total_cmp(&wanted[*b])).unwrap();
    let mut capped = world.aim();
    capped.caps[best] = 0.5 * wanted[best];
    let found = propose_two_knobs(&laws, &capped, 0).unwrap();
    assert!(found.sampling[best] <= capped.caps[best] + 1e-9, "{found:?}");
    assert!(found.objective[best] > 1.2 * found.sampling[best], "{found:?}");
    let one = propose(&laws, &capped, 0).unwrap();
    assert!(found.predicted < one.predicted, "{found:?} {one:?}");
}
