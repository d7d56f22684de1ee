//! Pages of generated runs: what stands in them, in which order, and that nothing gets out.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};

use cuvee_report::page::{
    EvaluatedText, ReportInput, SearchInput, is_search, read_runs, read_search, report,
    search_report, write_report,
};
use cuvee_report::{CollapseRecord, LearnedShares, MetricsLog, Record};
use fixture::{FORMULA, SMALL, Shape, compared, ended_early, run, runs, searched, uncompared};
use serde_json::Value;

/// Headings of the sections.
fn sections(html: &str) -> Vec<&str> {
    html.split("<h2 ").skip(1).map(|s| inside(s, ">", "<")).collect()
}

fn inside<'a>(text: &'a str, after: &str, before: &str) -> &'a str {
    let rest = text.split_once(after).unwrap().1;
    rest.split_once(before).unwrap().0
}

/// The numbers of the figures.
fn figures(html: &str) -> Vec<Value> {
    let scripts = html.split("<script type=\"application/json\">").skip(1);
    scripts.map(|s| serde_json::from_str(s.split("</script>").next().unwrap()).unwrap()).collect()
}

fn figure(html: &str, title: &str) -> Value {
    let all = figures(html);
    all.into_iter().find(|figure| figure["title"] == title).unwrap_or_else(|| panic!("{title}"))
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect()
}

#[test]
fn a_comparisons_page_begins_with_the_verdict_and_keeps_its_order() {
    let html = report(&compared(SMALL));
    let body = html.split_once("<body>").unwrap().1;
    let lead = inside(body, "<h1>", "</h1>");
    assert!(lead.contains("has the lowest loss &lt;&amp;&gt;, by 0.04"), "{lead}");
    assert!(body.find("<h1>").unwrap() < 20);
    assert_eq!(
        sections(&html),
        [
            "Ranking",
            "Paired differences",
            "By domain",
            "Loss",
            "Mixture",
            "Runs and speed",
            "Config differences",
            "Samples",
            "Notes",
            "Method"
        ]
    );
    let titles: Vec<String> =
        figures(&html).iter().map(|f| f["title"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        titles,
        [
            "Loss of every seed",
            "Difference to uniform",
            "Difference to uniform by domain",
            "Held-out loss",
            "Training loss",
            "Sampling weights",
            "Loss weights",
            "Multipliers",
            "Effective batch size",
            "Gradient deviation",
            "Epochs",
            "Speed"
        ]
    );
    assert!(html.contains("bands: 4 seeds, 95 % interval of the mean"));
    assert!(html.contains("exploratory"));
    assert_eq!(figure(&html, "Difference to uniform")["region"], serde_json::json!([-0.01, 0.01]));
}

#[test]
fn names_from_data_cannot_become_markup_or_script() {
    let html = report(&compared(SMALL));
    for broken in ["<img", "<b>日本", "alert(1)>", "<script>alert", "</title><script", "<i>&amp;<"]
    {
        assert!(!html.contains(broken), "{broken}");
    }
    // Those of the page itself: one for each figure, the packed library, and the page's own.
    let scripts = html.matches("<script").count();
    assert_eq!(scripts, html.matches("</script>").count());
    assert_eq!(scripts, figures(&html).len() + 2);
    let acting = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || c == '\u{202e}';
    assert!(!html.contains(acting));
    // And in the numbers of figures, none is left in an escaped form.
    for figure in figures(&html) {
        let names = figure["series"].as_array().unwrap().iter().filter_map(Value::as_str);
        assert!(names.into_iter().all(|name| !name.contains(acting)), "{figure}");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let input = compared(SMALL);
    assert_eq!(report(&input), report(&input.clone()));
}

#[test]
fn the_numbers_of_plots_are_those_of_the_records() {
    let shape = Shape { arms: 1, seeds: 1, ..SMALL };
    let input = uncompared(shape);
    let html = report(&input);
    let held_out = figure(&html, "Held-out loss");
    let evals: Vec<_> = input.runs[0]
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Eval(eval) => Some(eval),
            Record::Step(_) => None,
        })
        .collect();
    let steps: Vec<f64> = evals.iter().map(|eval| eval.step as f64).collect();
    assert_eq!(floats(&held_out["grids"][0]), steps);
    let marks = held_out["panels"][0]["marks"].as_array().unwrap();
    assert_eq!(marks.len(), 4, "the mean and three domains share a panel");
    let means: Vec<f64> = evals.iter().map(|eval| eval.mean_loss).collect();
    assert_eq!(floats(&marks[0]["y"]), means);
    for (index, name) in fixture::DOMAINS.iter().enumerate() {
        let losses: Vec<f64> =
            evals.iter().map(|eval| eval.domains.get(name).unwrap().loss).collect();
        assert_eq!(floats(&marks[index + 1]["y"]), losses);
        // A single run's band is what other windows would change.
        let low: Vec<f64> = losses.iter().map(|loss| loss - 1.96 * 0.02).collect();
        assert_eq!(floats(&marks[index + 1]["low"]), low);
    }
    // A loss that is not finite is a gap.
    let objective = &figure(&html, "Training loss")["panels"][0]["marks"][0]["y"];
    assert!(objective[4].is_null() && objective[5].is_f64());
}

