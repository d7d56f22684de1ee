//! Training a byte-level BPE on the domains' own text.
//!
//! In: a sample of text, spread evenly over the domains and over each domain's files, from the
//! `train` split only. Out: a `tokenizer.json` in the classic "1.0" form, which every release of
//! Hugging Face tokenizers reads: `<|endoftext|>` is id 0, then the 256 bytes, then the merges.
//! The same text gives the same tokenizer. Costs the sample in memory.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use tokenizers::pipeline::{PipelineTokenizer, PreTokenizer, PreTokenizerScratch};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::trainers::BpeTrainer;
use tokenizers::vocab::bucket_added_vocabulary::AddedToken;
use tokenizers::{ProgressFormat, Trainer};

use crate::error::{DataError, Result};

/// The end-of-text of a trained tokenizer.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";
/// Longer words (encoded data, long runs of one character) teach nothing and cost the square of
/// their length.
const MAX_WORD: usize = 1_000;

/// The `tokenizer.json` of a BPE trained on `texts`. Its vocabulary is smaller than asked for
/// where the text has too few different pairs.
///
/// # Errors
/// The library fails.
pub(crate) fn train(texts: &[String], vocab_size: usize) -> Result<String> {
    let failed = |error: tokenizers::Error| DataError::Tokenizer {
        origin: "to be trained".to_owned(),
        message: error.to_string(),
        hint: "give a finished one with `file` under [tokenizer]".to_owned(),
    };
    let alphabet = ByteLevel::alphabet();
    let splitter = untrained(&alphabet).map_err(failed)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        // Pairs seen once are accidents of the sample.
        .min_frequency(2)
        .show_progress(false)
        .progress_format(ProgressFormat::Silent)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(HashSet::from(alphabet))
        .build();
    trainer.feed(texts.iter(), |text| words(&splitter, &alphabet, text)).map_err(failed)?;
    let (vocabulary, merges, _) = trainer.train_vocab().map_err(failed)?;
    let mut tokens: Vec<(String, u32)> = vocabulary.into_iter().collect();
    tokens.sort_unstable_by_key(|(_, id)| *id);
    // A pair can come up twice where two ways of merging lead to one token; its first rank counts.
    let mut seen = HashSet::new();
    let merges: Vec<_> = merges.into_iter().filter(|pair| seen.insert(pair.clone())).collect();
    Ok(classic_json(tokens, &merges).to_string())
}

/// The words of a text as the trained tokenizer will see them, bytes written as its alphabet
/// writes them.
fn words(
    splitter: &PipelineTokenizer,
    alphabet: &[char; 256],
    text: &str,
) -> tokenizers::Result<Vec<String>> {
    let mut spans = Vec::new();
    let mut scratch = PreTokenizerScratch::default();
    splitter.get_pre_tokenizer().pre_tokenize(text, &mut scratch, &mut spans)?;
    let pieces = spans.iter().filter_map(|span| text.as_bytes().get(span.range()));
    let pieces = pieces.filter(|piece| piece.len() <= MAX_WORD);
    Ok(pieces
        .map(|piece| piece.iter().map(|byte| alphabet[usize::from(*byte)]).collect())
        .collect())
}

/// The tokenizer before its first merge: the same code splits text for training and for use.
fn untrained(alphabet: &[char; 256]) -> tokenizers::Result<PipelineTokenizer> {
    let tokens = alphabet.iter().zip(1..).map(|(character, id)| (character.to_string(), id));
    let tokens = std::iter::once((END_OF_TEXT.to_owned(), 0)).chain(tokens).collect();
    let json = tokenizers::canonicalize_str(&classic_json(tokens, &[]).to_string())?;
    tokenizers::from_json(&json)
}

fn classic_json(tokens: Vec<(String, u32)>, merges: &[(String, String)]) -> Value {
    let end_of_text = tokens.iter().find(|(token, _)| token == END_OF_TEXT).map(|(_, id)| *id);
    let vocab: Map<String, Value> =
        tokens.into_iter().map(|(token, id)| (token, json!(id))).collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": end_of_text, "content": END_OF_TEXT, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": merges
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::Tokenizer;

    fn corpus() -> Vec<String> {
        let mut texts = cuvee_testkit::prose(1, 200);
        texts.extend(cuvee_testkit::code_like(1, 200));
        texts.push("Ünïcödé, 日本語, 😀 — and\u{a0}spaces \t\r\n\n end".repeat(3));
        texts
    }

    #[test]
    fn trained_tokenizer_loads_and_round_trips() {
        let texts = corpus();
        let json = train(&texts, 600).unwrap();
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        assert_eq!(tokenizer.vocab_size(), 600);
        assert_eq!(tokenizer.end_of_text(), 0);
        let mut tokens = 0;
        for text in &texts {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(&tokenizer.decode(&ids), text);
            tokens += ids.len();
        }
        let bytes: usize = texts.iter().map(String::len).sum();
        // It has learned: a token is a byte before the first merge.
        assert!(bytes > 2 * tokens, "{bytes} bytes, {tokens} tokens");
    }

    #[test]
    fn training_is_deterministic_on_any_number_of_threads() {
        let texts = corpus();
        let first = train(&texts, 1000).unwrap();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| train(&texts, 1000)).unwrap(), first);
        }
        // The order of the texts does not matter either: only counts do.
        let reversed: Vec<String> = texts.into_iter().rev().collect();
        assert_eq!(train(&reversed, 1000).unwrap(), first);
    }

    #[test]
    fn words_are_those_of_the_gpt2_pattern() {
        let alphabet = ByteLevel::alphabet();
        let splitter = untrained(&alphabet).unwrap();
        let split = |text: &str| words(&splitter, &alphabet, text).unwrap();
        // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
        assert_eq!(split("I'll  go,  x1\n\n"), ["I", "'ll", "Ġ", "Ġgo", ",", "Ġ", "Ġx", "1", "ĊĊ"]);
        assert_eq!(split(&"a".repeat(MAX_WORD + 1)), Vec::<String>::new());
    }

    #[test]
    fn scarce_text_gives_a_smaller_vocabulary() {
        let json = train(&["abab abab".to_owned()], 4096).unwrap();
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        assert!(tokenizer.vocab_size() < 300);
        assert_eq!(tokenizer.decode(&tokenizer.encode("abab").unwrap()), "abab");
    }
}
