//! `config.json`: from Hugging Face's keys to a [`ModelConfig`] and back.
//!
//! A file that asks for other arithmetic (scaled rotary positions, biases, another activation) is
//! refused: loaded anyway, it would give plausible and wrong numbers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::inherited::SpecialIds;
use super::json::read_json;
use crate::error::{Result, TrainError};
use crate::model::{Misfit, ModelConfig};

/// The model that `dir/config.json` describes.
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Json`] for a missing or malformed key,
/// [`TrainError::UnsupportedModel`] for other arithmetic and for lengths that do not fit together.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    let file = ConfigFile::read(&dir.join("config.json"))?;
    file.refuse_other_arithmetic()?;
    let heads = file.length("num_attention_heads")?;
    let dim = file.length("hidden_size")?;
    // Defaults are those of transformers' LlamaConfig.
    let model = ModelConfig {
        vocab_size: file.length("vocab_size")?,
        dim,
        layers: file.length("num_hidden_layers")?,
        heads,
        kv_heads: file.length_or("num_key_value_heads", heads)?,
        head_dim: file.length_or("head_dim", dim.checked_div(heads).unwrap_or(0))?,
        ffn: file.length("intermediate_size")?,
        max_context: file.length_or("max_position_embeddings", 2048)?,
        rope_theta: file.rope_theta()?,
        norm_eps: file.number_or("rms_norm_eps", 1e-6)?,
        tied: file.flag_or("tie_word_embeddings", false)?,
    };
    match model.misfit() {
        None => Ok(model),
        Some(misfit) => Err(file.does_not_fit(misfit)),
    }
}

/// The keys `transformers` reads, all of them, so that its defaults play no part.
pub(super) fn config_json(model: &ModelConfig, ids: &SpecialIds) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.dim,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.max_context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": null,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "pretraining_tp": 1,
        "initializer_range": 0.02,
        "tie_word_embeddings": model.tied,
        "use_cache": true,
        "bos_token_id": ids.begin,
        "eos_token_id": ids.end,
        "pad_token_id": ids.pad,
        "torch_dtype": "float32",
    })
}

/// A `config.json`, its keys read with errors that name them. A null is an absent key, as in
/// transformers.
struct ConfigFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), keys: read_json(path)? })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> TrainError {
        let found = self.get(key).map_or("no such key".to_owned(), Value::to_string);
        TrainError::Json { path: self.path.clone(), expected: format!("{expected} `{key}`"), found }
    }

    fn length(&self, key: &str) -> Result<usize> {
        let length = self.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        length.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn length_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.length(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false for")),
        }
    }

    fn does_not_fit(&self, misfit: Misfit) -> TrainError {
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
            same => same,
        };
        TrainError::UnsupportedModel {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: misfit.expected,
            found: misfit.found,
            hint: "the file may be damaged; download the model's config.json again, or choose another model"
                .to_owned(),
        }
    }

    /// `rope_theta`, or where newer files keep it, `rope_parameters.rope_theta`.
    fn rope_theta(&self) -> Result<f64> {
        match self.get("rope_parameters").and_then(|parameters| parameters.get("rope_theta")) {
            Some(theta) => theta
                .as_f64()
                .ok_or_else(|| self.wrong("rope_parameters", "a number rope_theta in")),
            None => self.number_or("rope_theta", 10_000.0),
        }
    }

    fn refuse_other_arithmetic(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str| {
            Err(TrainError::UnsupportedModel {
                path: self.path.clone(),
                key: key.to_owned(),
                expected: expected.to_owned(),
                found: self.get(key).map_or("no such key".to_owned(), Value::to_string),
                hint: "this build computes the plain Llama decoder; choose a model of that family"
                    .to_owned(),
            })
        };
        if self.get("model_type").and_then(Value::as_str) != Some("llama") {
            return refuse("model_type", "\"llama\"");
        }
        if self.get("hidden_act").is_some_and(|act| act != "silu") {
            return refuse("hidden_act", "\"silu\"");
        }
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag_or(key, false)? {
                return refuse(key, "false");
            }
        }
        for key in ["rope_scaling", "rope_parameters"] {
            if let Some(scaling) = self.get(key) {
                let kind = scaling
                    .get("rope_type")
                    .or_else(|| scaling.get("type"))
                    .and_then(Value::as_str);
                let plain = kind == Some("default") || (key == "rope_parameters" && kind.is_none());
                let partial = scaling
                    .get("partial_rotary_factor")
                    .and_then(Value::as_f64)
                    .is_some_and(|f| f != 1.0);
                if !plain || partial {
                    return refuse(key, "null, or the type \"default\"");
                }
            }
        }
        for (key, plain) in
            [("partial_rotary_factor", 1.0), ("embedding_multiplier", 1.0), ("logits_scaling", 1.0)]
        {
            if self.number_or(key, plain)? != plain {
                return refuse(key, "1 or no such key");
            }
        }
        if self.get("quantization_config").is_some() {
            return refuse("quantization_config", "none");
        }
        Ok(())
    }
}
