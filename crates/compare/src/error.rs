//! The one error type of this crate: what was expected, what was found, and where.

use cuvee_words::{counted, plural};

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, CompareError>;

/// Why runs cannot be compared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// Not exactly one arm is the baseline.
    #[error(
        "expected one arm that is the baseline, found {found}\n\
         hint: name one of the arms in `compare.baseline`"
    )]
    Baselines {
        /// How many there are.
        found: usize,
    },

    /// More than one arm is the baseline's repetition.
    #[error("expected at most one repetition of the baseline, found {found}")]
    Replicas {
        /// How many there are.
        found: usize,
    },

    /// Two arms, domains or seeds share a name.
    #[error("expected each {what} once, found `{name}` twice\nhint: rename or remove one")]
    Duplicate {
        /// What has the name: `arm`.
        what: &'static str,
        /// The name.
        name: String,
    },

    /// Nothing to average over.
    #[error("expected at least one domain, found none")]
    NoDomains,

    /// An importance is not a share, or they do not add up to 1.
    #[error("expected importances of at least 0 that add up to 1, found {found}{}", in_domain(.domain))]
    Importance {
        /// The domain, where one alone is wrong.
        domain: Option<String>,
        /// The value or the sum.
        found: f64,
    },

    /// A setting is out of its range.
    #[error("`{key}`: expected {expected}, found {found}")]
    Setting {
        /// The key: `compare.alpha`.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },

    /// An arm lists runs for another number of seeds than there are.
    #[error("arm `{arm}` has {}, but there {} {}", counted(*found, "run"), if *seeds == 1 { "is" } else { "are" }, counted(*seeds, "seed"))]
    Runs {
        /// The arm.
        arm: String,
        /// Runs it lists, missing ones included.
        found: usize,
        /// Seeds.
        seeds: usize,
    },

    /// A run has the losses of another number of domains.
    #[error(
        "arm `{arm}`, seed {seed}: expected the losses of {}, found those of {found}\n\
         hint: only runs over the same domains can be compared", counted(*expected, "domain")
    )]
    Domains {
        /// The arm.
        arm: String,
        /// The seed.
        seed: u64,
        /// Domains of the comparison.
        expected: usize,
        /// Domains of the run.
        found: usize,
    },

    /// A run was evaluated on another number of windows than the others.
    #[error(
        "arm `{arm}`, seed {seed}, domain `{domain}`: expected the losses of {expected} {}, as of \
         the other runs, found {found}\n\
         hint: only runs evaluated on the same windows can be compared", plural(*expected, "window")
    )]
    Windows {
        /// The arm.
        arm: String,
        /// The seed.
        seed: u64,
        /// The domain.
        domain: String,
        /// Windows of the first run.
        expected: usize,
        /// Windows of this one.
        found: usize,
    },
}

fn in_domain(domain: &Option<String>) -> String {
    domain.as_ref().map_or_else(|| " as their sum".to_owned(), |name| format!(" for `{name}`"))
}
