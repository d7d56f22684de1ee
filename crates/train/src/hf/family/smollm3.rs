//! SmolLM3: a Llama, some of whose layers have no rotary positions (NoPE; Yang et al., 2025).

use serde_json::{Value, json};

use super::interface::{Defaults, FamilyFile, refuse_window};
use crate::error::Result;
use crate::hf::config_file::ConfigFile;
use crate::model::{Family, ModelConfig};

/// `no_rope_layer_interval` where the file has no such key.
const INTERVAL: usize = 4;

pub(super) const FILE: FamilyFile = FamilyFile {
    family: Family::SmolLm3,
    defaults: Defaults {
        kv_heads: Some(4),
        head_dim: None,
        positions: 32_768,
        rope_theta: 2_000_000.0,
        tied: true,
    },
    own_keys: &[
        "no_rope_layers",
        "no_rope_layer_interval",
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
    ],
    read: |file, model| {
        model.nope_layers = nope_layers(file, model)?;
        refuse_window(file, file.get("sliding_window").is_some() && !model.nope_layers.is_empty())
    },
    write: |model, keys| {
        let rotates = |layer| u8::from(model.rotates(layer));
        let rotating: Vec<u8> = (0..model.layers).map(rotates).collect();
        keys.insert("no_rope_layers".to_owned(), json!(rotating));
        keys.insert("no_rope_layer_interval".to_owned(), json!(INTERVAL));
        keys.insert("use_sliding_window".to_owned(), json!(false));
        keys.insert("sliding_window".to_owned(), Value::Null);
        keys.insert("attention_bias".to_owned(), json!(false));
        keys.insert("mlp_bias".to_owned(), json!(false));
    },
};

/// The layers that are not rotated: those with a 0 in `no_rope_layers`, which lists all; without
/// the list the last of each `no_rope_layer_interval`.
fn nope_layers(file: &ConfigFile, model: &ModelConfig) -> Result<Vec<usize>> {
    const LIST: &str = "no_rope_layers";
    if let Some(list) = file.get(LIST) {
        let rotates = |value: &Value| value.as_f64().map(|n| n != 0.0).or(value.as_bool());
        let each: Option<Vec<bool>> =
            list.as_array().and_then(|list| list.iter().map(rotates).collect());
        let each = each.filter(|each| each.len() >= model.layers);
        let Some(each) = each else {
            let expected = format!("a list of 0 or 1 for each of {} layers", model.layers);
            return Err(file.unsupported(LIST, expected, None));
        };
        return Ok((0..model.layers).filter(|&layer| !each[layer]).collect());
    }
    const KEY: &str = "no_rope_layer_interval";
    let interval = file.length_or(KEY, INTERVAL)?;
    if interval == 0 {
        return Err(file.unsupported(KEY, "at least 1", None));
    }
    Ok((0..model.layers).filter(|layer| (layer + 1).is_multiple_of(interval)).collect())
}
