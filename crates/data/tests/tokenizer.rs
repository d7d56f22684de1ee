//! Ids and text against the Python `tokenizers` package, on real tokenizers and real text.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cuvee_data::{DataError, Tokenizer};
use cuvee_testkit::{shared_data, tiny_tokenizer_json};
use sha2::{Digest, Sha256};

/// The first twenty documents of seven corpora.
fn real_texts(data: &Path) -> Vec<String> {
    let files = [
        "wikipedia_en/part-000",
        "wikipedia_multi/de",
        "wikipedia_multi/ko",
        "wikipedia_multi/zh",
        "wikipedia_multi/xquad_12lang",
        "qa_math/gsm8k",
        "dialog/sgd",
    ];
    let read = |file: &str| std::fs::read_to_string(data.join(format!("{file}.jsonl"))).unwrap();
    let text = |line: &str| -> String {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        row["text"].as_str().unwrap().to_owned()
    };
    files
        .iter()
        .flat_map(|file| read(file).lines().take(20).map(text).collect::<Vec<_>>())
        .collect()
}

/// Each tokenizer is loaded once for all tests.
fn load(data: &Path, name: &'static str) -> Arc<Tokenizer> {
    static LOADED: Mutex<BTreeMap<&str, Arc<Tokenizer>>> = Mutex::new(BTreeMap::new());
    let load =
        || Arc::new(Tokenizer::from_file(&data.join("tokenizers").join(name), None).unwrap());
    LOADED.lock().unwrap().entry(name).or_insert_with(load).clone()
}

fn data() -> Option<PathBuf> {
    let data = shared_data();
    if data.is_none() {
        eprintln!("skipped: no shared test data");
    }
    data
}

#[test]
fn ids_equal_pythons_on_real_text() {
    let Some(data) = data() else { return };
    let texts = real_texts(&data);
    // Python tokenizers 0.23.3, texts as in `real_texts`:
    //   ids = Tokenizer.from_file(path).encode(text, add_special_tokens=False).ids
    //   h.update(struct.pack(f"<{len(ids)}I", *ids))    # h = hashlib.sha256()
    for (name, tokens, hash) in [
        ("gpt2", 488_270, "4e70a2985c8238e3da64ab39b43a3a811244602d6c0f25f70665615d33f00aaf"),
        ("gpt_neox", 406_927, "94b5d3877ecf11bfe1f63fcfb8eff5363f35a85d8487ef3b4c3ba0970b68590a"),
        ("smollm2", 491_781, "d9414a5f0e9ef4a2df6b1af13be89a23e7f0e623c1234d49857ad91862967fe6"),
        (
            "stories260k",
            860_881,
            "930b69135b4e1b00e0076ab194663bbcb6d42457ed41eabef3ea0ba125e8b56d",
        ),
        (
            "bert_base_uncased",
            376_277,
            "30d80fc3ad614a02cf827a1e8d328591be2b3b3840ff1e142d76668af829995d",
        ),
    ] {
        let mut hasher = Sha256::new();
        let mut count = 0;
        let tokenizer = load(&data, name);
        for text in &texts {
            let ids = tokenizer.encode(text).unwrap();
            count += ids.len();
            ids.iter().for_each(|id| hasher.update(id.to_le_bytes()));
        }
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((count, found.as_str()), (tokens, hash), "{name}");
    }
}

