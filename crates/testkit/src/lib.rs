//! Tiny deterministic corpora, numbers for numeric tests, the places of the shared test data, a
//! Hugging Face Hub on loopback, and ranks that are threads, for Cuvee's own tests.
//!
//! Nothing here reaches a user: the crate is a development dependency only, so it panics
//! where a library would return an error.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod digits;
mod numbers;

pub use digits::digits_parquet;
pub use numbers::{EXP, U32, close, number, random};

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

mod mirror;
mod ranks;

pub use mirror::{Fault, Mirror, MirrorFile, Request};
pub use ranks::on_ranks;

/// The folder of the real corpora, tokenizers and models that richer tests use.
///
/// Taken from the environment variable `CUVEE_TEST_DATA`, else `../shared/data` beside the
/// workspace; `None` unless `MANIFEST.md` lies in it, in which case a test says
/// "skipped" and returns.
pub fn shared_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("CUVEE_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => workspace_root().join("../shared/data"),
    };
    let folder = folder.canonicalize().ok()?;
    folder.join("MANIFEST.md").is_file().then_some(folder)
}

/// The root folder of the workspace the tests were built from.
pub fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Writes one `{"text": …, "meta": …}` line a document, making the parent folders.
pub fn write_jsonl<S: AsRef<str>>(path: &Path, docs: &[(S, Value)]) {
    let mut out = Vec::new();
    for (text, meta) in docs {
        serde_json::to_writer(&mut out, &json!({"text": text.as_ref(), "meta": meta})).unwrap();
        out.push(b'\n');
    }
    write_file(path, &out);
}

/// Writes plain documents as JSON lines, each with `meta = {"number": its place}`.
pub fn write_texts(path: &Path, texts: &[String]) {
    let docs: Vec<(&str, Value)> =
        texts.iter().enumerate().map(|(i, text)| (text.as_str(), json!({"number": i}))).collect();
    write_jsonl(path, &docs);
}

/// Writes a file, making the parent folders.
pub fn write_file(path: &Path, content: &[u8]) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap();
    }
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content).unwrap();
}

const NOUNS: &[&str] = &[
    "river", "mountain", "harbour", "village", "letter", "garden", "winter", "morning", "sister",
    "stranger", "lantern", "orchard", "captain", "promise", "journey", "meadow", "window",
    "bridge", "market", "teacher",
];
const VERBS: &[&str] = &[
    "crossed",
    "remembered",
    "followed",
    "painted",
    "visited",
    "carried",
    "admired",
    "left",
    "described",
    "found",
    "watched",
    "kept",
];
const ADJECTIVES: &[&str] =
    &["quiet", "old", "narrow", "bright", "distant", "patient", "green", "forgotten", "early"];
const IDENTIFIERS: &[&str] = &[
    "index", "buffer", "count", "value", "offset", "length", "result", "node", "key", "total",
    "start", "end",
];
const TYPES: &[&str] = &["u32", "usize", "f64", "i64", "bool"];
const OPERATORS: &[&str] = &["+", "-", "*", "/", "%", "^"];

/// `documents` short deterministic documents of English-like sentences, all different.
pub fn prose(seed: u64, documents: usize) -> Vec<String> {
    let mut random = Lcg::new(seed ^ 0x70_72_6f_73_65);
    (0..documents)
        .map(|number| {
            let mut text = format!("Chapter {number}.\n");
            for _ in 0..6 + random.below(10) {
                text.push_str(&format!(
                    "The {} {} {} the {} {}{}",
                    random.pick(ADJECTIVES),
                    random.pick(NOUNS),
                    random.pick(VERBS),
                    random.pick(ADJECTIVES),
                    random.pick(NOUNS),
                    if random.below(4) == 0 { ".\n\n" } else { ". " },
                ));
            }
            text.trim_end().to_owned()
        })
        .collect()
}

/// `documents` short deterministic documents that look like program text, all different, with
/// statistics far from those of [`prose`].
pub fn code_like(seed: u64, documents: usize) -> Vec<String> {
    let mut random = Lcg::new(seed ^ 0x63_6f_64_65);
    (0..documents)
        .map(|number| {
            let mut text = format!("fn step_{number}({}: usize) {{\n", random.pick(IDENTIFIERS));
            for _ in 0..5 + random.below(12) {
                text.push_str(&format!(
                    "    let {}: {} = {} {} {};\n",
                    random.pick(IDENTIFIERS),
                    random.pick(TYPES),
                    random.pick(IDENTIFIERS),
                    random.pick(OPERATORS),
                    random.below(1000),
                ));
            }
            text.push_str("}\n");
            text
        })
        .collect()
}

/// The characters that byte-level BPE writes for the bytes 0–255, in byte order.
///
/// Printable bytes stand for themselves, the other 68 for the characters from U+0100 on
/// (the table of the GPT-2 release).
fn byte_characters() -> Vec<char> {
    let printable = |byte: u32| {
        (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte)
    };
    let mut next = 256;
    (0..256u32)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

/// A small but complete `tokenizer.json` in the classic "1.0" form: byte-level BPE with the 256
/// bytes (ids 0–255 in byte order), ten merges (256–265) and `<|endoftext|>` (266).
pub fn tiny_tokenizer_json() -> String {
    // "Ġ" is how byte-level BPE writes a leading space.
    let merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("e", "r"),
        ("i", "n"),
        ("Ġ", "="),
        ("Ġ", "Ġ"),
        ("a", "n"),
        ("an", "d"),
        ("Ġ", "t"),
    ];
    let mut vocab = serde_json::Map::new();
    for (id, character) in byte_characters().into_iter().enumerate() {
        vocab.insert(character.to_string(), json!(id));
    }
    for (left, right) in merges {
        let id = vocab.len();
        vocab.insert(format!("{left}{right}"), json!(id));
    }
    let end_of_text = vocab.len();
    vocab.insert("<|endoftext|>".into(), json!(end_of_text));
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": end_of_text, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        }],
        "normalizer": null,
        "pre_tokenizer":
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder":
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>()
        }
    });
    tokenizer.to_string()
}

/// Knuth's MMIX linear congruential generator: small, and the same everywhere.
struct Lcg(u64);

impl Lcg {
    fn new(seed: u64) -> Self {
        Lcg(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The low bits of an LCG have short periods.
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

/// SHA-256 in lower-case hexadecimal, for golden files.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies a folder and what is below it.
///
/// # Panics
/// If anything cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // Not `fs::copy`, which would also copy that a file may only be read.
            fs::write(&target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpora_are_deterministic_and_without_duplicates() {
        for make in [prose, code_like] {
            let texts = make(7, 50);
            assert_eq!(texts, make(7, 50));
            assert_ne!(texts, make(8, 50));
            let mut unique = texts.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), 50);
        }
    }

    #[test]
    fn tiny_tokenizer_has_every_id_once() {
        let tokenizer: Value = serde_json::from_str(&tiny_tokenizer_json()).unwrap();
        let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
        let mut ids: Vec<u64> = vocab.values().map(|id| id.as_u64().unwrap()).collect();
        ids.sort();
        assert_eq!(ids, (0..267).collect::<Vec<u64>>());
    }
}
