//! What a path in a repository tells by its words: of which configuration and split a file is.

use std::collections::BTreeSet;

/// The split that is trained on.
pub(super) const TRAIN: &str = "train";

/// The folder that a file's configuration would be called by: without `data/`, and up to a folder
/// called as a split.
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
