//! `cuvee report`: the page that training leaves, pages of several runs, and what it says to bad
//! input. What stands in a page is tested in its crate.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use crate::common::{Place, SMALL};

#[test]
fn training_leaves_a_report_and_several_runs_share_one() {
    let place = Place::new();
    for (out, seed) in [("study/uniform/seed-1", "1"), ("study/uniform/seed-2", "2"), ("solo", "1")]
    {
        let document = place.json(&["train", "config.toml", "--out", out, "--seed", seed]);
        assert_eq!(document["report"], format!("{out}/report.html"));
    }
    let left = fs::read_to_string(place.path("solo/report.html")).unwrap();
    assert!(left.contains("<h1>solo, seed 1: held-out loss "), "the first line says what came out");
    // The same run, the same page.
    let document = place.json(&["report", "solo"]);
    assert_eq!(document, serde_json::json!({"report": "solo/report.html", "runs": 1}));
    assert_eq!(fs::read_to_string(place.path("solo/report.html")).unwrap(), left);

    let document = place.json(&["report", "study", "solo"]);
    assert_eq!(document, serde_json::json!({"report": "report.html", "runs": 3}));
    let page = fs::read_to_string(place.path("report.html")).unwrap();
    assert!(page.contains("3 runs of 2 arms, not compared"));
    assert!(page.contains("bands: 2 seeds, 95 % interval of the mean"));

    place.ok(&["report", "study", "--out", "deep/er/both.html", "-q"]);
    assert!(place.path("deep/er/both.html").is_file());
    place.ok(&["report", "solo", "--out", "deep", "-q"]);
    assert!(place.path("deep/report.html").is_file());
}

#[test]
fn what_cannot_be_reported_on_is_said_and_nothing_is_overwritten() {
    let place = Place::new();
    for (args, said) in [
        (&["report", "nowhere"][..], "nowhere: expected a run folder (with metrics.jsonl)"),
        (&["report", "config.toml"], "found a file"),
        (&["report", ".", "--out", "config.toml"], "--out config.toml: expected a file that ends"),
    ] {
        let text = place.fails(2, args);
        assert!(text.contains(said) && text.contains("\nhint: "), "{text}");
    }
    assert_eq!(fs::read_to_string(place.path("config.toml")).unwrap(), SMALL);
    fs::create_dir(place.path("broken")).unwrap();
    fs::write(place.path("broken/metrics.jsonl"), "{\"kind\": \"step\"}\n").unwrap();
    let text = place.fails(1, &["report", "broken"]);
    assert!(text.contains("metrics.jsonl, line 1: expected a step or eval record"), "{text}");
    assert!(!place.path("broken/report.html").exists());
}
