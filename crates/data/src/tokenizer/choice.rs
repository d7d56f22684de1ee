//! Which library encodes with a tokenizer: the fast one where it is right, the reference elsewhere.
//!
//! In: a checked file. Out: a [`Library`] whose ids are those of Python's `tokenizers`. Kinds that
//! tests have compared over text without end are taken as they are. Kinds whose every part the fast
//! library is known to have right are compared once more, here, on built-in texts and on the
//! vocabulary's own ([`probe`]), which takes some milliseconds beside loading both. Everything else
//! is the reference's.

use std::sync::OnceLock;

use serde_json::Value;

use super::fast::Fast;
use super::file::TokenizerFile;
use super::probe;
use super::reference::Reference;
use crate::error::Result;

/// The version of files that Python reads.
const VERSION: &str = "1.0";

/// What encodes and decodes.
pub(super) enum Library {
    /// The fast one; beside it the reference, made when a text comes that the fast one cannot do.
    Fast(Box<Fast>, OnceLock<std::result::Result<Reference, String>>),
    Reference(Reference),
}

impl Library {
    /// The library for a file.
    ///
    /// # Errors
    /// Neither reads it.
    pub(super) fn choose(file: &TokenizerFile) -> Result<Library> {
        let fast = |fast: Fast| Library::Fast(Box::new(fast), OnceLock::new());
        let content = &file.content;
        if !matches!(&content["version"], Value::Null) && content["version"] != VERSION {
            // The fast library's own versions: Python reads none of them.
            let loaded = Fast::load(&file.text);
            return loaded.map(fast).map_err(|e| file.refused(format!("cannot read it: {e}")));
        }
        let known = is_known(content);
        let loaded = if known || is_likely(content) { Fast::load(&file.text).ok() } else { None };
        let loaded = match loaded {
            Some(loaded) if known && loaded.merges_itself() => return Ok(fast(loaded)),
            loaded => loaded,
        };
        let reference = Reference::load(&file.text)
            .map_err(|error| file.refused(format!("cannot read it, as Python cannot: {error}")))?;
        if let Some([one, other, text]) = reference.alike() {
            return Err(file.refused_alike(&one, &other, &text));
        }
        match loaded.filter(|loaded| probe::agree(loaded, &reference, file)) {
            Some(loaded) => Ok(fast(loaded)),
            None => match probe::failure(&reference, file) {
                None => Ok(Library::Reference(reference)),
                Some(error) => Err(file.refused(format!(
                    "expected a tokenizer that encodes text, found one that fails on any: {error}"
                ))),
            },
        }
    }

    /// Appends the ids of a text; with `prompt`, and what a post-processor puts around it. `json`
    /// is the text of the file.
    pub(super) fn encode(
        &self,
        json: &str,
        text: &str,
        prompt: bool,
        ids: &mut Vec<u32>,
    ) -> std::result::Result<(), String> {
        let (fast, reference) = match self {
            Library::Reference(reference) => return reference.encode(text, prompt, ids),
            Library::Fast(fast, reference) => (fast, reference),
        };
        let start = ids.len();
        let whole = match prompt {
            false => fast.encode(text, ids),
            true => fast.encode_prompt(text, ids),
        };
        if whole.map_err(|error| error.to_string())? {
            return Ok(());
        }
        ids.truncate(start);
        let reference = reference.get_or_init(|| Reference::load(json));
        reference.as_ref().map_err(Clone::clone)?.encode(text, prompt, ids)
    }

    /// The text of these ids.
    pub(super) fn decode(&self, ids: &[u32]) -> std::result::Result<String, String> {
        match self {
            Library::Fast(fast, _) => fast.decode(ids).map_err(|error| error.to_string()),
            Library::Reference(reference) => reference.decode(ids),
        }
    }

    /// Whether it is the fast library.
    pub(super) fn is_fast(&self) -> bool {
        matches!(self, Library::Fast(..))
    }
}

