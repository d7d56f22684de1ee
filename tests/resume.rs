//! Runs that stop and go on: to the bit, and never with another config or other data.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;

use crate::common::{Place, SMALL, metrics, of_kind};

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

/// The files of window losses, by name.
fn windows(run: &Path) -> std::collections::BTreeMap<String, String> {
    let entries = fs::read_dir(run.join("eval")).unwrap().map(|entry| entry.unwrap().path());
    let file = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    entries.map(file).collect()
}

/// What a crash leaves beside a checkpoint: an evaluation of a later step, and one of the same
/// step that the checkpoint does not count yet.
#[test]
fn window_losses_are_cut_back_to_the_checkpoint() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let run = place.path("run");
    let whole = windows(&run);
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    assert_eq!(names, ["step-00000000.json", "step-00000005.json", "step-00000010.json"]);
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    fs::write(run.join("eval/step-00000007.json"), "left by a crash").unwrap();
    let later = whole["step-00000010.json"].replace("\"step\":10", "\"step\":11");
    fs::write(run.join("eval/step-00000011.json"), later).unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert_eq!(windows(&run), whole);
    // A run that begins again in the folder, which had stopped before its first checkpoint, begins
    // with none.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    fs::remove_dir_all(run.join("export")).unwrap();
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    fs::write(run.join("eval/step-00000011.json"), "of the run before").unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert_eq!(windows(&run), whole);
}

#[test]
fn ten_steps_equal_five_and_resume_and_five_to_the_bit() {
    // The corpora are prepared once.
    let place = Place::new();
    for (number, sampling) in [
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        r#"sampling = { strategy = "schedule", interpolate = "linear", stages = [{ from_step = 0, shares = { prose = 0.9, code = 0.1 } }, { from_step = 10, shares = { prose = 0.1, code = 0.9 } }] }"#,
        "counts = \"multinomial\"\nsampling = \"proportional\"",
        "sampling = { strategy = \"va\" }\nloss = { strategy = \"erma\", every = 2 }",
        "sampling = { strategy = \"va\", variance = \"ghost\" }\nloss = { strategy = \"fgls\", every = 3 }",
        "sampling = { strategy = \"va\", variance = \"sketch\", every = 2 }",
    ]
    .into_iter()
    .enumerate()
    {
        place.edit(
            r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
            sampling,
        );
        let [whole, halves] = ["whole", "halves"].map(|run| format!("{run}-{number}"));
        place.ok(&["train", "config.toml", "--out", &whole, "-q"]);
        // The same run as a crash after step 5's checkpoint leaves it: later steps are in the log,
        // but no checkpoint is.
        place.ok(&["train", "config.toml", "--out", &halves, "-q"]);
        let (whole, out, halves) = (place.path(&whole), &halves, place.path(&halves));
        fs::remove_dir_all(halves.join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(halves.join("export")).unwrap();
        place.ok(&["train", "config.toml", "--out", out, "--resume", "-q"]);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(bytes(&whole, file) == bytes(&halves, file), "{file} differs under {sampling}");
        }
        assert_eq!(timeless(&whole), timeless(&halves), "{sampling}");
        assert_eq!(windows(&whole), windows(&halves), "{sampling}");
    }
}

/// What each keeps of a parameter is another thing; sampling and loss weights that are learned go
/// on beside it.
#[test]
fn ten_steps_equal_five_and_resume_and_five_under_every_optimizer() {
    let settings = [
        "optimizer = \"muon\"",
        "optimizer = { name = \"muon\", lr = 0.02, embedding_lr = 0.01, vector_lr = 1e-3 }\nweight_decay = { rate = 0.1, cautious = true, schedule = \"linear\" }",
        "optimizer = \"sgd\"",
        "optimizer = { name = \"sgd\", momentum = 0 }\nweight_decay = { rate = 0.1, schedule = \"lr\" }",
        "optimizer = { name = \"adamw\", embedding_lr = 0.01 }\nweight_decay = { rate = 0.1, cautious = true }",
    ];
    let place = Place::new();
    let both = settings.iter().flat_map(|settings| [("fused", settings), ("reference", settings)]);
    for (number, (engine, settings)) in both.enumerate() {
        let learned = "sampling = { strategy = \"va\" }\nloss = { strategy = \"erma\", every = 2 }";
        let config = SMALL
            .replace("lr = 3e-3", &format!("lr = 3e-3\nengine = \"{engine}\"\n{settings}"))
            .replace(
                r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
                learned,
            );
        place.write("config.toml", &config);
        let [whole, halves] = ["whole", "halves"].map(|run| format!("{run}-{number}"));
        place.ok(&["train", "config.toml", "--out", &whole, "-q"]);
        cuvee_testkit::copy_folder(&place.path(&whole), &place.path(&halves));
        let (whole, out, halves) = (place.path(&whole), &halves, place.path(&halves));
        fs::remove_dir_all(halves.join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(halves.join("export")).unwrap();
        place.ok(&["train", "config.toml", "--out", out, "--resume", "-q"]);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(
                bytes(&whole, file) == bytes(&halves, file),
                "{file} differs under {settings} in {engine}"
            );
        }
        assert_eq!(timeless(&whole), timeless(&halves), "{settings} in {engine}");
    }
}

