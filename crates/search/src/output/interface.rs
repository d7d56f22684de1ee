//! What is written, and what a program's row says.

use super::text;
use crate::error::{Result, SearchError};
use crate::shares::{normalised, total_variation};

/// Sampling and objective nearer than this in total variation are written as one.
const ONE_KNOB: f64 = 5e-7;

/// What was found out about the mixture by running it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verified {
    /// It was run against the uniform mixture with fresh seeds: by so much its loss is lower, in
    /// nats a token, with the half-width of the interval, and that interval leaves out 0.
    Better {
        /// Uniform's loss less its own.
        by: f64,
        /// Half-width of the interval.
        within: f64,
    },
    /// It was not run, or the interval holds 0.
    No,
}

/// A mixture to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The domains' names. `[K]`
    pub domains: Vec<String>,
    /// Where each domain's data lies for the other program; empty: the names stand for it. `[K]`
    pub paths: Vec<String>,
    /// p. `[K]`
    pub sampling: Vec<f64>,
    /// α; p where one knob alone is turned. `[K]`
    pub objective: Vec<f64>,
    /// How often each domain is gone through in the final run; empty: unknown. `[K]`
    pub epochs: Vec<f64>,
    /// Mean tokens of an example; empty: unknown. `[K]`
    pub tokens_per_example: Vec<f64>,
    /// What running it said.
    pub verified: Verified,
}

impl Output {
    /// A mixture of domains, without more being known of it.
    ///
    /// # Errors
    /// What is no share a domain, and a name that occurs twice.
    pub fn new(domains: Vec<String>, sampling: &[f64], objective: &[f64]) -> Result<Self> {
        let bad = |expected: &str, found: String, hint| SearchError::BadValue {
            expected: expected.to_owned(),
            found,
            place: "the mixture that is written".to_owned(),
            hint,
        };
        let shares = |raw: &[f64]| {
            let shares = normalised(raw).filter(|shares| shares.len() == domains.len());
            let hint = "divide by the sum";
            shares.ok_or_else(|| bad("a share for each domain", format!("{raw:?}"), hint))
        };
        let (sampling, objective) = (shares(sampling)?, shares(objective)?);
        let mut names: Vec<&String> = domains.iter().collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(bad("names that differ", format!("`{}` twice", pair[0]), "rename one"));
        }
        Ok(Self {
            domains,
            paths: Vec::new(),
            sampling,
            objective,
            epochs: Vec::new(),
            tokens_per_example: Vec::new(),
            verified: Verified::No,
        })
    }

    /// Whether α differs from p.
    pub(super) fn has_two_knobs(&self) -> bool {
        total_variation(&self.sampling, &self.objective) > ONE_KNOB
    }

    /// Where the data of a domain lies, or its name.
    pub(super) fn path(&self, domain: usize) -> &str {
        self.paths.get(domain).unwrap_or(&self.domains[domain])
    }

    /// The domains that are drawn: number and share, as text.
    pub(super) fn drawn(&self) -> Vec<(usize, String)> {
        let shares = text::decimals(&self.sampling).into_iter().enumerate();
        shares.filter(|(i, share)| self.sampling[*i] > 0.0 && share != text::ZERO).collect()
    }

    /// What was verified, and that another program knows no objective, as lines behind `#`.
    pub(super) fn comments(&self, knobs: Knobs) -> String {
        let mut text = match self.verified {
            Verified::Better { by, within } => format!(
                "# cuvee search: verified better than uniform by {by:.4} ± {within:.4} nats a token\n"
            ),
            Verified::No => "# cuvee search: not verified\n".to_owned(),
        };
        if self.has_two_knobs() && knobs == Knobs::Sampling {
            text.push_str("# sampling alone: this program has no weights for the objective\n");
        }
        text
    }
}

/// What a program can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knobs {
    Sampling,
    Both,
}

/// A row of the table.
pub struct FormatEntry {
    /// What the command line calls it.
    pub name: &'static str,
    /// What it is for, in a line.
    pub summary: &'static str,
    /// What the program's weights count, and when that is tokens.
    pub semantics: &'static str,
    /// How a file of it ends, without the dot.
    pub extension: &'static str,
    /// Writes it.
    pub render: fn(&Output) -> String,
}