#[test]
fn bands_over_seeds_are_t_intervals() {
    let html = report(&compared(SMALL));
    let held_out = figure(&html, "Held-out loss");
    let mark = &held_out["panels"][0]["marks"][1];
    let last = |seed| {
        let run = run(SMALL, 1, seed);
        let Some(Record::Eval(eval)) = run.records.last().cloned() else { panic!() };
        eval.mean_loss
    };
    let losses: Vec<f64> = (0..4).map(last).collect();
    let mean = losses.iter().sum::<f64>() / 4.0;
    let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 3.0;
    let half = 3.1824 * (variance / 4.0).sqrt();
    let end = |key: &str| *floats(&mark[key]).last().unwrap();
    assert!((end("y") - mean).abs() < 1e-12);
    assert!((end("low") - (mean - half)).abs() < 1e-9, "{} {}", end("low"), mean - half);
    assert!((end("high") - (mean + half)).abs() < 1e-9);
}

#[test]
fn one_run_has_no_part_of_a_comparison() {
    let html = report(&uncompared(Shape { arms: 1, seeds: 1, ..SMALL }));
    assert_eq!(
        sections(&html),
        ["By domain", "Loss", "Mixture", "Runs and speed", "Config", "Samples", "Method"]
    );
    assert!(
        html.contains("± 0.0100 nats a token after 60 steps (± the standard error over windows)")
    );
    assert!(html.contains("they say nothing of other seeds"));
    assert!(!html.contains("Verdict") && !html.contains("Holm"));
}

#[test]
fn one_seed_an_arm_has_no_interval_over_seeds() {
    let html = report(&compared(Shape { seeds: 1, ..SMALL }));
    assert!(!html.contains("interval of the mean"));
    let several = report(&uncompared(Shape { seeds: 1, ..SMALL }));
    assert!(several.contains("4 runs of 4 arms, not compared"));
}

#[test]
fn a_band_says_the_seeds_that_it_is_of_and_an_arm_of_one_seed_has_none() {
    let mut input = uncompared(Shape { arms: 3, seeds: 3, ..SMALL });
    // Three seeds, two, and one.
    input.runs.retain(|run| run.seed != Some(2) || run.arm == fixture::ARMS[0]);
    input.runs.retain(|run| run.seed == Some(0) || run.arm != fixture::ARMS[2]);
    let html = report(&input);
    let said = "bands: 2 to 3 seeds, 95 % interval of the mean. Arms of one seed have no band.";
    assert!(html.contains(said));
    let marks = &figure(&html, "Held-out loss")["panels"][0]["marks"];
    assert!(marks[0]["low"].is_array() && marks[1]["low"].is_array() && marks[2]["low"].is_null());
    let even = report(&uncompared(Shape { arms: 2, seeds: 3, ..SMALL }));
    assert!(even.contains("bands: 3 seeds, 95 % interval") && !even.contains("have no band"));
}

