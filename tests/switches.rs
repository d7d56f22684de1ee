//! Switches of training, through the binary: they change what they say and nothing else, and resume
//! to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{Place, metrics, of_kind};

const SWITCHES: [&str; 3] =
    ["train.z_loss=1e-3", "train.document_mask=true", "train.order=documents"];

const EMA: &str = r#"average={ kind = "ema", decay = 0.8, raw = true }"#;
const LAST: &str = r#"average={ kind = "last", snapshots = 2, every = 5, raw = true }"#;

fn train(place: &Place, run: &str, set: &[&str], more: &[&str]) -> std::path::PathBuf {
    let set = set.iter().flat_map(|set| ["--set", set]);
    let args = ["train", "config.toml", "--out", run, "-q"].into_iter().chain(set);
    place.ok(&args.chain(more.iter().copied()).collect::<Vec<_>>());
    place.path(run)
}

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join("checkpoints/step-00000010").join(file)).unwrap()
}

/// The steps' records without what the clock says.
fn timeless(run: &Path) -> Vec<Value> {
    let mut records = metrics(run);
    records.iter_mut().for_each(|r| {
        r.as_object_mut().unwrap().remove("tokens_per_second");
    });
    records
}

fn numbers(file: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, Vec<f32>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let data = tensor.data().as_chunks::<4>().0;
            (name.to_owned(), data.iter().map(|x| f32::from_le_bytes(*x)).collect())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn ten_steps_equal_five_and_resume_and_five_under_every_switch() {
    for average in [EMA, LAST] {
        let place = Place::new();
        let set = [&SWITCHES[..], &[average]].concat();
        let whole = train(&place, "whole", &set, &[]);
        let halves = train(&place, "halves", &set, &[]);
        fs::remove_dir_all(halves.join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(halves.join("export")).unwrap();
        train(&place, "halves", &set, &["--resume"]);
        for file in ["model.safetensors", "optimizer.safetensors", "average.safetensors"] {
            assert!(bytes(&whole, file) == bytes(&halves, file), "{file} under {average}");
        }
        let export = |run: &Path| fs::read(run.join("export/model.safetensors")).unwrap();
        assert!(export(&whole) == export(&halves), "{average}");
        assert!(export(&whole) == bytes(&whole, "average.safetensors"), "{average}");
        assert_eq!(timeless(&whole), timeless(&halves), "{average}");
        // A finished run that is resumed exports the same again.
        fs::remove_dir_all(halves.join("export")).unwrap();
        train(&place, "halves", &set, &["--resume"]);
        assert!(export(&whole) == export(&halves), "{average}");
    }
}

#[test]
fn an_average_leaves_training_alone_and_is_what_is_evaluated() {
    let place = Place::new();
    let plain = train(&place, "plain", &[], &[]);
    for (run, average) in [("ema", EMA), ("last", LAST)] {
        let averaged = train(&place, run, &[average], &[]);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(bytes(&plain, file) == bytes(&averaged, file), "{file} under {average}");
        }
        let (records, before) = (timeless(&averaged), timeless(&plain));
        assert_eq!(of_kind(&records, "step"), of_kind(&before, "step"));
        // The weights' own evaluations are those of the run without an average.
        let of = |records: &[Value], split: &str| -> Vec<(u64, f64)> {
            let own = records.iter().filter(|r| r["split"] == split);
            own.map(|r| (r["step"].as_u64().unwrap(), r["mean_loss"].as_f64().unwrap())).collect()
        };
        assert_eq!(of(&records, "valid-raw"), of(&before, "valid")[1..]);
        let valid = of(&records, "valid");
        assert_eq!(valid.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 5, 10]);
        assert_eq!(valid[0], of(&before, "valid")[0]);
        assert_ne!(valid[2], of(&before, "valid")[2]);
        // The export is what was evaluated last, and the checkpoint has the weights.
        let export = averaged.join("export").display().to_string();
        let loss = |folder: &str| place.json(&["eval", folder, "-q"])["mean_loss"].as_f64();
        assert_eq!(loss(&export), Some(valid[2].1), "{average}");
        let checkpoint = averaged.join("checkpoints/step-00000010").display().to_string();
        assert_eq!(loss(&checkpoint), Some(of(&before, "valid")[2].1), "{average}");
        // Written again it is the same model; the checkpoint alone is not one to be handed on.
        place.ok(&["export", run, "again", "-q"]);
        let again = fs::read(place.path("again/model.safetensors")).unwrap();
        assert_eq!(again, fs::read(averaged.join("export/model.safetensors")).unwrap());
        let refused = place.fails(1, &["push", &checkpoint, "me/x", "--plan"]);
        assert!(refused.contains("hint: `cuvee export "), "{refused}");
    }
    // Of two snapshots it is their mean.
    let weights =
        |step: &str| numbers(&plain.join("checkpoints").join(step).join("model.safetensors"));
    let (five, ten) = (weights("step-00000005"), weights("step-00000010"));
    let found = numbers(&place.path("last/export/model.safetensors"));
    for ((five, ten), found) in five.iter().zip(&ten).zip(&found) {
        assert_eq!((&five.0, &ten.0), (&found.0, &found.0));
        for ((a, b), mean) in five.1.iter().zip(&ten.1).zip(&found.1) {
            let expected = (f64::from(*a) + f64::from(*b)) / 2.0;
            let size = f64::from(a.abs().max(b.abs()));
            // Three roundings.
            assert!((f64::from(*mean) - expected).abs() <= 3.0 / 16_777_216.0 * size, "{}", five.0);
        }
    }
}

