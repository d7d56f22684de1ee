//! Why documents of a source cannot be used, and how many were left out for each reason.
//!
//! In: documents that a reader could make nothing of. Out: counts by reason, which `shard.json`
//! keeps, and a sentence for people with the first of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, OR_SKIP};

/// Why a document cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// NUL bytes in plain text.
    Nul,
    /// A text with half a surrogate pair in it.
    HalfSurrogate,
    /// A line that is not JSON.
    NotJson,
    /// A line of JSON that is no object.
    NotObject,
    /// A line that is longer than any may be.
    LongLine,
    /// No column of the text's name.
    MissingColumn,
    /// A text column that holds something else.
    NotText,
    /// A column of `split_by` or `domain_by` that is missing, null, or of a type that names
    /// nothing.
    Key,
}

/// Every reason with its name in `shard.json` and what people are told, in the order they are told.
const REASONS: [(Invalid, &str, &str); 9] = [
    (Invalid::NotUtf8, "not_utf8", "not UTF-8"),
    (Invalid::Nul, "nul", "with NUL bytes"),
    (Invalid::HalfSurrogate, "half_surrogate", "with half a surrogate pair"),
    (Invalid::NotJson, "not_json", "not JSON"),
    (Invalid::NotObject, "not_object", "JSON but no object"),
    (Invalid::LongLine, "long_line", "lines over 64 MiB"),
    (Invalid::MissingColumn, "missing_column", "without the text column"),
    (Invalid::NotText, "not_text", "with something else than text in its column"),
    (Invalid::Key, "key", "without a value to split or name domains by"),
];

/// How many documents were left out for each reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, u64>", into = "BTreeMap<String, u64>")]
pub struct InvalidCounts([u64; REASONS.len()]);

impl InvalidCounts {
    /// So many for one reason.
    pub fn of(reason: Invalid, count: u64) -> InvalidCounts {
        let mut counts = InvalidCounts::default();
        counts.add(reason, count);
        counts
    }

    /// So many more for a reason.
    pub fn add(&mut self, reason: Invalid, count: u64) {
        let sum = &mut self.0[reason as usize];
        *sum = sum.saturating_add(count);
    }

    /// How many there were for a reason.
    pub fn get(&self, reason: Invalid) -> u64 {
        self.0[reason as usize]
    }

    /// How many there were for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// "2 not JSON, 1 without the text column"; empty where there were none.
    pub fn in_words(&self) -> String {
        let there = REASONS.iter().filter(|(reason, ..)| self.get(*reason) > 0);
        let words = there.map(|(reason, _, words)| format!("{} {words}", self.get(*reason)));
        words.collect::<Vec<_>>().join(", ")
    }
}

impl std::ops::AddAssign for InvalidCounts {
    fn add_assign(&mut self, other: InvalidCounts) {
        // Saturating: a damaged record may say anything.
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(count, more)| *count = count.saturating_add(more));
    }
}

impl From<InvalidCounts> for BTreeMap<String, u64> {
    fn from(counts: InvalidCounts) -> Self {
        let there = REASONS.iter().filter(|(reason, ..)| counts.get(*reason) > 0);
        there.map(|(reason, name, _)| ((*name).to_owned(), counts.get(*reason))).collect()
    }
}

/// Reasons of a later version are passed over.
impl From<BTreeMap<String, u64>> for InvalidCounts {
    fn from(map: BTreeMap<String, u64>) -> Self {
        let count = |name: &str| map.get(name).copied().unwrap_or(0);
        InvalidCounts(REASONS.map(|(_, name, _)| count(name)))
    }
}

/// A document that cannot be used. What is said about it is made only where somebody asks: to know
/// a line's number, the lines before it may have to be counted.
pub(crate) struct Fault {
    pub(crate) reason: Invalid,
    error: Box<dyn FnOnce() -> DataError + Send>,
}

impl Fault {
    pub(crate) fn new(
        reason: Invalid,
        error: impl FnOnce() -> DataError + Send + 'static,
    ) -> Fault {
        Fault { reason, error: Box::new(error) }
    }

