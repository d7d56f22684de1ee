//! Qwen2 and Qwen2.5: a Llama with biases of queries, keys and values.

use serde_json::{Map, Value, json};

use super::interface::{Defaults, FamilyFile, refuse_window};
use crate::error::Result;
use crate::hf::config_file::ConfigFile;
use crate::model::{Family, ModelConfig};

/// Keys that are about windows.
pub(super) const WINDOW_KEYS: &[&str] =
    &["use_sliding_window", "sliding_window", "max_window_layers"];

pub(super) const FILE: FamilyFile = FamilyFile {
    family: Family::Qwen2,
    defaults: Defaults {
        kv_heads: Some(32),
        head_dim: None,
        positions: 32_768,
        rope_theta: 10_000.0,
        tied: false,
    },
    own_keys: WINDOW_KEYS,
    read: |file, model| {
        model.qkv_bias = true;
        refuse_windows_above(file, model)
    },
    write: write_no_window,
};

/// Qwen's windows: in the layers from `max_window_layers` on.
pub(super) fn refuse_windows_above(file: &ConfigFile, model: &ModelConfig) -> Result<()> {
    let first = file.length_or("max_window_layers", 28)?;
    refuse_window(file, first < model.layers && !file.is_null("sliding_window"))
}

/// What an export says of windows.
pub(super) fn write_no_window(model: &ModelConfig, keys: &mut Map<String, Value>) {
    keys.insert("use_sliding_window".to_owned(), json!(false));
    keys.insert("sliding_window".to_owned(), Value::Null);
    keys.insert("max_window_layers".to_owned(), json!(model.layers));
}
