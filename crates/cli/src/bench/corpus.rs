//! Text and a tokenizer for measurements that are given none: nothing of it is copied from
//! anywhere.
//!
//! Words are made of syllables and drawn as in natural text, the r-th most frequent about 1 / r of
//! the time (Zipf's law); sentences have capitals, commas and numbers, paragraphs line ends, and
//! every eighth document looks like program text. The same number of bytes gives the same text.

use cuvee_data::Tokenizer;
use cuvee_mixer::seed::{CounterRng, derive};

/// Different words.
const WORDS: usize = 30_000;
/// Bytes of a document, about.
const DOCUMENT: usize = 3_000;
/// Ids of the tokenizer.
const VOCAB_SIZE: usize = 16_384;
/// Bytes that it is trained on, about.
const TRAINED_ON: usize = 2_000_000;

const ONSETS: [&str; 16] =
    ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl"];
const NUCLEI: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "ou", "ai"];
const CODAS: [&str; 8] = ["", "", "n", "r", "s", "t", "l", "nd"];

/// Documents of together at least `bytes` bytes.
pub fn texts(bytes: usize) -> Vec<String> {
    let words = words();
    let (mut texts, mut done) = (Vec::new(), 0);
    let root = CounterRng::new(derive(0, "bench corpus"));
    while done < bytes {
        let number = texts.len() as u64;
        let mut writer = Writer { words: &words, rng: root.nested(number), drawn: 0 };
        let size = DOCUMENT.min(bytes - done);
        let text = if number % 8 == 7 { writer.code(size) } else { writer.prose(size) };
        done += text.len();
        texts.push(text);
    }
    texts
}

/// A byte-level BPE trained on such text.
///
/// # Errors
/// Those of [`Tokenizer::trained_on`].
pub fn tokenizer() -> cuvee_data::Result<Tokenizer> {
    Tokenizer::trained_on(&texts(TRAINED_ON), VOCAB_SIZE)
}

/// The words, the most frequent first: those have fewer syllables.
fn words() -> Vec<String> {
    let rng = CounterRng::new(derive(0, "bench words"));
    let word = |rank: usize| {
        let rng = rng.nested(rank as u64);
        let syllables = 1 + (rank as f64 + 1.0).log10() as u64 / 2 + rng.below(0, 2);
        let pick = |counter: u64, from: &[&'static str]| {
            from[rng.below(counter, from.len() as u64) as usize]
        };
        (0..syllables)
            .map(|i| [pick(3 * i + 1, &ONSETS), pick(3 * i + 2, &NUCLEI), pick(3 * i + 3, &CODAS)])
            .map(|syllable| syllable.concat())
            .collect()
    };
    (0..WORDS).map(word).collect()
}

/// One document's random numbers, in order.
struct Writer<'a> {
    words: &'a [String],
    rng: CounterRng,
    drawn: u64,
}

impl<'a> Writer<'a> {
    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        self.rng.below(self.drawn, end)
    }

    /// A word: with u uniform, the rank n^u falls as 1 / rank.
    fn word(&mut self) -> &'a str {
        self.drawn += 1;
        let rank = (self.words.len() as f64).powf(self.rng.unit(self.drawn)) as usize - 1;
        &self.words[rank.min(self.words.len() - 1)]
    }

    fn prose(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 200);
        while text.len() < bytes {
            let length = 4 + self.below(16);
            for place in 0..length {
                let word = match self.below(40) {
                    0 => self.below(3000).to_string(),
                    _ => self.word().to_owned(),
                };
                match word.chars().next().filter(|_| place == 0) {
                    Some(first) => {
                        text.extend(first.to_uppercase());
                        text.push_str(&word[first.len_utf8()..]);
                    }
                    None => text.push_str(&word),
                }
                let comma = place + 1 < length && self.below(9) == 0;
                text.push_str(match (place + 1 < length, comma) {
                    (true, true) => ", ",
                    (true, false) => " ",
                    (false, _) => ".",
                });
            }
            text.push_str(if self.below(6) == 0 { "\n\n" } else { " " });
        }
        text
    }

    fn code(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 200);
        while text.len() < bytes {
            let name = format!("{}_{}", self.word(), self.word());
            let argument = self.word().to_owned();
            text.push_str(&format!("fn {name}({argument}: u32) -> u32 {{\n"));
            for _ in 0..2 + self.below(6) {
                let (local, factor) = (self.word().to_owned(), self.below(100));
                text.push_str(&format!("    let {local} = {argument} * {factor} + 1;\n"));
            }
            text.push_str(&format!("    {argument}\n}}\n\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_is_the_same_each_time_and_its_words_are_frequent_as_in_text() {
        let made = texts(300_000);
        assert_eq!(made, texts(300_000));
        let bytes: usize = made.iter().map(String::len).sum();
        assert!((300_000..310_000).contains(&bytes), "{bytes}");
        let mut counts = std::collections::HashMap::<&str, usize>::new();
        let words = made.iter().flat_map(|text| text.split(|c: char| !c.is_alphabetic()));
        words
            .filter(|word| !word.is_empty())
            .for_each(|word| *counts.entry(word).or_default() += 1);
        let (all, different) = (counts.values().sum::<usize>(), counts.len());
        // Most words are drawn again and again, and many only once or twice.
        assert!(different > 3_000 && all > 3 * different, "{different} of {all}");
    }
}
