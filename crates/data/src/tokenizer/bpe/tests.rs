#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::path::Path;

use cuvee_testkit::{code_like, prose, shared_data};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use super::*;
use crate::Tokenizer;

/// A tokenizer, and the library's of the same file.
struct Both {
    own: Tokenizer,
    library: PipelineTokenizer,
}

impl Both {
    /// Of a tokenizer whose words are ours.
    fn new(json: &str) -> Both {
        let canonical = tokenizers::canonicalize_str(json).unwrap();
        assert!(ByteBpe::of(&serde_json::from_str(&canonical).unwrap()).is_some());
        Both {
            own: Tokenizer::from_json(json).unwrap(),
            library: tokenizers::from_json(&canonical).unwrap(),
        }
    }

    fn by_library(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        let options = EncodeOptions {
            add_special_tokens: false,
            padding: Override::Off,
            truncation: Override::Off,
            ..EncodeOptions::default()
        };
        self.library.encode_into(text, &options, &mut tokens).unwrap();
        PipelineToken::cast_slice(&tokens).to_vec()
    }
}

/// Trained on text with repeated fragments, so that tokens come about in several ways.
fn trained() -> &'static Both {
    static TRAINED: std::sync::OnceLock<Both> = std::sync::OnceLock::new();
    TRAINED.get_or_init(|| {
        let mut texts = prose(1, 100);
        texts.extend(code_like(1, 100));
        texts.push(
            "Straße über naïve 日本語の文字列 русские слова ✨✨ 1234567890 \t\r\n".repeat(20),
        );
        Both::new(&crate::tokenizer::training::train(&texts, 900).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Text of all kinds of characters, of words from a small set, of end-of-text spelled out, and
    /// of words beyond what is merged here.
    #[test]
    fn ids_are_the_librarys(parts in prop::collection::vec(prop_oneof![
        4 => any::<String>(),
        4 => "[a-z 's.,0-9\n]{0,40}",
        2 => "[あ-ん日本語ß-ÿЀ-ӿ ]{0,30}",
        1 => Just("<|endoftext|>".to_owned()),
        1 => "[a-cé]{60,200}",
        1 => " {1,80}",
    ], 0..12)) {
        let text = parts.concat();
        let both = trained();
        let mut ids = vec![7];
        both.own.encode_to(&text, &mut ids).unwrap();
        prop_assert_eq!(ids.remove(0), 7);
        prop_assert_eq!(ids, both.by_library(&text), "{:?}", text);
    }
}

#[test]
fn ids_are_the_librarys_on_more_words_than_are_remembered() {
    let Some(data) = shared_data() else {
        eprintln!("skipped: no shared test data");
        return;
    };
    let both =
        Both::new(&std::fs::read_to_string(data.join("tokenizers/gpt2/tokenizer.json")).unwrap());
    for file in ["ko", "zh", "de", "xquad_12lang"] {
        let lines =
            std::fs::read_to_string(data.join(format!("wikipedia_multi/{file}.jsonl"))).unwrap();
        for line in lines.lines() {
            let text =
                serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
            assert_eq!(
                both.own.encode(&text).unwrap(),
                both.by_library(&text),
                "{file}: {text:.60}"
            );
        }
    }
}

#[test]
fn other_kinds_stay_with_the_library() {
    let canonical = |json: &str| -> Value {
        serde_json::from_str(&tokenizers::canonicalize_str(json).unwrap()).unwrap()
    };
    let text = trained().own.json();
    assert!(ByteBpe::of(&canonical(text)).is_some());
    for (place, value) in [
        ("/normalizer", json!({ "type": "NFC" })),
        ("/model/ignore_merges", json!(true)),
        ("/model/dropout", json!(0.1)),
        ("/model/unk_token", json!("<|endoftext|>")),
        ("/model/continuing_subword_prefix", json!("##")),
        ("/model/end_of_word_suffix", json!("</w>")),
        ("/model/byte_level", json!(false)),
        ("/model/type", json!("WordPiece")),
    ] {
        let mut other = canonical(text);
        *other.pointer_mut(place).unwrap() = value;
        assert!(ByteBpe::of(&other).is_none(), "{place}");
    }
    // A character's own token that no merge makes: the library gives it all the same.
    let with = |token: &str, id: u32| {
        let mut other = canonical(text);
        other["model"]["vocab"][token] = json!(id);
        ByteBpe::of(&other)
    };
    let free = trained().own.vocab_size() as u32;
    assert!(with("qqqqqq", free).is_some(), "a token out of reach alone is none's");
    assert!(with("Ã©", free).is_none(), "é in bytes");
    assert!(with("漢", free).is_none(), "not in bytes");
    assert!(with("qqqqqq", 300).is_none(), "an id that another has");
    if let Some(data) = shared_data() {
        let of = |name: &str| -> Option<ByteBpe> {
            let file: &Path = &data.join("tokenizers").join(name).join("tokenizer.json");
            ByteBpe::of(&canonical(&std::fs::read_to_string(file).unwrap()))
        };
        assert!(of("gpt_neox").is_none() && of("bert_base_uncased").is_none());
    }
}
