//! A `tokenizer.json` as a file: what stands in it, before any library reads it.
//!
//! In: a file or a folder. Out: its text and content, the ids of its tokens, its fingerprint; or
//! what it is instead. Here ids are checked to be those that the file declares: libraries count
//! them themselves.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use cuvee_words::{printable, printable_path};
use serde_json::{Value, json};

use crate::error::{DataError, Result, list};
use crate::hash::sha256_hex;

/// Tables are as long as the largest id; one beyond this is a mistake that would fill the memory.
const MOST_IDS: usize = 1 << 26;

/// What to do with most files that are refused.
const SAVE_ANEW: &str = "load it with Python's tokenizers and save it anew, \
     `Tokenizer.from_file(…).save(…)`, or give a tokenizer.json as written by Hugging Face tokenizers";

/// Its content, read and checked.
pub(super) struct TokenizerFile {
    /// As it came, without a mark of byte order.
    pub(super) text: String,
    pub(super) content: Value,
    /// All tokens and their ids, added ones included.
    pub(super) vocabulary: HashMap<String, u32>,
    /// What messages call it.
    pub(super) origin: String,
}

impl TokenizerFile {
    /// Reads a file, or the `tokenizer.json` of a folder.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and the file cannot be read.
    pub(super) fn read(path: &Path) -> Result<TokenizerFile> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let origin = printable_path(&file);
        if path.is_dir()
            && !file.exists()
            && let others @ [_, ..] = &others(path)[..]
        {
            return Err(refused(
                &origin,
                format!("expected this file in the folder, found {} without it", list(others)),
                CONVERT,
            ));
        }
        let bytes = std::fs::read(&file).map_err(DataError::io("read", &file))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let bytes = error.as_bytes();
            let found = other_format(bytes).unwrap_or("bytes that are no UTF-8");
            refused(&origin, format!("expected JSON, found {found}"), CONVERT)
        })?;
        TokenizerFile::parse(text, &origin)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is no tokenizer, merges at random, or declares ids that are not those of its tokens.
    pub(super) fn parse(mut text: String, origin: &str) -> Result<TokenizerFile> {
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        let content: Value =
            serde_json::from_str(&text).map_err(|error| match other_format(text.as_bytes()) {
                Some(found) => refused(origin, format!("expected JSON, found {found}"), CONVERT),
                None => refused(origin, format!("expected JSON, found {error}"), SAVE_ANEW),
            })?;
        let vocabulary = vocabulary(&content).ok_or_else(|| {
            let found = other_json(&content);
            refused(origin, format!("expected a model with a vocabulary, found {found}"), SAVE_ANEW)
        })?;
        if let Some(largest) = vocabulary.values().max().filter(|id| **id as usize >= MOST_IDS) {
            let message = format!("expected ids below {MOST_IDS}, found {largest}");
            return Err(refused(origin, message, SAVE_ANEW));
        }
        let file = TokenizerFile { text, content, vocabulary, origin: origin.to_owned() };
        file.refuse_dropout()?;
        file.check_added_ids()?;
        Ok(file)
    }

    /// An error about this file.
    pub(super) fn refused(&self, message: String) -> DataError {
        refused(&self.origin, message, SAVE_ANEW)
    }

    /// The refusal of two added tokens that are both `text` once a text is normalised.
    pub(super) fn refused_alike(&self, one: &str, other: &str, text: &str) -> DataError {
        let [one, other, text] = [one, other, text].map(printable);
        let message = format!(
            "expected added tokens that normalised text tells apart, found `{one}` and `{other}`, which are both \
             `{text}` there: which of them a text gets is left to chance, in Python too"
        );
        let hint =
            "leave one of the two out in a copy of the file, or set its `normalized` to false";
        refused(&self.origin, message, hint)
    }

    /// The largest id plus one.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocabulary.values().max().map_or(0, |id| *id as usize + 1)
    }

    /// The ids below the largest that no token has.
    pub(super) fn holes(&self) -> Vec<u32> {
        let mut has = vec![false; self.vocab_size()];
        self.vocabulary.values().for_each(|id| has[*id as usize] = true);
        (0..).zip(has).filter(|(_, has)| !has).map(|(id, _)| id).collect()
    }

    /// The added tokens, in their order.
    pub(super) fn added(&self) -> impl Iterator<Item = &Value> {
        self.content["added_tokens"].as_array().into_iter().flatten()
    }

    /// The added tokens that are special, as they are spelled.
    pub(super) fn special_tokens(&self) -> Vec<&str> {
        let special = self.added().filter(|token| token["special"] == true);
        special.filter_map(|token| token["content"].as_str()).collect()
    }

    /// The added tokens that are special, by their ids, and how long each is as it is spelled. The
    /// one of unknown words is not among them: it stands for text, and costs what a token costs.
    pub(super) fn special_ids(&self) -> HashMap<u32, usize> {
        let model = &self.content["model"];
        let special = self.added().filter(|token| token["special"] == true);
        let id = |token: &Value| {
            if token["content"] == model["unk_token"] || token["id"] == model["unk_id"] {
                return None;
            }
            let id = u32::try_from(token["id"].as_u64()?).ok()?;
            Some((id, token["content"].as_str()?.len()))
        };
        special.filter_map(id).collect()
    }

    /// The token of an id; of several, an added one.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        let added = self.added().filter(|token| token["id"] == id);
        added.filter_map(|token| token["content"].as_str()).next().or_else(|| {
            let all = self.vocabulary.iter().filter(|(_, of)| **of == id);
            all.map(|(token, _)| token.as_str()).min()
        })
    }

    /// SHA-256, in hexadecimal, over what decides the ids.
    pub(super) fn fingerprint(&self) -> String {
        let mut content = json!({});
        for key in ["normalizer", "pre_tokenizer", "model", "added_tokens", "decoder"] {
            content[key] = self.content[key].clone();
        }
        if let Some(Value::Array(merges)) = content.pointer_mut("/model/merges") {
            for merge in merges {
                if let Some((left, right)) = merge.as_str().and_then(|pair| pair.split_once(' ')) {
                    *merge = json!([left, right]);
                }
            }
        }
        content.sort_all_objects();
        sha256_hex(content.to_string().as_bytes())
    }

    /// Merges that are left out at random would give other ids in every run.
    fn refuse_dropout(&self) -> Result<()> {
        match self.content["model"]["dropout"].as_f64() {
            Some(dropout) if dropout != 0.0 => Err(refused(
                &self.origin,
                format!(
                    "expected the same ids for a text each time, found `model.dropout` = {dropout}, which \
                     leaves out merges at random"
                ),
                "set `dropout` to null in a copy of the file: text is then encoded with all merges",
            )),
            _ => Ok(()),
        }
    }

    /// Checks that added tokens get the ids that the file declares: libraries, Python's among them,
    /// give a token that the model does not have the next id after the vocabulary's length.
    fn check_added_ids(&self) -> Result<()> {
        let (known, mut next) = match &self.content["model"]["vocab"] {
            Value::Array(vocab) => (HashMap::new(), vocab.len() as u64),
            vocab => {
                let vocab = vocab.as_object().into_iter().flatten();
                let known: HashMap<&str, u64> =
                    vocab.filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?))).collect();
                let count = known.len() as u64;
                (known, count)
            }
        };
        let pairs = self.content["model"]["vocab"].as_array().into_iter().flatten();
        let pairs: HashMap<&str, u64> =
            pairs.zip(0..).filter_map(|(pair, id)| Some((pair.get(0)?.as_str()?, id))).collect();
        let mut added: HashMap<&str, u64> = HashMap::new();
        for token in self.added() {
            let (Some(declared), Some(content)) = (token["id"].as_u64(), token["content"].as_str())
            else {
                continue;
            };
            if content.is_empty() {
                continue;
            }
            let known = known.get(content).or_else(|| pairs.get(content));
            let given = *added.entry(content).or_insert_with(|| {
                known.copied().unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
            });
            if given != declared {
                let taken: HashSet<u64> =
                    self.vocabulary.values().map(|id| u64::from(*id)).collect();
                let hint = match known {
                    Some(_) => {
                        "write the vocabulary's id beside the added token in a copy of the file"
                            .to_owned()
                    }
                    None => format!(
                        "Python's tokenizers counts the same and does not give {declared} either; {} in a copy \
                         of the file",
                        match taken.contains(&given) {
                            false => format!(
                                "add tokens such as `<unused{given}>` for the ids from {given} on that none has"
                            ),
                            true =>
                                "list the added tokens in the order of their ids, without holes"
                                    .to_owned(),
                        }
                    ),
                };
                let message = format!(
                    "added token `{content}`: expected id {declared}, as declared, found {given} by counting \
                     on from the model's vocabulary"
                );
                return Err(refused(&self.origin, message, &hint));
            }
        }
        Ok(())
    }
}

