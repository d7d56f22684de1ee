//! How much of a source is taken: its first documents, so many of them or so many bytes of text.
//!
//! In: `"200MB"` or `"100k docs"`, as the config has it, and then one document after another. Out:
//! whether that was enough. The document that reaches the limit is the last, so it may be passed by
//! less than a document; nothing after it needs to be looked at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A share of a source, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Limit {
    /// Bytes of text in UTF-8: `"200MB"` (10⁶), also `kB`, `GB`, `TB`, or a plain number.
    Bytes(u64),
    /// Documents, with or without text: `"100k docs"`, also `M` and `B` (10⁹), or a plain number
    /// and the word.
    Documents(u64),
}

/// A limit as it stands in a config.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a size such as \"200MB\", or a number of documents such as \"100k docs\""
)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Limit {
    type Error = String;

    fn try_from(written: Written) -> Result<Limit, String> {
        match written {
            Written::Number(bytes) => bytes.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

/// The suffixes of numbers, as they are read and written.
const SCALES: [(&str, u64); 4] =
    [("t", 1_000_000_000_000), ("b", 1_000_000_000), ("m", 1_000_000), ("k", 1_000)];

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let plain = text.trim().replace('_', "").to_ascii_lowercase();
        let documents = ["documents", "document", "docs", "doc"]
            .iter()
            .find_map(|word| plain.strip_suffix(word));
        let limit = match documents {
            Some(count) => number(count, "b").map(Limit::Documents),
            None => number(plain.strip_suffix('b').unwrap_or(&plain), "g").map(Limit::Bytes),
        };
        limit.filter(|limit| !matches!(limit, Limit::Bytes(0) | Limit::Documents(0))).ok_or_else(|| {
            format!("expected a size such as \"200MB\", or a number of documents such as \"100k docs\", found \"{text}\"")
        })
    }
}

/// Digits, perhaps a fraction, perhaps a suffix; 10⁹ is called `giga`. In integers: 1.005 · 10⁶ is
/// not whole in floating point.
fn number(text: &str, giga: &str) -> Option<u64> {
    let text = text.trim();
    let scale = SCALES.iter().find_map(|(name, scale)| {
        let name = if *name == "b" { giga } else { name };
        Some((text.strip_suffix(name)?.trim_end(), *scale))
    });
    let (digits, scale) = scale.unwrap_or((text, 1));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let parts = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let of_part = scale.is_multiple_of(parts).then_some(scale / parts)?;
    let rest =
        if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.checked_mul(of_part)? };
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(rest)
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, names, unit) = match self {
            Limit::Bytes(count) => (*count, ["T", "G", "M", "k"], "B"),
            Limit::Documents(count) => (*count, ["T", "B", "M", "k"], " docs"),
        };
        let scale = SCALES.iter().zip(names).find(|((_, scale), _)| count.is_multiple_of(*scale));
        match scale {
            Some(((_, scale), name)) => write!(f, "{}{name}{unit}", count / scale),
            None => write!(f, "{count}{unit}"),
        }
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

/// Counts documents against a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter(Option<Limit>);

impl Meter {
    /// Without a limit, nothing is ever enough.
    pub(crate) fn new(limit: Option<Limit>) -> Meter {
        Meter(limit)
    }

    /// Goes on after so many documents of so many bytes of text together.
    pub(crate) fn after(limit: Option<Limit>, documents: u64, bytes: u64) -> Meter {
        Meter(limit.map(|limit| match limit {
            Limit::Bytes(left) => Limit::Bytes(left.saturating_sub(bytes)),
            Limit::Documents(left) => Limit::Documents(left.saturating_sub(documents)),
        }))
    }

    /// Takes one more document, of so many bytes of text. Whether that was the last.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        match &mut self.0 {
            None => {}
            Some(Limit::Bytes(left)) => *left = left.saturating_sub(bytes),
            Some(Limit::Documents(left)) => *left = left.saturating_sub(1),
        }
        self.is_full()
    }

    /// Whether no more is to be taken.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.0, Some(Limit::Bytes(0) | Limit::Documents(0)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use Limit::{Bytes, Documents};

    #[test]
    fn limits_read_as_people_write_them_and_back() {
        for (text, limit, written) in [
            ("200MB", Bytes(200_000_000), "200MB"),
            ("1.5 GB", Bytes(1_500_000_000), "1500MB"),
            ("10kB", Bytes(10_000), "10kB"),
            ("2 TB", Bytes(2_000_000_000_000), "2TB"),
            ("1.005M", Bytes(1_005_000), "1005kB"),
            ("1_001", Bytes(1001), "1001B"),
            ("7b", Bytes(7), "7B"),
            ("100k docs", Documents(100_000), "100k docs"),
            ("1M docs", Documents(1_000_000), "1M docs"),
            ("1.5Bdocs", Documents(1_500_000_000), "1500M docs"),
            ("1 doc", Documents(1), "1 docs"),
            ("12 documents", Documents(12), "12 docs"),
        ] {
            assert_eq!(text.parse::<Limit>(), Ok(limit), "{text}");
            assert_eq!(limit.to_string(), written);
            assert_eq!(written.parse::<Limit>(), Ok(limit), "{written}");
        }
        assert_eq!(serde_json::from_str::<Limit>("1000").unwrap(), Bytes(1000));
        assert_eq!(serde_json::to_string(&Documents(3000)).unwrap(), "\"3k docs\"");
    }

    #[test]
    fn what_is_no_limit_is_refused_in_words() {
        for text in [
            "",
            "docs",
            "-1MB",
            "1e6",
            "0",
            "0 docs",
            "1.5",
            "1.0005k docs",
            "5 MiB",
            "MB",
            "99999999TB",
            "many",
        ] {
            let error = text.parse::<Limit>().unwrap_err();
            assert!(
                error.contains("such as \"200MB\"") && error.contains(&format!("\"{text}\"")),
                "{error}"
            );
        }
        let error = serde_json::from_str::<Limit>("[1]").unwrap_err().to_string();
        assert!(error.contains("expected a size such as"), "{error}");
    }

    #[test]
    fn the_document_that_reaches_the_limit_is_the_last() {
        let taken = |limit: Option<Limit>, sizes: &[u64]| {
            let mut meter = Meter::new(limit);
            sizes.iter().position(|bytes| meter.take(*bytes)).map_or(sizes.len(), |last| last + 1)
        };
        let sizes = [40, 0, 60, 10];
        assert_eq!(taken(None, &sizes), 4);
        assert_eq!(taken(Some(Bytes(40)), &sizes), 1);
        assert_eq!(taken(Some(Bytes(41)), &sizes), 3);
        assert_eq!(taken(Some(Bytes(1000)), &sizes), 4);
        assert_eq!(taken(Some(Documents(2)), &sizes), 2);
    }
}
