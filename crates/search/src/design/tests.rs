#![allow(clippy::unwrap_used)]
use super::*;
use crate::shares::{normalised, total_variation, uniform};
use crate::swarm::{Swarm, SwarmRun};
use proptest::prelude::*;

fn input(prior: Vec<f64>, runs: usize) -> DesignInput {
    let caps = vec![1.0; prior.len()];
    DesignInput { prior, caps, runs, two_knob: 0, frozen: Vec::new(), seed: 1 }
}

fn of_kind<'a>(runs: &'a [Asked], kind: &str) -> Vec<&'a Asked> {
    runs.iter().filter(|run| run.kind == kind).collect()
}

fn is_mixture(shares: &[f64], caps: &[f64]) -> bool {
    let inside = shares.iter().zip(caps).all(|(r, cap)| *r >= 0.0 && *r <= cap + 1e-9);
    inside && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn designs_are_mixtures_within_the_caps_that_keep_frozen_ratios(
        raw in prop::collection::vec(0.01f64..1.0, 4..9),
        slack in 1.2f64..4.0,
        seed in any::<u64>(),
        extra in 0usize..20,
    ) {
        let domains = raw.len();
        let prior = normalised(&raw).unwrap();
        let caps: Vec<f64> = prior.iter().map(|share| (share * slack).min(1.0)).collect();
        let frozen = vec![vec![domains - 1, 1]];
        let runs = 12 + extra;
        let input =
            DesignInput { prior: prior.clone(), caps, runs, two_knob: 4, frozen, seed };
        let asked = swarm(&input).unwrap();
        prop_assert_eq!(&asked, &swarm(&input).unwrap());
        prop_assert_eq!(asked.len(), runs + 4);
        for run in asked.iter().chain(&pilot(&input).unwrap()) {
            for shares in [&run.sampling, &run.objective] {
                prop_assert!(is_mixture(shares, &input.caps), "{shares:?}");
                let (a, b) = (shares[1] * prior[domains - 1], shares[domains - 1] * prior[1]);
                prop_assert!((a - b).abs() < 1e-9, "{shares:?}");
            }
            let two = run.kind == "two-knob";
            prop_assert!(two || run.sampling == run.objective);
            let m = run.objective.iter().zip(&run.sampling).map(|(alpha, p)| alpha / p);
            prop_assert!(m.filter(|m| m.is_finite()).fold(0.0, f64::max) < 4.0 + 1e-9);
        }
        // Every block has one uniform run, and all other mixtures differ.
        let blocks = of_kind(&asked, "uniform").len();
        prop_assert!((3..=5).contains(&blocks));
        prop_assert!(asked.iter().all(|run| run.block < blocks));
        let single: Vec<&Asked> = asked.iter().skip(blocks).filter(|r| r.kind != "two-knob").collect();
        for (i, run) in single.iter().enumerate() {
            let far = |other: &Asked| total_variation(&run.sampling, &other.sampling) > 1e-9;
            prop_assert!(far(&asked[0]) && single[..i].iter().all(|other| far(other)));
        }
    }
}

#[test]
fn every_domain_is_raised_and_left_out_where_runs_are_enough() {
    for domains in [2, 17, 300] {
        let raw: Vec<f64> = (0..domains).map(|i| 1.0 + (3 * i % 5) as f64).collect();
        let prior = normalised(&raw).unwrap();
        let runs = least_runs(domains);
        let asked = swarm(&input(prior.clone(), runs)).unwrap();
        assert_eq!(asked.len(), runs);
        assert_eq!(of_kind(&asked, "raised").len(), domains);
        assert_eq!(of_kind(&asked, "prior").len(), 1);
        let left_out = of_kind(&asked, "left-out");
        assert!(left_out.iter().enumerate().all(|(i, run)| run.sampling[i] == 0.0));
        let raised = of_kind(&asked, "raised")[0];
        assert!((raised.sampling[0] - 1.5 * prior[0]).abs() < 1e-12);
        assert!(asked.iter().all(|run| is_mixture(&run.sampling, &vec![1.0; domains])));
    }
}

#[test]
fn far_mixtures_are_farther_apart_than_drawn_ones() {
    let asked = swarm(&input(uniform(6), 40)).unwrap();
    let far = of_kind(&asked, "spread");
    let nearest = |i: usize| {
        let others = (0..far.len()).filter(|j| *j != i);
        let tv = others.map(|j| total_variation(&far[i].sampling, &far[j].sampling));
        tv.fold(f64::INFINITY, f64::min)
    };
    let least = (0..far.len()).map(nearest).fold(f64::INFINITY, f64::min);
    assert!(far.len() > 15 && least > 0.15, "{} {least}", far.len());
}