#[test]
fn ids_equal_pythons_on_odd_text() {
    let Some(data) = data() else { return };
    // Python tokenizers 0.23.3: Tokenizer.from_file(path).encode(text,
    // add_special_tokens=False).ids
    let golden: [(&str, &[u32], &[u32]); 5] = [
        (
            "Hello, world! It's 2025.",
            &[15496, 11, 995, 0, 632, 338, 32190, 13],
            &[19556, 28, 905, 17, 657, 506, 216, 34, 32, 34, 37, 30],
        ),
        (
            "    fn main() {\n\tprintln!(\"{}\", 12345);\n}\n",
            &[
                220, 220, 220, 24714, 1388, 3419, 1391, 198, 197, 35235, 0, 7203, 90, 92, 1600,
                17031, 2231, 1776, 198, 92, 198,
            ],
            &[
                333, 24526, 1085, 1000, 1662, 198, 197, 3272, 34115, 17, 43331, 1002, 216, 33, 34,
                35, 36, 37, 4258, 198, 109, 198,
            ],
        ),
        (
            "Größe 日本語 한국어 😀",
            &[
                8642, 9101, 39683, 68, 10545, 245, 98, 17312, 105, 45739, 252, 220, 47991, 250,
                166, 113, 255, 168, 244, 112, 30325, 222,
            ],
            &[
                27302, 7466, 34878, 85, 17097, 241, 115, 40993, 179, 120, 248, 216, 33085, 246,
                181, 130, 251, 183, 240, 129, 40303, 218,
            ],
        ),
        ("a<|endoftext|>b", &[64, 50256, 65], &[81, 0, 82]),
        ("  \n\n  x", &[220, 220, 628, 220, 2124], &[256, 8866, 1792]),
    ];
    let (gpt2, smollm2) = (load(&data, "gpt2"), load(&data, "smollm2"));
    for (text, as_gpt2, as_smollm2) in golden {
        assert_eq!(gpt2.encode(text).unwrap(), as_gpt2, "{text:?}");
        assert_eq!(smollm2.encode(text).unwrap(), as_smollm2, "{text:?}");
    }
}

#[test]
fn text_round_trips_whole_and_in_a_stream() {
    let Some(data) = data() else { return };
    let texts = real_texts(&data);
    for name in ["gpt2", "gpt_neox", "smollm2", "stories260k"] {
        let tokenizer = load(&data, name);
        for text in &texts {
            let ids = tokenizer.encode(text).unwrap();
            let decoded = tokenizer.decode(&ids);
            // gpt_neox normalises to NFC, as its documents already are here.
            assert!(decoded == *text, "{name}: {:?}", text.chars().take(50).collect::<String>());
        }
        let text = &texts[45].chars().take(400).collect::<String>();
        let ids = tokenizer.encode(text).unwrap();
        let mut stream = tokenizer.decode_stream();
        let mut decoded: String = ids.iter().map(|id| stream.step(*id)).collect();
        decoded.push_str(&stream.finish());
        assert_eq!(&decoded, text, "{name}");
    }
}

#[test]
fn bytes_without_a_token_are_dropped_as_python_does() {
    let Some(data) = data() else { return };
    // Python tokenizers 0.23.3, as above: SmolLM2 has no token for 0x04, 0x06 and six others.
    let smollm2 = load(&data, "smollm2");
    for (text, ids) in [
        ("a\u{4}b", &[81, 82][..]),
        ("\u{4}", &[]),
        ("a\u{4}\u{6}b c", &[81, 82, 265]),
        ("\u{40000}", &[218, 218, 218]),
        ("x\u{4} the", &[104, 260]),
    ] {
        assert_eq!(smollm2.encode(text).unwrap(), ids, "{text:?}");
    }
    // And where an added token comes behind the model's vocabulary, it keeps its id.
    let mut tiny: serde_json::Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
    let vocab = tiny["model"]["vocab"].as_object_mut().unwrap();
    vocab.remove("<|endoftext|>");
    // U+0104 stands for byte 4; the last merged token takes its id.
    let id = vocab.remove("\u{104}").unwrap();
    vocab.insert("Ġt".to_owned(), id);
    tiny["added_tokens"][0]["id"] = 265.into();
    let tiny = Tokenizer::from_json(&tiny.to_string()).unwrap();
    assert_eq!((tiny.vocab_size(), tiny.end_of_text()), (266, 265));
    let ids = tiny.encode("a\u{4}b<|endoftext|> t").unwrap();
    assert_eq!(ids, [97, 98, 265, 4]);
    assert_eq!(tiny.decode(&ids), "ab<|endoftext|> t");
}

#[test]
fn added_tokens_must_have_the_ids_they_declare() {
    let mut tiny: serde_json::Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
    tiny["model"]["vocab"].as_object_mut().unwrap().remove("<|endoftext|>");
    Tokenizer::from_json(&tiny.to_string()).unwrap();
    tiny["added_tokens"][0]["id"] = 300.into();
    let error = Tokenizer::from_json(&tiny.to_string()).unwrap_err().to_string();
    assert!(error.contains("expected id 300, as declared, found 266"), "{error}");
}

#[test]
fn bert_cannot_give_its_text_back() {
    // It lower-cases: the negative of the test above.
    let Some(data) = data() else { return };
    let tokenizer = load(&data, "bert_base_uncased");
    assert_eq!(tokenizer.decode(&tokenizer.encode("Hello").unwrap()), "hello");
    // No [CLS] and [SEP] around the text.
    assert_eq!(tokenizer.encode("hello").unwrap().len(), 1);
}

