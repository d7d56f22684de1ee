//! Documents counted against a limit.
//!
//! In: a [`Limit`], and then one document after another. Out: whether that was enough. The document
//! that reaches the limit is the last, so a limit in bytes may be passed by less than a document;
//! nothing after it needs to be looked at.

use crate::spec::limit::Limit;

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
    use super::*;
    use Limit::{Bytes, Documents};

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
