//! The `[compare]` section of a config: which arms, how many seeds, and when a difference counts.

use std::collections::BTreeSet;

use cuvee_compare::{DEFAULT_ALPHA, DEFAULT_MARGIN};
use cuvee_words::counted;
use serde::Deserialize;

/// `[compare]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareSpec {
    /// The arms, in the order of every table.
    pub arms: Vec<ArmSpec>,
    /// The arm that the others are compared with; default: the first.
    #[serde(default)]
    pub baseline: Option<String>,
    /// How many seeds, from the config's `seed` on, or a list of them. Default: 6, or the last of
    /// `looks`.
    #[serde(default)]
    pub seeds: Option<Seeds>,
    /// δ, in nats a token: differences within ± δ do not matter.
    #[serde(default = "default_margin")]
    pub margin: f64,
    /// α: the chance of calling a difference where there is none, over all arms.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Numbers of seeds after which to look at the results, the last of them all seeds: an arm that
    /// is decided earlier is run no further.
    #[serde(default)]
    pub looks: Vec<usize>,
    /// Whether a run is stopped before its end where its arm can no longer become better.
    #[serde(default)]
    pub futility: bool,
    /// The last evaluations of a run that are averaged.
    #[serde(default = "default_evaluations")]
    pub evaluations: usize,
    /// Runs at once; default: as many as are fastest on this machine.
    #[serde(default)]
    pub jobs: Option<usize>,
}

/// One of the arms.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    /// What tables and folders call it.
    pub name: String,
    /// Config keys that differ in it: `{ mixture.sampling = "va" }`.
    #[serde(default)]
    pub set: toml::Table,
}

/// How many seeds, or which.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a number of seeds such as 6, or a list of them such as [0, 1, 2]")]
pub enum Seeds {
    /// So many, from the config's on.
    Count(usize),
    /// These.
    List(Vec<u64>),
}

fn default_margin() -> f64 {
    DEFAULT_MARGIN
}

fn default_alpha() -> f64 {
    DEFAULT_ALPHA
}

fn default_evaluations() -> usize {
    1
}

/// Seeds where a config does not say: with fewer, few differences can be told from chance.
const DEFAULT_SEEDS: usize = 6;

/// More than this are taken for a mistake.
const MOST_SEEDS: usize = 10_000;

/// Ends the name of the baseline's repetition.
pub const REPLICA: &str = "~";

impl CompareSpec {
    /// The arm that the others are compared with.
    pub fn baseline_name(&self) -> &str {
        let first = || self.arms.first().map_or("", |arm| arm.name.as_str());
        self.baseline.as_deref().unwrap_or_else(first)
    }

    /// The seeds' numbers; `first` is the config's seed.
    ///
    /// # Errors
    /// None, too many, or one twice.
    pub fn seed_list(&self, first: u64) -> Result<Vec<u64>, String> {
        let count = |count: usize| {
            match count {
            0 => Err("compare.seeds: expected at least 1, found 0\nhint: 6 seeds tell differences of about 1.5 standard deviations from chance".to_owned()),
            count if count > MOST_SEEDS => {
                Err(format!("compare.seeds: expected at most {MOST_SEEDS}, found {count}\nhint: more than 20 are seldom worth their time"))
            }
            count => Ok((0..count as u64).map(|n| first.wrapping_add(n)).collect()),
        }
        };
        match (&self.seeds, self.looks.last()) {
            (None, last) => count(last.copied().unwrap_or(DEFAULT_SEEDS)),
            (Some(Seeds::Count(n)), _) => count(*n),
            (Some(Seeds::List(list)), _) => {
                let distinct: BTreeSet<u64> = list.iter().copied().collect();
                if list.is_empty() || distinct.len() < list.len() {
                    return Err(format!(
                        "compare.seeds: expected a list of different seeds, found {list:?}\nhint: seeds = 6 takes six, from the config's `seed` on"
                    ));
                }
                Ok(list.clone())
            }
        }
    }

