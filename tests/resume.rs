//! Runs that stop and go on: to the bit, and never with another config or other data.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{Place, metrics, of_kind};

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/step-00000010").join(file)).unwrap()
}

/// Everything in a step's record that does not depend on the clock.
fn timeless(run: &Path) -> Vec<serde_json::Value> {
    let mut records = metrics(run);
    records.iter_mut().for_each(|r| {
        r.as_object_mut().unwrap().remove("tokens_per_second");
    });
    records
}

#[test]
fn ten_steps_equal_five_and_resume_and_five_to_the_bit() {
    for sampling in [
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        r#"sampling = { strategy = "schedule", interpolate = "linear", stages = [{ from_step = 0, shares = { prose = 0.9, code = 0.1 } }, { from_step = 10, shares = { prose = 0.1, code = 0.9 } }] }"#,
        "counts = \"multinomial\"\nsampling = \"proportional\"",
    ] {
        let place = Place::new();
        place.edit(r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#, sampling);
        place.ok(&["train", "config.toml", "--out", "whole", "-q"]);
        // The same run, killed after its checkpoint at step 5 and two more steps that were logged but not saved.
        place.ok(&["train", "config.toml", "--out", "halves", "-q"]);
        let halves = place.path("halves");
        fs::remove_dir_all(halves.join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(halves.join("export")).unwrap();
        place.ok(&["train", "config.toml", "--out", "halves", "--resume", "-q"]);
        let whole = place.path("whole");
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(bytes(&whole, file) == bytes(&halves, file), "{file} differs under {sampling}");
        }
        assert_eq!(timeless(&whole), timeless(&halves), "{sampling}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_loses_nothing() {
    let place = Place::new();
    let args = ["train", "config.toml", "-q", "--set", "train.steps=40", "--set", "checkpoint.every=1000"];
    place.ok(&[&args[..], &["--out", "whole"]].concat());
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
        .current_dir(place.path(""))
        .env("CUVEE_CACHE", place.path("cache"))
        .args(args)
        .args(["--out", "stopped"])
        .spawn()
        .unwrap();
    let log = place.path("stopped/metrics.jsonl");
    while fs::read_to_string(&log).map_or(0, |t| t.lines().count()) < 3 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let done = of_kind(&metrics(&place.path("stopped")), "step").len();
    assert!(done < 40, "the run was not interrupted");
    assert!(
        place.path(&format!("stopped/checkpoints/step-{done:08}")).is_dir(),
        "no checkpoint at step {done}"
    );
    place.ok(&[&args[..], &["--out", "stopped", "--resume"]].concat());
    let read = |run: &str| fs::read(place.path(run).join("export/model.safetensors")).unwrap();
    assert!(read("whole") == read("stopped"), "an interruption changed the result");
    assert_eq!(timeless(&place.path("whole")), timeless(&place.path("stopped")));
}

#[test]
fn resume_with_another_config_names_what_changed() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let said =
        place.fails(2, &["train", "config.toml", "--out", "run", "--resume", "--set", "train.lr=0.01"]);
    assert!(said.contains("train.lr: 0.003 → 0.01") && said.contains("hint:"), "{said}");
    // How often to look is nobody's business but the user's.
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "--set", "eval.every=3", "-q"]);
}

#[test]
fn resume_with_other_data_names_the_domain() {
    let place = Place::new();
    place.edit("train = { vocab_size = 400 }", "file = \"tokenizer.json\"");
    place.write("tokenizer.json", &cuvee_testkit::tiny_tokenizer_json());
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    cuvee_testkit::write_texts(&place.path("code.jsonl"), &cuvee_testkit::code_like(2, 310));
    let said = place.fails(1, &["train", "config.toml", "--out", "run", "--resume"]);
    assert!(said.contains("`code`") && said.contains("expected") && said.contains("hint:"), "{said}");
}

#[test]
fn a_run_is_never_overwritten_by_accident() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let said = place.fails(1, &["train", "config.toml", "--out", "run"]);
    assert!(said.contains("holds a run already") && said.contains("hint: --resume"), "{said}");
    let said = place.fails(1, &["train", "config.toml", "--out", "nowhere", "--resume"]);
    assert!(said.contains("nothing to resume") && said.contains("hint:"), "{said}");
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_the_file() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let file = place.path("run/checkpoints/step-00000010/optimizer.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let said = place.fails(1, &["train", "config.toml", "--out", "run", "--resume"]);
    assert!(said.contains("optimizer.safetensors"), "{said}");
}