#[test]
fn runs_without_evaluations_or_without_records_have_a_page() {
    let html = report(&uncompared(Shape { every: 0, ..SMALL }));
    assert!(html.contains("Nothing was evaluated"));
    assert!(!sections(&html).contains(&"By domain"));
    let mut input = uncompared(Shape { arms: 1, seeds: 1, ..SMALL });
    input.runs[0].records.clear();
    let html = report(&input);
    assert_eq!(sections(&html), ["Runs and speed", "Config", "Samples", "Method"]);
    assert!(html.contains("after 0 steps: not evaluated"));
    let mut findings = compared(SMALL);
    findings.runs.clear();
    assert!(sections(&report(&findings)).starts_with(&["Ranking", "Paired differences"]));
    assert_eq!(sections(&report(&ReportInput::default())), ["Method"]);
}

#[test]
fn many_domains_are_chosen_one_by_one_and_stacked_with_a_rest() {
    let html = report(&uncompared(Shape { arms: 1, seeds: 1, domains: 30, ..SMALL }));
    let held_out = figure(&html, "Held-out loss");
    assert_eq!(held_out["panels"].as_array().unwrap().len(), 31);
    assert!(
        held_out["panels"].as_array().unwrap().len()
            > held_out["together"].as_u64().unwrap() as usize
    );
    let stacked = figure(&html, "Sampling weights");
    assert_eq!(stacked["series"].as_array().unwrap().len(), 8);
    assert_eq!(stacked["series"][7], "the other 23");
    // The shares of a step sum to 1, the rest included.
    let marks = stacked["panels"][0]["marks"].as_array().unwrap();
    let sum: f64 = marks.iter().map(|mark| floats(&mark["y"])[3]).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    assert_eq!(figure(&html, "Sampling weights by domain")["panels"].as_array().unwrap().len(), 30);
}

#[test]
fn a_collapse_is_noted_once_an_arm_with_what_helps() {
    let collapse = |step| CollapseRecord {
        step,
        of: LearnedShares::Sampling,
        domain: "wiki <i>".into(),
        share: 0.97,
        effective_domains: 1.2,
        began_with: 3.0,
        hint: "a smaller `step`".into(),
    };
    let mut input = uncompared(Shape { arms: 2, seeds: 3, ..SMALL });
    assert!(!report(&input).contains("collapsed"));
    for (run, step) in [(0, 30), (2, 20)] {
        for record in &mut input.runs[run].records {
            if let Record::Step(record) = record
                && record.step == step
            {
                record.collapse = Some(collapse(step));
            }
        }
    }
    let html = report(&input);
    let said = "uniform: the sampling weights p collapsed onto wiki &lt;i&gt; in 2 of 3 runs, first \
                at step 20, with 97.0 % of it. What helps: a smaller `step`.";
    assert!(html.contains(said) && html.matches("collapsed").count() == 1);
    assert!(sections(&html).contains(&"Notes"));
}

#[test]
fn sixty_long_runs_stay_within_six_megabytes() {
    for domains in [3, 30] {
        let shape = Shape { arms: 10, seeds: 6, domains, steps: 2_000, every: 50 };
        let html = report(&compared(shape));
        assert!(html.len() < 6_000_000, "{domains}: {}", html.len());
        assert!(html.contains("Of 2000 steps every "), "{domains}");
    }
    let alone = Shape { arms: 60, seeds: 1, domains: 30, steps: 2_000, every: 50 };
    let html = report(&uncompared(alone));
    assert!(html.len() < 6_000_000, "{}", html.len());
}

/// A run folder as the trainer leaves it.
fn write_run(folder: &Path, shape: Shape, arm: usize, seed: usize) {
    fs::create_dir_all(folder).unwrap();
    let run = run(shape, arm, seed);
    let mut log = MetricsLog::create(&folder.join("metrics.jsonl")).unwrap();
    for record in &run.records {
        match record {
            Record::Step(step) => log.step(step).unwrap(),
            Record::Eval(eval) => log.eval(eval).unwrap(),
        }
    }
    fs::write(folder.join("config.toml"), &run.config).unwrap();
}

