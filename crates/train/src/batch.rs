//! Token ids on their way from the shards to an engine.
//!
//! Draws and shards go in, a [`Batch`] comes out: one `[B, T + 1]` buffer of ids. A sequence's
//! inputs are the first T ids of its row and its targets the last T, so both are views of the row.
//! Lengths and ids are checked once, where the buffer is built; the engines trust it. (The fused
//! engine copies the ids of a micro-batch together for its kernels, which read `[b · T]`.)
//!
//! Costs one read of `B · (T + 1)` tokens out of the memory map. The next window is brought into
//! the caches meanwhile.

use std::ops::Range;

use cuvee_data::Shard;
use cuvee_mixer::{DomainId, Draw};

use crate::error::{Result, TrainError};

/// Sequences of token ids, `[B, T + 1]`, every id below `vocab_size`.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBuffer {
    ids: Vec<u32>,
    context: usize,
    vocab_size: usize,
}

/// A window of T + 1 tokens of a domain's circular stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// The split it lies in.
    pub(crate) shard: &'a Shard,
    /// Its first token.
    pub(crate) start: u64,
    /// The domain's name, for the error.
    pub(crate) domain: &'a str,
}

impl TokenBuffer {
    /// Sequences of `context` = T inputs each, row after row in `ids`, `[B, T + 1]`; B may be 0.
    ///
    /// # Errors
    /// [`TrainError::Batch`] for a T of 0 or a row that is not whole, [`TrainError::TokenId`] for
    /// an id that is not below `vocab_size`.
    pub fn new(ids: Vec<u32>, context: usize, vocab_size: usize) -> Result<Self> {
        let refuse = |what, expected, found| Err(TrainError::Batch { what, expected, found });
        let row = match context.checked_add(1) {
            Some(row) if context > 0 => row,
            Some(_) => return refuse("token or more in a sequence", 1, 0),
            None => return refuse("tokens or fewer in a sequence", usize::MAX - 1, context),
        };
        if !ids.len().is_multiple_of(row) {
            let expected = ids.len().div_ceil(row) * row;
            return refuse("token ids", expected, ids.len());
        }
        check_ids(&ids, row, vocab_size)?;
        Ok(Self { ids, context, vocab_size })
    }

    /// Reads `windows`, one row each, and checks every id against the vocabulary.
    pub(crate) fn read(windows: &[Window], context: usize, vocab_size: usize) -> Result<Self> {
        let row = context + 1;
        let mut ids = vec![0; windows.len() * row];
        for (index, (window, ids)) in windows.iter().zip(ids.chunks_exact_mut(row)).enumerate() {
            if let Some(next) = windows.get(index + 1) {
                next.shard.prefetch(next.start, row);
            }
            window.shard.read(window.start, ids);
            if let Some(at) = ids.iter().position(|&id| id as usize >= vocab_size) {
                return Err(TrainError::TokenOutOfVocabulary {
                    domain: window.domain.to_owned(),
                    position: window.start + at as u64,
                    id: ids[at],
                    vocab_size,
                });
            }
        }
        Ok(Self { ids, context, vocab_size })
    }

    /// Number of sequences, B.
    pub fn sequences(&self) -> usize {
        self.ids.len() / (self.context + 1)
    }

    /// Inputs of a sequence, T.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What every id is below.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The rows of some sequences, `[b, T + 1]`.
    pub fn rows(&self, sequences: Range<usize>) -> &[u32] {
        let row = self.context + 1;
        &self.ids[sequences.start * row..sequences.end * row]
    }

    /// The inputs of some sequences, `[T]` each.
    pub fn inputs(&self, sequences: Range<usize>) -> impl Iterator<Item = &[u32]> {
        self.rows(sequences).chunks_exact(self.context + 1).map(|row| &row[..self.context])
    }

    /// The targets of some sequences, `[T]` each: target t is the token that follows input t.
    pub fn targets(&self, sequences: Range<usize>) -> impl Iterator<Item = &[u32]> {
        self.rows(sequences).chunks_exact(self.context + 1).map(|row| &row[1..])
    }
}

/// One global batch: B ≥ 1 sequences, each with its domain and multiplier.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[B, T + 1]`.
    pub(crate) tokens: TokenBuffer,
    /// `[B]`; engines read them for the gradient statistics alone.
    pub(crate) domains: Vec<DomainId>,
    /// m_b, `[B]`.
    pub(crate) multipliers: Vec<f64>,
}

impl Batch {
    /// A batch of the sequences in `tokens`. `domains[b]` says where sequence b comes from,
    /// `multipliers[b]` is m_b, what its loss is multiplied by in the objective (1/B) Σ_b m_b ℓ_b.
    ///
    /// # Errors
    /// [`TrainError::Batch`] for no sequence, or lists of another length than the sequences'.
    pub fn new(tokens: TokenBuffer, domains: Vec<DomainId>, multipliers: Vec<f64>) -> Result<Self> {
        let sequences = tokens.sequences();
        if sequences == 0 {
            return Err(TrainError::Batch { what: "sequence or more", expected: 1, found: 0 });
        }
        for (what, found) in [("domains", domains.len()), ("multipliers", multipliers.len())] {
            if found != sequences {
                return Err(TrainError::Batch { what, expected: sequences, found });
            }
        }
        Ok(Self { tokens, domains, multipliers })
    }

    /// The ids, `[B, T + 1]`.
    pub fn tokens(&self) -> &TokenBuffer {
        &self.tokens
    }

    /// The domain of each sequence, `[B]`.
    pub fn domains(&self) -> &[DomainId] {
        &self.domains
    }

    /// What each sequence's loss is multiplied by, `[B]`.
    pub fn multipliers(&self) -> &[f64] {
        &self.multipliers
    }

