//! Domains whose inner ratios stay as they are. Searching then moves groups as wholes: fewer
//! numbers to tell apart, and the ratios within a group are known from elsewhere.

use super::{normalised, uniform};
use crate::error::{Result, SearchError};

/// Domains in groups; a domain that is in none is a group of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Members of each group and their shares of it.
    members: Vec<Vec<(usize, f64)>>,
    domains: usize,
}

impl Groups {
    /// `frozen` groups keep the ratios that `prior` has within them (equal ones where it has none).
    /// Groups come in the order of their first domain.
    ///
    /// # Errors
    /// A group that is empty, or names a domain that is not there or is in another group.
    pub fn new(prior: &[f64], frozen: &[Vec<usize>]) -> Result<Self> {
        let domains = prior.len();
        let mut owner: Vec<Option<usize>> = vec![None; domains];
        for (number, group) in frozen.iter().enumerate() {
            let bad = |found: String| SearchError::BadValue {
                expected: format!(
                    "groups of domains 0 to {}, each in one group",
                    domains.max(1) - 1
                ),
                found,
                place: format!("frozen group {number}"),
                hint: "list each domain once",
            };
            if group.is_empty() {
                return Err(bad("no domain".to_owned()));
            }
            for domain in group {
                match owner.get_mut(*domain) {
                    Some(free @ None) => *free = Some(number),
                    _ => return Err(bad(format!("domain {domain}"))),
                }
            }
        }
        let mut members = Vec::new();
        for domain in 0..domains {
            let group = match owner[domain] {
                None => vec![domain],
                Some(number) if frozen[number].iter().min() == Some(&domain) => {
                    frozen[number].clone()
                }
                Some(_) => continue,
            };
            let inner: Vec<f64> = group.iter().map(|i| prior[*i]).collect();
            let inner = normalised(&inner).unwrap_or_else(|| uniform(group.len()));
            members.push(group.into_iter().zip(inner).collect());
        }
        Ok(Self { members, domains })
    }

    /// Every domain by itself.
    pub fn single(domains: usize) -> Self {
        Self { members: (0..domains).map(|i| vec![(i, 1.0)]).collect(), domains }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no domain.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Shares of groups as shares of domains.
    pub fn expand(&self, groups: &[f64]) -> Vec<f64> {
        let mut domains = vec![0.0; self.domains];
        for (members, share) in self.members.iter().zip(groups) {
            members.iter().for_each(|(i, inner)| domains[*i] = inner * share);
        }
        domains
    }

    /// Shares of domains as shares of groups; ratios within a group are lost.
    pub fn collapse(&self, domains: &[f64]) -> Vec<f64> {
        let sum = |members: &Vec<(usize, f64)>| members.iter().map(|(i, _)| domains[*i]).sum();
        self.members.iter().map(sum).collect()
    }

    /// A slope in the domains' shares as a slope in the groups': the chain rule of
    /// [`expand`](Self::expand).
    pub fn pull_back(&self, slope: &[f64]) -> Vec<f64> {
        let sum =
            |members: &Vec<(usize, f64)>| members.iter().map(|(i, inner)| inner * slope[*i]).sum();
        self.members.iter().map(sum).collect()
    }

    /// The largest share of each group at which no member exceeds its cap.
    pub fn caps(&self, caps: &[f64]) -> Vec<f64> {
        let least = |members: &Vec<(usize, f64)>| {
            let of = |(i, inner): &(usize, f64)| if *inner > 0.0 { caps[*i] / inner } else { 1.0 };
            members.iter().map(of).fold(1.0, f64::min)
        };
        self.members.iter().map(least).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn groups_keep_the_ratios_of_the_prior_and_go_both_ways() {
        let prior = [0.1, 0.4, 0.3, 0.2];
        let groups = Groups::new(&prior, &[vec![3, 1]]).unwrap();
        assert_eq!(groups.len(), 3);
        let shares = groups.expand(&[0.2, 0.6, 0.2]);
        assert!((shares[1] / shares[3] - 2.0).abs() < 1e-12, "{shares:?}");
        assert!((groups.collapse(&shares)[1] - 0.6).abs() < 1e-12);
        // 0.3 / (2/3) for the larger member of the group.
        assert!((groups.caps(&[1.0, 0.3, 1.0, 1.0])[1] - 0.45).abs() < 1e-12);
        let slope = groups.pull_back(&[1.0, 3.0, 5.0, 6.0]);
        assert!((slope[1] - (2.0 * 3.0 + 6.0) / 3.0).abs() < 1e-12);
        assert_eq!(Groups::new(&prior, &[]).unwrap(), Groups::single(4));
    }

    #[test]
    fn a_domain_in_two_groups_or_none_that_exists_is_refused() {
        for frozen in [vec![vec![0, 1], vec![1, 2]], vec![vec![7]], vec![vec![]], vec![vec![2, 2]]]
        {
            let error = Groups::new(&[0.25; 4], &frozen).unwrap_err().to_string();
            assert!(error.contains("frozen group") && error.contains("\nhint: "), "{error}");
        }
    }
}
