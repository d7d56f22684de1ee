//! What a path tells by its words: of which configuration and split a file is, and whether it holds
//! documents at all.

use std::collections::BTreeSet;

/// The split that is trained on.
pub(super) const TRAIN: &str = "train";

/// What files are called that tell of a data set and are not part of it.
const ABOUT: [&str; 10] = [
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "citation",
    "contributing",
    "changelog",
    "code_of_conduct",
    "requirements",
];
/// The same of those that programs write.
const ABOUT_JSON: [&str; 4] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
/// The endings of what people write about a data set.
const ABOUT_ENDINGS: [&str; 5] = ["md", "txt", "text", "rst", "html"];

/// Whether a file, by its name, describes the data beside it: `README.md`, `LICENSE-MIT`,
/// `requirements.txt`, `dataset_infos.json`.
pub(super) fn is_about(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = name.split('.').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let word = |word: &&str| {
        stem.strip_prefix(*word)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let written = ending.is_empty() || ABOUT_ENDINGS.contains(&ending);
    written && ABOUT.iter().any(word) || ABOUT_JSON.contains(&name.as_str())
}

/// Which side of training a path speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Train,
    /// For validation or testing.
    HeldOut,
}

/// Which side of training a path speaks for, where it does: by a folder's name, or by a file's
/// that is such a word, alone or with one other, as `wiki-train` and `val_data` are and
/// `how-to-train` is not.
pub(super) fn side_of(path: &str) -> Option<Side> {
    let stem = path.rsplit('/').next().unwrap_or(path).split('.').next().unwrap_or_default();
    let is_shard = stem.contains("-of-");
    if !is_shard
        && words(stem).count() > 2
        && !path.split('/').rev().skip(1).any(|part| canonical(part).is_some())
    {
        return None;
    }
    let label = split_of(path)?;
    let splits = || words(&label).filter_map(canonical);
    match splits().next() {
        None => None,
        Some(_) if splits().all(|split| split == TRAIN) => Some(Side::Train),
        Some(_) => Some(Side::HeldOut),
    }
}

/// The folder that a file's configuration would be called by: without `data/`, and up to a folder
/// called as a split.
#[cfg(feature = "hub")]
pub(super) fn folder_of(path: &str) -> String {
    let folders = path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev();
    let folders =
        folders.enumerate().filter(|(i, part)| !(*i == 0 && *part == "data")).map(|(_, part)| part);
    folders.take_while(|part| canonical(part).is_none()).collect::<Vec<_>>().join("/")
}

/// The split that a path tells of.
pub(super) fn split_of(path: &str) -> Option<String> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    // `train_sft-00000-of-00001.parquet`: the whole first part is the name.
    if let Some((label, rest)) =
        name.split_once("-of-").and_then(|(before, _)| before.rsplit_once('-'))
        && rest.bytes().all(|byte| byte.is_ascii_digit())
        && words(label).any(|word| canonical(word).is_some())
    {
        return Some(canonical(label).unwrap_or(label).to_owned());
    }
    let said: BTreeSet<&str> =
        folders.split('/').filter_map(canonical).chain(words(name).filter_map(canonical)).collect();
    // `train/test.jsonl` is not trained on.
    said.iter().find(|split| **split != TRAIN).or(said.first()).map(|split| (*split).to_owned())
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty())
}

/// The names that splits go by.
pub(super) fn canonical(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(TRAIN),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_data_is_known_by_its_name() {
        for name in [
            "README.md",
            "readme",
            "README_zh.md",
            "LICENSE",
            "License.txt",
            "LICENSE-APACHE",
            "LICENCE.txt",
            "requirements.txt",
            "requirements-dev.txt",
            "dataset_infos.json",
            "NOTICE",
        ] {
            assert!(is_about(name), "{name}");
        }
        for name in [
            "readmes.txt",
            "licenses.txt",
            "license.parquet",
            "readme.jsonl",
            "noticed.txt",
            "data.json",
            "requirements.py",
            "a-readme.md",
            "",
        ] {
            assert!(!is_about(name), "{name}");
        }
    }

    #[test]
    fn sides_are_told_by_files_and_folders() {
        for path in
            ["train.bin", "data/train.jsonl", "train/0.jsonl", "train-00000-of-00002.parquet"]
        {
            assert_eq!(side_of(path), Some(Side::Train), "{path}");
        }
        for path in [
            "val.bin",
            "data/test.jsonl",
            "validation/0.jsonl",
            "train/test.jsonl",
            "x-dev.txt",
            "test_sft-00000-of-00001.parquet",
        ] {
            assert_eq!(side_of(path), Some(Side::HeldOut), "{path}");
        }
        for path in ["a.bin", "trains.txt", "values.jsonl", "latest.jsonl", "tune.idx"] {
            assert_eq!(side_of(path), None, "{path}");
        }
    }
}
