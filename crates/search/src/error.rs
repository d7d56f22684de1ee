//! The one error type of this crate: what was expected, what was found, and where.

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, SearchError>;

/// Why a swarm cannot be read, fitted or searched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// Fewer runs than the law has coefficients to tell apart.
    #[error(
        "the law `{law}` expected at least {least} different mixtures, found {found}\n\
         hint: make more runs, or take a law with fewer coefficients"
    )]
    TooFewRuns {
        /// The law's name.
        law: &'static str,
        /// What it needs.
        least: usize,
        /// What there is.
        found: usize,
    },

    /// A loss or share that is no number.
    #[error("expected {expected}, found {found} in {place}\nhint: {hint}")]
    BadValue {
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
        /// Which run, column or line.
        place: String,
        /// What to do.
        hint: &'static str,
    },
}
