//! Mistral: a Llama whose attention may see a window of positions only. The window is not computed:
//! sequences within it are the same without.

use serde_json::json;

use super::interface::{Defaults, FamilyFile};
use crate::model::Family;

/// `sliding_window` where the file has no such key; a null is none.
const WINDOW: usize = 4096;

pub(super) const FILE: FamilyFile = FamilyFile {
    family: Family::Mistral,
    defaults: Defaults {
        kv_heads: Some(8),
        head_dim: None,
        positions: 4096 * 32,
        rope_theta: 10_000.0,
        tied: false,
    },
    own_keys: &["sliding_window"],
    read: |file, model| {
        model.sliding_window = match file.is_null("sliding_window") {
            true => None,
            false => Some(file.length_or("sliding_window", WINDOW)?),
        };
        Ok(())
    },
    write: |model, keys| {
        keys.insert("sliding_window".to_owned(), json!(model.sliding_window));
    },
};
