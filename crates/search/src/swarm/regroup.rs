//! Domains of a swarm merged, split or frozen afterwards: what was run for one division of the data
//! serves another.
//!
//! Tokens seen and available add up, and so do shares. Targets stay as they are.

use super::Swarm;
use crate::error::{Result, SearchError};
use crate::shares::{Groups, normalised, total_variation};

/// A swarm whose frozen groups are domains, and the way back.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// One domain a group.
    pub swarm: Swarm,
    /// Shares of its domains as shares of the former ones.
    pub groups: Groups,
    /// The largest total variation between the ratios within a group in some run and those that are
    /// kept: what the merged swarm does not know.
    pub off: f64,
}

impl Swarm {
    /// The domains `names` as one, called `name`, in the place of the first.
    ///
    /// # Errors
    /// A name that is not a domain's or occurs twice, or a `name` that another domain has.
    pub fn merged(&self, names: &[&str], name: &str) -> Result<Self> {
        let group = self.numbers(names)?;
        let first = group.iter().copied().min().unwrap_or(0);
        let others = |i: usize| i != first && group.contains(&i);
        if self.domains.iter().enumerate().any(|(i, other)| other == name && !group.contains(&i)) {
            return Err(bad("a name that no other domain has", name, "the merged domain"));
        }
        let sum = |values: &[f64]| -> Vec<f64> {
            let value = |(i, value): (usize, &f64)| match i {
                _ if i == first => group.iter().filter_map(|i| values.get(*i)).sum(),
                _ => *value,
            };
            values.iter().enumerate().filter(|(i, _)| !others(*i)).map(value).collect()
        };
        let mut swarm = self.mapped(sum);
        swarm.domains = (0..self.domains.len())
            .filter(|i| !others(*i))
            .map(|i| if i == first { name.to_owned() } else { self.domains[i].clone() })
            .collect();
        Ok(swarm)
    }

    /// The domain `name` as `parts`, each with its share of the domain's tokens: as they were
    /// drawn, in proportion to size, without their being told apart.
    ///
    /// # Errors
    /// No such domain, no part, shares that are negative or all 0, or a part's name that is taken.
    pub fn split(&self, name: &str, parts: &[(&str, f64)]) -> Result<Self> {
        let at = self.numbers(&[name])?[0];
        let raw: Vec<f64> = parts.iter().map(|(_, share)| *share).collect();
        let shares = normalised(&raw)
            .ok_or_else(|| bad("shares of at least 0, not all 0", &format!("{raw:?}"), name))?;
        for (i, (part, _)) in parts.iter().enumerate() {
            let taken = self.domains.iter().any(|other| other == part && other != name);
            if taken || parts[..i].iter().any(|(other, _)| other == part) {
                return Err(bad("names that no other domain has", part, name));
            }
        }
        let divide = |values: &[f64]| -> Vec<f64> {
            let value = |(i, value): (usize, &f64)| match i {
                _ if i == at => shares.iter().map(|share| share * value).collect(),
                _ => vec![*value],
            };
            values.iter().enumerate().flat_map(value).collect()
        };
        let mut swarm = self.mapped(divide);
        let parts = parts.iter().map(|(part, _)| (*part).to_owned());
        swarm.domains.splice(at..=at, parts);
        Ok(swarm)
    }

    /// Each group of `frozen` as one domain, called by its members' names with a plus between. The
    /// ratios that are kept within a group are the runs' mean; `off` says how far a run was from
    /// them, 0 where the design froze the group.
    ///
    /// # Errors
    /// A group that is empty, or names a domain that is not there or is in another group.
    pub fn frozen(&self, frozen: &[Vec<&str>]) -> Result<Frozen> {
        let numbers: Vec<Vec<usize>> =
            frozen.iter().map(|names| self.numbers(names)).collect::<Result<_>>()?;
        let mut mean = vec![0.0; self.domains.len()];
        for run in &self.runs {
            mean.iter_mut().zip(&run.sampling).for_each(|(sum, share)| *sum += share);
        }
        let groups = Groups::new(&mean, &numbers)?;
        let mut swarm = self.clone();
        for names in frozen {
            swarm = swarm.merged(names, &names.join("+"))?;
        }
        let off = |shares: &Vec<f64>| {
            let kept = groups.expand(&groups.collapse(shares));
            // Within the group: of the whole, as far as it was drawn.
            numbers.iter().fold(0.0f64, |off, group| {
                let inner = |shares: &[f64]| {
                    let own: Vec<f64> = group.iter().map(|i| shares[*i]).collect();
                    normalised(&own)
                };
                match (inner(shares), inner(&kept)) {
                    (Some(a), Some(b)) => off.max(total_variation(&a, &b)),
                    _ => off,
                }
            })
        };
        let off = self.runs.iter().map(|run| off(&run.sampling)).fold(0.0, f64::max);
        Ok(Frozen { swarm, groups, off })
    }

    /// `rule` on every list of numbers a domain that is not empty.
    fn mapped(&self, rule: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        let mut swarm = self.clone();
        let apply = |list: &mut Vec<f64>| {
            if !list.is_empty() {
                *list = rule(list);
            }
        };
        apply(&mut swarm.available);
        for run in &mut swarm.runs {
            [&mut run.sampling, &mut run.objective, &mut run.seen].into_iter().for_each(apply);
        }
        swarm
    }

