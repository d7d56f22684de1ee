//! Whatever is wrong with what it was given, the binary says what was expected, what was found,
//! where, and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use cuvee_train::DeviceSpec;

use crate::common::{Place, SMALL};

const SHARES: &str = "shares = { prose = 0.75, code = 0.25 }";

/// Runs `train` on [`SMALL`] with `from` replaced by `to`; returns the error.
fn refuses(code: i32, from: &str, to: &str) -> (Place, String) {
    let place = Place::new();
    place.edit(from, to);
    let said = place.fails(code, &["train", "config.toml", "--out", "run"]);
    assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
    assert!(!place.path("run/metrics.jsonl").exists(), "training began all the same");
    (place, said)
}

#[track_caller]
fn contains(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "expected {part:?} in:\n{said}");
    }
}

#[test]
fn unknown_config_key() {
    let (_, said) = refuses(2, "batch_size = 4", "batchsize = 4");
    contains(&said, &["config.toml:", "batchsize", "did you mean `batch_size`"]);
}

#[test]
fn unknown_key_inside_a_strategy_and_unknown_strategy() {
    let (_, said) = refuses(2, SHARES, "share = { prose = 0.75, code = 0.25 }");
    contains(&said, &["config.toml:", "share", "did you mean `shares`"]);
    let (_, said) = refuses(2, r#"strategy = "fixed""#, r#"strategy = "fixd""#);
    contains(&said, &["config.toml:", "fixd", "did you mean `fixed`"]);
}

#[test]
fn optimizers_and_decay_that_cannot_work() {
    let with = |line: &str| format!("lr = 3e-3\n{line}");
    for (line, parts) in [
        (
            "optimizer = \"moun\"",
            &["config.toml:", "`moun`", "`adamw`, `muon`, `sgd`", "did you mean `muon`"][..],
        ),
        (
            "optimizer = { name = \"muon\", momentun = 0.9 }",
            &["momentun", "did you mean `momentum`"],
        ),
        (
            "optimizer = { name = \"adamw\", momentum = 0.9 }",
            &["train.optimizer.momentum", "train.beta1"],
        ),
        (
            "optimizer = { name = \"muon\", head_lr = 0.1 }",
            &["train.optimizer.head_lr", "model.tied"],
        ),
        (
            "weight_decay = { rate = 0.1, vector = 0.1 }",
            &["train.weight_decay.vector", "never decay"],
        ),
        ("weight_decay = { rate = 0.1, cautios = true }", &["cautios", "did you mean `cautious`"]),
        (
            "weight_decay = { rate = 0.1, schedule = \"cosine\" }",
            &["`cosine`", "`constant`, `lr`, `linear`"],
        ),
    ] {
        let (_, said) = refuses(2, "lr = 3e-3", &with(line));
        contains(&said, parts);
    }
    for name in ["muon", "sgd"] {
        let (_, said) = refuses(2, "lr = 3e-3", &format!("lr = \"auto\"\noptimizer = \"{name}\""));
        contains(&said, &["train.lr", name, "a rule for AdamW's rate"]);
    }
}

#[test]
fn negative_and_all_zero_sampling_weights() {
    let (_, said) = refuses(2, SHARES, "shares = { prose = -0.75, code = 0.25 }");
    contains(&said, &["prose", "-0.75"]);
    let (_, said) = refuses(2, SHARES, "shares = { prose = 0, code = 0 }");
    contains(&said, &["is 0 for every domain", "prose", "code"]);
}

#[test]
fn negative_and_all_zero_importance() {
    let (_, said) = refuses(2, "name = \"code\"\n", "name = \"code\"\nimportance = -1.0\n");
    contains(&said, &["importance", "code", "-1"]);
    let place = Place::new();
    place.write("config.toml", &SMALL.replace("\nsource", "\nimportance = 0.0\nsource"));
    let said = place.fails(2, &["train", "config.toml", "--out", "run"]);
    contains(&said, &["importance", "prose", "code", "hint: "]);
}

#[test]
fn a_domain_in_the_objective_that_is_never_sampled() {
    let (_, said) = refuses(2, SHARES, "shares = { prose = 1, code = 0 }");
    contains(&said, &["code", "0.5"]);
}

#[test]
fn a_share_for_a_domain_that_does_not_exist() {
    let (_, said) = refuses(2, SHARES, "shares = { prose = 0.75, cod = 0.25 }");
    contains(&said, &["cod", "code"]);
}

#[test]
fn an_importance_for_a_domain_that_does_not_exist() {
    let place = Place::new();
    place.edit(
        "name = \"code\"\n",
        "name = \"code\"\ndomain_by = \"meta.number\"\nimportance = { cobol = 1.0 }\n",
    );
    let lines: Vec<_> = cuvee_testkit::prose(1, 99)
        .into_iter()
        .map(|t| (t, serde_json::json!({ "number": "seven" })))
        .collect();
    cuvee_testkit::write_jsonl(&place.path("code.jsonl"), &lines);
    let said = place.fails(2, &["train", "config.toml", "--out", "run"]);
    contains(&said, &["`cobol`", "meta.number", "hint: its values are seven"]);
}

#[test]
fn an_empty_domain() {
    let place = Place::new();
    place.write("code.jsonl", "");
    let said = place.fails(1, &["train", "config.toml", "--out", "run"]);
    contains(&said, &["code", "hint: "]);
}

#[test]
fn a_path_that_matches_nothing() {
    let (_, said) = refuses(1, "path = \"code.jsonl\"", "path = \"cod/*.jsonl\"");
    contains(&said, &["cod/*.jsonl"]);
}

#[test]
fn a_domain_shorter_than_one_window() {
    let place = Place::new();
    let texts = cuvee_testkit::prose(5, 40);
    cuvee_testkit::write_texts(&place.path("code.jsonl"), &texts);
    let said =
        place.fails(2, &["train", "config.toml", "--out", "run", "--set", "train.context=8000"]);
    contains(&said, &["code", "8001", "hint: "]);
}

#[test]
fn a_valid_split_shorter_than_one_window() {
    let (_, said) = refuses(1, "[mixture]", "[data]\nsplit = { valid = 0.0 }\n\n[mixture]");
    contains(&said, &["prose", "valid", "33"]);
}

#[test]
fn more_epochs_than_allowed() {
    let (_, said) = refuses(2, "name = \"code\"\n", "name = \"code\"\nmax_epochs = 0.001\n");
    contains(&said, &["code", "0.001"]);
}

#[test]
fn invalid_utf8_is_an_error_or_skipped_or_replaced_and_counted() {
    for (mode, code) in [("error", 1), ("skip", 0), ("replace", 0)] {
        let place = Place::new();
        let mut text = std::fs::read(place.path("code.jsonl")).unwrap();
        text.extend_from_slice(b"{\"text\": \"broken \xff\xfe here\"}\n");
        cuvee_testkit::write_file(&place.path("code.jsonl"), &text);
        place.edit(
            "path = \"code.jsonl\"",
            &format!("path = \"code.jsonl\", on_invalid = \"{mode}\""),
        );
        if code == 1 {
            let said = place.fails(1, &["prepare", "config.toml"]);
            contains(&said, &["code.jsonl", "301", "UTF-8", "hint: ", "on_invalid"]);
        } else {
            let folder = place.json(&["prepare", "config.toml"])["domains"][1]["folder"]
                .as_str()
                .unwrap()
                .to_string();
            let manifest =
                std::fs::read_to_string(std::path::Path::new(&folder).join("shard.json")).unwrap();
            let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
            let counts = &manifest["counts"];
            let key = if mode == "skip" { "invalid_skipped" } else { "invalid_replaced" };
            assert_eq!(counts[key], 1, "{counts}");
        }
    }
}

#[test]
fn a_missing_column_names_those_that_are_there() {
    let (_, said) =
        refuses(1, "path = \"code.jsonl\"", "path = \"code.jsonl\", text = \"content\"");
    contains(&said, &["code.jsonl", "content", "text", "meta"]);
}

#[test]
fn json_that_is_not() {
    let place = Place::new();
    place.write("code.jsonl", "{\"text\": \"fine\"}\n{\"text\": oops}\n");
    let said = place.fails(1, &["prepare", "config.toml"]);
    contains(&said, &["code.jsonl:2", "hint: "]);
}

#[test]
fn a_truncated_index() {
    let place = Place::new();
    let prepared = place.json(&["prepare", "config.toml"]);
    let index = std::path::PathBuf::from(prepared["domains"][0]["folder"].as_str().unwrap())
        .join("train.idx");
    let whole = std::fs::read(&index).unwrap();
    std::fs::write(&index, &whole[..whole.len() - 5]).unwrap();
    let said = place.fails(1, &["inspect", &index.display().to_string()]);
    contains(
        &said,
        &["train.idx", &whole.len().to_string(), &(whole.len() - 5).to_string(), "hint: "],
    );
}

#[test]
fn a_shard_of_another_tokenizer_and_ids_beyond_the_vocabulary() {
    let place = Place::new();
    place.edit("train = { vocab_size = 400 }", "train = { vocab_size = 500 }");
    place.ok(&["prepare", "config.toml", "--out", "shards", "-q"]);
    let tiny = cuvee_testkit::tiny_tokenizer_json();
    place.write("tokenizer.json", &tiny);
    let config = SMALL
        .replace("train = { vocab_size = 400 }", "file = \"tokenizer.json\"")
        .replace("path = \"prose.jsonl\"", "path = \"shards/prose/train.idx\"");
    place.write("config.toml", &config);
    let said = place.fails(1, &["prepare", "config.toml"]);
    contains(&said, &["shards/prose", "tokenizer", "expected", "found", "hint: "]);
    // Without the manifest nothing vouches for the ids; those beyond the vocabulary give it away.
    std::fs::remove_file(place.path("shards/prose/shard.json")).unwrap();
    let said = place.fails(1, &["prepare", "config.toml"]);
    contains(&said, &["train", "267", "hint: "]);
}

#[test]
fn a_missing_config_and_a_bad_flag() {
    let place = Place::new();
    let said = place.fails(2, &["train", "confg.toml"]);
    contains(&said, &["confg.toml", "hint: there is config.toml"]);
    let said = place.fails(2, &["train", "config.toml", "--stes", "3"]);
    contains(&said, &["--stes"]);
}

#[test]
fn a_checkpoint_that_is_none_and_a_device_that_is_none() {
    let place = Place::new();
    let said = place.fails(1, &["eval", "nothing"]);
    contains(&said, &["nothing", "hint: "]);
    let said = place.fails(2, &["train", "config.toml", "--device", "tpu"]);
    contains(&said, &["tpu", "cpu", "hint: "]);
}

/// Runs `prepare` under a limit of the shell's.
#[cfg(target_os = "linux")]
fn limited(limit: &str) -> (Place, std::process::Output) {
    let place = Place::new();
    let command = format!("ulimit {limit} && exec \"$0\" prepare config.toml --out shards");
    let output = std::process::Command::new("bash")
        .args(["-c", &command, env!("CARGO_BIN_EXE_cuvee")])
        .current_dir(place.path(""))
        .env("CUVEE_CACHE", place.path("cache"))
        .output()
        .unwrap();
    (place, output)
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_signal() {
    let (place, output) = limited("-f 4");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    contains(&said, &["error: ", "File too large", "hint: allow larger files (`ulimit -f"]);
    place.ok(&["prepare", "config.toml", "--out", "shards"]);
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_is_an_error_and_no_signal() {
    // From less than this run needs, but enough to begin, to what it needs on most machines.
    for kilobytes in [90_000, 160_000, 320_000] {
        let (_place, output) = limited(&format!("-v {kilobytes}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{kilobytes}: {said}");
        match output.status.code() {
            Some(0) => {}
            Some(1) => contains(&said, &["error: ", "\nhint: "]),
            _ => panic!("{kilobytes}: {output:?}"),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_only_reads_needs_no_threads() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    // Stacks that fit into no address space: no thread can be made.
    let run = |args: &[&str]| {
        let mut command = place.cuvee(args);
        command.env("RAYON_NUM_THREADS", "1").env("RUST_MIN_STACK", (1u64 << 62).to_string());
        command.output().unwrap()
    };
    for args in [&["inspect", "strategies"][..], &["inspect", "run"], &["inspect", "run/export"]] {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let output = run(&["prepare", "config.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    contains(&said, &["error: cannot start threads: ", "hint: allow more (`ulimit -u`"]);
}

/// Every cause stands before every hint, whatever layers an error has come through.
#[test]
fn causes_come_before_hints() {
    let place = Place::new();
    place.write("file", "");
    let mut bad = SMALL.replace("prose.jsonl", "nowhere/*.jsonl");
    bad.push_str("\n[data]\ndir = \"shards\"\n");
    place.write("bad.toml", &bad);
    for (code, args) in [
        (1, &["train", "config.toml", "--out", "file/run"][..]),
        (1, &["train", "bad.toml", "--out", "run"]),
        (2, &["prepare", "config.toml", "--out", "file"]),
        (2, &["train", "config.toml", "--device", "cuda:x"]),
        (1, &["eval", "nothing"]),
        (2, &["lab", "mnist", "--data", "nowhere", "--seeds", "1"]),
        (1, &["inspect", "nowhere"]),
        (1, &["convert", "nowhere", "out", "--to", "llmc"]),
    ] {
        let output = place.cuvee(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        let mut lines = said.lines().skip_while(|line| !line.starts_with("error: "));
        assert!(lines.next().is_some(), "{args:?}: {said}");
        let mut lines = lines.skip_while(|line| !line.starts_with("hint: ")).peekable();
        assert!(lines.peek().is_some(), "{args:?}: {said}");
        assert!(lines.all(|line| line.starts_with("hint: ")), "{args:?}: {said}");
    }
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    let place = Place::new();
    for (args, flag) in [
        (&["prepare", "config.toml", "--resume"][..], "--resume"),
        (&["inspect", "config.toml", "--out", "x"], "--out"),
        (&["bench", "tokenize", "--device", "cpu"], "--device"),
        (&["lab", "linear", "--device", "cuda"], "--device"),
        (&["inspect", "config.toml", "--seed", "1"], "--seed"),
        (&["generate", "run", "--prompt", "x", "--set", "seed=1"], "--set"),
    ] {
        let said = place.fails(2, args);
        contains(&said, &[&format!("takes no {flag}"), &format!("hint: leave {flag} out")]);
    }
    assert!(!place.path("runs").exists() && !place.path("cache").exists());
}

#[test]
fn an_engine_or_a_device_that_cannot_be_had_is_an_error() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    // Where there is a GPU, one far beyond those that there are.
    let named = match DeviceSpec::Cuda(0).checked() {
        Ok(_) => "cuda:999",
        Err(_) => "cuda",
    };
    for args in [
        &["train", "config.toml", "--out", "gpu"][..],
        &["eval", "run", "--set", "train.engine=fused"],
        &["generate", "run", "--prompt", "x"],
        &["bench", "train", "--size", "xs"],
    ] {
        let said = place.fails(2, &[args, &["--device", named]].concat());
        contains(&said, &["device `cuda:", ": expected ", "\nhint: "]);
    }
    assert!(!place.path("gpu").exists());
    let both = ["--set", "train.engine=reference", "--set", "train.precision=bf16"];
    for command in [&["eval", "run"][..], &["bench", "train", "--size", "xs"]] {
        let said = place.fails(2, &[command, &both].concat());
        contains(&said, &["train.precision", "`reference` computes in", "hint: "]);
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_and_auto_does_without() {
    let Err(error) = DeviceSpec::Cuda(0).checked() else { return };
    let place = Place::new();
    let bench = ["bench", "train", "--size", "xs", "--steps", "1", "--warmup", "0", "--device"];
    let said = place.fails(2, &[&bench[..], &["cuda:0"]].concat());
    contains(&said, &[&format!("error: {error}")]);
    let output = place.ok(&[&bench[..], &["auto", "--json"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    contains(&said, &["note: --device auto is cpu here: expected "]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["device"], "cpu");
    assert!(document["peak_device_bytes"].is_null());
}

/// A tensor of `run/export` changed in its place.
fn spoiled(place: &Place, from: &str, to: &str, number: f32) {
    cuvee_testkit::copy_folder(&place.path(from), &place.path(to));
    let file = place.path(to).join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..][..4].copy_from_slice(&number.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn weights_that_are_not_numbers_are_named_and_no_learning_rate_is_blamed() {
    let place = Place::new();
    place.ok(&["train", "config.toml", "--out", "run", "-q"]);
    spoiled(&place, "run/export", "bad-nan", f32::NAN);
    spoiled(&place, "run/export", "bad-inf", f32::NEG_INFINITY);
    for (folder, value) in [("bad-nan", "NaN"), ("bad-inf", "-inf")] {
        let init = format!("model.init={folder}");
        for args in [
            &["train", "config.toml", "--out", "more", "--set", &init][..],
            &["eval", folder, "--data", "config.toml"],
            &["generate", folder, "--prompt", "The"],
        ] {
            let said = place.fails(1, args);
            let file = format!("{folder}/model.safetensors: tensor `");
            contains(&said, &[&file, "expected finite numbers", value, "element 0", "hint: "]);
            assert!(!said.contains("train.lr"), "{said}");
        }
    }
}

#[test]
fn a_domain_that_will_not_be_drawn_is_said_in_the_plan() {
    let place = Place::new();
    place.edit(
        "objective = \"importance\"\nsampling = { strategy = \"fixed\", shares = { prose = 0.75, code = 0.25 } }",
        "objective = \"sampled\"\nsampling = { strategy = \"fixed\", shares = { prose = 1, code = 1e-12 } }",
    );
    let output = place.ok(&["train", "config.toml", "--out", "run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    contains(
        &said,
        &["note: `code` will not be drawn in this run", "hint: give it a larger share"],
    );
    assert!(!said.contains("note: `prose`"), "{said}");
}

#[test]
fn arithmetic_that_no_family_has_and_rope_types_that_are_unknown() {
    let with = |keys: &str| refuses(2, "preset = \"xs\"", &format!("preset = \"xs\"\n{keys}")).1;
    contains(
        &with("qk_norm = true\nqkv_bias = true"),
        &["model.qkv_bias", "none beside qk_norm", "transformers"],
    );
    contains(
        &with("qk_norm = true\nfamily = \"llama\""),
        &["model.family", "`qwen3`", "`llama`, which has no norms of queries and keys"],
    );
    contains(
        &with("rope_scaling = { rope_type = \"dynamic\", factor = 2.0 }"),
        &["config.toml:", "dynamic", "yarn"],
    );
    contains(
        &with("rope_scaling = { rope_type = \"linear\", factor = 0.0 }"),
        &["model.rope_scaling", "a factor above 0, found 0"],
    );
}

/// The run is done and written; that nobody can be told of it in JSON is an error all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_document_that_cannot_be_written_is_told_of() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut train = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"));
    train.current_dir(place.path(".")).env("CUVEE_CACHE", place.path("cache")).stdout(full);
    let output = train.args(["train", "config.toml", "--json", "-q"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("No space left"), "{said}");
}
