//! `config.json`: from Hugging Face's keys to a [`ModelConfig`] and back.
//!
//! A file that asks for other arithmetic (another activation, biases elsewhere, a key that nobody
//! here knows) is refused: loaded anyway, it would give plausible and wrong numbers.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::config_file::ConfigFile;
use super::family::{self, Defaults};
use super::inherited::SpecialIds;
use super::keys::refuse_others;
use super::rope::{read_rope, write_rope};
use crate::error::Result;
use crate::model::{ModelConfig, RopeScaling};

/// The model that `dir/config.json` describes.
///
/// # Errors
/// [`TrainError::Io`](crate::TrainError::Io); [`TrainError::Json`](crate::TrainError::Json) for a
/// missing or malformed key; [`TrainError::UnsupportedModel`](crate::TrainError::UnsupportedModel)
/// for other arithmetic and for lengths that do not fit together.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    let file = ConfigFile::read(&dir.join("config.json"))?;
    let entry = family::named_in(&file)?;
    refuse_others(&file, entry.own_keys)?;
    refuse_layer_types(&file)?;
    let Defaults { kv_heads, head_dim, positions, rope_theta, tied } = entry.defaults;
    let heads = file.length("num_attention_heads")?;
    let dim = file.length("hidden_size")?;
    let kv_heads = kv_heads.filter(|_| !file.is_null("num_key_value_heads")).unwrap_or(heads);
    let head_dim = head_dim.unwrap_or_else(|| dim.checked_div(heads).unwrap_or(0));
    let max_context = file.length_or("max_position_embeddings", positions)?;
    let (rope_theta, rope_scaling) = read_rope(&file, rope_theta, max_context)?;
    let mut model = ModelConfig {
        vocab_size: file.length("vocab_size")?,
        dim,
        layers: file.length("num_hidden_layers")?,
        heads,
        kv_heads: file.length_or("num_key_value_heads", kv_heads)?,
        head_dim: file.length_or("head_dim", head_dim)?,
        ffn: file.length("intermediate_size")?,
        max_context,
        rope_theta,
        norm_eps: file.number_or("rms_norm_eps", 1e-6)?,
        tied: file.flag_or("tie_word_embeddings", tied)?,
        rope_scaling,
        qk_norm: false,
        qkv_bias: false,
        nope_layers: Vec::new(),
        sliding_window: None,
        family: None,
    };
    // Before anything of the size of the layers is made.
    let plain = ModelConfig { rope_scaling: RopeScaling::Default, ..model.clone() };
    if let Some(misfit) = plain.misfit() {
        return Err(file.does_not_fit(misfit));
    }
    (entry.read)(&file, &mut model)?;
    let model = model.exported_as(Some(entry.family));
    match model.misfit() {
        None => Ok(model),
        Some(misfit) => Err(file.does_not_fit(misfit)),
    }
}

/// Layers of several kinds are not computed.
fn refuse_layer_types(file: &ConfigFile) -> Result<()> {
    const KEY: &str = "layer_types";
    let full = |kind: &Value| matches!(kind.as_str(), Some("full_attention" | "attention"));
    match file.get(KEY) {
        None => Ok(()),
        Some(Value::Array(kinds)) if kinds.iter().all(full) => Ok(()),
        Some(_) => Err(file.unsupported(KEY, "\"full_attention\" for every layer", None)),
    }
}

/// The keys `transformers` reads, all of them, so that its defaults play no part.
///
/// # Errors
/// [`TrainError::Config`](crate::TrainError::Config) where the family that the model is to be
/// exported as does not have its arithmetic.
pub(super) fn config_json(model: &ModelConfig, ids: &SpecialIds) -> Result<Value> {
    let family = model.export_family()?;
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("architectures", json!([family.architecture()]));
    put("model_type", json!(family.model_type()));
    put("vocab_size", json!(model.vocab_size));
    put("hidden_size", json!(model.dim));
    put("intermediate_size", json!(model.ffn));
    put("num_hidden_layers", json!(model.layers));
    put("num_attention_heads", json!(model.heads));
    put("num_key_value_heads", json!(model.kv_heads));
    put("head_dim", json!(model.head_dim));
    put("max_position_embeddings", json!(model.max_context));
    put("rms_norm_eps", json!(model.norm_eps));
    write_rope(model, &mut keys);
    keys.insert("hidden_act".to_owned(), json!("silu"));
    (family::of(family).write)(model, &mut keys);
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("attention_dropout", json!(0.0));
    put("initializer_range", json!(0.02));
    put("tie_word_embeddings", json!(model.tied));
    put("use_cache", json!(true));
    put("bos_token_id", ids.begin.clone());
    put("eos_token_id", ids.end.clone());
    put("pad_token_id", ids.pad.clone());
    put("torch_dtype", json!("float32"));
    Ok(Value::Object(keys))
}