#[test]
fn a_comparisons_folder_is_read_with_its_runs_in_the_order_of_its_arms() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("study");
    let mut findings = fixture::comparison(Shape { arms: 2, ..SMALL });
    for (arm, name) in findings.arms.iter_mut().zip(["zebra", "ant~"]) {
        arm.name = name.into();
    }
    findings.baseline = "zebra".into();
    for (arm, name) in ["zebra", "ant~"].into_iter().enumerate() {
        for seed in [10, 9] {
            write_run(&root.join(name).join(format!("seed-{seed}")), SMALL, arm, seed);
        }
    }
    fs::create_dir_all(root.join("ant~/seed-11")).unwrap();
    fs::write(root.join("comparison.json"), serde_json::to_string(&findings).unwrap()).unwrap();
    fs::write(
        root.join("zebra/seed-9/samples.json"),
        r#"[{"prompt": "Once", "text": "upon a time"}]"#,
    )
    .unwrap();
    let input = read_runs(std::slice::from_ref(&root)).unwrap();
    let order: Vec<(&str, Option<u64>)> =
        input.runs.iter().map(|run| (run.arm.as_str(), run.seed)).collect();
    assert_eq!(
        order,
        [("zebra", Some(9)), ("zebra", Some(10)), ("ant~", Some(9)), ("ant~", Some(10))]
    );
    assert_eq!(
        (input.title.as_str(), input.comparison.as_ref()),
        ("cuvee compare: study", Some(&findings))
    );
    assert_eq!(input.runs[0].generations[0].text, "upon a time");
    assert!(input.notes[0].ends_with("seed-11 has not begun."), "{:?}", input.notes);

    // A run of it again, and another comparison: runs alone, with arms told apart.
    let other = dir.path().join("other");
    write_run(&other.join("zebra/seed-9"), SMALL, 0, 9);
    let paths = [root.join("zebra/seed-9"), root.clone(), other];
    let input = read_runs(&paths).unwrap();
    assert_eq!(input.runs.len(), 5);
    assert_eq!(input.runs.iter().filter(|run| run.arm == "other/zebra").count(), 1);
    let out = dir.path().join("new/folder/report.html");
    write_report(&input, &out).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), report(&input));
}

#[test]
fn a_run_that_was_cut_off_is_read_up_to_its_last_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    write_run(&folder, Shape { arms: 1, ..SMALL }, 0, 3);
    let log = folder.join("metrics.jsonl");
    let text = fs::read(&log).unwrap();
    fs::write(&log, &text[..text.len() - 20]).unwrap();
    let input = read_runs(&[folder]).unwrap();
    let whole = runs(Shape { arms: 1, seeds: 1, ..SMALL })[0].records.len();
    assert_eq!(input.runs[0].records.len(), whole - 1);
    assert_eq!((input.runs[0].label.as_str(), input.runs[0].seed), ("run, seed 3", Some(3)));
    assert!(sections(&report(&input)).contains(&"Loss"));
}

#[test]
fn what_is_no_run_is_refused_with_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let damaged = dir.path().join("damaged");
    write_run(&damaged, SMALL, 0, 0);
    fs::write(damaged.join("metrics.jsonl"), "{}\n").unwrap();
    let broken = dir.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("comparison.json"), "{}").unwrap();
    for (path, said) in [
        (dir.path().join("nowhere"), "found nothing"),
        (empty, "found a folder without metrics.jsonl and comparison.json"),
        (file, "found a file"),
        (damaged, "metrics.jsonl, line 1: expected a step or eval record: missing field"),
        (broken, "comparison.json: expected a comparison's findings: missing field"),
    ] {
        let error = read_runs(&[PathBuf::from(&path)]).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("\nhint: "), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn what_is_damaged_is_left_out_and_said_as_long_as_a_run_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("study");
    for seed in 0..3 {
        write_run(&root.join(format!("va/seed-{seed}")), SMALL, 0, seed);
    }
    fs::write(root.join("comparison.json"), "{}").unwrap();
    fs::write(root.join("va/seed-0/samples.json"), "{}").unwrap();
    fs::create_dir(root.join("va/seed-0/eval")).unwrap();
    fs::write(root.join("va/seed-0/eval/step-00000060.json"), "[").unwrap();
    fs::write(root.join("va/seed-1/metrics.jsonl"), "{\"kind\":\"st\n").unwrap();
    let input = read_runs(std::slice::from_ref(&root)).unwrap();
    let seeds: Vec<_> = input.runs.iter().map(|run| run.seed).collect();
    assert_eq!(seeds, [Some(0), Some(2)]);
    let begins = [
        "study/comparison.json is left out: expected a comparison's findings: missing field",
        "study/va/seed-0/samples.json is left out: expected a list of prompts and texts: ",
        "study/va/seed-0/eval/step-00000060.json is left out: expected the window losses",
        "study/va/seed-1/metrics.jsonl is left out: line 1: expected a step or eval record: ",
    ];
    for (note, begin) in input.notes.iter().zip(begins) {
        assert!(note.starts_with(begin), "{note}");
    }
    assert_eq!(input.notes.len(), begins.len());
    assert!(report(&input).contains("va/seed-1/metrics.jsonl is left out"));
}

