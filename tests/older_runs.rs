//! A run folder of an older version resumes, to the bit.
//!
//! `golden/run-0.1` holds a run as version 0.1.0 left it after step 12 of 24 (commit a1d9c04): the
//! corpora, the config, the log, and a checkpoint with the state of two adaptive strategies. Beside
//! it stand the records and the hashes of the tensors that the same version went on to. They must
//! never be made anew: a change that breaks them breaks the runs that people have.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Place, metrics};

/// The golden folder, copied to where a test may write.
fn older_run() -> Place {
    let place = Place::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/run-0.1");
    cuvee_testkit::copy_folder(&golden, &place.path(""));
    place
}

/// Resumes the run and compares it with what the older version made of it.
fn goes_on_to_the_same_bits(place: &Place) {
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    let text = fs::read_to_string(place.path("expected_sha256.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    for (file, hash) in &expected {
        let folder = if file.contains('/') { "run" } else { "run/checkpoints/step-00000024" };
        let bytes = fs::read(place.path(folder).join(file)).unwrap();
        assert_eq!(cuvee_testkit::sha256_hex(&bytes), *hash, "{file}");
    }
    let mut records = metrics(&place.path("run"));
    records.iter_mut().for_each(without_later_keys);
    let expected = fs::read_to_string(place.path("expected_metrics.jsonl")).unwrap();
    let expected: Vec<Value> =
        expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records, expected);
}

/// Takes out of a record what depends on the clock, and what the older version did not write.
fn without_later_keys(record: &mut Value) {
    let record = record.as_object_mut().unwrap();
    for key in ["tokens_per_second", "clip_factor", "mean_loss", "mean_loss_standard_error"] {
        record.remove(key);
    }
    let domains = record.get_mut("domains").and_then(Value::as_object_mut).unwrap();
    for domain in domains.values_mut().filter_map(Value::as_object_mut) {
        domain.remove("standard_error");
        // Of a step's record this is none of its keys.
        domain.remove("windows");
    }
}

/// Rewrites the config that the older run keeps, in the run folder and in its checkpoint.
fn edit_kept_config(place: &Place, from: &str, to: &str) {
    let state = place.path("run/checkpoints/step-00000012/state.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    let config = document["config"].as_str().unwrap();
    assert!(config.contains(from), "the older run's config has no {from:?}");
    document["config"] = config.replace(from, to).into();
    fs::write(&state, serde_json::to_vec_pretty(&document).unwrap()).unwrap();
}

#[test]
fn a_run_of_an_older_version_goes_on_to_the_bit() {
    goes_on_to_the_same_bits(&older_run());
}

/// A key that is new since the run began has its default then and now.
#[test]
fn a_key_that_the_older_version_did_not_know_does_not_stop_a_run() {
    let place = older_run();
    for key in ["clip = 1.0\n", "tune_sequences = 32\n", "epsilon = 0.05\n"] {
        edit_kept_config(&place, key, "");
    }
    goes_on_to_the_same_bits(&place);
}

/// The same value in other words: what counts is what a key means.
#[test]
fn a_key_that_is_written_differently_does_not_stop_a_run() {
    let place = older_run();
    let config = fs::read_to_string(place.path("config.toml")).unwrap();
    let rewritten = config
        .replace(r#"sampling = { strategy = "va" }"#, r#"sampling = "va""#)
        .replace("importance = 2.0", "importance = 2")
        .replace("max_epochs = 100", "max_epochs = 100.0")
        .replace("lr = 1e-2", "lr = 0.01\nclip = 1.0\nschedule = \"cosine\"");
    assert_ne!(config, rewritten);
    place.write("config.toml", &rewritten);
    goes_on_to_the_same_bits(&place);
}

/// Of a plan that says less than today's, the card says less; the weights are there all the same.
#[test]
fn an_older_run_is_exported() {
    let place = older_run();
    place.ok(&["export", "run", "out", "-q"]);
    let weights = |folder: &str| fs::read(place.path(folder).join("model.safetensors")).unwrap();
    assert_eq!(weights("out"), weights("run/checkpoints/step-00000012"));
}

/// A licence is said about a corpus and changes no token of it.
#[test]
fn another_licence_does_not_stop_a_run() {
    let place = older_run();
    let config = fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &config.replacen("CC0-1.0", "public domain", 1));
    goes_on_to_the_same_bits(&place);
}

/// What changes the run is still refused, by name.
#[test]
fn a_value_that_differs_is_named() {
    let place = older_run();
    edit_kept_config(&place, "clip = 1.0\n", "clip = 2.0\n");
    let said = place.fails(2, &["train", "config.toml", "--out", "run", "--resume"]);
    assert!(said.contains("train.clip: 2") && said.contains("hint:"), "{said}");
}
