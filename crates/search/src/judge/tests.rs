#![allow(clippy::unwrap_used)]

use super::*;
use crate::law::{LAWS, Point, find_law};
use cuvee_mixer::seed::CounterRng;
use proptest::prelude::*;

/// Mixtures of three domains whose losses are `loss` of the first share and a normal draw.
fn runs(n: usize, seed: u64, loss: impl Fn(f64, f64) -> f64) -> Observations {
    let rng = CounterRng::new(seed);
    let shares = (0..n).map(|run| {
        let draws: Vec<f64> = (0..3).map(|k| -(1.0 - rng.unit(8 * run as u64 + k)).ln()).collect();
        let sum: f64 = draws.iter().sum();
        draws.into_iter().map(|draw| draw / sum).collect::<Vec<f64>>()
    });
    let points: Vec<Point> = shares.map(Point::both).collect();
    let losses = points.iter().enumerate();
    let losses = losses
        .map(|(run, point)| loss(point.sampling[0], rng.normal(10_000 + run as u64)))
        .collect();
    Observations { points, losses, groups: (0..n).collect() }
}

#[test]
fn a_mean_predictor_is_reported_as_worthless() {
    let observed = runs(24, 1, |share, noise| 3.0 - share + 0.01 * noise);
    let judged = judge_predictions("mean", &mean_predictor(&observed), 0, &observed);
    assert_eq!(judged.loo_r2, 0.0);
    // The mean of the others is the higher, the lower the loss that was left out.
    assert!((judged.spearman + 1.0).abs() < 1e-12, "{judged:?}");
    assert_eq!(judged.permutation_p, 1.0);
    assert!(judged.is_worthless());
}

#[test]
fn laws_fitted_to_pure_noise_are_reported_as_worthless() {
    for name in ["linear", "power-ridge", "power-log-linear", "gp"] {
        let law = find_law(name).unwrap();
        let judged: Vec<Judgement> = (0..6)
            .map(|seed| {
                let noise = runs(24, 100 + seed, |_, noise| 3.0 + 0.02 * noise);
                judge(law, &LawOptions::default(), &noise).unwrap()
            })
            .collect();
        let worthless = judged.iter().filter(|judgement| judgement.is_worthless()).count();
        assert!(worthless >= 5, "{name} {judged:#?}");
        let mean = judged.iter().map(|judgement| judgement.loo_r2).sum::<f64>() / 6.0;
        assert!(mean < 0.05, "{name} {mean}");
    }
}

#[test]
fn a_law_that_was_chosen_is_not_judged_by_the_errors_that_chose_it() {
    let cheap: Vec<_> = ["power-ridge", "linear", "bimix"].map(|n| *find_law(n).unwrap()).into();
    let judged: Vec<Judgement> = (0..20)
        .map(|seed| {
            let noise = runs(24, 300 + seed, |_, noise| 3.0 + 0.02 * noise);
            choose(&cheap, &LawOptions::seeded(seed), &noise).unwrap().1
        })
        .collect();
    let worthless = judged.iter().filter(|judgement| judgement.is_worthless()).count();
    // One of 20 by chance, and the second for it.
    assert!(worthless >= 18, "{judged:#?}");
    let mean = judged.iter().map(|judgement| judgement.loo_r2).sum::<f64>() / 20.0;
    assert!(mean < 0.0, "{mean}");
}

#[test]
fn a_law_that_holds_is_reported_as_such() {
    let observed = runs(24, 7, |share, noise| 2.0 + (-share.sqrt()).exp() + 0.002 * noise);
    for law in LAWS.iter().filter(|law| ["power-log-linear", "power-ridge"].contains(&law.name)) {
        let judged = judge(law, &LawOptions::default(), &observed).unwrap();
        assert!(judged.loo_r2 > 0.9 && judged.spearman > 0.9, "{judged:?}");
        assert!(judged.permutation_p < 0.001 && !judged.is_worthless(), "{judged:?}");
        assert!(judged.regret_at_1 < 0.02 && judged.optimism.abs() < 0.02, "{judged:?}");
        assert_eq!((judged.n, judged.mixtures, judged.noise_ceiling), (24, 24, None));
    }
}

