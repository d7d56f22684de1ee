//! Which token ends a document: the one place that decides it.
//!
//! In: what the config names, and the folders of the model and of the tokenizer. Out: a token of
//! the vocabulary. The first of these that the vocabulary has is taken: the token the config names,
//! which must be there; what the model's own files say (`generation_config.json`, then
//! `config.json`); what the tokenizer's settings say (`tokenizer_config.json`, then
//! `special_tokens_map.json`); the usual names.

use std::path::Path;

use serde_json::{Map, Value};

use super::file::TokenizerFile;
use crate::error::{DataError, Result};

/// The tokens taken for end-of-text where neither the config nor the model names one, the first
/// that is there.
pub const END_OF_TEXT_TOKENS: [&str; 5] =
    ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"];

/// Files beside a model that name ids, the first that does so before the others.
const MODEL_FILES: [&str; 2] = ["generation_config.json", "config.json"];
/// Files beside a tokenizer that name a token.
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// All of them, for who fetches a tokenizer.
pub(crate) const END_OF_TEXT_FILES: [&str; 4] =
    [MODEL_FILES[0], MODEL_FILES[1], SETTINGS[0], SETTINGS[1]];

/// What decides the end of text, besides the vocabulary.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EndOfText<'a> {
    /// The token that the config names.
    pub(crate) named: Option<&'a str>,
    /// The folder of the model that is trained on.
    pub(crate) model: Option<&'a Path>,
    /// The folder of the tokenizer.
    pub(crate) own: Option<&'a Path>,
}

impl EndOfText<'_> {
    /// The token and its id.
    ///
    /// # Errors
    /// [`DataError::NoEndOfText`]; a file of the model that has the key and no id in it.
    pub(super) fn find(self, file: &TokenizerFile) -> Result<(String, u32)> {
        let of_name = |name: &str| Some((name.to_owned(), *file.vocabulary.get(name)?));
        let mut tried = Vec::new();
        if let Some(named) = self.named {
            tried.push(named.to_owned());
            return of_name(named).ok_or_else(|| nothing(file, tried));
        }
        let folders: Vec<&Path> = [self.model, self.own].into_iter().flatten().collect();
        for folder in &folders {
            let ids = model_end_of_text(folder)?;
            // They are ids of the model's own tokenizer: in another, the same token has another.
            let own = match ids.is_empty() {
                true => None,
                false => other_tokenizer(folder, file),
            };
            for id in ids {
                let found = match own.as_ref().map(|own| own.token(id)) {
                    Some(token) => token.and_then(of_name),
                    None => file.token(id).map(|token| (token.to_owned(), id)),
                };
                if let Some(found) = found {
                    return Ok(found);
                }
                tried.push(format!("id {id}"));
            }
        }
        for folder in &folders {
            let named = |name| named_by(&folder.join(name), "eos_token").flatten();
            for name in SETTINGS.iter().filter_map(named) {
                if let Some(found) = of_name(&name) {
                    return Ok(found);
                }
                tried.push(name);
            }
        }
        for name in END_OF_TEXT_TOKENS {
            if let Some(found) = of_name(name) {
                return Ok(found);
            }
            tried.push(name.to_owned());
        }
        tried.dedup();
        Err(nothing(file, tried))
    }
}

/// The tokenizer beside a model, where it is another than `file`.
fn other_tokenizer(folder: &Path, file: &TokenizerFile) -> Option<TokenizerFile> {
    let path = folder.join("tokenizer.json");
    let other = path.is_file().then(|| TokenizerFile::read(&path).ok()).flatten()?;
    (other.text != file.text && other.fingerprint() != file.fingerprint()).then_some(other)
}

/// The ids that end a text of the model in `folder`: `eos_token_id` of `generation_config.json`, or
/// of `config.json` where the former is not there or silent. Nothing where neither has one.
///
/// # Errors
/// [`DataError::ModelFile`] for a key that holds anything but an id or a list of them.
pub fn model_end_of_text(folder: &Path) -> Result<Vec<u32>> {
    const KEY: &str = "eos_token_id";
    for path in MODEL_FILES.map(|name| folder.join(name)) {
        let Some(value) = object(&path).and_then(|mut keys| keys.remove(KEY)) else { continue };
        let ids = match &value {
            Value::Null => Vec::new(),
            Value::Array(ids) => ids.iter().collect(),
            id => vec![id],
        };
        let read = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Option<Vec<u32>> = ids.into_iter().map(read).collect();
        match ids {
            Some(ids) if ids.is_empty() => {}
            Some(ids) => return Ok(ids),
            None => {
                return Err(DataError::ModelFile {
                    path,
                    expected: format!("a token id, or a list of them, for `{KEY}`"),
                    found: value.to_string(),
                });
            }
        }
    }
    Ok(Vec::new())
}

/// The token that a tokenizer's settings call so, as `eos_token`: its text, or an object with it.
/// `Some(None)` where they have the key and no token for it, as null.
pub(super) fn named_by(settings: &Path, called: &str) -> Option<Option<String>> {
    let token = object(settings)?.remove(called)?;
    Some(token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned))
}

/// A JSON object; nothing where there is none: what else lies there is not this module's business.
fn object(path: &Path) -> Option<Map<String, Value>> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Nothing was found; what there is is named.
fn nothing(file: &TokenizerFile, tried: Vec<String>) -> DataError {
    let mut there: Vec<String> = file.special_tokens().into_iter().map(str::to_owned).collect();
    if let [wanted] = &tried[..] {
        let near = |token: &String| strsim::jaro_winkler(wanted, token);
        there.sort_by(|a, b| near(b).total_cmp(&near(a)));
    } else {
        // What ends a text is often called so.
        there.sort_by_key(|token| {
            !["end", "eos", "eot", "/s"].iter().any(|part| token.contains(part))
        });
    }
    DataError::NoEndOfText { origin: file.origin.clone(), tried, there }
}
