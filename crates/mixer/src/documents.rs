//! The documents of a domain in another order each epoch: which tokens of which documents a window
//! holds.
//!
//! In: (seed, domain *name*, number of documents, their lengths), an epoch, and a range of the
//! epoch's stream, which is all documents one after another in that order. Out: the pieces of
//! documents that make up the range. The order itself is a keyed permutation that is computed and
//! not stored. What is held is one number of 8 bytes a document: where it ends in the epoch's
//! stream. They are added up when an epoch begins, which takes some 100 ns a document.
//!
//! [`WindowOrder`](crate::WindowOrder) cuts the stream of T tokens into windows and visits them in
//! an order of its own, whatever order the documents in it have; so the two go together.

use crate::order::permute;
use crate::seed::{self, CounterRng};

/// The orders of a domain's documents.
#[derive(Clone, Copy, Debug)]
pub struct DocumentOrder {
    rng: CounterRng,
    documents: u64,
}

/// A domain's stream in one epoch.
#[derive(Clone, Debug)]
pub struct EpochDocuments {
    epoch: u64,
    keys: CounterRng,
    /// Where the document at each place ends, in tokens from the stream's first.
    ends: Vec<u64>,
}

/// Tokens of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The document's number.
    pub document: u64,
    /// Its first token here, counted from the document's own first.
    pub from: u64,
    /// How many.
    pub tokens: usize,
}

impl DocumentOrder {
    /// The orders of the `documents` documents of the domain `name` under a root seed.
    pub fn new(seed: u64, name: &str, documents: u64) -> Self {
        let rng = CounterRng::new(seed::derive(seed::derive(seed, seed::DOCUMENTS), name));
        Self { rng, documents }
    }

    /// The stream of `epoch`. `length` tells of each document how many tokens it has.
    pub fn epoch(&self, epoch: u64, length: impl Fn(u64) -> u64) -> EpochDocuments {
        let keys = self.rng.nested(epoch);
        let mut end = 0u64;
        let ends = (0..self.documents).map(|place| {
            end = end.saturating_add(length(permute(&keys, self.documents, place)));
            end
        });
        EpochDocuments { epoch, keys, ends: ends.collect() }
    }
}

impl EpochDocuments {
    /// Bytes held for so many documents.
    pub const fn bytes(documents: u64) -> u64 {
        documents.saturating_mul(8)
    }

