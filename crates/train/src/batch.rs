//! Token ids on their way from the shards to an engine.
//!
//! Draws and shards go in, a [`Batch`] comes out: one `[B, T + 1]` buffer of ids. A sequence's
//! inputs are the first T ids of its row and its targets the last T, so both are views of the row.
//! Lengths and ids are checked once, where the buffer is built; the engines trust it. (The fused
//! engine copies the ids of a micro-batch together for its kernels, which read `[b · T]`.)
//!
//! Costs one read of `B · (T + 1)` tokens out of the memory map. The next window is brought into
//! the caches meanwhile. Where attention keeps within documents, a search in the shard's index for
//! each window says where they begin. Where documents come in another order each epoch, the ends of
//! all of a domain's documents are held, 8 bytes each, and made anew at an epoch's beginning.

use std::ops::Range;

use cuvee_data::{Domain, Shard, Split};
use cuvee_mixer::{DocumentOrder, DomainId, Draw, EpochDocuments};

use crate::error::{Result, TrainError};
use crate::spec::{ReadingOrder, TrainSpec};

/// Sequences of token ids, `[B, T + 1]`, every id below `vocab_size`.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBuffer {
    ids: Vec<u32>,
    context: usize,
    vocab_size: usize,
    /// `[B, T]`: at which position of its row each input's document begins, where tokens attend to
    /// their own document alone.
    documents: Option<Vec<u32>>,
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
    /// The stream, where it has another order than the shard.
    pub(crate) stream: Option<&'a EpochDocuments>,
}

