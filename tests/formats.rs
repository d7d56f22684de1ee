//! `cuvee convert` and `cuvee inspect` on tokenized files of every format, and training on them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common::{Place, SMALL};

/// A place with prepared shards; the folder of `prose`.
fn prepared() -> (Place, String) {
    let place = Place::new();
    place.ok(&["prepare", "config.toml", "--out", "shards", "-q"]);
    (place, "shards/prose".to_owned())
}

#[test]
fn convert_writes_every_format_and_inspect_reads_them() {
    let (place, domain) = prepared();
    let shard = place.json(&["inspect", &domain]);
    let train = &shard["manifest"]["splits"]["train"];
    for (to, file) in [
        ("megatron", "train.idx"),
        ("nanogpt", "train.bin"),
        ("llmc", "train.bin"),
        ("datatrove", "train.ds"),
    ] {
        let document = place.json(&["convert", &domain, to, "--to", to, "-q"]);
        assert_eq!(document["to"], to);
        let written = document["written"].as_array().unwrap();
        assert_eq!(written.len(), 3, "{document}");
        assert_eq!(written[0]["tokens"], train["tokens"], "{document}");
        assert_eq!(written[0]["documents"], train["documents"], "{document}");
        assert_eq!(written[0]["end_of_text_added"], 0, "{document}");

        let file = format!("{to}/{file}");
        let mut args = vec!["inspect", &file];
        if to == "nanogpt" {
            args.extend(["--format", "nanogpt"]);
        }
        let found = place.json(&args);
        assert_eq!(found["tokens"], train["tokens"], "{found}");
        let said = String::from_utf8(place.ok(&args).stdout).unwrap();
        assert!(said.contains("u16") && said.contains("largest id"), "{said}");
        if to == "datatrove" || to == "megatron" {
            assert_eq!(found["documents"], train["documents"], "{found}");
        }
    }
    // One split goes to the file that was named.
    place.ok(&["convert", &domain, "one.bin", "--to", "nanogpt", "--split", "valid", "-q"]);
    let valid = std::fs::read(place.path("shards/prose/valid.bin")).unwrap();
    assert_eq!(std::fs::read(place.path("one.bin")).unwrap(), valid);
}

#[test]
fn converted_files_train_like_the_shards_they_came_from() {
    let (place, _) = prepared();
    for domain in ["prose", "code"] {
        place.ok(&[
            "convert",
            &format!("shards/{domain}"),
            &format!("ds/{domain}"),
            "--to",
            "datatrove",
            "-q",
        ]);
    }
    let source = |name: &str| format!("source = {{ path = \"ds/{name}/*.ds\" }}");
    let config = SMALL
        .replace("source = { path = \"prose.jsonl\" }", &source("prose"))
        .replace("source = { path = \"code.jsonl\" }", &source("code"))
        .replace("train = { vocab_size = 400 }", "file = \"shards/prose/tokenizer.json\"");
    place.write("again.toml", &config);
    place.ok(&["prepare", "again.toml", "--out", "again", "-q"]);
    let sizes = |dir: &str| {
        let document = place.json(&["inspect", dir]);
        document["manifest"]["splits"].clone()
    };
    for domain in ["prose", "code"] {
        let (from, to) = (sizes(&format!("shards/{domain}")), sizes(&format!("again/{domain}")));
        for split in ["train", "tune", "valid"] {
            for key in ["documents", "tokens", "bytes"] {
                assert_eq!(from[split][key], to[split][key], "{domain} {split} {key}");
            }
        }
    }
    place.ok(&["train", "again.toml", "--out", "run", "--set", "train.steps=2", "-q"]);
}

#[test]
fn what_cannot_be_converted_or_inspected_is_said_with_a_hint() {
    let (place, domain) = prepared();
    place.write("ids.bin", "abcd");
    place.ok(&["convert", &domain, "taken", "--to", "nanogpt", "-q"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    let cases: [(i32, &[&str], &str); 9] = [
        (
            2,
            &["convert", &domain, "taken", "--to", "nanogpt"],
            "taken/train.bin: expected no such file yet",
        ),
        (
            2,
            &["convert", &domain, "x", "--to", "olmo"],
            "`--to`: expected megatron, llmc, nanogpt, datatrove, found olmo",
        ),
        (
            2,
            &["convert", "ids.bin", "x", "--to", "megatron", "--format", "nanogpt"],
            "`--end-of-text`: expected the id",
        ),
        (
            2,
            &["convert", "ids.bin", "x", "--to", "llmc", "--split", "train"],
            "`--split`: expected nothing",
        ),
        (1, &["convert", "ids.bin", "x", "--to", "llmc"], "pass --format nanogpt"),
        (
            1,
            &["convert", "prose.jsonl", "x", "--to", "llmc", "--format", "jsonl"],
            "expected a tokenized file",
        ),
        (1, &["convert", "empty", "x", "--to", "llmc"], "found a folder with no shards"),
        (1, &["inspect", "ids.bin"], "pass --format nanogpt"),
        (
            1,
            &["inspect", "ids.bin", "--format", "llmc"],
            "expected llm.c's header of 1024 bytes, found a file of 4 bytes",
        ),
    ];
    for (code, args, words) in cases {
        let said = place.fails(code, args);
        assert!(said.contains(words) && said.contains("hint: "), "{args:?}:\n{said}");
    }
    let said = place.fails(2, &["convert", &domain, "x", "--to", "nanogtp"]);
    assert!(said.contains("expected one of") && said.contains("nanogpt"), "{said}");
}