/// Patterns of words that the fast library cuts by hand, as a `Split` has them.
const KNOWN_PATTERNS: [&str; 3] = [
    // GPT-2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// A byte-level BPE of the kind of GPT-2, Llama 3 or Qwen 2, and of those that Cuvee trains, as far
/// as [`ByteBpe`](super::bpe::ByteBpe) does not look itself.
fn is_known(content: &Value) -> bool {
    let parts = parts(&content["pre_tokenizer"], "pretokenizers");
    let cuts = match &parts[..] {
        [words] => byte_level(words, true),
        [digits, words] if digits["type"] == "Digits" => byte_level(words, true),
        [split, words] => {
            let pattern = split["pattern"]["Regex"].as_str();
            split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && pattern.is_some_and(|pattern| KNOWN_PATTERNS.contains(&pattern))
                && byte_level(words, false)
        }
        _ => false,
    };
    cuts && content["decoder"]["type"] == "ByteLevel"
        && is_off(&content["model"]["byte_fallback"])
        && added_are_plain(content)
        && surroundings_are_plain(content)
}

/// A tokenizer of parts that the fast library has right, whatever the vocabulary does with them.
fn is_likely(content: &Value) -> bool {
    let normal = parts(&content["normalizer"], "normalizers").into_iter().all(|part| {
        match part["type"].as_str().unwrap_or_default() {
            "NFC" | "NFD" | "NFKC" | "NFKD" | "Prepend" | "Precompiled" => true,
            "Replace" => part["pattern"]["String"].is_string(),
            _ => false,
        }
    });
    let cut =
        parts(&content["pre_tokenizer"], "pretokenizers").into_iter().all(
            |part| match part["type"].as_str().unwrap_or_default() {
                "BertPreTokenizer" | "Metaspace" | "Digits" => true,
                "ByteLevel" => part["add_prefix_space"] == false,
                "Split" => {
                    let pattern = part["pattern"]["Regex"].as_str();
                    part["behavior"] == "Isolated"
                        && part["invert"] == false
                        && pattern.is_some_and(|pattern| KNOWN_PATTERNS.contains(&pattern))
                }
                _ => false,
            },
        );
    let model = &content["model"];
    let kind = match model["type"].as_str().unwrap_or_default() {
        "BPE" => {
            is_off(&model["continuing_subword_prefix"]) && is_off(&model["end_of_word_suffix"])
        }
        "WordPiece" | "Unigram" => true,
        _ => false,
    };
    normal && cut && kind && added_are_plain(content) && surroundings_are_plain(content)
}

/// The parts of a component: those of a `Sequence`, or itself, or none.
fn parts<'a>(component: &'a Value, members: &str) -> Vec<&'a Value> {
    match component["type"].as_str() {
        Some("Sequence") => {
            let members = component[members].as_array().into_iter().flatten();
            members.flat_map(|member| parts(member, members_of(member))).collect()
        }
        _ if component.is_null() => Vec::new(),
        _ => vec![component],
    }
}

/// What a `Sequence` calls its members.
fn members_of(sequence: &Value) -> &'static str {
    let names = ["normalizers", "pretokenizers", "processors", "decoders"];
    names.into_iter().find(|name| sequence[*name].is_array()).unwrap_or("")
}

fn byte_level(part: &Value, use_regex: bool) -> bool {
    part["type"] == "ByteLevel"
        && part["add_prefix_space"] == false
        && part["use_regex"].as_bool().unwrap_or(true) == use_regex
}

fn is_off(option: &Value) -> bool {
    option.is_null() || *option == false || *option == ""
}

/// Added tokens are found as they are spelled, wherever they stand.
fn added_are_plain(content: &Value) -> bool {
    let added = content["added_tokens"].as_array().into_iter().flatten();
    let normalizes = !content["normalizer"].is_null();
    added.into_iter().all(|token| {
        token["content"].as_str().is_some_and(|content| !content.is_empty())
            && ["single_word", "lstrip", "rstrip"].into_iter().all(|flag| is_off(&token[flag]))
            && (is_off(&token["normalized"]) || !normalizes)
    })
}

/// What a post-processor puts around a prompt is one token or the other.
fn surroundings_are_plain(content: &Value) -> bool {
    parts(&content["post_processor"], "processors").into_iter().all(|part| {
        let kinds = ["ByteLevel", "TemplateProcessing", "BertProcessing"];
        kinds.into_iter().any(|kind| part["type"] == kind)
    })
}
