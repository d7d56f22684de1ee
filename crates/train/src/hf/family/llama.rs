//! Llama: what all the others have in common. SmolLM, SmolLM2, TinyLlama and many more are Llamas.

use serde_json::json;

use super::interface::{Defaults, FamilyFile};
use crate::model::Family;

pub(super) const FILE: FamilyFile = FamilyFile {
    family: Family::Llama,
    defaults: Defaults {
        kv_heads: None,
        head_dim: None,
        positions: 2048,
        rope_theta: 10_000.0,
        tied: false,
    },
    own_keys: &[],
    read: |_, _| Ok(()),
    write: |_, keys| {
        keys.insert("attention_bias".to_owned(), json!(false));
        keys.insert("attention_dropout".to_owned(), json!(0.0));
        keys.insert("mlp_bias".to_owned(), json!(false));
        keys.insert("pretraining_tp".to_owned(), json!(1));
    },
};