    /// The numbers of the domains called `names`.
    fn numbers(&self, names: &[&str]) -> Result<Vec<usize>> {
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            let number = self.domains.iter().position(|domain| domain == name);
            let number = number.filter(|number| !numbers.contains(number));
            let expected = format!("each once of: {}", self.domains.join(", "));
            numbers.push(number.ok_or_else(|| bad(&expected, name, "the domains to regroup"))?);
        }
        if numbers.is_empty() {
            return Err(bad("at least one domain", "none", "the domains to regroup"));
        }
        Ok(numbers)
    }
}

fn bad(expected: &str, found: &str, place: &str) -> SearchError {
    SearchError::BadValue {
        expected: expected.to_owned(),
        found: found.to_owned(),
        place: place.to_owned(),
        hint: "name domains as the swarm's table does",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::SwarmRun;
    use super::*;
    use proptest::prelude::*;

    fn swarm(rows: &[[f64; 4]]) -> Swarm {
        let run = |row: &[f64; 4]| {
            let sum: f64 = row.iter().sum();
            let sampling: Vec<f64> = row.iter().map(|share| share / sum).collect();
            SwarmRun {
                name: "r".into(),
                kind: "spread".into(),
                seed: 1,
                block: 0,
                steps: 9,
                tokens: 1000.0,
                seen: sampling.iter().map(|share| 1000.0 * share).collect(),
                objective: sampling.clone(),
                sampling,
                tune: vec![2.0],
                valid: Vec::new(),
                curve: Vec::new(),
            }
        };
        Swarm {
            domains: ["a", "b", "c", "d"].map(str::to_owned).into(),
            targets: vec!["a".into()],
            available: vec![10.0, 20.0, 30.0, 40.0],
            runs: rows.iter().map(run).collect(),
        }
    }

    proptest! {
        #[test]
        fn tokens_add_up_and_splitting_what_was_merged_gives_it_back(
            rows in prop::collection::vec(prop::array::uniform4(0.01f64..1.0), 1..6),
        ) {
            let before = swarm(&rows);
            let merged = before.merged(&["d", "b"], "bd").unwrap();
            prop_assert_eq!(&merged.domains, &["a", "bd", "c"]);
            prop_assert_eq!(&merged.available, &[10.0, 60.0, 30.0]);
            for (run, old) in merged.runs.iter().zip(&before.runs) {
                let sum = |list: &[f64]| list.iter().sum::<f64>();
                prop_assert!((sum(&run.sampling) - 1.0).abs() < 1e-12);
                prop_assert!((sum(&run.seen) - sum(&old.seen)).abs() < 1e-9);
                prop_assert!((run.sampling[1] - old.sampling[1] - old.sampling[3]).abs() < 1e-12);
            }
            let split = merged.split("bd", &[("b", 20.0), ("d", 40.0)]).unwrap();
            prop_assert_eq!(&split.domains, &["a", "b", "d", "c"]);
            prop_assert!((split.available[1] - 20.0).abs() < 1e-12);
            prop_assert_eq!(split.merged(&["b", "d"], "bd").unwrap().domains, merged.domains);
            // One domain in place of itself changes nothing.
            prop_assert_eq!(before.merged(&["c"], "c").unwrap(), before);
        }
    }

    #[test]
    fn frozen_groups_keep_their_ratios_and_say_how_far_runs_were_from_them() {
        let even = swarm(&[[1.0, 2.0, 2.0, 4.0], [3.0, 1.0, 0.5, 2.0]]);
        let frozen = even.frozen(&[vec!["b", "d"]]).unwrap();
        assert_eq!(frozen.swarm.domains, ["a", "b+d", "c"]);
        assert!(frozen.off < 1e-12, "{}", frozen.off);
        let shares = frozen.groups.expand(&[0.1, 0.6, 0.3]);
        assert!((shares[1] - 0.2).abs() < 1e-12 && (shares[3] - 0.4).abs() < 1e-12, "{shares:?}");
        let uneven = swarm(&[[1.0, 2.0, 2.0, 2.0], [1.0, 3.0, 2.0, 1.0]]);
        assert!(uneven.frozen(&[vec!["b", "d"]]).unwrap().off > 0.1);
    }

    #[test]
    fn names_that_are_not_there_are_refused_with_those_that_are() {
        let swarm = swarm(&[[1.0; 4]]);
        let error = swarm.merged(&["a", "x"], "ax").unwrap_err().to_string();
        assert!(error.contains("a, b, c, d") && error.contains("found x"), "{error}");
        assert!(swarm.merged(&["a", "a"], "aa").is_err());
        assert!(swarm.merged(&["a", "b"], "c").is_err());
        assert!(swarm.merged(&[], "none").is_err());
        assert!(swarm.split("a", &[]).is_err());
        assert!(swarm.split("a", &[("b", 1.0), ("a2", 1.0)]).is_err());
        assert!(swarm.split("a", &[("a1", 1.0), ("a1", 1.0)]).is_err());
    }
}
