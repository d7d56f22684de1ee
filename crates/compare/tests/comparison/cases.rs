//! Inputs out of the ordinary: too little, too equal, diverged, early, late, or wrong.

use cuvee_compare::{
    ArmInput, ArmResult, CompareError, Comparison, Input, NoSpeedup, REACH, Role, Schedule,
    Verdict, compare,
};

use crate::build::{Random, arm, input, plain};

const BASE: [f64; 6] = [3.1, 3.4, 2.9, 3.2, 3.0, 3.3];

/// BASE and an arm that differs by these.
fn with(differences: &[f64; 6]) -> Input {
    let losses: Vec<f64> = BASE.iter().zip(differences).map(|(y, d)| y + d).collect();
    plain(&[("base", &BASE), ("arm", &losses)])
}

const SURELY_BETTER: [f64; 6] = [-0.10, -0.11, -0.09, -0.10, -0.12, -0.08];

fn judged(made: &Input) -> (Comparison, ArmResult) {
    let found = compare(made).unwrap();
    let arm = found.arms[1].clone();
    (found, arm)
}

#[test]
fn each_verdict_is_reached() {
    for (differences, verdict, words) in [
        (SURELY_BETTER, Verdict::Better, "arm is better than base: its loss is lower by 0.100 ± "),
        (
            SURELY_BETTER.map(|d| -d),
            Verdict::Worse,
            "arm is worse than base: its loss is higher by",
        ),
        (
            [0.001, -0.001, 0.002, -0.002, 0.0, 0.0005],
            Verdict::Equivalent,
            "arm and base are equivalent: they differ by +0.0001 ± 0.0015 nats a token (6 seeds), \
             within the margin of 0.01",
        ),
        (
            [0.0; 6],
            Verdict::Identical,
            "arm and base are identical: every loss is the same (6 seeds)",
        ),
        (
            [0.1, -0.1, 0.05, 0.02, -0.08, 0.03],
            Verdict::Undecided,
            "arm against base is undecided: +0.003 ± 0.081 nats a token (6 seeds, p = 0.920); 6 seeds \
             find a difference of 0.111 in four of five comparisons, and one of 0.01 takes 1012 seeds",
        ),
    ] {
        let (found, arm) = judged(&with(&differences));
        assert_eq!(arm.verdict, verdict, "{}", arm.sentence);
        assert!(arm.sentence.starts_with(words), "{}", arm.sentence);
        assert!(arm.sentence.ends_with(&format!("; {REACH}.")), "{}", arm.sentence);
        // Of one arm, its sentence is the comparison's.
        assert_eq!(found.sentence, arm.sentence);
    }
}

#[test]
fn arms_are_ranked_by_paired_differences_and_those_without_one_come_last() {
    let lacking = f64::NAN;
    let mut made = plain(&[
        ("base", &BASE),
        // The seeds of high loss are missing: its mean is the lowest, and each run is higher.
        ("lucky", &[3.15, lacking, 2.95, lacking, 3.05, lacking]),
        ("stopped", &BASE.map(|y| y - 0.3)),
        ("worse", &BASE.map(|y| y + 0.02)),
        ("better", &BASE.map(|y| y - 0.02)),
        ("absent", &[lacking; 6]),
        ("base~", &BASE.map(|y| y + 0.001)),
    ]);
    made.arms[2].stopped_at = Some(60);
    made.arms[2].runs = vec![None; 6];
    let found = compare(&made).unwrap();
    let ranked: Vec<&str> = found.ranked().iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(ranked, ["better", "base", "base~", "worse", "lucky", "stopped", "absent"]);
    let lucky = &found.arms[1];
    assert!(lucky.mean_loss < found.arms[0].mean_loss && lucky.difference > Some(0.0));
    // What is even keeps the order of the config; a difference of −0 is none.
    let mut even = compare(&plain(&[("base", &BASE), ("a", &BASE), ("b", &BASE)])).unwrap();
    even.arms[1].difference = Some(-0.0);
    let ranked: Vec<&str> = even.ranked().iter().map(|arm| arm.name.as_str()).collect();
    assert_eq!(ranked, ["base", "a", "b"]);
}

#[test]
fn what_is_significant_and_inside_the_margin_is_better_and_said_to_be_small() {
    let differences = [-0.0010, -0.0011, -0.0009, -0.0010, -0.0012, -0.0008];
    let (_, arm) = judged(&with(&differences));
    assert_eq!(arm.verdict, Verdict::Better);
    assert!(arm.sentence.contains(", which is less than the margin of 0.01"), "{}", arm.sentence);
}