#[test]
fn each_switch_changes_the_run_and_says_so_in_the_plan() {
    let place = Place::new();
    let plain = train(&place, "plain", &[], &[]);
    for (number, switch) in SWITCHES.iter().enumerate() {
        let run = train(&place, &format!("run-{number}"), &[*switch], &[]);
        assert!(bytes(&run, "model.safetensors") != bytes(&plain, "model.safetensors"), "{switch}");
        let records = metrics(&run);
        for step in of_kind(&records, "step") {
            assert_eq!(step.get("z_loss").is_some(), number == 0, "{switch}: {step}");
        }
    }
    let output = place.cuvee(&["train", "config.toml", "--out", "said"]);
    let mut output = output;
    for set in SWITCHES.iter().chain(&[EMA]) {
        output.args(["--set", set]);
    }
    let output = output.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    for words in ["own document alone", "another order each epoch", "forgets half in 3 steps"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn switches_that_cannot_work_are_refused_before_anything_is_written() {
    let place = Place::new();
    for (set, key, hint) in [
        ("train.z_loss=-1e-4", "train.z_loss: expected 0", "hint: "),
        ("train.z_loss=nan", "train.z_loss: expected 0", "hint: "),
        ("train.order=document", "train.order", "did you mean `documents`?"),
        ("average.kind=emma", "average.kind", "did you mean `ema`?"),
        (r#"average={ kind = "ema", decay = 1.0 }"#, "average.decay: expected", "hint: "),
        (r#"average={ kind = "ema", decay = 0 }"#, "average.decay: expected", "hint: "),
        (
            r#"average={ kind = "last", snapshots = 11 }"#,
            "average.snapshots: expected 2 to 10",
            "hint: ",
        ),
        (r#"average={ kind = "last", checkpoints = 3 }"#, "average", "hint: "),
        (r#"average={ kind = "ema", every = 3 }"#, "average.every: expected no such key", "hint: "),
    ] {
        let said = {
            let output = place.cuvee(&["train", "config.toml", "--out", "run", "--set", set]);
            let mut output = output;
            let output = output.output().unwrap();
            assert!(!output.status.success(), "{set}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(said.contains(key) && said.contains(hint), "{set}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(!place.path("run/metrics.jsonl").exists(), "{set}");
    }
    // What a run was begun with it goes on with.
    train(&place, "run", &[], &[]);
    for set in SWITCHES.iter().chain(&[EMA]) {
        let args = ["train", "config.toml", "--out", "run", "--resume", "--set", set];
        let said = place.fails(2, &args);
        assert!(said.contains("changed since"), "{set}: {said}");
    }
}
