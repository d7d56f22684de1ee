//! Every kind of tokenizer against the reference, which is what Python's package is made of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_testkit::{code_like, prose};
use serde_json::{Value, json};
use tokenizers_reference::models::TrainerWrapper;
use tokenizers_reference::models::bpe::BpeTrainer;
use tokenizers_reference::models::unigram::UnigramTrainer;
use tokenizers_reference::models::wordlevel::WordLevelTrainer;
use tokenizers_reference::models::wordpiece::WordPieceTrainer;
use tokenizers_reference::{AddedToken, Tokenizer as ReferenceTokenizer};

use super::choice::Library;
use super::file::TokenizerFile;
use super::probe;
use super::reference::Reference;
use super::*;

/// What a kind has besides its model.
struct Kind {
    normalizer: Value,
    pre_tokenizer: Value,
    model: Value,
    trainer: TrainerWrapper,
}

fn special(content: &str) -> AddedToken {
    AddedToken::from(content, true)
}

fn bpe(options: Value, pre_tokenizer: Value) -> Kind {
    let mut model = json!({"type": "BPE", "vocab": {}, "merges": []});
    for (key, value) in options.as_object().unwrap() {
        model[key] = value.clone();
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(900)
        .show_progress(false)
        .special_tokens(vec![special("<unk>"), special("</s>"), special("<|endoftext|>")]);
    if let Some(suffix) = model["end_of_word_suffix"].as_str() {
        trainer = trainer.end_of_word_suffix(suffix.to_owned());
    }
    if let Some(prefix) = model["continuing_subword_prefix"].as_str() {
        trainer = trainer.continuing_subword_prefix(prefix.to_owned());
    }
    if pre_tokenizer.to_string().contains("ByteLevel") {
        let alphabet = tokenizers_reference::pre_tokenizers::byte_level::ByteLevel::alphabet();
        trainer = trainer.initial_alphabet(alphabet.into_iter().collect());
    }
    Kind { normalizer: Value::Null, pre_tokenizer, model, trainer: trainer.build().into() }
}

impl Kind {
    fn normalized(mut self, normalizer: Value) -> Kind {
        self.normalizer = normalizer;
        self
    }

    /// A `tokenizer.json`, trained.
    fn json(self) -> Value {
        let decoder = match self.pre_tokenizer.to_string().contains("ByteLevel") {
            true => json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}),
            false => Value::Null,
        };
        let empty = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": self.normalizer, "pre_tokenizer": self.pre_tokenizer,
            "post_processor": null, "decoder": decoder, "model": self.model,
        });
        let mut tokenizer: ReferenceTokenizer = empty.to_string().parse().unwrap();
        let mut trainer = self.trainer;
        tokenizer.train(&mut trainer, corpus().into_iter()).unwrap();
        let mut json: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
        // What the trainers leave out.
        for (key, value) in self.model.as_object().unwrap() {
            if !["vocab", "merges"].contains(&key.as_str()) {
                json["model"][key] = value.clone();
            }
        }
        json
    }
}

fn corpus() -> Vec<String> {
    let mut texts = prose(1, 120);
    texts.extend(code_like(1, 60));
    texts.push(
        "Straße über naïve 日本語の文字列 русские слова ✨✨ 1234567890 don't WE'LL the The \t\r\n"
            .repeat(20),
    );
    texts
}

fn sequence(members: &str, parts: Vec<Value>) -> Value {
    let kind = json!({"type": "Sequence"});
    let mut sequence = kind;
    sequence[members] = parts.into();
    sequence
}