#[test]
fn resume_with_another_optimizer_names_both() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let resume = ["train", "config.toml", "--out", "run", "--resume", "--set"];
    let said = place.fails(2, &[&resume[..], &["train.optimizer=muon"]].concat());
    assert!(said.contains("train.optimizer.name: \"adamw\" → \"muon\""), "{said}");
    assert!(said.contains("hint:"), "{said}");
    // The config that the checkpoint keeps was changed by hand: its state still says whose it is.
    let path = place.path("run/checkpoints/step-00000010/state.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_dir_all(place.path("run/export")).unwrap();
    fs::write(&path, text.replace("name = \\\"adamw\\\"", "name = \\\"muon\\\"")).unwrap();
    let said = place.fails(2, &[&resume[..], &["train.optimizer=muon"]].concat());
    assert!(
        said.contains("expected `adamw`, whose state") && said.contains("found `muon`"),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_loses_nothing() {
    let place = Place::new();
    let args =
        ["train", "config.toml", "-q", "--set", "train.steps=40", "--set", "checkpoint.every=1000"];
    place.ok(&[&args[..], &["--out", "whole"]].concat());
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
        .current_dir(place.path(""))
        .env("CUVEE_CACHE", place.path("cache"))
        .args(args)
        .args(["--out", "stopped"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let log = place.path("stopped/metrics.jsonl");
    while fs::read_to_string(&log).map_or(0, |t| t.lines().count()) < 3 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it could be interrupted"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // A launcher may say it twice, and as another signal.
    for signal in ["-INT", "-TERM"] {
        let args = [signal, &child.id().to_string()];
        assert!(std::process::Command::new("kill").args(args).status().unwrap().success());
    }
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
    assert_eq!(windows(&place.path("whole")), windows(&place.path("stopped")));
}

/// A checkpoint from a machine that computes in something else goes on in that.
#[test]
fn a_run_keeps_its_arithmetic() {
    let place = Place::new();
    let train = ["train", "config.toml", "--out", "run", "--set", "train.precision=\"auto\""];
    place.ok(&train);
    fs::remove_dir_all(place.path("run/checkpoints/step-00000010")).unwrap();
    let path = place.path("run/checkpoints/step-00000005/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let other = if state["precision"] == "f32" { "bf16" } else { "f32" };
    state["precision"] = other.into();
    fs::write(&path, state.to_string()).unwrap();
    let output = place.cuvee(&train).arg("--resume").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("fused engine in {other} ")), "{said}");
    let state = fs::read(place.path("run/checkpoints/step-00000010/state.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&state).unwrap()["precision"], other);
}

#[test]
fn resume_with_another_config_names_what_changed() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let said = place
        .fails(2, &["train", "config.toml", "--out", "run", "--resume", "--set", "train.lr=0.01"]);
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
    assert!(
        said.contains("`code`") && said.contains("expected") && said.contains("hint:"),
        "{said}"
    );
}

#[test]
fn a_run_is_never_overwritten_by_accident() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let said = place.fails(2, &["train", "config.toml", "--out", "run"]);
    assert!(said.contains("holds a run already") && said.contains("hint: --resume"), "{said}");
    let said = place.fails(2, &["train", "config.toml", "--out", "nowhere", "--resume"]);
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

#[test]
fn a_refused_start_leaves_the_folder_free_and_a_refused_resume_leaves_the_run_alone() {
    let place = Place::new();
    place.fails(1, &["train", "config.toml", "--out", "run", "--set", "data.split.valid=0.0"]);
    place.fails(2, &["train", "config.toml", "--out", "run", "--set", "eval.sequences=0"]);
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let before = ["plan.json", "config.toml", "metrics.jsonl"]
        .map(|f| fs::read(place.path("run").join(f)).unwrap());
    cuvee_testkit::write_texts(&place.path("code.jsonl"), &cuvee_testkit::code_like(2, 310));
    place.fails(1, &["train", "config.toml", "--out", "run", "--resume"]);
    let after = ["plan.json", "config.toml", "metrics.jsonl"]
        .map(|f| fs::read(place.path("run").join(f)).unwrap());
    assert!(before == after, "a refused resume changed the run");
}

#[test]
fn a_run_that_has_moved_with_its_data_goes_on() {
    let place = Place::new();
    let project = |name: &str, file: &str| place.path(name).join(file).display().to_string();
    for file in ["prose.jsonl", "code.jsonl", "config.toml"] {
        cuvee_testkit::write_file(
            &place.path("old").join(file),
            &fs::read(place.path(file)).unwrap(),
        );
    }
    place.ok(&["train", &project("old", "config.toml"), "--out", &project("old", "run"), "-q"]);
    fs::rename(place.path("old"), place.path("new")).unwrap();
    fs::remove_dir_all(place.path("new/run/checkpoints/step-00000010")).unwrap();
    place.ok(&[
        "train",
        &project("new", "config.toml"),
        "--out",
        &project("new", "run"),
        "--resume",
        "-q",
    ]);
}

#[test]
fn what_a_crash_left_half_written_is_cleared_away() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let checkpoints = place.path("run/checkpoints");
    fs::create_dir(checkpoints.join(".step-00000011.partial")).unwrap();
    fs::rename(checkpoints.join("step-00000010"), checkpoints.join(".step-00000010.old")).unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    let mut names: Vec<_> = fs::read_dir(&checkpoints)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["step-00000005", "step-00000010"]);
}

#[test]
fn two_processes_never_write_one_run() {
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    let lock = fs::File::create(place.path("run/.lock")).unwrap();
    lock.lock().unwrap();
    let said = place.fails(1, &["train", "config.toml", "--out", "run"]);
    assert!(said.contains("another process is training") && said.contains("hint:"), "{said}");
}

#[test]
fn a_diverging_run_stops_before_it_spoils_its_checkpoints() {
    let place = Place::new();
    let wild = [
        "train",
        "config.toml",
        "--out",
        "run",
        "--set",
        "train.lr=1e20",
        "--set",
        "train.warmup=0",
        "--set",
    ];
    let said =
        place.fails(1, &[&wild[..], &["eval.every=1", "--set", "checkpoint.every=1"]].concat());
    assert!(
        said.contains("step ")
            && said.contains("expected a finite number")
            && said.contains("hint:"),
        "{said}"
    );
    for entry in fs::read_dir(place.path("run/checkpoints")).into_iter().flatten() {
        let path = entry.unwrap().path();
        place.ok(&["inspect", &path.display().to_string()]);
    }
}

/// What a hint of `said` tells people to type after `cuvee`, as a shell reads it.
fn typed(said: &str, begins: &str) -> Vec<String> {
    let line = said.lines().find(|line| line.starts_with("hint:") && line.contains(begins));
    let line = line.unwrap_or_else(|| panic!("no {begins:?} in:\n{said}"));
    let command = line.split_once("cuvee ").unwrap().1;
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("for word in {command}; do printf '%s\\n' \"$word\"; done")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[cfg(unix)]
#[test]
fn a_refused_resume_says_what_to_type_and_that_works() {
    let place = Place::new();
    place.write("my config.toml", SMALL);
    place.ok(&["train", "my config.toml", "--out", "my run", "-q"]);
    let changed = ["my config.toml", "--out", "my run", "--resume", "--set", "train.steps=12"];
    let said = place.fails(2, &[&["train"][..], &changed].concat());
    assert!(said.contains("train.steps: 10 → 12"), "{said}");
    // On with the old run, and a new one from its parameters.
    let on = typed(&said, "to go on with this run");
    assert_eq!(on, ["train", "my run/config.toml", "--resume"]);
    place.ok(&on.iter().map(String::as_str).collect::<Vec<_>>());
    let mut anew = typed(&said, "to begin a new one");
    assert_eq!(anew[..4], ["train", "my config.toml", "--out", "NEW"]);
    assert!(anew.contains(&"train.steps=12".to_owned()), "{anew:?}");
    anew.push("-q".to_owned());
    place.ok(&anew.iter().map(String::as_str).collect::<Vec<_>>());
    let losses = |run: &str| {
        let records = metrics(&place.path(run));
        let evaluations = of_kind(&records, "eval");
        [evaluations[0], evaluations[evaluations.len() - 1]]
            .map(|record| record["domains"]["prose"]["loss"].as_f64().unwrap())
    };
    assert_eq!(losses("NEW")[0], losses("my run")[1], "it begins where the old one ended");
}

#[test]
fn a_checkpoint_that_lost_its_state_is_said_and_nothing_is_begun_anew() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    let before = fs::read(place.path("run/metrics.jsonl")).unwrap();
    fs::remove_file(place.path("run/checkpoints/step-00000010/state.json")).unwrap();
    let said = place.fails(1, &["train", "config.toml", "--out", "run", "--resume"]);
    assert!(said.contains("step-00000010/state.json") && said.contains("hint: "), "{said}");
    assert!(said.contains("found no such file"), "{said}");
    let said = place.fails(1, &["inspect", "run"]);
    assert!(said.contains("step-00000010/state.json"), "{said}");
    // As the hint says, the older one serves once this one is gone.
    fs::remove_dir_all(place.path("run/checkpoints/step-00000010")).unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    // Neither is a run begun anew that has lost all of them.
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    let said = place.fails(2, &["train", "config.toml", "--out", "run", "--resume"]);
    assert!(said.contains("holds no checkpoint") && said.contains("10 steps"), "{said}");
    fs::remove_dir_all(place.path("run/export")).unwrap();
    place.fails(2, &["train", "config.toml", "--out", "run", "--resume"]);
    assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap().len() / 100, before.len() / 100);
}

#[test]
fn a_run_that_stopped_before_its_first_checkpoint_is_begun_again() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    // As a crash in step 4 leaves it, the first checkpoint being due after step 5.
    for folder in ["checkpoints", "export"] {
        fs::remove_dir_all(place.path("run").join(folder)).unwrap();
    }
    let log = place.path("run/metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let early: Vec<&str> = text.lines().take(4).collect();
    fs::write(&log, early.join("\n") + "\n").unwrap();
    place.ok(&["train", "config.toml", "--out", "run", "--resume", "-q"]);
    assert_eq!(of_kind(&metrics(&place.path("run")), "step").len(), 10);
}

/// Strategies that steer by a batch before its step, and the sampling of tasks.
#[test]
fn runs_that_weigh_a_batch_before_its_step_resume_to_the_bit() {
    let place = Place::new();
    let objective = "objective = \"importance\"\nsampling = { strategy = \"fixed\", shares = { prose = 0.75, code = 0.25 } }";
    place.ok(&["train", "config.toml", "--out", "reference", "--seed", "5", "-q"]);
    for mixture in [
        "objective = \"reweighted\"\nsampling = \"uniform\"\nloss = { strategy = \"doge\", mu = 0.001, targets = [\"code\"] }",
        "objective = \"reweighted\"\nsampling = \"va\"\nloss = { strategy = \"excess-dro\", reference = \"reference\" }",
        "sampling = { strategy = \"pike\", every = 3 }",
        "sampling = { strategy = \"pike\", every = 2, form = \"closed\", balance = 3, variance = \"sketch\", measure_every = 1 }",
    ] {
        place.edit(objective, mixture);
        place.ok(&["train", "config.toml", "--out", "whole", "-q"]);
        place.ok(&["train", "config.toml", "--out", "halves", "-q"]);
        let (whole, halves) = (place.path("whole"), place.path("halves"));
        fs::remove_dir_all(halves.join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(halves.join("export")).unwrap();
        place.ok(&["train", "config.toml", "--out", "halves", "--resume", "-q"]);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(bytes(&whole, file) == bytes(&halves, file), "{file} differs under {mixture}");
        }
        assert_eq!(timeless(&whole), timeless(&halves), "{mixture}");
        let records = timeless(&whole);
        let last = of_kind(&records, "step").pop().unwrap();
        let prose = &last["domains"]["prose"];
        let moved = |key: &str, from: f64| (prose[key].as_f64().unwrap() - from).abs() > 1e-6;
        assert!(moved("sampling_weight", 0.5) || moved("loss_weight", 1.0), "{mixture}: {last}");
        assert_eq!(prose["objective_mean"].is_number(), mixture.contains("reweighted"));
        fs::remove_dir_all(whole).unwrap();
        fs::remove_dir_all(halves).unwrap();
    }
}

#[test]
fn a_run_goes_on_with_the_reference_model_it_began_with_wherever_that_lies() {
    let place = Place::new();
    let train = |config: &str, more: &[&str]| {
        let args = ["train", config, "-q", "--set", "train.steps=6"];
        [&args[..], more].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ok = |args: Vec<String>| place.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let fails =
        |args: Vec<String>| place.fails(2, &args.iter().map(String::as_str).collect::<Vec<_>>());
    ok(train("config.toml", &["--out", "one"]));
    ok(train("config.toml", &["--out", "two", "--seed", "2"]));
    ok(train("config.toml", &["--out", "other", "--set", "tokenizer.train.vocab_size=420"]));
    ok(train("config.toml", &["--out", "short", "--set", "train.context=16"]));
    place.edit(
        "objective = \"importance\"",
        "objective = \"reweighted\"\nloss = { strategy = \"excess-dro\", reference = \"one\" }",
    );
    let reference = |path: &str| format!("mixture.loss.reference=\"{path}\"");
    for (bad, expected) in [
        ("nowhere", "nowhere does not exist"),
        ("prose.jsonl", "no model in"),
        ("other", "tokenizer"),
        ("short", "the 32 tokens of train.context"),
    ] {
        let said = fails(train("config.toml", &["--out", "run", "--set", &reference(bad)]));
        assert!(said.contains("mixture.loss.reference"), "{said}");
        assert!(said.contains(expected) && said.contains("\nhint: "), "{said}");
        assert!(!place.path("run/metrics.jsonl").exists());
    }
    ok(train("config.toml", &["--out", "run"]));
    fs::remove_dir_all(place.path("run/checkpoints/step-00000006")).unwrap();
    let resume =
        |path: &str| train("config.toml", &["--out", "run", "--resume", "--set", &reference(path)]);
    let said = fails(resume("two"));
    assert!(said.contains("mixture.loss.reference") && said.contains("another one"), "{said}");
    fs::rename(place.path("one"), place.path("moved")).unwrap();
    ok(resume("moved"));
    assert!(place.path("run/export").exists());
}

/// Of two domains whose losses differ, so large a step leaves one alone almost at once.
#[test]
fn a_collapse_is_warned_of_once_a_run_and_shown_by_its_report() {
    let place = Place::new();
    let objective = "objective = \"importance\"\nsampling = { strategy = \"fixed\", shares = { prose = 0.75, code = 0.25 } }";
    place.edit(
        objective,
        "objective = \"reweighted\"\nsampling = \"uniform\"\nloss = { strategy = \"group-dro\", step = 50 }",
    );
    let train = ["train", "config.toml", "--out", "run", "--json"];
    let output = place.ok(&train);
    let said = String::from_utf8(output.stderr).unwrap();
    let warning = "the objective α collapsed onto `";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(said.contains("warning: step ") && said.contains("\nhint: what helps: "), "{said}");
    let run = place.path("run");
    let records = timeless(&run);
    let collapsed: Vec<_> = records.iter().filter(|record| !record["collapse"].is_null()).collect();
    let [record] = collapsed[..] else { panic!("{collapsed:?}") };
    let found = &record["collapse"];
    assert_eq!((&found["of"], &found["step"]), (&"objective".into(), &record["step"]));
    let domain = found["domain"].as_str().unwrap();
    let share = |domain: &str| {
        let of = &record["domains"][domain];
        of["multiplier"].as_f64().unwrap() * of["sampling_weight"].as_f64().unwrap()
    };
    assert!(
        (found["share"].as_f64().unwrap() - share(domain)).abs() < 1e-12 && share(domain) > 0.95
    );
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(&summary["collapse"], found);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains(&format!("the objective α collapsed onto {domain} in 1 of 1 run")));

    // It was before the checkpoint of step 5, from which the run goes on without a word.
    assert!(found["step"].as_u64().unwrap() <= 5, "{found}");
    fs::remove_dir_all(run.join("checkpoints/step-00000010")).unwrap();
    fs::remove_dir_all(run.join("export")).unwrap();
    let output = place.ok(&[&train[..], &["--resume"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("collapsed"), "{said}");
    assert_eq!(timeless(&run), records);
    let resumed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(resumed["collapse"], *found);

    // Shares that a config fixes are meant.
    place.edit("shares = { prose = 0.75, code = 0.25 }", "shares = { prose = 0.99, code = 0.01 }");
    let fixed = place.ok(&["train", "config.toml", "--out", "fixed"]);
    assert!(!String::from_utf8(fixed.stderr).unwrap().contains("collapsed"));
}
