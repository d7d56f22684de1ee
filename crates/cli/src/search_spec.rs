//! The `[search]` section of a config: what cheap runs are like, how many of them, and how a
//! mixture is found from them.

use std::collections::BTreeSet;

use cuvee_train::ModelSpec;
use serde::Deserialize;

/// `[search]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchSpec {
    /// What differs in a cheap run.
    pub proxy: ProxySpec,
    /// Runs of the swarm. Default: three a domain, no fewer than 12, and as many as the law needs.
    pub runs: Option<usize>,
    /// Hours that pilot and swarm may take on this machine, in place of `runs`.
    pub hours: Option<f64>,
    /// What the mixture comes from: a law's name, `auto`, or a rule's.
    pub law: String,
    /// κ: how strongly a proposal is held near the prior, in nats.
    pub kappa: f64,
    /// Seeds of the confirmation.
    pub confirm_seeds: usize,
    /// Groups of domains that keep the prior's ratios within them.
    pub freeze: Vec<Vec<String>>,
    /// Further runs in which what is drawn and what counts differ.
    pub two_knob: usize,
    /// Mixtures that a fit of the runs before asks for at once, until there are `runs`. Default 0:
    /// the design asks for all of them.
    pub batch: usize,
    /// Decides the design and the seeds of the runs. Default: the config's `seed`.
    pub seed: Option<u64>,
    /// Whether to go on where the pilot says that it is not worth it.
    pub anyway: bool,
    /// Runs at once. Default: as many as this machine has cores, over the threads of a run.
    pub jobs: Option<usize>,
}

/// The keys of a cheap run that are not the target's.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySpec {
    /// The model, in place of the config's.
    pub model: Option<ModelSpec>,
    /// Keys of `[train]`.
    pub train: toml::Table,
    /// Keys of `[eval]`.
    pub eval: toml::Table,
}

impl Default for SearchSpec {
    fn default() -> Self {
        Self {
            proxy: ProxySpec::default(),
            runs: None,
            hours: None,
            law: "power-log-linear".to_owned(),
            kappa: 0.01,
            confirm_seeds: 4,
            freeze: Vec::new(),
            two_knob: 0,
            batch: 0,
            seed: None,
            anyway: false,
            jobs: None,
        }
    }
}

/// More runs or seeds than this are taken for a mistake.
const MOST_RUNS: usize = 100_000;
const MOST_SEEDS: usize = 1000;

impl SearchSpec {
    /// Checks what can be checked before the domains are known.
    ///
    /// # Errors
    /// The first key that cannot work, what it must be and what it is.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |key: &str, expected: &str, found: String, hint: &str| {
            Err(format!("search.{key}: expected {expected}, found {found}\nhint: {hint}"))
        };
        if let (Some(runs), Some(hours)) = (self.runs, self.hours) {
            return wrong(
                "runs",
                "either `runs` or `hours`",
                format!("runs = {runs} and hours = {hours}"),
                "remove one of the two",
            );
        }
        if let Some(runs) = self.runs.filter(|runs| !(1..=MOST_RUNS).contains(runs)) {
            let hint = "remove the key to take three runs a domain";
            return wrong("runs", &format!("1 to {MOST_RUNS}"), runs.to_string(), hint);
        }
        if let Some(hours) = self.hours.filter(|hours| !(hours.is_finite() && *hours > 0.0)) {
            return wrong("hours", "hours above 0", hours.to_string(), "hours = 2.5");
        }
        if !(self.kappa.is_finite() && self.kappa >= 0.0) {
            let hint = "remove the key to take 0.01";
            return wrong("kappa", "0 or more, in nats", self.kappa.to_string(), hint);
        }
        if !(2..=MOST_SEEDS).contains(&self.confirm_seeds) {
            return wrong(
                "confirm_seeds",
                &format!("2 to {MOST_SEEDS}"),
                self.confirm_seeds.to_string(),
                "one seed gives no verdict; 4 to 6 are usual",
            );
        }
        if self.two_knob > MOST_RUNS {
            let hint = "4 to 6 are usual";
            return wrong(
                "two_knob",
                &format!("at most {MOST_RUNS}"),
                self.two_knob.to_string(),
                hint,
            );
        }
        if self.batch > 0 && self.two_knob > 0 {
            return wrong(
                "batch",
                "no rounds beside two_knob runs",
                format!("batch = {} and two_knob = {}", self.batch, self.two_knob),
                "remove one of the two",
            );
        }
        if self.jobs == Some(0) {
            let hint = "remove the key to let Cuvee choose";
            return wrong("jobs", "at least 1", "0".to_owned(), hint);
        }
        let mut named = BTreeSet::new();
        for group in &self.freeze {
            let hint = "freeze = [[\"a\", \"b\"]] keeps the ratio of a and b";
            if group.len() < 2 {
                let found = format!("{group:?}");
                return wrong("freeze", "groups of at least two domains", found, hint);
            }
            if let Some(twice) = group.iter().find(|name| !named.insert(*name)) {
                return wrong("freeze", "each domain once", format!("`{twice}` twice"), hint);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(text: &str) -> Result<SearchSpec, String> {
        let spec: SearchSpec = toml::from_str(text).map_err(|e| e.to_string())?;
        spec.check().map(|()| spec)
    }

    #[test]
    fn nothing_but_the_section_is_needed() {
        let spec = spec("").unwrap();
        assert_eq!(
            (spec.law.as_str(), spec.kappa, spec.confirm_seeds),
            ("power-log-linear", 0.01, 4)
        );
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        for (text, said) in [
            ("runs = 0", "search.runs: expected 1 to"),
            ("runs = 24\nhours = 2", "either `runs` or `hours`"),
            ("hours = 0", "search.hours"),
            ("hours = nan", "search.hours"),
            ("kappa = -1", "search.kappa"),
            ("kappa = nan", "search.kappa"),
            ("confirm_seeds = 1", "one seed gives no verdict"),
            ("freeze = [[\"a\"]]", "at least two domains"),
            ("freeze = [[\"a\", \"b\"], [\"b\", \"c\"]]", "`b` twice"),
            ("jobs = 0", "search.jobs"),
            ("batch = 4\ntwo_knob = 4", "search.batch"),
            ("rnus = 3", "unknown field `rnus`"),
            ("proxy = { trian = {} }", "unknown field `trian`"),
            ("proxy = { model = { preest = \"xs\" } }", "unknown field `preest`"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
