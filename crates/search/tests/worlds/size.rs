//! Two domains, 300, and domains that nobody drew.

use super::world::{World, fitted, law};
use cuvee_search::design::{DesignInput, judge_pilot, least_runs, pilot, swarm};
use cuvee_search::law::{Fitted, Observations};
use cuvee_search::propose::{Aim, next_batch, parts_of_gain, propose, runner_up};
use cuvee_search::shares::{normalised, uniform};
use cuvee_search::swarm::Swarm;

#[test]
fn two_domains_are_enough() {
    let world = World::new(2, 4);
    let asked = swarm(&world.design(least_runs(2), 0)).unwrap();
    let seen = world.run(&asked, 0.001, 1);
    let laws = fitted(&seen, law("two-knob"));
    let found = propose(&laws, &world.aim(), 0).unwrap();
    assert!(world.regret(&found.mixture) < 0.002, "{found:?}");
    assert!(runner_up(&laws, &world.aim(), &found.mixture, 0.1, 0).unwrap().is_some());
    let batch = next_batch(&seen, law("two-knob"), &world.aim(), 3, 0).unwrap();
    assert_eq!(batch.mixtures.len(), 3);
}

/// A swarm of 300 domains with one target: what all of them bring.
fn wide() -> (Swarm, Aim) {
    let world = World::new(300, 5);
    let raw: Vec<f64> = (0..300).map(|i| 1.0 / (1.0 + i as f64)).collect();
    let prior = normalised(&raw).unwrap();
    let design = DesignInput { prior: prior.clone(), ..world.design(310, 0) };
    let mut asked = pilot(&design).unwrap();
    asked.extend(swarm(&design).unwrap());
    let mut seen = world.run(&asked, 0.002, 1);
    for run in &mut seen.runs {
        run.tune = vec![run.tune.iter().sum::<f64>() / 300.0];
    }
    seen.targets = vec!["all".into()];
    seen.available = prior.iter().map(|share| 2e6 * share).collect();
    let aim = Aim {
        target_weights: vec![1.0],
        kappa: 0.01,
        epochs_per_share: prior.iter().map(|share| 0.5 / share).collect(),
        prior,
        ..world.aim()
    };
    (seen, aim)
}

#[test]
fn three_hundred_domains_are_not_too_many() {
    let (seen, aim) = wide();
    let found = judge_pilot(&seen, &[1.0], &[1.0; 300], 900).unwrap();
    assert!(found.sigma > 0.0 && found.runs_needed >= 900);
    assert!(judge_pilot(&seen, &[1.0], &[1.0; 300], 310).unwrap().hopeless);
    for name in ["two-knob", "exposure"] {
        let laws: Vec<Box<dyn Fitted>> = fitted(&seen, law(name));
        let found = propose(&laws, &aim, 0).unwrap();
        assert!((found.mixture.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        let parts = parts_of_gain(&laws, &aim, &uniform(300), &found.mixture).unwrap();
        assert!(parts.iter().all(|part| part.is_finite()), "{name}");
    }
}

#[test]
fn a_domain_that_nobody_drew_breaks_nothing() {
    let world = World::new(4, 6);
    let caps = vec![1.0, 1.0, 1.0, 0.0];
    let design = DesignInput { caps: caps.clone(), ..world.design(14, 0) };
    let mut seen = world.run(&swarm(&design).unwrap(), 0.002, 1);
    assert!(seen.runs.iter().all(|run| run.sampling[3] == 0.0));
    // Nobody can draw it, or nobody happened to.
    for caps in [caps, vec![1.0; 4]] {
        let aim = Aim { caps: caps.clone(), ..world.aim() };
        seen.available = vec![1e6; 4];
        for name in ["two-knob", "exposure"] {
            let aim = Aim { epochs_per_share: vec![1.0; 4], ..aim.clone() };
            let laws = fitted(&seen, law(name));
            let found = propose(&laws, &aim, 0).unwrap();
            assert!(found.mixture.iter().all(|r| r.is_finite()), "{name} {found:?}");
            assert!(found.mixture[3] <= caps[3] + 1e-9);
        }
        assert!(Observations::of(&seen, 0).unwrap().points.iter().all(|p| p.epochs[3] == 0.0));
        let batch = next_batch(&seen, law("two-knob"), &aim, 2, 0).unwrap();
        assert!(batch.mixtures.iter().all(|r| r[3] <= caps[3] + 1e-9));
    }
}
