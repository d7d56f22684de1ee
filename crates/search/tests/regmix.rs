//! The laws on RegMix's released swarm: 512 mixtures of 17 domains at 1M parameters, and 256 others
//! at 1M and 60M. Looked for in `CUVEE_TEST_DATA`, else in `../shared/data` beside the repository;
//! "skipped" where it is not there.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use cuvee_search::fit::{FitRequest, fit};
use cuvee_search::judge::{judge, score};
use cuvee_search::law::{LAWS, LawOptions, Observations, find_law};
use cuvee_search::swarm::{NamedText, Swarm, find_target, read_olmix};
use std::path::PathBuf;

const PILE_CC: &str = "metric/the_pile_pile_cc_val_loss";

fn text(name: &str) -> Option<String> {
    let folder = std::env::var_os("CUVEE_TEST_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let file = folder.unwrap_or_else(beside).join("swarms/regmix").join(name);
    let text = std::fs::read_to_string(file).ok();
    if text.is_none() {
        eprintln!("skipped: RegMix's swarm is not here");
    }
    text
}

fn swarm(set: &str, size: &str) -> Option<Swarm> {
    let mixtures = text(&format!("{set}_mixture_{size}.csv"))?;
    let metrics = text(&format!("{set}_pile_loss_{size}.csv"))?;
    let named = |text| NamedText { name: "regmix", text };
    Some(read_olmix(named(&mixtures), named(&metrics)).unwrap())
}

/// Spearman and regret at 1M and 60M, of one subset. `[target][size]`
type Scores = Vec<[(f64, f64); 2]>;

struct Data {
    train: Swarm,
    tests: [Swarm; 2],
}

impl Data {
    fn read() -> Option<Self> {
        let tests = [swarm("test", "1m")?, swarm("test", "60m")?];
        Some(Self { train: swarm("train", "1m")?, tests })
    }

    /// Scores of `subsets` fits from `n` runs.
    fn scores(&self, law: &str, n: usize, subsets: u64, targets: &[usize]) -> Vec<Scores> {
        self.scores_with(law, None, n, subsets, targets)
    }

    /// The same with the ridge that `log-linear` was published with.
    fn scores_with(
        &self,
        law: &str,
        ridge: Option<f64>,
        n: usize,
        subsets: u64,
        targets: &[usize],
    ) -> Vec<Scores> {
        let entry = find_law(law).unwrap();
        let one = |seed: u64, target: usize| {
            let options = LawOptions { ridge, ..LawOptions::seeded(seed) };
            let observed = Observations::of(&self.train, target).unwrap().subset(n, seed).unwrap();
            let fitted = (entry.make)(&options).fit(&observed).unwrap();
            [0, 1].map(|size| {
                let score = score(&*fitted, &Observations::of(&self.tests[size], target).unwrap());
                (score.spearman, score.regret_at_1)
            })
        };
        (0..subsets).map(|seed| targets.iter().map(|target| one(seed, *target)).collect()).collect()
    }
}

impl Data {
    /// The loss of the best of `n` runs less that of the best test run, at 1M: what it costs to
    /// take the best mixture that was tried. Mean over subsets and targets.
    fn best_seen(&self, n: usize, subsets: u64, targets: &[usize]) -> f64 {
        let least = |losses: &[f64]| losses.iter().copied().fold(f64::INFINITY, f64::min);
        let one = |seed: u64, target: usize| {
            let seen = Observations::of(&self.train, target).unwrap().subset(n, seed).unwrap();
            least(&seen.losses) - least(&Observations::of(&self.tests[0], target).unwrap().losses)
        };
        let all =
            (0..subsets).flat_map(|seed| targets.iter().map(move |target| one(seed, *target)));
        all.sum::<f64>() / (subsets as usize * targets.len()) as f64
    }
}

/// Means over targets of each subset, and over subsets: Spearman and regret at 1M and 60M.
fn means(scores: &[Scores]) -> [(f64, f64); 2] {
    let count = (scores.len() * scores[0].len()) as f64;
    [0, 1].map(|size| {
        let all = || scores.iter().flatten().map(move |target| target[size]);
        (all().map(|s| s.0).sum::<f64>() / count, all().map(|s| s.1).sum::<f64>() / count)
    })
}

fn all_targets(data: &Data) -> Vec<usize> {
    (0..data.train.targets.len()).collect()
}

#[test]
fn the_default_law_orders_mixtures_it_has_not_seen_from_twice_and_thrice_the_domains() {
    let Some(data) = Data::read() else { return };
    let pile_cc = [find_target(&data.train, PILE_CC).unwrap()];
    let few = means(&data.scores(LAWS[0].name, 34, 20, &pile_cc));
    assert!(few[0].0 >= 0.96 && few[1].0 >= 0.955, "{few:?}");
    let more = data.scores(LAWS[0].name, 51, 20, &all_targets(&data));
    let own: Vec<Scores> = more.iter().map(|scores| vec![scores[pile_cc[0]]]).collect();
    let own = means(&own);
    assert!(own[0].0 >= 0.98 && own[1].0 >= 0.976, "{own:?}");
    let all = means(&more);
    assert!(all[0].0 >= 0.975 && all[1].0 >= 0.972, "{all:?}");
    assert!(all[0].1 <= 0.010 && all[1].1 <= 0.015, "{all:?}");
    let whole = means(&data.scores(LAWS[0].name, 512, 1, &pile_cc));
    assert!(whole[0].0 >= 0.995 && whole[1].0 >= 0.990, "{whole:?}");
    eprintln!("34 {few:?}\n51 {own:?}, all targets {all:?}\n512 {whole:?}");
}

#[test]
fn published_rows_come_out_within_the_noise_of_subsets() {
    let Some(data) = Data::read() else { return };
    let pile_cc = [find_target(&data.train, PILE_CC).unwrap()];
    // Law and ridge, runs, Spearman at 1M and 60M of 8 subsets below 512, and the noise of subsets.
    let (published, next_to_none) = (Some(1e-4), Some(1e-7));
    let rows = [
        (("linear", None), 51, 0.816, 0.807, 0.03),
        (("linear", None), 512, 0.902, 0.893, 0.005),
        (("log-linear", published), 51, 0.834, 0.825, 0.03),
        (("log-linear", published), 512, 0.931, 0.923, 0.01),
        (("log-linear", next_to_none), 512, 0.962, 0.958, 0.01),
        (("power-ridge", None), 34, 0.958, 0.954, 0.01),
        (("power-ridge", None), 51, 0.979, 0.975, 0.005),
        (("power-ridge", None), 512, 0.989, 0.984, 0.003),
    ];
    for ((law, ridge), n, small, large, tolerance) in rows {
        let subsets = if n < 512 { 20 } else { 1 };
        let found = means(&data.scores_with(law, ridge, n, subsets, &pile_cc));
        let near = |value: f64, expected: f64| (value - expected).abs() <= tolerance;
        assert!(near(found[0].0, small) && near(found[1].0, large), "{law} {n} {found:?}");
    }
}

#[test]
fn the_document_of_a_fit_has_the_numbers_of_the_laws() {
    let (Some(mixtures), Some(metrics)) =
        (text("train_mixture_1m.csv"), text("train_pile_loss_1m.csv"))
    else {
        return;
    };
    let (test_mixtures, test_metrics) =
        (text("test_mixture_60m.csv").unwrap(), text("test_pile_loss_60m.csv").unwrap());
    let named = |name, text| NamedText { name, text };
    let mut request = FitRequest {
        mixtures: named("mixtures", &mixtures),
        metrics: named("metrics", &metrics),
        target: PILE_CC,
        test: Some((named("test", &test_mixtures), named("test", &test_metrics))),
        runs: Some(51),
        seed: 3,
        law: LAWS[0].name,
    };
    let tested = fit(&request).unwrap();
    assert_eq!((tested.law, tested.n), (LAWS[0].name, 51));
    assert!(tested.spearman > 0.95 && tested.regret_at_1 < 0.1, "{tested:?}");
    assert!(tested.loo_r2 > 0.8, "{tested:?}");
    request.test = None;
    let held_out = fit(&request).unwrap();
    assert_eq!(held_out.loo_r2, tested.loo_r2);
    assert!(held_out.spearman > 0.9, "{held_out:?}");
    request.law = "auto";
    let chosen = fit(&request).unwrap();
    assert!(chosen.loo_r2 >= held_out.loo_r2 - 0.02, "{chosen:?}");
}

/// The table of docs/search.md, or the rows of the law in `CUVEE_TEST_LAW`:
/// `cargo test --release -p cuvee-search --test regmix -- --ignored --nocapture table`.
#[test]
#[ignore = "minutes"]
fn table() {
    let Some(data) = Data::read() else { return };
    let pile_cc = find_target(&data.train, PILE_CC).unwrap();
    println!("| law | n | Pile-CC, 1M | Pile-CC, 60M | 13 targets, 1M | 13 targets, 60M |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for n in [34, 51, 128, 512] {
        let subsets = if n < 512 { 20 } else { 1 };
        let cell = |targets: &[usize]| data.best_seen(n, subsets, targets);
        let (own, all) = (cell(&[pile_cc]), cell(&all_targets(&data)));
        println!("| none, best seen | {n} | – / {own:.3} | | – / {all:.3} | |");
    }
    let only = std::env::var("CUVEE_TEST_LAW").ok();
    for law in LAWS.iter().filter(|law| only.as_ref().is_none_or(|name| name == law.name)) {
        for n in [512, 34, 51, 128] {
            if n < (law.least)(17) {
                continue;
            }
            let scores =
                data.scores(law.name, n, if n < 512 { 20 } else { 1 }, &all_targets(&data));
            let own: Vec<Scores> = scores.iter().map(|s| vec![s[pile_cc]]).collect();
            println!("| `{}` | {n} | {} | {} |", law.name, cells(&own), cells(&scores));
        }
    }
}

/// What a fit, and a judgement of a law, cost.
#[test]
#[ignore = "minutes"]
fn cost() {
    let Some(data) = Data::read() else { return };
    let target = find_target(&data.train, PILE_CC).unwrap();
    println!("| law | n | a fit, s | judged, s | R² of runs left out | Spearman | regret |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for law in LAWS {
        for n in [51, 512] {
            let options = LawOptions::default();
            let observed = Observations::of(&data.train, target).unwrap().subset(n, 0).unwrap();
            let start = std::time::Instant::now();
            (law.make)(&options).fit(&observed).unwrap();
            let fitted = start.elapsed().as_secs_f64();
            let judged = judge(law, &options, &observed).unwrap();
            let total = start.elapsed().as_secs_f64() - fitted;
            println!(
                "| `{}` | {n} | {fitted:.3} | {total:.2} | {:.3} | {:.3} | {:.3} |",
                law.name, judged.loo_r2, judged.spearman, judged.regret_at_1
            );
        }
    }
}

/// "Spearman ± its deviation over subsets / regret ± …" at 1M and at 60M.
fn cells(scores: &[Scores]) -> String {
    let spread = |values: Vec<f64>, digits: usize| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        if values.len() == 1 {
            return format!("{mean:.digits$}");
        }
        format!("{mean:.digits$} ± {:.digits$}", (squares / (n - 1.0)).sqrt())
    };
    let cell = |size: usize| {
        let of = |part: fn((f64, f64)) -> f64| {
            let means = scores.iter().map(|targets| {
                targets.iter().map(|target| part(target[size])).sum::<f64>() / targets.len() as f64
            });
            means.collect::<Vec<f64>>()
        };
        format!("{} / {}", spread(of(|score| score.0), 3), spread(of(|score| score.1), 3))
    };
    format!("{} | {}", cell(0), cell(1))
}
