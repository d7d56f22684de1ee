//! Qwen3: a Llama with an RMSNorm over each head's queries and keys.

use serde_json::json;

use super::interface::{Defaults, FamilyFile};
use super::qwen2::{WINDOW_KEYS, refuse_windows_above, write_no_window};
use crate::model::Family;

pub(super) const FILE: FamilyFile = FamilyFile {
    family: Family::Qwen3,
    defaults: Defaults {
        kv_heads: Some(32),
        head_dim: Some(128),
        positions: 32_768,
        rope_theta: 10_000.0,
        tied: false,
    },
    own_keys: WINDOW_KEYS,
    read: |file, model| {
        model.qk_norm = true;
        refuse_windows_above(file, model)
    },
    write: |model, keys| {
        keys.insert("attention_bias".to_owned(), json!(false));
        write_no_window(model, keys);
    },
};