#[test]
fn one_seed_or_none_gives_no_verdict() {
    let (found, arm) = judged(&plain(&[("base", &[3.0]), ("arm", &[2.5])]));
    assert_eq!((arm.verdict, arm.n), (Verdict::None, 1));
    assert_eq!((arm.difference, arm.ci95), (Some(-0.5), None));
    assert_eq!((arm.difference_ci95, arm.p_value, arm.mde, arm.seeds_needed), Default::default());
    let expected =
        "arm: no verdict from one seed, whose difference of -0.5000 nats a token may be chance.";
    assert_eq!((arm.sentence.as_str(), found.sentence.as_str()), (expected, expected));
    let mut made = plain(&[("base", &BASE), ("arm", &BASE)]);
    made.arms[1].runs = vec![None; 6];
    let (_, arm) = judged(&made);
    assert_eq!((arm.verdict, arm.n, arm.mean_loss), (Verdict::None, 0, None));
    assert!(arm.sentence.starts_with("arm: no verdict, since no seed has a result"));
    // Nothing has run at all: the document of a plan.
    made.arms[0].runs = vec![None; 6];
    let (found, _) = judged(&made);
    assert_eq!(found.domains[0].windows, 0);
    assert!(found.arms[0].sentence.contains("no run has a result"));
}

#[test]
fn seeds_that_all_differ_alike_are_no_certainty() {
    // Exactly, and but for rounding.
    for losses in [BASE.map(|y| y - 0.5), BASE.map(|y| (y - 0.1) - 0.2)] {
        let (_, arm) = judged(&plain(&[("base", &BASE), ("arm", &losses)]));
        assert_eq!(arm.verdict, Verdict::Undecided);
        assert_eq!((arm.p_value, arm.p_holm, arm.difference_ci95), (None, None, None));
        assert!(arm.sentence.contains("which measures no noise"), "{}", arm.sentence);
    }
    // Rounding alone is no difference either.
    let (_, arm) = judged(&plain(&[("base", &BASE), ("arm", &BASE.map(|y| y + 4.5e-16))]));
    assert_eq!(arm.verdict, Verdict::Equivalent);
}

#[test]
fn a_single_window_is_said_to_say_nothing_about_windows() {
    let (found, arm) = judged(&with(&SURELY_BETTER));
    assert_eq!(arm.se_windows, None);
    assert!(found.notes.iter().any(|n| n.starts_with("One window was evaluated of web")));
}

#[test]
fn windows_that_differ_more_than_seeds_widen_the_interval_and_are_named() {
    let mut random = Random(9);
    let effects = [-0.3, 0.3, -0.2, 0.25, -0.1, 0.12];
    let mut made = input(6, &[("web", 1.0)]);
    let mut runs = |of_window: &[f64]| -> Vec<_> {
        let mut run =
            || vec![of_window.iter().map(|w| 3.0 + w + 0.001 * random.normal()).collect()];
        (0..6).map(|_| Some(run())).collect()
    };
    made.arms =
        vec![arm("base", Role::Baseline, runs(&[0.0; 6])), arm("arm", Role::Arm, runs(&effects))];
    let (_, arm) = judged(&made);
    let windows = arm.se_windows.unwrap();
    assert!(arm.difference_ci95.unwrap() > 1.95 * windows && windows > 0.05);
    assert_eq!(arm.verdict, Verdict::Undecided);
    let words = ", and one of 0.01 takes more windows: seeds alone never do";
    assert!(arm.sentence.contains(words), "{}", arm.sentence);
    assert_eq!(arm.seeds_needed, None);
    // A margin that seeds can find; windows are still the larger part.
    made.settings.margin = 0.3;
    for run in made.arms[1].runs.iter_mut().flatten() {
        run.windows[0].iter_mut().for_each(|loss| *loss += 0.15);
    }
    let (_, arm) = judged(&made);
    assert!(arm.seeds_needed.is_some());
    assert!(arm.sentence.contains("evaluate on more of them"), "{}", arm.sentence);
}

