//! The real binary on real text: the quickstart's sources, which every checkout of Cuvee has, and
//! the shared corpora where they are at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use cuvee_testkit::{shared_data, workspace_root};

use crate::common::Place;

#[test]
fn quickstart_prepares_and_trains_from_cargos_own_sources() {
    let place = Place::new();
    let config = workspace_root().join("configs/quickstart.toml");
    let config = config.to_str().unwrap();
    // The real config on the real sources; only the model and the number of steps are made small,
    // for a debug build.
    let document = place.json(&[
        "train",
        config,
        "--out",
        "run",
        "--set",
        "train.steps=2",
        "--set",
        "model.preset=xs",
        "--set",
        "train.batch_size=2",
        "--set",
        "eval.sequences=2",
    ]);
    let names: Vec<_> =
        document["domains"].as_array().unwrap().iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["rust", "docs", "c"]);
    let plan: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("run/plan.json")).unwrap())
            .unwrap();
    for domain in plan["domains"].as_array().unwrap() {
        assert!(domain["tokens"].as_u64().unwrap() > 100_000, "too little text: {domain}");
    }
    let again = place.json(&["prepare", config]);
    assert!(again["domains"].as_array().unwrap().iter().all(|d| d["reused"] == true), "{again}");
}

#[test]
fn eight_domains_in_four_formats_train_together() {
    let Some(data) = shared_data() else {
        eprintln!("skipped: the shared corpora are not here");
        return;
    };
    let place = Place::new();
    let config =
        std::fs::read_to_string(workspace_root().join("configs/eight-domains.toml")).unwrap();
    assert!(config.contains("../../shared/data"));
    place.write("eight.toml", &config.replace("../../shared/data", data.to_str().unwrap()));
    let document = place.json(&[
        "train",
        "eight.toml",
        "--out",
        "run",
        "--set",
        "train.steps=2",
        "--set",
        "model.preset=xs",
        "--set",
        "train.batch_size=8",
        "--set",
        "eval.sequences=1",
        "--set",
        "train.context=64",
    ]);
    assert_eq!(document["domains"].as_array().unwrap().len(), 8);
    let folder = &place.json(&["prepare", "eight.toml"])["domains"][0]["folder"];
    let manifest =
        std::fs::read_to_string(std::path::Path::new(folder.as_str().unwrap()).join("shard.json"))
            .unwrap();
    assert!(manifest.contains("CC BY-SA 3.0"), "the licence travels with the shard");
}

#[test]
fn a_pretrained_llama_evaluates_and_tells_a_story() {
    let Some(data) = shared_data() else {
        eprintln!("skipped: the shared model is not here");
        return;
    };
    let place = Place::new();
    let model = data.join("models/stories260k");
    let model = model.to_str().unwrap();
    let output = place.ok(&["generate", model, "--prompt", "Once upon a time", "--tokens", "60"]);
    let story = String::from_utf8(output.stdout).unwrap();
    // llama2.c's own greedy continuation by this model.
    assert!(
        story.starts_with(
            "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
        ),
        "{story}"
    );
    place.write("stories.jsonl", &serde_json::json!({ "text": story }).to_string());
    place.write(
        "eval.toml",
        &format!(
            "[tokenizer]\ntrain = {{ vocab_size = 300 }}\n[data]\nsplit = {{ tune = 0.0, valid = 1.0 }}\n\
             [[domain]]\nname = \"story\"\nsource = {{ path = \"stories.jsonl\" }}\n\
             [[domain]]\nname = \"code\"\nsource = {{ path = \"{}\" }}\n",
            data.join("code/code.jsonl.zst").display()
        ),
    );
    let document =
        place.json(&["eval", model, "--data", "eval.toml", "--context", "48", "--sequences", "4"]);
    let loss = |i: usize| document["domains"][i]["loss"].as_f64().unwrap();
    // Its own greedy story costs it little; program code costs more than guessing at random (ln 512
    // = 6.24).
    assert!(loss(0) < 1.5, "{document}");
    assert!(loss(1) > 512f64.ln(), "{document}");
}