#[test]
fn a_page_names_folders_from_the_reported_one_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("study");
    write_run(&root.join("va/seed-3"), SMALL, 0, 3);
    fs::create_dir_all(root.join("va/seed-4")).unwrap();
    for (path, folder) in [(root.clone(), "study/va/seed-3"), (root.join("va/seed-3"), "seed-3")] {
        let input = read_runs(&[path]).unwrap();
        assert_eq!(input.runs[0].folder, Path::new(folder));
        let html = report(&input);
        assert!(html.contains(&format!(">{folder}</td>")));
        assert!(!html.contains(dir.path().to_str().unwrap()));
    }
}

#[test]
fn arms_of_one_name_in_several_folders_stay_arms_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let names = ["e1/runs/a", "e2/runs/a", "e3/runs/a", "e3/runs/b"];
    for name in names {
        write_run(&path(name), SMALL, 0, 3);
    }
    let input = read_runs(&names.map(path)).unwrap();
    let arms: Vec<&str> = input.runs.iter().map(|run| run.arm.as_str()).collect();
    assert_eq!(arms, ["e1/runs/a", "e2/runs/a", "e3/runs/a", "b"]);
    assert_eq!(input.runs[1].label, "e2/runs/a, seed 3");
    // Seeds of one folder are one arm.
    write_run(&path("e4/runs/a/seed-1"), SMALL, 0, 1);
    write_run(&path("e4/runs/a/seed-2"), SMALL, 0, 2);
    let all = ["e1/runs/a", "e4/runs/a/seed-1", "e4/runs/a/seed-2"].map(path);
    let input = read_runs(&all).unwrap();
    let arms: Vec<&str> = input.runs.iter().map(|run| run.arm.as_str()).collect();
    assert_eq!(arms, ["e1/runs/a", "e4/runs/a", "e4/runs/a"]);
}