fn regex(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn of_type(kind: &str) -> Value {
    json!({ "type": kind })
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CLIP: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const BLOOM: &str = " ?[^(\\s|[.,!?…。，、।۔،])]+";

/// Kinds, each with its name.
fn kinds() -> Vec<(&'static str, Value)> {
    let byte = |parts: Vec<Value>| bpe(json!({}), sequence("pretokenizers", parts));
    let words = |options: Value| bpe(options, of_type("WhitespaceSplit"));
    let sentencepiece = |normalizer: Value, pre_tokenizer: Value| {
        let mut kind = bpe(
            json!({"unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true}),
            metaspace("first", true),
        );
        if let TrainerWrapper::BpeTrainer(trainer) = &mut kind.trainer {
            trainer
                .special_tokens
                .extend((0..=255).map(|byte| special(&format!("<0x{byte:02X}>"))));
            trainer.limit_alphabet = Some(80);
        }
        let mut json = kind.json();
        json["normalizer"] = normalizer;
        json["pre_tokenizer"] = pre_tokenizer;
        json["added_tokens"].as_array_mut().unwrap().truncate(3);
        json["decoder"] = sequence(
            "decoders",
            vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                of_type("ByteFallback"),
                of_type("Fuse"),
                json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
            ],
        );
        json
    };
    let legacy = || {
        sequence(
            "normalizers",
            vec![
                json!({"type": "Prepend", "prepend": "▁"}),
                json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            ],
        )
    };
    let wordpiece = |options: Value| {
        let mut model = json!({"type": "WordPiece", "unk_token": "<unk>", "vocab": {},
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100});
        for (key, value) in options.as_object().unwrap() {
            model[key] = value.clone();
        }
        let trainer = WordPieceTrainer::builder()
            .vocab_size(900)
            .show_progress(false)
            .special_tokens(vec![special("<unk>"), special("</s>")])
            .continuing_subword_prefix(
                model["continuing_subword_prefix"].as_str().unwrap().to_owned(),
            )
            .build();
        Kind {
            normalizer: json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
            pre_tokenizer: of_type("BertPreTokenizer"),
            model,
            trainer: trainer.into(),
        }
    };
    let unigram = |normalizer: Value, unk: Option<&str>| Kind {
        normalizer,
        pre_tokenizer: metaspace("always", true),
        model: json!({"type": "Unigram", "vocab": [], "unk_id": null}),
        trainer: UnigramTrainer::builder()
            .vocab_size(500)
            .show_progress(false)
            .special_tokens(vec![special("<unk>"), special("</s>")])
            .unk_token(unk.map(str::to_owned))
            .build()
            .unwrap()
            .into(),
    };
    let edited = |mut json: Value, edit: &dyn Fn(&mut Value)| {
        edit(&mut json);
        json
    };
    let flagged = |flag: &'static str| {
        edited(byte(vec![byte_level(true)]).json(), &|json| {
            let next = json["model"]["vocab"].as_object().unwrap().len();
            for (content, id) in ["qu", "<new>", " "].iter().zip(next..) {
                let mut token = json["added_tokens"][0].clone();
                (token["content"], token["id"]) = ((*content).into(), id.into());
                (token["special"], token[flag]) = (false.into(), true.into());
                // "qu" and " " may be in the vocabulary.
                if let Some(id) = json["model"]["vocab"].get(*content) {
                    token["id"] = id.clone();
                    continue;
                }
                json["added_tokens"].as_array_mut().unwrap().push(token);
            }
            let added = json["added_tokens"].as_array_mut().unwrap();
            for (token, id) in added.iter_mut().skip(3).zip(next as u64..) {
                token["id"] = id.into();
            }
        })
    };
    let mut kinds = vec![
        ("gpt2", byte(vec![byte_level(true)]).json()),
        ("digits", byte(vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]).json()),
        ("llama 3", byte(vec![regex(LLAMA_3), byte_level(false)]).json()),
        ("qwen 2", byte(vec![regex(QWEN_2), byte_level(false)]).json()),
        ("qwen 2, NFC", byte(vec![regex(QWEN_2), byte_level(false)]).normalized(of_type("NFC")).json()),
        ("neox", byte(vec![byte_level(true)]).normalized(of_type("NFC")).json()),
        ("bloom", byte(vec![regex(BLOOM), byte_level(false)]).json()),
        ("falcon", byte(vec![
            json!({"type": "Punctuation", "behavior": "Contiguous"}), byte_level(true),
            json!({"type": "Digits", "individual_digits": false}), regex("[0-9][0-9][0-9]"),
        ]).json()),
        ("deepseek coder", byte(vec![
            regex("[\r\n]"), regex(r"\s?\p{L}+"), regex(r"\s?\p{P}+"), regex("[一-龥ࠀ-一가-퟿]+"),
            json!({"type": "Digits", "individual_digits": true}), byte_level(false),
        ]).json()),
        ("words by \\w", byte(vec![regex(r"\w+|[^\w\s]+|\s+"), byte_level(false)]).json()),
        ("look-behind", byte(vec![regex(r"(?<=\d)\p{L}+|\s+"), byte_level(false)]).json()),
        ("prefix space", byte(vec![json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})]).json()),
        ("gpt1", words(json!({"unk_token": "<unk>", "end_of_word_suffix": "</w>"})).normalized(
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": true, "lowercase": true})).json()),
        ("suffix alone", words(json!({"end_of_word_suffix": "</w>"})).json()),
        ("prefix", words(json!({"unk_token": "<unk>", "continuing_subword_prefix": "##"})).json()),
        ("unk", words(json!({"unk_token": "<unk>"})).json()),
        ("fused unk", words(json!({"unk_token": "<unk>", "fuse_unk": true})).json()),
        ("no unk", words(json!({})).json()),
        ("llama 2", sentencepiece(legacy(), Value::Null)),
        ("gemma", sentencepiece(json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}))),
        ("wordpiece", wordpiece(json!({})).json()),
        ("wordpiece, short words", wordpiece(json!({"max_input_chars_per_word": 10})).json()),
        ("wordpiece, no prefix", wordpiece(json!({"continuing_subword_prefix": ""})).json()),
        ("unigram", unigram(of_type("NFKC"), Some("<unk>")).json()),
        ("unigram without unk", unigram(of_type("NFC"), None).json()),
        ("wordlevel", Kind {
            normalizer: Value::Null, pre_tokenizer: of_type("Whitespace"),
            model: json!({"type": "WordLevel", "vocab": {}, "unk_token": "<unk>"}),
            trainer: TrainerWrapper::WordLevelTrainer(WordLevelTrainer::builder().vocab_size(500).show_progress(false)
                .special_tokens(vec![special("<unk>"), special("</s>")]).build().unwrap()),
        }.json()),
        ("lstrip", flagged("lstrip")),
        ("rstrip", flagged("rstrip")),
        ("single word", flagged("single_word")),
        ("normalized", flagged("normalized")),
        ("ignore merges", edited(byte(vec![regex(LLAMA_3), byte_level(false)]).json(), &|json| {
            json["model"]["ignore_merges"] = true.into();
        })),
        ("merges as strings", edited(byte(vec![byte_level(true)]).json(), &|json| {
            for merge in json["model"]["merges"].as_array_mut().unwrap() {
                let [left, right] = [0, 1].map(|at| merge[at].as_str().unwrap().to_owned());
                *merge = format!("{left} {right}").into();
            }
        })),
        ("a hole", edited(byte(vec![byte_level(true)]).json(), &|json| {
            let vocab = json["model"]["vocab"].as_object_mut().unwrap();
            let last = vocab.values().filter_map(Value::as_u64).max().unwrap();
            *vocab.values_mut().find(|id| **id == 700).unwrap() = (last + 100).into();
        })),
        ("missing bytes", edited(byte(vec![byte_level(true)]).json(), &|json| {
            // Two control characters; their places are taken by tokens from behind.
            let vocab = json["model"]["vocab"].as_object_mut().unwrap();
            for missing in ["Ā", "ā"] {
                let id = vocab.remove(missing).unwrap();
                let last = vocab.values().filter_map(Value::as_u64).max().unwrap();
                *vocab.values_mut().find(|id| **id == last).unwrap() = id;
            }
        })),
        ("dropout of zero", edited(byte(vec![byte_level(true)]).json(), &|json| {
            json["model"]["dropout"] = json!(0.0);
        })),
        ("truncated and padded", edited(byte(vec![byte_level(true)]).json(), &|json| {
            json["truncation"] = json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
            json["padding"] = json!({"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "</s>"});
        })),
    ];
    for (name, scheme, split) in [
        ("metaspace always", "always", true),
        ("metaspace first", "first", true),
        ("metaspace never", "never", true),
        ("metaspace always, whole", "always", false),
        ("metaspace first, whole", "first", false),
    ] {
        kinds.push((name, sentencepiece(Value::Null, metaspace(scheme, split))));
    }
    for (name, part) in [
        ("punctuation removed", json!({"type": "Punctuation", "behavior": "Removed"})),
        ("punctuation before", json!({"type": "Punctuation", "behavior": "MergedWithNext"})),
        ("at a character", json!({"type": "CharDelimiterSplit", "delimiter": "-"})),
        ("scripts", of_type("UnicodeScripts")),
        ("five characters", json!({"type": "FixedLength", "length": 5})),
        ("words and digits", json!({"type": "Digits", "individual_digits": false})),
    ] {
        let parts = sequence("pretokenizers", vec![of_type("WhitespaceSplit"), part]);
        kinds.push((name, bpe(json!({"unk_token": "<unk>"}), parts).json()));
    }
    for (name, invert, behavior) in [
        ("vowels", false, "Contiguous"),
        ("but words", true, "Removed"),
        ("vowels lost", false, "Removed"),
    ] {
        let mut split = regex("[aeiou]+");
        (split["invert"], split["behavior"]) = (invert.into(), behavior.into());
        kinds.push((name, bpe(json!({"unk_token": "<unk>"}), split).json()));
    }
    for (name, part) in [
        ("NFD", of_type("NFD")),
        ("NFKD", of_type("NFKD")),
        ("lower", of_type("Lowercase")),
        ("nmt", of_type("Nmt")),
        ("no accents", sequence("normalizers", vec![of_type("NFKD"), of_type("StripAccents")])),
        ("stripped", json!({"type": "Strip", "strip_left": true, "strip_right": false})),
        ("digits as 0", json!({"type": "Replace", "pattern": {"Regex": r"\d"}, "content": "0"})),
        ("prepended", json!({"type": "Prepend", "prepend": "▁"})),
        (
            "cased",
            json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": false}),
        ),
    ] {
        kinds.push((name, words(json!({"unk_token": "<unk>"})).normalized(part).json()));
    }
    let clip = bpe(
        json!({"unk_token": "<unk>", "end_of_word_suffix": "</w>", "continuing_subword_prefix": ""}),
        sequence(
            "pretokenizers",
            vec![
                json!({"type": "Split", "pattern": {"Regex": CLIP}, "behavior": "Removed", "invert": true}),
                byte_level(false),
            ],
        ),
    );
    let clip = clip.normalized(sequence(
        "normalizers",
        vec![
            of_type("NFC"),
            json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}),
            of_type("Lowercase"),
        ],
    ));
    kinds.push(("clip", clip.json()));
    kinds
}