#[test]
fn prompts_begin_as_the_tokenizer_says_and_documents_do_not() {
    let plain = Tokenizer::from_json(&tiny_tokenizer_json()).unwrap();
    assert_eq!(plain.encode_prompt("the").unwrap(), [257]);
    let mut with_bos: serde_json::Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
    with_bos["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [266], "tokens": ["<|endoftext|>"]}
        }
    });
    let with_bos = Tokenizer::from_json(&with_bos.to_string()).unwrap();
    assert_eq!(with_bos.encode_prompt("the").unwrap(), [266, 257]);
    assert_eq!(with_bos.encode_prompt("").unwrap(), [266]);
    assert_eq!(with_bos.encode("the").unwrap(), [257]);
    // What stands around a text does not decide the ids of documents: shards are the same.
    assert_eq!(with_bos.fingerprint(), plain.fingerprint());
    let Some(data) = data() else { return };
    // Python tokenizers 0.23.3: Tokenizer.from_file(path).encode("Once upon a time").ids
    let golden = [1, 403, 407, 261, 378];
    let stories = load(&data, "stories260k");
    assert_eq!(stories.encode_prompt("Once upon a time").unwrap(), golden);
    assert_eq!(stories.encode("Once upon a time").unwrap(), golden[1..]);
    assert_eq!(stories.encode_prompt("").unwrap(), [1]);
}

#[test]
fn end_of_text_and_sizes_are_found() {
    let Some(data) = data() else { return };
    for (name, size, end_of_text) in [
        ("gpt2", 50_257, 50_256),
        ("gpt_neox", 50_277, 0),
        ("smollm2", 49_152, 0),
        ("stories260k", 512, 2),
        ("bert_base_uncased", 30_522, 102),
    ] {
        let tokenizer = load(&data, name);
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.end_of_text()),
            (size, end_of_text),
            "{name}"
        );
    }
    let gpt2 = data.join("tokenizers/gpt2/tokenizer.json");
    let named = Tokenizer::from_file(&gpt2, Some("hello")).unwrap();
    assert_eq!(named.decode(&[named.end_of_text()]), "hello");
    // Kept byte for byte.
    assert_eq!(named.json(), std::fs::read_to_string(gpt2).unwrap());
}

#[test]
fn fingerprint_sees_content_and_not_form() {
    let json = tiny_tokenizer_json();
    let fingerprint = |json: &str| Tokenizer::from_json(json).unwrap().fingerprint().to_owned();
    let first = fingerprint(&json);
    assert_eq!(first.len(), 64);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(fingerprint(&serde_json::to_string_pretty(&value).unwrap()), first);
    let mut old = value.clone();
    for merge in old["model"]["merges"].as_array_mut().unwrap() {
        let pair = format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
        *merge = pair.into();
    }
    assert_eq!(fingerprint(&old.to_string()), first);
    let mut other = value.clone();
    other["model"]["merges"].as_array_mut().unwrap().pop();
    assert_ne!(fingerprint(&other.to_string()), first);
}

#[test]
fn unusable_tokenizers_are_clear_errors() {
    for (json, words) in [
        ("{", "expected JSON"),
        ("[]", "expected a model with a vocabulary"),
        ("{\"model\": \"x\"}", "expected a model with a vocabulary"),
        ("{\"model\": {\"vocab\": {\"a\": 4294967295}}}", "expected ids below 67108864"),
        ("{\"model\": {\"vocab\": {\"a\": -1}}}", "expected a model with a vocabulary"),
        (
            "{\"version\": \"1.0\", \"model\": {\"type\": \"Odd\", \"vocab\": {\"a\": 0}}}",
            "cannot read",
        ),
    ] {
        let error = Tokenizer::from_json(json).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("\nhint: "), "{error}");
    }
    let without = tiny_tokenizer_json().replace("<|endoftext|>", "<none>");
    let error = Tokenizer::from_json(&without).unwrap_err();
    assert!(matches!(&error, DataError::NoEndOfText { tried, .. } if tried.len() == 5));
    assert!(error.to_string().contains("set `end_of_text`"), "{error}");
    let error = Tokenizer::from_file(Path::new("nowhere.json"), None).unwrap_err().to_string();
    assert!(error.contains("cannot read nowhere.json"), "{error}");
}

