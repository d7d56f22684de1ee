//! What is done to a text before anything else looks at it, each step only where the config asks
//! for it.
//!
//! In: a document's text. Out: the text that is counted, split, compared and tokenized, or why it
//! is left out. The order is fixed: carriage returns, normal form, blank texts, length. Everything
//! later (duplicates, the split's hash, the tokenizer, its training sample) sees what comes out of
//! here. Costs one pass over the bytes for each step that is on; a text that needs no change is not
//! copied.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::error::{DataError, Result};
use crate::spec::{NormalForm, SourceSpec};

/// The steps that are on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaning {
    strip_cr: bool,
    normalize: Option<NormalForm>,
    min_chars: u64,
    max_chars: Option<u64>,
}

/// What becomes of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    /// No text but white space.
    Empty,
    TooShort,
    TooLong,
}

/// What was changed in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) cr_stripped: bool,
    pub(crate) normalized: bool,
}

impl Cleaning {
    /// The steps that a config asks for.
    ///
    /// # Errors
    /// The lengths contradict each other.
    pub(crate) fn new(spec: &SourceSpec) -> Result<Cleaning> {
        let (min_chars, max_chars) = (spec.min_chars.unwrap_or(0), spec.max_chars);
        if let Some(max) = max_chars.filter(|max| *max < min_chars.max(1)) {
            return Err(DataError::Spec {
                key: "source.max_chars".to_owned(),
                expected: format!(
                    "at least {}, the shortest document that is kept",
                    min_chars.max(1)
                ),
                found: max.to_string(),
                hint:
                    "min_chars and max_chars bound a document's length in characters, both included"
                        .to_owned(),
            });
        }
        Ok(Cleaning { strip_cr: spec.strip_cr, normalize: spec.normalize, min_chars, max_chars })
    }

    /// The key of a step that changes texts, if one is on.
    pub(crate) fn changes_text(&self) -> Option<&'static str> {
        match (self.strip_cr, self.normalize) {
            (true, _) => Some("strip_cr"),
            (_, Some(_)) => Some("normalize"),
            _ => None,
        }
    }

    /// Applies all steps.
    pub(crate) fn apply(&self, text: &mut String) -> (Verdict, Changes) {
        let mut changes = Changes::default();
        if self.strip_cr && text.contains('\r') {
            *text = text.replace("\r\n", "\n").replace('\r', "\n");
            changes.cr_stripped = true;
        }
        if let Some(NormalForm::Nfc) = self.normalize
            && !text.is_ascii()
            && is_nfc_quick(text.chars()) != IsNormalized::Yes
        {
            let normal: String = text.nfc().collect();
            changes.normalized = normal != *text;
            *text = normal;
        }
        (self.verdict(text), changes)
    }

    fn verdict(&self, text: &str) -> Verdict {
        if text.trim().is_empty() {
            return Verdict::Empty;
        }
        let bytes = text.len() as u64;
        // A character has one to four bytes: most texts need not be counted.
        let counted = |bound: u64| bytes >= bound && bytes / 4 <= bound;
        let max = self.max_chars.unwrap_or(u64::MAX);
        let chars = match counted(self.min_chars) || counted(max) {
            true => text.chars().count() as u64,
            false if bytes < self.min_chars => 0,
            // More than the shortest; and either at most the longest in bytes already, or too long
            // at four bytes each.
            false if bytes < max => self.min_chars,
            false => max.saturating_add(1),
        };
        match () {
            () if chars < self.min_chars => Verdict::TooShort,
            () if chars > max => Verdict::TooLong,
            () => Verdict::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn cleaning(strip_cr: bool, nfc: bool, min: Option<u64>, max: Option<u64>) -> Cleaning {
        let normalize = nfc.then_some(NormalForm::Nfc);
        let spec = SourceSpec {
            strip_cr,
            normalize,
            min_chars: min,
            max_chars: max,
            ..SourceSpec::default()
        };
        Cleaning::new(&spec).unwrap()
    }

    fn cleaned(cleaning: Cleaning, text: &str) -> (String, Verdict, Changes) {
        let mut text = text.to_owned();
        let (verdict, changes) = cleaning.apply(&mut text);
        (text, verdict, changes)
    }

    #[test]
    fn nothing_is_done_unasked() {
        let text = "a\r\nb e\u{301}";
        assert_eq!(
            cleaned(Cleaning::default(), text),
            (text.to_owned(), Verdict::Kept, Changes::default())
        );
        assert_eq!(cleaned(Cleaning::default(), " \r\n").1, Verdict::Empty);
    }

    #[test]
    fn carriage_returns_become_line_feeds() {
        let (text, _, changes) = cleaned(cleaning(true, false, None, None), "a\r\nb\rc\r\r\nd\n");
        assert_eq!(text, "a\nb\nc\n\nd\n");
        assert_eq!(changes, Changes { cr_stripped: true, normalized: false });
    }

    #[test]
    fn nfc_composes_and_counts_only_what_changed() {
        let nfc = cleaning(false, true, None, None);
        assert_eq!(cleaned(nfc, "e\u{301}").0, "\u{e9}");
        assert!(cleaned(nfc, "e\u{301}").2.normalized);
        // The quick check says "maybe" for a lone combining mark after what it does not combine
        // with.
        for same in ["\u{e9}", "q\u{301}", "plain", "日本語"] {
            assert_eq!(
                cleaned(nfc, same),
                (same.to_owned(), Verdict::Kept, Changes::default()),
                "{same}"
            );
        }
    }

    #[test]
    fn lengths_are_those_after_the_changes() {
        // Four characters as they come, three after either change, two after both.
        let both = cleaning(true, true, Some(2), Some(2));
        assert_eq!(
            cleaned(both, "\r\ne\u{301}"),
            ("\n\u{e9}".to_owned(), Verdict::Kept, Changes { cr_stripped: true, normalized: true })
        );
        assert_eq!(
            cleaned(cleaning(true, false, None, Some(2)), "\r\ne\u{301}").1,
            Verdict::TooLong
        );
    }

    #[test]
    fn contradictory_lengths_are_refused() {
        for (min, max) in [(Some(10), Some(9)), (None, Some(0))] {
            let spec = SourceSpec { min_chars: min, max_chars: max, ..SourceSpec::default() };
            let error = Cleaning::new(&spec).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("source.max_chars"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_shortcut_counts_as_counting_does(text in "[aé日😀]{1,40}", min in 0u64..45, more in 0u64..45) {
            let max = (min + more).max(1);
            let count = text.chars().count() as u64;
            let expected = match count {
                count if count < min => Verdict::TooShort,
                count if count > max => Verdict::TooLong,
                _ => Verdict::Kept,
            };
            prop_assert_eq!(cleaned(cleaning(false, false, Some(min), Some(max)), &text).1, expected);
            let without = if count < min { Verdict::TooShort } else { Verdict::Kept };
            prop_assert_eq!(cleaned(cleaning(false, false, Some(min), None), &text).1, without);
        }
    }
}
