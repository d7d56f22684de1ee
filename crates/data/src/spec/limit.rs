//! How much of a source is taken: its first documents, so many of them or so many bytes of text.
//!
//! In: `"200MB"` or `"100k docs"`, as the config has it. Out: a [`Limit`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units;

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

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let lower = text.trim().to_ascii_lowercase();
        let words = ["documents", "document", "docs", "doc"];
        let documents = words.iter().find_map(|word| lower.strip_suffix(word));
        let limit = match documents {
            // The count's suffixes are capital letters, and here in any case.
            Some(count) => units::parse_count(&count.to_ascii_uppercase()).map(Limit::Documents),
            None => units::parse_bytes(&lower).map(Limit::Bytes),
        };
        let empty = |limit: &Limit| matches!(limit, Limit::Bytes(0) | Limit::Documents(0));
        limit.filter(|limit| !empty(limit)).ok_or_else(|| {
            format!(
                "expected a size such as \"200MB\", or a number of documents such as \"100k docs\", \
                 found \"{text}\""
            )
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, suffixes, unit) = match self {
            Limit::Bytes(bytes) => (*bytes, ["T", "G", "M", "k"], "B"),
            Limit::Documents(count) => (*count, ["T", "B", "M", "k"], " docs"),
        };
        let (number, suffix) = units::shortest(number, suffixes);
        write!(f, "{number}{suffix}{unit}")
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
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
}
