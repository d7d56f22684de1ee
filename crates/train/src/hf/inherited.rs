//! What a pretrained model's files say besides its shape, and what training leaves as it is.
//!
//! In: the folder of the model that a run starts from. Out: the ids that begin, end and pad its
//! texts, and its generation settings, which the run's own exports carry on.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::json::read_json;
use crate::error::Result;

/// The files' keys that exports carry on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inherited {
    /// The ids that end its texts; nothing where no file says.
    ends: Vec<u32>,
    /// `bos_token_id` and `pad_token_id`, null where the model has none.
    begin: Value,
    pad: Value,
    /// `generation_config.json`.
    generation: Map<String, Value>,
    /// The chat template of `tokenizer_config.json`.
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
        Ok(Self {
            ends: cuvee_data::model_end_of_text(dir)?,
            begin: id("bos_token_id"),
            pad: id("pad_token_id"),
            chat_template: read("tokenizer_config.json")?
                .remove("chat_template")
                .unwrap_or_default(),
            generation,
        })
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

    /// The id that begins a text.
    pub(super) fn begin(&self) -> Option<u64> {
        self.begin.as_u64()
    }

    /// The chat template, or null.
    pub(super) fn chat_template(&self) -> &Value {
        &self.chat_template
    }
}
