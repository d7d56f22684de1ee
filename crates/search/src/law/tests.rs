//! What holds for every law of the table.
#![allow(clippy::unwrap_used)]

use super::*;
use cuvee_mixer::seed::CounterRng;

/// Mixtures of `domains` domains, every one tried; the loss falls in the first two.
fn world(n: usize, domains: usize, seed: u64) -> Observations {
    let rng = CounterRng::new(seed);
    let points: Vec<Point> = (0..n as u64)
        .map(|run| {
            let rng = rng.nested(run);
            let draws: Vec<f64> =
                (0..domains as u64).map(|k| -(1.0 - rng.unit(k)).ln() + 1e-3).collect();
            let sum: f64 = draws.iter().sum();
            Point::both(draws.into_iter().map(|draw| draw / sum).collect())
        })
        .collect();
    let loss = |(run, point): (usize, &Point)| {
        let taught = 0.1 + point.sampling[0].sqrt() + 0.3 * point.sampling[1].sqrt();
        1.5 + taught.powf(-0.4) + 0.002 * rng.normal(1 << 20 | run as u64)
    };
    let losses = points.iter().enumerate().map(loss).collect();
    Observations { points, losses, groups: (0..n).collect() }
}

/// Laws that ask for shares and nothing else.
fn laws_of_shares() -> impl Iterator<Item = &'static LawEntry> {
    let names =
        ["power-log-linear", "power-ridge", "log-linear", "linear", "gp", "bimix", "regmix"];
    LAWS.iter().filter(move |law| names.contains(&law.name))
}

#[test]
fn a_gradient_is_the_slope_of_the_prediction() {
    let observed = world(60, 4, 1);
    for law in laws_of_shares() {
        let fitted = (law.make)(&LawOptions::default()).fit(&observed).unwrap();
        let shares = vec![0.35, 0.15, 0.3, 0.2];
        let point = Point::both(shares.clone());
        let Some(gradient) = fitted.gradient(&point) else {
            assert_eq!(law.name, "regmix");
            continue;
        };
        for domain in 0..4 {
            let moved = |by: f64| {
                let mut shares = shares.clone();
                shares[domain] += by;
                fitted.predict(&Point::both(shares))
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let found = gradient.sampling[domain];
            assert!(
                (found - slope).abs() < 1e-4 * (1.0 + slope.abs()),
                "{} {found} {slope}",
                law.name
            );
        }
    }
}

#[test]
fn one_run_that_went_wrong_does_not_bend_the_default_law() {
    let (clean, unseen) = (world(40, 6, 21), world(60, 6, 22));
    let law = (LAWS[0].make)(&LawOptions::default());
    let rank = |observed: &Observations| {
        let fitted = law.fit(observed).unwrap();
        crate::judge::score(&*fitted, &unseen).spearman
    };
    let without = rank(&clean);
    for (run, excess) in [(3, 0.3), (11, 0.3), (25, 3.0), (38, 3.0)] {
        let mut spoilt = clean.clone();
        spoilt.losses[run] += excess;
        let with = rank(&spoilt);
        assert!(with > without - 0.02, "run {run} + {excess}: {with}, {without} without");
    }
}

#[test]
fn losses_half_of_which_tie_at_the_lowest_have_a_scale() {
    let mut observed = world(30, 3, 23);
    let mut sorted = observed.losses.clone();
    sorted.sort_by(f64::total_cmp);
    observed.losses.iter_mut().for_each(|loss| *loss = loss.max(sorted[18]));
    for law in ["power-log-linear", "power-ridge"] {
        let fitted = (find_law(law).unwrap().make)(&LawOptions::default()).fit(&observed).unwrap();
        let guesses: Vec<f64> = observed.points.iter().map(|point| fitted.predict(point)).collect();
        let rank = crate::judge::spearman(&guesses, &observed.losses);
        assert!(rank > 0.6, "{law} {rank}");
    }
}

#[test]
fn a_fit_is_the_same_whatever_the_threads() {
    let observed = world(45, 3, 2);
    for law in laws_of_shares() {
        let law = (law.make)(&LawOptions::default());
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| law.leave_one_out(&observed).unwrap())
        };
        assert_eq!(with(1), with(3));
    }
}

#[test]
fn what_a_run_came_to_has_no_say_in_its_own_held_out_prediction() {
    let observed = world(48, 3, 3);
    let mut moved = observed.clone();
    moved.losses[7] += 5.0;
    for law in laws_of_shares() {
        let law = (law.make)(&LawOptions::default());
        let (before, after) =
            (law.leave_one_out(&observed).unwrap(), law.leave_one_out(&moved).unwrap());
        assert_eq!(before[7], after[7]);
    }
}

