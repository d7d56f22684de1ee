//! Preparing at size, with the real binary: killed at any moment, on a full disk, by several
//! workers at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::Place;

/// One large file, many small ones, and without repetitions: a source in several domains, and one
/// in splits.
const CONFIG: &str = r#"
[tokenizer]
file = "tokenizer.json"

[data]
split = { tune = 0.1, valid = 0.1 }

[[domain]]
name = "large"
source = { path = "large.jsonl" }

[[domain]]
name = "small"
source = { path = "small", max_document = 500 }

[[domain]]
name = "by"
source = { path = ["large.jsonl", "prose.jsonl"], deduplicate = true, split_by = "meta.unit" }
domain_by = "meta.unit"

[[domain]]
name = "once"
source = { path = ["prose.jsonl", "large.jsonl"], deduplicate = true }
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("tokenizer.json", &cuvee_testkit::tiny_tokenizer_json());
    place.write("prepare.toml", CONFIG);
    let mut docs: Vec<(String, serde_json::Value)> = Vec::new();
    for (number, text) in cuvee_testkit::prose(5, 9000).into_iter().enumerate() {
        docs.push((text, serde_json::json!({ "unit": number % 4 })));
    }
    docs.extend_from_within(..100);
    cuvee_testkit::write_jsonl(&place.path("large.jsonl"), &docs);
    cuvee_testkit::write_jsonl(&place.path("prose.jsonl"), &docs[3000..3200]);
    for (number, texts) in cuvee_testkit::code_like(6, 200).chunks(2).enumerate() {
        place.write(&format!("small/{number:03}.txt"), &texts.join("\n\n"));
    }
    place
}

/// All files in a folder but locks.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".lock") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Bytes of all files in a folder, also while they come and go.
fn size_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(&found[name] == bytes, "{name} differs");
    }
}