#[test]
fn the_law_is_chosen_by_errors_on_runs_left_out() {
    let straight = runs(30, 3, |share, noise| 3.0 - 0.5 * share + 0.01 * noise);
    let steep = runs(30, 3, |share, noise| 2.0 + (-3.0 * share.powf(0.3)).exp() + 0.002 * noise);
    let laws = ["linear", "power-ridge"].map(|name| *find_law(name).unwrap());
    let options = LawOptions::default();
    // Both describe a straight line: the first in the table stands.
    assert_eq!(choose(&laws, &options, &straight).unwrap().0.name, "linear");
    assert_eq!(choose(&laws, &options, &steep).unwrap().0.name, "power-ridge");
}

#[test]
fn known_answers() {
    assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
    // By hand: ranks 0 1 2 3 and 1 0 3 2, 1 − 6·4/(4·15).
    assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 4.0, 3.0]) - 0.6).abs() < 1e-12);
    assert_eq!(spearman(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), 0.0);
    // 24 mixtures, as simulated.
    for (reliability, ceiling) in [(0.5, 0.67), (0.7, 0.80), (0.9, 0.93), (0.97, 0.97)] {
        let found = spearman_ceiling(reliability, 24);
        assert!((found - ceiling).abs() < 0.006, "{reliability} {found}");
    }
    // Of the 24 orders of four losses one ranks as well.
    let p = permutation_p(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0], 0);
    assert!((p - 1.0 / 24.0).abs() < 0.01, "{p}");
}

#[test]
fn replicates_are_one_mixture_and_give_the_ceiling() {
    let mut observed = runs(12, 5, |share, noise| 3.0 - share + 0.01 * noise);
    for copy in 0..3 {
        observed.points.push(observed.points[0].clone());
        observed.losses.push(observed.losses[0] + 0.02 * f64::from(copy));
        observed.groups.push(0);
    }
    let judged = judge(&LAWS[0], &LawOptions::default(), &observed).unwrap();
    assert_eq!((judged.n, judged.mixtures), (15, 12));
    let ceiling = judged.noise_ceiling.unwrap();
    assert!((0.9..1.0).contains(&ceiling), "{ceiling}");
    // All runs of a mixture are predicted by a fit without any of them, and so alike.
    let predicted = (LAWS[0].make)(&LawOptions::default()).leave_one_out(&observed).unwrap();
    assert!(predicted[12..].iter().all(|value| *value == predicted[0]));
}

#[test]
fn the_reach_of_runs_is_what_was_tried() {
    let point = |p: [f64; 3], epochs: &[f64]| Point {
        sampling: p.to_vec(),
        objective: p.to_vec(),
        epochs: epochs.to_vec(),
    };
    let points =
        vec![point([0.5, 0.5, 0.0], &[0.1, 2.0, 0.0]), point([0.1, 0.9, 0.0], &[0.02, 3.6, 0.0])];
    let observed = Observations { points, losses: vec![1.0, 2.0], groups: vec![0, 1] };
    let found = reach(&observed);
    assert_eq!(found[0].smallest_share, Some(0.1));
    assert_eq!((found[1].largest_share, found[1].largest_epochs), (0.9, Some(3.6)));
    assert_eq!((found[2].smallest_share, found[2].largest_epochs), (None, Some(0.0)));
    let far = Point::both(vec![0.0, 0.5, 0.5]);
    assert!((distance_to_nearest(&observed.points, &far) - 0.5).abs() < 1e-12);
    assert_eq!(distance_to_nearest([], &far), 1.0);
}

proptest! {
    #[test]
    fn spearman_does_not_see_rising_maps(
        pairs in prop::collection::vec((-5.0f64..5.0, -5.0f64..5.0), 3..40),
    ) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let mapped: Vec<f64> = a.iter().map(|value| value.exp() * 3.0 + 1.0).collect();
        prop_assert_eq!(spearman(&a, &b), spearman(&mapped, &b));
        prop_assert_eq!(spearman(&a, &b), spearman(&b, &a));
        let falling: Vec<f64> = a.iter().map(|value| -value).collect();
        prop_assert!((spearman(&a, &b) + spearman(&falling, &b)).abs() < 1e-12);
    }

    #[test]
    fn ranks_sum_to_the_same_whatever_is_tied(values in prop::collection::vec(0u8..5, 1..30)) {
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let n = values.len() as f64;
        prop_assert_eq!(ranks(&values).iter().sum::<f64>(), n * (n - 1.0) / 2.0);
    }
}
