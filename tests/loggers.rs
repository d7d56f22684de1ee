//! What a run tells other people's programs: TensorBoard's event files and Trackio's inbox.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Place, metrics};

/// The files in a folder and in those within it, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}

/// The numbers of a run's event files, by name and step; each stands there once.
fn curves(run: &Path) -> BTreeMap<(String, u64), f32> {
    let mut curves = BTreeMap::new();
    for file in files(&run.join("tensorboard")) {
        assert!(file.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
        let bytes = fs::read(&file).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(*rest.first_chunk().unwrap()) as usize;
            let event = fields(&rest[12..12 + length]);
            rest = &rest[length + 16..];
            let step = event.iter().find(|f| f.number == 2).map_or(0, |f| f.integer);
            let summaries = event.iter().filter(|f| f.number == 5);
            for value in summaries.flat_map(|summary| fields(summary.bytes)) {
                let value = fields(value.bytes);
                let tag = String::from_utf8(value[0].bytes.to_vec()).unwrap();
                if let Some(number) = value.iter().find(|f| f.number == 2) {
                    let number = f32::from_le_bytes(number.bytes.try_into().unwrap());
                    let twice = curves.insert((tag.clone(), step), number);
                    assert_eq!(twice, None, "{tag} at step {step} stands there twice");
                }
            }
        }
    }
    curves
}

struct Field<'a> {
    number: u64,
    integer: u64,
    bytes: &'a [u8],
}

/// The fields of a protocol buffer.
fn fields(mut message: &[u8]) -> Vec<Field<'_>> {
    fn integer(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for place in 0.. {
            let byte = *message.split_off_first().unwrap();
            value |= u64::from(byte & 127) << (7 * place);
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = integer(&mut message);
        let (integer, length) = match key & 7 {
            0 => (integer(&mut message), 0),
            1 => (0, 8),
            2 => (0, integer(&mut message) as usize),
            5 => (0, 4),
            other => panic!("a field of kind {other}"),
        };
        fields.push(Field {
            number: key >> 3,
            integer,
            bytes: message.split_off(..length).unwrap(),
        });
    }
    fields
}

/// The numbers of a run's metrics log that other programs are told, by name and step.
fn expected(run: &Path) -> BTreeMap<(String, u64), f32> {
    let mut expected = BTreeMap::new();
    for record in metrics(run) {
        let step = record["step"].as_u64().unwrap();
        let mut add = |from: &Value, prefix: &str, keys: &[&str]| {
            for key in keys {
                if let Some(number) = from[key].as_f64() {
                    expected.insert((format!("{prefix}/{key}"), step), number as f32);
                }
            }
        };
        let split = record["split"].as_str();
        let prefix = split.map_or("domain".to_owned(), |split| format!("eval/{split}"));
        match split {
            Some(_) => add(&record, &prefix, &["mean_loss"]),
            None => {
                let keys = ["loss", "lr", "gradient_norm", "clip_factor", "tokens_per_second"];
                add(&record, "train", &keys);
                add(&record, "train", &["headroom"]);
            }
        }
        for (name, domain) in record["domains"].as_object().unwrap() {
            let keys: &[&str] = match split {
                Some(_) => &["loss", "bits_per_byte", "perplexity"],
                None => &[
                    "loss",
                    "sampling_weight",
                    "loss_weight",
                    "loss_weight_error",
                    "multiplier",
                    "epochs",
                    "gradient_deviation",
                ],
            };
            add(domain, &format!("{prefix}/{name}"), keys);
        }
    }
    expected
}

