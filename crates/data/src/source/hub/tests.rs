#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

/// The repositories of the field, as their trees look (some files of each).
const WIKIPEDIA: &[&str] = &[
    ".gitattributes",
    "20231101.en/train-00000-of-00041.parquet",
    "20231101.simple/train-00000-of-00001.parquet",
    "README.md",
];
const CODEPARROT: &[&str] =
    &["README.md", "file-000000000001.json.gz", "file-000000000054.json.gz"];
const STACK_SMOL: &[&str] =
    &["README.md", "data/c/data.json", "data/python/data.json", "dataset_infos.json"];
const FINEWEB: &[&str] = &[
    "README.md",
    "data/CC-MAIN-2013-20/000_00000.parquet",
    "data/CC-MAIN-2013-20/000_00001.parquet",
    "sample/10BT/000_00000.parquet",
];
const SLIM_PAJAMA: &[&str] = &[
    "README.md",
    "data/test-00000-of-00001-16ef9ba538b2b3a2.parquet",
    "data/train-00000-of-00048-ab2b35705f029d94.parquet",
    "data/train-00001-of-00048-d1a5ea53c1b8a5a1.parquet",
    "data/validation-00000-of-00001-cac62cc1e0b5c4be.parquet",
];
const SLIM_PAJAMA_BIG: &[&str] = &[
    "test/chunk1/example_holdout_0.jsonl.zst",
    "train/chunk1/example_train_0.jsonl.zst",
    "train/chunk10/example_train_1.jsonl.zst",
    "validation/chunk1/example_holdout_0.jsonl.zst",
];
const PILE: &[&str] =
    &["README.md", "test.jsonl.zst", "train/00.jsonl.zst", "train/01.jsonl.zst", "val.jsonl.zst"];
const TINY_STORIES: &[&str] = &[
    "README.md",
    "TinyStories-train.txt",
    "TinyStories-valid.txt",
    "data/train-00000-of-00004-2d5a1467fff1081b.parquet",
    "data/validation-00000-of-00001-869c898b519ad725.parquet",
];