#[test]
fn too_few_mixtures_are_refused_whatever_the_runs() {
    let mut observed = world(3, 3, 4);
    for _ in 0..4 {
        let again = observed.select(&[0, 1, 2]);
        observed.points.extend(again.points);
        observed.losses.extend(again.losses);
        observed.groups.extend(again.groups);
    }
    for law in laws_of_shares() {
        let error = (law.make)(&LawOptions::default()).fit(&observed).err().unwrap();
        let expected = SearchError::TooFewRuns { law: law.name, least: (law.least)(3), found: 3 };
        assert_eq!(error, expected);
    }
}

#[test]
fn what_is_no_number_is_refused_with_its_run() {
    let mut observed = world(60, 3, 5);
    observed.losses[41] = f64::NAN;
    for law in laws_of_shares() {
        let error = (law.make)(&LawOptions::default()).fit(&observed).err().unwrap().to_string();
        assert!(error.contains("a finite loss, found NaN in run 42"), "{error}");
    }
    observed.losses[41] = 3.0;
    observed.points[2].sampling[1] = -0.1;
    let error = (LAWS[0].make)(&LawOptions::default()).fit(&observed).err().unwrap().to_string();
    assert!(error.contains("found -0.1 in run 3"), "{error}");
}

#[test]
fn equal_losses_are_predicted_as_they_are() {
    let mut observed = world(50, 3, 6);
    observed.losses.fill(2.5);
    for law in laws_of_shares() {
        let fitted = (law.make)(&LawOptions::default()).fit(&observed).unwrap();
        let found = fitted.predict(&Point::both(vec![0.2, 0.5, 0.3]));
        assert!((found - 2.5).abs() < 1e-3, "{} {found}", law.name);
    }
}

#[test]
fn a_domain_that_nobody_drew_has_no_say() {
    let mut observed = world(50, 3, 7);
    for point in &mut observed.points {
        point.sampling.push(0.0);
        point.objective.push(0.0);
    }
    for law in laws_of_shares() {
        let fitted = (law.make)(&LawOptions::default()).fit(&observed).unwrap();
        let at = |unknown: f64| fitted.predict(&Point::both(vec![0.3, 0.3, 0.2, unknown]));
        assert!((at(0.2) - at(0.0)).abs() < 1e-9, "{} {} {}", law.name, at(0.2), at(0.0));
    }
}

#[test]
fn two_domains_and_three_hundred_are_fitted() {
    let (two, many, some) = (world(6, 2, 8), world(310, 300, 9), world(70, 60, 9));
    for law in laws_of_shares() {
        // Four starts, and a thousand trees, take a minute over three hundred domains.
        let slow = ["log-linear", "regmix"].contains(&law.name);
        let many = if slow { &some } else { &many };
        let law = (law.make)(&LawOptions::default());
        for observed in [&two, many] {
            match law.fit(observed) {
                Ok(fitted) => assert!(fitted.predict(&observed.points[0]).is_finite()),
                Err(error) => assert!(matches!(error, SearchError::TooFewRuns { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn the_default_recovers_a_power_law_of_effective_data() {
    let (observed, aside) = (world(24, 5, 10), world(200, 5, 11));
    let fitted = (LAWS[0].make)(&LawOptions::default()).fit(&observed).unwrap();
    let squares = |guess: &dyn Fn(&Point) -> f64| -> f64 {
        let rows = aside.points.iter().zip(&aside.losses);
        rows.map(|(point, loss)| (guess(point) - loss).powi(2)).sum()
    };
    let mean = observed.losses.iter().sum::<f64>() / 24.0;
    let explained = 1.0 - squares(&|point| fitted.predict(point)) / squares(&|_| mean);
    assert!(explained > 0.95, "{explained}");
}

#[test]
fn a_subset_is_drawn_by_its_seed() {
    let observed = world(20, 3, 12);
    let subset = observed.subset(8, 5).unwrap();
    assert_eq!(subset, observed.subset(8, 5).unwrap());
    assert_ne!(subset, observed.subset(8, 6).unwrap());
    assert!(subset.groups.is_sorted() && subset.groups.len() == 8);
    assert_eq!(observed.subset(20, 1).unwrap(), observed);
    assert!(observed.subset(21, 1).unwrap_err().to_string().contains("found 21"));
}

#[test]
fn the_table_names_each_law_once_and_the_default_first() {
    assert_eq!(LAWS[0].name, "power-log-linear");
    let names: std::collections::HashSet<_> = LAWS.iter().map(|law| law.name).collect();
    assert_eq!(names.len(), LAWS.len());
    assert!(find_law("best").err().unwrap().to_string().contains("power-log-linear"));
}
