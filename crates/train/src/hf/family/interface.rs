//! What each family's file says of its `config.json`.

use serde_json::{Map, Value};

use crate::error::Result;
use crate::hf::config_file::ConfigFile;
use crate::model::{Family, ModelConfig};

/// One family.
pub(in crate::hf) struct FamilyFile {
    /// Which it is; its names and what its arithmetic has stand in the model's table.
    pub(in crate::hf) family: Family,
    /// What an absent key means, as in its class of `transformers`.
    pub(in crate::hf) defaults: Defaults,
    /// Keys that `read` looks at, or that mean nothing to this family.
    pub(in crate::hf) own_keys: &'static [&'static str],
    /// Puts what only this family has into the model, and refuses what is not computed.
    pub(in crate::hf) read: fn(&ConfigFile, &mut ModelConfig) -> Result<()>,
    /// The keys of an export that only this family has.
    pub(in crate::hf) write: fn(&ModelConfig, &mut Map<String, Value>),
}

/// What an absent key means.
#[derive(Clone, Copy)]
pub(in crate::hf) struct Defaults {
    /// `num_key_value_heads`; `None`: as many as query heads, which a null always means.
    pub(in crate::hf) kv_heads: Option<usize>,
    /// `head_dim`; `None`: the width over the heads.
    pub(in crate::hf) head_dim: Option<usize>,
    /// `max_position_embeddings`.
    pub(in crate::hf) positions: usize,
    /// `rope_theta`.
    pub(in crate::hf) rope_theta: f64,
    /// `tie_word_embeddings`.
    pub(in crate::hf) tied: bool,
}

/// A `sliding_window` that is not to be used: `use_sliding_window`, or else the `layer_types`, must
/// say so. `slides` tells whether any layer would.
pub(in crate::hf) fn refuse_window(file: &ConfigFile, slides: bool) -> Result<()> {
    // Layer types that are there were all found to be full.
    if file.flag_or("use_sliding_window", false)? && slides && file.get("layer_types").is_none() {
        let expected = "false, or a window that no layer has";
        return Err(file.unsupported("use_sliding_window", expected, None));
    }
    Ok(())
}
