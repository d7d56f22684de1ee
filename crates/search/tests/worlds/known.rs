//! Properties of proposals, on laws that are known.

use cuvee_search::law::{Fitted, Gradient, Point};
use cuvee_search::propose::{Aim, parts_of_gain, propose, runner_up};
use cuvee_search::shares::{normalised, relative_entropy, total_variation, uniform};
use proptest::prelude::*;
use serde_json::Value;

/// 3 + Σ_j a_j sin(6 r_j + j) − b_j ln(r_j + 0.01): smooth, with many hollows.
struct Hollows {
    waves: Vec<f64>,
    logs: Vec<f64>,
}

impl Fitted for Hollows {
    fn predict(&self, point: &Point) -> f64 {
        let r = &point.sampling;
        let term = |j: usize| {
            self.waves[j] * (6.0 * r[j] + j as f64).sin() - self.logs[j] * (r[j] + 0.01).ln()
        };
        3.0 + (0..r.len()).map(term).sum::<f64>()
    }

    fn gradient(&self, point: &Point) -> Option<Gradient> {
        let r = &point.sampling;
        let slope = |j: usize| {
            6.0 * self.waves[j] * (6.0 * r[j] + j as f64).cos() - self.logs[j] / (r[j] + 0.01)
        };
        let sampling = (0..r.len()).map(slope).collect();
        Some(Gradient { sampling, ..Gradient::default() })
    }

    fn describe(&self) -> Value {
        Value::Null
    }
}

/// A law of steps: the first share in tenths is best at 4.
struct Steps;

impl Fitted for Steps {
    fn predict(&self, point: &Point) -> f64 {
        2.0 + ((10.0 * point.sampling[0]).floor() - 4.0).abs()
    }

    fn gradient(&self, _: &Point) -> Option<Gradient> {
        None
    }

    fn describe(&self) -> Value {
        Value::Null
    }
}