fn refused(origin: &str, message: String, hint: &str) -> DataError {
    DataError::Tokenizer { origin: origin.to_owned(), message, hint: hint.to_owned() }
}

/// How another format becomes a `tokenizer.json`.
const CONVERT: &str = "in the model's folder, Python's \
     `transformers.AutoTokenizer.from_pretrained(\".\").save_pretrained(\".\")` writes a tokenizer.json";

/// What bytes that are no JSON are, where they can be told.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    match bytes {
        // A protocol buffer of pieces: field 1, its length, and in it field 1, the first's text.
        [0x0a, _, 0x0a, ..] => Some("a SentencePiece model"),
        [0x1f, 0x8b, ..] => Some("a file packed by gzip"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive"),
        [] => Some("an empty file"),
        _ => {
            let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let mut words = first.trim_ascii().split(|byte| *byte == b' ');
            let (token, rank, rest) = (words.next()?, words.next()?, words.next());
            let is = !token.is_empty()
                && token.iter().all(base64)
                && !rank.is_empty()
                && rank.iter().all(u8::is_ascii_digit)
                && rest.is_none();
            match is {
                true => Some("a tiktoken vocabulary"),
                false if first.starts_with(b"#version") => Some("the merges of an older tokenizer"),
                false => None,
            }
        }
    }
}

