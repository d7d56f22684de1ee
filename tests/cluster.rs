//! One run on several ranks, under mpirun: what is promised in docs/cluster.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{self, Place, metrics, of_kind};

/// Whether there is an mpirun; says so where there is none.
fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: no mpirun (Debian: openmpi-bin)");
    }
    found
}

/// mpirun with whatever lets a test use it in a container, in the place's folder.
fn mpirun(place: &Place) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"])
        .current_dir(place.path("."))
        .env("CUVEE_CACHE", place.path("cache"))
        .env("RAYON_NUM_THREADS", "1");
    command
}

/// The program on so many ranks.
fn on_ranks(place: &Place, ranks: usize, args: &[&str]) -> Command {
    let mut command = mpirun(place);
    command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_cuvee")]).args(args);
    command
}

#[track_caller]
fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "failed with {:?}:\n{said}", output.status.code());
    said
}

#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The steps of a run.
fn steps(run: &Path) -> Vec<Value> {
    of_kind(&metrics(run), "step").into_iter().cloned().collect()
}

/// That the steps of two runs drew the same sequences, and lost the same within 1e-5.
#[track_caller]
fn are_the_same(found: &Path, expected: &Path) {
    let (found, expected) = (steps(found), steps(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let number = |step: &Value, key: &str| step[key].as_f64().unwrap();
        let off = (number(found, "loss") - number(expected, "loss")).abs();
        assert!(off <= 1e-5, "{off} at {expected}");
        for (name, domain) in expected["domains"].as_object().unwrap() {
            assert_eq!(found["domains"][name]["sequences"], domain["sequences"], "{expected}");
            assert_eq!(found["domains"][name]["epochs"], domain["epochs"], "{expected}");
        }
    }
}

fn model(run: &Path) -> Vec<u8> {
    fs::read(run.join("export/model.safetensors")).unwrap()
}

#[test]
fn two_and_four_ranks_train_what_one_process_trains_to_the_bit_each_time() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    for (number, sampling) in [
        r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
        "sampling = { strategy = \"va\" }\nloss = { strategy = \"erma\", every = 2 }",
    ]
    .into_iter()
    .enumerate()
    {
        place.edit(
            r#"sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }"#,
            sampling,
        );
        let train = ["train", "config.toml", "--out"];
        let alone = format!("alone-{number}");
        place.ok(&[&train[..], &[&alone]].concat());
        for ranks in [2, 4] {
            let [first, second] = ["first", "second"].map(|run| format!("{run}-{ranks}-{number}"));
            for run in [&first, &second] {
                let said = done(
                    &on_ranks(&place, ranks, &[&train[..], &[run]].concat()).output().unwrap(),
                );
                assert!(said.contains(&format!("on {ranks} ranks")), "{said}");
                assert_eq!(said.matches("Training").count(), 1, "one rank speaks: {said}");
            }
            let [first, second] = [&first, &second].map(|run| place.path(run));
            are_the_same(&first, &place.path(&alone));
            assert!(model(&first) == model(&second), "{ranks} ranks, {sampling}");
        }
    }
}

#[test]
fn a_checkpoint_of_two_ranks_goes_on_on_one_and_on_four() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    // Each rank holds a part of the optimizer's state, which the checkpoint holds whole.
    place.edit("lr = 3e-3", "lr = 3e-3\nshard_optimizer = true");
    let train = ["train", "config.toml", "--out", "whole", "-q"];
    done(&on_ranks(&place, 2, &train).output().unwrap());
    let whole = place.path("whole");
    for ranks in [1, 2, 4] {
        let out = format!("on-{ranks}");
        cuvee_testkit::copy_folder(&whole, &place.path(&out));
        fs::remove_dir_all(place.path(&out).join("checkpoints/step-00000010")).unwrap();
        fs::remove_dir_all(place.path(&out).join("export")).unwrap();
        let resume = ["train", "config.toml", "--out", &out, "--resume", "-q"];
        let whole_state = [&resume[..], &["--set", "train.shard_optimizer=false"]].concat();
        match ranks {
            1 => drop(place.ok(&resume)),
            2 => drop(done(&on_ranks(&place, 2, &resume).output().unwrap())),
            ranks => drop(done(&on_ranks(&place, ranks, &whole_state).output().unwrap())),
        }
        are_the_same(&place.path(&out), &whole);
        let optimizer = "checkpoints/step-00000010/optimizer.safetensors";
        let bytes = |run: &Path| fs::read(run.join(optimizer)).unwrap();
        match ranks {
            2 => assert!(bytes(&place.path(&out)) == bytes(&whole)),
            _ => assert_eq!(bytes(&place.path(&out)).len(), bytes(&whole).len()),
        }
    }
}

