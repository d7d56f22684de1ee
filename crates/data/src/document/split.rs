//! Which split a document belongs to: a pure function of its identity.
//!
//! In: a document's text and, where asked for, the value it must stay together with. Out:
//! [`Split`]. Neither the order of the documents nor the presence of others enters, so adding
//! documents never moves one, and exact duplicates always share a split. Shares hold in
//! expectation over split units, not over tokens.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::id::DocumentId;
use crate::error::{DataError, Result};
use crate::spec::SplitSpec;

/// Part of the format: another value would move documents between the splits of existing shards.
const SALT: u64 = 0x6375_7665_655f_7631; // "cuvee_v1"

/// What a document is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Held out for the statistics that strategies steer by.
    Tune,
    /// Held out, reported, and never steered by.
    Valid,
}

impl Split {
    /// All three, in the order of the files.
    pub const ALL: [Split; 3] = [Split::Train, Split::Tune, Split::Valid];

    /// The name of the split and of its files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Tune => "tune",
            Split::Valid => "valid",
        }
    }

    /// The place in [`Split::ALL`].
    pub(crate) fn number(self) -> usize {
        match self {
            Split::Train => 0,
            Split::Tune => 1,
            Split::Valid => 2,
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl SplitSpec {
    /// Checks that both shares are from 0 to 1, together too. With nothing left to train on, a
    /// model can still be evaluated.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn check(&self) -> Result<()> {
        for (key, share) in [("data.split.tune", self.tune), ("data.split.valid", self.valid)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(DataError::Spec {
                    key: key.to_owned(),
                    expected: "a share from 0 to 1".to_owned(),
                    found: share.to_string(),
                    hint: "shares are parts of the documents, as 0.05".to_owned(),
                });
            }
        }
        if self.tune + self.valid > 1.0 {
            return Err(DataError::Spec {
                key: "data.split".to_owned(),
                expected: "tune + valid at most 1".to_owned(),
                found: format!("{} + {}", self.tune, self.valid),
                hint: "what they leave is for training".to_owned(),
            });
        }
        Ok(())
    }

    /// The split of a document with this identity, or with this value of `split_by`.
    pub(crate) fn of(&self, id: DocumentId, unit: Option<&str>) -> Split {
        let hash = match unit {
            Some(unit) => xxh3_64_with_seed(unit.as_bytes(), SALT),
            None => xxh3_64_with_seed(&id.0.to_le_bytes(), SALT),
        };
        // The top 53 bits as a number in 0..1, exact in f64.
        let place = (hash >> 11) as f64 / (1u64 << 53) as f64;
        // `valid` takes the bottom of the range, so that a change of `tune` leaves it as it is.
        if place < self.valid {
            Split::Valid
        } else if place < self.valid + self.tune {
            Split::Tune
        } else {
            Split::Train
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn split_of_a_text_is_fixed_for_ever() {
        // Other values would move the documents of existing shards. Made with Python:
        //   i = xxhash.xxh3_128_intdigest(s.encode())
        //   h = xxhash.xxh3_64_intdigest(i.to_bytes(16, "little"), seed=0x63757665655f7631)
        //   p = (h >> 11) / 2**53; "valid" if p < .3 else "tune" if p < .6 else "train"
        let spec = SplitSpec { tune: 0.3, valid: 0.3 };
        let splits = ["", "a", "b", "f", "g", "h"].map(|text| spec.of(DocumentId::of(text), None));
        use Split::{Train, Tune, Valid};
        assert_eq!(splits, [Train, Valid, Valid, Train, Valid, Tune]);
        assert_eq!(DocumentId::of("a").0, 0xa96f_af70_5af1_6834_e6c6_32b6_1e96_4e1f);
    }

    #[test]
    fn shares_hold() {
        let spec = SplitSpec { tune: 0.02, valid: 0.05 };
        let mut counts = [0u32; 3];
        for i in 0..40_000 {
            counts[spec.of(DocumentId::of(&i.to_string()), None).number()] += 1;
        }
        // Binomial: σ = √(n p (1 − p)) is 28 for tune and 44 for valid; five of them.
        assert!((counts[1] as f64 - 800.0).abs() < 140.0, "{counts:?}");
        assert!((counts[2] as f64 - 2000.0).abs() < 220.0, "{counts:?}");
    }

    #[test]
    fn impossible_shares_are_refused() {
        for (tune, valid) in [(-0.1, 0.1), (0.1, 1.1), (0.5, 0.6), (f64::NAN, 0.1)] {
            let error = SplitSpec { tune, valid }.check().unwrap_err().to_string();
            assert!(error.contains("data.split") && error.contains("hint: "), "{error}");
        }
        SplitSpec::default().check().unwrap();
        SplitSpec { tune: 0.0, valid: 0.0 }.check().unwrap();
        SplitSpec { tune: 0.0, valid: 1.0 }.check().unwrap();
    }

    proptest! {
        #[test]
        fn changing_tune_leaves_valid(text in ".*", tune in 0.0..0.4f64, other in 0.0..0.4f64) {
            let id = DocumentId::of(&text);
            let first = SplitSpec { tune, valid: 0.5 }.of(id, None);
            let second = SplitSpec { tune: other, valid: 0.5 }.of(id, None);
            prop_assert_eq!(first == Split::Valid, second == Split::Valid);
        }

        #[test]
        fn units_stay_together(a in ".*", b in ".*", unit in ".*") {
            let spec = SplitSpec { tune: 0.3, valid: 0.3 };
            let of = |text: &str| spec.of(DocumentId::of(text), Some(&unit));
            prop_assert_eq!(of(&a), of(&b));
        }
    }
}
