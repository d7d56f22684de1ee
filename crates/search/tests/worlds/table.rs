//! What laws find in ten worlds: mean regrets, in nats.

use super::world::{WORLDS, World, fitted, law};
use cuvee_search::design::swarm;
use cuvee_search::law::{LAWS, without_block_effects};
use cuvee_search::propose::{Aim, next_batch, propose};
use cuvee_search::shares::uniform;
use cuvee_search::swarm::Swarm;

/// Means over the worlds of what `regret` says of each.
fn mean(domains: usize, regret: impl Fn(&World, u64) -> f64) -> f64 {
    let sum: f64 = (0..WORLDS).map(|seed| regret(&World::new(domains, seed), seed)).sum();
    sum / WORLDS as f64
}

fn of_uniform(domains: usize) -> f64 {
    mean(domains, |world, _| world.regret(&uniform(domains)))
}

/// The regret of the run with the least loss that was measured.
fn of_best_seen(domains: usize, runs: usize, sigma: f64) -> f64 {
    mean(domains, |world, seed| {
        let seen = world.run(&swarm(&world.design(runs, seed)).unwrap(), sigma, 100 + seed);
        let loss = |run: &cuvee_search::swarm::SwarmRun| run.tune.iter().sum::<f64>();
        let best = seen.runs.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
        world.regret(&best.sampling)
    })
}

fn of_law(name: &str, domains: usize, runs: usize, sigma: f64) -> f64 {
    of_law_at(name, domains, runs, sigma, 0.01)
}

fn of_law_at(name: &str, domains: usize, runs: usize, sigma: f64, kappa: f64) -> f64 {
    mean(domains, |world, seed| {
        let seen = world.run(&swarm(&world.design(runs, seed)).unwrap(), sigma, 100 + seed);
        let laws = fitted(&seen, law(name));
        let aim = Aim { kappa, ..world.aim() };
        world.regret(&propose(&laws, &aim, seed).unwrap().mixture)
    })
}

#[test]
#[ignore = "prints the table, for the docs"]
fn print_the_table() {
    let cells = [(8, 0.005, 24), (8, 0.005, 96), (8, 0.02, 12), (8, 0.02, 24), (4, 0.005, 32)];
    for (domains, sigma, runs) in cells {
        let (uniform, seen) = (of_uniform(domains), of_best_seen(domains, runs, sigma));
        println!("K {domains} σ {sigma} n {runs}: uniform {uniform:.4}, best seen {seen:.4}");
        // Worlds have no sizes to repeat.
        for entry in LAWS.iter().filter(|law| law.name != "exposure") {
            let found = [0.0, 0.01].map(|kappa| of_law_at(entry.name, domains, runs, sigma, kappa));
            println!("    {} {:.4}, κ = 0.01 {:.4}", entry.name, found[0], found[1]);
        }
    }
}

#[test]
fn log_linear_laws_find_most_of_what_uniform_misses() {
    let uniform = of_uniform(8);
    assert!((uniform - 0.016).abs() < 0.002, "{uniform}");
    // On runs with p = α the two-knob law is the log-linear one, its ridge found by empirical
    // Bayes.
    for name in ["two-knob", "power-log-linear"] {
        let found = of_law(name, 8, 24, 0.005);
        assert!(found < 0.006, "{name} {found}");
    }
    assert!(of_law("two-knob", 4, 32, 0.005) < 0.004);
}

#[test]
fn what_a_blocks_seed_does_is_taken_off() {
    let world = World::new(4, 2);
    let asked = swarm(&world.design(24, 0)).unwrap();
    let truth = world.run(&asked, 0.0, 0);
    let mut seen = world.run(&asked, 0.001, 5);
    for run in &mut seen.runs {
        let offset = [0.03, -0.02, 0.01, -0.04, 0.02][run.block];
        run.tune.iter_mut().for_each(|loss| *loss += offset);
    }
    let cleaned = without_block_effects(&seen, law("two-knob"), 0).unwrap();
    // What is the same in all runs says nothing of mixtures.
    let spread = |swarm: &Swarm| {
        let pairs = swarm.runs.iter().zip(&truth.runs);
        let errors: Vec<f64> = pairs.map(|(a, b)| a.tune[0] - b.tune[0]).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        errors.iter().map(|error| (error - mean).powi(2)).sum::<f64>().sqrt()
    };
    assert!(spread(&cleaned) < spread(&seen) / 3.0, "{} {}", spread(&cleaned), spread(&seen));
}

#[test]
fn batches_stop_when_there_is_nothing_left_to_gain() {
    let world = World::new(4, 3);
    let mut asked = swarm(&world.design(12, 0)).unwrap();
    let mut last = f64::INFINITY;
    for round in 0..4 {
        let seen = world.run(&asked, 0.002, 7);
        let batch = next_batch(&seen, law("two-knob"), &world.aim(), 4, round).unwrap();
        assert_eq!(batch.mixtures.len(), 4);
        assert_eq!(batch, next_batch(&seen, law("two-knob"), &world.aim(), 4, round).unwrap());
        last = batch.expected_improvement;
        if batch.is_enough(0.002) {
            break;
        }
        asked.extend(batch.mixtures.iter().map(|shares| cuvee_search::design::Asked {
            kind: "proposed",
            block: 0,
            sampling: shares.clone(),
            objective: shares.clone(),
        }));
    }
    assert!(last < 0.25 * 0.002, "{last}");
}