const FINEWEB_HEADER: &str = r#"---
license: odc-by
dataset_info: {features: [{name: text, dtype: string}], splits: [{name: train, num_bytes: 12}]}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*/*
- config_name: sample-10BT
  data_files:
  - split: train
    path: sample/10BT/*
---
# FineWeb
"#;

fn entries(paths: &[&str]) -> Vec<RepoEntry> {
    let oid = "0".repeat(40);
    let entry = |path: &&str| serde_json::json!({"path": path, "size": 1, "oid": oid});
    paths.iter().map(|path| serde_json::from_value(entry(path)).unwrap()).collect()
}

fn spec(keys: &str) -> SourceSpec {
    serde_json::from_str(&format!("{{\"hub\": \"a/b\"{keys}}}")).unwrap()
}

fn chosen(paths: &[&str], keys: &str, readme: &str) -> std::result::Result<Vec<String>, String> {
    let entries = entries(paths);
    let spec = spec(keys);
    let format = readers::stated(&spec).unwrap();
    let files = choose(&spec, format, &entries, &configs(readme).unwrap());
    let files = files.map(|files| files.into_iter().map(|(entry, _)| entry.path.clone()).collect());
    files.map_err(|error| error.to_string())
}

fn some(paths: &[&str], keys: &str) -> Vec<String> {
    chosen(paths, keys, "").unwrap()
}

fn refused(paths: &[&str], keys: &str, readme: &str) -> String {
    let error = chosen(paths, keys, readme).unwrap_err();
    assert!(error.lines().last().unwrap().starts_with("hint: "), "{error}");
    error
}

#[test]
fn the_fields_data_sets_are_found_by_their_names() {
    let simple = r#", "config": "20231101.simple""#;
    assert_eq!(some(WIKIPEDIA, simple), WIKIPEDIA[2..3]);
    assert_eq!(some(CODEPARROT, ""), CODEPARROT[1..]);
    assert_eq!(some(STACK_SMOL, r#", "config": "python""#), STACK_SMOL[2..3]);
    assert_eq!(some(STACK_SMOL, r#", "config": "data/c""#), STACK_SMOL[1..2]);
    assert_eq!(some(SLIM_PAJAMA, ""), SLIM_PAJAMA[2..4]);
    assert_eq!(some(SLIM_PAJAMA, r#", "split": "valid""#), SLIM_PAJAMA[4..]);
    assert_eq!(some(SLIM_PAJAMA_BIG, ""), SLIM_PAJAMA_BIG[1..3]);
    assert_eq!(some(SLIM_PAJAMA_BIG, r#", "split": "validation""#), SLIM_PAJAMA_BIG[3..]);
    assert_eq!(some(PILE, ""), PILE[2..4]);
    assert_eq!(some(PILE, r#", "split": "test""#), PILE[1..2]);
    assert_eq!(some(TINY_STORIES, r#", "format": "parquet""#), TINY_STORIES[3..4]);
    assert_eq!(
        some(TINY_STORIES, r#", "format": "txt", "split": "validation""#),
        TINY_STORIES[2..3]
    );
    assert_eq!(some(&["data.jsonl", "test.jsonl"], ""), ["data.jsonl"]);
    assert_eq!(some(&["part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl"], "").len(), 2);
    let chat = ["data/train_gen-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
    assert_eq!(some(&chat, r#", "split": "train_sft""#), chat[1..]);
}

#[test]
fn a_readme_says_what_configurations_and_splits_are() {
    let file = |keys: &str| chosen(FINEWEB, keys, FINEWEB_HEADER);
    assert_eq!(file("").unwrap(), FINEWEB[1..3]);
    assert_eq!(file(r#", "config": "sample-10BT""#).unwrap(), FINEWEB[3..]);
    let error = refused(FINEWEB, r#", "config": "sample-100BT""#, FINEWEB_HEADER);
    assert!(
        error.contains("expected one of `default`, `sample-10BT`, found \"sample-100BT\""),
        "{error}"
    );
    let error = refused(FINEWEB, r#", "split": "test""#, FINEWEB_HEADER);
    assert!(error.contains("`train`, found no split \"test\""), "{error}");
    let lists = "---\nconfigs:\n- config_name: a\n  data_files: [x.jsonl, \"y*.jsonl\"]\n- config_name: b\n  \
                 data_dir: sub\n  data_files: '*.jsonl'\n- config_name: c\n  data_dir: sub\n---\n";
    let paths = ["sub/t.jsonl", "test.jsonl", "x.jsonl", "y1.jsonl"];
    assert_eq!(chosen(&paths, r#", "config": "a""#, lists).unwrap(), paths[2..]);
    assert_eq!(chosen(&paths, r#", "config": "b""#, lists).unwrap(), paths[..1]);
    assert_eq!(chosen(&paths, r#", "config": "c""#, lists).unwrap(), paths[..1]);
}

#[test]
fn patterns_choose_and_order_files_and_other_keys_narrow_them() {
    let keys = r#", "files": ["train/01*", "train/*"]"#;
    assert_eq!(some(PILE, keys), ["train/01.jsonl.zst", "train/00.jsonl.zst"]);
    assert_eq!(some(PILE, r#", "files": "**/*.zst""#).len(), 4);
    assert_eq!(some(PILE, r#", "files": "**/*.zst", "split": "train""#), PILE[2..4]);
    assert_eq!(some(STACK_SMOL, r#", "files": "data/*/data.json""#).len(), 2);
    assert_eq!(some(STACK_SMOL, r#", "files": "README.md""#), ["README.md"]);
    let error = refused(PILE, r#", "files": "data/*.parquet""#, "");
    assert!(
        error.contains("\"data/*.parquet\"") && error.contains("`train/00.jsonl.zst`"),
        "{error}"
    );
    let error = refused(WIKIPEDIA, r#", "files": ".git*""#, "");
    assert!(
        error.contains("expected files of text") && error.contains(".gitattributes"),
        "{error}"
    );
}

#[test]
fn what_is_not_one_choice_is_refused_with_what_there_is() {
    let error = refused(WIKIPEDIA, "", "");
    assert!(error.contains("found `20231101.en`, `20231101.simple`"), "{error}");
    let error = refused(WIKIPEDIA, r#", "config": "20231101.sample""#, "");
    assert!(error.contains("expected one of `20231101.en`, `20231101.simple`"), "{error}");
    let error = refused(TINY_STORIES, "", "");
    assert!(
        error.contains("files of one kind") && error.contains("`TinyStories-train.txt`"),
        "{error}"
    );
    let error = refused(SLIM_PAJAMA, r#", "split": "holdout""#, "");
    assert!(error.contains("one of `test`, `train`, `validation`"), "{error}");
    let error = refused(&["test.jsonl", "dev.jsonl"], "", "");
    assert!(error.contains("one of `test`, `validation`, found no split \"train\""), "{error}");
    let error = refused(&["README.md", "script.py"], "", "");
    assert!(error.contains("none among `README.md`, `script.py`"), "{error}");
}

#[test]
fn test_files_are_never_trained_on_by_default() {
    for path in [
        "test.jsonl",
        "a/test/x.jsonl",
        "train/test-1.jsonl",
        "a_eval.jsonl",
        "dev.txt",
        "x.val.jsonl",
    ] {
        assert_ne!(split_of(path).as_deref(), Some(TRAIN), "{path}");
        assert_eq!(
            some(&["x-train.jsonl", path], r#", "files": "**", "split": "train""#),
            ["x-train.jsonl"],
            "{path}"
        );
    }
    for path in ["contest.jsonl", "latest.jsonl", "developer.jsonl", "00.jsonl"] {
        assert_eq!(split_of(path), None, "{path}");
    }
}
