//! Ids to text, one at a time.

use super::Tokenizer;

/// Ids that may wait for the rest of a character. It has at most four bytes, and a byte is a token
/// at least: of more, the first can no longer become one.
const MOST_WAITING: usize = 8;
/// Bytes that a character may still lack its end to.
const LONGEST_START: usize = 3;

/// Turns ids into text one at a time; see [`Tokenizer::decode_stream`].
///
/// It holds a few ids, however long the text is.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Those that were given out last, which decoders look back at (a leading space, "##"), and
    /// behind them those that wait.
    ids: Vec<u32>,
    /// How many have been given out.
    shown: usize,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        DecodeStream { tokenizer, ids: Vec::new(), shown: 0 }
    }

    /// The text that `id` completes: nothing while a character is still in pieces.
    pub fn step(&mut self, id: u32) -> String {
        self.ids.push(id);
        let new = self.text(self.ids.len());
        if !new.is_empty() && !new.ends_with('\u{fffd}') {
            self.show(self.ids.len());
            return new;
        }
        if self.ids.len() - self.shown < MOST_WAITING {
            return String::new();
        }
        let end = self.ids.len() - LONGEST_START;
        let hopeless = self.text(end);
        self.show(end);
        hopeless
    }

    /// What is left: a character that was never completed comes out as U+FFFD.
    pub fn finish(self) -> String {
        self.text(self.ids.len())
    }

    /// What the waiting ids before `end` add to what was given out.
    fn text(&self, end: usize) -> String {
        let before = self.tokenizer.decode(&self.ids[..self.shown]);
        let now = self.tokenizer.decode(&self.ids[..end]);
        // A decoder may change what it gave before ("do n't" is "don't"): what is new begins where
        // they part.
        let same = before.chars().zip(now.chars()).take_while(|(a, b)| a == b);
        let same: usize = same.map(|(character, _)| character.len_utf8()).sum();
        now[same..].to_owned()
    }

    /// The ids before `end` are given out; those that were before are needed no more.
    fn show(&mut self, end: usize) {
        self.ids.drain(..self.shown);
        self.shown = end - self.shown;
    }
}