    /// The section for runs that exist already, whose arms are found and not given.
    pub fn of_runs(margin: f64, alpha: f64, evaluations: usize) -> Self {
        Self {
            arms: Vec::new(),
            baseline: None,
            seeds: None,
            margin,
            alpha,
            looks: Vec::new(),
            futility: false,
            evaluations,
            jobs: None,
        }
    }

    /// Checks every value and the names of the arms.
    ///
    /// # Errors
    /// The first key that cannot work, what it must be and what it is.
    pub fn check(&self) -> Result<(), String> {
        let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        if self.arms.len() < 2 {
            return Err(format!(
                "compare.arms: expected at least 2 arms, found {}\nhint: arms = [{{ name = \"uniform\", set = {{ mixture.sampling = \"uniform\" }} }}, …]",
                self.arms.len()
            ));
        }
        for (index, name) in names.iter().enumerate() {
            if let Some(what) = unfit(name) {
                return Err(format!(
                    "compare.arms: `{name}`: {what}\nhint: an arm's name is also its folder's: letters, digits, `+`, `-`, `_` and `.`"
                ));
            }
            let same = |other: &&&str| other.to_lowercase() == name.to_lowercase();
            if let Some(other) = names.iter().take(index).find(same) {
                return Err(format!(
                    "compare.arms: two arms are called `{other}` and `{name}`\nhint: names must differ, not only in upper and lower case"
                ));
            }
        }
        for arm in &self.arms {
            let of_compare = |key: &&String| *key == "compare" || key.starts_with("compare.");
            if let Some(key) = arm.set.keys().find(of_compare) {
                return Err(format!(
                    "compare.arms: `{}` sets `{key}`, which is the same for all arms\nhint: set it in [compare]",
                    arm.name
                ));
            }
        }
        let baseline = self.baseline_name();
        if !names.contains(&baseline) {
            return Err(format!(
                "compare.baseline: expected one of the arms, found `{baseline}`\nhint: the arms are {}",
                names.join(", ")
            ));
        }
        self.check_values()?;
        self.check_looks()
    }

    /// Checks the numbers that a verdict depends on.
    ///
    /// # Errors
    /// The first key that cannot work, what it must be and what it is.
    pub fn check_values(&self) -> Result<(), String> {
        let real = |key: &str, value: f64, fits: bool, expected: &str| match fits {
            true => Ok(()),
            false => Err(format!(
                "compare.{key}: expected {expected}, found {value}\nhint: remove the key to take its default"
            )),
        };
        let (margin, alpha) = (self.margin, self.alpha);
        real("margin", margin, margin.is_finite() && margin > 0.0, "a loss above 0, in nats")?;
        real("alpha", alpha, alpha > 0.0 && alpha < 0.5, "a chance above 0, below 0.5")?;
        if self.evaluations == 0 {
            return Err("compare.evaluations: expected at least 1, found 0\nhint: remove the key to take the last evaluation alone".to_owned());
        }
        if self.jobs == Some(0) {
            return Err("compare.jobs: expected at least 1, found 0\nhint: remove the key to let Cuvee choose".to_owned());
        }
        Ok(())
    }

    fn check_looks(&self) -> Result<(), String> {
        let (Some(first), Some(last)) = (self.looks.first(), self.looks.last()) else {
            return Ok(());
        };
        let rising = self.looks.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || *first < 2 {
            return Err(format!(
                "compare.looks: expected rising numbers of seeds, the first at least 2, found {:?}\nhint: looks = [4, 6, 8]",
                self.looks
            ));
        }
        let seeds = match &self.seeds {
            None => *last,
            Some(Seeds::Count(count)) => *count,
            Some(Seeds::List(list)) => list.len(),
        };
        if seeds != *last {
            return Err(format!(
                "compare.looks: expected the last look at all {}, found it at {last}\nhint: leave compare.seeds out, or let looks end with {seeds}",
                counted(seeds, "seed")
            ));
        }
        Ok(())
    }
}