/// The test divides by √(s²/n + V_w), and so does what it can find: s = 0.01 alone would promise
/// 0.0143 at six seeds, of which √V_w = 0.02 leaves a power of 3 %.
#[test]
fn what_can_be_found_counts_the_noise_of_windows() {
    // Two windows at ± w beside the seeds' part: MSw = 12 w², MSe = 0, so V_w = w²: 0.02².
    let of_seeds = [-1.0, -0.4, -0.2, 0.2, 0.4, 1.0];
    let s = (of_seeds.iter().map(|d| d * d).sum::<f64>() / 5.0).sqrt();
    let run = |d: f64, w: f64| Some(vec![vec![3.0 + 0.01 * d / s + w, 3.0 + 0.01 * d / s - w]]);
    let mut made = input(6, &[("web", 1.0)]);
    made.arms = vec![
        arm("base", Role::Baseline, vec![run(0.0, 0.0); 6]),
        arm("arm", Role::Arm, of_seeds.iter().map(|d| run(*d, 0.02)).collect()),
    ];
    let (_, arm) = judged(&made);
    let close = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 1e-9;
    assert!(close(arm.sd_seeds, 0.01) && close(arm.se_windows, 0.02), "{arm:?}");
    let promised =
        cuvee_compare::detectable(6, 0.05) * (0.01f64.powi(2) + 6.0 * 0.02f64.powi(2)).sqrt();
    assert!(close(arm.mde, promised) && promised > 0.07, "{:?}", arm.mde);
    let critical = cuvee_compare::student_quantile(0.05, 5);
    let power = |effect: f64| {
        let error = (0.01f64.powi(2) / 6.0 + 0.02f64.powi(2)).sqrt();
        cuvee_compare::power(effect / error, critical, 5)
    };
    assert!((power(promised) - 0.8).abs() < 1e-9 && power(0.0143) < 0.12);
    assert_eq!(arm.seeds_needed, None);
    assert!(arm.sentence.contains("find a difference of 0.072 in"), "{}", arm.sentence);
}

#[test]
fn a_diverged_run_is_no_result_and_its_arm_is_not_called_better() {
    for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut made = with(&SURELY_BETTER);
        made.arms[1].runs[2].as_mut().unwrap().windows[0][0] = broken;
        let (found, arm) = judged(&made);
        assert_eq!((arm.n, &arm.diverged[..], arm.losses[2]), (5, &[2u64][..], None));
        assert_eq!(arm.verdict, Verdict::Undecided);
        assert!(arm.p_holm.unwrap() < 0.05);
        assert!(arm.sentence.contains("its run of seed 2 diverged"), "{}", arm.sentence);
        let note = "arm diverged at seed 2, so it is called neither better nor equivalent.";
        assert!(found.notes.iter().any(|n| n == note), "{:?}", found.notes);
        // Worse it may be called.
        let mut made = with(&SURELY_BETTER.map(|d| -d));
        made.arms[1].runs[2].as_mut().unwrap().windows[0][0] = broken;
        assert_eq!(judged(&made).1.verdict, Verdict::Worse);
        // And the other way round where the baseline diverged.
        made.arms[1].runs[2] = made.arms[1].runs[1].clone();
        made.arms[0].runs[2].as_mut().unwrap().windows[0][0] = broken;
        let (found, arm) = judged(&made);
        assert_eq!(arm.verdict, Verdict::Undecided);
        let note = "base diverged at seed 2, so no arm is called worse or equivalent.";
        assert!(found.notes.iter().any(|n| n == note), "{:?}", found.notes);
        let numbers = format!("{:?}", judged(&made));
        assert!(!numbers.contains("NaN") && !numbers.contains("inf"), "{numbers}");
        // Of several arms, the sentence about the whole names whose losses are missing.
        made.arms.push(ArmInput { name: "other".to_owned(), ..made.arms[1].clone() });
        let whole = judged(&made).0.sentence;
        assert!(whole.contains("; diverged: base (1 of 6 runs);"), "{whole}");
    }
}

#[test]
fn unfinished_comparisons_use_the_pairs_there_are_and_say_so() {
    let mut made = with(&SURELY_BETTER);
    made.arms[1].runs[5] = None;
    made.arms[0].runs[0] = None;
    let (found, arm) = judged(&made);
    assert_eq!((arm.n, arm.differences[0], arm.differences[5]), (4, None, None));
    assert_eq!(arm.verdict, Verdict::Better);
    assert!(
        found.notes.iter().any(|n| n == "arm has 4 of 6 seeds so far; its verdict may change.")
    );
}

