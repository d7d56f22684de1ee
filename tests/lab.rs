//! `cuvee lab`: the documents it promises, the files it writes, and what it says to bad input. The
//! studies' own promises are tested in their crate.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde_json::Value;

use crate::common::Place;

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
        assert!(arm["lr"].as_f64().is_some_and(|lr| lr > 0.0), "{arm}");
        assert!(arm.get("curve").is_none(), "curves are for results.json");
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
    assert!(page.contains("<figure") && page.contains("fgls+va"));
    assert!(!page.contains("http:") && !page.contains("https:"));
    let files = std::fs::read_dir(place.path("runs/lab-linear")).unwrap().count();
    assert_eq!(files, 2, "nothing half-written stays");
}

#[test]
fn every_arm_is_given_a_rate_of_its_own_beside_the_shared_one() {
    let place = Place::new();
    let document = place.json(&LINEAR.split(' ').collect::<Vec<_>>());
    let tuned = &document["tuned"];
    let (arms, tried) = (tuned["arms"].as_array().unwrap(), tuned["tried"].as_array().unwrap());
    assert_eq!((tuned["rates"].as_array().unwrap().len(), arms.len(), tried.len()), (7, 4, 4));
    for ((own, tried), shared) in arms.iter().zip(tried).zip(document["arms"].as_array().unwrap()) {
        assert_eq!((&own["name"], &tried["name"]), (&shared["name"], &shared["name"]));
        assert_eq!((&own["lr"], &shared["lr"]), (&tried["lr"], &document["settings"]["lr"]));
        assert!(own["final_error"].as_f64().is_some() && own.get("curve").is_none(), "{own}");
        assert_eq!(tried["errors"].as_array().unwrap().len(), 7);
    }
    let without = [&LINEAR.split(' ').collect::<Vec<_>>()[..], &["--set", "rates=0"]].concat();
    assert!(place.json(&without)["tuned"].is_null());
}

#[test]
fn a_sweep_is_the_study_at_every_ratio_with_its_figure() {
    let place = Place::new();
    let sizes = ["--seeds", "2", "--steps", "40", "--set", "features=4", "--set", "tuning_seeds=2"];
    for study in ["linear", "logistic"] {
        let document = place.json(&[&["lab", study, "--sweep"], &sizes[..]].concat());
        assert_eq!(document["study"], study);
        assert_eq!(document["ratios"], serde_json::json!([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]));
        let points = document["points"].as_array().unwrap();
        for (point, ratio) in points.iter().zip(document["ratios"].as_array().unwrap()) {
            assert_eq!(point["settings"]["c"], serde_json::json!([1.0, ratio]));
            assert_eq!(point["arms"].as_array().unwrap().len(), 4);
            assert_eq!(point["tuned"]["arms"].as_array().unwrap().len(), 4);
            assert!(point["oracle_error"].is_number());
        }
        let page = place.path(&format!("runs/lab-{study}-sweep/index.html"));
        let page = std::fs::read_to_string(page).unwrap();
        assert_eq!(page.matches("<figure").count(), 2);
    }
    let few = ["lab", "linear", "--sweep=1,10", "--domains", "8", "--set", "rates=0"];
    let document = place.json(&[&few[..], &sizes[..]].concat());
    let c = &document["points"][1]["settings"]["c"];
    assert_eq!((c.as_array().unwrap().len(), &c[0], &c[7]), (8, &1.0.into(), &10.0.into()));
}

#[test]
fn one_seed_has_no_interval() {
    let place = Place::new();
    let args = ["lab", "logistic", "--seeds", "1", "--steps", "40", "--set", "tuning_seeds=1"];
    let document = place.json(&args);
    for arms in [&document["arms"], &document["tuned"]["arms"]] {
        for arm in arms.as_array().unwrap() {
            for key in ["/ci95", "/steps_interval", "/difference_from_uniform/ci95"] {
                assert_eq!(arm.pointer(key), Some(&Value::Null), "{key} of {arm}");
            }
        }
    }
    assert!(document["oracle_ci95"].is_null());
    let said = String::from_utf8(place.ok(&args).stderr).unwrap();
    assert!(said.contains('–') && !said.contains("± 0"), "{said}");
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
    let cases: [(&[&str], &str); 15] = [
        (&["lab", "mnist", "--data", "nowhere"], "train-images-idx3-ubyte"),
        (&["lab", "linear", "--c", "1"], "c is [1.0]"),
        (&["lab", "linear", "--steps", "0"], "steps is 0"),
        (&["lab", "logistic", "--sigma", "0.4,7"], "from 0 to 1"),
        (&["lab", "linear", "--set", "gama1=1"], "did you mean `gamma1`"),
        (&["lab", "linear", "--data", "."], "draws its own data"),
        (&["lab", "linear", "--sweep=0.5,2"], "sweep is [0.5, 2.0]"),
        (&["lab", "linear", "--domains", "1"], "expected from 2 to 1000 domains, found 1"),
        (&["lab", "linear", "--sweep", "--set", "c=[1,2]"], "--set c=…: --sweep sets c by itself"),
        (&["lab", "linear", "--sweep=1,2", "--set", "c=[1,2]"], "--sweep sets c by itself"),
        (&["lab", "linear", "--domains", "3", "--set", "c=[1,2,3]"], "--domains sets c by itself"),
        (&["lab", "logistic", "--domains", "2", "--set", "sigma=[0,0.1]"], "--domains sets sigma"),
        (&["lab", "mnist", "--sweep", "--data", "."], "it is for linear and logistic"),
        (&["lab", "mnist", "--domains", "8", "--data", "."], "it is for linear and logistic"),
        (&["lab", "logistic", "--set", "rates=100"], "rates is 100"),
    ];
    for (args, expected) in cases {
        let said = place.fails(2, args);
        assert!(said.contains(expected) && said.contains("hint: "), "{args:?}:\n{said}");
    }
    assert!(!place.path("runs").exists());
}
