//! Quantities as people write them: `"200MB"` of text, `"50M"` tokens; and bytes in words.
//!
//! One grammar reads them all: digits, perhaps underscores, perhaps a fraction, perhaps a decimal
//! suffix. The arithmetic is in integers, since 1.005 · 10⁶ is not whole in floating point; a value
//! that is not a whole number of 64 bits is refused. What the suffixes are called differs: 10⁹ is
//! `G` of bytes and `B` of anything else.
//!
//! ```
//! use cuvee_data::units::{parse_bytes, parse_count};
//! assert_eq!(parse_bytes("1.5 GB"), Some(1_500_000_000));
//! assert_eq!(parse_count("1.5B"), Some(1_500_000_000));
//! assert_eq!(parse_count("1.5"), None);
//! ```

use serde::{Deserialize, Serialize};

/// 10¹², 10⁹, 10⁶ and 10³.
const SCALES: [u64; 4] = [1_000_000_000_000, 1_000_000_000, 1_000_000, 1_000];

/// A number of bytes: digits, with or without a suffix `kB`, `MB`, `GB` or `TB` (powers of ten) in
/// letters of any case, whose `B` may be left out; `None` for anything else.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    scaled(text.strip_suffix(['b', 'B']).unwrap_or(text), |suffix| match suffix {
        't' | 'T' => Some(SCALES[0]),
        'g' | 'G' => Some(SCALES[1]),
        'm' | 'M' => Some(SCALES[2]),
        'k' | 'K' => Some(SCALES[3]),
        _ => None,
    })
}

/// A count: digits, with or without a suffix `k`, `M`, `B` (or `G`) or `T`; `None` for anything
/// else. A small `m` is refused, since it could stand for a thousandth.
pub fn parse_count(text: &str) -> Option<u64> {
    scaled(text, |suffix| match suffix {
        'T' => Some(SCALES[0]),
        'B' | 'G' => Some(SCALES[1]),
        'M' => Some(SCALES[2]),
        'k' | 'K' => Some(SCALES[3]),
        _ => None,
    })
}

/// Digits and perhaps a suffix of the scale that `scale_of` gives.
fn scaled(text: &str, scale_of: impl Fn(char) -> Option<u64>) -> Option<u64> {
    let plain = text.trim().replace('_', "");
    let suffix = plain.char_indices().next_back();
    let suffixed = suffix.and_then(|(at, suffix)| Some((&plain[..at], scale_of(suffix)?)));
    let (digits, scale) = suffixed.unwrap_or((&plain, 1));
    decimal(digits.trim_end(), scale)
}

/// `digits`, with or without a fraction, times `scale`; `None` unless that is a whole number of 64
/// bits.
fn decimal(digits: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let number = |text: &str| match text {
        "" => Some(0),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u64>().ok(),
        _ => None,
    };
    if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Without its last zeros, a fraction times the scale is whole only if it has no more digits
    // than the scale has zeros.
    let parts = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let of_part = scale.is_multiple_of(parts).then_some(scale / parts)?;
    let rest = number(fraction)?.checked_mul(of_part)?;
    number(whole)?.checked_mul(scale)?.checked_add(rest)
}

/// A number in its shortest form without a fraction: how many of which suffix. `suffixes` are those
/// of 10¹², 10⁹, 10⁶ and 10³.
pub(crate) fn shortest(number: u64, suffixes: [&str; 4]) -> (u64, &str) {
    let scale = SCALES.iter().zip(suffixes).find(|(scale, _)| number.is_multiple_of(**scale));
    scale.map_or((number, ""), |(scale, suffix)| (number / scale, suffix))
}

/// Bytes in words: `1.2 MB`, `123 MB`, `12.3 GB`.
pub fn bytes_in_words(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A number of bytes in a config: a whole number, or text that [`parse_bytes`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BytesText", into = "u64")]
pub struct Bytes(pub u64);

/// A count in a config: a whole number, or text that [`parse_count`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CountText", into = "u64")]
pub struct Count(pub u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size: a number of bytes, or text such as \"200MB\"")]
enum BytesText {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a count: a whole number such as 50000000, or text such as \"50M\""
)]
enum CountText {
    Number(u64),
    Text(String),
}

impl TryFrom<BytesText> for Bytes {
    type Error = String;

    fn try_from(written: BytesText) -> Result<Bytes, String> {
        let text = match written {
            BytesText::Number(bytes) => return Ok(Bytes(bytes)),
            BytesText::Text(text) => text,
        };
        let bytes = parse_bytes(&text).map(Bytes);
        bytes.ok_or_else(|| format!("expected a size such as \"200MB\", found \"{text}\""))
    }
}

impl TryFrom<CountText> for Count {
    type Error = String;

    fn try_from(written: CountText) -> Result<Count, String> {
        let text = match written {
            CountText::Number(count) => return Ok(Count(count)),
            CountText::Text(text) => text,
        };
        let count = parse_count(&text).map(Count);
        count.ok_or_else(|| format!("expected a count such as \"50M\", found \"{text}\""))
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> u64 {
        bytes.0
    }
}

impl From<Count> for u64 {
    fn from(count: Count) -> u64 {
        count.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantities_are_exact_or_refused() {
        for (text, bytes) in [
            ("200MB", 200_000_000),
            ("1.5 gb", 1_500_000_000),
            ("10kB", 10_000),
            ("1.005M", 1_005_000), // 1.005 · 10⁶ = 1004999.9999999999 in f64
            ("1_001", 1001),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for (text, count) in [
            ("50M", 50_000_000),
            ("1.5B", 1_500_000_000),
            ("2T", 2_000_000_000_000),
            ("9007199.254740993B", 9_007_199_254_740_993), // 2⁵³ + 1
            (".5k", 500),
            ("3.0", 3),
        ] {
            assert_eq!(parse_count(text), Some(count), "{text}");
        }
        for text in ["", ".", "M", "-3", "+5", "1.5", "1e6", "5 MiB", "1.2.3M", "99999999TB", "é"]
        {
            assert_eq!((parse_bytes(text), parse_count(text)), (None, None), "{text}");
        }
        assert_eq!((parse_count("50m"), parse_count("50 MB")), (None, None));
    }

    #[test]
    fn configs_give_numbers_or_text() {
        let bytes = |text: &str| serde_json::from_str::<Bytes>(text);
        assert_eq!(bytes("\"2MB\"").unwrap(), bytes("2000000").unwrap());
        assert!(bytes("[1]").unwrap_err().to_string().contains("such as \"200MB\""));
        let count = |text: &str| serde_json::from_str::<Count>(text);
        assert_eq!(count("\"3k\"").unwrap(), Count(3000));
        assert_eq!(serde_json::to_string(&Count(3000)).unwrap(), "3000");
        assert!(count("\"many\"").unwrap_err().to_string().contains("found \"many\""));
    }

    #[test]
    fn bytes_are_told_with_two_or_three_digits() {
        let words = [1_234_567, 123_456_789, 12_345_678_901].map(bytes_in_words);
        assert_eq!(words, ["1.2 MB", "123 MB", "12.3 GB"]);
    }
}