#[test]
fn stopped_arms_are_futile_and_still_count_among_the_arms() {
    let better: Vec<f64> = BASE.iter().zip(SURELY_BETTER).map(|(y, d)| y + d).collect();
    let mut made = plain(&[("base", &BASE), ("arm", &better), ("bad", &BASE)]);
    made.arms[2].stopped_at = Some(200);
    made.arms[2].runs = vec![None; 6];
    let found = compare(&made).unwrap();
    let (arm, bad) = (&found.arms[1], &found.arms[2]);
    assert_eq!((bad.verdict, bad.stopped_at), (Verdict::Futile, Some(200)));
    assert!(bad.sentence.starts_with("bad was stopped at step 200, worse than base by more"));
    assert_eq!(arm.p_holm, arm.p_value.map(|p| 2.0 * p));
    assert!(found.sentence.contains("; stopped as worse: bad;"), "{}", found.sentence);
}

#[test]
fn seeds_added_later_without_looks_make_everything_exploratory() {
    let mut made = with(&SURELY_BETTER);
    made.settings.seeds_added = true;
    let (found, arm) = judged(&made);
    assert!(found.exploratory && arm.exploratory);
    assert!(arm.sentence.contains("; exploratory, since seeds were added"), "{}", arm.sentence);
    made.settings.looks = vec![4, 6];
    assert!(!compare(&made).unwrap().exploratory);
}

#[test]
fn looks_decide_early_only_what_is_sure_enough() {
    let mut made = with(&SURELY_BETTER);
    made.settings.looks = vec![3, 6];
    // At three seeds p is .003, below .0125.
    let (found, arm) = judged(&made);
    assert_eq!((arm.verdict, arm.decided_at), (Verdict::Better, Some(3)));
    assert_eq!((found.looks[0].seeds, &found.looks[0].decided[..]), (3, &["arm".to_owned()][..]));
    assert!((found.looks[0].nominal - 0.0125).abs() < 1e-9 && found.looks[1].decided.is_empty());
    assert!(arm.sentence.contains(", decided at the look at 3 seeds"), "{}", arm.sentence);
    // Between looks nothing is decided, however small p; nor is equivalence before the last.
    for differences in
        [[-0.10, -0.18, -0.02, -0.12, -0.11, -0.12], [1e-4, -1e-4, 2e-4, 0.0, 1e-4, 0.0]]
    {
        let mut made = with(&differences);
        made.settings.looks = vec![3, 6];
        made.arms[1].runs[5] = None;
        let (found, arm) = judged(&made);
        assert_eq!((arm.verdict, arm.n, arm.decided_at), (Verdict::Undecided, 5, None));
        assert!(found.notes.iter().any(|n| n.starts_with("arm has 5 of 6 seeds")));
        made.arms[1].runs[5] = with(&differences).arms[1].runs[5].clone();
        assert_ne!(judged(&made).1.verdict, Verdict::Undecided);
    }
}

#[test]
fn the_last_look_is_taken_once_all_runs_have_ended_though_one_diverged() {
    // p is .01 with five pairs: for no interim look, but for the last.
    let mut made = with(&[-0.10, -0.18, -0.02, -0.12, -0.11, -0.12]);
    made.settings.looks = vec![3, 6];
    made.arms[0].runs[5].as_mut().unwrap().windows[0][0] = f64::NAN;
    let (_, arm) = judged(&made);
    assert_eq!((arm.verdict, arm.n, arm.decided_at), (Verdict::Better, 5, Some(6)));
    // While a run is still to come, it is not.
    made.arms[1].runs[4] = None;
    assert_eq!(judged(&made).1.verdict, Verdict::Undecided);
}

#[test]
fn only_runs_that_are_still_to_come_are_said_to_be_missing() {
    let says = |made: &Input| compare(made).unwrap().notes.iter().any(|n| n.contains("so far"));
    // Decided at three seeds, so that nothing more was run, of no arm.
    let mut made = with(&SURELY_BETTER);
    made.settings.looks = vec![3, 6];
    for arm in &mut made.arms {
        arm.runs[3..].fill(None);
    }
    assert!(!says(&made));
    // A seed of the baseline diverged: no arm lacks a run.
    let mut made = with(&SURELY_BETTER);
    made.arms[0].runs[2].as_mut().unwrap().windows[0][0] = f64::NAN;
    assert!(!says(&made));
    made.arms[1].runs[4] = None;
    assert!(says(&made));
}

