//! Which settings differ between arms.

use std::collections::{BTreeMap, BTreeSet};

use cuvee_compare::Comparison;

use super::html::{Cell, Table, paragraph};
use super::runs::{Arm, Runs};
use super::sheet::Page;

/// A config's keys by their paths: `mixture.sampling.strategy`, `domain[0].name`.
type Flat = BTreeMap<String, String>;

/// An arm, and a config of it.
type ArmConfig<'a> = (&'a str, Flat);

pub(crate) fn section(page: &mut Page, comparison: Option<&Comparison>, runs: &Runs) {
    let mut arms: Vec<ArmConfig> = Vec::new();
    for arm in &runs.arms {
        let config = arm.runs.iter().find_map(|run| flat(&run.run.config));
        arms.extend(config.map(|config| (arm.name, config)));
    }
    if arms.len() < 2 || arms.len() < runs.arms.len() {
        let lines = comparison.into_iter().flat_map(|comparison| &comparison.arms);
        arms = lines.map(|arm| (arm.name.as_str(), parsed(&arm.config))).collect();
    }
    if arms.len() < 2 {
        return config_of_one(page, runs);
    }
    page.section("Config differences");
    // Seeds differ within an arm, too.
    let differing =
        differing(&arms.iter().map(|(_, config)| config).collect::<Vec<_>>(), &["seed"]);
    if differing.is_empty() {
        return page.push(&paragraph("The arms' configs are the same."));
    }
    let cell = |config: &Flat, key: &str| match config.get(key) {
        Some(value) => Cell::words(value),
        None => Cell::words("–").class("weak"),
    };
    let row = |key: &String| {
        let mut cells = vec![Cell::words(key)];
        cells.extend(arms.iter().map(|(_, config)| cell(config, key)));
        cells
    };
    let mut columns = vec!["key".to_owned()];
    columns.extend(arms.iter().map(|(name, _)| (*name).to_owned()));
    let caption = "Keys whose values differ; all others are the same in every arm.";
    page.push(&Table { caption, columns, rows: differing.iter().map(row).collect() }.html());
}

/// Keys in which the runs of one arm differ besides their seeds, a sentence an arm: they count as
/// repetitions of one another, and its first config stands for all.
pub(crate) fn within_arms(runs: &Runs) -> Vec<String> {
    let sentence = |arm: &Arm| {
        let configs: Vec<Flat> = arm.runs.iter().filter_map(|run| flat(&run.run.config)).collect();
        let differing = differing(&configs.iter().collect::<Vec<_>>(), &["seed", "order_seed"]);
        (!differing.is_empty()).then(|| {
            format!(
                "{}: its runs differ in more than their seeds, in {}; they are shown as one arm.",
                arm.name,
                differing.join(", ")
            )
        })
    };
    runs.arms.iter().filter_map(sentence).collect()
}

/// Keys that not all configs have with the same value, without those of `expected`.
fn differing(configs: &[&Flat], expected: &[&str]) -> Vec<String> {
    let keys: BTreeSet<&String> = configs.iter().flat_map(|config| config.keys()).collect();
    let differs = |key: &&String| {
        let mut values = configs.iter().map(|config| config.get(*key));
        let first = values.next();
        !expected.contains(&key.as_str()) && values.any(|value| Some(value) != first)
    };
    keys.into_iter().filter(differs).cloned().collect()
}

/// Of one arm there is no difference to show: its config as it is.
fn config_of_one(page: &mut Page, runs: &Runs) {
    let first = runs.arms.iter().flat_map(|arm| &arm.runs).next();
    if let Some(run) = first.filter(|run| !run.run.config.is_empty()) {
        page.section("Config");
        page.preformatted(&super::samples::cut(&run.run.config, 60_000));
    }
}

/// `None` of an empty text, or one that is no TOML.
fn flat(config: &str) -> Option<Flat> {
    let table: toml::Table =
        toml::from_str(config).ok().filter(|table: &toml::Table| !table.is_empty())?;
    let mut out = Flat::new();
    flatten("", &toml::Value::Table(table), &mut out);
    Some(out)
}

fn flatten(path: &str, value: &toml::Value, out: &mut Flat) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let joined = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&joined, value, out);
            }
        }
        toml::Value::Array(values) if values.iter().any(toml::Value::is_table) => {
            for (index, value) in values.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, out);
            }
        }
        value => drop(out.insert(path.to_owned(), value.to_string())),
    }
}

/// Lines as a comparison keeps them: `key = value`.
fn parsed(lines: &[String]) -> Flat {
    let split = |line: &String| match line.split_once(" = ") {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (line.clone(), String::new()),
    };
    lines.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_flattened_to_paths() {
        let text = "seed = 3\n[train]\nlr = 1e-3\nbetas = [0.9, 0.95]\n[[domain]]\nname = \"a\"\n";
        let found: Vec<(String, String)> = flat(text).into_iter().flatten().collect();
        let expected = [
            ("domain[0].name", "\"a\""),
            ("seed", "3"),
            ("train.betas", "[0.9, 0.95]"),
            ("train.lr", "0.001"),
        ];
        let expected: Vec<(String, String)> =
            expected.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        assert_eq!(found, expected);
        assert_eq!((flat(""), flat("no toml")), (None, None));
    }
}
