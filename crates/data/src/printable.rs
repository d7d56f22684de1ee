//! Names that data decides, short enough for a line.

use std::borrow::Cow;

use cuvee_words::printable;

/// Characters of a name that are shown at most.
const LONGEST: usize = 120;

/// A name on one line that is not too long for it: the end of a longer one gives way to a hash of
/// all of it, so that different names stay different.
pub(crate) fn short_name(name: &str) -> Cow<'_, str> {
    let shown = printable(name);
    if shown.chars().nth(LONGEST).is_none() {
        return shown;
    }
    let start: String = shown.chars().take(LONGEST - 10).collect();
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 32;
    Cow::Owned(format!("{start}…-{hash:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let (a, b) = ("ä".repeat(1_000) + "a", "ä".repeat(1_000) + "b");
        let (short_a, short_b) = (short_name(&a), short_name(&b));
        assert!(short_a.starts_with("ää") && short_a.chars().count() <= LONGEST, "{short_a}");
        assert_ne!(short_a, short_b);
        assert_eq!(short_a, short_name(&a));
    }
}