#[test]
fn a_stack_ends_where_its_arm_ended() {
    let html = report(&ended_early(SMALL));
    let stacked = figure(&html, "Sampling weights");
    let panels = stacked["panels"].as_array().unwrap();
    let last = |panel: &Value| {
        let grid = panel["marks"][0]["x"].as_u64().unwrap() as usize;
        *floats(&stacked["grids"][grid]).last().unwrap()
    };
    assert_eq!(panels.iter().map(last).collect::<Vec<_>>(), [60.0, 60.0, 30.0, 60.0]);
    for panel in panels {
        let areas: Vec<Vec<f64>> =
            panel["marks"].as_array().unwrap().iter().map(|mark| floats(&mark["y"])).collect();
        for at in 0..areas[0].len() {
            let sum: f64 = areas.iter().map(|area| area[at]).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }
    assert!(html.contains("Stopped at step 30."));
}

#[test]
fn an_interval_that_is_not_known_is_not_drawn() {
    let html = report(&ended_early(SMALL));
    let ends = |title: &str| {
        let mark = figure(&html, title)["panels"][0]["marks"][0].clone();
        assert_eq!(mark["kind"], "interval");
        mark["low"].as_array().unwrap().iter().map(Value::is_null).collect::<Vec<_>>()
    };
    // The arm that was stopped has no mean; the one of one seed has a mean alone.
    let unknown = |ends: Vec<bool>| ends.iter().filter(|missing| **missing).count();
    let ranking = ends("Loss of every seed");
    assert_eq!((ranking.len(), unknown(ranking)), (3, 1));
    assert_eq!(ends("Difference to uniform"), [false, true]);
    assert_eq!(ends("Difference to uniform by domain"), [false, false, true]);
    // Where none is known, the mark has no ends at all.
    let alone = report(&uncompared(Shape { seeds: 1, ..SMALL }));
    let mark = figure(&alone, "Loss of every seed")["panels"][0]["marks"][0].clone();
    assert!(mark["low"].is_null() && mark["y"].is_array(), "{mark}");
}

#[test]
fn the_legend_says_how_many_seeds_an_arm_has_and_which_have_no_band() {
    let html = report(&ended_early(SMALL));
    let held_out = figure(&html, "Held-out loss");
    assert_eq!(held_out["seriesNotes"], serde_json::json!(["n = 4", "n = 4", "n = 4", "n = 1"]));
    assert_eq!(held_out["series"][3], FORMULA, "the name itself is that of the arm");
    assert!(html.contains("interval of the mean. Arms of one seed have no band."));
    let one = report(&uncompared(Shape { arms: 1, ..SMALL }));
    assert_eq!(figure(&one, "Held-out loss")["seriesNotes"], serde_json::json!([]));
}

#[test]
fn what_a_strategy_learned_of_the_objective_is_drawn() {
    let shape = Shape { arms: 1, seeds: 1, ..SMALL };
    let mut input = uncompared(shape);
    let plain = report(&input);
    assert!(!figures(&plain).iter().any(|f| f["title"] == "Objective α"), "it is π throughout");
    for record in &mut input.runs[0].records {
        let Record::Step(step) = record else { continue };
        for (at, (_, domain)) in step.domains.0.iter_mut().enumerate() {
            // A common factor is no part of α.
            domain.multiplier = 1.7 * [0.5, 0.3, 0.2][at] / domain.sampling_weight;
            domain.objective_mean = Some([0.6, 0.3, 0.1][at]);
        }
    }
    let html = report(&input);
    for (title, shares) in [("Objective α", [0.5, 0.3, 0.2]), ("Mean objective", [0.6, 0.3, 0.1])]
    {
        let marks = figure(&html, title)["panels"][0]["marks"].clone();
        for (mark, share) in marks.as_array().unwrap().iter().zip(shares) {
            assert!(floats(&mark["y"]).iter().all(|y| (y - share).abs() < 1e-12), "{mark}");
        }
    }
}

#[test]
fn rankings_of_unlike_evaluations_say_so() {
    let shape = Shape { arms: 2, seeds: 2, ..SMALL };
    let html = report(&uncompared(shape));
    assert!(!html.contains("Not like with like"));
    assert!(html.contains("<button type=\"button\">step</button>"));
    let mut input = uncompared(shape);
    let short = &mut input.runs[0];
    short.records.retain(|record| !matches!(record, Record::Eval(eval) if eval.step > 40));
    let html = report(&input);
    assert!(html.contains("Not like with like. The evaluations are of different steps.</p>"));
    assert!(html.contains(">40 to 60</td>"));
    let mut input = uncompared(shape);
    for record in &mut input.runs[3].records {
        match record {
            Record::Step(step) => step.domains.0[0].1.importance = 0.5,
            Record::Eval(eval) => eval.domains.0[0].1.windows = 32,
        }
    }
    assert!(report(&input).contains(
        "like. The means are weighted by different importances. The evaluations are of different text."
    ));
    // As many windows, of other text.
    let mut input = uncompared(shape);
    for (at, run) in input.runs.iter_mut().enumerate() {
        let data = if at == 3 { "b" } else { "a" };
        let domains = [("wiki".to_owned(), (data.to_owned(), vec![0, 1]))].into();
        run.evaluated = Some(EvaluatedText { context: 32, domains });
    }
    assert!(report(&input).contains("like. The evaluations are of different text.</p>"));
}

#[test]
fn runs_of_one_arm_that_differ_in_more_than_seeds_are_noted() {
    let shape = Shape { arms: 1, ..SMALL };
    let mut input = uncompared(shape);
    for (at, run) in input.runs.iter_mut().enumerate() {
        run.config = format!("order_seed = {at}\n{}", run.config);
    }
    assert!(!report(&input).contains("differ in more than their seeds"));
    input.runs[2].config = input.runs[2].config.replace("steps = 60", "steps = 90");
    assert!(report(&input).contains("differ in more than their seeds, in train.steps;"));
}

#[test]
fn a_comparisons_ratios_are_said_in_sentences() {
    let html = report(&compared(SMALL));
    let notes = inside(&html, ">Notes</h2>", "</section>");
    assert!(notes.contains("Signal to noise: 3.20, the spread of the arms"), "{notes}");
    assert!(notes.contains("One per cent more tokens is worth 0.00300 nats"), "{notes}");
}

#[test]
fn a_searchs_page_begins_with_what_was_confirmed_and_shows_what_was_predicted_beside_it() {
    let input = searched("power-log-linear", 3, 24);
    let html = search_report(&input);
    let body = html.split_once("<body>").unwrap().1;
    let lead = inside(body, "<h1>", "</h1>");
    assert!(
        lead.starts_with("Verified: the proposal is better than uniform by +0.0120 ±"),
        "{lead}"
    );
    assert_eq!(
        sections(&html),
        [
            "Predicted and confirmed",
            "Mixture",
            "Mixtures by hand",
            "What the law is worth",
            "Notes"
        ]
    );
    let against = figure(&html, "Predicted against confirmed gain");
    assert_eq!(against["diagonal"], true);
    // The uniform mixture has no gain over itself.
    let marks = against["panels"][0]["marks"].as_array().unwrap();
    assert_eq!(marks.len(), 3);
    for mark in marks {
        let ends = ["low", "high", "yLow", "yHigh"].map(|end| floats(&mark[end])[0]);
        assert!(ends[0] < ends[1] && (ends[3] - ends[2] - 0.01).abs() < 1e-12, "{mark}");
    }
    let told = &input.proposal.as_ref().unwrap().predictions.mixtures;
    let gain = told[0].predicted.unwrap() - told[3].predicted.unwrap();
    assert_eq!(floats(&against["grids"][marks[2]["x"].as_u64().unwrap() as usize]), [gain]);
    let held_out = figure(&html, "Held-out predictions");
    assert_eq!(held_out["panels"].as_array().unwrap().len(), 4);
    let points = held_out["panels"][0]["marks"].as_array().unwrap();
    let count: usize = points.iter().map(|mark| floats(&mark["y"]).len()).sum();
    assert_eq!(count, 24);
    let passes = figure(&html, "Passes in the final run");
    let proposal =
        floats(&passes["grids"][passes["panels"][0]["marks"][3]["x"].as_u64().unwrap() as usize]);
    assert!((proposal[1] - 9.0 * told[3].sampling[1]).abs() < 1e-12);
    assert_eq!(figure(&html, "Parts of the predicted gain")["series"], serde_json::json!(["part"]));
    // Names from data stay text, also beside the sliders.
    for broken in ["<b>a", "<i>&amp;", "<predicted>"] {
        assert!(!html.contains(broken), "{broken}");
    }
    assert_eq!(search_report(&input), html, "the same input gives the same bytes");
}

#[test]
fn what_was_not_confirmed_is_said_to_be_not_verified_and_a_stage_that_is_missing_is_left_out() {
    let whole = searched("log-linear", 3, 24);
    let lead = |input: &SearchInput| {
        let html = search_report(input);
        (inside(&html, "<h1>", "</h1>").to_owned(), sections(&html).len())
    };
    let unconfirmed = SearchInput { result: None, ..whole.clone() };
    assert_eq!(
        lead(&unconfirmed).0,
        "Not verified: a mixture is proposed, and nothing has been confirmed yet."
    );
    assert!(search_report(&unconfirmed).contains("not confirmed"));
    let mut hopeless = SearchInput { fit: None, proposal: None, ..unconfirmed.clone() };
    hopeless.pilot.as_mut().unwrap().hopeless = true;
    assert!(lead(&hopeless).0.starts_with("Not verified: the pilot says to stop. The expected"));
    assert_eq!(lead(&hopeless).1, 1, "notes alone");
    assert_eq!(
        lead(&SearchInput::default()),
        ("Not verified: nothing is proposed yet.".to_owned(), 0)
    );
    let mut worthless = whole;
    worthless.fit.as_mut().unwrap().together.worthless = true;
    assert!(search_report(&worthless).contains("Worthless: it predicts runs"));
}

/// The script's own numbers are compared with these in a browser, by `scripts/check_report.py`.
#[test]
fn sliders_are_there_where_the_page_can_say_what_the_law_says_and_nowhere_else() {
    let law = |html: &str| -> Option<Value> {
        let data = html.split("<script type=\"application/json\" class=\"law\">").nth(1)?;
        serde_json::from_str(data.split("</script>").next()?).ok()
    };
    for (name, shown) in [
        ("power-log-linear", true),
        ("log-linear", true),
        ("linear", true),
        ("power-ridge", true),
        ("exposure", false),
        ("gp", false),
    ] {
        let input = searched(name, 3, 24);
        let html = search_report(&input);
        let data = law(&html);
        assert_eq!(data.is_some(), shown, "{name}");
        assert_eq!(html.contains("What a law with these coefficients predicts"), shown, "{name}");
        let Some(data) = data else { continue };
        let mixtures = data["mixtures"].as_array().unwrap();
        assert_eq!((mixtures.len(), &mixtures[0]["name"]), (4, &"proposal".into()), "{name}");
        let told = &input.proposal.as_ref().unwrap().predictions.mixtures;
        assert_eq!(floats(&mixtures[0]["losses"]), told[3].targets, "{name}");
        assert_eq!(data["tried"].as_array().unwrap().len(), 24, "{name}");
        // A description that does not say all of the law would be shown to be wrong.
        let mut changed = input.clone();
        changed.proposal.as_mut().unwrap().predictions.mixtures[1].targets[2] += 1e-6;
        assert!(law(&search_report(&changed)).is_none(), "{name}");
    }
    // 300 domains do not break it.
    let mut many = SearchInput { fit: None, ..searched("log-linear", 3, 24) };
    let proposal = many.proposal.as_mut().unwrap();
    proposal.domains = (0..300).map(|domain| format!("domain {domain}")).collect();
    for mixture in &mut proposal.predictions.mixtures {
        mixture.sampling = vec![1.0 / 300.0; 300];
        mixture.objective.clone_from(&mixture.sampling);
    }
    let html = search_report(&many);
    assert!(html.len() < 6_000_000, "{}", html.len());
    assert_eq!(figure(&html, "Mixtures")["y"]["names"].as_array().unwrap().len(), 24);
}

#[test]
fn a_searchs_folder_is_read_as_far_as_its_stages_have_been_made() {
    let dir = tempfile::tempdir().unwrap();
    let whole = searched("log-linear", 3, 24);
    let write =
        |name: &str, value: &Value| fs::write(dir.path().join(name), value.to_string()).unwrap();
    assert!(!is_search(dir.path()));
    let declared = serde_json::json!({ "declared": whole.declared, "hash": "00" });
    write("search.json", &declared);
    assert!(is_search(dir.path()));
    let input = read_search(dir.path()).unwrap();
    assert_eq!((&input.declared, &input.pilot, input.runs.len()), (&whole.declared, &None, 0));
    for (name, document) in [
        ("pilot.json", serde_json::to_value(&whole.pilot).unwrap()),
        ("fit.json", serde_json::to_value(&whole.fit).unwrap()),
        ("proposal.json", serde_json::to_value(&whole.proposal).unwrap()),
        ("result.json", serde_json::to_value(&whole.result).unwrap()),
    ] {
        write(name, &document);
    }
    let input = read_search(dir.path()).unwrap();
    assert_eq!((&input.pilot, &input.fit), (&whole.pilot, &whole.fit));
    assert_eq!((&input.proposal, &input.result), (&whole.proposal, &whole.result));
    // What is damaged is left out with a note.
    fs::write(dir.path().join("fit.json"), "{").unwrap();
    fs::write(dir.path().join("swarm.csv"), "not a swarm\n").unwrap();
    let input = read_search(dir.path()).unwrap();
    assert!(input.fit.is_none() && input.notes.len() == 2, "{:?}", input.notes);
    assert!(input.notes[0].starts_with("fit.json is left out: "), "{:?}", input.notes);
    fs::write(dir.path().join("search.json"), "[]").unwrap();
    assert!(read_search(dir.path()).is_err());
}