fn aim(prior: Vec<f64>, caps: Vec<f64>) -> Aim {
    Aim { target_weights: vec![1.0], prior, kappa: 0.01, caps, floor: 1e-4, ..Aim::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_proposal_is_no_worse_than_any_start_or_candidate_and_keeps_its_bounds(
        rows in prop::collection::vec((-0.2f64..0.2, 0.0f64..0.2, 0.05f64..1.0, 0.05f64..1.0), 2..7),
        slack in 1.2f64..6.0,
    ) {
        let column = |pick: fn(&(f64, f64, f64, f64)) -> f64| rows.iter().map(pick).collect::<Vec<_>>();
        let law = Hollows { waves: column(|r| r.0), logs: column(|r| r.1) };
        let laws: Vec<Box<dyn Fitted>> = vec![Box::new(law)];
        let prior = normalised(&column(|r| r.2)).unwrap();
        let caps = vec![(slack / rows.len() as f64).min(1.0); rows.len()];
        let candidate = normalised(&column(|r| r.3)).unwrap();
        let aim = Aim { candidates: vec![candidate.clone()], ..aim(prior.clone(), caps.clone()) };
        let found = propose(&laws, &aim, 1).unwrap();
        prop_assert_eq!(&found, &propose(&laws, &aim, 1).unwrap());
        prop_assert!((found.mixture.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (r, cap) in found.mixture.iter().zip(&caps) {
            prop_assert!(*r >= 1e-4 - 1e-12 && *r <= cap + 1e-9);
        }
        let value = |r: &[f64]| {
            laws[0].predict(&Point::both(r.to_vec())) + 0.01 * relative_entropy(r, &prior)
        };
        prop_assert!((value(&found.mixture) - found.value).abs() < 1e-9);
        prop_assert!(found.gap.unwrap() < 1e-4, "{:?}", found.gap);
        for other in [&uniform(rows.len()), &prior, &candidate] {
            let within = other.iter().zip(&caps).all(|(r, cap)| *r >= 1e-4 && r <= cap);
            prop_assert!(!within || found.value <= value(other) + 1e-9);
        }

        // The runner-up is far from it, within the bounds, and no better.
        if let Some(second) = runner_up(&laws, &aim, &found.mixture, 0.1, 1).unwrap() {
            prop_assert!(total_variation(&second.mixture, &found.mixture) > 0.1 - 1e-6);
            prop_assert!(second.value >= found.value - 1e-6, "{} {}", second.value, found.value);
            prop_assert!(second.mixture.iter().zip(&caps).all(|(r, cap)| *r <= cap + 1e-9));
        }

        // Parts of the gain sum to it; who is not moved has none.
        let mut from = uniform(rows.len());
        let parts = parts_of_gain(&laws, &aim, &from, &found.mixture).unwrap();
        let loss = |r: &[f64]| laws[0].predict(&Point::both(r.to_vec()));
        let gain = loss(&from) - loss(&found.mixture);
        prop_assert!((parts.iter().sum::<f64>() - gain).abs() < 1e-9);
        from.clone_from(&found.mixture);
        prop_assert!(parts_of_gain(&laws, &aim, &from, &from).unwrap().iter().all(|p| *p == 0.0));
    }
}

#[test]
fn parts_say_which_domain_the_gain_is_from() {
    // More of the first, which helps, from the second and third in proportion.
    let law = Hollows { waves: vec![0.0; 3], logs: vec![0.3, 0.0, 0.0] };
    let laws: Vec<Box<dyn Fitted>> = vec![Box::new(law)];
    let aim = aim(uniform(3), vec![1.0; 3]);
    let parts = parts_of_gain(&laws, &aim, &[0.2, 0.4, 0.4], &[0.6, 0.2, 0.2]).unwrap();
    assert!(parts[0] > 0.9 * parts.iter().sum::<f64>() * 0.5, "{parts:?}");
    assert!((parts[1] - parts[2]).abs() < 1e-9 && parts[1] >= 0.0, "{parts:?}");
    let steps: Vec<Box<dyn Fitted>> = vec![Box::new(Steps)];
    let parts = parts_of_gain(&steps, &aim, &[0.85, 0.1, 0.05], &[0.45, 0.4, 0.15]).unwrap();
    assert!((parts.iter().sum::<f64>() - 4.0).abs() < 1e-9, "{parts:?}");
}

#[test]
fn a_law_of_steps_is_searched_by_sampling_as_regmix_does() {
    let laws: Vec<Box<dyn Fitted>> = vec![Box::new(Steps)];
    let aim = aim(vec![0.2, 0.3, 0.5], vec![1.0, 0.4, 1.0]);
    let found = propose(&laws, &aim, 4).unwrap();
    assert_eq!(found, propose(&laws, &aim, 4).unwrap());
    assert!(found.gap.is_none() && found.predicted == 2.0, "{found:?}");
    assert!(found.mixture[0] >= 0.4 && found.mixture[0] < 0.5 && found.mixture[1] <= 0.4);
}

#[test]
fn frozen_groups_keep_their_ratios_in_a_proposal() {
    let law = Hollows { waves: vec![0.0; 4], logs: vec![0.4, 0.1, 0.1, 0.3] };
    let laws: Vec<Box<dyn Fitted>> = vec![Box::new(law)];
    let mut aim = aim(vec![0.1, 0.3, 0.4, 0.2], vec![1.0, 0.2, 1.0, 1.0]);
    aim.frozen = vec![vec![0, 1]];
    let found = propose(&laws, &aim, 0).unwrap();
    assert!((found.mixture[1] / found.mixture[0] - 3.0).abs() < 1e-6, "{found:?}");
    assert!(found.mixture[1] <= 0.2 + 1e-9 && found.gap.unwrap() < 1e-5);
}

#[test]
fn what_cannot_be_searched_is_refused_in_words() {
    let laws: Vec<Box<dyn Fitted>> = vec![Box::new(Steps)];
    let good = aim(uniform(3), vec![1.0; 3]);
    let bad = [
        Aim { caps: vec![0.2; 3], ..good.clone() },
        Aim { prior: vec![0.5; 2], ..good.clone() },
        Aim { target_weights: Vec::new(), ..good.clone() },
        Aim { epochs_per_share: vec![1.0], ..good.clone() },
        Aim { candidates: vec![vec![1.0]], ..good.clone() },
        aim(vec![1.0], vec![1.0]),
    ];
    for aim in bad {
        let error = propose(&laws, &aim, 0).unwrap_err().to_string();
        assert!(error.starts_with("expected ") && error.contains("\nhint: "), "{error}");
    }
}