/// What comes again after more documents than are remembered while reading is left out when the
/// parts are put together.
#[test]
fn duplicates_are_left_out_however_few_documents_are_remembered() {
    let place = place();
    place.ok(&["prepare", "prepare.toml", "--out", "whole", "-q"]);
    let expected = files_in(&place.path("whole"));
    for (known, workers) in [("700", 1), ("20", 1), ("700", 3)] {
        let out = format!("known-{known}-{workers}");
        let prepare = |more: &[&str]| {
            let mut command = place.cuvee(&["prepare", "prepare.toml", "--out", &out, "-q"]);
            let remembered = format!("data.remember_documents={known}");
            let output = command.args(more).args(["--set", &remembered]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        for worker in 1..=workers {
            prepare(&["--shard", &format!("{worker}/{workers}")]);
        }
        prepare(&[]);
        assert_same(&files_in(&place.path(&out)), &expected);
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_makes_the_same_files() {
    let place = place();
    place.ok(&["prepare", "prepare.toml", "--out", "whole", "-q"]);
    let expected = files_in(&place.path("whole"));
    let whole = size_of(&place.path("whole"));
    let out = place.path("killed");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (mut kills, mut ran) = (0, 0);
    loop {
        ran += 1;
        // Killed once so much more is on disk: anywhere, also while the parts are put together.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let limit = size_of(&out) + random % (whole / 12);
        let mut child = Command::new(env!("CARGO_BIN_EXE_cuvee"))
            .current_dir(place.path("."))
            .args(["prepare", "prepare.toml", "--out", "killed", "-q"])
            .args(["--set", "data.commit_every=200kB", "--set", "data.remember_documents=700"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if size_of(&out) >= limit {
                // SIGKILL on Unix.
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if status.success() {
            break;
        }
        assert_eq!(status.code(), None, "killed, not failed");
        kills += 1;
        assert!(ran < 1000, "no run gets any further");
    }
    assert!(kills >= 6, "killed {kills} times only");
    assert_same(&files_in(&out), &expected);
}

#[test]
fn workers_at_once_make_what_one_makes() {
    let place = place();
    place.ok(&["prepare", "prepare.toml", "--out", "whole", "-q"]);
    let workers: Vec<_> = (1..=3)
        .map(|number| {
            Command::new(env!("CARGO_BIN_EXE_cuvee"))
                .current_dir(place.path("."))
                .args([
                    "prepare",
                    "prepare.toml",
                    "--out",
                    "shared",
                    "-q",
                    "--shard",
                    &format!("{number}/3"),
                ])
                .spawn()
                .unwrap()
        })
        .collect();
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    let prepared = place.json(&["prepare", "prepare.toml", "--out", "shared"]);
    assert_eq!(prepared["domains"][0]["reused"], false);
    assert_same(&files_in(&place.path("shared")), &files_in(&place.path("whole")));
}

#[test]
fn workers_train_one_tokenizer() {
    let place = Place::new();
    place.ok(&["prepare", "config.toml", "--out", "whole", "-q"]);
    for shard in ["2/2", "1/2"] {
        let part = place.json(&["prepare", "config.toml", "--out", "shared", "--shard", shard]);
        assert_eq!(part["shard"], shard);
        assert!(part["entries"][0]["documents"].as_u64().unwrap() > 50);
    }
    place.ok(&["prepare", "config.toml", "--out", "shared", "-q"]);
    assert_same(&files_in(&place.path("shared")), &files_in(&place.path("whole")));
}

#[test]
fn missing_parts_and_nonsense_shares_are_refused() {
    let place = place();
    place.ok(&["prepare", "prepare.toml", "--out", "shared", "-q", "--shard", "1/2"]);
    let said = place.fails(1, &["prepare", "prepare.toml", "--out", "shared"]);
    assert!(said.contains("missing: 2/2 (not begun)") && said.contains("--shard 2/2"), "{said}");
    for wrong in ["0/2", "3/2", "2", "one/two"] {
        let said = place.fails(2, &["prepare", "prepare.toml", "--shard", wrong]);
        assert!(said.contains("1 ≤ I ≤ N"), "{said}");
    }
}

#[test]
fn speed_is_reported_for_scripts() {
    let place = place();
    let document = place.json(&["prepare", "prepare.toml"]);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    assert!(number(&document["megabytes_per_second"]) > 0.0);
    assert!(document["peak_rss_bytes"].is_null() || number(&document["peak_rss_bytes"]) > 1e6);
    let domains = document["domains"].as_array().unwrap();
    let bytes: f64 = domains.iter().map(|domain| number(&domain["bytes"])).sum();
    assert!((bytes - number(&document["bytes"])).abs() <= domains.len() as f64);
    let again = place.json(&["prepare", "prepare.toml"]);
    assert_eq!(again["bytes"], 0);
    assert!(again["domains"][0]["seconds"].is_null());
}

/// A small file system of its own, taken away at the end; `None` where that is not allowed.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(&at).unwrap();
        let disk = SmallDisk(at);
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).then_some(disk)
    }

    fn resize(&self, size: &str) {
        assert!(self.run("mount", &["-o", &format!("remount,size={size}")]));
    }

    fn run(&self, command: &str, args: &[&str]) -> bool {
        let output = Command::new(command).args(args).arg(&self.0).output();
        output.is_ok_and(|output| output.status.success())
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &[]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_says_what_is_needed_and_loses_nothing() {
    let place = place();
    place.ok(&["prepare", "prepare.toml", "--out", "whole", "-q"]);
    let Some(disk) = SmallDisk::mount(place.path("disk"), "2300k") else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    let output = place
        .cuvee(&["prepare", "prepare.toml", "--out", "disk/shards"])
        .args(["--set", "data.commit_every=200kB"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("note: large: some ") && said.contains("are free there"),
        "warned early: {said}"
    );
    assert!(said.contains("No space left") && said.contains("more are needed, as "), "{said}");
    assert!(said.contains("hint: make room there and run the same command again"), "{said}");
    let record =
        std::fs::read_to_string(place.path("disk/shards/large/.parts/1-of-1/part.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert!(
        record["read"].as_u64().is_some_and(|bytes| bytes > 1_000_000),
        "a piece at least is kept: {record}"
    );
    disk.resize("100m");
    place.ok(&["prepare", "prepare.toml", "--out", "disk/shards", "-q"]);
    assert_same(&files_in(&place.path("disk/shards")), &files_in(&place.path("whole")));
}
