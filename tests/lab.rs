//! `cuvee lab`: the documents it promises, the files it writes, and what it says to bad input. The
//! studies' own promises are tested in their crate.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::Place;
use serde_json::Value;

/// Checks the keys that other programs rely on.
#[track_caller]
fn honours_the_contract(document: &Value, study: &str, names: [&str; 4]) {
    assert_eq!(document["study"], study);
    assert!(document["oracle_error"].as_f64().is_some_and(|error| error > 0.0), "{document}");
    let arms = document["arms"].as_array().unwrap();
    assert_eq!(arms.iter().map(|arm| arm["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for arm in arms {
        assert!(arm["final_error"].as_f64().is_some_and(|error| error > 0.0), "{arm}");
        assert!(arm["ci95"].as_f64().is_some_and(|half| half > 0.0), "{arm}");
        let steps =
            arm.get("steps_to_uniform").expect("the key is there, even where the value is null");
        assert!(steps.is_null() || steps.is_u64(), "{arm}");
    }
    assert!(arms[0]["steps_to_uniform"].is_u64(), "uniform reaches its own final error");
}

const LINEAR: &str = "lab linear --seeds 6 --steps 120 --c 1,20 --sigma 3,1 --set features=4 --set instances=2 --set instance_batches=50";

#[test]
fn linear_keeps_the_json_contract_and_writes_its_page() {
    let place = Place::new();
    let document = place.json(&LINEAR.split(' ').collect::<Vec<_>>());
    honours_the_contract(&document, "linear", ["uniform", "fgls", "va", "fgls+va"]);
    assert_eq!(document["settings"]["c"], serde_json::json!([1.0, 20.0]));
    assert!(document["allocation"]["largest_relative_error"].is_number());
    let results = std::fs::read_to_string(place.path("runs/lab-linear/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let curve = &results["arms"][3]["curve"];
    assert_eq!(curve["steps"].as_array().unwrap().len(), curve["error"].as_array().unwrap().len());
    let page = std::fs::read_to_string(place.path("runs/lab-linear/index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("fgls+va") && !page.contains("http"));
}

#[test]
fn the_document_depends_on_the_seed_alone() {
    let place = Place::new();
    let args = ["lab", "logistic", "--seeds", "3", "--steps", "60", "--out", "lab"];
    let first = place.json(&args);
    honours_the_contract(&first, "logistic", ["uniform", "erma", "va", "erma+va"]);
    assert_eq!(first, place.json(&args));
    assert_ne!(first, place.json(&[&args[..], &["--seed", "1"]].concat()));
}

#[test]
fn mnist_keeps_the_json_contract() {
    let Some(data) = cuvee_testkit::shared_data() else {
        eprintln!("skipped: no shared data");
        return;
    };
    let place = Place::new();
    let folder = data.join("mnist");
    let sizes = ["--set=samples=300", "--set=held_out=60", "--set=hidden=8"];
    let args =
        ["lab", "mnist", "--seeds", "2", "--steps", "60", "--data", folder.to_str().unwrap()];
    honours_the_contract(
        &place.json(&[&args[..], &sizes].concat()),
        "mnist",
        ["uniform", "erma", "va", "erma+va"],
    );
}

#[test]
fn bad_input_is_named_with_a_hint_and_nothing_is_written() {
    let place = Place::new();
    let cases: [(&[&str], &str); 6] = [
        (&["lab", "mnist", "--data", "nowhere"], "train-images-idx3-ubyte"),
        (&["lab", "linear", "--c", "1"], "c is [1.0]"),
        (&["lab", "linear", "--steps", "0"], "steps is 0"),
        (&["lab", "logistic", "--sigma", "0.4,7"], "from 0 to 1"),
        (&["lab", "linear", "--set", "gama1=1"], "did you mean `gamma1`"),
        (&["lab", "linear", "--data", "."], "draws its own data"),
    ];
    for (args, expected) in cases {
        let said = place.fails(2, args);
        assert!(said.contains(expected) && said.contains("hint: "), "{args:?}:\n{said}");
    }
    assert!(!place.path("runs").exists());
}