/// Mixtures of pieces and of any characters, always the same.
fn mixtures(count: usize, file: &TokenizerFile) -> Vec<String> {
    let pieces = probe::texts(file);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut text = || {
        let parts = 1 + next(12);
        let part = |_| match next(5) {
            0 => {
                let from = [
                    (32, 95),
                    (0xa0, 0x1b0),
                    (0x370, 0x1c0),
                    (0x4e00, 0x100),
                    (0x1f300, 0x100),
                    (0x300, 0x30),
                    (0, 0x11_0000),
                ];
                let (first, many) = from[next(from.len())];
                char::from_u32((first + next(many)) as u32).unwrap_or('\u{fffd}').to_string()
            }
            // The pieces themselves come first.
            _ => pieces[next(pieces.len().min(80))].clone(),
        };
        (0..parts).map(part).collect::<String>()
    };
    (0..count).map(|_| text()).collect()
}

#[test]
fn every_kind_of_tokenizer_encodes_and_decodes_as_the_reference_does() {
    let mut slow = Vec::new();
    for (name, json) in kinds() {
        let file =
            TokenizerFile::parse(json.to_string(), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let library = Library::choose(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let reference = Reference::load(&file.text).unwrap();
        if !library.is_fast() {
            slow.push(name);
        }
        for text in probe::texts(&file)
            .into_iter()
            .chain(mixtures(80, &file))
            .chain(corpus().into_iter().take(10))
        {
            for prompt in [false, true] {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                let by_us = library.encode(&file.text, &text, prompt, &mut ours);
                let by_them = reference.encode(&text, prompt, &mut theirs);
                if by_us.is_err() {
                    ours.clear();
                }
                assert_eq!(
                    by_us.is_ok(),
                    by_them.is_ok(),
                    "{name}: {text:?}: {by_us:?}, {by_them:?}"
                );
                assert_eq!(ours, theirs, "{name}: {text:?}");
            }
            let mut ids = Vec::new();
            if reference.encode(&text, false, &mut ids).is_ok() {
                assert_eq!(library.decode(&ids), reference.decode(&ids), "{name}: {ids:?}");
            }
        }
    }
    // Of these kinds most tokenizers are.
    for name in [
        "gpt2",
        "digits",
        "llama 3",
        "qwen 2",
        "neox",
        "qwen 2, NFC",
        "llama 2",
        "unigram",
        "missing bytes",
    ] {
        assert!(!slow.contains(&name), "{name} is with the reference, as are {slow:?}");
    }
    assert!(slow.contains(&"gpt1") && slow.contains(&"clip"), "{slow:?}");
}

#[test]
fn what_would_give_other_ids_is_refused_when_it_is_loaded() {
    let tiny = || serde_json::from_str::<Value>(&cuvee_testkit::tiny_tokenizer_json()).unwrap();
    let refused = |json: &Value| Tokenizer::from_json(&json.to_string()).unwrap_err().to_string();
    let mut random = tiny();
    random["model"]["dropout"] = json!(0.1);
    let error = refused(&random);
    assert!(
        error.contains("`model.dropout` = 0.1") && error.contains("hint: set `dropout` to null"),
        "{error}"
    );
    random["model"]["dropout"] = json!(0.0);
    Tokenizer::from_json(&random.to_string()).unwrap();
    let mut hole = tiny();
    hole["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": 280, "content": "<far>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true
    }));
    let error = refused(&hole);
    assert!(
        error.contains("expected id 280, as declared, found 267")
            && error.contains("`<unused267>`"),
        "{error}"
    );
    let mut odd = tiny();
    odd["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false});
    let error = refused(&odd);
    assert!(error.contains("cannot read it") && error.contains("hint: "), "{error}");
    // Which of two tokens a text gets is decided by a hash table.
    let mut alike = tiny();
    alike["normalizer"] = json!({"type": "Lowercase"});
    for (id, content) in [(257, "the"), (267, "The")] {
        alike["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false
        }));
    }
    let error = refused(&alike);
    assert!(error.contains("`the` and `The`, which are both `the` there"), "{error}");
    assert!(!error.contains("cannot read it") && error.contains("hint: leave one of the two out"));
    // Where the library itself would panic.
    odd["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    let error = refused(&odd);
    assert!(error.contains("fails on any") && error.contains("hint: "), "{error}");
}

#[test]
fn the_token_of_unknown_words_stands_for_text_and_is_no_special_one() {
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [added(0, "[UNK]"), added(1, "</s>")],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "</s>": 1, "the": 2},
                  "unk_token": "[UNK]"},
    });
    let tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
    assert_eq!(tokenizer.encode("the zebra").unwrap(), [2, 0]);
    assert_eq!([0, 1, 2].map(|id| tokenizer.special_bytes(id)), [None, Some(4), None]);
}