    /// What is to be said about it.
    pub(crate) fn into_error(self) -> DataError {
        (self.error)()
    }
}

/// Documents that were left out, and what is wrong with the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LeftOut {
    pub(crate) reasons: InvalidCounts,
    /// As the error would have said it.
    pub(crate) first: Option<String>,
}

impl LeftOut {
    /// One more.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.reasons.add(fault.reason, 1);
        if self.first.is_none() {
            self.first = Some(fault.into_error().to_string());
        }
    }

    /// Those of another that came after these.
    pub(crate) fn append(&mut self, later: LeftOut) {
        self.reasons += later.reasons;
        self.first = self.first.take().or(later.first);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// What is wrong with the first, and what to do about it but for leaving it out, which was
    /// done.
    pub(crate) fn first_and_hint(&self) -> Option<(&str, Option<&str>)> {
        let first = self.first.as_deref()?;
        let (cause, hint) = first.split_once("\nhint: ").unwrap_or((first, ""));
        Some((cause, hint.split_once(OR_SKIP).map(|(hint, _)| hint)))
    }

    /// The error of a domain of which nothing is left, with why: `invalid` of the `read` documents
    /// were left out as such, `empty` had no text.
    pub(crate) fn empty_domain(
        &self,
        domain: &str,
        files: usize,
        read: u64,
        empty: u64,
        invalid: u64,
    ) -> DataError {
        let with = |words: String, before: &str| match words.is_empty() {
            true => words,
            false => format!("{before}{words}"),
        };
        let (first, hint) = self.first_and_hint().unwrap_or_default();
        DataError::EmptyDomain {
            domain: domain.to_owned(),
            files,
            read,
            empty,
            invalid,
            reasons: with(self.reasons.in_words(), ": ").into(),
            first: with(first.to_owned(), "; the first of these: "),
            hint: hint.unwrap_or_else(|| self.usual_hint()).into(),
        }
    }

    /// What to do where the first says nothing of it.
    fn usual_hint(&self) -> &'static str {
        let bytes = [Invalid::NotUtf8, Invalid::Nul, Invalid::HalfSurrogate];
        match bytes.iter().any(|reason| self.reasons.get(*reason) > 0) {
            true => "convert the files to UTF-8, or set `on_invalid = \"replace\"`",
            false => "check the path and the text column",
        }
    }

    /// "3 invalid left out (2 not JSON, …; the first: …)", of `total` in all.
    pub(crate) fn in_words(&self, total: u64) -> String {
        let mut words = self.reasons.in_words();
        // A part that an older version began has no reasons for some.
        if let Some((first, _)) = self.first_and_hint() {
            words.push_str(&format!("; the first: {first}"));
        }
        match words.is_empty() {
            true => format!("{total} invalid left out"),
            false => format!("{total} invalid left out ({words})"),
        }
    }
}

/// The documents that a reader left out between two others, gathered on the thread that parses.
#[derive(Default)]
pub(crate) struct Skips {
    pub(crate) reasons: InvalidCounts,
    first: Option<Fault>,
}

impl Skips {
    /// One more.
    pub(crate) fn push(&mut self, fault: Fault) {
        self.reasons.add(fault.reason, 1);
        self.first.get_or_insert(fault);
    }

    /// Adds them to those before. What the first is like is asked for only if it is the first of
    /// all.
    pub(crate) fn add_to(self, all: &mut LeftOut) {
        all.reasons += self.reasons;
        if let (None, Some(fault)) = (&all.first, self.first) {
            all.first = Some(fault.into_error().to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counts_are_written_by_name_and_those_of_later_versions_are_passed_over() {
        for (number, (reason, ..)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        let mut counts = InvalidCounts::of(Invalid::Key, 2);
        counts.add(Invalid::NotJson, 1);
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(json, r#"{"key":2,"not_json":1}"#);
        let more = r#"{"key":2,"not_json":1,"of_another_colour":7}"#;
        assert_eq!(serde_json::from_str::<InvalidCounts>(more).unwrap(), counts);
        assert_eq!(counts.total(), 3);
        assert_eq!(counts.in_words(), "1 not JSON, 2 without a value to split or name domains by");
    }
}