#[test]
fn tokens_are_compared_where_the_rate_allows_it() {
    let mut made = with(&SURELY_BETTER);
    for run in made.arms.iter_mut().flat_map(|arm| &mut arm.runs).flatten() {
        let loss = run.windows[0][0];
        run.curve = (0..=10).map(|n| (n * 1_000, loss + 0.1 * (10 - n) as f64)).collect();
    }
    let (found, arm) = judged(&made);
    assert!(arm.speedup.unwrap() > 1.0 && arm.speedup_ci95.is_some());
    assert!(found.nats_per_percent_of_tokens.unwrap() > 0.0);
    made.settings.schedule = Schedule::Cosine;
    let (found, arm) = judged(&made);
    assert_eq!((arm.speedup, found.nats_per_percent_of_tokens), (None, None));
    assert_eq!(arm.speedup_missing, Some(NoSpeedup::Schedule.to_string()));
    assert!(found.notes.iter().any(|n| n.starts_with("No ratio of tokens: the learning rate")));
    // Arms of different shapes have a reason of their own.
    made.settings.schedule = Schedule::Mixed;
    let (found, arm) = judged(&made);
    assert_eq!((arm.speedup, found.nats_per_percent_of_tokens), (None, None));
    let note = "No ratio of tokens: the arms' learning rates do not follow one shape, so that their \
                curves cannot be compared.";
    assert!(found.notes.iter().any(|n| n == note), "{:?}", found.notes);
}

#[test]
fn a_repetition_that_differs_is_a_warning() {
    let replica: Vec<f64> = BASE.iter().zip(SURELY_BETTER).map(|(y, d)| y - d).collect();
    let found = compare(&plain(&[("base", &BASE), ("arm", &BASE), ("base~", &replica)])).unwrap();
    assert_eq!(found.aa_verdict, Some(Verdict::Worse));
    assert!(
        found.notes.iter().any(|n| n.starts_with("base~, the baseline again with other draws"))
    );
    // It is no part of the family: one arm, no correction.
    assert_eq!(found.arms[2].p_holm, found.arms[2].p_value);
}

/// What makes a good input a bad one.
type Edit<'a> = &'a dyn Fn(&mut Input);

#[test]
fn what_cannot_be_compared_is_refused_with_what_was_found() {
    let good = || with(&SURELY_BETTER);
    let change = |edit: Edit<'_>| {
        let mut made = good();
        edit(&mut made);
        compare(&made).unwrap_err().to_string()
    };
    let cases: [(Edit<'_>, &str); 15] = [
        (&|i| i.arms[0].role = Role::Arm, "expected one arm that is the baseline, found 0"),
        (&|i| i.arms[1].role = Role::Baseline, "expected one arm that is the baseline, found 2"),
        (&|i| i.arms[1].name = "base".into(), "expected each arm once, found `base` twice"),
        (&|i| i.seeds[1] = 0, "expected each seed once, found `0` twice"),
        (&|i| i.domains[0].importance = 0.5, "add up to 1, found 0.5 as their sum"),
        (&|i| i.domains[0].importance = f64::NAN, "found NaN for `web`"),
        (&|i| i.domains.clear(), "expected at least one domain"),
        (&|i| i.settings.margin = 0.0, "`compare.margin`: expected a number above 0, found 0"),
        (&|i| i.settings.margin = f64::NAN, "found NaN"),
        (&|i| i.settings.alpha = 0.5, "`compare.alpha`: expected a number between 0 and 0.5"),
        (&|i| i.settings.looks = vec![6, 4], "`compare.looks`: expected rising numbers"),
        (&|i| i.settings.looks = vec![1, 6], "found [1, 6]"),
        (&|i| i.settings.looks = vec![4, 8], "up to the number of seeds, found [4, 8]"),
        (&|i| drop(i.arms[1].runs.pop()), "arm `arm` has 5 runs, but there are 6 seeds"),
        (
            &|i| i.arms[1].runs[3].as_mut().unwrap().windows[0].push(3.0),
            "arm `arm`, seed 3, domain `web`: expected the losses of 1 window, as of the other \
             runs, found 2",
        ),
    ];
    for (edit, said) in cases {
        let error = change(edit);
        assert!(error.contains(said), "{error}\nexpected: {said}");
    }
    let mut made = good();
    made.arms[1].runs[0].as_mut().unwrap().windows.clear();
    let expected = CompareError::Domains { arm: "arm".to_owned(), seed: 0, expected: 1, found: 0 };
    assert_eq!(compare(&made), Err(expected));
    let mut made = good();
    made.arms[0].runs[0].as_mut().unwrap().windows[0].clear();
    assert!(compare(&made).unwrap_err().to_string().contains("found 0"));
    let mut made = good();
    made.arms.push(made.arms[1].clone());
    made.arms.push(made.arms[1].clone());
    for (index, arm) in made.arms[2..].iter_mut().enumerate() {
        (arm.role, arm.name) = (Role::Replica, format!("r{index}"));
    }
    assert_eq!(compare(&made), Err(CompareError::Replicas { found: 2 }));
}
