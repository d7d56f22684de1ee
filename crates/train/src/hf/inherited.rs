//! What a pretrained model's files say besides its shape, and what training leaves as it is.
//!
//! In: the folder of the model that a run starts from. Out: the ids that begin, end and pad its
//! texts, and its generation settings, which the run's own exports carry on.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::json::read_json;
use super::vocabulary::VocabularyRows;
use crate::error::{Result, TrainError};

/// The files' keys that exports carry on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inherited {
    /// The ids that end its texts; nothing where no file says.
    ends: Vec<u32>,
    /// `bos_token_id` and `pad_token_id`, null where the model has none.
    begin: Value,
    pad: Value,
    /// The token that the tokenizer's settings begin texts with; `Some(None)` where they say that
    /// none does, `None` where they say nothing. The ids are no evidence of it: models that begin
    /// no text with a token, as Qwen's, have a `bos_token_id` all the same.
    begin_token: Option<Option<String>>,
    /// `generation_config.json`.
    generation: Map<String, Value>,
    /// The chat template of `tokenizer_config.json`, else what `chat_template.jinja` holds.
    chat_template: Value,
}

/// The ids as a `config.json` has them.
pub(super) struct SpecialIds {
    pub(super) begin: Value,
    pub(super) end: Value,
    pub(super) pad: Value,
}

impl Inherited {
    /// What the files of `dir` say.
    ///
    /// # Errors
    /// [`TrainError::Data`](crate::TrainError::Data) for an end of text that is no id;
    /// [`TrainError::Json`](crate::TrainError::Json) for a file that is no JSON object.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            if path.is_file() { read_json(&path) } else { Ok(Map::new()) }
        };
        let (config, generation) = (read("config.json")?, read("generation_config.json")?);
        let id = |key: &str| {
            let files = [&config, &generation].into_iter();
            let found = files.filter_map(|file| file.get(key)).find(|id| id.is_u64());
            found.cloned().unwrap_or_default()
        };
        let mut chat_template =
            read("tokenizer_config.json")?.remove("chat_template").unwrap_or_default();
        let template = dir.join("chat_template.jinja");
        if chat_template.is_null() && template.is_file() {
            let text = std::fs::read_to_string(&template);
            chat_template = text.map_err(TrainError::io("read", &template))?.into();
        }
        let ends = cuvee_data::model_end_of_text(dir)?;
        let (begin, pad) = (id("bos_token_id"), id("pad_token_id"));
        let begin_token = cuvee_data::named_beginning(dir);
        Ok(Self { ends, begin, pad, begin_token, generation, chat_template })
    }

    /// The same for another vocabulary: ids are those of the same tokens there, and what names a
    /// token that is not there any more is left out. The chat template stays where all tokens do.
    #[must_use]
    pub fn translated(mut self, rows: &VocabularyRows) -> Self {
        let id = |old: &Value| {
            let old = u32::try_from(old.as_u64()?).ok()?;
            rows.new_id(old).map(Value::from)
        };
        self.ends = self.ends.iter().filter_map(|end| rows.new_id(*end)).collect();
        self.begin = id(&self.begin).unwrap_or_default();
        self.pad = id(&self.pad).unwrap_or_default();
        let names_ids = |key: &str| {
            ["_token_id", "_tokens", "_words_ids", "_token_ids", "sequence_bias"]
                .iter()
                .any(|end| key.ends_with(end))
                && !key.starts_with("max_")
                && !key.starts_with("min_")
        };
        self.generation.retain(|key, _| !names_ids(key));
        if rows.dropped() > 0 {
            self.chat_template = Value::Null;
        }
        self
    }

    /// The ids that end the model's texts, in its files' order.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The ids of a model whose documents end with `end_of_text`: that one first, then the others.
    pub(super) fn ids(&self, end_of_text: u32) -> SpecialIds {
        let others = self.ends.iter().copied().filter(|id| *id != end_of_text);
        let ends: Vec<u32> = std::iter::once(end_of_text).chain(others).collect();
        SpecialIds {
            begin: self.begin.clone(),
            end: if let [end] = ends[..] { json!(end) } else { json!(ends) },
            pad: if self.pad.is_null() { json!(end_of_text) } else { self.pad.clone() },
        }
    }

    /// `generation_config.json` with these ids.
    pub(super) fn generation(&self, ids: &SpecialIds) -> Value {
        let mut settings = self.generation.clone();
        if settings.is_empty() {
            settings.insert("_from_model_config".to_owned(), json!(true));
            settings.insert("do_sample".to_owned(), json!(false));
        }
        if !ids.begin.is_null() {
            settings.insert("bos_token_id".to_owned(), ids.begin.clone());
        }
        settings.insert("eos_token_id".to_owned(), ids.end.clone());
        settings.insert("pad_token_id".to_owned(), ids.pad.clone());
        Value::Object(settings)
    }

    /// The token that begins a text, of those of `tokens` (text and id): the one that the
    /// tokenizer's settings name, or where these are silent, that of the id.
    pub(super) fn begin<'a>(
        &self,
        mut tokens: impl Iterator<Item = (&'a str, u64)>,
    ) -> Option<&'a str> {
        let begins = |(text, id): &(&str, u64)| match &self.begin_token {
            Some(said) => said.as_deref() == Some(*text),
            None => self.begin.as_u64() == Some(*id),
        };
        Some(tokens.find(begins)?.0)
    }

    /// The chat template, or null.
    pub(super) fn chat_template(&self) -> &Value {
        &self.chat_template
    }
}
