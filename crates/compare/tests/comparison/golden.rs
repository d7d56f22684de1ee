//! One table of losses in, every number of the document out. `golden.py` computed `golden.txt` from
//! `losses.txt` by NumPy and SciPy.

use std::collections::BTreeMap;

use cuvee_compare::{ArmResult, Comparison, REACH, Role, Verdict, compare};

use crate::build::{arm, input};

fn golden() -> Comparison {
    let (domains, above) = ([("web", 0.6), ("code", 0.4)], [0.30, 0.14, 0.05, 0.0]);
    let mut made = input(4, &domains);
    for line in include_str!("losses.txt").lines() {
        let (name, row) = line.split_once(' ').unwrap();
        let role = match name {
            "uniform" => Role::Baseline,
            "uniform~" => Role::Replica,
            _ => Role::Arm,
        };
        let seeds = row.split('|').map(|seed| {
            let losses: Vec<f64> = seed.split_whitespace().map(|l| l.parse().unwrap()).collect();
            Some(vec![losses[..3].to_vec(), losses[3..].to_vec()])
        });
        let mut arm = arm(name, role, seeds.collect());
        for run in arm.runs.iter_mut().flatten() {
            let mean = |w: &[f64]| w.iter().sum::<f64>() / w.len() as f64;
            let y = 0.6 * mean(&run.windows[0]) + 0.4 * mean(&run.windows[1]);
            run.curve = (1..).map(|n| 250_000 * n).zip(above.map(|above| y + above)).collect();
        }
        made.arms.push(arm);
    }
    compare(&made).unwrap()
}

/// The numbers of the document by the names of `golden.txt`.
fn numbers(found: &Comparison) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let mut add = |name: String, value: Option<f64>| {
        if let Some(value) = value {
            all.insert(name, value);
        }
    };
    add("signal_to_noise".to_owned(), found.signal_to_noise);
    add("nats_per_percent_of_tokens".to_owned(), found.nats_per_percent_of_tokens);
    for arm in &found.arms {
        for (key, value) in [
            ("mean_loss", arm.mean_loss),
            ("ci95", arm.ci95),
            ("worst_domain_loss", arm.worst_domain_loss),
            ("worst_domain_difference", arm.worst_domain_difference),
            ("worst_domain_difference_ci95", arm.worst_domain_difference_ci95),
            ("difference", arm.difference),
            ("difference_ci95", arm.difference_ci95),
            ("sd_seeds", arm.sd_seeds),
            ("se_windows", arm.se_windows),
            ("p_value", arm.p_value),
            ("p_holm", arm.p_holm),
            ("mde", arm.mde),
            ("seeds_needed", arm.seeds_needed.map(|n| n as f64)),
            ("equivalent_within", arm.equivalent_within),
            ("speedup", arm.speedup),
            ("speedup_low", arm.speedup_ci95.map(|[low, _]| low)),
            ("speedup_high", arm.speedup_ci95.map(|[_, high]| high)),
        ] {
            add(format!("{}.{key}", arm.name), value);
        }
        for domain in &arm.domains {
            for (key, value) in [
                ("loss", domain.loss),
                ("ci95", domain.ci95),
                ("difference", domain.difference),
                ("difference_ci95", domain.difference_ci95),
                ("p_value", domain.p_value),
                ("p_holm", domain.p_holm),
            ] {
                add(format!("{}.{}.{key}", arm.name, domain.name), value);
            }
        }
    }
    all
}

#[test]
fn every_number_of_the_golden_case_is_what_scipy_says() {
    let found = numbers(&golden());
    let expected: BTreeMap<String, f64> = include_str!("golden.txt")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect();
    // No number of either is without its counterpart.
    let names = |numbers: &BTreeMap<String, f64>| numbers.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&found), names(&expected));
    for (name, value) in &found {
        let expected = expected[name];
        // The losses are rounded at 1e-16; SciPy's integrals and roots to 1e-9.
        let close = (value - expected).abs() <= 1e-8 * expected.abs() + 1e-13;
        assert!(close, "{name}: {value} and {expected}");
    }
}

#[test]
fn the_golden_case_is_told_in_plain_english() {
    let found = golden();
    let arm = |name: &str| -> &ArmResult { found.arms.iter().find(|a| a.name == name).unwrap() };
    let verdicts: Vec<(&str, Verdict)> =
        found.arms.iter().map(|arm| (arm.name.as_str(), arm.verdict)).collect();
    let expected = [
        ("uniform", Verdict::None),
        ("va", Verdict::Better),
        ("erma", Verdict::Undecided),
        ("uniform~", Verdict::Equivalent),
    ];
    assert_eq!(verdicts, expected);
    for (name, expected) in [
        ("uniform", "uniform is the baseline: 3.593 ± 0.081 nats a token (4 seeds).".to_owned()),
        (
            "va",
            format!(
                "va is better than uniform: its loss is lower by 0.0343 ± 0.0044 nats a token \
                 (4 seeds, p < 0.001 corrected for 2 arms); {REACH}."
            ),
        ),
        (
            "erma",
            format!(
                "erma against uniform is undecided: +0.001 ± 0.019 nats a token (4 seeds, p = 0.934 \
                 corrected for 2 arms); 4 seeds find a difference of 0.033 in four of five \
                 comparisons, and one of 0.01 takes 56 seeds; {REACH}."
            ),
        ),
        (
            "uniform~",
            format!(
                "uniform~ and uniform are equivalent: they differ by -0.0010 ± 0.0068 nats a token \
                 (4 seeds), within the margin of 0.01; {REACH}."
            ),
        ),
    ] {
        assert_eq!(arm(name).sentence, expected);
    }
    let expected = format!(
        "va is better than uniform by 0.0343 ± 0.0044 nats a token (4 seeds, p < 0.001 corrected \
         for 2 arms); undecided: erma; {REACH}."
    );
    assert_eq!(found.sentence, expected);
    assert_eq!(found.baseline_noise, arm("uniform~").sd_seeds);
    assert_eq!(found.aa_verdict, Some(Verdict::Equivalent));
    assert_eq!(arm("va").worst_domain.as_deref(), Some("code"));
    let verdicts: Vec<Verdict> = arm("va").domains.iter().map(|d| d.verdict).collect();
    assert_eq!(verdicts, [Verdict::Better, Verdict::Better]);
    assert_eq!(found.notes, [""; 0]);
}