/// The lines that a run has put into Trackio's inbox.
fn lines(trackio: &Path) -> Vec<Value> {
    let fragments = files(&trackio.join("inbox"));
    let text: String = fragments.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn event_files_hold_the_metrics_log_also_of_a_run_that_was_resumed() {
    let place = Place::new();
    place.edit(
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        "sampling = \"va\"\nloss = { strategy = \"erma\", every = 2 }",
    );
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let run = place.path("run");
    let whole = curves(&run);
    assert_eq!(whole, expected(&run));
    let names: BTreeSet<&str> = whole.keys().map(|(name, _)| name.as_str()).collect();
    for name in ["train/loss", "domain/code/gradient_deviation", "eval/tune/prose/loss"] {
        assert!(names.contains(name), "{names:?}");
    }
    // As a crash after the last step leaves it.
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert_eq!(files(&run.join("tensorboard")).len(), 2);
    let resumed = curves(&run);
    assert_eq!(resumed, expected(&run));
    assert!(resumed.keys().eq(whole.keys()));
}

#[test]
fn loggers_are_chosen_by_config_and_may_change_when_a_run_goes_on() {
    let place = Place::new();
    let train = |more: &[&str]| {
        place.ok(&[&["train", "config.toml", "--out", "run", "-q"], more].concat());
    };
    train(&["--set", "log.tensorboard=false"]);
    let run = place.path("run");
    assert!(!run.join("tensorboard").exists() && !run.join("trackio.json").exists());
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    train(&["--resume", "--set", "log.trackio=blends", "--set", "log.trackio_dir=told"]);
    let steps: BTreeSet<u64> = curves(&run).into_keys().map(|(_, step)| step).collect();
    assert!(steps.into_iter().eq(6..=10));
    // Five steps and the evaluation after them; the config's folder is where paths start.
    assert_eq!(lines(&place.path("told")).len(), 6);
}

#[test]
fn trackios_inbox_has_each_step_under_one_identity_and_the_runs_config() {
    let place = Place::new();
    let train = |more: &[&str]| {
        let arguments =
            ["train", "config.toml", "--out", "run", "-q", "--set", "log.trackio=blends"];
        let mut command = place.cuvee(&[&arguments, more].concat());
        command.env("TRACKIO_DIR", place.path("trackio")).assert().success();
    };
    train(&[]);
    let run = place.path("run");
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    train(&["--resume"]);
    let lines = lines(&place.path("trackio"));
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["log_id"].as_str().unwrap()).collect();
    // Ten steps and three evaluations; five steps and the last evaluation were told again.
    assert_eq!((ids.len(), lines.len()), (13, 19));
    for line in &lines {
        assert_eq!((&line["project"], &line["run"]), (&"blends".into(), &"run".into()));
        assert_eq!(line["run_id"], lines[0]["run_id"]);
    }
    let configs: Vec<&Value> =
        lines.iter().map(|line| &line["config"]).filter(|config| !config.is_null()).collect();
    assert_eq!(configs.len(), 2);
    for config in configs {
        assert_eq!((&config["seed"], &config["train"]["steps"]), (&1.into(), &10.into()));
    }
    // What the metrics log says now stands there too.
    let told: BTreeMap<(String, u64), f32> = lines
        .iter()
        .rev()
        .flat_map(|line| {
            let numbers = line["metrics"].as_object().unwrap();
            let step = line["step"].as_u64().unwrap();
            numbers.iter().map(move |(name, n)| ((name.clone(), step), n.as_f64().unwrap() as f32))
        })
        .collect();
    let mut expected = expected(&run);
    expected.retain(|(name, _), _| name != "train/tokens_per_second");
    assert!(expected.iter().all(|(key, number)| told.get(key) == Some(number)));
}

#[test]
fn a_run_goes_on_where_trackios_folder_cannot_be_written() {
    let place = Place::new();
    place.write("told", "a file");
    let told = ["--set", "log.trackio=blends", "--set", "log.trackio_dir=told"];
    let output = place.ok(&[&["train", "config.toml", "--out", "run"][..], &told].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    let warning = "warning: Trackio is told nothing for now, training goes on: cannot create ";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert_eq!(metrics(&place.path("run")).last().unwrap()["step"], 10);
}

#[test]
fn what_the_section_cannot_say_is_refused_before_anything_is_written() {
    let place = Place::new();
    for (set, said) in [
        ("log.tensorbord=true", "did you mean `tensorboard`?"),
        ("log.trackio=true", "found true, which names none"),
        ("log.trackio=\"\"", "no letter and no digit"),
    ] {
        let text = place.fails(2, &["train", "config.toml", "--out", "run", "--set", set]);
        assert!(text.contains(said) && text.contains("\nhint: "), "{text}");
        assert!(!place.path("run").exists());
    }
}