#[test]
fn ranks_prepare_together_what_one_process_prepares() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let prepared = |out: &str| {
        let files = |domain: &str| {
            let folder = place.path(out).join(domain);
            ["train.bin", "valid.bin"].map(|file| fs::read(folder.join(file)).unwrap())
        };
        ["prose", "code"].map(files)
    };
    place.ok(&["prepare", "config.toml", "--out", "alone", "-q"]);
    done(&on_ranks(&place, 3, &["prepare", "config.toml", "--out", "shared"]).output().unwrap());
    assert!(prepared("alone") == prepared("shared"));
}

/// Two ranks that train by a config of this name, the second as `second` starts it.
fn unlike(place: &Place, config: &str, second: impl FnOnce(&mut Command)) -> Output {
    let mut command = mpirun(place);
    let train = ["train", config, "--out", "run"];
    command.args(["-n", "1", env!("CARGO_BIN_EXE_cuvee")]).args(train).args([":", "-n", "1"]);
    second(&mut command);
    command.output().unwrap()
}

#[test]
fn a_rank_with_another_program_or_config_is_refused_by_name() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_cuvee");
    let train = ["train", "config.toml", "--out", "run"];
    let other_rate = |second: &mut Command| {
        second.arg(program).args(train).args(["--set", "train.lr=4e-3"]);
    };
    let said = refused(&unlike(&place, "config.toml", other_rate), 2);
    let told = "rank 1 has another config than rank 0: expected `lr = 0.003`, found `lr = 0.004`";
    assert!(said.contains(told) && said.contains("hint: "), "{said}");
    assert_eq!(said.matches("another config").count(), 1, "said once: {said}");

    let other = place.path("other-cuvee");
    fs::copy(program, &other).unwrap();
    let mut bytes = fs::OpenOptions::new().append(true).open(&other).unwrap();
    std::io::Write::write_all(&mut bytes, b"another build").unwrap();
    drop(bytes);
    let other_program = |second: &mut Command| {
        second.arg(&other).args(train);
    };
    let said = refused(&unlike(&place, "config.toml", other_program), 2);
    assert!(said.contains("rank 1 has another program than rank 0"), "{said}");
    assert!(!place.path("run").exists());
}

/// What two ranks say of which each finds other files under one path, as on machines with disks of
/// their own. `here` and `there` have prepared theirs.
fn on_disks_of_their_own(here: &Place, there: &Place, config: &str) -> String {
    here.write("shared.toml", config);
    let config = here.path("shared.toml");
    let config = config.to_str().unwrap();
    for place in [here, there] {
        place.ok(&["prepare", config, "-q"]);
    }
    let output = unlike(here, config, |second| {
        let (folder, cache) = (there.path("."), there.path("cache"));
        let cache = format!("CUVEE_CACHE={}", cache.display());
        second.args(["-wdir", folder.to_str().unwrap(), "-x", &cache]);
        second.args([env!("CARGO_BIN_EXE_cuvee"), "train", config, "--out", "run"]);
    });
    assert!(!here.path("run/metrics.jsonl").exists());
    refused(&output, 2)
}