    /// Its sequences of one domain, each counting once; `None` where it has none.
    pub(crate) fn of_domain(&self, domain: DomainId) -> Option<Self> {
        let own: Vec<usize> =
            (0..self.sequences()).filter(|&b| self.domains[b] == domain).collect();
        let TokenBuffer { context, vocab_size, .. } = self.tokens;
        let ids = own.iter().flat_map(|&b| self.tokens.rows(b..b + 1)).copied().collect();
        (!own.is_empty()).then(|| Self {
            tokens: TokenBuffer { ids, context, vocab_size },
            domains: vec![domain; own.len()],
            multipliers: vec![1.0; own.len()],
        })
    }

    /// Weighs the sequences anew: as `draws` say, of which they were read.
    pub(crate) fn reweigh(&mut self, draws: &[Draw]) {
        for (multiplier, draw) in self.multipliers.iter_mut().zip(draws) {
            *multiplier = draw.multiplier;
        }
    }

    /// Number of sequences, B.
    pub fn sequences(&self) -> usize {
        self.domains.len()
    }

    /// Inputs of a sequence, T.
    pub fn context(&self) -> usize {
        self.tokens.context
    }

    /// Tokens predicted, B·T.
    pub fn predicted_tokens(&self) -> u64 {
        self.sequences() as u64 * self.context() as u64
    }
}

/// Reads the windows that `draws` name.
///
/// `shards[i]` and `names[i]` are the training split and the name of domain i, for every domain the
/// mixer knows.
///
/// # Errors
/// [`TrainError::TokenOutOfVocabulary`] when a shard holds an id that the model has no embedding
/// for; [`TrainError::Batch`] for no draw.
pub fn read_batch(
    draws: &[Draw],
    shards: &[&Shard],
    names: &[String],
    context: usize,
    vocab_size: usize,
) -> Result<Batch> {
    let window = |draw: &Draw| Window {
        shard: shards[draw.domain.0],
        start: draw.start,
        domain: &names[draw.domain.0],
    };
    let windows: Vec<Window> = draws.iter().map(window).collect();
    Batch::new(
        TokenBuffer::read(&windows, context, vocab_size)?,
        draws.iter().map(|draw| draw.domain).collect(),
        draws.iter().map(|draw| draw.multiplier).collect(),
    )
}

/// Checks that every id is below `vocab_size`; `row` ids make a sequence, for the error.
pub(crate) fn check_ids(ids: &[u32], row: usize, vocab_size: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(index) => Err(TrainError::TokenId {
            id: ids[index],
            sequence: index / row,
            position: index % row,
            vocab_size,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn inputs_and_targets_are_views_of_one_row() {
        let tokens = TokenBuffer::new(vec![1, 2, 3, 4, 5, 6, 7, 8], 3, 9).unwrap();
        assert_eq!((tokens.sequences(), tokens.context(), tokens.vocab_size()), (2, 3, 9));
        assert_eq!(tokens.inputs(0..2).collect::<Vec<_>>(), [[1, 2, 3], [5, 6, 7]]);
        assert_eq!(tokens.targets(0..2).collect::<Vec<_>>(), [[2, 3, 4], [6, 7, 8]]);
        assert_eq!(tokens.rows(1..2), [5, 6, 7, 8]);
        assert_eq!(TokenBuffer::new(Vec::new(), 3, 9).unwrap().sequences(), 0);
    }

    #[test]
    fn the_sequences_of_a_domain_are_a_batch_in_which_each_counts_once() {
        let tokens = TokenBuffer::new((0..8).collect(), 1, 9).unwrap();
        let domains = [2, 0, 2, 2].map(DomainId).to_vec();
        let batch = Batch::new(tokens, domains, vec![0.5, 3.0, 0.0, 7.0]).unwrap();
        let own = batch.of_domain(DomainId(2)).unwrap();
        assert_eq!(own.tokens().rows(0..3), [0, 1, 4, 5, 6, 7]);
        assert_eq!((own.multipliers(), own.domains()), (&[1.0; 3][..], &[DomainId(2); 3][..]));
        assert_eq!(batch.of_domain(DomainId(1)), None);
    }

    #[test]
    fn buffers_and_batches_that_do_not_fit_are_refused() {
        let check = |expected: &str, error: TrainError| {
            let message = error.to_string();
            assert!(message.contains(expected), "{message}");
        };
        let tokens = |ids: Vec<u32>, context| TokenBuffer::new(ids, context, 17);
        check("expected 48 token ids, found 47", tokens(vec![0; 47], 5).unwrap_err());
        check("expected 1 token or more in a sequence", tokens(Vec::new(), 0).unwrap_err());
        let mut ids = vec![0; 48];
        ids[2 * 6 + 1] = 17;
        check("token id 17 at position 1 of sequence 2", tokens(ids, 5).unwrap_err());
        let mut ids = vec![0; 48];
        ids[7 * 6 + 5] = 99; // the last target
        check("token id 99 at position 5 of sequence 7", tokens(ids, 5).unwrap_err());
        assert!(TokenBuffer::new(vec![0; 3], usize::MAX, 17).is_err());

        let batch = |sequences: usize, domains: usize, multipliers: usize| {
            Batch::new(
                tokens(vec![0; sequences * 6], 5).unwrap(),
                vec![DomainId(0); domains],
                vec![1.0; multipliers],
            )
        };
        check("expected 8 multipliers, found 7", batch(8, 8, 7).unwrap_err());
        check("expected 8 domains, found 9", batch(8, 9, 8).unwrap_err());
        check("sequence or more", batch(0, 0, 0).unwrap_err());
        assert_eq!(batch(8, 8, 8).unwrap().predicted_tokens(), 40);
    }
}