/// Why `name` cannot be an arm's.
fn unfit(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '+' | '-' | '_' | '.' | ' ');
    match name {
        "" => Some("the name is empty"),
        _ if name.ends_with(REPLICA) => {
            Some("a name that ends with `~` is the baseline's repetition's")
        }
        _ if name.starts_with('.') || name.starts_with('-') => Some("it begins with `.` or `-`"),
        _ if name != name.trim() || name.ends_with('.') => {
            Some("it begins or ends with a space, or ends with a full stop")
        }
        _ if name.len() > 100 => Some("it is longer than 100 bytes"),
        _ if !name.chars().all(fits) => {
            Some("it has a character that a folder's name may not have everywhere")
        }
        _ => None,
    }
}

impl ArmSpec {
    /// What differs in it as `--set` takes it, `KEY=VALUE` each. A table in `set` stands for a
    /// section of the config; what stands in it replaces the key of that section whole.
    pub fn overrides(&self) -> Vec<String> {
        let mut list = Vec::new();
        for (key, value) in &self.set {
            match value {
                toml::Value::Table(section) if !key.contains('.') => {
                    list.extend(
                        section.iter().map(|(inner, value)| format!("{key}.{inner}={value}")),
                    );
                }
                value => list.push(format!("{key}={value}")),
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(text: &str) -> Result<CompareSpec, String> {
        let spec: CompareSpec = toml::from_str(text).map_err(|e| e.to_string())?;
        spec.check().map(|()| spec)
    }

    const ARMS: &str = "arms = [{ name = \"a\" }, { name = \"b+c\", set = { mixture.sampling = { strategy = \"va\" }, \"train.lr\" = 0.1, model = { preset = \"xs\" } } }]\n";

    #[test]
    fn defaults_are_those_of_the_guide() {
        let spec = spec(ARMS).unwrap();
        assert_eq!((spec.margin, spec.alpha, spec.evaluations), (0.01, 0.05, 1));
        assert_eq!(spec.baseline_name(), "a");
        assert_eq!(spec.seed_list(3).unwrap(), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn an_arm_sets_keys_of_sections_whole() {
        let overrides = spec(ARMS).unwrap().arms[1].overrides();
        let expected =
            ["mixture.sampling={ strategy = \"va\" }", "model.preset=\"xs\"", "train.lr=0.1"];
        assert_eq!(overrides, expected);
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        for (text, said) in [
            ("arms = [{ name = \"a\" }]", "at least 2 arms, found 1"),
            ("arms = [{ name = \"a\" }, { name = \"A\" }]", "`a` and `A`"),
            ("arms = [{ name = \"a\" }, { name = \"../b\" }]", "`../b`"),
            ("arms = [{ name = \"a\" }, { name = \"b/c\" }]", "`b/c`"),
            ("arms = [{ name = \"a\" }, { name = \"a~\" }]", "ends with `~`"),
            (&format!("{ARMS}baseline = \"c\""), "the arms are a, b+c"),
            (&format!("{ARMS}margin = 0"), "compare.margin"),
            (&format!("{ARMS}margin = nan"), "compare.margin"),
            (&format!("{ARMS}alpha = 0.5"), "compare.alpha"),
            (
                "arms = [{ name = \"a\" }, { name = \"b\", set = { compare.margin = 3.0 } }]",
                "`b` sets `compare`",
            ),
            (&format!("{ARMS}evaluations = 0"), "compare.evaluations"),
            (&format!("{ARMS}jobs = 0"), "compare.jobs"),
            (&format!("{ARMS}looks = [4, 4]"), "rising"),
            (&format!("{ARMS}looks = [1, 4]"), "at least 2"),
            (&format!("{ARMS}looks = [4, 6]\nseeds = 8"), "all 8 seeds"),
            (&format!("{ARMS}seeds = \"six\""), "a number of seeds such as 6"),
            (&format!("{ARMS}sedes = 6"), "unknown field `sedes`"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let seeds = |text: &str| spec(&format!("{ARMS}seeds = {text}")).unwrap().seed_list(0);
        assert!(seeds("[1, 1]").unwrap_err().contains("different seeds"));
        assert!(seeds("0").unwrap_err().contains("at least 1"));
        assert_eq!(seeds("[7, 3]").unwrap(), [7, 3]);
        assert_eq!(spec(&format!("{ARMS}looks = [4, 8]")).unwrap().seed_list(0).unwrap().len(), 8);
    }
}
