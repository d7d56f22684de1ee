//! Counts as people write them: `50000000`, `"50M"`, `"1.5B"`.
//!
//! Text and integers in, a whole number of 64 bits out. Nothing is rounded: what is not a whole
//! number is refused.

use std::fmt;
use std::str::FromStr;

use cuvee_data::units::parse_count;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// A count written as an integer or as text with a decimal suffix: `50000000`, `"50M"`, `"1.5B"`,
/// `"200k"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QuantityText", into = "u64")]
pub struct Quantity(pub u64);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a count: a whole number such as 50000000, or text such as \"50M\" or \"1.5B\""
)]
enum QuantityText {
    Number(u64),
    Text(String),
}

impl TryFrom<QuantityText> for Quantity {
    type Error = TrainError;

    fn try_from(raw: QuantityText) -> Result<Self> {
        match raw {
            QuantityText::Number(number) => Ok(Quantity(number)),
            QuantityText::Text(text) => text.parse(),
        }
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

impl FromStr for Quantity {
    type Err = TrainError;

    /// Reads what [`parse_count`] reads.
    fn from_str(text: &str) -> Result<Self> {
        parse_count(text).map(Quantity).ok_or_else(|| {
            TrainError::config(
                "quantity",
                "a whole number, or one with a suffix k, M, B or T",
                format!("`{text}`"),
                "write for example 50000000, \"50M\" or \"1.5B\"",
            )
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn quantities_read_integers_and_suffixes() {
        for (text, value) in [
            ("7", 7),
            ("50M", 50_000_000),
            ("1.5B", 1_500_000_000),
            ("200k", 200_000),
            ("1_000", 1000),
            ("2T", 2_000_000_000_000),
            ("1.005M", 1_005_000), // 1.005 · 10⁶ = 1004999.9999999999 in f64
            ("0.000_000_000_001T", 1),
            ("9007199.254740993B", 9_007_199_254_740_993), // 2^53 + 1
            (".5k", 500),
            ("3.0", 3),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().0, value, "{text}");
        }
        for text in [
            "",
            "M",
            "-3",
            "1.5",
            "1e6",
            "50 MB",
            "99999999999999999999",
            "99999999999999T",
            "1.2.3M",
            "é",
            ".",
            ".M",
            "1.0005k",
            "+5",
            "1.+5M",
            "0.1",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Quantity>("12").unwrap(), Quantity(12));
        assert_eq!(serde_json::from_str::<Quantity>("\"3M\"").unwrap(), Quantity(3_000_000));
    }
}
