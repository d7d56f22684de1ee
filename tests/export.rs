//! What leaves a run: its export in every number type and size, its card, another vocabulary.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;

use serde_json::Value;

use crate::common::{Place, metrics, of_kind};

fn json(place: &Place, file: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap()
}

fn said(place: &Place, args: &[&str]) -> String {
    String::from_utf8(place.ok(args).stderr).unwrap()
}

#[test]
fn a_run_hands_its_model_on_as_asked_and_goes_on_from_what_it_trained() {
    let place = Place::new();
    let half = "export={dtype=\"bf16\",max_shard=\"60kB\"}";
    place.ok(&["train", "config.toml", "--set", half, "--out", "run", "-q"]);
    assert_eq!(json(&place, "run/export/config.json")["torch_dtype"], "bfloat16");
    let index = json(&place, "run/export/model.safetensors.index.json");
    let files = index["weight_map"].as_object().unwrap();
    assert!(files.values().any(|file| file == "model-00002-of-00005.safetensors"), "{index}");
    assert!(!place.path("run/export/model.safetensors").exists());
    // A checkpoint is never rounded, and how a model is handed on may change on the way.
    assert!(place.path("run/checkpoints/step-00000010/model.safetensors").is_file());
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert!(place.path("run/export/model.safetensors").is_file());
    assert!(!place.path("run/export/model-00001-of-00005.safetensors").exists());
    let whole = fs::read(place.path("run/export/model.safetensors")).unwrap();
    let kept = fs::read(place.path("run/checkpoints/step-00000010/model.safetensors")).unwrap();
    assert_eq!(whole, kept);
    // What is read back is what was written.
    let text = |model: &str| {
        let args = ["generate", model, "--prompt", "let x", "--tokens", "4", "--temperature", "0"];
        place.ok(&args).stdout
    };
    let written = place.json(&["export", "run", "half", "--dtype", "bf16", "--max-shard", "60kB"]);
    assert_eq!(written["weights"].as_array().unwrap().len(), 5);
    assert_eq!(written["dtype"], "bf16");
    assert_eq!(written["vanished"], 0);
    place.ok(&["export", "half", "again", "--dtype", "f32"]);
    assert_eq!(text("half"), text("again"));
    // An earlier export is replaced, and nothing else.
    place.ok(&["export", "run/checkpoints/step-00000005", "half"]);
    assert!(place.path("half/model.safetensors").is_file());
    place.write("mine/notes.txt", "mine");
    let refused = place.fails(1, &["export", "run", "mine"]);
    assert!(refused.contains("found `notes.txt`") && refused.contains("hint: "), "{refused}");
    for same in ["half", "half/../half/", "run/../half"] {
        let same = place.fails(2, &["export", "half", same]);
        assert!(same.contains("is the model itself"), "{same}");
    }
    // Another model's files are called alike.
    fs::remove_file(place.path("again/README.md")).unwrap();
    let refused = place.fails(1, &["export", "run", "again"]);
    assert!(refused.contains("found `config.json`"), "{refused}");
    // Whoever makes the card theirs keeps it, and the run its export.
    place.write("run/export/README.md", "mine");
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert_eq!(fs::read_to_string(place.path("run/export/README.md")).unwrap(), "mine");
    assert!(place.path("run/export/model.safetensors").is_file());
    for (flag, value) in [("--dtype", "int8"), ("--max-shard", "many")] {
        let refused = place.fails(2, &["export", "run", "out", flag, value]);
        assert!(refused.contains("expected ") && !place.path("out").exists(), "{refused}");
    }
}

#[test]
fn an_export_has_a_card_of_the_run_and_that_of_a_checkpoint_is_its_own() {
    let place = Place::new();
    place.edit(
        "name = \"code\"\nsource = { path = \"code.jsonl\" }",
        "name = \"code | and: \\\"so\\\"\"\nsource = { path = \"code.jsonl\", license = \"MIT\" }",
    );
    let config = fs::read_to_string(place.path("config.toml")).unwrap();
    let config = config
        .replace("code = 0.25", "\"code | and: \\\"so\\\"\" = 0.25")
        .replace("path = \"prose.jsonl\"", "path = \"prose.jsonl\", license = \"mit\"");
    place.write("config.toml", &config);
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let card = fs::read_to_string(place.path("run/export/README.md")).unwrap();
    let evals = metrics(&place.path("run"));
    let last = of_kind(&evals, "eval").pop().unwrap().clone();
    let loss = last["domains"]["prose"]["loss"].as_f64().unwrap();
    let folder = place.path("").display().to_string();
    for part in [
        "license: \"mit\"",
        "library_name: transformers",
        "name: \"code | and: \\\"so\\\"\"",
        "| code \\| and: \"so\" |",
        &format!("{loss:.3} ±"),
        "After step 10",
        "`fixed`",
        "AutoModelForCausalLM",
    ] {
        assert!(card.contains(part), "{part:?} in:\n{card}");
    }
    assert!(!card.contains(folder.trim_end_matches('/')), "{card}");
    place.ok(&["export", "run/checkpoints/step-00000005", "early", "-q"]);
    let early = fs::read_to_string(place.path("early/README.md")).unwrap();
    assert!(early.contains("After step 5"), "{early}");
    place.ok(&["export", "run/export", "copy", "-q"]);
    assert_eq!(fs::read_to_string(place.path("copy/README.md")).unwrap(), card);
}

#[test]
fn a_model_goes_on_with_another_tokenizer_only_where_that_is_asked_for() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--set", "train.steps=20", "--out", "run", "-q"]);
    let set = |out: &'static str, more: &[&'static str]| {
        let args = ["train", "config.toml", "--set", "train.steps=2", "--set", "data.dir=shards"];
        let model = ["--set", "model={init=\"run/export\"}", "--set", OTHER, "--out", out];
        [&args[..], &model[..], more].concat()
    };
    let output = place.cuvee(&set("plain", &[])).output().unwrap();
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && refused.contains("\"resize\""), "{refused}");
    let resized = set("resized", &["--set", "model.vocabulary=resize"]);
    let text = said(&place, &resized);
    assert!(text.contains("note: vocabulary of 400 rows resized to 380"), "{text}");
    assert!(text.contains("keep the row of the token that is spelled alike"), "{text}");
    // The export is a model of the new tokenizer, whose documents end as they did.
    let config = json(&place, "resized/export/config.json");
    assert_eq!(config["vocab_size"], 380);
    let tokenizer = fs::read(place.path("resized/export/tokenizer.json")).unwrap();
    assert_ne!(tokenizer, fs::read(place.path("run/export/tokenizer.json")).unwrap());
    assert_eq!(json(&place, "resized/export/tokenizer_config.json")["eos_token"], "<|endoftext|>");
    place.ok(&["generate", "resized", "--prompt", "let x", "--tokens", "3"]);
    // Rows of tokens that stay are worth something: better than a model that knows nothing.
    let first = |run: &str| {
        let records = metrics(&place.path(run));
        of_kind(&records, "eval")[0]["domains"]["prose"]["bits_per_byte"].as_f64().unwrap()
    };
    let fresh =
        ["train", "config.toml", "--set", "train.steps=1", "--out", "fresh", "--set", OTHER];
    place.ok(&fresh);
    assert!(first("resized") < first("fresh"), "{} {}", first("resized"), first("fresh"));
    let alone = place.fails(2, &["train", "config.toml", "--set", "model.vocabulary=resize"]);
    assert!(alone.contains("model.vocabulary") && alone.contains("hint: "), "{alone}");
}

/// A vocabulary of another size than that of the small config.
const OTHER: &str = "tokenizer={train={vocab_size=380}}";