/// A folder with the tiny tokenizer in it, which has these special tokens besides its own.
fn folder_with(specials: &[&str]) -> tempfile::TempDir {
    let mut tiny: serde_json::Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
    let next = tiny["model"]["vocab"].as_object().unwrap().len();
    for (content, id) in specials.iter().zip(next..) {
        let mut token = tiny["added_tokens"][0].clone();
        (token["content"], token["id"]) = ((*content).into(), id.into());
        tiny["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tiny.to_string()).unwrap();
    folder
}

#[test]
fn the_end_of_text_is_the_models_then_the_tokenizers_then_a_usual_one() {
    let folder = folder_with(&["<turn>", "<end>", "</s>"]);
    let write = |file: &str, json: serde_json::Value| {
        std::fs::write(folder.path().join(file), json.to_string()).unwrap();
    };
    let find = |named: Option<&str>| {
        Tokenizer::from_file(folder.path(), named).unwrap().end_of_text_token().to_owned()
    };
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(find(None), "<|endoftext|>");
    write("special_tokens_map.json", json(r#"{"eos_token": "</s>"}"#));
    assert_eq!(find(None), "</s>");
    write("tokenizer_config.json", json(r#"{"eos_token": "<turn>"}"#));
    assert_eq!(find(None), "<turn>");
    write("tokenizer_config.json", json(r#"{"eos_token": {"content": "<end>", "lstrip": false}}"#));
    assert_eq!(find(None), "<end>");
    // Of another vocabulary, or none: the next in order.
    write("tokenizer_config.json", json(r#"{"eos_token": "<elsewhere>"}"#));
    assert_eq!(find(None), "</s>");
    write("config.json", json(r#"{"eos_token_id": 267}"#));
    assert_eq!(find(None), "<turn>");
    write("generation_config.json", json(r#"{"eos_token_id": [90000, 268, 267]}"#));
    assert_eq!(find(None), "<end>");
    assert_eq!(find(Some("</s>")), "</s>");
    write("generation_config.json", json(r#"{"eos_token_id": null}"#));
    assert_eq!(find(None), "<turn>");
    // The model that is trained on goes before what lies beside the tokenizer.
    let model = tempfile::tempdir().unwrap();
    std::fs::write(model.path().join("config.json"), r#"{"eos_token_id": 269}"#).unwrap();
    let tokenizer = Tokenizer::from_file_for(folder.path(), None, Some(model.path())).unwrap();
    assert_eq!((tokenizer.end_of_text(), tokenizer.end_of_text_token()), (269, "</s>"));
}

#[test]
fn a_text_begins_with_what_the_first_of_the_settings_says_and_null_is_nothing() {
    let folder = folder_with(&["<begin>", "<start>"]);
    let begins = || {
        let tokenizer = Tokenizer::from_file(folder.path(), None).unwrap();
        cuvee_data::model_beginning_of_text(folder.path(), &tokenizer).unwrap()
    };
    let write = |file: &str, json: &str| std::fs::write(folder.path().join(file), json).unwrap();
    let named = || cuvee_data::named_beginning(folder.path());
    assert_eq!((begins(), named()), (None, None));
    write("special_tokens_map.json", r#"{"bos_token": {"content": "<start>"}}"#);
    let start = begins();
    assert!(start.is_some() && named() == Some(Some("<start>".to_owned())));
    write("tokenizer_config.json", "{}");
    assert_eq!(begins(), start);
    write("tokenizer_config.json", r#"{"bos_token": "<begin>"}"#);
    assert!(begins().is_some() && begins() != start);
    write("tokenizer_config.json", r#"{"bos_token": null}"#);
    assert_eq!((begins(), named()), (None, Some(None)));
}

#[test]
fn ids_that_end_a_models_texts_are_read_all_of_them_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, id: &str| {
        std::fs::write(folder.path().join(file), format!("{{\"eos_token_id\": {id}}}")).unwrap();
    };
    let read = || cuvee_data::model_end_of_text(folder.path());
    assert_eq!(read().unwrap(), [0; 0]);
    write("config.json", "7");
    assert_eq!(read().unwrap(), [7]);
    write("generation_config.json", "[9, 8]");
    assert_eq!(read().unwrap(), [9, 8]);
    for silent in ["null", "[]"] {
        write("generation_config.json", silent);
        assert_eq!(read().unwrap(), [7]);
    }
    for wrong in ["\"</s>\"", "-1", "4294967296", "[1.5]", "[[2]]"] {
        write("generation_config.json", wrong);
        let message = read().unwrap_err().to_string();
        assert!(
            message.contains("generation_config.json") && message.contains("`eos_token_id`"),
            "{message}"
        );
    }
}

#[test]
fn an_end_of_text_that_is_not_there_is_an_error_that_names_what_is() {
    let mut tiny = tiny_tokenizer_json().replace("<|endoftext|>", "<｜end▁of▁sentence｜>");
    let error = Tokenizer::from_json(&tiny).unwrap_err().to_string();
    assert!(error.contains("`[SEP]`") && error.contains("`<｜end▁of▁sentence｜>`"), "{error}");
    assert!(error.contains("expected one of `<|endoftext|>`, "), "{error}");
    let mut none: serde_json::Value = serde_json::from_str(&tiny).unwrap();
    none["added_tokens"] = serde_json::json!([]);
    let error = Tokenizer::from_json(&none.to_string()).unwrap_err().to_string();
    assert!(error.contains("it has no special token"), "{error}");
    let folder = folder_with(&["<far>", "<|end_of_text|>"]);
    let error =
        Tokenizer::from_file(folder.path(), Some("<|end_of_txt|>")).unwrap_err().to_string();
    assert!(error.contains("expected `<|end_of_txt|>`"), "{error}");
    assert!(error.contains("special tokens: `<|end_of_text|>`"), "the nearest first: {error}");
    // A mark of byte order is no part of it.
    tiny.insert(0, '\u{feff}');
    let tiny = tiny.replace("<｜end▁of▁sentence｜>", "</s>");
    assert!(!Tokenizer::from_json(&tiny).unwrap().json().starts_with('\u{feff}'));
}

#[test]
fn files_of_other_formats_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| {
        let file = folder.path().join("t");
        std::fs::write(&file, bytes).unwrap();
        Tokenizer::from_file(&file, None).unwrap_err().to_string()
    };
    for (bytes, words) in [
        (&b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"[..], "found a SentencePiece model"),
        (b"\x0a\x0e\x0a\x05\xff\xfe>\x15", "found a SentencePiece model"),
        (b"IQ== 0\nIg== 1\n", "found a tiktoken vocabulary"),
        (b"#version: 0.2\na b\n", "found the merges"),
        (b"", "found an empty file"),
        (b"{\"a\": 0, \"b\": 1}", "found a vocabulary alone"),
        (b"{\"tokenizer_class\": \"x\"}", "found a tokenizer_config.json"),
        (b"\xff\xfe{\x00", "no UTF-8"),
    ] {
        let error = refused(bytes);
        assert!(error.contains(words) && error.contains("\nhint: "), "{error}");
    }
    std::fs::write(folder.path().join("tokenizer.model"), b"x").unwrap();
    let error = Tokenizer::from_file(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("found `tokenizer.model`") && error.contains("hint: "), "{error}");
}

#[test]
fn a_stream_of_ids_gives_the_text_whatever_comes() {
    let mut tiny: serde_json::Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
    tiny["version"] = "1.0".into();
    let tiny = Tokenizer::from_json(&tiny.to_string()).unwrap();
    let byte = |byte: u8| u32::from(byte);
    let streamed = |ids: &[u32]| {
        let mut stream = tiny.decode_stream();
        let steps: Vec<String> = ids.iter().map(|id| stream.step(*id)).collect();
        (steps.concat(), stream.finish())
    };
    // Bytes that can never become a character, for ever, and then one that does.
    let mut ids: Vec<u32> = [byte(0xff)].repeat(1000);
    ids.extend("é日😀".bytes().map(byte));
    let (text, rest) = streamed(&ids);
    assert_eq!(text, format!("{}é日😀", "\u{fffd}".repeat(1000)));
    assert_eq!(rest, "");
    // Ids beyond the vocabulary give nothing, and hold nothing up.
    let ids = [vec![9_999; 100], vec![byte(b'a')], vec![9_999; 5], vec![0xf0, 0x9f]].concat();
    assert_eq!(streamed(&ids), ("a".to_owned(), "\u{fffd}".to_owned()));
}