#[test]
fn a_rank_with_other_data_or_weights_is_refused_by_name() {
    if !has_mpirun() {
        return;
    }
    let (here, there) = (Place::new(), Place::new());
    for (place, seed) in [(&here, "1"), (&there, "2")] {
        place.ok(&["train", "config.toml", "--out", "init", "-q", "--seed", seed]);
    }
    let here_and_there = |text: &str| text.replace("path = \"", "path = \"/proc/self/cwd/");
    let init = "init = \"/proc/self/cwd/init/export\"";
    let config = here_and_there(common::SMALL).replace("preset = \"xs\"", init);
    let said = on_disks_of_their_own(&here, &there, &config);
    assert!(said.contains("rank 1 has another hash of the weights than rank 0"), "{said}");

    cuvee_testkit::write_texts(&there.path("code.jsonl"), &cuvee_testkit::code_like(3, 300));
    let said = on_disks_of_their_own(&here, &there, &here_and_there(common::SMALL));
    assert!(said.contains("rank 1 has another data than rank 0"), "{said}");
}

#[test]
fn a_command_that_is_one_process_refuses_to_be_several_and_runs_as_a_world_of_one() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let inspect = ["inspect", "strategies"];
    let said = refused(&on_ranks(&place, 2, &inspect).output().unwrap(), 2);
    assert!(said.contains("`cuvee inspect` runs in one process, found 2 ranks"), "{said}");
    done(&on_ranks(&place, 1, &inspect).output().unwrap());
    let train = ["train", "config.toml", "--out", "run", "-q"];
    done(&on_ranks(&place, 1, &train).output().unwrap());
}

/// A long run on two ranks with a checkpoint every 5 steps, once the first is there.
fn long_run(place: &Place) -> Child {
    place.edit("steps = 10", "steps = 100000");
    let mut command = on_ranks(place, 2, &["train", "config.toml", "--out", "run"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| newest(place) >= 5);
    child
}

fn wait_for(mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The step of the newest checkpoint; 0 without one.
fn newest(place: &Place) -> u64 {
    let Ok(folders) = fs::read_dir(place.path("run/checkpoints")) else { return 0 };
    let step = |name: String| name.strip_prefix("step-")?.parse().ok();
    let names = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(step).max().unwrap_or(0)
}

/// The process of the last rank: mpirun's youngest child.
fn last_rank(mpirun: &Child) -> String {
    let of = Command::new("pgrep").args(["-n", "-P", &mpirun.id().to_string()]).output().unwrap();
    let pid = String::from_utf8(of.stdout).unwrap().trim().to_owned();
    assert!(!pid.is_empty(), "mpirun has no child");
    pid
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[test]
fn a_rank_that_is_killed_ends_the_others_and_leaves_the_last_checkpoint_whole() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let run = long_run(&place);
    signal("-KILL", &last_rank(&run));
    let begun = Instant::now();
    let output = run.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    // The newest checkpoint is whole: a run goes on from it.
    let step = newest(&place);
    let mut resumed = on_ranks(&place, 2, &["train", "config.toml", "--out", "run", "--resume"]);
    let resumed = resumed.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| newest(&place) > step);
    signal("-TERM", &last_rank(&resumed));
    let said = String::from_utf8(resumed.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains(&format!("step-{step:08}, step {step}")), "{said}");
}

#[test]
fn a_rank_that_is_stopped_for_a_while_is_waited_for() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut run = long_run(&place);
    let rank = last_rank(&run);
    signal("-STOP", &rank);
    std::thread::sleep(Duration::from_secs(4));
    let stopped_at = newest(&place);
    assert!(run.try_wait().unwrap().is_none(), "the others have ended");
    signal("-CONT", &rank);
    wait_for(|| newest(&place) > stopped_at);
    // And one that is told to end, as a scheduler tells it, ends all behind a checkpoint.
    signal("-TERM", &rank);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("everything is saved"), "{said}");
    let step: u64 = said
        .split("Stopped after step ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(newest(&place), step);
}
