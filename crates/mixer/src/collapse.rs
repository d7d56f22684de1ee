//! When what a strategy has learned has collapsed onto one domain.
//!
//! In: a distribution over domains, and over how many domains it was spread before anything was
//! learned. Out: nothing, or which domain has it all. Rules that multiply shares, as those of
//! DoReMi, are known to end near one-hot, which is rarely what was wanted and easily goes unseen.
//!
//! A distribution p amounts to exp(−Σ p ln p) domains: K of even shares, 1 of a single one. It has
//! collapsed where
//!
//! - it amounts to fewer than a tenth of the domains that it began with, or than 1.5 of at least
//!   2.5; of two domains 1.5 is a share of 86 %, so that the others together hardly count;
//! - or one domain has more than 95 % of it: of a batch of 20 sequences all others share one.
//!
//! Both are of what a rule has made of its beginning, so that a config that itself gives nearly
//! everything to one domain, by its importances say, has not collapsed. Such a beginning amounts to
//! less than 1.5 domains.

use crate::domain::DomainId;
use crate::simplex::Simplex;
use serde::Serialize;

/// The part of the domains that it began with below which a distribution has collapsed.
const PART: f64 = 0.1;
/// Domains below which it has in any case, where it began with at least [`SEVERAL`].
const FEW: f64 = 1.5;
const SEVERAL: f64 = 2.5;
/// The share of one domain above which it has.
const NEARLY_ALL: f64 = 0.95;

/// Numbers that sum to 1 and that a strategy may learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// p, what is sampled.
    Sampling,
    /// α, what is trained on.
    Objective,
}

/// A learned distribution that has collapsed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Collapse {
    /// Which one.
    pub of: Distribution,
    /// The domain that has most of it.
    pub domain: DomainId,
    /// Its share.
    pub share: f64,
    /// Domains that the distribution amounts to.
    pub effective: f64,
    /// Domains that it amounted to before anything was learned.
    pub begun: f64,
    /// What helps, in the words of the strategy's parameters.
    pub remedy: &'static str,
}

impl Collapse {
    /// What has become of `shares`, which amounted to `begun` domains; `None` while they have not
    /// collapsed.
    pub(crate) fn of(
        of: Distribution,
        shares: &Simplex,
        begun: f64,
        remedy: &'static str,
    ) -> Option<Self> {
        let values = shares.values().iter().copied().enumerate();
        let (domain, share) = values.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let effective = shares.effective_domains();
        let few = begun >= SEVERAL && effective < FEW.max(PART * begun);
        let one = begun >= FEW && share > NEARLY_ALL;
        let domain = DomainId(domain);
        (few || one).then_some(Self { of, domain, share, effective, begun, remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shares: &[f64], begun: f64) -> Option<(usize, f64)> {
        let shares = Simplex::projected(shares.to_vec());
        let found = Collapse::of(Distribution::Sampling, &shares, begun, "")?;
        Some((found.domain.0, found.share))
    }

    fn effective_domains(shares: &[f64]) -> f64 {
        Simplex::projected(shares.to_vec()).effective_domains()
    }

    /// `share` for the second of `domains` and even shares of the rest for the others.
    fn leaning(domains: usize, share: f64) -> Vec<f64> {
        let rest = (1.0 - share) / (domains - 1) as f64;
        (0..domains).map(|domain| if domain == 1 { share } else { rest }).collect()
    }

    #[test]
    fn one_domain_with_nearly_everything_is_a_collapse_whatever_their_number() {
        for domains in [2, 3, 8, 300] {
            let begun = domains as f64;
            assert_eq!(found(&leaning(domains, 0.96), begun), Some((1, 0.96)), "{domains}");
            assert_eq!(found(&vec![1.0 / begun; domains], begun), None, "{domains}");
        }
        // Two domains are not called collapsed for amounting to fewer than 1.5.
        assert_eq!(found(&leaning(2, 0.94), 2.0), None);
        assert!(effective_domains(&leaning(2, 0.94)) < 1.5);
        // One domain alone is all there is.
        assert_eq!(found(&[1.0], 1.0), None);
    }

    #[test]
    fn a_tenth_of_the_domains_it_began_with_is_a_collapse() {
        // Of 3 domains those that amount to fewer than 1.5: a largest share of 0.9, not of 0.89.
        assert_eq!(found(&leaning(3, 0.9), 3.0).map(|(domain, _)| domain), Some(1));
        assert_eq!(found(&leaning(3, 0.89), 3.0), None);
        assert_eq!(found(&leaning(3, 0.85), 3.0), None);
        // Of 100, with even shares of the largest ones.
        let of = |largest: usize| -> Vec<f64> {
            (0..100).map(|d| if d < largest { 1.0 / largest as f64 } else { 0.0 }).collect()
        };
        assert!(found(&of(9), 100.0).is_some());
        assert_eq!(found(&of(11), 100.0), None);
        // Of three uneven ones too, but not of two and a little.
        assert!(found(&leaning(3, 0.9), 2.94).is_some());
        assert_eq!(found(&leaning(3, 0.9), 2.4), None);
        // Where it began with 12 of them, 9 are many.
        assert_eq!(found(&of(9), 12.0), None);
    }

    #[test]
    fn what_began_near_one_domain_has_not_collapsed_there() {
        assert_eq!(found(&leaning(4, 0.999), effective_domains(&leaning(4, 0.93))), None);
        assert!(found(&leaning(4, 0.999), effective_domains(&leaning(4, 0.7))).is_some());
    }
}