/// What JSON that is no tokenizer is.
fn other_json(content: &Value) -> String {
    let Some(keys) = content.as_object() else { return "none".to_owned() };
    let ids = keys.values().filter(|value| value.is_u64()).count();
    match () {
        () if ids > 0 && ids == keys.len() => {
            "a vocabulary alone, the vocab.json of an older tokenizer".to_owned()
        }
        () if keys.contains_key("tokenizer_class") => "a tokenizer_config.json".to_owned(),
        () if keys.contains_key("model_type") => "the config.json of a model".to_owned(),
        () => "none".to_owned(),
    }
}

/// Files of tokenizers in other formats in a folder.
fn others(folder: &Path) -> Vec<String> {
    ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt"]
        .into_iter()
        .filter(|name| folder.join(name).is_file())
        .map(str::to_owned)
        .collect()
}

/// All tokens and their ids, added ones included; `None` where the model has no vocabulary.
fn vocabulary(tokenizer: &Value) -> Option<HashMap<String, u32>> {
    let mut tokens = HashMap::new();
    match &tokenizer["model"]["vocab"] {
        Value::Object(vocab) => {
            for (token, id) in vocab {
                tokens.insert(token.clone(), u32::try_from(id.as_u64()?).ok()?);
            }
        }
        // Unigram: [token, score] pairs in the order of their ids.
        Value::Array(vocab) => {
            for (id, pair) in vocab.iter().enumerate() {
                tokens.insert(pair.get(0)?.as_str()?.to_owned(), u32::try_from(id).ok()?);
            }
        }
        _ => return None,
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let id = u32::try_from(added["id"].as_u64()?).ok()?;
        tokens.insert(added["content"].as_str()?.to_owned(), id);
    }
    Some(tokens)
}
