//! Damage done on purpose, to study how a mixture deals with a bad domain.
//!
//! In: a document's tokens and its identity. Out: the same tokens, a share of them in random places
//! of the document. The multiset of tokens, the length and the end-of-text stay: what is lost is
//! order, which is what a language model learns beyond frequencies. A pure function of the
//! document, so it is the same in every run. Only what is trained on and steered by is damaged;
//! `valid` stays clean, since it says how good the model is.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::id::DocumentId;
use crate::spec::corrupt::CorruptSpec;

/// Damages the tokens of document `id` (its end-of-text not among them).
pub(crate) fn damage(spec: &CorruptSpec, tokens: &mut [u32], id: DocumentId) {
    // Two streams of numbers that depend on the document alone: one draws the positions, one their
    // order.
    let seed = (id.0 as u64) ^ ((id.0 >> 64) as u64);
    let draw =
        |stream: u64, at: usize| xxh3_64_with_seed(&(at as u64).to_le_bytes(), seed ^ stream);
    // The top 53 bits as a number in 0..1, exact in f64.
    let chosen =
        |at: &usize| (draw(1, *at) >> 11) as f64 / (1u64 << 53) as f64 <= spec.shuffle_tokens;
    let places: Vec<usize> = match spec.shuffle_tokens {
        0.0 => Vec::new(),
        _ => (0..tokens.len()).filter(chosen).collect(),
    };
    // Fisher and Yates, over the places drawn.
    for last in (1..places.len()).rev() {
        let other = ((u128::from(draw(2, last)) * (last as u128 + 1)) >> 64) as usize;
        tokens.swap(places[last], places[other]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn damaged(share: f64, tokens: &[u32], text: &str) -> Vec<u32> {
        let mut out = tokens.to_vec();
        damage(&CorruptSpec { shuffle_tokens: share }, &mut out, DocumentId::of(text));
        out
    }

    proptest! {
        #[test]
        fn tokens_change_places_and_nothing_else(share in 0.0f64..=1.0, tokens in prop::collection::vec(0u32..50, 0..300), text in ".{0,8}") {
            let mut out = damaged(share, &tokens, &text);
            prop_assert_eq!(&out, &damaged(share, &tokens, &text), "the same in every run");
            let mut sorted = tokens.clone();
            sorted.sort_unstable();
            out.sort_unstable();
            prop_assert_eq!(out, sorted);
        }
    }

    #[test]
    fn the_share_of_moved_tokens_is_the_one_asked_for() {
        let tokens: Vec<u32> = (0..20_000).collect();
        for share in [0.0, 0.25, 0.5, 1.0] {
            let moved =
                damaged(share, &tokens, "text").iter().zip(&tokens).filter(|(a, b)| a != b).count()
                    as f64;
            // Binomial, five standard deviations; and of those drawn, one on average keeps its
            // place (within 10).
            let (n, deviation) = (tokens.len() as f64, (20_000.0 * share * (1.0 - share)).sqrt());
            assert!(
                (moved - n * share).abs() <= 5.0 * deviation + 10.0 * f64::from(share > 0.0),
                "{share}: {moved}"
            );
        }
        assert_eq!(damaged(0.0, &tokens, "text"), tokens);
        assert_ne!(
            damaged(1.0, &tokens, "text"),
            damaged(1.0, &tokens, "other"),
            "each document its own order"
        );
    }
}