    /// Which epoch's it is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The pieces that hold `count` tokens from token `start` on. The stream is a circle: behind
    /// the last document comes the first. There are none in a stream without tokens.
    pub fn pieces(&self, start: u64, count: usize) -> impl Iterator<Item = Piece> {
        let tokens = self.tokens();
        let mut at = start.checked_rem(tokens).unwrap_or(0);
        let mut place = self.ends.partition_point(|end| *end <= at);
        let mut left = if tokens == 0 { 0 } else { count };
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            if at == tokens {
                at = 0;
                place = self.ends.partition_point(|end| *end == 0);
            }
            // One without tokens ends where the one before it does, and is passed over.
            let (begin, end) = (place.checked_sub(1).map_or(0, |p| self.ends[p]), self.ends[place]);
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(left);
            let piece = Piece {
                document: permute(&self.keys, self.ends.len() as u64, place as u64),
                from: at - begin,
                tokens: take,
            };
            (at, left) = (at + take as u64, left - take);
            while self.ends.get(place).is_some_and(|end| *end <= at) {
                place += 1;
            }
            Some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::WindowOrder;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stream(seed: u64, epoch: u64, lengths: &[u64]) -> EpochDocuments {
        let order = DocumentOrder::new(seed, "web", lengths.len() as u64);
        order.epoch(epoch, |document| lengths[document as usize])
    }

    /// Which documents come one after another.
    fn order(stream: &EpochDocuments) -> Vec<u64> {
        stream.pieces(0, stream.tokens() as usize).map(|piece| piece.document).collect()
    }

    proptest! {
        #[test]
        fn an_epoch_is_every_document_once_and_whole(
            lengths in prop::collection::vec(0u64..40, 0..60), seed: u64, epoch in 0u64..9,
        ) {
            let stream = stream(seed, epoch, &lengths);
            let total: u64 = lengths.iter().sum();
            prop_assert_eq!((stream.epoch(), stream.tokens()), (epoch, total));
            let mut seen = BTreeMap::new();
            for piece in stream.pieces(0, total as usize) {
                prop_assert_eq!(piece.from, 0);
                prop_assert_eq!(piece.tokens as u64, lengths[piece.document as usize]);
                prop_assert!(seen.insert(piece.document, piece.tokens).is_none());
            }
            let with_tokens = lengths.iter().filter(|length| **length > 0).count();
            prop_assert_eq!(seen.len(), with_tokens);
        }

        #[test]
        fn any_range_is_that_part_of_the_circle(
            lengths in prop::collection::vec(0u64..20, 1..30), seed: u64,
            start in 0u64..900, count in 0usize..500,
        ) {
            let stream = stream(seed, 3, &lengths);
            let tokens = |start: u64, count: usize| -> Vec<(u64, u64)> {
                let each = |piece: Piece| {
                    (0..piece.tokens as u64).map(move |i| (piece.document, piece.from + i))
                };
                stream.pieces(start, count).flat_map(each).collect()
            };
            let whole = tokens(0, stream.tokens() as usize);
            let expected: Vec<_> = match whole.is_empty() {
                true => Vec::new(),
                false => whole.iter().cycle().skip(start as usize).take(count).copied().collect(),
            };
            prop_assert_eq!(tokens(start, count), expected);
            // No piece is empty, and none goes on where the one before it ended in one document.
            prop_assert!(stream.pieces(start, count).all(|piece| piece.tokens > 0));
        }

        #[test]
        fn the_windows_of_an_epoch_hold_each_token_of_each_document_once(
            lengths in prop::collection::vec(1u64..50, 1..20), context in 1usize..30, seed: u64,
        ) {
            let total: u64 = lengths.iter().sum();
            prop_assume!(total > context as u64);
            let windows = WindowOrder::new(seed, "web", total, context);
            for epoch in 0..3 {
                let stream = stream(seed, epoch, &lengths);
                let mut targets = BTreeMap::new();
                for n in 0..windows.windows() {
                    let window = windows.window(epoch * windows.windows() + n);
                    prop_assert_eq!(window.epoch, epoch);
                    for piece in stream.pieces(window.start + 1, context) {
                        for token in piece.from..piece.from + piece.tokens as u64 {
                            *targets.entry((piece.document, token)).or_insert(0) += 1;
                        }
                    }
                }
                // All but the remainder, which the grid's shift moves about.
                prop_assert!(targets.values().all(|count| *count == 1));
                let left = total - targets.len() as u64;
                prop_assert_eq!(left, total % context as u64);
            }
        }
    }

    #[test]
    fn epochs_seeds_and_names_have_other_orders_and_the_same_one_always_the_same() {
        let lengths = vec![3; 200];
        let base = order(&stream(1, 0, &lengths));
        assert_eq!(order(&stream(1, 0, &lengths)), base);
        let code = DocumentOrder::new(1, "code", 200).epoch(0, |_| 3);
        for other in [order(&stream(1, 1, &lengths)), order(&stream(2, 0, &lengths)), order(&code)]
        {
            // Poisson(1) places agree by chance: 12 or more have probability below 10⁻⁸.
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 12, "{same} of 200 in the same place");
        }
        assert!(base.windows(2).any(|pair| pair[1] < pair[0]), "the first epoch's is no file's");
    }

    #[test]
    fn small_and_empty_domains_have_their_streams() {
        let one = stream(5, 7, &[4]);
        let tokens: Vec<_> = one.pieces(3, 6).map(|piece| (piece.from, piece.tokens)).collect();
        assert_eq!(tokens, [(3, 1), (0, 4), (0, 1)]);
        assert_eq!(stream(5, 7, &[]).pieces(0, 10).count(), 0);
        assert_eq!(stream(5, 7, &[0, 0]).pieces(9, 10).count(), 0);
        let gap = stream(5, 7, &[0, 2, 0]);
        assert_eq!(
            gap.pieces(1, 2).map(|p| (p.document, p.from)).collect::<Vec<_>>(),
            [(1, 1), (1, 0)]
        );
    }

    #[test]
    fn the_order_of_documents_is_pinned() {
        // Golden: a change here silently reorders the data of every existing checkpoint.
        assert_eq!(order(&stream(42, 1, &[1; 8])), PINNED);
    }

    // From the same formulas written in Python with 64-bit masks.
    const PINNED: [u64; 8] = [2, 4, 7, 3, 6, 0, 5, 1];
}
