//! A `config.json`, its keys read with errors that name them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json::read_json;
use crate::error::{Result, TrainError};
use crate::model::{Family, Misfit};

/// A `config.json`. A null is an absent key, as mostly in transformers.
pub(super) struct ConfigFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

/// Characters of a value that an error shows.
const SHOWN: usize = 80;

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), keys: read_json(path)? })
    }

    /// All keys and their values, nulls among them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.keys.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// Whether the file says that there is nothing of this name, which is not the same as nothing
    /// said where a family has a default.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn wrong(&self, key: &str, expected: &str) -> TrainError {
        let found = self.get(key).map_or("no such key".to_owned(), Value::to_string);
        TrainError::Json { path: self.path.clone(), expected: format!("{expected} `{key}`"), found }
    }

    pub(super) fn length(&self, key: &str) -> Result<usize> {
        let length = self.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        length.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    pub(super) fn length_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.length(key) } else { Ok(default) }
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false for")),
        }
    }

    /// The error for a key that asks for other arithmetic; `found` where that is not its value.
    pub(super) fn unsupported(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: Option<String>,
    ) -> TrainError {
        let hint = format!(
            "choose a model without it, of a family that is computed here: {}",
            supported()
        );
        self.refused(key, expected, found, hint)
    }

    /// The same with another hint.
    pub(super) fn refused(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: Option<String>,
        hint: impl Into<String>,
    ) -> TrainError {
        let value = || self.get(key).map_or("no such key".to_owned(), shown);
        TrainError::UnsupportedModel {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: expected.into(),
            found: found.unwrap_or_else(value),
            hint: hint.into(),
        }
    }

    pub(super) fn does_not_fit(&self, misfit: Misfit) -> TrainError {
        let key = match misfit.field {
            "dim" => "hidden_size",
            "layers" => "num_hidden_layers",
            "heads" => "num_attention_heads",
            "kv_heads" => "num_key_value_heads",
            // Where there is no such key, a head is as wide as the model over its heads.
            "head_dim" if self.get("head_dim").is_none() => "num_attention_heads",
            "ffn" => "intermediate_size",
            "max_context" => "max_position_embeddings",
            "norm_eps" => "rms_norm_eps",
            "rope_scaling" if self.get("rope_scaling").is_none() => "rope_parameters",
            "nope_layers" => "no_rope_layers",
            "family" => "model_type",
            same => same,
        };
        self.refused(
            key,
            misfit.expected,
            Some(misfit.found),
            "the file may be damaged; download the model's config.json again, or choose another model",
        )
    }
}

/// A value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The families, as a list.
pub(super) fn supported() -> String {
    let names: Vec<&str> = Family::all().map(Family::model_type).collect();
    names.join(", ")
}