#[test]
fn a_domain_that_the_prior_leaves_out_is_drawn_by_others() {
    let asked = swarm(&input(vec![0.5, 0.5, 0.0], 14)).unwrap();
    let drawn = asked.iter().filter(|run| run.sampling[2] > 0.0).count();
    assert!(drawn >= 5, "{drawn}");
}

#[test]
fn what_leaves_nothing_to_search_is_refused() {
    let hopeless = [
        input(vec![1.0], 12),
        input(Vec::new(), 12),
        input(vec![0.5, 0.5], 2),
        input(vec![0.0, 0.0], 12),
        input(vec![0.5, f64::NAN], 12),
        DesignInput { caps: vec![0.3, 0.3], ..input(vec![0.5, 0.5], 12) },
        DesignInput { caps: vec![1.0], ..input(vec![0.5, 0.5], 12) },
        DesignInput { frozen: vec![vec![0, 1]], ..input(vec![0.5, 0.5], 12) },
    ];
    for input in hopeless {
        let error = swarm(&input).unwrap_err().to_string();
        assert!(error.starts_with("expected ") && error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn a_pilot_is_four_seeds_of_uniform_and_two_mirrored_mixtures() {
    let asked = pilot(&input(vec![0.7, 0.2, 0.05, 0.05], 24)).unwrap();
    assert_eq!(asked.iter().map(|run| run.block).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 0]);
    assert!(asked[..4].iter().all(|run| run.kind == "uniform" && run.sampling == uniform(4)));
    let sum: Vec<f64> = (0..4).map(|i| asked[4].sampling[i] + asked[5].sampling[i]).collect();
    assert!(sum.iter().all(|sum| (sum - 0.5).abs() < 1e-12), "{sum:?}");
    assert!(total_variation(&asked[4].sampling, &asked[5].sampling) > 0.4);
}

/// A pilot over targets that are no domains: the loss falls by 0.3 a unit of ln r of the first.
fn elsewhere(noise: f64) -> Swarm {
    let asked = pilot(&input(uniform(4), 24)).unwrap();
    let runs = asked.iter().enumerate().map(|(i, asked)| {
        let offset = noise * [1.0, -1.0, 0.5, -0.5, 0.0, 0.0][i];
        let loss = 3.0 - 0.3 * asked.sampling[0].ln() + offset;
        SwarmRun {
            name: i.to_string(),
            kind: asked.kind.into(),
            seed: 0,
            block: asked.block,
            steps: 1,
            tokens: 64.0,
            sampling: asked.sampling.clone(),
            objective: asked.objective.clone(),
            seen: Vec::new(),
            tune: vec![loss],
            valid: Vec::new(),
            curve: vec![(16.0, vec![loss + 0.7]), (32.0, vec![loss + 0.3]), (64.0, vec![loss])],
        }
    });
    let domains = (0..4).map(|i| format!("d{i}")).collect();
    Swarm { domains, targets: vec!["quiz".into()], available: Vec::new(), runs: runs.collect() }
}

#[test]
fn a_target_that_is_no_domain_is_judged_by_the_skewed_mixtures() {
    let found = judge_pilot(&elsewhere(0.002), &[1.0], &[1.0; 4], 24).unwrap();
    assert!(!found.hopeless && found.expected_gain > 0.05, "{found:?}");
    assert_eq!((found.sigma_runs, found.noise.len()), (4, 1));
    // 0.3 nats over the last doubling.
    assert!((found.per_log_tokens.unwrap() - 0.3 / 2f64.ln()).abs() < 1e-12);
    let found = judge_pilot(&elsewhere(2.0), &[1.0], &[1.0; 4], 24).unwrap();
    assert!(found.hopeless && found.sentence.starts_with("stop: the noise"), "{found:?}");
}

#[test]
fn a_pilot_without_repeated_runs_is_refused() {
    let mut seen = elsewhere(0.1);
    seen.runs.drain(1..4);
    let error = judge_pilot(&seen, &[1.0], &[1.0; 4], 24).unwrap_err().to_string();
    assert!(error.contains("at least 2 seeds"), "{error}");
    assert!(judge_pilot(&elsewhere(0.1), &[1.0, 1.0], &[1.0; 4], 24).is_err());
    assert!(judge_pilot(&elsewhere(0.1), &[1.0], &[1.0; 3], 24).is_err());
}
