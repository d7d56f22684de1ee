//! One of several workers that prepare a corpus together: `2/4` is the second of four.
//!
//! In: what was typed. Out: which part of the work is meant. Numbers start at 1, as schedulers'
//! array jobs usually count.

use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More parts than this are taken for a mistake.
const MOST_PARTS: u32 = 10_000;

/// Part `number` of `of`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    number: u32,
    of: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Share = Share { number: 1, of: 1 };

    /// Part `number` of `of`; `None` unless `number` is in 1..=`of` and `of` at most 10,000.
    pub fn new(number: u32, of: u32) -> Option<Share> {
        ((1..=of).contains(&number) && of <= MOST_PARTS).then_some(Share { number, of })
    }

    /// Which part, from 1.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many parts there are.
    pub fn count(self) -> u32 {
        self.of
    }

    /// All parts of this many.
    pub(crate) fn all(of: u32) -> impl Iterator<Item = Share> {
        (1..=of).map(move |number| Share { number, of })
    }

    /// This part of `total` bytes. Those of all parts lie one behind another without gaps.
    pub(crate) fn of(self, total: u64) -> Range<u64> {
        // The product needs the wide type; the quotient fits again.
        let bound =
            |number: u32| (u128::from(total) * u128::from(number) / u128::from(self.of)) as u64;
        bound(self.number - 1)..bound(self.number)
    }

    /// Whether what begins at `start` and cannot be cut belongs to this part, whose range is
    /// `mine`. What begins at the very end (an empty file) belongs to the last.
    pub(crate) fn owns(self, mine: &Range<u64>, start: u64) -> bool {
        mine.contains(&start) || self.number == self.of && start >= mine.end
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| {
            Share::new(number.trim().parse().ok()?, of.trim().parse().ok()?)
        });
        parsed.ok_or_else(|| {
            format!(
                "expected I/N with 1 ≤ I ≤ N ≤ {MOST_PARTS}, as in 2/4 for the second of four; found `{text}`"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_is_refused_with_what_was_meant() {
        for wrong in ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/4", "1/4/2", "1/10001"] {
            let error = wrong.parse::<Share>().unwrap_err();
            assert!(error.contains("1 ≤ I ≤ N") && error.contains(wrong), "{error}");
        }
        let share: Share = "2/4".parse().unwrap();
        assert_eq!((share.number(), share.count(), share.to_string()), (2, 4, "2/4".to_owned()));
    }

    proptest! {
        #[test]
        fn parts_lie_one_behind_another(total in any::<u64>(), of in 1u32..200) {
            let ranges: Vec<_> = Share::all(of).map(|share| share.of(total)).collect();
            prop_assert_eq!(ranges[0].start, 0);
            prop_assert_eq!(ranges.last().unwrap().end, total);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start);
            }
            let owners = |at| Share::all(of).filter(|share| share.owns(&share.of(total), at)).count();
            prop_assert_eq!(owners(total), 1);
            prop_assert_eq!(owners(total / 2), 1);
        }
    }
}
