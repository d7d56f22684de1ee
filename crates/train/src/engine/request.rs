//! What engines are asked for besides whole batches: the probabilities of some tokens of sequences
//! of any length, and the next token of texts that go on side by side.

/// A sequence of which the last tokens are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scored<'a> {
    /// Its ids. The last one is no input: nothing is asked of what follows it.
    pub tokens: &'a [u32],
    /// How many of the last are scored: at least one, and fewer than there are, since the first has
    /// nothing before it.
    pub scored: usize,
}

impl Scored<'_> {
    /// The tokens that the model reads.
    pub fn inputs(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }
}

/// The places of `sequences` in groups of about one length, the longest first: each of at most
/// `most` inputs, every sequence counted as its group's longest, or of one sequence.
pub(crate) fn by_length(sequences: &[Scored<'_>], most: usize) -> Vec<Vec<usize>> {
    let mut places: Vec<usize> = (0..sequences.len()).collect();
    places.sort_by_key(|&place| std::cmp::Reverse(sequences[place].inputs()));
    let mut groups = Vec::new();
    let mut left = &places[..];
    while let Some(&longest) = left.first() {
        let count = most / sequences[longest].inputs().max(1);
        let (group, rest) = left.split_at(count.clamp(1, left.len()));
        groups.push(group.to_vec());
        left = rest;
    }
    groups
}

/// A text that goes on beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continued<'a> {
    /// Its number: what an engine has computed of a text it keeps under that, until another text is
    /// continued under it.
    pub slot: usize,
    /// Its ids.
    pub tokens: &'a [u32],
}