impl Window<'_> {
    /// Copies its ids into `ids`, and into `documents`, if it is given, at which position each
    /// input's document begins.
    fn read(&self, ids: &mut [u32], documents: Option<&mut [u32]>) {
        let mut begins = Vec::new();
        match self.stream {
            None => {
                self.shard.read(self.start, ids);
                if let Some(documents) = &documents {
                    begins = self.shard.document_starts(self.start, documents.len());
                }
            }
            Some(stream) => {
                let mut at = 0;
                for piece in stream.pieces(self.start, ids.len()) {
                    let first = self.shard.document_start(piece.document) + piece.from;
                    self.shard.read(first, &mut ids[at..][..piece.tokens]);
                    begins.extend((at > 0).then_some(at));
                    at += piece.tokens;
                }
            }
        }
        let Some(documents) = documents else { return };
        documents.fill(0);
        for begin in begins {
            if let Some(own) = documents.get_mut(begin..) {
                own.fill(begin as u32);
            }
        }
    }

    /// Where in the shard its token `at` lies, for the error.
    fn position(&self, at: usize) -> u64 {
        let Some(stream) = self.stream else { return self.start + at as u64 };
        let last = stream.pieces(self.start, at + 1).last();
        last.map_or(0, |piece| {
            self.shard.document_start(piece.document) + piece.from + piece.tokens as u64 - 1
        })
    }
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
        Ok(Self { ids, context, vocab_size, documents: None })
    }

    /// The same where tokens attend to their own document alone: `documents`, `[B, T]`, says at
    /// which position of its row the document of each input begins.
    ///
    /// # Errors
    /// [`TrainError::Batch`] for another number of them, or one that lies behind its input or
    /// before the one of the input before.
    pub fn within_documents(self, documents: Vec<u32>) -> Result<Self> {
        let expected = self.sequences() * self.context;
        if documents.len() != expected {
            let (what, found) = ("beginnings of documents", documents.len());
            return Err(TrainError::Batch { what, expected, found });
        }
        for row in documents.chunks_exact(self.context) {
            let mut last = 0;
            for (position, &begin) in row.iter().enumerate() {
                if begin as usize > position || begin < last {
                    let what = "as the largest beginning of this input's document";
                    return Err(TrainError::Batch {
                        what,
                        expected: position,
                        found: begin as usize,
                    });
                }
                last = begin;
            }
        }
        Ok(Self { documents: Some(documents), ..self })
    }

    /// Reads `windows`, one row each, and checks every id against the vocabulary. With `mask`,
    /// tokens attend to their own document alone.
    pub(crate) fn read(
        windows: &[Window],
        context: usize,
        vocab_size: usize,
        mask: bool,
    ) -> Result<Self> {
        let row = context + 1;
        let mut ids = vec![0; windows.len() * row];
        let mut documents = mask.then(|| vec![0; windows.len() * context]);
        for (index, (window, ids)) in windows.iter().zip(ids.chunks_exact_mut(row)).enumerate() {
            if let Some(next) = windows.get(index + 1).filter(|next| next.stream.is_none()) {
                next.shard.prefetch(next.start, row);
            }
            window.read(ids, documents.as_mut().map(|all| &mut all[index * context..][..context]));
            if let Some(at) = ids.iter().position(|&id| id as usize >= vocab_size) {
                return Err(TrainError::TokenOutOfVocabulary {
                    domain: window.domain.to_owned(),
                    position: window.position(at),
                    id: ids[at],
                    vocab_size,
                });
            }
        }
        Ok(Self { ids, context, vocab_size, documents })
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

    /// At which position of its row the document of each input of some sequences begins, `[b, T]`;
    /// `None` where tokens attend to all before them.
    pub fn documents(&self, sequences: Range<usize>) -> Option<&[u32]> {
        let rows = sequences.start * self.context..sequences.end * self.context;
        self.documents.as_ref().map(|documents| &documents[rows])
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
        let documents = own.iter().map(|&b| self.tokens.documents(b..b + 1));
        let documents = documents.collect::<Option<Vec<_>>>().map(|rows| rows.concat());
        (!own.is_empty()).then(|| Self {
            tokens: TokenBuffer { ids, context, vocab_size, documents },
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
        stream: None,
    };
    let windows: Vec<Window> = draws.iter().map(window).collect();
    drawn(draws, TokenBuffer::read(&windows, context, vocab_size, false)?)
}

/// The batch of `draws`, whose sequences are `tokens`.
fn drawn(draws: &[Draw], tokens: TokenBuffer) -> Result<Batch> {
    Batch::new(
        tokens,
        draws.iter().map(|draw| draw.domain).collect(),
        draws.iter().map(|draw| draw.multiplier).collect(),
    )
}

/// Documents over all domains whose order may change from epoch to epoch: their index takes a
/// gigabyte.
const MOST_DOCUMENTS: u64 = 1 << 27;

/// Checks that the domains' documents are known where `train` asks for them, and not too many.
///
/// # Errors
/// [`TrainError::Config`] with the key, and the domain.
pub fn check_documents(domains: &[Domain], train: &TrainSpec) -> Result<()> {
    let in_order = train.order == ReadingOrder::Documents;
    let key = match (in_order, train.document_mask) {
        (true, _) => "train.order",
        (false, true) => "train.document_mask",
        (false, false) => return Ok(()),
    };
    let told_apart = |domain: &&Domain| {
        [Split::Train, Split::Valid].iter().all(|split| domain.shard(*split).knows_documents())
    };
    if let Some(domain) = domains.iter().find(|domain| !told_apart(domain)) {
        return Err(TrainError::config(
            key,
            "domains whose documents are told apart",
            format!("`{}`, made of ids without an end-of-text or an index", domain.name),
            "prepare it from files with an index or with end-of-text tokens, or remove the key",
        ));
    }
    let documents = domains.iter().map(|domain| domain.shard(Split::Train).documents());
    let documents = documents.fold(0, u64::saturating_add);
    if in_order && documents > MOST_DOCUMENTS {
        return Err(TrainError::config(
            key,
            format!("`documents` for at most {MOST_DOCUMENTS} documents over all domains"),
            format!(
                "{documents}, whose index would take {} bytes",
                EpochDocuments::bytes(documents)
            ),
            "train.order = \"windows\" needs no index",
        ));
    }
    Ok(())
}

/// Reads the batches of a run.
pub struct BatchReader<'a> {
    /// The training split and the name of each domain that the mixer knows.
    shards: Vec<&'a Shard>,
    names: Vec<String>,
    context: usize,
    vocab_size: usize,
    document_mask: bool,
    /// Of each domain, where its documents come in another order each epoch.
    streams: Option<Vec<Streams>>,
}

/// The epochs of one domain that are being read.
struct Streams {
    order: DocumentOrder,
    epochs: Vec<EpochDocuments>,
}

impl<'a> BatchReader<'a> {
    /// For the training splits of `domains`, in the mixer's order, as `train` says. `seed` is the
    /// root of the mixer's draws.
    ///
    /// # Errors
    /// As [`check_documents`].
    pub fn new(
        domains: &'a [Domain],
        train: &TrainSpec,
        seed: u64,
        vocab_size: usize,
    ) -> Result<Self> {
        check_documents(domains, train)?;
        let shards: Vec<&Shard> = domains.iter().map(|domain| domain.shard(Split::Train)).collect();
        let streams = |domain: &Domain| {
            let documents = domain.shard(Split::Train).documents();
            let order = DocumentOrder::new(seed, &domain.name, documents);
            Streams { order, epochs: Vec::new() }
        };
        Ok(Self {
            streams: (train.order == ReadingOrder::Documents)
                .then(|| domains.iter().map(streams).collect()),
            names: domains.iter().map(|domain| domain.name.clone()).collect(),
            shards,
            context: train.context,
            vocab_size,
            document_mask: train.document_mask,
        })
    }

    /// The domains' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads the windows that `draws` name. The first of an epoch adds up the lengths of all of its
    /// domain's documents, where these change places.
    ///
    /// # Errors
    /// As [`read_batch`]; [`TrainError::Batch`] for an index that tells of other tokens than there
    /// are.
    pub fn read(&mut self, draws: &[Draw]) -> Result<Batch> {
        for (index, streams) in self.streams.iter_mut().flatten().enumerate() {
            streams.reach(index, self.shards[index], draws)?;
        }
        let window = |draw: &Draw| {
            let domain = draw.domain.0;
            Window {
                shard: self.shards[domain],
                start: draw.start,
                domain: &self.names[domain],
                stream: self.streams.as_ref().and_then(|streams| streams[domain].of(draw.epoch)),
            }
        };
        let windows: Vec<Window> = draws.iter().map(window).collect();
        let tokens =
            TokenBuffer::read(&windows, self.context, self.vocab_size, self.document_mask)?;
        drawn(draws, tokens)
    }
}

impl Streams {
    /// Makes the epochs that `draws` need of the domain at `index`, and forgets those before. A
    /// domain without a draw keeps what it has.
    fn reach(&mut self, index: usize, shard: &Shard, draws: &[Draw]) -> Result<()> {
        let own = || draws.iter().filter(|draw| draw.domain.0 == index);
        let Some(first) = own().map(|draw| draw.epoch).min() else { return Ok(()) };
        self.epochs.retain(|stream| stream.epoch() >= first);
        for draw in own() {
            if self.of(draw.epoch).is_some() {
                continue;
            }
            let stream = self.order.epoch(draw.epoch, |document| shard.document_tokens(document));
            if stream.tokens() != shard.tokens() {
                return Err(TrainError::Batch {
                    what: "tokens in the documents of a domain's index",
                    expected: shard.tokens() as usize,
                    found: stream.tokens() as usize,
                });
            }
            self.epochs.push(stream);
        }
        Ok(())
    }

    fn of(&self, epoch: u64) -> Option<&EpochDocuments> {
        self.epochs.iter().find(|stream| stream.epoch() == epoch)
    }
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
    fn documents_begin_at_or_before_their_tokens_and_come_in_order() {
        let tokens = || TokenBuffer::new((0..8).collect(), 3, 9).unwrap();
        assert_eq!(tokens().documents(0..2), None);
        let masked = tokens().within_documents(vec![0, 1, 1, 0, 0, 2]).unwrap();
        assert_eq!(masked.documents(0..2), Some(&[0, 1, 1, 0, 0, 2][..]));
        assert_eq!(masked.documents(1..2), Some(&[0, 0, 2][..]));
        assert_eq!(masked.ids, tokens().ids);
        for (bad, what) in [
            (vec![0; 5], "expected 6 beginnings of documents, found 5"),
            (vec![0, 2, 2, 0, 0, 0], "expected 1 as the largest beginning"),
            (vec![0, 1, 0, 0, 0, 0], "expected 2 as the largest beginning"),
            (vec![1, 1, 1, 0, 0, 0], "expected 0 as the largest beginning"),
        ] {
            let message = tokens().within_documents(bad).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }

    #[test]
    fn the_sequences_of_a_domain_keep_their_documents() {
        let tokens = TokenBuffer::new((0..9).collect(), 2, 9).unwrap();
        let tokens = tokens.within_documents(vec![0, 1, 0, 0, 0, 1]).unwrap();
        let domains = [1, 0, 1].map(DomainId).to_vec();
        let batch = Batch::new(tokens, domains, vec![1.0; 3]).unwrap();
        let of = |domain| batch.of_domain(DomainId(domain)).unwrap().tokens;
        assert_eq!(of(1).documents(0..2), Some(&[0, 1, 0, 1][..]));
        assert_eq!(of(0).documents(0..1), Some(&[0, 0][..]));
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

    /// The domains of a folder, of 1,000 tokens a document and the rest.
    fn domains(folder: &std::path::Path, tokens: &[u64]) -> Vec<Domain> {
        let domain = |(number, tokens): (usize, &u64)| {
            let dir = folder.join(number.to_string());
            cuvee_data::write_synthetic(&dir, &format!("d{number}"), *tokens, true).unwrap();
            Domain::open(&dir).unwrap()
        };
        tokens.iter().enumerate().map(domain).collect()
    }

    /// The stream of a domain's epoch, and at each token where its document begins.
    fn stream(domain: &Domain, seed: u64, epoch: Option<u64>) -> (Vec<u32>, Vec<usize>) {
        let shard = domain.shard(Split::Train);
        let documents = shard.documents();
        let order = DocumentOrder::new(seed, &domain.name, documents);
        let numbers: Vec<u64> = match epoch {
            None => (0..documents).collect(),
            Some(epoch) => {
                let epoch = order.epoch(epoch, |i| shard.document(i).unwrap().len() as u64);
                epoch.pieces(0, shard.tokens() as usize).map(|piece| piece.document).collect()
            }
        };
        let (mut ids, mut begins) = (Vec::new(), Vec::new());
        for number in numbers {
            let document = shard.document(number).unwrap();
            begins.extend(std::iter::repeat_n(ids.len(), document.len()));
            ids.extend(document);
        }
        (ids, begins)
    }

    #[test]
    fn batches_are_windows_of_the_epochs_streams_with_their_documents() {
        let folder = tempfile::tempdir().unwrap();
        // Documents longer than the context, one that is shorter, and a domain of one document.
        let domains = domains(folder.path(), &[3_203, 700]);
        let (context, seed) = (96, 5);
        let infos: Vec<cuvee_mixer::DomainInfo> = domains
            .iter()
            .map(|d| cuvee_mixer::DomainInfo::new(&d.name, d.shard(Split::Train).tokens()))
            .collect();
        let run = cuvee_mixer::RunSize { steps: 40, batch_size: 7, context, seed };
        for (order, document_mask) in [
            (ReadingOrder::Documents, true),
            (ReadingOrder::Documents, false),
            (ReadingOrder::Windows, true),
        ] {
            let train = TrainSpec { context, order, document_mask, ..TrainSpec::default() };
            let mixer = || cuvee_mixer::Mixer::new(&Default::default(), &infos, &run).unwrap();
            let mut reader = BatchReader::new(&domains, &train, seed, 50_257).unwrap();
            let (mut mixer, mut late) = (mixer(), mixer());
            let mut epochs = 0;
            for step in 0..40 {
                let draws = mixer.next_step().unwrap().draws;
                let batch = reader.read(&draws).unwrap();
                for (b, draw) in draws.iter().enumerate() {
                    let epoch = (order == ReadingOrder::Documents).then_some(draw.epoch);
                    epochs = epochs.max(draw.epoch);
                    let (ids, begins) = stream(&domains[draw.domain.0], seed, epoch);
                    let start = draw.start as usize;
                    let at = |i: usize| (start + i) % ids.len();
                    let expected: Vec<u32> = (0..=context).map(|i| ids[at(i)]).collect();
                    assert_eq!(batch.tokens.rows(b..b + 1), expected, "step {step}, {draw:?}");
                    let Some(documents) = batch.tokens.documents(b..b + 1) else {
                        assert!(!document_mask);
                        continue;
                    };
                    for (i, &begin) in documents.iter().enumerate() {
                        // As far back as the document reaches within the window.
                        let back = (at(i) - begins[at(i)]).min(i);
                        assert_eq!(begin as usize, i - back, "step {step}, {draw:?}, {i}");
                    }
                }
                // Whoever begins here, as after a checkpoint, reads the same.
                if step == 23 {
                    late.restore(&mixer.state()).unwrap();
                    let mut fresh = BatchReader::new(&domains, &train, seed, 50_257).unwrap();
                    let draws = late.next_step().unwrap().draws;
                    assert_eq!(fresh.read(&draws).unwrap(), reader.read(&draws).unwrap());
                }
            }
            assert!(epochs >= 3, "{epochs}: several epochs");
        }
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_placed_in_the_file_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let domains = domains(folder.path(), &[2_500]);
        let shard = domains[0].shard(Split::Train);
        let train =
            TrainSpec { context: 2_499, order: ReadingOrder::Documents, ..TrainSpec::default() };
        let vocab_size = shard.max_id().unwrap() as usize;
        let mut reader = BatchReader::new(&domains, &train, 3, vocab_size).unwrap();
        let draw = Draw { domain: DomainId(0), epoch: 4, window: 0, start: 77, multiplier: 1.0 };
        let TrainError::TokenOutOfVocabulary { position, id, .. } =
            reader.read(&[draw]).unwrap_err()
        else {
            panic!("another error")
        };
        let mut there = [0];
        shard.read(position, &mut there);
        assert_eq!((there[0], id as usize), (id, vocab_size));
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
