//! Whether to start.

use super::world::{WORLDS, World};
use cuvee_search::design::{PilotFinding, judge_pilot, pilot};
use cuvee_search::shares::uniform;

fn finding(seed: u64, sigma: f64, runs: usize) -> PilotFinding {
    let world = World::new(8, seed);
    let seen = world.run(&pilot(&world.design(runs, seed)).unwrap(), sigma, 50 + seed);
    judge_pilot(&seen, &uniform(8), &[1.0; 8], runs).unwrap()
}

#[test]
fn too_few_runs_in_too_much_noise_are_refused_with_the_numbers() {
    for seed in 0..WORLDS {
        let found = finding(seed, 0.02, 12);
        assert!(found.hopeless && found.runs_needed >= 24, "{found:?}");
        assert!(found.sentence.starts_with("stop: "), "{}", found.sentence);
        assert!(found.sentence.contains(&format!("σ = {:.4}", found.sigma)), "{}", found.sentence);
    }
}

#[test]
fn enough_runs_in_little_noise_are_not_refused() {
    for seed in 0..WORLDS {
        let found = finding(seed, 0.005, 24);
        assert!(!found.hopeless && found.sentence.starts_with("go on"), "{}", found.sentence);
    }
}

#[test]
fn noise_that_hides_everything_is_hopeless_at_any_number_that_is_planned() {
    let refused = (0..WORLDS).filter(|seed| finding(*seed, 0.3, 40).hopeless).count();
    assert!(refused >= 9, "{refused}");
}
